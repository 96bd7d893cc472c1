"""Writes extract files: records as lines, ascending by External Id, split at record boundaries.

Source of the rules: record-layouts.md, File dialect and File names.
"""

from __future__ import annotations

import codecs
import io
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count, takewhile
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from ccs_dacs_pipeline.dacs.zip_file import ZippedContent, content_limit, member_of
from ccs_dacs_pipeline.parallel import WORKERS, ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ccs_dacs_pipeline.entities.profile import Dialect, EntityLayout
    from ccs_dacs_pipeline.folders import Folder


class ExtractError(Exception):
    """Records cannot be written as an extract file. The message names the file and holds no personal value."""


class NotAscending(ExtractError):
    """The records do not ascend by External Id, so an id may stand twice."""


class NotWritable(ExtractError):
    """A value cannot be carried by the file's dialect."""


@dataclass(frozen=True)
class ExtractFile:
    """A finished extract file: a whole one, or one part (from 1) of several."""

    name: str
    part: int | None
    rows: int
    bytes: int
    sha256: str


def write_extract(
    frames: Iterable[pl.DataFrame],
    *,
    folder: Folder,
    layout: EntityLayout,
    dialect: Dialect,
    max_bytes: int,
    name_of: Callable[[int | None], str],
) -> list[ExtractFile]:
    """Writes the records of one entity, a frame at a time, as one file or as several parts.

    The parts hold the records of the unsplit file, in its order; without a header row (the default) their
    concatenation is that file. With one every part begins with it, since each is loaded on its own. Files of an earlier
    attempt are replaced, and those of its names that no longer arise are removed. After an error, parts that were
    finished stay until a repeat replaces them: an extract file counts once it is recorded.

    A name that ends in `.zip` makes each file a zip, whose only member is named as the file without that end. The same
    records give the same bytes.

    Args:
        frames: the layout's columns in order, all String, null = empty field; ids ascend through all frames.
        folder: the extract folder.
        layout: columns of the entity.
        dialect: separator, header, line end and encoding.
        max_bytes: limit of each file, header included, and of what is in a zip; a record that is larger is a part of
            its own.
        name_of: the file's name, given None when there is only one file, else the part from 1.

    Returns:
        The files in order, none when there are no records.

    Raises:
        NotAscending: an External Id is empty or not greater than the one before it.
        NotWritable: a value holds the separator or a line end, or the encoding cannot carry it.
        ExtractError: a frame does not have the layout's columns.
        FolderError: the folder fails.
    """
    header = _header(layout, dialect)
    blocks = _blocks(frames, layout, dialect, file=name_of(None))
    zipped = member_of(name_of(None)) is not None
    limit = content_limit(max_bytes) if zipped else max_bytes
    pieces = split(blocks, limit=limit - len(header), line_end=dialect.line_end.encode())
    written: list[ExtractFile] = []
    piece = next(pieces, None)
    while piece is not None:
        part, rows = piece.part, 0
        with folder.create() as file, ZippedContent(file) if zipped else nullcontext(file) as content:
            content.write(header)
            while piece is not None and piece.part == part:
                content.write(piece.data)
                rows += piece.rows
                piece = next(pieces, None)
            # Only what comes after the first part tells whether it is the only one.
            number = None if part == 1 and piece is None else part
            name = name_of(number)
            if isinstance(content, ZippedContent):
                content.finish(member_of(name) or name)
            file.commit(name, replace=True)
            written.append(ExtractFile(name=name, part=number, rows=rows, bytes=file.bytes, sha256=file.sha256))
    _remove_leftovers(folder, name_of, kept={file.name for file in written})
    return written


class Block(NamedTuple):
    """Encoded records, each with its line end, and how many they are."""

    data: bytes
    rows: int


class Piece(NamedTuple):
    """Whole records, encoded, and the part (from 1) they belong to."""

    part: int
    data: memoryview
    rows: int


def split(blocks: Iterable[Block], *, limit: int, line_end: bytes) -> Iterator[Piece]:
    """Deals records out to parts, so that each takes as many as fit.

    Args:
        blocks: encoded records.
        limit: bytes a part may hold; only a single larger record exceeds it.
        line_end: what ends each record, and stands nowhere else.

    Yields:
        The blocks, cut where a part ends, parts ascending from 1 without gap.
    """
    part, used = 1, 0
    for block, rows in blocks:
        start = 0
        while start < len(block):
            room = max(0, limit - used)
            end = len(block)
            if end - start > room:
                last = block.rfind(line_end, start, start + room)
                if last < 0 and used:
                    part, used = part + 1, 0
                    continue
                end = (last if last >= 0 else block.index(line_end, start)) + len(line_end)
            # Counted where a part ends within the block alone: that takes a millisecond a megabyte.
            held = rows if end - start == len(block) else block.count(line_end, start, end)
            yield Piece(part, memoryview(block)[start:end], held)
            used += end - start
            start = end


def _header(layout: EntityLayout, dialect: Dialect) -> bytes:
    row = dialect.separator.join(layout.names) + dialect.line_end
    return row.encode(dialect.encoding) if dialect.header else b""


def _blocks(frames: Iterable[pl.DataFrame], layout: EntityLayout, dialect: Dialect, *, file: str) -> Iterator[Block]:
    """Yields each frame as encoded records, once its columns, order and values are found right."""
    checked = _checked(frames, layout, file=file)
    return ahead(lambda item: _encoded(item[0], dialect, file=file, records=item[1]), checked, window=WORKERS)


def _checked(frames: Iterable[pl.DataFrame], layout: EntityLayout, *, file: str) -> Iterator[tuple[pl.DataFrame, int]]:
    """Yields each frame that holds records, and how many records come before it."""
    schema = pl.Schema(dict.fromkeys(layout.names, pl.String()))
    previous_id, records = "", 0
    for frame in frames:
        if frame.schema != schema:
            raise ExtractError(
                f"{file}: a frame has not the columns of the layout of {layout.entity}, all String, in its order. "
                "Materialize the mapped asset again with the layout profile that is set now."
            )
        if frame.is_empty():
            continue
        ids = frame[layout.id_column].fill_null("")
        _check_ascending(ids, previous_id, file)
        yield frame, records
        previous_id = ids[-1]
        records += frame.height


def _check_ascending(ids: pl.Series, previous_id: str, file: str) -> None:
    before = ids.shift(1, fill_value=previous_id)
    falling = (ids <= before).arg_true()
    if falling.len():
        position = falling[0]
        raise NotAscending(
            f"{file}: External Id {ids[position]!r} follows {before[position]!r}, but ids must ascend, each once. "
            "Materialize the assets before it again; if it stays, CCS's pages are out of order."
        )


def _encoded(frame: pl.DataFrame, dialect: Dialect, *, file: str, records: int) -> Block:
    """Returns the frame's records in the file's bytes; `records` of the file come before them."""
    buffer = io.BytesIO()
    frame.write_csv(
        buffer,
        include_header=False,
        separator=dialect.separator,
        line_terminator=dialect.line_end,
        quote_style="never",
        null_value="",
    )
    data = buffer.getvalue()
    marks = dialect.separator * (frame.width - 1) + dialect.line_end
    # Bytes are counted soon; only when a count is off are the values looked at one by one.
    if any(
        not _holds(data, mark.encode(), frame.height * marks.count(mark)) for mark in (dialect.separator, "\r", "\n")
    ):
        raise _not_writable(frame, dialect, file=file, records=records)
    if codecs.lookup(dialect.encoding).name == "utf-8":
        return Block(data, frame.height)
    try:
        return Block(data.decode().encode(dialect.encoding), frame.height)
    except UnicodeEncodeError as error:
        line = error.object.count(dialect.line_end, 0, error.start) + 1
        # From None: the error quotes the whole text, which is personal data.
        raise NotWritable(
            f"{file}, record {records + line}: {dialect.encoding}, the encoding of the layout profile, cannot carry a "
            "character of it. Materialize the mapped asset again with the layout profile that is set now."
        ) from None


def _holds(data: bytes, mark: bytes, count: int) -> bool:
    """Says whether a mark stands in the data so often; one that must not is looked for, a tenth of counting it."""
    return data.count(mark) == count if count else mark not in data


def _not_writable(frame: pl.DataFrame, dialect: Dialect, *, file: str, records: int) -> NotWritable:
    broken = frame.select(
        pl.all().str.contains_any([dialect.separator, "\r", "\n"]).fill_null(value=False).arg_true().first()
    )
    column, position = min(broken.row(0, named=True).items(), key=lambda item: (item[1] is None, item[1]))
    return NotWritable(
        f"{file}, record {records + position + 1}, column {column}: the value holds the separator or a line end. "
        "Materialize the mapped asset again with the layout profile that is set now."
    )


def _remove_leftovers(folder: Folder, name_of: Callable[[int | None], str], *, kept: set[str]) -> None:
    """Removes what an earlier attempt wrote under names of this file that this one no longer has."""
    present = set(folder.names())
    parts = takewhile(present.__contains__, (name_of(part) for part in count(1)))
    leftovers = [name for name in (name_of(None), *parts) if name in present - kept]
    # Last part first: parts stay without a gap, so that a repeat after a crash in here still finds them all.
    for name in reversed(leftovers):
        folder.remove(name)
