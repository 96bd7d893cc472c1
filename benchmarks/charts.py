"""Charts for the docs, drawn by the peers' environment from the JSON of the benchmarks."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from benchmarks import peer_tools

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def draw(inputs: Sequence[Path], out: Path) -> None:
    """Draws what the inputs hold: cost and memory against size, rates side by side, a backlog."""
    script = peer_tools.HERE / "peers" / "draw.py"
    subprocess.run([peer_tools.ensure(), script, out, *inputs], check=True)
