"""Reads extract files back and checks their bytes, independently of the writer (record-layouts.md, File dialect)."""

from __future__ import annotations

import codecs
import enum
import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

import polars as pl

from ccs_dacs_pipeline.dacs.zip_file import unzipped
from ccs_dacs_pipeline.parallel import WORKERS, ahead

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ccs_dacs_pipeline.entities.profile import Dialect, EntityLayout

_BLOCK_BYTES = 1024 * 1024
_EXAMPLES = 5
_FALLING = "not greater than the id of the record before"


class Rule(enum.StrEnum):
    """What an extract file must keep."""

    ENCODING = "encoding"
    HEADER = "header"
    LINE_END = "line-end"
    COLUMN_COUNT = "column-count"
    REQUIRED_VALUES = "required-values"
    EXTERNAL_IDS_ASCENDING = "external-ids-ascending"


@dataclass(frozen=True)
class Finding:
    """A broken rule: where (line from 1, the header included) and why, without any value."""

    rule: Rule
    line: int
    column: str | None
    detail: str


@dataclass(frozen=True)
class Verified:
    """What a file holds.

    Attributes:
        rows: records, the header not counted.
        bytes: size of the file.
        sha256: of the file's bytes, lower-case hexadecimal.
        counts: findings per rule, 0 for a rule that is kept.
        examples: the first findings of each rule, at most 5.
        last_id: the last External Id, to be the `previous_id` of the next part; None when there is none.
    """

    rows: int
    bytes: int
    sha256: str
    counts: Mapping[Rule, int]
    examples: tuple[Finding, ...]
    last_id: str | None

    @property
    def sound(self) -> bool:
        """Whether every rule is kept."""
        return not any(self.counts.values())


def verify_file(
    stream: BinaryIO,
    *,
    layout: EntityLayout,
    dialect: Dialect,
    previous_id: str | None = None,
    member: str | None = None,
) -> Verified:
    """Reads an extract file to its end, a block at a time, and reports what it holds and which rules it breaks.

    The control totals (rows, bytes, SHA-256) are the caller's to compare with the ledger's.

    Args:
        stream: the file, opened for reading bytes.
        layout: columns of the entity.
        dialect: separator, header, line end and encoding.
        previous_id: last External Id of the part before, None for the first part.
        member: name of the only member of a zip file, whose lines are then read; None for a plain file.

    Raises:
        ZipError: the zip file is damaged, so that it cannot be read to its end.
    """
    digest = hashlib.sha256()
    size = 0

    def read(limit: int) -> bytes:
        nonlocal size
        data = stream.read(limit)
        digest.update(data)
        size += len(data)
        return data

    content = unzipped(read, member) if member else iter(lambda: read(_BLOCK_BYTES), b"")
    total = _Findings()
    lines, rows, last_id = 0, 0, previous_id
    blocks = enumerate(whole_lines(content))
    for part in ahead(lambda item: _Block(layout, dialect, item[1], first=item[0] == 0), blocks, window=WORKERS):
        if part.first_id is not None and part.first_id[1] <= (last_id or ""):
            total.add(Rule.EXTERNAL_IDS_ASCENDING, [lines + part.first_id[0]], layout.id_column, _FALLING)
        total.extend(part.found, lines)
        lines += part.lines
        rows += part.rows
        last_id = part.last_id if part.last_id is not None else last_id
    if dialect.header and not lines:
        total.add(Rule.HEADER, [1], None, "the header row is missing")
    return Verified(
        rows=rows,
        bytes=size,
        sha256=digest.hexdigest(),
        counts={rule: total.counts[rule] for rule in Rule},
        examples=tuple(example for rule in Rule for example in total.examples[rule]),
        last_id=last_id,
    )


def whole_lines(content: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the content's bytes, cut behind line feeds; only the last block may end without one."""
    pending: list[memoryview] = []
    for data in content:
        end = data.rfind(b"\n") + 1
        view = memoryview(data)
        if end:
            yield b"".join((*pending, view[:end]))
            pending = []
        pending.append(view[end:])
    if rest := b"".join(pending):
        yield rest


class _Findings:
    """How often each rule is broken, and the first findings of each."""

    def __init__(self) -> None:
        self.counts: Counter[Rule] = Counter()
        self.examples: dict[Rule, list[Finding]] = {rule: [] for rule in Rule}

    def add(self, rule: Rule, lines: pl.Series | list[int], column: str | None, detail: str) -> None:
        """Takes findings that differ in their lines only."""
        self.counts[rule] += len(lines)
        wanted = _EXAMPLES - len(self.examples[rule])
        self.examples[rule] += [Finding(rule, line, column, detail) for line in lines[: max(0, wanted)]]

    def extend(self, later: _Findings, lines: int) -> None:
        """Takes the findings of what follows behind so many lines."""
        self.counts.update(later.counts)
        for rule, examples in self.examples.items():
            wanted = later.examples[rule][: _EXAMPLES - len(examples)]
            examples.extend(replace(one, line=lines + one.line) for one in wanted)


class _Block:
    """The rules, applied to a block of lines, which ends with a line feed unless the file ends without one.

    Lines are counted from 1 in each block: where it stands in the file is known once those before it are.

    Attributes:
        found: broken rules.
        lines: lines in the block.
        rows: records in the block.
        first_id: line and External Id of the first record whose columns are known, to be held against the block before.
        last_id: External Id of the last such record.
    """

    def __init__(self, layout: EntityLayout, dialect: Dialect, block: bytes, *, first: bool) -> None:
        self._names = layout.names
        self._required = [(index, column.name) for index, column in enumerate(layout.columns) if column.required]
        self._id = layout.names.index(layout.id_column)
        self._dialect = dialect
        self._utf8 = codecs.lookup(dialect.encoding).name == "utf-8"
        self._first = first
        self.found = _Findings()
        self.first_id: tuple[int, str] | None = None
        self.last_id: str | None = None
        frame = self._split(block)
        self.lines = frame.height
        if first:
            frame = self._without_header(frame)
        self.rows = frame.height
        self._check_records(frame)

    def _split(self, block: bytes) -> pl.DataFrame:
        """Returns the lines of the block with their numbers."""
        if self._first and self._utf8 and block.startswith(codecs.BOM_UTF8):
            self.found.add(Rule.ENCODING, [1], None, "the file begins with a byte order mark")
            block = block.removeprefix(codecs.BOM_UTF8)
        lines = self._decoded(block.removesuffix(b"\n")).str.split("\n").explode()
        numbers = pl.int_range(1, 1 + lines.len(), eager=True)
        frame = pl.DataFrame({"line": numbers, "text": lines})
        if not block.endswith(b"\n"):
            self.found.add(Rule.LINE_END, frame["line"].tail(1), None, "the file ends without a line end")
        if b"\r" in block or "\r" in self._dialect.line_end:
            frame = self._without_carriage_returns(frame)
        return frame

    def _decoded(self, block: bytes) -> pl.Series:
        """Returns the block's text as the only value; bytes that are none become U+FFFD, once they are reported."""
        try:
            # Without a Python string in between, which halves the time.
            return (
                pl.Series([block]).cast(pl.String) if self._utf8 else pl.Series([block.decode(self._dialect.encoding)])
            )
        except (pl.exceptions.PolarsError, UnicodeDecodeError):
            lines = enumerate(block.split(b"\n"), start=1)
            bad = [number for number, line in lines if not self._decodes(line)]
            self.found.add(Rule.ENCODING, bad, None, f"bytes that are not {self._dialect.encoding}")
            return pl.Series([block.decode(self._dialect.encoding, errors="replace")])

    def _decodes(self, line: bytes) -> bool:
        try:
            line.decode(self._dialect.encoding)
        except UnicodeDecodeError:
            return False
        return True

    def _without_carriage_returns(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Reports stray and missing carriage returns; returns the lines without those that end them."""
        if self._dialect.line_end == "\r\n":
            whole = frame["text"].str.ends_with("\r")
            self.found.add(Rule.LINE_END, frame["line"].filter(~whole), None, "the line does not end with CR LF")
            frame = frame.with_columns(pl.col("text").str.strip_suffix("\r"))
        stray = frame["text"].str.contains("\r", literal=True)
        self.found.add(Rule.LINE_END, frame["line"].filter(stray), None, "a carriage return within the line")
        return frame

    def _without_header(self, frame: pl.DataFrame) -> pl.DataFrame:
        if not self._dialect.header:
            return frame
        if frame["text"][0] != self._dialect.separator.join(self._names):
            self.found.add(Rule.HEADER, frame["line"].head(1), None, "not the layout's column names in its order")
        return frame.slice(1)

    def _check_records(self, frame: pl.DataFrame) -> None:
        columns = len(self._names)
        held = frame["text"].str.count_matches(self._dialect.separator, literal=True) + 1
        self.found.add(Rule.COLUMN_COUNT, frame["line"].filter(held != columns), None, f"not {columns} columns")
        # What stands where in the other lines is not known, so that no rule about a column is applied to them.
        known = frame.filter(held == columns)
        if known.is_empty():
            return
        # No further than the last column that a rule is about, which takes half the time.
        last = max([self._id, *(index for index, _ in self._required)])
        fields = known["text"].str.split_exact(self._dialect.separator, last).struct.unnest()
        for index, name in self._required:
            missing = fields.to_series(index) == ""
            self.found.add(Rule.REQUIRED_VALUES, known["line"].filter(missing), name, "empty, but required")
        ids = fields.to_series(self._id)
        falling = (ids <= ids.shift(1)).fill_null(value=False)
        self.found.add(Rule.EXTERNAL_IDS_ASCENDING, known["line"].filter(falling), self._names[self._id], _FALLING)
        self.first_id, self.last_id = (known["line"][0], ids[0]), ids[-1]
