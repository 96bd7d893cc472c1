"""Acknowledgements in the ledger: stored, matched, settled once (sync-lifecycle.md, Acknowledgements)."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccs_dacs_pipeline.ledger import Ledger, requests
from ccs_dacs_pipeline.ledger.acknowledgements import Acknowledgement, Stored, match_parked, store
from ccs_dacs_pipeline.ledger.report import answers_due, overdue, status
from ccs_dacs_pipeline.ledger.requests import DISCARDED, SYNCHRONIZED, Settlement
from ccs_dacs_pipeline.ledger.schema import acknowledgements, batches, journal
from ccs_dacs_pipeline.ledger.store import now

from .batches import (
    ERROR,
    POSITIVE,
    acknowledge,
    change,
    claim,
    deliver,
    delta,
    due_ids,
    give_up,
    map_all,
    request,
    seal,
    send,
    start_delta,
    take,
    tell,
)


def states(ledger: Ledger) -> list[tuple[str, bool, str]]:
    table = acknowledgements.c
    with ledger.read() as db:
        rows = db.execute(sa.select(table.request_id, table.has_error, table.state).order_by(table.id))
        return [(row.request_id, row.has_error, row.state) for row in rows]


def figures(ledger: Ledger) -> dict[str, int]:
    with ledger.read() as db:
        return status(db, timedelta(days=2))["acknowledgements"]


def due_count(ledger: Ledger) -> int:
    with ledger.read() as db:
        return answers_due(db)


# Settling


@pytest.mark.parametrize(("has_error", "end"), [(False, Settlement.POSITIVE), (True, Settlement.NEGATIVE)])
def test_an_acknowledgement_settles_its_request_and_those_that_follow_it(
    ledger: Ledger, has_error: bool, end: Settlement
):
    send(ledger, start_delta(ledger, 1, change("r1", "a"), change("r2", "a", after=1), change("r3", "b")))
    assert acknowledge(ledger, r2=has_error) == Stored(accepted=1, duplicates=0, parked=0)
    assert due_count(ledger) == 1
    assert take(ledger) == {"delta-1"}
    assert due_ids(ledger) == ["r1", "r2"]
    assert request(ledger, "r1").answer == request(ledger, "r2").answer == (ERROR if has_error else POSITIVE)
    assert tell(ledger) == {"r1": end, "r2": end}
    assert request(ledger, "r3").settlement is None
    assert states(ledger) == [("r2", has_error, "delivered")]
    assert due_count(ledger) == 0


def test_a_synchronized_follower_is_not_told_again(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"), change("r2", "a", after=1))
    send(ledger, key, {"r1": SYNCHRONIZED})
    acknowledge(ledger, r2=True)
    take(ledger)
    assert tell(ledger) == {"r2": Settlement.NEGATIVE}
    assert request(ledger, "r1").settlement == "on_delivery"


def test_an_acknowledgement_is_taken_once(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, change("r1", "a")))
    acknowledge(ledger, r1=False)
    assert take(ledger) == {"delta-1"}
    assert take(ledger) == set()
    tell(ledger)
    assert take(ledger) == set()


def test_one_that_comes_before_the_delivery_waits_and_settles_then(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    assert acknowledge(ledger, r1=False).accepted == 1
    claim(ledger, key)
    map_all(ledger, key)
    seal(ledger, key)
    assert take(ledger) == set()
    assert due_count(ledger) == 0
    assert states(ledger) == [("r1", False, "waiting")]
    deliver(ledger, key)
    assert due_count(ledger) == 1
    assert take(ledger) == {"delta-1"}
    assert tell(ledger) == {"r1": Settlement.POSITIVE}


def test_an_answer_for_an_unknown_request_is_parked_and_matched_later(ledger: Ledger):
    assert acknowledge(ledger, r1=False) == Stored(accepted=0, duplicates=0, parked=1)
    assert figures(ledger)["parked"] == 1
    assert take(ledger) == set()
    with ledger.write() as db:
        assert match_parked(db) == 0
    send(ledger, start_delta(ledger, 1, change("r1", "a")))
    assert due_count(ledger) == 1
    assert take(ledger) == {"delta-1"}
    assert tell(ledger) == {"r1": Settlement.POSITIVE}
    assert figures(ledger)["parked"] == 0


def test_a_late_one_still_settles_and_until_then_the_request_is_overdue(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, change("r1", "a"), change("r2", "b"), change("r3", "c")), {"r3": SYNCHRONIZED})
    with ledger.write() as db:
        db.execute(sa.update(batches).values(delivered=now() - timedelta(days=3)))
    with ledger.read() as db:
        since = (now() - timedelta(days=3)).date().isoformat()
        assert [(one["syncRequestId"], one["since"][:10]) for one in overdue(db, timedelta(days=2))] == [
            ("r1", since),
            ("r2", since),
        ]
        assert overdue(db, timedelta(days=4)) == []
    acknowledge(ledger, r1=False)
    take(ledger)
    assert tell(ledger) == {"r1": Settlement.POSITIVE}
    with ledger.read() as db:
        assert [one["syncRequestId"] for one in overdue(db, timedelta(days=2))] == ["r2"]
    assert request(ledger, "r2").settlement is None


# Duplicates and contradictions


def test_a_duplicate_is_counted_and_changes_nothing(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, change("r1", "a")))
    acknowledge(ledger, r1=False)
    assert acknowledge(ledger, r1=False) == Stored(accepted=0, duplicates=1, parked=0)
    take(ledger)
    tell(ledger)
    assert acknowledge(ledger, r1=False).duplicates == 1
    assert take(ledger) == set()
    assert figures(ledger) == {"stored": 1, "delivered": 1, "parked": 0, "contradicting": 0, "duplicates": 2}


def test_a_contradicting_one_is_kept_and_raised_and_the_first_stands(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, change("r1", "a")))
    acknowledge(ledger, r1=False)
    assert acknowledge(ledger, r1=True) == Stored(accepted=1, duplicates=0, parked=0)
    assert acknowledge(ledger, r1=True).duplicates == 1
    take(ledger)
    assert tell(ledger) == {"r1": Settlement.POSITIVE}
    assert states(ledger) == [("r1", False, "delivered"), ("r1", True, "contradicting")]
    assert figures(ledger)["contradicting"] == 1
    with ledger.read() as db:
        raised = db.execute(sa.select(journal.c.detail).where(journal.c.event == "contradicting acknowledgement"))
        assert raised.scalars().all() == [{"request": "r1", "has_error": True}]


def test_a_parked_one_stands_against_a_later_contradiction(ledger: Ledger):
    acknowledge(ledger, r1=True)
    assert acknowledge(ledger, r1=False).accepted == 1
    send(ledger, start_delta(ledger, 1, change("r1", "a")))
    take(ledger)
    assert tell(ledger) == {"r1": Settlement.NEGATIVE}


# Answers that nobody waits for


@pytest.mark.parametrize("found", [DISCARDED, SYNCHRONIZED, "ERROR"])
def test_one_for_a_request_that_expects_none_is_kept_not_sent(ledger: Ledger, found: str):
    send(ledger, start_delta(ledger, 1, change("r1", "a"), change("r2", "b")), {"r1": found})
    before = request(ledger, "r1")
    assert acknowledge(ledger, r1=True).accepted == 1
    assert take(ledger) == set()
    assert states(ledger) == [("r1", True, "kept")]
    assert request(ledger, "r1") == before
    assert due_count(ledger) == 0


def test_one_for_a_coalesced_request_is_kept(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, change("r1", "a"), change("r2", "a", after=1)))
    acknowledge(ledger, r1=True)
    assert take(ledger) == set()
    assert states(ledger) == [("r1", True, "kept")]


def test_one_for_an_aborted_request_is_kept(ledger: Ledger):
    claim(ledger, start_delta(ledger, 1, change("r1", "a")))
    give_up(ledger, "delta-1")
    acknowledge(ledger, r1=False)
    assert take(ledger) == set()
    assert states(ledger) == [("r1", False, "kept")]
    assert tell(ledger) == {"r1": Settlement.OWN_ERROR}


def test_without_acknowledgements_a_stored_answer_is_kept_and_counted(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, change("r1", "a")), acknowledged=False)
    acknowledge(ledger, r1=True)
    assert take(ledger) == set()
    assert states(ledger) == [("r1", True, "kept")]
    assert figures(ledger)["stored"] == 1
    assert tell(ledger) == {"r1": Settlement.ON_DELIVERY}


def test_an_early_one_waits_for_the_request_s_present_life(ledger: Ledger):
    """CCS had the request closed and began it anew: the answer is for the batch that is on its way."""
    send(ledger, start_delta(ledger, 1, change("r1", "a")), {"r1": "CANCELED"})
    key = start_delta(ledger, 2, change("r1", "a", after=60))
    acknowledge(ledger, r1=False)
    assert due_count(ledger) == 0
    assert take(ledger) == set()
    assert states(ledger) == [("r1", False, "waiting")]
    send(ledger, key)
    assert due_count(ledger) == 1
    assert take(ledger) == {"delta-2"}
    assert tell(ledger) == {"r1": Settlement.POSITIVE}
    assert request(ledger, "r1", delta(1)).settlement == "closed"


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_a_request_that_ccs_begins_anew_after_its_answer_is_answered_again(ledger: Ledger, first: bool, second: bool):
    """DACS refused the record, say; somebody mended it and set the request back: the new answer is no repetition."""
    ends = {True: Settlement.NEGATIVE, False: Settlement.POSITIVE}
    send(ledger, start_delta(ledger, 1, change("r1", "a")))
    acknowledge(ledger, r1=first)
    acknowledge(ledger, r1=not first)
    take(ledger)
    assert tell(ledger) == {"r1": ends[first]}
    send(ledger, start_delta(ledger, 2, change("r1", "a")))
    assert acknowledge(ledger, r1=second) == Stored(accepted=1, duplicates=0, parked=0)
    assert acknowledge(ledger, r1=second) == Stored(accepted=0, duplicates=1, parked=0)
    assert take(ledger) == {"delta-2"}
    assert tell(ledger) == {"r1": ends[second]}
    assert request(ledger, "r1", delta(1)).settlement == ends[first]
    assert request(ledger, "r1", delta(2)).settlement == ends[second]


# Many


def test_more_are_taken_than_one_statement_holds(ledger: Ledger):
    ids = [f"{number:014d}" for number in range(1300)]
    send(ledger, start_delta(ledger, 1, *(change(one, f"e{one}") for one in ids)))
    with ledger.write() as db:
        items = [Acknowledgement(one, False, POSITIVE) for one in ids]
        assert store(db, items + items[:7]) == Stored(accepted=1300, duplicates=7, parked=0)
    assert take(ledger) == {"delta-1"}
    assert len(due_ids(ledger)) == 1000  # the page asked for


def test_to_record_what_ccs_was_told_takes_one_statement_however_many_wait(ledger: Ledger):
    """One a request would search the thousands in the same state each time, and so take quadratic time."""
    ids = [f"{number:014d}" for number in range(300)]
    send(ledger, start_delta(ledger, 1, *(change(one, f"e{one}") for one in ids)))
    acknowledge(ledger, **dict.fromkeys(ids, False))
    take(ledger)
    updates: list[bool] = []

    def note_update(_db: object, _cursor: object, text: str, _values: object, _context: object, many: bool) -> None:
        if text.startswith("UPDATE acknowledgements"):
            updates.append(many)

    with ledger.write() as db:
        sa.event.listen(db, "before_cursor_execute", note_update)
        due = requests.due(db, 300)
        requests.settle(db, [(one, Settlement.POSITIVE) for one in due])
    assert updates == [False]
    assert figures(ledger)["delivered"] == 300


def test_posts_about_the_same_requests_at_once_count_each_item_once(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, *(change(f"r{n}", f"e{n}") for n in range(10))))

    def post(_: int) -> Stored:
        return acknowledge(ledger, **{f"r{n}": False for n in range(10)})

    with ThreadPoolExecutor(4) as pool:
        stored = list(pool.map(post, range(4)))
    assert sum(one.accepted for one in stored) == 10
    assert sum(one.duplicates for one in stored) == 30
    assert figures(ledger)["duplicates"] == 30


_posts = count()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(posts=st.lists(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=8), max_size=5))
def test_each_item_counts_in_one_figure_and_the_first_verdict_stands(
    ledger: Ledger, posts: list[list[tuple[int, bool]]]
):
    """Requests 0 to 2 are known, 3 to 5 are not."""
    number = next(_posts) + 1
    ids = [f"{number}-{n}" for n in range(6)]
    send(ledger, start_delta(ledger, number, *(change(one, one) for one in ids[:3])))
    seen: dict[str, list[bool]] = {}
    for post in posts:
        expected: Counter[str] = Counter()
        for n, has_error in post:
            earlier = seen.setdefault(ids[n], [])
            fresh = "accepted" if earlier or n < 3 else "parked"
            expected["duplicates" if has_error in earlier else fresh] += 1
            earlier.append(has_error)
        with ledger.write() as db:
            stored = store(db, [Acknowledgement(ids[n], error, ERROR if error else POSITIVE) for n, error in post])
        assert Counter({name: value for name, value in vars(stored).items() if value}) == expected
    take(ledger)
    ends = tell(ledger)
    assert ends == {
        one: Settlement.NEGATIVE if seen[one][0] else Settlement.POSITIVE for one in ids[:3] if seen.get(one)
    }
