"""What a benchmark found: as JSON for keeps, as tables for reading."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MIB = 1024 * 1024
_WIDTH = 160
_LIBRARIES = ("dagster", "httpx", "polars", "sqlalchemy", "uvicorn")
console = Console(width=None if sys.stdout.isatty() else _WIDTH)
progress = Console(stderr=True)


@dataclass(frozen=True)
class Grid:
    """A table of finished texts."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass
class Report:
    """The figures of one benchmark.

    Attributes:
        benchmark: its name.
        options: what it was run with.
        results: a record for each thing measured, with the figures of every run and their medians.
        ratios: what the goals are about.
        stages: where the time of a run of the pipeline went.
        notes: what a reader must know to read the figures rightly.
        tables: the figures for reading; not in the JSON.
    """

    benchmark: str
    options: dict[str, Any]
    results: list[dict[str, Any]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tables: list[Grid] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The figures, and the machine they are from."""
        figures = {
            name: getattr(self, name) for name in ("benchmark", "options", "results", "ratios", "stages", "notes")
        }
        return figures | {"machine": machine(), "at": datetime.now(UTC).isoformat(timespec="seconds")}

    def write(self, path: Path) -> None:
        """Writes the JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_json(), indent=2, default=_plain) + "\n")

    def show(self) -> None:
        """Prints the tables and the notes."""
        for grid in self.tables:
            table = Table(title=grid.title, title_justify="left")
            for index, column in enumerate(grid.columns):
                table.add_column(column, justify="right" if index else "left", no_wrap=not index)
            for row in grid.rows:
                table.add_row(*row)
            console.print(table)
        for note in self.notes:
            console.print(note, markup=False, highlight=False)


def _plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def spread(values: Sequence[float]) -> str:
    """The median, and how far the others lie from it."""
    middle = median(values)
    if len(values) == 1:
        return f"{middle:,.1f}"
    return f"{middle:,.1f} ({min(values):,.1f}-{max(values):,.1f})"


def tell(text: str) -> None:
    """Says on standard error what goes on."""
    progress.print(text, markup=False, highlight=False)
