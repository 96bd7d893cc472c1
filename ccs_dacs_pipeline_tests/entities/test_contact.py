"""Person to Contact (record-layouts.md, Contact; ccs-rest.md, person)."""

from __future__ import annotations

from typing import Any

import pytest

from ccs_dacs_pipeline_tests.entities.support import CONTACT, DEFAULT, quarantined, written


def name(entity: str | None, first: str | None, last: str | None, primary: str | None = "Y ") -> dict[str, Any]:
    return {"nameType": "PRIM", "entityName": entity, "firstName": first, "lastName": last, "isPrimary": primary}


def detail(kind: str, value: str | None, extension: str | None = None, primary: str = "C1NO") -> dict[str, Any]:
    return {
        "contactDetailType": kind,
        "contactDetailValue": value,
        "contactDetailValueExtension": extension,
        "contactDetailPrimary": primary,
    }


def test_the_contracts_example() -> None:
    details = [
        detail("HOME", "(415) 555-0199", "12", "C1YS"),
        detail("CELL", "(415) 555-0134"),
    ]
    assert written(CONTACT, {"contactDetails": details, "emailAddress": "john.reddy@example.com"}) == {
        "External Reference Id": None,
        "Change Date Time": None,
        "Initial Load Sync Flag": "F1IL",
        "External Id": "5775933103",
        "Contact Type": "Person",
        "Name": "John Reddy",
        "Home Phone": "(415) 555-0199 x12",
        "Mobile Phone": "(415) 555-0134",
        "Phone": None,
        "Email": "john.reddy@example.com",
        "Life Support Sensitive Load": "false",
        "Life Support Sensitive Load Description": None,
        "Purged": "false",
    }


@pytest.mark.parametrize(
    ("code", "contact_type"), [("P", "Person"), ("P ", "Person"), ("B  ", "Business"), ("B\t", "Business")]
)
def test_the_contact_type_is_translated_after_trimming(code: str, contact_type: str) -> None:
    assert written(CONTACT, {"personOrBusiness": code})["Contact Type"] == contact_type


@pytest.mark.parametrize("code", ["X", "p", "Person"])
def test_an_unlisted_person_type_quarantines(code: str) -> None:
    assert quarantined(CONTACT, {"personOrBusiness": code}) == ("unlisted-code", "Contact Type")


@pytest.mark.parametrize("code", [None, "", "  "])
def test_a_missing_person_type_quarantines(code: str | None) -> None:
    assert quarantined(CONTACT, {"personOrBusiness": code}) == ("required-value", "Contact Type")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([name("Reddy,John", "John", "Reddy")], "John Reddy"),
        ([name("Reddy,John", "John ", " Reddy ")], "John Reddy"),
        ([name("Reddy,John", "John\t", "Reddy")], "John Reddy"),
        ([name("Reddy,John", "John", None)], "John Reddy"),
        ([name("Reddy, John Q", None, " ")], "John Q Reddy"),
        ([name("Reddy,John,Jr", None, None)], "John,Jr Reddy"),
        ([name("Reddy,", None, None)], "Reddy"),
        ([name(" ,John", None, None)], "John"),
        ([name("Reddy", None, None)], "Reddy"),
        ([name("Xu,Alix", None, None)], "Alix Xu"),
        ([name("Reddy,\u00a0John", None, None)], "\u00a0John Reddy"),
        ([name("A,B", None, None, "N"), name("C,D", None, None, "Y ")], "D C"),
        ([name("A,B", None, None, "N"), name("C,D", None, None, None)], "B A"),
        ([None, name("A,B", None, None, "N")], "B A"),
        ([name("A,B", None, None), name("C,D", None, None)], "B A"),
    ],
)
def test_a_persons_name(names: list[dict[str, Any]], expected: str) -> None:
    assert written(CONTACT, {"names": names})["Name"] == expected


@pytest.mark.parametrize(
    "names", [None, [], [None], [name(None, "John", None)], [name(" ", "", "\t")], [name(",", None, None)]]
)
def test_a_missing_name_quarantines(names: list[dict[str, Any]] | None) -> None:
    assert quarantined(CONTACT, {"names": names}) == ("required-value", "Name")


def test_a_business_has_its_primary_name_as_it_is() -> None:
    names = [name("Other", None, None, "N "), name("Bakery, Sons and Co.", "John", "Reddy", "Y ")]
    assert written(CONTACT, {"personOrBusiness": "B ", "names": names})["Name"] == "Bakery, Sons and Co."


def test_persons_fill_home_and_mobile_and_businesses_fill_phone() -> None:
    details = [detail("HOME", "1"), detail("CELL", "2"), detail("BUSN", "3")]
    person = written(CONTACT, {"contactDetails": details})
    business = written(CONTACT, {"personOrBusiness": "B ", "contactDetails": details})
    assert (person["Home Phone"], person["Mobile Phone"], person["Phone"]) == ("1", "2", None)
    assert (business["Home Phone"], business["Mobile Phone"], business["Phone"]) == (None, None, "3")


def test_where_a_site_lets_the_type_be_empty_an_untyped_contact_is_a_person() -> None:
    layout = DEFAULT.entities["contact"]
    columns = tuple(column.model_copy(update={"required": False}) for column in layout.columns)
    entities = {**DEFAULT.entities, "contact": layout.model_copy(update={"columns": columns})}
    profile = DEFAULT.model_copy(update={"entities": entities})
    row = written(CONTACT, {"personOrBusiness": None, "contactDetails": [detail("HOME", "1")]}, profile=profile)
    assert (row["Contact Type"], row["Name"], row["Home Phone"]) == (None, "John Reddy", "1")


@pytest.mark.parametrize(
    ("details", "home"),
    [
        ([detail("HOME", "1"), detail("HOME", "2", primary="C1YS ")], "2"),
        ([detail("HOME", "1"), detail("HOME", "2")], "1"),
        ([detail("HOME", " "), detail("HOME", "2")], "2"),
        ([detail("HOME", None, primary="C1YS"), detail("HOME", "2")], "2"),
        ([detail("HOME", "1", primary="C1YS"), detail("HOME", "2", primary="C1YS")], "1"),
        ([detail("HOME ", "1", " 12 ")], "1 x12"),
        ([detail("HOME", "1", " ")], "1"),
        ([detail("HOME", None, "12")], None),
        ([detail("FAX", "1"), None], None),
        ([], None),
        (None, None),
    ],
)
def test_the_first_primary_detail_with_a_value_wins_else_the_first_with_a_value(
    details: list[dict[str, Any]] | None, home: str | None
) -> None:
    assert written(CONTACT, {"contactDetails": details})["Home Phone"] == home


@pytest.mark.parametrize(
    ("address", "details", "email"),
    [
        ("a@example.com", [detail("EMAIL", "b@example.com", primary="C1YS")], "a@example.com"),
        (" ", [detail("EMAIL", "b@example.com"), detail("EMAIL", "c@example.com", primary="C1YS")], "c@example.com"),
        (None, [detail("EMAIL", "b@example.com", "12"), detail("EMAIL", "c@example.com")], "b@example.com"),
        (None, [detail("HOME", "1")], None),
    ],
)
def test_email_is_the_persons_else_the_primary_detail_else_the_first(
    address: str | None, details: list[dict[str, Any]], email: str | None
) -> None:
    assert written(CONTACT, {"emailAddress": address, "contactDetails": details})["Email"] == email


@pytest.mark.parametrize(
    ("code", "flag"), [("Y", "true"), ("Y ", "true"), ("N ", "false"), ("", "false"), (None, "false")]
)
def test_life_support_is_translated_and_an_empty_one_is_false(code: str | None, flag: str) -> None:
    assert written(CONTACT, {"lifeSupportSensitiveLoad": code})["Life Support Sensitive Load"] == flag


def test_an_unlisted_life_support_code_quarantines() -> None:
    assert quarantined(CONTACT, {"lifeSupportSensitiveLoad": "X"}) == ("unlisted-code", "Life Support Sensitive Load")


@pytest.mark.parametrize(("purged", "flag"), [("true", "true"), ("false", "false"), (None, None)])
def test_a_purged_person_is_sent_with_the_flag(purged: str | None, flag: str | None) -> None:
    assert written(CONTACT, {"purged": purged})["Purged"] == flag


@pytest.mark.parametrize("purged", ["Y", "TRUE", "1"])
def test_a_flag_that_is_no_boolean_quarantines(purged: str) -> None:
    assert quarantined(CONTACT, {"purged": purged}) == ("not-a-boolean", "Purged")
