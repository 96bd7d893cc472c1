"""Service Point to Metered Service Point (record-layouts.md, Metered Service Point; ccs-rest.md, servicePoint)."""

from __future__ import annotations

import pytest

from ccs_dacs_pipeline.entities import load_profile
from ccs_dacs_pipeline_tests.entities.support import MSP, quarantined, written


def test_the_contracts_example() -> None:
    assert written(MSP) == {
        "External Reference Id": None,
        "Change Date Time": None,
        "Initial Load Sync Flag": "F1IL",
        "External Id": "3996166619",
        "Metered SP Type": "E-RES",
        "SP Source Status": "D1CN",
        "Division": "CA",
        "External Premise Id": "2242620736",
        "Time Zone": "America/Los_Angeles",
        "Country": "USA",
        "Postal": "94105",
        "Address 1": "1 Main St",
        "Address 2": None,
        "Address 3": None,
        "Address 4": None,
        "City": "San Francisco",
        "County": "San Francisco",
        "State": "CA",
        "Latitude": "37.789",
        "Longitude": "-122.394",
    }


def test_the_core_profile_has_the_documented_columns_only() -> None:
    assert list(written(MSP, profile=load_profile("core"))) == list(written(MSP))[:12]


@pytest.mark.parametrize(("code", "status"), [("C ", "D1CN"), ("D", "D1DC")])
def test_the_source_status_is_translated(code: str, status: str) -> None:
    assert written(MSP, {"sourceStatus": code})["SP Source Status"] == status


@pytest.mark.parametrize(("code", "rule"), [("X", "unlisted-code"), (None, "required-value"), (" ", "required-value")])
def test_another_source_status_quarantines(code: str | None, rule: str) -> None:
    assert quarantined(MSP, {"sourceStatus": code}) == (rule, "SP Source Status")


def test_an_unlisted_type_and_division_pass_as_they_are() -> None:
    row = written(MSP, {"servicePointType": "W-IRR  ", "division": "ZZ"})
    assert (row["Metered SP Type"], row["Division"]) == ("W-IRR", "ZZ")


@pytest.mark.parametrize(
    ("member", "field"),
    [("servicePointType", "Metered SP Type"), ("premise.timeZone", "Time Zone"), ("servicePointId", "External Id")],
)
def test_a_missing_required_value_quarantines(member: str, field: str) -> None:
    assert quarantined(MSP, {member: None}) == ("required-value", field)


def test_a_service_point_without_premise_has_no_time_zone() -> None:
    assert quarantined(MSP, {"premise": None}) == ("required-value", "Time Zone")


def test_a_premise_without_address_is_sent() -> None:
    row = written(MSP, {"premise.address": None})
    assert (row["Country"], row["City"], row["Time Zone"]) == (None, None, "America/Los_Angeles")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("37.789", "37.789"),
        ("-122.394000", "-122.394"),
        ("37", "37"),
        ("37.0", "37"),
        ("100", "100"),
        ("0", "0"),
        ("-0.0", "0"),
        ("1e-5", "0.00001"),
        ("3.7789E+1", "37.789"),
        ("1.23456789", "1.2345679"),
        ("-0.00000004", "0"),
        ("179.99999996", "180"),
        ("0.00000025", "0.0000002"),
        ("0.00000025000000000000000000000000000000000001", "0.0000003"),
        ("007.50", "7.5"),
        (None, None),
        (" ", None),
    ],
)
def test_coordinates_are_plain_decimals_of_at_most_7_places_in_shortest_form(
    number: str | None, text: str | None
) -> None:
    row = written(MSP, {"premise.geocodeLatitude": number, "premise.geocodeLongitude": number})
    assert (row["Latitude"], row["Longitude"]) == (text, text)


@pytest.mark.parametrize(
    "number", ["abc", "NaN", "Infinity", "-inf", "1e400", "1,5", "0x10", "5.", "1 2", "\u0663", "true"]
)
def test_what_is_not_a_number_quarantines_though_optional(number: str) -> None:
    assert quarantined(MSP, {"premise.geocodeLatitude": number}) == ("not-a-number", "Latitude")
