"""Searches (ccs-rest.md, Searches) and completeness (sync-lifecycle.md)."""

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccs_dacs_pipeline.ccs import BadAnswer, CcsClient, Connection, IncompleteRange

from .conftest import Start
from .servers import PERSONS, Request, SearchableCcs, Server, in_turn, page, people, reply

LOW, HIGH = "0000000000", "9999999999"
IDS = [f"{number * 7919:010d}" for number in range(1, 26)]


def ids_of(*frames: pl.DataFrame) -> list[str]:
    return [key for frame in frames for key in frame["personId"]]


def test_a_page_is_asked_for_as_the_contract_says(start: Start) -> None:
    client, server = start(SearchableCcs(people(*IDS)), language="de", page_size=10)
    first = client.search_range(PERSONS, LOW, HIGH)
    second = client.search_range(PERSONS, LOW, HIGH, after=IDS[9], limit=20)
    assert ids_of(first.frame, second.frame) == IDS
    assert (first.has_more, first.total, second.has_more, second.total) == (True, 25, False, 25)
    one, other = server.requests
    assert (one.method, one.path) == ("POST", "/rest/apis/cm/dacs/persons/search")
    assert one.json == {"filters": {"lowId": LOW, "highId": HIGH}, "limit": 10}
    assert other.json == {"filters": {"lowId": LOW, "highId": HIGH, "afterId": IDS[9]}, "limit": 20}
    assert one.headers["accept"] == one.headers["content-type"] == "application/json"
    assert one.headers["accept-language"] == "de"
    assert "authorization" not in one.headers


def test_a_site_may_have_put_a_search_elsewhere_and_ccs_may_have_a_context_path(start: Start) -> None:
    client, server = start(SearchableCcs([]), search_paths={"persons": "/rest/apis/cm/people/find/"})
    client.count(PERSONS, LOW, HIGH)
    with CcsClient(Connection(f"{server.url}/ouaf/", None)) as other:
        other.count(PERSONS, LOW, HIGH)
    assert [request.path for request in server.requests] == [
        "/rest/apis/cm/people/find/",
        "/ouaf/rest/apis/cm/dacs/persons/search",
    ]


def test_the_count_is_asked_for_with_limit_0(start: Start) -> None:
    client, server = start(SearchableCcs(people(*IDS)))
    assert client.count(PERSONS, IDS[3], IDS[7]) == 5
    assert server.requests[0].json["limit"] == 0


@contextmanager
def serving(ccs: SearchableCcs, page_size: int) -> Iterator[CcsClient]:
    with Server(ccs) as server, CcsClient(Connection(server.url, None, page_size=page_size)) as client:
        yield client


@settings(max_examples=30, deadline=None)
@given(
    ids=st.sets(st.integers(0, 10**10 - 1).map("{:010d}".format), max_size=40),
    bounds=st.tuples(st.integers(0, 10**10 - 1), st.integers(0, 10**10 - 1)),
    page_size=st.integers(1, 50),
    largest_page=st.integers(1, 20),
)
def test_walking_the_pages_gives_exactly_the_set(
    ids: set[str], bounds: tuple[int, int], page_size: int, largest_page: int
) -> None:
    low, high = (f"{bound:010d}" for bound in sorted(bounds))
    with serving(SearchableCcs(people(*ids), largest_page=largest_page), page_size) as client:
        frames = client.read_range(PERSONS, low, high)
        assert ids_of(*frames) == sorted(key for key in ids if low <= key <= high)
        assert client.count(PERSONS, low, high) == sum(frame.height for frame in frames)
        assert ids_of(client.read_ids(PERSONS, [*ids, LOW, HIGH])) == sorted(ids)


GOOD = reply(page(people("1", "2"), has_more=True, total=9))


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (page(people("2", "1"), total=9), "twice or out of order"),
        (page(people("1", "1"), total=9), "twice or out of order"),
        (page(people("1", "9"), total=9), "outside of what was asked for"),
        (page(people("0", "1"), total=9), "outside of what was asked for"),
        (page([{"personId": None}], total=9), "1 entities have no personId"),
        (page([{"id": "1"}], total=9), "1 entities have no personId"),
        (page([], has_more=True, total=9), "empty and says that more follow"),
        (b'{"limit": 2, "totalNumberOfRecords": 9, "personList": []}', "no hasMore"),
        (page(people("1"))[:-9], "cut off"),
        (b"<html>Bad gateway</html>", "HTML"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_page_is_read_again_once_and_then_is_an_error(start: Start, bad: bytes, fault: str) -> None:
    client, server = start(in_turn(reply(bad), GOOD))
    assert ids_of(client.search_range(PERSONS, "1", "5").frame) == ["1", "2"]
    server.answer = in_turn(reply(bad))
    with pytest.raises(BadAnswer, match=fault) as error:
        client.search_range(PERSONS, "1", "5")
    assert str(error.value).startswith("POST /rest/apis/cm/dacs/persons/search: ")
    assert len(server.requests) == 4


def test_a_repeated_page_is_noticed(start: Start) -> None:
    client, _ = start(in_turn(GOOD))
    with pytest.raises(BadAnswer, match="outside of what was asked for"):
        client.read_range(PERSONS, "1", "5")


def test_a_range_that_changes_while_it_is_read_is_read_again(start: Start) -> None:
    ccs = SearchableCcs(people(*IDS), largest_page=10)
    changes = [
        lambda: ccs.records.pop(IDS[0]),
        lambda: ccs.records.update({IDS[1][:-1] + "9": people(IDS[1][:-1] + "9")[0]}),
    ]

    def answer(request: Request) -> bytes:
        given = ccs(request)
        if changes and "afterId" in request.json["filters"]:
            changes.pop()()
        return given

    client, _ = start(answer)
    assert ids_of(*client.read_range(PERSONS, LOW, HIGH)) == sorted(ccs.records)
    assert not changes


@pytest.mark.parametrize("total", [1, 3])
def test_a_range_that_never_holds_its_total_is_an_error_with_both_figures(start: Start, total: int) -> None:
    client, server = start(in_turn(reply(page(people("1", "2"), total=total))))
    with pytest.raises(IncompleteRange, match=f"gave 2 entities where CCS counts {total}") as error:
        client.read_range(PERSONS, "1", "5")
    assert (error.value.received, error.value.total) == (2, total)
    assert len(server.requests) == 4, "read once, and 3 times again"


def test_the_total_of_the_last_page_counts(start: Start) -> None:
    client, _ = start(in_turn(reply(page(people("1"), has_more=True, total=7)), reply(page(people("2"), total=2))))
    assert ids_of(*client.read_range(PERSONS, "1", "5")) == ["1", "2"]


def test_ids_are_read_500_at_a_time_each_once_and_absent_ones_are_absent(start: Start) -> None:
    ids = [f"{number:010d}" for number in range(1200)]
    client, server = start(SearchableCcs(people(*ids[:1100])))
    frame = client.read_ids(PERSONS, [*reversed(ids), *ids])
    assert ids_of(frame) == ids[:1100]
    assert frame.schema == PERSONS.schema
    assert [len(request.json["filters"]["ids"]) for request in server.requests] == [500, 500, 200]


def test_no_ids_ask_for_nothing(start: Start) -> None:
    client, server = start(SearchableCcs(people(*IDS)))
    assert client.read_ids(PERSONS, []).equals(PERSONS.schema.to_frame())
    assert list(client.sync_requests(ids=[])) == []
    assert server.requests == []


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (page(people("1", "3")), "not asked for"),
        (page(people("2", "2")), "twice"),
        (page(people("1"), has_more=True), "not complete"),
        (b'{"totalNumberOfRecords": 1, "personList": []}', "no hasMore"),
    ],
)
def test_an_answer_to_ids_that_cannot_be_right_is_read_again_once(start: Start, bad: bytes, fault: str) -> None:
    client, server = start(in_turn(reply(bad), reply(page(people("2", "1")))))
    assert ids_of(client.read_ids(PERSONS, ["1", "2"])) == ["1", "2"]
    server.answer = in_turn(reply(bad))
    with pytest.raises(BadAnswer, match=fault):
        client.read_ids(PERSONS, ["1", "2"])


def test_health_is_passed_on_as_it_is(start: Start) -> None:
    health = {"healthOverallResponse": 200, "healthCheckResults": [{"component": "db", "response": 200}]}
    client, server = start(in_turn(reply(health)))
    assert client.health() == health
    assert (server.requests[0].method, server.requests[0].path) == ("GET", "/rest/apis/common/system/healthCheck/")
