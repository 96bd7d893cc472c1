"""Service Agreement to Metered Service (record-layouts.md, Metered Service; ccs-rest.md, serviceAgreement)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ccs_dacs_pipeline.entities import load_profile
from ccs_dacs_pipeline_tests.entities.support import INITIAL, MS, quarantined, written

PAST, EARLIER, FUTURE = "2020-01-01T00:00:00-08:00", "2019-01-01T00:00:00-08:00", "2030-01-01T00:00:00-08:00"
XSD = load_profile("assumed-tail", datetime_format="xsd")


def link(sp_id: str | None, start: str | None, stop: str | None = None) -> dict[str, Any]:
    return {"servicePointId": sp_id, "startDateTime": start, "stopDateTime": stop}


def test_the_contracts_example() -> None:
    assert written(MS) == {
        "External Reference Id": None,
        "Change Date Time": None,
        "Initial Load Sync Flag": "F1IL",
        "External Id": "4410297731",
        "Metered Service Type": "E-RES",
        "External Contact Id": "5775933103",
        "External Account Id": "2710098812",
        "Start Date Time": "2020-01-01-00.00.00",
        "End Date Time": None,
        "Division": "CA",
        "SA Status": "20",
        "External SP Id": "3996166619",
    }


def test_an_agreement_without_account_is_sent() -> None:
    row = written(MS, {"account": None})
    assert (row["External Contact Id"], row["External Account Id"]) == (None, None)


@pytest.mark.parametrize(
    ("links", "chosen"),
    [
        ([link("A", PAST)], "A"),
        ([link("A", EARLIER), link("B", PAST)], "B"),
        ([link("B", PAST), link("A", PAST), link("C", PAST)], "A"),
        ([link("B", "2020-01-01T08:00:00Z"), link("A", PAST)], "A"),
        ([link("A", PAST, FUTURE)], "A"),
        ([link("A", EARLIER), link("B", EARLIER, PAST)], "A"),
        ([link("A", EARLIER, "2024-01-01T00:00:00Z"), link("B", PAST, "2023-01-01T00:00:00Z")], "A"),
        ([link("A", FUTURE), link("B", EARLIER, PAST)], "B"),
        ([link("A", FUTURE)], None),
        ([link("A", None), link("B", None, PAST)], "A"),
        ([link("A", None), link("B", PAST)], "B"),
        ([link(None, PAST), link("B", EARLIER)], "B"),
        ([link("A", "2026-03-01T18:00:00Z")], "A"),
        ([link("A", PAST, "2026-03-01T18:00:00Z"), link("B", EARLIER)], "B"),
        ([None], None),
        ([], None),
        (None, None),
    ],
)
def test_the_service_point_is_the_one_linked_now_else_the_last_stopped(
    links: list[dict[str, Any]] | None, chosen: str | None
) -> None:
    assert written(MS, {"servicePoints": links})["External SP Id"] == chosen


@pytest.mark.parametrize(
    "time", ["2020-02-30T00:00:00Z", "2020-01-01T00:00:00", "2020-01-01", "0000-00-00T00:00:00Z", "soon"]
)
def test_a_link_at_an_impossible_time_quarantines(time: str) -> None:
    assert quarantined(MS, {"servicePoints": [link("A", time)]}) == ("impossible-date", "External SP Id")
    assert quarantined(MS, {"servicePoints": [link("A", PAST), link("B", PAST, time)]}) == (
        "impossible-date",
        "External SP Id",
    )


def test_dates_are_sent_at_midnight() -> None:
    row = written(MS, {"startDate": "2024-02-29", "endDate": " 9999-12-31 "})
    assert (row["Start Date Time"], row["End Date Time"]) == ("2024-02-29-00.00.00", "9999-12-31-00.00.00")


@pytest.mark.parametrize(
    "day",
    [
        "0000-00-00",
        "0000-01-01",
        "2020-02-30",
        "2023-02-29",
        "2020-13-01",
        "2020-1-1",
        "20200101",
        "01/02/2020",
        "2020-01-01T00:00:00",
        "\u0662\u0660\u0662\u0660-\u0660\u0661-\u0660\u0661",
        "20",
    ],
)
def test_an_impossible_date_quarantines_required_or_not(day: str) -> None:
    assert quarantined(MS, {"startDate": day}) == ("impossible-date", "Start Date Time")
    assert quarantined(MS, {"endDate": day}) == ("impossible-date", "End Date Time")


def test_a_missing_start_date_quarantines_and_a_missing_end_date_does_not() -> None:
    assert quarantined(MS, {"startDate": None}) == ("required-value", "Start Date Time")
    assert written(MS, {"endDate": " "})["End Date Time"] is None


@pytest.mark.parametrize(
    ("zone", "day", "text"),
    [
        ("UTC", "2020-01-01", "2020-01-01T00:00:00+00:00"),
        ("America/Los_Angeles", "2020-01-01", "2020-01-01T00:00:00-08:00"),
        ("America/Los_Angeles", "2020-07-01", "2020-07-01T00:00:00-07:00"),
        ("Asia/Kolkata", "2020-07-01", "2020-07-01T00:00:00+05:30"),
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T00:00:00-03:00"),  # midnight skipped: the offset before
        ("Pacific/Apia", "2011-12-30", "2011-12-30T00:00:00-10:00"),  # the whole day skipped
        ("America/Havana", "2020-11-01", "2020-11-01T00:00:00-04:00"),  # midnight twice: the first
        ("America/Los_Angeles", "9999-07-01", "9999-07-01T00:00:00-07:00"),
        ("America/Los_Angeles", "1850-06-01", "1850-06-01T00:00:00-07:52"),  # local mean time, without its seconds
    ],
)
def test_xsd_has_the_base_zones_offset(zone: str, day: str, text: str) -> None:
    context = replace(INITIAL, time_zone=ZoneInfo(zone))
    assert written(MS, {"startDate": day}, profile=XSD, context=context)["Start Date Time"] == text


def test_in_a_repeated_hour_the_link_that_began_later_counts_though_its_wall_clock_is_earlier() -> None:
    links = [
        {"servicePointId": "0000000001", "startDateTime": "2025-11-02T01:30:00-07:00", "stopDateTime": None},
        {"servicePointId": "0000000002", "startDateTime": "2025-11-02T01:10:00-08:00", "stopDateTime": None},
    ]
    context = replace(INITIAL, time_zone=ZoneInfo("America/Los_Angeles"))
    assert written(MS, {"servicePoints": links}, context=context)["External SP Id"] == "0000000002"
