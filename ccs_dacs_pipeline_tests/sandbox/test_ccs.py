"""CCS's audit and the life cycle of sync requests, without HTTP."""

from datetime import UTC, datetime

import pytest

from ccs_dacs_pipeline.sandbox import BusinessError, SandboxConfig, SimulatedCcs
from ccs_dacs_pipeline.sandbox.changes import KINDS, WEIGHTS
from ccs_dacs_pipeline.sandbox.oddities import items

NOW = datetime(2026, 3, 1, 18, 15, 30, tzinfo=UTC)


def make(**options) -> SimulatedCcs:
    config = SandboxConfig(**{"persons": 40, "time_zone": "America/Los_Angeles"} | options)
    return SimulatedCcs(config, now=lambda: NOW.astimezone(config.zone))


def first(ccs: SimulatedCcs, entity: str) -> str:
    return next(id_ for id_, _ in ccs.records(entity))


def test_a_change_raises_the_version_and_creates_one_pending_request() -> None:
    ccs = make()
    person = first(ccs, "person")
    version = ccs.get("person", person)["version"]
    request_id = ccs.touch("person", person)
    assert ccs.touch("person", person) is None
    assert ccs.get("person", person)["version"] == version + 2
    request = ccs.sync_request(request_id)
    assert (request.pk_value1, request.bo_status, request.created) == (person, "PENDING", "2026-03-01T10:15:30-08:00")


def test_a_change_while_an_answer_is_awaited_creates_a_new_request() -> None:
    ccs = make()
    person = first(ccs, "person")
    before = ccs.touch("person", person)
    ccs.transition(before, {})
    after = ccs.touch("person", person)
    assert after not in (None, before)
    assert ccs.sync_request(before).bo_status == "AWAITINGACK"


def test_many_edits_in_one_moment_may_leave_many_requests() -> None:
    ccs = make()
    person = first(ccs, "person")
    made = {ccs.touch("person", person, another=True) for _ in range(50)}
    assert len(made) == 50
    for request_id in sorted(made)[:-1]:
        ccs.transition(request_id, {})
    assert ccs.touch("person", person) is None
    ccs.transition(max(made), {})
    assert ccs.touch("person", person) is not None


@pytest.mark.parametrize("kind", WEIGHTS)
def test_every_kind_of_change_can_be_made_and_is_audited(kind) -> None:
    ccs = make()
    summary = ccs.change(3, seed=5, kinds=[kind])
    touched = {id_ for ids in summary.ids.values() for id_ in ids}
    assert summary.changed == 3
    assert {ccs.sync_request(id_).pk_value1 for id_ in summary.sync_requests} == touched


def test_the_same_seed_changes_the_same_entities() -> None:
    assert make().change(20, seed=3).ids == make().change(20, seed=3).ids


def test_a_move_in_makes_three_entities_that_refer_to_each_other() -> None:
    ccs = make()
    summary = ccs.change(1, kinds=["move_in"])
    (person,), (point,), (agreement,) = (summary.ids[name] for name in ("person", "service_point", "service_agreement"))
    record = ccs.get("service_agreement", agreement)
    assert record["account"]["mainCustomerPersonId"] == person
    assert {link["servicePointId"] for link in items(record["servicePoints"])} <= {point}
    assert len(summary.sync_requests) == 3


def test_no_kind_breaks_the_shape_of_plurals() -> None:
    ccs = make(plural_style="list")
    ccs.change(200)
    assert all(isinstance(ccs.get("person", id_)["names"], list) for id_, _ in ccs.records("person"))
    assert {kind.entity for kind in KINDS} == {"person", "service_point", "service_agreement"}


def test_odd_records_can_be_changed_too() -> None:
    ccs = make(persons=100, awkward_share=0.5, bad_share=0.5)
    assert ccs.change(600).changed == 600


def test_a_deleted_entity_is_gone_and_its_request_stays() -> None:
    ccs = make()
    person = first(ccs, "person")
    request_id = ccs.touch("person", person)
    ccs.delete("person", person)
    assert ccs.get("person", person) is None
    assert ccs.sync_request(request_id).bo_status == "PENDING"
    assert ccs.deleted("person") == {person}
    with pytest.raises(KeyError, match=person):
        ccs.touch("person", person)


def test_some_requests_are_discarded_the_same_ones_for_the_same_seed() -> None:
    ccs = make(persons=300, discard_share=0.3)
    states = []
    for id_, _ in list(ccs.records("person")):
        request_id = ccs.touch("person", id_)
        ccs.transition(request_id, {})
        states.append(ccs.sync_request(request_id).bo_status)
    assert set(states) == {"AWAITINGACK", "DISCARDED"}
    assert 0.2 < states.count("DISCARDED") / len(states) < 0.4
    with pytest.raises(BusinessError, match="DISCARDED"):
        ccs.transition(next(r.sync_request_id for r in ccs.sync_requests() if r.bo_status == "DISCARDED"), {})


def test_a_ccs_that_expects_no_acknowledgement_synchronizes_at_once() -> None:
    ccs = make(expects_acknowledgement=False)
    request_id = ccs.touch("person", first(ccs, "person"))
    ccs.transition(request_id, {})
    assert ccs.sync_request(request_id).bo_status == "SYNCHRONIZED"


def test_an_operator_may_cancel_a_request() -> None:
    ccs = make()
    person = first(ccs, "person")
    request_id = ccs.touch("person", person)
    ccs.set_state(request_id, "CANCELED")
    assert ccs.summary()["sync_requests"]["CANCELED"] == 1
    assert ccs.touch("person", person) is not None


def test_request_ids_are_not_chronological() -> None:
    ccs = make()
    made = [ccs.touch("person", id_) for id_, _ in list(ccs.records("person"))]
    assert made != sorted(made)
