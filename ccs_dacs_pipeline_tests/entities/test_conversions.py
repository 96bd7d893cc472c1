"""Conversions agree with plain Python on values of every kind (record-layouts.md, File dialect)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from ccs_dacs_pipeline.entities.conversions import date_time_text, decimal, instant, midnight
from ccs_dacs_pipeline_tests.entities import oracle

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = oracle.Batch("F1IL", datetime(2026, 3, 1, tzinfo=UTC), ZoneInfo("UTC"), "ouaf", {})


def convert(conversion: Callable[[pl.Expr], pl.Expr], texts: list[str]) -> list[object]:
    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String})
    return frame.select(conversion(pl.col("text"))).to_series().to_list()


def expected_number(text: str) -> str | None:
    try:
        return oracle._number(text, BATCH)
    except oracle.Broken:
        return None


numbers = st.one_of(
    st.floats().map(repr),
    st.integers().map(str),
    st.decimals(-180, 180, places=9).map(str),
    st.decimals(allow_nan=False, allow_infinity=False).filter(lambda number: abs(number.adjusted()) < 50).map(str),
    st.text("0123456789.eE+- ", max_size=12),
)


days = st.one_of(st.dates().map(str), st.from_regex(r"[0-9]{4}-[0-3][0-9]-[0-3][0-9]", fullmatch=True))


@settings(deadline=None)
@given(st.lists(numbers, max_size=20))
def test_decimals_are_rounded_exactly_and_never_in_exponents(texts: list[str]) -> None:
    assert convert(decimal, texts) == [expected_number(text) for text in texts]


@settings(deadline=None)
@given(st.lists(days, max_size=20))
def test_days_are_those_of_the_calendar(texts: list[str]) -> None:
    def expected(text: str) -> datetime | None:
        try:
            return datetime.combine(date.fromisoformat(text), datetime.min.time())
        except ValueError:
            return None

    assert convert(midnight, texts) == [expected(text) for text in texts]


offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
zones = st.sampled_from(["UTC", "America/Los_Angeles", "Europe/Dublin", "Asia/Kolkata", "Pacific/Apia"])


@settings(deadline=None)
@given(st.lists(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=offsets), max_size=20))  # noqa: DTZ001
def test_instants_are_read_whatever_their_offset(times: list[datetime]) -> None:
    assert convert(instant, [time.isoformat() for time in times]) == [time.astimezone(UTC) for time in times]


@settings(deadline=None)
@given(st.lists(st.datetimes(), max_size=20), zones, st.sampled_from(["ouaf", "xsd"]))
def test_dates_and_times_are_written_as_the_oracle_writes_them(
    times: list[datetime], zone: str, datetime_format: Literal["ouaf", "xsd"]
) -> None:
    batch = oracle.Batch("F1IC", BATCH.moment, ZoneInfo(zone), datetime_format, {})
    frame = pl.DataFrame({"time": times}, schema={"time": pl.Datetime("us")})
    written = frame.select(date_time_text(pl.col("time"), datetime_format, batch.zone)).to_series().to_list()
    assert written == [oracle._moment(time, batch) for time in times]
