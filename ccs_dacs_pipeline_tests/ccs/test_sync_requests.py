"""Sync requests: the list, and the transition that must not be repeated blindly (ccs-rest.md, Sync requests)."""

import json
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from ccs_dacs_pipeline.ccs import (
    Answer,
    BadAnswer,
    CcsClient,
    Connection,
    Permanent,
    Rejected,
    RetryAfterTooLong,
    SyncRequest,
    SyncStatus,
    Transient,
    TransitionUnknown,
)

from .conftest import Start
from .servers import Request, Reset, Server, in_turn, page, reply

CONTACT = "C1-DACSContactSyncRequest"


def listed(key: str, **members: Any) -> dict[str, Any]:
    return {
        "syncRequestId": key,
        "businessObject": CONTACT,
        "boStatus": "PENDING ",
        "maintenanceObject": "PERSON      ",
        "pkValue1": "5775933103",
        "createDateTime": "2026-03-01T10:15:30-08:00",
        "statusDateTime": None,
        "somethingNew": {"x": 1},
        **members,
    }


def requests_page(*records: dict[str, Any], has_more: bool = False) -> bytes:
    return reply(page(records, has_more=has_more, member="syncRequestList"))


def searching(records: list[dict[str, Any]]) -> Callable[[Request], bytes]:
    """A list of sync requests that filters and pages as the contract says."""

    def answer(request: Request) -> bytes:
        filters, limit = request.json["filters"], request.json["limit"]
        wanted = [
            record
            for record in sorted(records, key=lambda record: record["syncRequestId"])
            if filters.get("businessObject") in (None, record["businessObject"])
            and filters.get("boStatus") in (None, record["boStatus"].strip())
            and ("ids" not in filters or record["syncRequestId"] in filters["ids"])
        ]
        after = [record for record in wanted if record["syncRequestId"] > filters.get("afterId", "")]
        body = page(after[:limit], has_more=len(after) > limit, total=len(wanted), member="syncRequestList")
        return reply(body)

    return answer


def test_a_sync_request_is_read_with_its_codes_trimmed(start: Start) -> None:
    client, _ = start(searching([listed("85810617092033", statusDateTime="2026-03-01T18:15:31Z")]))
    ((request,),) = client.sync_requests()
    pacific = timezone(timedelta(hours=-8))
    assert request == SyncRequest(
        id="85810617092033",
        business_object=CONTACT,
        status=SyncStatus.PENDING,
        maintenance_object="PERSON",
        pk_value1="5775933103",
        created=datetime(2026, 3, 1, 10, 15, 30, tzinfo=pacific),
        status_changed=datetime(2026, 3, 1, 10, 15, 31, tzinfo=pacific),
    )


def test_filters_combine_and_pages_are_walked_by_key(start: Start) -> None:
    records = [listed(f"{number:014d}", boStatus=["PENDING", "ERROR"][number % 2]) for number in range(10)]
    client, server = start(searching(records), page_size=2)
    pages = list(client.sync_requests(business_object=CONTACT, status=SyncStatus.PENDING))
    assert [[int(request.id) for request in requests] for requests in pages] == [[0, 2], [4, 6], [8]]
    assert server.requests[1].json == {
        "filters": {"businessObject": CONTACT, "boStatus": "PENDING", "afterId": f"{2:014d}"},
        "limit": 2,
    }
    assert client.count_sync_requests(status=SyncStatus.ERROR) == 5
    assert server.requests[-1].json == {"filters": {"boStatus": "ERROR"}, "limit": 0}


def test_ids_go_500_at_a_time(start: Start) -> None:
    records = [listed(f"{number:014d}") for number in range(700)]
    client, server = start(searching(records))
    pages = list(client.sync_requests(ids=[record["syncRequestId"] for record in reversed(records)] * 2))
    assert [len(requests) for requests in pages] == [500, 200]
    assert [len(request.json["filters"]["ids"]) for request in server.requests] == [500, 200]
    assert list(client.sync_requests(ids=["99999999999999"])) == []


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (requests_page(listed("2"), listed("1")), "out of order"),
        (requests_page(listed("1"), listed("1")), "twice"),
        (requests_page(listed("1", boStatus="AWAITINGACK")), "1 sync requests that do not match the filters"),
        (requests_page(listed("1", businessObject="X")), "1 sync requests that do not match the filters"),
        (requests_page(listed("5")), "1 sync requests that do not match the filters"),
        (requests_page(has_more=True), "empty and says that more follow"),
        (requests_page(listed("1", boStatus="LOST")), "boStatus: enum"),
        (requests_page(listed("1", boStatus=None)), "boStatus"),
        (requests_page(listed("1", pkValue1=None)), "pkValue1: string_type"),
        (requests_page(listed("1", createDateTime="2026-03-01T10:15:30")), "createDateTime: timezone_aware"),
        (requests_page(listed("1", createDateTime="1767225600")), "createDateTime: value_error"),
        (reply({"hasMore": False, "totalNumberOfRecords": 1, "requests": []}), "syncRequestList is null"),
        (reply({"totalNumberOfRecords": 1, "syncRequestList": []}), "no hasMore"),
        (reply(b"<html></html>"), "HTML"),
    ],
)
def test_a_page_that_is_not_as_the_contract_says_is_read_again_once(start: Start, bad: bytes, fault: str) -> None:
    client, server = start(in_turn(bad, requests_page(listed("1"), listed("2"))))

    def search() -> list[list[SyncRequest]]:
        return list(client.sync_requests(business_object=CONTACT, status=SyncStatus.PENDING, ids=["1", "2"]))

    assert len(search()[0]) == 2
    server.answer = in_turn(bad)
    with pytest.raises(BadAnswer, match=fault):
        search()


def test_a_final_state_takes_no_transition() -> None:
    assert [status for status in SyncStatus if not status.final] == [SyncStatus.PENDING, SyncStatus.AWAITINGACK]


@pytest.mark.parametrize("answer", [reply(status=204), reply({"anything": 1}), reply(b"not JSON")])
def test_a_transition_is_one_patch_whose_body_is_not_relied_on(start: Start, answer: bytes) -> None:
    client, server = start(in_turn(answer))
    client.transition("85810617092033", Answer.error(11508, 17055, "gone: half a pair \ud800"))
    (request,) = server.requests
    assert (request.method, request.path) == ("PATCH", "/rest/apis/common/sync/syncRequest/85810617092033")
    assert request.json["syncRequestId"] == "85810617092033"
    assert request.json["hasError"] is True
    assert request.json["exceptionInfo"][0]["comments"] == "gone: half a pair \ud800"


def test_an_id_never_reaches_beyond_its_segment_of_the_path(start: Start) -> None:
    client, server = start(in_turn(reply(status=204)))
    client.transition("../x?y", Answer.positive())
    assert server.requests[0].path == "/rest/apis/common/sync/syncRequest/..%2Fx%3Fy"


def _reset(_: Request) -> bytes:
    raise Reset


@pytest.mark.parametrize(
    "fault",
    [
        reply(status=500),
        reply(status=503, headers={"Retry-After": "0"}),
        reply(status=503, headers={"Retry-After": "99999"}),
        reply(status=408),
        _reset,
        b"HTTP/1.1 200 OK\r\nConnection: close",
        reply(b"x", headers={"Content-Length": "9", "Connection": "close"}),
        reply(b"x", headers={"Content-Encoding": "br"}),
    ],
    ids=["500", "503", "503 for long", "408", "reset", "cut head", "cut body", "encoding"],
)
def test_a_transition_whose_outcome_is_unknown_is_sent_once(start: Start, fault: Any) -> None:
    client, server = start(in_turn(fault))
    with pytest.raises(TransitionUnknown, match="read the state before any repeat"):
        client.transition("1", Answer.positive())
    assert len(server.requests) == 1


def test_a_transition_that_is_not_answered_in_time_is_unknown(start: Start) -> None:
    answered = threading.Event()
    client, server = start(lambda _: [b"late"][answered.wait(5) :], call_seconds=0.2)
    with pytest.raises(TransitionUnknown, match=r"within 0\.2 s"):
        client.transition("1", Answer.positive())
    answered.set()
    assert len(server.requests) == 1


def test_a_transition_is_repeated_after_429_and_sent_once_in_effect(start: Start) -> None:
    client, server = start(
        in_turn(reply(status=429, headers={"Retry-After": "0"}), reply(status=429), reply(status=204))
    )
    client.transition("1", Answer.positive())
    assert len(server.requests) == 3


def test_a_guard_is_asked_before_each_sending_and_ends_the_call(start: Start) -> None:
    client, server = start(in_turn(reply(status=429), reply(status=204)))
    asked: list[int] = []

    def guard() -> None:
        asked.append(len(server.requests))
        if len(asked) == 2:
            raise PermissionError("the lease has passed to another")

    with pytest.raises(PermissionError):
        client.transition("1", Answer.positive(), guard=guard)
    assert (asked, len(server.requests)) == ([0, 1], 1)


def test_429_to_the_end_and_a_long_wait_say_that_nothing_has_changed(start: Start) -> None:
    client, server = start(in_turn(reply(status=429)), tries=3)
    with pytest.raises(Transient, match="gave up after 3 of 3 tries"):
        client.transition("1", Answer.positive())
    assert len(server.requests) == 3
    server.answer = in_turn(reply(status=429, headers={"Retry-After": "500"}))
    with pytest.raises(RetryAfterTooLong):
        client.transition("1", Answer.positive())


def test_a_ccs_that_is_not_there_has_changed_nothing() -> None:
    with Server(lambda _: reply()) as gone:
        pass
    with CcsClient(Connection(gone.url, None)) as client, pytest.raises(Transient, match="cannot be reached"):
        client.transition("1", Answer.positive())


PROBLEM = {
    "problemType": "https://ccs.example.com/rest/problems/message/11508/17001",
    "title": "Business error",
    "detail": "Sync request is in a\nfinal state",
    "httpStatus": 400,
    "stackTrace": "com.example.Secret",
    "serverMessage": {"text": "internal"},
}


@pytest.mark.parametrize("document", [PROBLEM, {"problemDetailDocument": PROBLEM}], ids=["bare", "wrapped"])
def test_a_business_error_is_rejected_with_what_ccs_says(start: Start, document: Any) -> None:
    client, server = start(in_turn(reply(document, status=400)))
    with pytest.raises(Rejected) as error:
        client.transition("1", Answer.positive())
    problem = error.value.problem
    assert (problem.title, problem.detail) == ("Business error", "Sync request is in a final state")
    assert (problem.category, problem.number, error.value.status) == (11508, 17001, 400)
    assert str(error.value) == (
        "PATCH /rest/apis/common/sync/syncRequest/1: refused with 400: Business error - Sync request is in a final "
        "state (message 11508/17001)"
    )
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"<html>No</html>", b"", json.dumps({"problemDetailDocument": 7}).encode()])
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_gateway_may_refuse_without_json(start: Start, status: int, body: bytes) -> None:
    client, _ = start(in_turn(reply(body, status=status)))
    with pytest.raises(Permanent, match=f"refused with {status}: (check|give)") as error:
        client.transition("1", Answer.positive())
    assert not isinstance(error.value, Rejected)
    assert error.value.status == status


def test_a_body_that_is_too_large_for_a_gateway_is_about_this_one_call(start: Start) -> None:
    client, server = start(in_turn(reply(b"<html>Request Entity Too Large</html>", status=413)))
    with pytest.raises(Rejected, match="refused with 413"):
        client.transition("1", Answer.positive({"entityIdList": ["long"]}))
    assert len(server.requests) == 1
