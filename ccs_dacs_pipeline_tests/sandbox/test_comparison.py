"""The comparison: its own reading of the mapping, and that it finds what was planted."""

import re
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import httpx
import pytest

from ccs_dacs_pipeline.sandbox import Eligibility, Sandbox, SandboxConfig
from ccs_dacs_pipeline.sandbox.comparison import UnmappableError, clean, expected_row
from ccs_dacs_pipeline.sandbox.entities import CONTACT, METERED_SERVICE, METERED_SERVICE_POINT
from ccs_dacs_pipeline_tests.sandbox.folder import contact, load_all, publish, service

CONFIG = SandboxConfig(time_zone="America/Los_Angeles")
NOW = datetime(2026, 3, 1, 12, tzinfo=ZoneInfo("America/Los_Angeles"))


def person(**members) -> dict:
    return {
        "personId": "5775933103",
        "personOrBusiness": "P ",
        "names": {
            "namesList": [{"entityName": "Reddy,John", "firstName": "John", "lastName": "Reddy", "isPrimary": "Y "}]
        },
        "contactDetails": {
            "contactDetailsList": [
                {
                    "contactDetailType": "HOME",
                    "contactDetailValue": "(415) 555-0199",
                    "contactDetailValueExtension": "12",
                },
                {"contactDetailType": "CELL", "contactDetailValue": "", "contactDetailPrimary": "C1YS"},
                {"contactDetailType": "CELL", "contactDetailValue": "(415) 555-0134", "contactDetailPrimary": "C1NO"},
                {"contactDetailType": "EMAIL", "contactDetailValue": "jr@example.com"},
            ]
        },
        "lifeSupportSensitiveLoad": "N ",
        "purged": False,
    } | members


def contact_row(**members) -> dict[str, str]:
    row = expected_row(CONTACT, person(**members), CONFIG, NOW)
    return dict(zip([column.name for column in CONTACT.columns[3:]], row, strict=True))


def test_a_person_becomes_a_contact() -> None:
    assert contact_row() == {
        "external_id": "5775933103",
        "contact_type": "Person",
        "name": "John Reddy",
        "home_phone": "(415) 555-0199 x12",
        "mobile_phone": "(415) 555-0134",
        "phone": "",
        "email": "jr@example.com",
        "life_support_sensitive_load": "false",
        "life_support_sensitive_load_description": "",
        "purged": "false",
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ({"entityName": "Reddy,John"}, "John Reddy"),
        ({"entityName": "Reddy, John, Jr."}, "John, Jr. Reddy"),
        ({"entityName": ",Cher"}, "Cher"),
        ({"entityName": "Prince,"}, "Prince"),
        ({"entityName": "Solo"}, "Solo"),
        ({"entityName": "A,B", "firstName": "C"}, "B A"),
        ({"firstName": "Ann\tMarie", "lastName": " Lee "}, "Ann Marie Lee"),
    ],
)
def test_names(name, expected) -> None:
    assert contact_row(names=[name])["name"] == expected


def test_a_business_keeps_its_name_and_has_one_phone() -> None:
    details = [{"contactDetailType": "BUSN", "contactDetailValue": "555-0100"}]
    row = contact_row(personOrBusiness="B ", names=[{"entityName": "Acorn, Oak & Co."}], contactDetails=details)
    assert (row["contact_type"], row["name"], row["phone"]) == ("Business", "Acorn, Oak & Co.", "555-0100")


@pytest.mark.parametrize(
    ("members", "rule"),
    [
        ({"personOrBusiness": "X "}, "unknown_code: contact_type"),
        ({"names": None}, "required: name"),
        ({"names": [{"entityName": "x" * 255}]}, "too_long: name"),
        ({"names": [{"entityName": "\ud800"}]}, "lone_surrogate: name"),
        ({"lifeSupportSensitiveLoad": "Q"}, "unknown_code: life_support_sensitive_load"),
    ],
)
def test_a_person_that_breaks_a_rule(members, rule) -> None:
    with pytest.raises(UnmappableError, match=rule):
        contact_row(**members)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\0b", "ab"), ("a\r\n\tb", "a b"), (" \x85a\u2028 ", "a"), ("\u00a0a\ufeff", "\u00a0a\ufeff"), (None, "")],
)
def test_cleaning(text, expected) -> None:
    assert clean(text) == expected


def point_row(**premise) -> dict[str, str]:
    record = {
        "servicePointId": "3996166619",
        "servicePointType": "E-RES",
        "sourceStatus": "C ",
        "division": "CA ",
        "premise": {"premiseId": "2242620736", "timeZone": "America/Los_Angeles", "address": {"country": "USA"}}
        | premise,
    }
    row = expected_row(METERED_SERVICE_POINT, record, CONFIG, NOW)
    return dict(zip([column.name for column in METERED_SERVICE_POINT.columns[3:]], row, strict=True))


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("37.789", "37.789"),
        ("37.0", "37"),
        ("1E-7", "0.0000001"),
        ("-1E-9", "0"),
        ("12.3456789123", "12.3456789"),
        ("100", "100"),
    ],
)
def test_coordinates(number, expected) -> None:
    assert point_row(geocodeLatitude=Decimal(number))["latitude"] == expected


def test_a_coordinate_that_is_no_number() -> None:
    with pytest.raises(UnmappableError, match="not_a_number: longitude"):
        point_row(geocodeLongitude="west")


def link(id_: str, start: str, stop: str | None = None) -> dict:
    midnight = "T00:00:00-08:00"
    return {"servicePointId": id_, "startDateTime": start + midnight, "stopDateTime": stop and stop + midnight}


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ([], ""),
        ([link("0000000001", "2020-01-01")], "0000000001"),
        ([link("0000000001", "2020-01-01"), link("0000000002", "2021-01-01")], "0000000002"),
        ([link("0000000002", "2020-01-01"), link("0000000001", "2020-01-01")], "0000000001"),
        ([link("0000000001", "2020-01-01"), link("0000000002", "2021-01-01", "2022-01-01")], "0000000001"),
        (
            [link("0000000001", "2020-01-01", "2023-01-01"), link("0000000002", "2021-01-01", "2022-01-01")],
            "0000000001",
        ),
        ([link("0000000001", "2099-01-01")], ""),
    ],
)
def test_the_service_point_of_an_agreement(links, expected) -> None:
    record = {"serviceAgreementId": "1", "saType": "E-RES", "startDate": "2020-01-01", "servicePoints": links}
    assert expected_row(METERED_SERVICE, record, CONFIG, NOW)[-1] == expected


@pytest.mark.parametrize(
    ("datetime_format", "expected"),
    [("ouaf", "2026-07-01-00.00.00"), ("xsd", "2026-07-01T00:00:00-07:00")],
)
def test_dates(datetime_format, expected) -> None:
    config = SandboxConfig(time_zone="America/Los_Angeles", datetime_format=datetime_format)
    record = {"serviceAgreementId": "1", "saType": "E-RES", "startDate": "2026-07-01"}
    assert expected_row(METERED_SERVICE, record, config, NOW)[4] == expected
    for bad in ("2026-02-30", "0000-00-00", "20260701"):
        with pytest.raises(UnmappableError, match=re.escape("bad_date: start_date_time")):
            expected_row(METERED_SERVICE, record | {"startDate": bad}, config, NOW)


# The whole


@pytest.fixture
def loaded(tmp_path):
    config = SandboxConfig(
        persons=300, upload_folder=tmp_path, poll_seconds=0.01, awkward_share=0.2, bad_share=0.05, negative_share=0
    )
    with Sandbox(config) as sandbox:
        load_all(sandbox)
        yield sandbox


def test_a_loaded_dacs_equals_ccs_and_every_record_is_counted_once(loaded) -> None:
    for found in loaded.compare().values():
        assert found.holds
        assert found.held_equal > 200
        assert found.unmappable
        unmappable = sum(map(len, found.unmappable.values()))
        assert found.ccs_eligible == found.expected + unmappable
        assert found.expected == found.held_equal + len(found.parent_missing)
    assert loaded.dacs.violations == []


def test_a_planted_difference_is_found(loaded, tmp_path) -> None:
    held = sorted(loaded.dacs.held("contact"))
    publish(tmp_path, "C1-DCTEX_0001_00.csv", contact(held[0], name="Somebody Else"), contact("9999999999"))
    loaded.dacs.wait_until_idle()
    loaded.ccs.delete("person", held[1])
    added = loaded.ccs.change(1, kinds=["move_in"]).ids["person"]
    found = loaded.compare()["contact"]
    assert (found.held_different, found.unexpected, found.gone) == ([held[0]], ["9999999999"], [held[1]])
    assert tuple(found.missing) == added
    assert not found.holds


def test_a_negative_answer_excuses_the_difference_until_a_row_is_taken(loaded, tmp_path) -> None:
    held = next(iter(loaded.dacs.held("metered_service")))
    loaded.ccs.edit("service_agreement", held, lambda record: record.update(status="99"))
    publish(tmp_path, "C1-DMSEX_0001_00.csv", service(held, request="8", external_contact_id="0000000000"))
    loaded.dacs.wait_until_idle()
    assert loaded.compare()["metered_service"].last_negative == [held]
    publish(tmp_path, "C1-DMSEX_0002_00.csv", service(held, external_contact_id="", external_sp_id=""))
    loaded.dacs.wait_until_idle()
    found = loaded.compare()["metered_service"]
    assert (found.last_negative, found.held_different) == ([], [held])


def test_eligibility_narrows_what_is_expected(loaded) -> None:
    eligible = Eligibility(person_types=frozenset("B"), divisions=frozenset({"CA"}))
    found = loaded.compare(eligible=eligible)
    assert 0 < found["contact"].ccs_eligible < 100
    assert found["contact"].unexpected
    assert 0 < found["metered_service_point"].ccs_eligible < 100


def test_the_comparison_over_http_tells_counts_and_ids_only(loaded) -> None:
    answer = httpx.get(f"{loaded.base_url}/sandbox/comparison", trust_env=False)
    entities = answer.json()["entities"]
    assert answer.json()["holds"] is True
    assert entities["contact"]["held_equal"] == loaded.compare()["contact"].held_equal
    assert "@example" not in answer.text
    narrowed = httpx.get(f"{loaded.base_url}/sandbox/comparison?person_types=B", trust_env=False).json()
    assert narrowed["entities"]["contact"]["ccs_eligible"] < entities["contact"]["ccs_eligible"]
