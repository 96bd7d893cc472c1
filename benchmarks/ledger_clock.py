"""Runs a command of the pipeline and clocks its ledger: `python -m benchmarks.ledger_clock FILE words...`.

The clock runs while a transaction is open, the wait for it included, and is written to the file at the end.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ccs_dacs_pipeline.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    Block = Callable[[Ledger], AbstractContextManager[Connection]]


class Clock:
    """Seconds and number of transactions, over all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.figures = {"seconds": 0.0, "write": 0, "read": 0}

    def wrapped(self, kind: str, block: Block) -> Block:
        """The ledger's block, clocked."""

        @contextmanager
        def clocked(ledger: Ledger) -> Iterator[Connection]:
            begun = time.perf_counter()
            try:
                with block(ledger) as db:
                    yield db
            finally:
                with self._lock:
                    self.figures["seconds"] += time.perf_counter() - begun
                    self.figures[kind] += 1

        return clocked


def main() -> None:
    """Runs the command; its exit code is this one's."""
    out, *words = sys.argv[1:]
    clock = Clock()
    for kind in ("write", "read"):
        setattr(Ledger, kind, clock.wrapped(kind, getattr(Ledger, kind)))
    from ccs_dacs_pipeline.cli.app import main as command  # noqa: PLC0415 - after the ledger is wrapped

    sys.argv = ["ccs-dacs", *words]
    try:
        command()
    finally:
        Path(out).write_text(json.dumps(clock.figures))


if __name__ == "__main__":
    main()
