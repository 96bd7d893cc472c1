"""Bad records: withheld parents, their children, and what an operator does (sync-lifecycle.md, Bad records; Resync)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccs_dacs_pipeline.cli import work
from ccs_dacs_pipeline.cli.console import Problem
from ccs_dacs_pipeline.ledger import LedgerError, orphans
from ccs_dacs_pipeline.ledger.schema import orphans as orphan_rows
from ccs_dacs_pipeline.sync import start
from ccs_dacs_pipeline_tests.conftest import WAIT


def customers(world) -> dict[str, list[str]]:
    """The agreements of each person."""
    found: dict[str, list[str]] = {}
    for agreement, text in world.sandbox.ccs.records("service_agreement"):
        customer = json.loads(text)["account"]["mainCustomerPersonId"]
        if customer:
            found.setdefault(customer.strip(), []).append(agreement)
    return found


def spoil(world, person: str) -> None:
    world.sandbox.ccs.edit("person", person, lambda one: one.update(personOrBusiness="X "))


def mend(world, person: str) -> None:
    world.sandbox.ccs.edit("person", person, lambda one: one.update(personOrBusiness="P "))


def held(world, entity: str) -> set[str]:
    return set(world.sandbox.dacs.held(entity))


def waiting(world) -> list[tuple[str, str, bool]]:
    """Children that were sent without their parents: child, parent, whether due."""
    columns = (orphan_rows.c.entity_id, orphan_rows.c.parent_id, orphan_rows.c.due)
    with world.site.ledger.read() as db:
        return sorted(tuple(row) for row in db.execute(sa.select(*columns)))


@pytest.fixture
def family(world) -> tuple[str, list[str]]:
    """A person with agreements, whose record breaks a rule from the start."""
    person, agreements = next((who, has) for who, has in customers(world).items() if len(has) > 1)
    spoil(world, person)
    return person, agreements


@pytest.mark.parametrize("shards", [1, 3])
def test_children_sent_in_a_snapshot_go_again_when_their_parent_is_delivered_at_last(world, family, shards):
    """With several shards a parent may be found bad after its children of another shard were mapped."""
    person, agreements = family
    world.initial(shards=shards)
    assert not held(world, "metered_service") & set(agreements)
    assert waiting(world) == [(child, person, False) for child in sorted(agreements)]
    mend(world, person)
    figures = world.sync()
    assert [line["key"] for line in figures["batches"]] == ["delta-1", "resync-1"]
    assert figures["batches"][-1]["rows"] == len(agreements)
    assert set(agreements) <= held(world, "metered_service")
    assert waiting(world) == []
    world.assert_quiet()
    assert world.sync()["batches"] == []


def test_a_child_waits_for_its_last_parent_and_goes_once(world, family):
    person, _ = family
    agreement = next(
        json.loads(text) | {"id": one}
        for one, text in world.sandbox.ccs.records("service_agreement")
        if one in family[1]
    )
    links = agreement["servicePoints"]["servicePointsList"]
    link = links[0] | {"startDateTime": "2020-01-01T00:00:00Z", "stopDateTime": None}
    point = link["servicePointId"].strip()
    world.sandbox.ccs.edit(
        "service_agreement",
        agreement["id"],
        lambda one: one.update(servicePoints={"servicePointsList": [link]}),
    )
    world.sandbox.ccs.edit("service_point", point, lambda one: one.update(sourceStatus="X "))
    world.initial()
    world.sync()
    mend(world, person)
    figures = world.sync()
    resent = figures["batches"][-1]
    assert resent["key"] == "resync-1"
    assert (agreement["id"], point, False) in waiting(world)
    assert agreement["id"] not in held(world, "metered_service")
    world.sandbox.ccs.edit("service_point", point, lambda one: one.update(sourceStatus="C "))
    world.sync()
    assert agreement["id"] in held(world, "metered_service")
    assert waiting(world) == []
    world.assert_quiet()


def test_children_that_go_along_with_their_parent_are_not_sent_twice(world, family):
    person, agreements = family
    world.initial()
    mend(world, person)
    for child in agreements:
        world.sandbox.ccs.touch("service_agreement", child)
    figures = world.sync()
    assert [line["key"] for line in figures["batches"]] == ["delta-1"]
    assert waiting(world) == []
    world.assert_quiet()


def test_children_are_sent_again_once_the_gate_is_open(world, family):
    person, agreements = family
    world.initial()
    mend(world, person)
    world.worker.sync(wait=5)  # the parent, and its children
    spoil(world, person)
    world.sync()
    for child in agreements:
        world.sandbox.ccs.touch("service_agreement", child)
    world.sync()
    assert waiting(world) == [(child, person, False) for child in sorted(agreements)]
    mend(world, person)
    start.start_snapshot(world.site, 2, 1)
    assert world.worker.sync(wait=5)["held"] == "initial-2"
    world.worker.abort("initial-2", wait=5)
    assert [line["key"] for line in world.sync()["batches"]][-1] == "resync-2"
    assert waiting(world) == []
    world.assert_quiet()


def test_a_second_snapshot_brings_parent_and_children_together(world, family):
    person, _ = family
    world.initial()
    mend(world, person)
    world.initial()
    assert waiting(world) == []
    world.sync()
    world.assert_quiet()


def test_children_that_an_unfinished_batch_has_wait_for_its_end(world, family):
    person, agreements = family
    world.initial()
    mend(world, person)
    with world.site.ledger.write() as db:
        db.execute(sa.update(orphan_rows).values(due=True))
    key, _ = start.start_resync(world.site, "metered_service", agreements[:1])
    with world.site.ledger.read() as db:
        assert orphans.ready(db, 10) == [("metered_service", child) for child in sorted(agreements[1:])]
    world.worker.resume(str(key), wait=WAIT)
    with world.site.ledger.read() as db:
        assert orphans.ready(db, 10) == [("metered_service", child) for child in sorted(agreements[1:])]


class TestOperator:
    """Releasing and rejecting by command."""

    def test_a_released_record_goes_as_a_resync_and_takes_its_children_along(self, make_world):
        """Nothing changes in CCS: the profile was wrong."""
        world = make_world()
        person, agreements = next((who, has) for who, has in customers(world).items() if has)
        world.sandbox.ccs.edit("person", person, lambda one: one.update(personOrBusiness="X "))
        world.initial()
        assert [(one["entity"], one["id"]) for one in work.quarantined(world.site)] == [("contact", person)]
        world.sandbox.ccs.edit("person", person, lambda one: one.update(personOrBusiness="P "))
        figures = world.worker.release("contact", [person], wait=5)
        assert [(line["key"], line["rows"]) for line in figures["batches"]] == [
            ("resync-1", 1),
            ("resync-2", len(agreements)),
        ]
        world.sandbox.dacs.wait_until_idle()
        assert work.quarantined(world.site) == []
        assert set(agreements) <= held(world, "metered_service")

    def test_one_that_still_breaks_a_rule_stays_and_is_named(self, world, family, capsys):
        person, _ = family
        world.initial()
        world.worker.release("contact", [person], wait=5)
        said = " ".join(capsys.readouterr().err.split())
        assert f"1 contact of resync-1 not sent, for example {person}: a rule is broken" in said
        assert [(one["id"], one["batch"]) for one in work.quarantined(world.site)] == [(person, "resync-1")]

    def test_a_rejected_record_is_listed_no_more_and_its_children_still_wait(self, world, family):
        person, agreements = family
        world.initial()
        assert work.reject(world.site, "contact", [person]) == []
        journal = work.one_batch(world.site, "initial-1")["journal"]
        assert {"entity": "contact", "id": person, "rule": "unlisted-code"} in [line["detail"] for line in journal]
        for child in agreements:
            world.sandbox.ccs.touch("service_agreement", child)
        world.sync()
        assert waiting(world) == [(child, person, False) for child in sorted(agreements)]
        mend(world, person)
        world.sync()
        world.assert_quiet()

    def test_a_record_that_is_not_quarantined_is_refused(self, world):
        with pytest.raises(LedgerError, match=r"1 of the 1 contact records are not quarantined.*quarantine list"):
            work.reject(world.site, "contact", ["0000000001"])
        with pytest.raises(LedgerError, match="not quarantined"):
            world.worker.release("contact", ["0000000001"], wait=5)

    def test_the_breaker_stops_a_snapshot_before_anything_is_published_and_says_why(self, make_world):
        world = make_world(settings={"breaker_share": 0.015})
        people = [person for person, _ in list(world.sandbox.ccs.records("person"))[:30]]
        for person in people:
            spoil(world, person)
        share = r"CCS_DACS_BREAKER_SHARE allows \(1\.5%\)"
        said = rf"30 of 60 person records are bad.*{share}.*unlisted-code \(30\).*for example id ({'|'.join(people)})"
        with pytest.raises(Problem, match=said):
            world.worker.initial(shards=1, new=False, wait=5)
        assert not list(Path(world.settings.folder("upload")).iterdir())
        assert world.status()["gate"]["heldBy"] == "initial-1"
