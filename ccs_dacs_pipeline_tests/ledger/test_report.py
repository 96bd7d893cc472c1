"""Figures and control equations (sync-lifecycle.md, What is promised; interface.md, JSON of the reports)."""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from itertools import count

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccs_dacs_pipeline.ledger import Ledger, life, report
from ccs_dacs_pipeline.ledger.life import Stage
from ccs_dacs_pipeline.ledger.requests import AWAITING, DISCARDED, SYNCHRONIZED, Outcome
from ccs_dacs_pipeline.partitions import SyncBatch

from .batches import (
    ENTITIES,
    acknowledge,
    batch,
    change,
    claim,
    deliver,
    delta,
    finish,
    give_up,
    map_all,
    publish,
    read_back,
    seal,
    send,
    send_snapshot,
    start_delta,
    start_snapshot,
    take,
    tell,
)


def equations(ledger: Ledger, key: SyncBatch) -> dict[str, tuple[int, int]]:
    with ledger.read() as db:
        return {one.name: (one.left, one.right) for one in report.equations(db, life.get(db, key))}


def reconcile(ledger: Ledger) -> dict:
    with ledger.read() as db:
        return report.reconcile(db, ENTITIES)


def history(ledger: Ledger) -> SyncBatch:
    """A delivered delta with one request of every kind."""
    chosen = [change("r1", "a"), change("r2", "a", after=1), change("r3", "b"), change("r4", "c"), change("r5", "d")]
    chosen += [change("r6", "e"), change("r7", "f"), change("r8", "g"), change("r9", "h", entity="metered_service")]
    key = start_delta(ledger, 1, *chosen)
    states = {"r3": DISCARDED, "r7": "CANCELED", "r8": SYNCHRONIZED}
    outcomes = {"c": Outcome.QUARANTINED, "d": Outcome.NOT_ELIGIBLE, "e": Outcome.GONE}
    send(ledger, key, states, outcomes)
    acknowledge(ledger, r2=True)
    take(ledger)
    tell(ledger)
    return key


def test_the_equations_of_a_delivered_delta_hold(ledger: Ledger):
    key = history(ledger)
    assert equations(ledger, key) == {"claimed": (9, 9), "fetched": (5, 5), "rows in files": (3, 3), "written": (3, 3)}
    assert reconcile(ledger)["holds"]
    with ledger.read() as db:
        found = life.get(db, key)
        assert report.outcomes(db, found) == {
            "written": 3,
            "coalesced": 1,
            "discarded": 1,
            "quarantined": 1,
            "not_eligible": 1,
            "gone": 1,
            "closed": 1,
        }
        assert report.settlements(db, found) == {"negative": 1, "on_delivery": 1, "awaiting": 1}


TAMPERINGS = [
    ("UPDATE requests SET outcome = NULL WHERE request_id = 'r1'", {"claimed"}),
    ("UPDATE requests SET outcome = 'lost' WHERE request_id = 'r3'", {"claimed"}),
    ("UPDATE requests SET outcome = 'coalesced' WHERE request_id = 'r2'", {"written"}),
    ("UPDATE requests SET outcome = 'written' WHERE request_id = 'r1'", {"written"}),
    ("UPDATE requests SET settlement = 'own_error' WHERE request_id = 'r9'", {"written"}),
    ("UPDATE requests SET attempts = 0 WHERE request_id = 'r7'", {"claimed"}),
    ("DELETE FROM requests WHERE request_id = 'r9'", {"written"}),
    ("UPDATE tallies SET written = written + 1 WHERE entity = 'contact'", {"fetched", "rows in files", "written"}),
    ("UPDATE tallies SET fetched = fetched - 1 WHERE entity = 'contact'", {"fetched"}),
    ("UPDATE tallies SET quarantined = '{}' WHERE entity = 'contact'", {"fetched"}),
    ("UPDATE tallies SET not_eligible = '{\"division\": 2}' WHERE entity = 'contact'", {"fetched"}),
    ("DELETE FROM files WHERE entity = 'metered_service'", {"rows in files"}),
    ("UPDATE files SET rows = rows - 1 WHERE entity = 'contact'", {"rows in files"}),
]


def test_an_equation_fails_when_a_row_is_tampered_with(ledger: Ledger):
    key = history(ledger)
    for tampering, broken in TAMPERINGS:
        with ledger.write() as db:
            assert db.execute(sa.text(tampering)).rowcount == 1
            found = report.equations(db, life.get(db, key))
            reconciled = report.reconcile(db, ENTITIES)
            db.rollback()
        assert {one.name for one in found if not one.holds} == broken, tampering
        assert not reconciled["holds"]
        assert {one["name"] for one in reconciled["batches"][0]["equations"] if not one["holds"]} == broken
    assert reconcile(ledger)["holds"]


def test_a_delta_on_its_way_has_no_equations_until_it_is_sealed(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    assert equations(ledger, key) == {}
    read_back(ledger, key, {"r1": AWAITING})
    assert equations(ledger, key) == {}
    claim(ledger, key)
    assert equations(ledger, key) == {}
    map_all(ledger, key)
    assert equations(ledger, key) == {}
    assert reconcile(ledger)["holds"]
    seal(ledger, key)
    assert set(equations(ledger, key)) == {"claimed", "fetched", "rows in files", "written"}


def test_a_shard_has_the_equations_of_its_entities(ledger: Ledger):
    (key,) = start_snapshot(ledger, 1)
    send_snapshot(ledger, [key])
    assert equations(ledger, key) == {"fetched": (0, 0), "rows in files": (0, 0)}


def test_a_replay_answers_for_its_own_files(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    send(ledger, key)
    with ledger.write() as db:
        life.replay(db, "delta-1")
    assert set(equations(ledger, key)) == {"claimed", "fetched", "written"}
    seal(ledger, key)
    assert equations(ledger, key)["rows in files"] == (1, 1)
    assert reconcile(ledger)["holds"]


def test_what_was_delivered_counts_while_it_is_replayed_and_once_it_was(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    send(ledger, key)

    def delivered() -> list[int]:
        return [line["delivered"] for line in reconcile(ledger)["entities"]]

    assert delivered() == [1, 0, 0]
    with ledger.write() as db:
        life.replay(db, "delta-1")
    assert delivered() == [1, 0, 0]
    seal(ledger, key)
    publish(ledger, key)
    assert delivered() == [1, 0, 0]
    finish(ledger, key)
    assert delivered() == [1, 0, 0]


def test_an_aborted_delta_keeps_the_equation_of_its_requests(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"), change("r2", "b"))
    claim(ledger, key, {"r2": DISCARDED})
    give_up(ledger, "delta-1")
    assert equations(ledger, key) == {"claimed": (2, 2)}


# Random histories


@dataclass(frozen=True)
class Ended:
    """How a history ends: aborted at a stage, or delivered with or without acknowledgements."""

    aborted_at: Stage | None
    acknowledged: bool


ABORTS = (Stage.CREATED, Stage.CLAIMED, Stage.SEALED, Stage.PUBLISHING)
SUBJECTS = st.lists(
    st.tuples(
        st.lists(
            st.sampled_from([AWAITING, SYNCHRONIZED, DISCARDED, "ERROR", "CANCELED", "GONE"]), min_size=1, max_size=4
        ),
        st.sampled_from([Outcome.WRITTEN, Outcome.WRITTEN, Outcome.QUARANTINED, Outcome.NOT_ELIGIBLE, Outcome.GONE]),
        st.sampled_from([None, False, True]),  # what DACS answers: nothing, hasError
        st.booleans(),  # whether CCS closes the request by itself before it is told
        st.sampled_from(ENTITIES),
    ),
    max_size=8,
)
ENDS = st.builds(Ended, st.sampled_from([None, None, *ABORTS]), st.booleans())
_histories = count(1)


def expected_outcome(states: list[str], place: int, mapped: Outcome, ended: Ended) -> Outcome:
    """What becomes of one of an entity's requests, newest first, read off the contract."""
    if states[place] == DISCARDED:
        return Outcome.DISCARDED
    if states[place] not in (AWAITING, SYNCHRONIZED):
        return Outcome.CLOSED
    leader = states.index(AWAITING if AWAITING in states else SYNCHRONIZED)
    answered = mapped is not Outcome.WRITTEN and ended.aborted_at in (None, Stage.SEALED, Stage.PUBLISHING)
    if ended.aborted_at and not answered:
        return Outcome.ABORTED
    return mapped if place == leader else Outcome.COALESCED


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(subjects=SUBJECTS, ended=ENDS)
def test_the_equations_hold_at_every_step_of_any_history(ledger: Ledger, subjects: list, ended: Ended):
    number = next(_histories)
    key = delta(number)
    chosen, states, leaders = [], {}, {}
    for n, (found, _, has_error, closed, entity) in enumerate(subjects):
        ids = [f"{number:06d}{n:04d}{place:04d}" for place in range(len(found))]
        chosen += [change(one, f"{number}-{n}", entity=entity, after=-place) for place, one in enumerate(ids)]
        states |= dict(zip(ids, found, strict=True))
        if set(found) & {AWAITING, SYNCHRONIZED}:
            leaders[ids[found.index(AWAITING if AWAITING in found else SYNCHRONIZED)]] = (has_error, closed)
    start_delta(ledger, number, *chosen)

    def hold() -> None:
        found = equations(ledger, key)
        assert {name for name, (left, right) in found.items() if left != right} == set()

    if ended.aborted_at is Stage.CREATED:
        read_back(ledger, key, dict(list(states.items())[::2]))
        give_up(ledger, str(key))
        hold()
        tell(ledger)
        hold()
        return
    claim(ledger, key, states)
    hold()
    if ended.aborted_at is not Stage.CLAIMED:
        map_all(ledger, key, {f"{number}-{n}": outcome for n, (_, outcome, *_) in enumerate(subjects)})
        hold()
        seal(ledger, key)
        hold()
        if ended.aborted_at is Stage.PUBLISHING:
            publish(ledger, key)
    if ended.aborted_at:
        give_up(ledger, str(key))
    else:
        deliver(ledger, key, acknowledged=ended.acknowledged)
    hold()
    acknowledge(ledger, **{one: has_error for one, (has_error, _) in leaders.items() if has_error is not None})
    take(ledger)
    hold()
    tell(ledger, frozenset(one for one, (_, closed) in leaders.items() if closed))
    hold()
    expected = Counter(
        expected_outcome(found, place, mapped, ended).value
        for found, mapped, *_ in subjects
        for place in range(len(found))
    )
    with ledger.read() as db:
        assert report.outcomes(db, life.get(db, key)) == expected
        unsettled = [one for one in leaders if one in report_open(db)]
    if ended.aborted_at or not ended.acknowledged:
        assert unsettled == []
        assert batch(ledger, key).state == ("aborted" if ended.aborted_at else "settled")
    else:
        silent = {one for one, (has_error, _) in leaders.items() if has_error is None and states[one] == AWAITING}
        assert set(unsettled) <= silent


def report_open(db: sa.Connection) -> set[str]:
    """The requests that are not final."""
    return set(db.execute(sa.text("SELECT request_id FROM requests WHERE settlement IS NULL")).scalars())


# Reports


def test_the_status_of_an_empty_ledger(ledger: Ledger):
    with ledger.read() as db:
        assert report.status(db, timedelta(days=2)) == {
            "gate": {"open": True, "heldBy": None},
            "batches": [],
            "requests": {},
            "acknowledgements": {"stored": 0, "delivered": 0, "parked": 0, "contradicting": 0, "duplicates": 0},
            "overdue": [],
            "suspect": [],
            "refused": [],
            "quarantined": [],
        }


def test_the_status_says_what_an_operator_asks(ledger: Ledger):
    history(ledger)
    start_delta(ledger, 2, change("r10", "z"))
    start_snapshot(ledger, 7)
    with ledger.read() as db:
        found = report.status(db, timedelta(days=2))
    assert found["gate"] == {"open": False, "heldBy": "initial-7"}
    assert [(one["key"], one["mode"], one["state"], one["rerun"], one["rows"]) for one in found["batches"]] == [
        ("delta-1", "delta", "delivered", 0, 3),
        ("delta-2", "delta", "created", 0, 0),
        ("initial-7-01of01", "initial", "created", 0, 0),
    ]
    assert found["batches"][0]["files"] == ["contact_delta-1_00.csv", "metered_service_delta-1_00.csv"]
    assert found["quarantined"] == [
        {"entity": "contact", "id": "c", "rule": "too-long", "field": "name", "batch": "delta-1"}
    ]
    assert found["requests"] == {
        "awaiting": 1,
        "chosen": 1,
        "closed": 1,
        "discarded": 1,
        "negative": 2,
        "on_delivery": 1,
        "own_error": 3,
    }


def test_the_status_shows_all_unsettled_batches_and_the_last_fifty_others(ledger: Ledger):
    for number in range(1, 54):
        key = start_delta(ledger, number)
        if number != 2:
            give_up(ledger, str(key))
    with ledger.read() as db:
        shown = [one["key"] for one in report.status(db, timedelta(days=2))["batches"]]
    assert shown == ["delta-2", *(f"delta-{number}" for number in range(4, 54))]


def test_the_reconciliation_sums_each_entity_over_batches_that_are_not_aborted(ledger: Ledger):
    history(ledger)
    aborted = start_delta(ledger, 2, change("r10", "z"))
    claim(ledger, aborted)
    map_all(ledger, aborted)
    seal(ledger, aborted)
    give_up(ledger, "delta-2")
    found = reconcile(ledger)
    assert found["entities"] == [
        {
            "entity": "contact",
            "eligible": 3,
            "written": 2,
            "quarantined": {"too-long": 1},
            "delivered": 2,
            "acknowledgedYes": 0,
            "acknowledgedNo": 1,
            "awaiting": 0,
            "difference": 0,
        },
        {
            "entity": "metered_service_point",
            "eligible": 0,
            "written": 0,
            "quarantined": {},
            "delivered": 0,
            "acknowledgedYes": 0,
            "acknowledgedNo": 0,
            "awaiting": 0,
            "difference": 0,
        },
        {
            "entity": "metered_service",
            "eligible": 1,
            "written": 1,
            "quarantined": {},
            "delivered": 1,
            "acknowledgedYes": 0,
            "acknowledgedNo": 0,
            "awaiting": 1,
            "difference": 0,
        },
    ]
    assert [one["key"] for one in found["batches"]] == ["delta-1", "delta-2"]


def test_the_unfinished_batches_are_neither_delivered_nor_aborted(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, change("r1", "a")))
    start_delta(ledger, 2)
    stopped = start_delta(ledger, 3)
    give_up(ledger, str(start_delta(ledger, 4)))
    with ledger.write() as db:
        life.stop(db, stopped, "bad")
    with ledger.read() as db:
        assert [str(one.key) for one in report.unfinished(db)] == ["delta-2", "delta-3"]
        assert report.entity_figures(db, life.get(db, delta(2))) == []
        assert [one["written"] for one in report.entity_figures(db, life.get(db, delta(1)))] == [1, 0, 0]
