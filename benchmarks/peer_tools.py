"""The peers' own environment, and running one of them against the sandbox."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.equality import COLUMNS, Dialect
from benchmarks.machine import Measured, run
from benchmarks.sandbox import USER, SandboxProcess, clean_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "peers.txt"
VENV = HERE / ".venv-peers"
PYTHON = VENV / "bin" / "python"
_STAMP = VENV / ".requirements"


@dataclass(frozen=True)
class Peer:
    """A tool that does the pipeline's job: what it is called, its script, where its files are, how they are written."""

    name: str
    label: str
    script: str
    pattern: str
    dialect: Dialect
    page_size: int


PEERS = (
    Peer("dlt-rows", "dlt, rest_api, Python map", "dlt_rows.py", "files/dacs/{}/*.csv", "quoted", 10_000),
    Peer("dlt-arrow", "dlt, Arrow tables", "dlt_arrow.py", "files/dacs/{}/*.csv", "quoted", 10_000),
    Peer("singer", "Singer SDK tap | target", "singer.py", "files/{}.csv", "plain", 10_000),
)


def ensure() -> Path:
    """Installs the peers' environment when it is missing or its requirements have changed; returns its interpreter."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if _STAMP.exists() and _STAMP.read_text() == wanted:
        return PYTHON
    pip = [str(PYTHON), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    _call([sys.executable, "-m", "venv", "--clear", str(VENV)])
    _call([*pip, "--no-deps", "--require-hashes", "-r", str(REQUIREMENTS)])
    _STAMP.write_text(wanted)
    return PYTHON


def _call(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)


def measure(peer: Peer, out: Path, sandbox: SandboxProcess, *, concurrency: int) -> Measured:
    """Runs a peer once into an empty folder."""
    out.mkdir(parents=True)
    options = {
        "url": sandbox.url,
        "user": USER,
        "out": out,
        "page-size": peer.page_size,
        "concurrency": concurrency,
    }
    words: list[str | Path] = [PYTHON, HERE / "peers" / peer.script]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    # The SDK's log of every request would cost the pair time that it need not spend.
    return run(
        words, env=clean_environment() | {"SINGER_SDK_LOG_CONFIG": str(HERE / "peers" / "log.yaml")}, sandbox=sandbox
    )


def files(peer: Peer, out: Path) -> dict[str, list[Path]]:
    """What a peer wrote, by entity."""
    return {entity: sorted(out.glob(peer.pattern.format(entity))) for entity in COLUMNS}
