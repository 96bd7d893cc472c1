"""The generated utility: the same for the same seed, whole in its references, believable in its mixture."""

import json
from zoneinfo import ZoneInfo

import pytest

from ccs_dacs_pipeline.sandbox import SandboxConfig
from ccs_dacs_pipeline.sandbox.entities import ENTITIES
from ccs_dacs_pipeline.sandbox.oddities import items
from ccs_dacs_pipeline.sandbox.population import account_of, build, places


def records(config: SandboxConfig, entity: str) -> list[dict]:
    return [json.loads(text) for _, text in build(config)[entity]]


@pytest.fixture(scope="module")
def population():
    return {name: [json.loads(text) for _, text in table] for name, table in build(SandboxConfig(persons=3000)).items()}


def test_the_same_seed_makes_the_same_population() -> None:
    config = SandboxConfig(persons=300, seed=7, awkward_share=0.2, bad_share=0.1)
    first, second = build(config), build(config)
    assert {name: list(table) for name, table in first.items()} == {name: list(table) for name, table in second.items()}


def test_another_seed_makes_another() -> None:
    assert list(build(SandboxConfig(persons=50, seed=1))["person"]) != list(
        build(SandboxConfig(persons=50, seed=2))["person"]
    )


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.ccs)
def test_ids_are_ten_digits_unique_and_spread_over_the_key_space(population, entity) -> None:
    ids = [record[entity.id_name] for record in population[entity.ccs]]
    assert ids == sorted(set(ids))
    assert all(len(id_) == 10 and id_.isdigit() for id_ in ids)
    tenths = [sum(id_.startswith(digit) for id_ in ids) / len(ids) for digit in "0123456789"]
    assert min(tenths) > 0.07
    assert max(tenths) < 0.13


def test_every_reference_is_to_a_record_that_exists(population) -> None:
    persons = {person["personId"] for person in population["person"]}
    points = {point["servicePointId"] for point in population["service_point"]}
    for agreement in population["service_agreement"]:
        customer = agreement["account"]["mainCustomerPersonId"]
        if not (customer or "").strip():
            continue
        assert customer in persons
        assert agreement["account"]["accountId"] == f"{account_of(int(customer)):010}"
        assert {link["servicePointId"] for link in items(agreement["servicePoints"])} <= points


def test_some_persons_have_no_agreement_and_some_several_and_some_points_none(population) -> None:
    customers = [agreement["account"]["mainCustomerPersonId"] for agreement in population["service_agreement"]]
    linked = {
        link["servicePointId"]
        for agreement in population["service_agreement"]
        for link in items(agreement["servicePoints"])
    }
    assert len(set(customers)) < len(population["person"])
    assert len(customers) > len(set(customers))
    assert 1.1 < len(customers) / len(population["person"]) < 1.35
    assert any(point["servicePointId"] not in linked for point in population["service_point"])


def test_codes_are_padded_members_vary_and_scripts_are_many(population) -> None:
    persons = population["person"]
    assert {person["personOrBusiness"] for person in persons} == {"P ", "B "}
    assert 0.08 < sum(person["personOrBusiness"] == "B " for person in persons) / len(persons) < 0.16
    assert {"emailAddress" in person for person in persons} == {True, False}
    assert any(person.get("lifeSupportSensitiveLoad") == "Y " for person in persons)
    text = json.dumps(persons, ensure_ascii=False)
    for letter in "éΑИفשर王さ김ส":
        assert letter in text
    assert "555-01" in text
    assert "@example." in text


def test_phones_are_fictional(population) -> None:
    for person in population["person"]:
        for detail in items(person.get("contactDetails")):
            if detail["contactDetailType"] != "EMAIL" and detail["contactDetailValue"].strip():
                assert "555" in detail["contactDetailValue"]


def test_plural_members_come_wrapped_or_as_lists() -> None:
    assert isinstance(records(SandboxConfig(persons=3), "person")[0]["names"]["namesList"], list)
    assert isinstance(records(SandboxConfig(persons=3, plural_style="list"), "person")[0]["names"], list)


def test_links_begin_at_midnight_of_the_base_time_zone() -> None:
    config = SandboxConfig(persons=200, time_zone="America/Los_Angeles", awkward_share=0)
    starts = {
        link["startDateTime"]
        for agreement in records(config, "service_agreement")
        for link in agreement["servicePoints"]["servicePointsList"]
    }
    assert {start[10:] for start in starts} == {"T00:00:00-08:00", "T00:00:00-07:00"}


def test_places_are_real_in_form() -> None:
    assert len(places()) > 200
    for place in places():
        ZoneInfo(place.time_zone)
        assert len(place.postal) == 5
        assert len(place.state) == 2


def test_no_persons_make_an_empty_utility() -> None:
    assert {name: len(table) for name, table in build(SandboxConfig(persons=0)).items()} == {
        entity.ccs: 0 for entity in ENTITIES
    }


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"bad_share": 1.5}, "bad_share"),
        ({"persons": -1}, "persons"),
        ({"time_zone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"page_cap": 0}, "page_cap"),
        ({"poll_seconds": 0}, "poll_seconds"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(values, named) -> None:
    with pytest.raises(ValueError, match=named):
        SandboxConfig(**values)


def test_no_secret_is_in_the_printed_configuration() -> None:
    printed = repr(
        SandboxConfig(password="hush-1", client_secret="hush-2", inbox_password="hush-3", inbox_token="hush-4")
    )
    assert "hush" not in printed
