"""How a snapshot's key range is cut into shards (sync-lifecycle.md, Initial synchronization, Shards)."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_dacs_pipeline.ledger.life import BatchStateError
from ccs_dacs_pipeline.sync.start import split_evenly

ids = st.integers(0, 10**10 - 1)


@given(ids, ids, st.integers(1, 500))
def test_the_shards_cover_the_range_exactly_and_are_equally_wide(one: int, other: int, parts: int):
    low, high = sorted((one, other))
    parts = min(parts, high - low + 1)
    ranges = split_evenly(f"{low:010d}", f"{high:010d}", parts)
    assert len(ranges) == parts
    assert all(len(end) == 10 for pair in ranges for end in pair)
    bounds = [(int(start), int(end)) for start, end in ranges]
    assert (bounds[0][0], bounds[-1][1]) == (low, high)
    assert all(after[0] == before[1] + 1 for before, after in pairwise(bounds))
    widths = {end - start + 1 for start, end in bounds}
    assert min(widths) >= 1
    assert max(widths) - min(widths) <= 1


def test_one_shard_is_the_whole_range():
    assert split_evenly("0000000000", "9999999999", 1) == [("0000000000", "9999999999")]


def test_four_shards_of_the_whole_key_space():
    assert split_evenly("0000000000", "9999999999", 4) == [
        ("0000000000", "2499999999"),
        ("2500000000", "4999999999"),
        ("5000000000", "7499999999"),
        ("7500000000", "9999999999"),
    ]


def test_as_many_shards_as_ids_is_one_id_each():
    assert split_evenly("0000000007", "0000000009", 3) == [
        (key, key) for key in ("0000000007", "0000000008", "0000000009")
    ]


@pytest.mark.parametrize(
    ("low", "high", "parts"),
    [("0000000001", "0000000003", 4), ("0000000000", "9999999999", 0), ("0000000000", "9999999999", -1),
     ("0000000002", "0000000001", 1)],
)  # fmt: skip
def test_more_shards_than_ids_or_none_at_all_are_refused(low: str, high: str, parts: int):
    with pytest.raises(
        BatchStateError, match=f"{parts} shards cannot be made of the ids {low} to {high}; ask for fewer"
    ):
        split_evenly(low, high, parts)
