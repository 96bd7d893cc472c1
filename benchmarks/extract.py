"""Rows of an extract through the real splitting writer: written, read back and delivered, plain and zipped."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import polars as pl

from benchmarks.machine import Failed, Sampler
from benchmarks.report import MIB, Grid, tell
from ccs_dacs_pipeline.dacs.extract_file import write_extract
from ccs_dacs_pipeline.dacs.names import FileNameTemplate
from ccs_dacs_pipeline.dacs.verify import verify_file
from ccs_dacs_pipeline.dacs.zip_file import member_of
from ccs_dacs_pipeline.entities import ENTITIES, load_profile
from ccs_dacs_pipeline.folders import LocalFolder, publish
from ccs_dacs_pipeline.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ccs_dacs_pipeline.dacs.extract_file import ExtractFile
    from ccs_dacs_pipeline.entities.profile import EntityLayout

PLAIN = "{batchCode}_{batchNumber}_{rerunNumber}.csv"
ZIPPED = f"{PLAIN}.zip"
_FRAME_ROWS = 20_000


@dataclass(frozen=True)
class Figures:
    """One extract.

    Attributes:
        name: what it is called in the tables.
        rows: its records.
        sizes: bytes of each part.
        content: bytes of the records, before any zip.
        write: seconds of the writing.
        read: seconds of reading all parts back, with every check.
        deliver: seconds of publishing all parts within the file system, each hashed once more.
        peak: the largest memory of this process meanwhile, bytes.
    """

    name: str
    rows: int
    sizes: Sequence[int]
    content: int
    write: float
    read: float
    deliver: float
    peak: int


def measure(folder: Path, *, name: str, size: int, template: str) -> Figures:
    """Writes an extract of `size` bytes or a frame more, reads it back and delivers it within the file system.

    Raises:
        Failed: what was read back is not what was written.
    """
    source, target = LocalFolder(folder / "extract"), LocalFolder(folder / "upload")
    profile = load_profile("assumed-tail")
    layout, dialect = profile.entities["contact"], profile.dialect
    name_of = partial(_name, FileNameTemplate.parse(template))
    content = 0

    def frames() -> Iterator[pl.DataFrame]:
        nonlocal content
        for first in count(0, _FRAME_ROWS):
            if content >= size:
                return
            frame = _frame(layout, first)
            content += sum(int(column.str.len_bytes().sum()) + frame.height for column in frame)
            yield frame

    sampler = Sampler(os.getpid(), "rss")
    start = time.perf_counter()
    limit = int(Settings.model_fields["max_file_bytes"].default)
    files = write_extract(frames(), folder=source, layout=layout, dialect=dialect, max_bytes=limit, name_of=name_of)
    written = time.perf_counter()
    last_id = None
    for file in files:
        with source.open(file.name) as stream:
            found = verify_file(
                stream, layout=layout, dialect=dialect, previous_id=last_id, member=member_of(file.name)
            )
        if not found.sound or (found.rows, found.sha256) != (file.rows, file.sha256):
            raise Failed(f"{file.name} is not what was written.")
        last_id = found.last_id
    read = time.perf_counter()
    for file in files:
        publish(source, file.name, target, sha256=file.sha256)
    delivered = time.perf_counter()
    sampler.stop()
    _remove(files, source, target)
    tell(f"extract {name}: {len(files)} parts in {delivered - start:.1f} s")
    return Figures(
        name=name,
        rows=sum(file.rows for file in files),
        sizes=[file.bytes for file in files],
        content=content,
        write=written - start,
        read=read - written,
        deliver=delivered - read,
        peak=max((one.memory for one in sampler.samples), default=0),
    )


def table(found: Sequence[Figures]) -> Grid:
    """The figures for reading; rates are of the records' bytes before any zip."""
    rows = []
    for one in found:
        mib = one.content / MIB
        rows.append(
            (
                one.name,
                f"{one.rows:,}",
                f"{mib:,.0f}",
                ", ".join(f"{size / MIB:,.1f}" for size in one.sizes),
                f"{one.write:,.1f}",
                f"{mib / one.write:,.0f}",
                f"{one.read:,.1f}",
                f"{mib / one.read:,.0f}",
                f"{one.deliver:,.2f}",
                f"{one.peak / MIB:,.0f}",
            )
        )
    head = ("", "rows", "MiB", "parts, MiB", "write s", "MiB/s", "read back s", "MiB/s", "deliver s", "peak RSS MiB")
    return Grid("Extracts: written, read back and delivered within the file system", head, rows)


def as_result(one: Figures) -> dict[str, object]:
    """The figures for the JSON."""
    return asdict(one)


def _name(template: FileNameTemplate, part: int | None) -> str:
    return template.name(batch_code=ENTITIES[0].initial_code, batch_number=1, rerun=0, part=part)


def _frame(layout: EntityLayout, first: int) -> pl.DataFrame:
    """Records from the number `first` on, whose values vary as those of persons do."""
    number = pl.int_range(first, first + _FRAME_ROWS, dtype=pl.UInt64)
    mixed = number.hash(seed=7)
    values = {
        "External Id": number.cast(pl.String).str.zfill(10),
        "Change Date Time": pl.format("2026-0{}-1{}-09.30.0{}", mixed % 9 + 1, mixed % 10, mixed % 7),
        "Initial Load Sync Flag": pl.lit("Y"),
        "Contact Type": pl.lit("PERSON"),
        "Name": pl.format("Surname{}, Given{}", mixed % 90_000, mixed % 7_000),
        "Home Phone": pl.format("+1 555 {}", mixed % 10_000_000),
        "Mobile Phone": pl.format("+1 777 {}", mixed % 9_999_991),
        "Email": pl.format("given{}.surname{}@example.com", mixed % 7_000, mixed % 90_000),
        "Life Support Sensitive Load": pl.lit("N"),
    }
    columns = [values.get(name, pl.lit("")).alias(name) for name in layout.names]
    return pl.select(number.alias("number")).select(columns)


def _remove(files: Sequence[ExtractFile], *folders: LocalFolder) -> None:
    for folder in folders:
        for file in files:
            folder.remove(file.name)
