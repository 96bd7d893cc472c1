"""Whether tools wrote the same rows: one hash over the sorted lines, per entity."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

COLUMNS = {"contact": 13, "metered_service_point": 20, "metered_service": 12}
"""Columns of the layout; a tool may add some of its own after them."""

Dialect = Literal["plain", "quoted"]


class Different(Exception):
    """Two tools did not write the same rows, so their rates do not compare."""


@dataclass(frozen=True)
class RowSet:
    """The rows of one entity: how many, and a hash that does not depend on their order."""

    rows: int
    sha256: str


def row_sets(files: Mapping[str, Iterable[Path]], dialect: Dialect) -> dict[str, RowSet]:
    """The rows of each entity.

    Args:
        files: the files of each entity.
        dialect: `plain` as the extract files are; `quoted` for tools that cannot write a quotation mark without.
    """
    found = {}
    for entity, paths in files.items():
        width = COLUMNS[entity]
        lines = sorted(line for path in paths for line in _lines(path, dialect, width))
        digest = hashlib.sha256("\n".join(lines).encode())
        found[entity] = RowSet(len(lines), digest.hexdigest())
    return found


def _lines(path: Path, dialect: Dialect, width: int) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="\n") as file:
        if dialect == "plain":
            for line in file:
                yield line.removesuffix("\n")
        else:
            for row in csv.reader(file, delimiter="\t"):
                yield "\t".join(row[:width])


def check_same(name: str, found: Mapping[str, RowSet], expected: Mapping[str, RowSet]) -> None:
    """Checks a tool's rows against ours.

    Raises:
        Different: names tool, entity and both figures.
    """
    for entity, mine in expected.items():
        if found.get(entity) != mine:
            raise Different(f"{name} wrote other rows of {entity}: {found.get(entity)} where the pipeline has {mine}")
