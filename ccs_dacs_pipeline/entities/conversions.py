"""Values of CCS in the form an extract file takes (record-layouts.md, File dialect).

Expressions over texts give null for what they cannot convert, so that a caller sees it by comparing nulls before and
after.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

import polars as pl

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_DATE = r"(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-[0-9]{2}-[0-9]{2}"  # no year 0000
_TIME = r"[0-9]{2}:[0-9]{2}(?::[0-5][0-9](?:\.[0-9]+)?)?"  # no leap second
_OFFSET = r"(?:Z|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)"
_NO_SECONDS = r"(T[0-9]{2}:[0-9]{2})([Z+-])"
_NUMBER = r"^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_PLACES = 7

DateTimeFormat = Literal["ouaf", "xsd"]


def boolean(text: pl.Expr) -> pl.Expr:
    """``true`` and ``false`` as they are, null for any other text."""
    return pl.when(text.is_in(["true", "false"])).then(text)


def decimal(text: pl.Expr) -> pl.Expr:
    """A plain decimal without exponent of at most 7 places (half to even), shortest form; null for any other text."""
    number = pl.when(text.str.contains(_NUMBER)).then(text).cast(pl.Decimal(38, _PLACES), strict=False)
    return number.cast(pl.String).str.strip_chars_end("0").str.strip_chars_end(".")


def midnight(text: pl.Expr) -> pl.Expr:
    """A date ``YYYY-MM-DD`` of the calendar, years 0001 to 9999, as Datetime at 00:00:00; null for any other text."""
    day = pl.when(text.str.contains(f"^{_DATE}$")).then(text).str.to_date("%Y-%m-%d", strict=False)
    return day.cast(pl.Datetime("us"))


def instant(text: pl.Expr) -> pl.Expr:
    """An ISO 8601 date and time with offset as Datetime in UTC; null for any other text."""
    timestamp = pl.when(text.str.contains(f"^{_DATE}T{_TIME}{_OFFSET}$")).then(text)
    with_seconds = timestamp.str.replace(_NO_SECONDS, "${1}:00$2")
    return with_seconds.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", time_zone="UTC", strict=False)


def date_time_text(wall_clock: pl.Expr, date_time_format: DateTimeFormat, time_zone: ZoneInfo) -> pl.Expr:
    """A naive Datetime of the base time zone, to the second.

    Args:
        wall_clock: naive Datetime expression.
        date_time_format: ``ouaf`` for ``YYYY-MM-DD-HH.MM.SS``, ``xsd`` for ISO 8601 with the zone's offset.
        time_zone: the base time zone.
    """
    if date_time_format == "ouaf":
        return wall_clock.dt.strftime("%Y-%m-%d-%H.%M.%S")
    return wall_clock.map_batches(lambda times: _with_offsets(times, time_zone), return_dtype=pl.String)


def _with_offsets(wall_clock: pl.Series, time_zone: ZoneInfo) -> pl.Series:
    """ISO 8601 texts, by way of the distinct times only.

    zoneinfo, not polars, finds the offset: polars knows no daylight saving time in the far future, where agreements
    end, and zoneinfo answers as the contract does: the first of a repeated hour, the offset before for a skipped one.
    """
    times: list[datetime] = wall_clock.unique().drop_nulls().to_list()
    texts = [time.isoformat(timespec="seconds") + _offset(time.replace(tzinfo=time_zone)) for time in times]
    return wall_clock.replace_strict(times, texts, default=None, return_dtype=pl.String)


def _offset(time: datetime) -> str:
    """The offset as ``+HH:MM``; the seconds of times before standard time have no place in it and are dropped."""
    offset = time.utcoffset() or timedelta()
    hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
    return f"{'-' if offset < timedelta() else '+'}{hours:02}:{minutes:02}"
