"""What tests do with folders, and a disk that is full."""

import hashlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ccs_dacs_pipeline.folders import Folder


def put(folder: Folder, name: str, data: bytes, *, replace: bool = False) -> str:
    """Stores `data` as `name` and returns its SHA-256."""
    with folder.create(name) as file:
        file.write(data)
        file.commit(name, replace=replace)
        return file.sha256


def content(folder: Folder, name: str) -> bytes:
    with folder.open(name) as stream:
        return stream.read()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def public_directory() -> Iterator[Path]:
    """Makes an empty directory for a while that every user can reach, which pytest's own is not."""
    with TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Gives this process another umask for a while."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Takes the right to write into the directory `path` from this process for a while."""
    mode, user = path.stat().st_mode, os.geteuid()
    path.chmod(0o555)
    if user == 0:  # to whom permissions do not apply
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(mode)


def run_on_small_disk(mount: Path, script: str) -> None:
    """Runs a Python script in a process of its own, for which `disk` is a file system of 256 KiB.

    The file system lives in a mount namespace that needs no rights and ends with the process.
    """
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*namespace, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system allows no mount namespaces, so there is no small disk")
    mount.mkdir()
    code = f"from pathlib import Path\ndisk = Path({str(mount)!r})\n" + textwrap.dedent(script)
    command = 'mount -t tmpfs -o size=256k tmpfs "$1" && exec "$2" -c "$3"'
    done = subprocess.run(
        [*namespace, "sh", "-c", command, "sh", str(mount), sys.executable, code],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
