"""Reads extract files back and checks their bytes, independently of the writer (record-layouts.md, File dialect)."""

from __future__ import annotations

import codecs
import enum
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ccs_dacs_pipeline.entities.profile import Dialect, EntityLayout

_BLOCK_BYTES = 1024 * 1024
_EXAMPLES = 5


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
    stream: BinaryIO, *, layout: EntityLayout, dialect: Dialect, previous_id: str | None = None
) -> Verified:
    """Reads an extract file to its end, a block at a time, and reports what it holds and which rules it breaks.

    The control totals (rows, bytes, SHA-256) are the caller's to compare with the ledger's.

    Args:
        stream: the file, opened for reading bytes.
        layout: columns of the entity.
        dialect: separator, header, line end and encoding.
        previous_id: last External Id of the part before, None for the first part.
    """
    check = _Check(layout, dialect, previous_id)
    digest = hashlib.sha256()
    size = 0
    for block in _whole_lines(stream):
        digest.update(block)
        size += len(block)
        check.lines(block)
    check.end()
    return Verified(
        rows=check.rows,
        bytes=size,
        sha256=digest.hexdigest(),
        counts={rule: check.counts[rule] for rule in Rule},
        examples=tuple(example for rule in Rule for example in check.examples[rule]),
        last_id=check.last_id,
    )


def _whole_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yields the stream's bytes, cut behind line feeds; only the last block may end without one."""
    pending: list[bytes] = []
    while data := stream.read(_BLOCK_BYTES):
        end = data.rfind(b"\n") + 1
        if end:
            yield b"".join((*pending, data[:end]))
            pending = []
        pending.append(data[end:])
    if rest := b"".join(pending):
        yield rest


class _Check:
    """The rules, applied to one block of lines after the other."""

    def __init__(self, layout: EntityLayout, dialect: Dialect, previous_id: str | None) -> None:
        self._names = layout.names
        self._required = [(index, column.name) for index, column in enumerate(layout.columns) if column.required]
        self._id = layout.names.index(layout.id_column)
        self._dialect = dialect
        self._utf8 = codecs.lookup(dialect.encoding).name == "utf-8"
        self._next_line = 1
        self.last_id = previous_id
        self.rows = 0
        self.counts: Counter[Rule] = Counter()
        self.examples: dict[Rule, list[Finding]] = {rule: [] for rule in Rule}

    def lines(self, block: bytes) -> None:
        """Checks the lines of `block`, which ends with a line feed unless the file ends without one."""
        first = self._next_line
        if first == 1 and self._utf8 and block.startswith(codecs.BOM_UTF8):
            self._found(Rule.ENCODING, pl.Series([1]), None, "the file begins with a byte order mark")
            block = block.removeprefix(codecs.BOM_UTF8)
        lines = self._decoded(block.removesuffix(b"\n")).str.split("\n").explode()
        self._next_line += lines.len()
        frame = pl.DataFrame({"line": pl.int_range(first, self._next_line, eager=True), "text": lines})
        if not block.endswith(b"\n"):
            self._found(Rule.LINE_END, frame["line"].tail(1), None, "the file ends without a line end")
        if b"\r" in block or "\r" in self._dialect.line_end:
            frame = self._without_carriage_returns(frame)
        if first == 1:
            frame = self._without_header(frame)
        self.rows += frame.height
        self._check_records(frame)

    def end(self) -> None:
        """Checks what only the end of the file shows."""
        if self._dialect.header and self._next_line == 1:
            self._found(Rule.HEADER, pl.Series([1]), None, "the header row is missing")

    def _decoded(self, block: bytes) -> pl.Series:
        """Returns the block's text as the only value; bytes that are none become U+FFFD, once they are reported."""
        try:
            # Without a Python string in between, which halves the time.
            return (
                pl.Series([block]).cast(pl.String) if self._utf8 else pl.Series([block.decode(self._dialect.encoding)])
            )
        except (pl.exceptions.PolarsError, UnicodeDecodeError):
            lines = enumerate(block.split(b"\n"), start=self._next_line)
            bad = [number for number, line in lines if not self._decodes(line)]
            self._found(Rule.ENCODING, pl.Series(bad), None, f"bytes that are not {self._dialect.encoding}")
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
            self._found(Rule.LINE_END, frame["line"].filter(~whole), None, "the line does not end with CR LF")
            frame = frame.with_columns(pl.col("text").str.strip_suffix("\r"))
        stray = frame["text"].str.contains("\r", literal=True)
        self._found(Rule.LINE_END, frame["line"].filter(stray), None, "a carriage return within the line")
        return frame

    def _without_header(self, frame: pl.DataFrame) -> pl.DataFrame:
        if not self._dialect.header:
            return frame
        if frame["text"][0] != self._dialect.separator.join(self._names):
            self._found(Rule.HEADER, frame["line"].head(1), None, "not the layout's column names in its order")
        return frame.slice(1)

    def _check_records(self, frame: pl.DataFrame) -> None:
        columns = len(self._names)
        held = frame["text"].str.count_matches(self._dialect.separator, literal=True) + 1
        self._found(Rule.COLUMN_COUNT, frame["line"].filter(held != columns), None, f"not {columns} columns")
        # What stands where in the other lines is not known, so that no rule about a column is applied to them.
        known = frame.filter(held == columns)
        if known.is_empty():
            return
        fields = known["text"].str.split_exact(self._dialect.separator, columns - 1).struct.unnest()
        for index, name in self._required:
            missing = fields.to_series(index) == ""
            self._found(Rule.REQUIRED_VALUES, known["line"].filter(missing), name, "empty, but required")
        ids = fields.to_series(self._id)
        falling = ids <= ids.shift(1, fill_value=self.last_id or "")
        self._found(
            Rule.EXTERNAL_IDS_ASCENDING,
            known["line"].filter(falling),
            self._names[self._id],
            "not greater than the id of the record before",
        )
        self.last_id = ids[-1]

    def _found(self, rule: Rule, lines: pl.Series, column: str | None, detail: str) -> None:
        self.counts[rule] += lines.len()
        wanted = _EXAMPLES - len(self.examples[rule])
        self.examples[rule] += [Finding(rule, line, column, detail) for line in lines.head(wanted)]
