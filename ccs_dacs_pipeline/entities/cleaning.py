"""Cleaning of text for the extract files (record-layouts.md, File dialect).

An extract file knows no quoting, so a control character inside a value would tear its line. Cleaning takes such
characters out, in this order: NUL is removed; each run of other control characters becomes one space; spaces are
trimmed at both ends. Everything else is kept, format characters and other blanks included.

The functions work on whole records: every text of a record is cleaned before anything is compared or composed, so
that mapping rules never meet a padded code or an empty text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from polars._typing import PolarsDataType

LONE_SURROGATE = "\ufffe\uffffLONE-SURROGATE\uffff\ufffe"
"""What a reader of JSON puts in the place of a lone surrogate escape, which UTF-8 cannot hold.

It is framed by noncharacters, which Unicode keeps out of interchange, so no honest text holds it. Cleaning keeps it,
and the rule ``lone-surrogate`` quarantines a record that has it in a mapped value.
"""

CONTROL_CHARACTERS = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"
"""Regular expression for one character that no field can carry: C0, DEL, C1 (NEL among them), U+2028, U+2029."""


def trimmed(text: pl.Expr) -> pl.Expr:
    """Text without spaces (U+0020) at both ends; an empty one is null."""
    return text.str.strip_chars(" ").replace("", None)


def cleaned(text: pl.Expr) -> pl.Expr:
    """Text as a field carries it; an empty one is null (record-layouts.md: null and empty are both an empty field)."""
    without_nul = text.str.replace_all("\x00", "", literal=True)
    return trimmed(without_nul.str.replace_all(CONTROL_CHARACTERS + "+", " "))


def holds_control(text: pl.Expr) -> pl.Expr:
    """Whether a text holds a control character: then cleaning changes it by more than trimming."""
    return text.str.contains(CONTROL_CHARACTERS)


def with_texts(schema: pl.Schema, change: Callable[[pl.Expr], pl.Expr]) -> list[pl.Expr]:
    """One expression per column that changes every text in it, however deeply nested, and drops null list elements.

    Args:
        schema: schema of a frame whose columns are String, or Struct and List of it, nested as they like.
        change: an elementwise String to String expression.
    """
    return [_with_texts(pl.col(name), dtype, change).alias(name) for name, dtype in schema.items()]


def any_text(schema: pl.Schema, test: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
    """Whether any text of a row, however deeply nested, passes an elementwise test; Boolean, never null."""
    tests = (found for name, dtype in schema.items() for found in _tests(pl.col(name), dtype, test))
    return pl.any_horizontal(*(found.fill_null(value=False) for found in tests))


def _with_texts(value: pl.Expr, dtype: PolarsDataType, change: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
    if isinstance(dtype, pl.Struct):
        members = ((field.name, value.struct.field(field.name), field.dtype) for field in dtype.fields)
        return pl.struct([_with_texts(member, inner, change).alias(name) for name, member, inner in members])
    if isinstance(dtype, pl.List):
        elements = value.list.filter(pl.element().is_not_null())  # many times as fast as list.drop_nulls
        return elements.list.eval(_with_texts(pl.element(), dtype.inner, change))
    return change(value)


def _tests(value: pl.Expr, dtype: PolarsDataType, test: Callable[[pl.Expr], pl.Expr]) -> Iterator[pl.Expr]:
    if isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            yield from _tests(value.struct.field(field.name), field.dtype, test)
    elif isinstance(dtype, pl.List):
        yield value.list.eval(pl.any_horizontal(*_tests(pl.element(), dtype.inner, test))).list.any()
    else:
        yield test(value)
