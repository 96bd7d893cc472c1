"""Sync requests in a batch: claimed, sent, answered, settled (sync-lifecycle.md, Incremental synchronization)."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from ccs_dacs_pipeline.ledger import Ledger, life, requests
from ccs_dacs_pipeline.ledger.life import Stage
from ccs_dacs_pipeline.ledger.report import status
from ccs_dacs_pipeline.ledger.requests import AWAITING, DISCARDED, SYNCHRONIZED, Outcome, Settlement, Source
from ccs_dacs_pipeline.ledger.schema import batch_entities, sent
from ccs_dacs_pipeline.partitions import Mode, SyncBatch

from .batches import (
    CODES,
    ERROR,
    NOON,
    POSITIVE,
    acknowledge,
    batch,
    change,
    claim,
    deliver,
    delta,
    due_ids,
    give_up,
    map_all,
    read_back,
    request,
    seal,
    send,
    start_delta,
    take,
    tell,
)


def to_send(ledger: Ledger, key: SyncBatch, entity: str = "contact") -> list[tuple[str, str | None, datetime]]:
    with ledger.read() as db:
        return requests.to_send(db, key, entity)


def fates(ledger: Ledger, *ids: str) -> list[tuple[str | None, str | None]]:
    rows = [request(ledger, request_id) for request_id in ids]
    return [(row.outcome, row.settlement) for row in rows]


# Claims


def test_an_entity_s_requests_are_claimed_newest_first_and_in_one_second_the_larger_id(ledger: Ledger):
    chosen = [change("r1", "a", after=5), change("r2", "a"), change("r3", "a", after=5), change("r4", "b")]
    key = start_delta(ledger, 1, *chosen)
    with ledger.read() as db:
        assert [one.request_id for one in requests.claims(db, key)] == ["r3", "r1", "r2", "r4"]


def test_the_newest_that_awaits_an_acknowledgement_leads_and_the_others_are_coalesced(ledger: Ledger):
    key = start_delta(ledger, 1, *(change(f"r{n}", "a", after=n) for n in (1, 2, 3, 4)))
    claim(ledger, key, {"r4": DISCARDED, "r2": SYNCHRONIZED})
    assert to_send(ledger, key) == [("a", "r3", NOON)]
    assert fates(ledger, "r1", "r2", "r3", "r4") == [
        ("coalesced", None),
        ("coalesced", None),
        (None, None),
        ("discarded", "discarded"),
    ]


def test_a_synchronized_request_leads_only_where_none_awaits_an_acknowledgement(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"), change("r2", "a", after=1), change("r3", "b"))
    claim(ledger, key, {"r2": SYNCHRONIZED, "r3": SYNCHRONIZED})
    assert to_send(ledger, key) == [("a", "r1", NOON), ("b", "r3", NOON)]


def test_discarded_requests_leave_the_batch(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"), change("r2", "b"))
    claim(ledger, key, {"r1": DISCARDED})
    assert to_send(ledger, key) == [("b", "r2", NOON)]
    assert fates(ledger, "r1") == [("discarded", "discarded")]


@pytest.mark.parametrize("state", ["ERROR", "CANCELED", "GONE"])
def test_what_ccs_has_ended_itself_is_closed_and_no_error_of_ours(ledger: Ledger, state: str):
    key = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, key, {"r1": state})
    assert to_send(ledger, key) == []
    assert fates(ledger, "r1") == [("closed", "closed")]
    assert due_ids(ledger) == []


@pytest.mark.parametrize(("attempts", "suspect"), [(1, False), (2, True)])
def test_a_request_past_waiting_after_several_attempts_is_suspect(ledger: Ledger, attempts: int, suspect: bool):
    key = start_delta(ledger, 1, change("r1", "a"), change("r2", "b"))
    read_back(ledger, key, {"r1": SYNCHRONIZED, "r2": AWAITING}, attempts)
    assert (request(ledger, "r1").suspect, request(ledger, "r2").suspect) == (suspect, False)
    with ledger.read() as db:
        listed = status(db, timedelta(days=2))["suspect"]
    assert listed == ([{"syncRequestId": "r1", "batch": "delta-1"}] if suspect else [])


def test_a_batch_is_claimed_once_all_is_decided(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, key)
    assert (batch(ledger, key).stage, batch(ledger, key).moment) == (Stage.CLAIMED, NOON)


def test_each_entity_has_its_rows_apart_ascending_by_id(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "b"), change("r2", "a"), change("r3", "a", entity="metered_service"))
    claim(ledger, key)
    assert [one[:2] for one in to_send(ledger, key)] == [("a", "r2"), ("b", "r1")]
    assert [one[:2] for one in to_send(ledger, key, "metered_service")] == [("a", "r3")]
    assert to_send(ledger, key, "metered_service_point") == []


# Change Date Times


def test_the_change_date_time_is_the_larger_of_now_and_a_second_after_the_last_one_of_the_entity(ledger: Ledger):
    def moments(number: int, moment: datetime) -> dict[str, datetime]:
        key = start_delta(ledger, number, change(f"a{number}", "a"), *([change("b1", "b")] if number == 2 else []))
        claim(ledger, key, moment=moment)
        map_all(ledger, key)
        seal(ledger, key)
        deliver(ledger, key)
        return {entity_id: at for entity_id, _, at in to_send(ledger, key)}

    second = timedelta(seconds=1)
    assert moments(1, NOON) == {"a": NOON}
    assert moments(2, NOON) == {"a": NOON + second, "b": NOON}
    assert moments(3, NOON - timedelta(hours=1)) == {"a": NOON + 2 * second}  # the repeated autumn hour
    assert moments(4, NOON + timedelta(hours=1)) == {"a": NOON + timedelta(hours=1)}


def test_the_same_id_of_another_entity_has_moments_of_its_own(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, change("r1", "a")))
    key = start_delta(ledger, 2, change("r2", "a", entity="metered_service"))
    claim(ledger, key)
    assert to_send(ledger, key, "metered_service") == [("a", "r2", NOON)]


def test_an_entity_that_is_not_sent_uses_no_moment(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, key, {"r1": DISCARDED})
    with ledger.read() as db:
        assert db.execute(sa.select(sa.func.count()).select_from(sent)).scalar() == 0


def test_a_resync_has_moments_but_no_references(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, change("r1", "a")))
    key = SyncBatch(Mode.RESYNC, 1)
    with ledger.write() as db:
        life.create_chosen(db, key, codes=CODES, first={})
        requests.add_entities(db, key, [("contact", "a"), ("contact", "b")])
    claim(ledger, key)
    assert to_send(ledger, key) == [("a", None, NOON + timedelta(seconds=1)), ("b", None, NOON)]
    map_all(ledger, key)
    seal(ledger, key)
    deliver(ledger, key)
    assert batch(ledger, key).stage is Stage.SETTLED


# Mapping and answers of our own


@pytest.mark.parametrize("outcome", [Outcome.QUARANTINED, Outcome.NOT_ELIGIBLE, Outcome.GONE])
def test_what_is_not_sent_is_answered_with_an_error_once_the_batch_is_sealed(ledger: Ledger, outcome: Outcome):
    key = start_delta(ledger, 1, change("r1", "a"), change("r2", "a", after=1), change("r3", "b"))
    claim(ledger, key)
    map_all(ledger, key, {"a": outcome})
    assert due_ids(ledger) == []
    seal(ledger, key)
    assert fates(ledger, "r2", "r1", "r3") == [(outcome, None), ("coalesced", None), ("written", None)]
    with ledger.read() as db:
        due = requests.due(db, 10)
    assert [(one.request_id, one.has_error, one.answer, one.source) for one in due] == [
        ("r1", True, ERROR, Source.OWN),
        ("r2", True, ERROR, Source.OWN),
    ]
    assert tell(ledger) == {"r1": Settlement.OWN_ERROR, "r2": Settlement.OWN_ERROR}


def test_mapping_again_before_the_seal_judges_anew(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, key)
    map_all(ledger, key, {"a": Outcome.QUARANTINED})
    map_all(ledger, key)
    seal(ledger, key)
    assert fates(ledger, "r1") == [("written", None)]
    assert request(ledger, "r1").answer is None
    assert due_ids(ledger) == []


def test_a_synchronized_request_that_is_not_sent_is_closed_for_no_call_can_change_it(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"), change("r2", "a", after=1))
    claim(ledger, key, {"r1": SYNCHRONIZED, "r2": SYNCHRONIZED})
    map_all(ledger, key, {"a": Outcome.GONE})
    seal(ledger, key)
    assert fates(ledger, "r2", "r1") == [("gone", "closed"), ("coalesced", "closed")]
    assert due_ids(ledger) == []


# Delivery


def test_a_written_request_waits_for_its_acknowledgement(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    send(ledger, key)
    assert fates(ledger, "r1") == [("written", None)]
    assert due_ids(ledger) == []
    assert batch(ledger, key).stage is Stage.DELIVERED


def test_a_synchronized_request_is_settled_on_delivery_and_not_before(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"), change("r2", "b"), change("r3", "b", after=1))
    claim(ledger, key, {"r1": SYNCHRONIZED, "r2": SYNCHRONIZED})
    map_all(ledger, key)
    seal(ledger, key)
    assert fates(ledger, "r1", "r2", "r3") == [("written", None), ("coalesced", None), ("written", None)]
    deliver(ledger, key)
    assert fates(ledger, "r1", "r2", "r3") == [
        ("written", "on_delivery"),
        ("coalesced", "on_delivery"),
        ("written", None),
    ]


def test_without_acknowledgements_everything_written_is_answered_on_delivery(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"), change("r2", "a", after=1), change("r3", "b"))
    send(ledger, key, {"r3": SYNCHRONIZED}, acknowledged=False)
    with ledger.read() as db:
        due = requests.due(db, 10)
    assert [(one.request_id, one.answer, one.source) for one in due] == [
        ("r1", POSITIVE, Source.DELIVERY),
        ("r2", POSITIVE, Source.DELIVERY),
    ]
    assert tell(ledger) == {"r1": Settlement.ON_DELIVERY, "r2": Settlement.ON_DELIVERY}
    assert fates(ledger, "r3") == [("written", "on_delivery")]
    assert batch(ledger, key).stage is Stage.SETTLED


# Abort


def test_an_abort_answers_every_claimed_request_and_closes_what_no_call_can_change(ledger: Ledger):
    chosen = [change("r1", "a"), change("r2", "a", after=1), change("r3", "b"), change("r4", "c"), change("r5", "d")]
    key = start_delta(ledger, 1, *chosen)
    claim(ledger, key, {"r3": SYNCHRONIZED, "r4": DISCARDED, "r5": "CANCELED"})
    map_all(ledger, key)
    give_up(ledger, "delta-1")
    assert fates(ledger, "r1", "r2", "r3", "r4", "r5") == [
        ("aborted", None),
        ("aborted", None),
        ("aborted", "closed"),
        ("discarded", "discarded"),
        ("closed", "closed"),
    ]
    assert tell(ledger) == {"r1": Settlement.OWN_ERROR, "r2": Settlement.OWN_ERROR}
    assert batch(ledger, key).state == "aborted"


def test_an_abort_after_the_seal_leaves_the_answers_that_are_due_already(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"), change("r2", "b"), change("r3", "b", after=-1))
    claim(ledger, key, {"r3": SYNCHRONIZED})
    map_all(ledger, key, {"a": Outcome.QUARANTINED})
    seal(ledger, key)
    give_up(ledger, "delta-1")
    assert fates(ledger, "r1", "r2", "r3") == [("quarantined", None), ("aborted", None), ("aborted", "closed")]
    assert due_ids(ledger) == ["r1", "r2"]


# Telling CCS


def test_answers_are_due_in_pages_until_they_are_settled(ledger: Ledger):
    key = start_delta(ledger, 1, *(change(f"r{n}", f"e{n}") for n in range(5)))
    claim(ledger, key)
    give_up(ledger, "delta-1")
    with ledger.write() as db:
        first = requests.due(db, 2)
        second = requests.due(db, 2, after=first[-1].request_id)
        assert [one.request_id for one in first + second] == ["r0", "r1", "r2", "r3"]
        requests.record_answer_attempts(db, first)
        requests.settle(db, [(first[0], Settlement.OWN_ERROR)])
    with ledger.read() as db:
        assert [(one.request_id, one.attempts) for one in requests.due(db, 2)] == [("r1", 1), ("r2", 0)]


def test_a_settled_request_has_the_moment_in_utc_whatever_the_server_s_zone(ledger: Ledger):
    before = datetime.now(UTC)
    key = start_delta(ledger, 1, change("r1", "a"), change("r2", "b"), change("r3", "c"))
    send(ledger, key, {"r1": DISCARDED, "r2": SYNCHRONIZED}, acknowledged=False)
    tell(ledger)
    after = datetime.now(UTC)
    assert [before <= request(ledger, one).settled <= after for one in ("r1", "r2", "r3")] == [True] * 3
    assert before <= batch(ledger, key).created <= batch(ledger, key).delivered <= after  # type: ignore[operator]


def test_a_batch_is_settled_when_its_last_request_is(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"), change("r2", "b"))
    send(ledger, key)
    acknowledge(ledger, r1=False)
    take(ledger)
    tell(ledger)
    assert batch(ledger, key).stage is Stage.DELIVERED
    acknowledge(ledger, r2=True)
    take(ledger)
    tell(ledger)
    assert batch(ledger, key).stage is Stage.SETTLED


def test_a_request_that_ccs_begins_anew_is_chosen_again_and_its_first_life_kept(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, change("r1", "a")))
    acknowledge(ledger, r1=True)
    take(ledger)
    tell(ledger, closed=frozenset({"r1"}))
    start_delta(ledger, 2, change("r1", "a", after=60))
    assert request(ledger, "r1", delta(1)).settlement == "closed"
    assert request(ledger, "r1", delta(2)).settlement is None


def test_nothing_chosen_adds_nothing(ledger: Ledger):
    key = start_delta(ledger, 1)
    claim(ledger, key)
    with ledger.read() as db:
        assert requests.claims(db, key) == []
        assert db.execute(sa.select(sa.func.count()).select_from(batch_entities)).scalar() == 0
