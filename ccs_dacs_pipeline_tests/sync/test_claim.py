"""The order of claims: an entity's newest request first, each entity once per round (sync-lifecycle.md, 1 and 2)."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ccs_dacs_pipeline.ledger.requests import Claim
from ccs_dacs_pipeline.sync.claim import _IN_A_ROW, CHUNK, _rounds, _rows, chunks


def claim(request_id: str, entity_id: str, entity: str = "contact") -> Claim:
    return Claim(request_id, entity, entity_id, attempts=0, found=None)


claims = st.lists(
    st.tuples(st.sampled_from(["contact", "metered_service"]), st.sampled_from("ABCDE")), max_size=60
).map(lambda drawn: [claim(f"{place:014}", entity_id, entity) for place, (entity, entity_id) in enumerate(drawn)])


def test_the_newest_of_every_entity_goes_in_the_first_round():
    newest_first = [
        claim("9", "A"),
        claim("5", "A"),
        claim("1", "A"),
        claim("8", "B"),
        claim("7", "A", "metered_service"),
    ]
    rounds = [[one.request_id for one in claims] for claims in _rounds(newest_first)]
    assert rounds == [["9", "8", "7"], ["5"], ["1"]]


def test_nothing_to_claim_is_no_round():
    assert _rounds([]) == []


@given(claims)
def test_every_claim_is_in_one_round(found: list[Claim]):
    assert Counter(one for claims in _rounds(found) for one in claims) == Counter(found)


@given(claims)
def test_an_entity_is_in_a_round_once_and_in_every_round_up_to_its_last(found: list[Claim]):
    rounds = [Counter((one.entity, one.entity_id) for one in claims) for claims in _rounds(found)]
    assert all(set(entities.values()) <= {1} for entities in rounds)
    assert all(set(after) <= set(before) for before, after in pairwise(rounds))


@given(claims)
def test_the_requests_of_an_entity_keep_their_order_from_round_to_round(found: list[Claim]):
    one_after_the_other = [one for claims in _rounds(found) for one in claims]
    for subject in {(one.entity, one.entity_id) for one in found}:
        mine = [one for one in found if (one.entity, one.entity_id) == subject]
        assert [one for one in one_after_the_other if (one.entity, one.entity_id) == subject] == mine


@given(st.integers(0, 3 * CHUNK + 1))
def test_pieces_hold_at_most_what_one_search_takes_and_lose_nothing(number: int):
    pieces = list(chunks(range(number)))
    assert [one for piece in pieces for one in piece] == list(range(number))
    assert all(0 < len(piece) <= CHUNK for piece in pieces)
    assert all(len(piece) == CHUNK for piece in pieces[:-1])


@given(st.integers(0, 200), st.integers(1, 20))
def test_transitions_are_shared_out_so_that_each_is_sent_once_and_no_thread_is_left_without(number: int, threads: int):
    rows = list(_rows(range(number), threads))
    assert [one for row in rows for one in row] == list(range(number))
    assert all(0 < len(row) <= _IN_A_ROW for row in rows)
    assert len(rows) >= min(number, threads)
