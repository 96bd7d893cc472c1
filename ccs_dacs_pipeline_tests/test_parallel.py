"""Results in order, bounded read-ahead, errors that leave nothing running."""

import threading

import pytest

from ccs_dacs_pipeline.parallel import ahead


def test_results_come_in_the_order_of_the_items_whichever_is_ready_first():
    second_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_done.wait(10)
        if item == 1:
            second_done.set()
        return item * item

    assert list(ahead(work, range(5), window=2)) == [0, 1, 4, 9, 16]


def test_items_are_taken_only_as_there_is_room():
    taken: list[int] = []

    def items():
        for item in range(10):
            taken.append(item)
            yield item

    results = ahead(str, items(), window=3)
    assert next(results) == "0"
    assert taken == [0, 1, 2]
    assert list(results) == [str(item) for item in range(1, 10)]


def test_the_first_error_is_raised_and_nothing_runs_on():
    started: list[int] = []
    ended: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        try:
            if item == 1:
                raise ValueError("one")
            return item
        finally:
            ended.append(item)

    results = ahead(work, range(100), window=2)
    assert next(results) == 0
    with pytest.raises(ValueError, match="one"):
        list(results)
    assert len(started) <= 4
    assert sorted(ended) == sorted(started)


def test_without_items_there_is_nothing():
    assert list(ahead(str, [], window=2)) == []
