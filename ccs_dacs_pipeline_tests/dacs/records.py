"""A small layout with what matters to files: an optional column, a required one, the External Id."""

from collections.abc import Iterable, Iterator, Sequence

import polars as pl
from hypothesis import strategies as st

from ccs_dacs_pipeline.entities.profile import Column, Dialect, EntityLayout

LAYOUT = EntityLayout(
    entity="contact",
    columns=(
        Column(name="External Reference Id", source="external_reference_id"),
        Column(name="External Id", source="external_id", required=True),
        Column(name="Name", source="name", required=True),
        Column(name="Email", source="email"),
    ),
)
DIALECT = Dialect()
Record = tuple[str, str, str, str]

# What cleaning leaves: no control characters, no line separators, no surrogates; quotes, BOM and 4-byte ones stay.
VALUES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=12)
LATIN_VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_categories=("Cc",)), max_size=12)


@st.composite
def records(draw: st.DrawFn, values: st.SearchStrategy[str] = VALUES) -> list[Record]:
    """Good records, ascending by External Id."""
    ids = sorted(draw(st.sets(st.from_regex("[0-9]{1,10}", fullmatch=True), max_size=40)))
    required = values.filter(bool)
    return [(draw(st.sampled_from(["", "85810617092033"])), key, draw(required), draw(values)) for key in ids]


def frame(rows: Sequence[Record]) -> pl.DataFrame:
    """The records as the mapping hands them over: all String, an empty field null."""
    schema = dict.fromkeys(LAYOUT.names, pl.String)
    return pl.DataFrame([[value or None for value in row] for row in rows], schema=schema, orient="row")


def chopped(rows: Sequence[Record], sizes: Iterable[int]) -> Iterator[pl.DataFrame]:
    """The records as frames of the given sizes, one after the other; the last takes what is left."""
    start = 0
    for size in sizes:
        yield frame(rows[start : start + size])
        start += size
    yield frame(rows[start:])


def lines(rows: Iterable[Record], dialect: Dialect = DIALECT) -> list[bytes]:
    """The records as the contract says, one by one."""
    return [(dialect.separator.join(row) + dialect.line_end).encode(dialect.encoding) for row in rows]
