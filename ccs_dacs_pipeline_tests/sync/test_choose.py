"""Which pending requests a delta takes (sync-lifecycle.md, Incremental synchronization, 1)."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_dacs_pipeline.ledger.requests import Chosen
from ccs_dacs_pipeline.sync.choose import choose

START = datetime(2026, 3, 1, tzinfo=UTC)
KINDS = ("contact", "metered_service_point", "metered_service")


def request(request_id: str, entity_id: str, second: int, entity: str = "contact") -> Chosen:
    return Chosen(request_id, entity, entity_id, START + timedelta(seconds=second))


def ids(chosen: list[Chosen]) -> list[str]:
    return [one.request_id for one in chosen]


@st.composite
def pending_requests(draw: st.DrawFn) -> list[Chosen]:
    drawn = draw(
        st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from("ABCDEFGH"), st.integers(0, 9)), max_size=40)
    )
    return [request(f"{place:014}", entity_id, second, kind) for place, (kind, entity_id, second) in enumerate(drawn)]


pendings = pending_requests()
limits = st.integers(1, 20)
busies = st.sets(st.tuples(st.sampled_from(KINDS), st.sampled_from("ABCDEFGH")), max_size=8)


def test_the_longest_pending_go_first():
    pending = [request("1", "C", 30), request("2", "A", 20), request("3", "B", 10)]
    assert ids(choose(pending, limit=2, busy=())) == ["3", "2"]


def test_an_entity_is_as_old_as_its_oldest_request():
    pending = [request("1", "A", 50), request("2", "B", 20), request("3", "A", 10)]
    assert ids(choose(pending, limit=2, busy=())) == ["1", "3"]


def test_in_one_second_contacts_go_before_service_points_before_service_agreements():
    pending = [request(kind, "A", 10, kind) for kind in reversed(KINDS)]
    assert ids(choose(pending, limit=3, busy=())) == list(KINDS)


def test_the_requests_of_an_entity_are_never_parted():
    pending = [request("1", "A", 10), request("2", "B", 20), request("3", "B", 30), request("4", "C", 40)]
    assert ids(choose(pending, limit=2, busy=())) == ["1"]


def test_one_entity_with_more_requests_than_the_limit_goes_alone_and_whole():
    pending = [request(f"{number}", "A", number) for number in range(50)] + [request("other", "B", 60)]
    assert len(choose(pending, limit=10, busy=())) == 50


def test_an_entity_of_an_unfinished_batch_waits_and_another_kind_of_the_same_id_does_not():
    pending = [request("1", "A", 10), request("2", "B", 20), request("3", "A", 30, "metered_service")]
    assert ids(choose(pending, limit=9, busy={("contact", "A")})) == ["2", "3"]


@pytest.mark.parametrize("pending", [[], [request("1", "A", 10)]])
def test_nothing_to_take_is_an_empty_batch(pending: list[Chosen]):
    assert choose(pending, limit=9, busy={("contact", "A")}) == []


@given(pendings, limits, busies)
def test_every_entity_is_taken_whole_or_not_at_all_and_never_a_busy_one(
    pending: list[Chosen], limit: int, busy: set[tuple[str, str]]
):
    chosen = choose(pending, limit=limit, busy=busy)
    taken = {one.subject for one in chosen}
    assert Counter(chosen) == Counter(one for one in pending if one.subject in taken)
    assert not taken & busy


@given(pendings, limits, busies)
def test_the_limit_is_passed_only_by_one_entity_alone(pending: list[Chosen], limit: int, busy: set[tuple[str, str]]):
    chosen = choose(pending, limit=limit, busy=busy)
    assert len(chosen) <= limit or len({one.subject for one in chosen}) == 1


@given(pendings, limits, busies)
def test_nobody_who_waits_is_overtaken(pending: list[Chosen], limit: int, busy: set[tuple[str, str]]):
    taken = {one.subject for one in choose(pending, limit=limit, busy=busy)}
    age = {}
    for one in pending:
        if one.subject not in busy:
            age[one.subject] = min(one.created, age.get(one.subject, one.created))
    left = [created for subject, created in age.items() if subject not in taken]
    assert all(age[subject] <= created for subject in taken for created in left)


@given(pendings, limits, busies, st.randoms(use_true_random=False))
def test_the_order_in_which_ccs_lists_requests_does_not_matter(
    pending: list[Chosen], limit: int, busy: set[tuple[str, str]], random: st.DataObject
):
    shuffled = list(pending)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    chosen = choose(pending, limit=limit, busy=busy)
    assert Counter(choose(shuffled, limit=limit, busy=busy)) == Counter(chosen)


@given(pendings, limits)
def test_batch_after_batch_everything_is_taken_once(pending: list[Chosen], limit: int):
    left, taken = list(pending), list[Chosen]()
    while chosen := choose(left, limit=limit, busy=()):
        taken += chosen
        left = [one for one in left if one not in chosen]
    assert left == []
    assert Counter(taken) == Counter(pending)
