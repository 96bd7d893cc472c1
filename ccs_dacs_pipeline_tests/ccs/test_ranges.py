"""Planning of key ranges."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_dacs_pipeline.ccs import plan_ranges


@given(st.integers(0, 10**10 - 1), st.integers(0, 10**10 - 1), st.integers(0, 10**6), st.integers(100, 50_000))
def test_the_ranges_cover_the_whole_exactly_once(one: int, other: int, total: int, max_entities: int) -> None:
    low, high = sorted((one, other))
    ranges = plan_ranges(f"{low:010d}", f"{high:010d}", total, max_entities=max_entities)
    assert all(len(key) == 10 for pair in ranges for key in pair)
    assert int(ranges[0][0]) == low
    assert int(ranges[-1][1]) == high
    assert all(int(after[0]) == int(before[1]) + 1 for before, after in pairwise(ranges))
    widths = {int(end) - int(start) for start, end in ranges}
    assert max(widths) - min(widths) <= 1
    assert min(widths) >= 0
    assert total / len(ranges) <= max_entities * 0.8 or len(ranges) == high - low + 1


def test_a_million_entities_in_ranges_of_at_most_forty_thousand() -> None:
    ranges = plan_ranges("0000000000", "9999999999", 1_000_000, max_entities=40_000)
    assert len(ranges) == 32
    assert ranges[0] == ("0000000000", "0312499999")


def test_nothing_to_fetch_is_still_one_range() -> None:
    assert plan_ranges("0000000005", "0000000009", 0, max_entities=10) == [("0000000005", "0000000009")]


@pytest.mark.parametrize(
    ("low", "high", "total", "max_entities"),
    [
        ("5", "09", 1, 1),
        ("9", "5", 1, 1),
        ("x", "y", 1, 1),
        ("1", "5", -1, 1),
        ("1", "5", 1, 0),
        ("\u0661", "\u0665", 1, 1),
    ],
)
def test_what_is_no_range_is_refused(low: str, high: str, total: int, max_entities: int) -> None:
    with pytest.raises(ValueError, match=r"id|total"):
        plan_ranges(low, high, total, max_entities=max_entities)
