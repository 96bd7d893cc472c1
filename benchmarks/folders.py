"""Rates of the folders: SFTP beside openssh's own client, object storage beside boto3, local moves, extracts in parts.

The servers run on this machine, in processes of their own: OpenSSH's sshd and moto. Rounds are interleaved. On loopback
the machine's cores bound SFTP, for sites it is mostly the line: sshd may be measured behind lines of given rates too.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import boto3
from botocore.config import Config

from benchmarks import extract
from benchmarks.line import LOOPBACK, Line, line
from benchmarks.machine import Failed, call
from benchmarks.report import MIB, Grid, Report, spread, tell
from ccs_dacs_pipeline.folders import Folder, LocalFolder, publish
from ccs_dacs_pipeline.folders.bucket import Bucket
from ccs_dacs_pipeline.folders.objects import ObjectFolder
from ccs_dacs_pipeline.folders.sftp import SftpFolder, Witness
from ccs_dacs_pipeline.folders.sftp_server import SftpAccess, SftpServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ccs_dacs_pipeline.folders.local import LinkedTemporaryFile

_BLOCK_BYTES = MIB
_NAME = "C1-DCTIL_0001_00.csv"
# By the processor's own instructions, where coreutils' sha256sum may compute it by others.
_SHA256_COMMAND = "openssl dgst -sha256 -r" if shutil.which("openssl") else "sha256sum"


def benchmark(folder: Path, *, megabytes: int, runs: int, extract_gib: float = 0, lines: Sequence[int] = ()) -> Report:
    """Compares.

    Args:
        folder: an empty folder for everything.
        megabytes: size of the file that goes over SFTP and into object storage, MiB.
        runs: rounds; the first one more is thrown away.
        extract_gib: size of an extract that is written, read back and delivered in parts besides, GiB; 0: none.
        lines: rates of lines to an SFTP server, Mbit/s each way, over which the file goes besides.

    Raises:
        Failed: sshd or sftp is not installed, a server does not start, or a line cannot be laid.
    """
    # First of all, while this process has no servers below it whose memory would count.
    extracts = _extracts(folder / "rows", megabytes, extract_gib)
    source = LocalFolder(folder / "extract")
    sha256 = _made(source, _NAME, megabytes * MIB)
    path = source.path / _NAME
    with ExitStack() as stack:
        sftp = stack.enter_context(_sshd(folder / "sshd", LOOPBACK))
        bucket = stack.enter_context(_moto(folder / "moto"))
        unread = _Unread(sftp.folder, sha256)
        objects = ObjectFolder(bucket, "upload")
        works: dict[str, Callable[[], None]] = {
            "sftp openssh": lambda: sftp.put(path),
            "sftp openssh verified": lambda: sftp.put_verified(path, sha256),
            "sftp unread": lambda: _published(source, unread, sha256),
            "sftp published": lambda: _published(source, sftp.folder, sha256),
            "sftp published asking": lambda: _published(source, sftp.asking, sha256),
            "s3 boto3": lambda: _boto3(path, bucket, "when_supported"),
            "s3 boto3 plain": lambda: _boto3(path, bucket, "when_required"),
            "s3 published": lambda: _published(source, objects, sha256),
        }
        seconds = _rounds(works, runs)
        sftp.close()
    rates = {name: megabytes / median(found) for name, found in seconds.items()}
    report = Report(
        "folders",
        {"megabytes": megabytes, "runs": runs},
        results=[{"name": name, "runs": found, "rate": rates[name]} for name, found in seconds.items()],
        ratios={
            "sftp unread / openssh": rates["sftp unread"] / rates["sftp openssh"],
            "sftp published / openssh": rates["sftp published"] / rates["sftp openssh"],
            "sftp published / openssh verified": rates["sftp published"] / rates["sftp openssh verified"],
            "sftp published asking / openssh": rates["sftp published asking"] / rates["sftp openssh"],
            "s3 published / boto3": rates["s3 published"] / rates["s3 boto3"],
            "s3 published / boto3 plain": rates["s3 published"] / rates["s3 boto3 plain"],
        },
        notes=[
            "published: as the pipeline does it: hashed, synced, never overwriting, over SFTP read back.",
            f"asking: the server's own `{_SHA256_COMMAND}` in place of reading back.",
            "unread: the same without reading back; openssh: its client's put alone, neither synced nor read back.",
            "openssh verified: put and synced, got back, hashed and renamed, as the pipeline does it.",
            "boto3 plain: without the checksums that it adds of itself; to uploads without them, as ours are too, moto",
            "puts one more of its own, over a further copy of the whole object.",
        ],
    )
    plain = {"sftp": "sftp openssh", "s3": "s3 boto3"}
    same = {
        "sftp published": "sftp openssh verified",
        "sftp published asking": "sftp openssh verified",
        "s3 published": "s3 boto3 plain",
    }
    report.tables = [
        _beside(
            f"{megabytes:,} MiB, median of {runs}", seconds, rates, lambda name: plain[name.partition(" ")[0]], same
        ),
        *(_over_line(folder, source, sha256, mbit, megabytes, runs, report) for mbit in lines),
        _local(folder, (1, megabytes, 4 * megabytes), runs, report),
        extract.table(extracts),
    ]
    report.results += map(extract.as_result, extracts)
    return report


def _extracts(folder: Path, megabytes: int, gib: float) -> list[extract.Figures]:
    sizes = {"plain": (megabytes * MIB, extract.PLAIN), "zip": (megabytes * MIB, extract.ZIPPED)}
    if gib:
        sizes[f"plain, {gib:g} GiB"] = (int(gib * 1024 * MIB), extract.PLAIN)
    return [extract.measure(folder, name=name, size=size, template=form) for name, (size, form) in sizes.items()]


def _over_line(
    folder: Path, source: LocalFolder, sha256: str, mbit: int, megabytes: int, runs: int, report: Report
) -> Grid:
    """Measures SFTP over a line of a given rate."""
    with line(mbit) as to, _sshd(folder / f"sshd-{mbit}", to) as sftp:
        seconds = _rounds(
            {
                "openssh": lambda: sftp.put(source.path / _NAME),
                "openssh verified": lambda: sftp.put_verified(source.path / _NAME, sha256),
                "published": lambda: _published(source, sftp.folder, sha256),
                "published asking": lambda: _published(source, sftp.asking, sha256),
            },
            runs,
        )
        sftp.close()
    rates = {name: megabytes / median(found) for name, found in seconds.items()}
    prefix = f"sftp at {mbit} Mbit/s"
    report.results += [
        {"name": f"{prefix} {name}", "runs": found, "rate": rates[name]} for name, found in seconds.items()
    ]
    for name in ("published", "published asking"):
        report.ratios[f"{prefix} {name} / openssh"] = rates[name] / rates["openssh"]
    same = dict.fromkeys(("published", "published asking"), "openssh verified")
    return _beside(f"SFTP over a line of {mbit:,} Mbit/s each way", seconds, rates, lambda _: "openssh", same)


def _beside(
    title: str,
    seconds: dict[str, list[float]],
    rates: dict[str, float],
    plain: Callable[[str], str],
    same: Mapping[str, str],
) -> Grid:
    """Returns each work's seconds and rate, beside its peer as it comes, and beside the peer that does the same."""
    rows = [
        (
            name,
            spread(found),
            f"{rates[name]:,.0f}",
            f"{rates[name] / rates[plain(name)]:.0%}",
            f"{rates[name] / rates[same[name]]:.0%}" if name in same else "",
        )
        for name, found in seconds.items()
    ]
    return Grid(title, ("", "seconds", "MiB/s", "of the peer as it comes", "of the peer doing the same"), rows)


def _local(folder: Path, megabytes: Sequence[int], runs: int, report: Report) -> Grid:
    """Measures moves within one file system: the move itself, and all of publishing."""
    source, target = LocalFolder(folder / "local-extract"), LocalFolder(folder / "local-upload")
    rows = []
    for size in megabytes:
        sha256 = _made(source, _NAME, size * MIB)
        placed, whole = [], []
        for _ in range(runs):
            start = time.perf_counter()
            with _linked(source, target) as linked:
                linked.commit(_NAME, replace=False)
            placed.append((time.perf_counter() - start) * 1000)
            target.remove(_NAME)
            start = time.perf_counter()
            publish(source, _NAME, target, sha256=sha256)
            whole.append((time.perf_counter() - start) * 1000)
            target.remove(_NAME)
        name = f"local {size:,} MiB"
        report.results.append({"name": name, "move_ms": placed, "published_ms": whole})
        rows.append((name, spread(placed), spread(whole)))
    return Grid("Local move on one file system", ("", "move, ms", "published with SHA-256, ms"), rows)


@contextmanager
def _linked(source: LocalFolder, target: LocalFolder) -> Iterator[LinkedTemporaryFile]:
    """Begins the move of the file, as publishing does on one file system."""
    linked = target.link(source.path / _NAME)
    if linked is None:
        raise Failed(f"{target.path}: this file system makes no hard links.")
    with linked:
        yield linked


def _rounds(works: dict[str, Callable[[], None]], runs: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(runs + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            taken = time.perf_counter() - start
            tell(f"round {number}: {name} {taken:.1f} s")
            if number:
                seconds[name].append(taken)
    return seconds


def _made(folder: LocalFolder, name: str, size: int) -> str:
    with folder.create() as file:
        for _ in range(size // _BLOCK_BYTES):
            file.write(os.urandom(_BLOCK_BYTES))
        file.commit(name, replace=True)
        return file.sha256


def _published(source: LocalFolder, folder: Folder, sha256: str) -> None:
    publish(source, _NAME, folder, sha256=sha256)
    folder.remove(_NAME)


def _boto3(path: Path, bucket: Bucket, checksums: Literal["when_supported", "when_required"]) -> None:
    client = _client(bucket, Config(request_checksum_calculation=checksums))
    client.upload_file(str(path), bucket.name, "boto3")
    client.delete_object(Bucket=bucket.name, Key="boto3")


def _client(bucket: Bucket, config: Config | None = None) -> Any:  # noqa: ANN401 - boto3 makes its classes when it runs
    return boto3.client(
        "s3",
        endpoint_url=bucket.endpoint,
        region_name=bucket.region,
        aws_access_key_id=bucket.access_key,
        aws_secret_access_key=bucket.secret_key,
        config=config,
    )


class _Unread(SftpFolder):
    """A folder that believes what it sent, to tell the cost of reading back."""

    def __init__(self, folder: SftpFolder, sha256: str) -> None:
        super().__init__(folder.server, folder.path)
        self._sha256 = sha256

    def witness(self, path: str) -> Witness:
        """Returns one that has seen nothing."""
        return Witness()

    def digest(self, path: str) -> str:
        """Returns what was sent; a visible file is looked at nevertheless."""
        return self._sha256 if path.rpartition("/")[2].startswith(".") else super().digest(path)


class _Sftp:
    """A server of this run's own, openssh's client, and our folder on it, read back or with the server asked."""

    def __init__(self, place: Path, host: str, port: int) -> None:
        self._place = place
        self._host = host
        self._port = port
        access = SftpAccess(key_file=place / "user_key", known_hosts=place / "known_hosts")
        self.folder, self.asking = (
            SftpFolder(SftpServer(host, port, getpass.getuser(), one), str(place / "upload"))
            for one in (access, replace(access, sha256_command=_SHA256_COMMAND))
        )

    def close(self) -> None:
        """Ends the connections."""
        self.folder.close()
        self.asking.close()

    def put(self, path: Path) -> None:
        """Sends the file by openssh's client."""
        self._batch(f"put {path} openssh", "rm openssh")

    def put_verified(self, path: Path, sha256: str) -> None:
        """Sends the file by openssh's client, which syncs it; gets it back, compares it and gives it its name."""
        back = self._place / "back"
        self._batch(f"put -f {path} .openssh", f"get .openssh {back}")
        with back.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise Failed("openssh's client brought back something else.")
        back.unlink()
        self._batch("rename .openssh openssh", "rm openssh")

    def _batch(self, *commands: str) -> None:
        options = [
            *("-P", str(self._port), "-i", str(self._place / "user_key"), "-b", "-"),
            *("-o", f"UserKnownHostsFile={self._place / 'known_hosts'}", "-o", "IdentitiesOnly=yes"),
        ]
        batch = "\n".join([f"cd {self._place / 'upload'}", *commands, ""])
        call(["sftp", *options, f"{getpass.getuser()}@{self._host}"], given=batch.encode())


@contextmanager
def _sshd(place: Path, to: Line) -> Iterator[_Sftp]:
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if sshd is None or shutil.which("sftp") is None:
        raise Failed("sshd and sftp are needed: install openssh-server and openssh-client.")
    (place / "upload").mkdir(parents=True)
    for name in ("host_key", "user_key"):
        call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)])
    port = _free_port()
    (place / "known_hosts").write_text(f"[{to.host}]:{port} {(place / 'host_key.pub').read_text()}")
    (place / "config").write_text(
        f"Port {port}\nListenAddress {to.host}\nHostKey {place / 'host_key'}\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {place / 'user_key.pub'}\nSubsystem sftp internal-sftp\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with _process([*to.prefix, sshd, "-D", "-e", "-f", str(place / "config")], to.host, port, place / "log"):
        yield _Sftp(place, to.host, port)


@contextmanager
def _moto(place: Path) -> Iterator[Bucket]:
    place.mkdir()
    port = _free_port()
    host = LOOPBACK.host
    bucket = Bucket("bench", f"http://{host}:{port}", "us-east-1", "key", "secret")
    with _process([sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)], host, port, place / "log"):
        _client(bucket).create_bucket(Bucket=bucket.name)
        yield bucket


@contextmanager
def _process(command: Sequence[str], host: str, port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            for _ in range(300):
                with suppress(OSError), socket.create_connection((host, port), timeout=1):
                    break
                time.sleep(0.1)
            else:
                raise Failed(f"{command[0]} does not answer: {log.read_text()[-1000:]}")
            yield
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK.host, 0))
        return int(listener.getsockname()[1])
