"""Whether tools wrote the same rows: one hash over the sorted lines, per entity."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

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
    with _opened(path) as file:
        if dialect == "plain":
            for line in file:
                yield line.removesuffix("\n")
        else:
            for row in csv.reader(file, delimiter="\t"):
                yield "\t".join(row[:width])


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    if path.suffix != ".zip":
        with path.open(encoding="utf-8", newline="\n") as file:
            yield file
        return
    with zipfile.ZipFile(path) as container, container.open(path.stem) as member:
        yield io.TextIOWrapper(member, encoding="utf-8", newline="\n")


def check_same(name: str, found: Mapping[str, RowSet], expected: Mapping[str, RowSet]) -> None:
    """Checks a tool's rows against ours.

    Raises:
        Different: names tool, entity and both figures.
    """
    for entity, mine in expected.items():
        if found.get(entity) != mine:
            raise Different(f"{name} wrote other rows of {entity}: {found.get(entity)} where the pipeline has {mine}")
