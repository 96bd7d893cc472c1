"""Faults of HTTP and how they are survived (ccs-rest.md: Limits, Trust)."""

import gzip
import json
import threading
import time
import tracemalloc
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from ccs_dacs_pipeline.ccs import (
    BadAnswer,
    CcsClient,
    Connection,
    Permanent,
    Rejected,
    RetryAfterTooLong,
    Transient,
)

from .conftest import Start
from .servers import PERSONS, Request, Reset, SearchableCcs, Server, in_turn, people, reply, until_closed

COUNT = reply({"totalNumberOfRecords": 5})


def count(client: CcsClient) -> int:
    return client.count(PERSONS, "0", "9")


def _reset(_: Request) -> bytes:
    raise Reset


def _reset_in_body(_: Request) -> Iterable[bytes]:
    yield COUNT[:-5]
    raise Reset


@pytest.mark.parametrize(
    "fault",
    [
        *(reply(b"<html>busy</html>", status=status) for status in (408, 429, 500, 502, 503, 504)),
        _reset,
        _reset_in_body,
        COUNT[:20] + b"\r\nConnection: close\r\n",
        reply(b"x", headers={"Content-Length": "99", "Connection": "close"}),
        reply(gzip.compress(b"{}")[:-4], headers={"Content-Encoding": "gzip"}),
        reply(b"not gzip", headers={"Content-Encoding": "gzip"}),
    ],
)
def test_a_transient_fault_is_repeated(start: Start, fault: Any) -> None:
    client, server = start(in_turn(fault, fault, COUNT))
    assert count(client) == 5
    assert len(server.requests) == 3


def test_it_is_given_up_after_the_tries_and_says_so(start: Start) -> None:
    client, server = start(in_turn(reply(status=503)), tries=4)
    with pytest.raises(Transient, match=r"answered 503; gave up after 4 of 4 tries in \d+\.\d s") as error:
        count(client)
    assert error.value.call == "POST /rest/apis/cm/dacs/persons/search"
    assert len(server.requests) == 4


def test_the_tries_end_with_the_time_of_the_call(start: Start) -> None:
    client, _ = start(in_turn(reply(status=503)), tries=1000, retry_seconds=0.3, backoff_seconds=0.05)
    begun = time.monotonic()
    with pytest.raises(Transient):
        count(client)
    assert time.monotonic() - begun < 0.5


def test_a_try_ends_with_the_time_of_the_call_too(start: Start) -> None:
    done = threading.Event()
    client, _ = start(lambda _: [b"late"][done.wait(5) :], call_seconds=5, retry_seconds=0.2)
    begun = time.monotonic()
    with pytest.raises(Transient, match=r"within 0\.2 s"):
        count(client)
    done.set()
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed_in_seconds(start: Start, status: int) -> None:
    client, _ = start(in_turn(reply(status=status, headers={"Retry-After": "1"}), COUNT))
    begun = time.monotonic()
    assert count(client) == 5
    assert 1 <= time.monotonic() - begun < 2


def test_retry_after_as_a_date_counts_from_the_answers_own_date(start: Start) -> None:
    now = datetime.now(UTC) + timedelta(days=3)
    headers = {"Date": format_datetime(now, usegmt=True), "Retry-After": format_datetime(now + timedelta(seconds=1))}
    client, _ = start(in_turn(reply(status=429, headers=headers), COUNT))
    begun = time.monotonic()
    assert count(client) == 5
    assert 1 <= time.monotonic() - begun < 2


@pytest.mark.parametrize(
    "text",
    ["soon", "", "-1", "1.5", "Fri, 99 Foo 2026 10:00:00 GMT", "Fri, 02 Jan 2026 10:00:00 +99999999999999", "٣"],
)
def test_a_retry_after_that_cannot_be_read_is_not_heeded(start: Start, text: str) -> None:
    client, _ = start(in_turn(reply(status=429, headers={"Retry-After": text}), COUNT))
    assert count(client) == 5


@pytest.mark.parametrize(
    "text", ["121", "9" * 5000, format_datetime(datetime.now(UTC) + timedelta(days=2), usegmt=True)], ids=len
)
def test_a_retry_after_beyond_the_maximum_ends_the_call_and_names_the_time(start: Start, text: str) -> None:
    client, server = start(in_turn(reply(status=429, headers={"Retry-After": text}), COUNT), retry_seconds=1000)
    with pytest.raises(
        RetryAfterTooLong, match=r"asks to wait \d+ s, until .* UTC.*longer than is ever waited \(120 s\)"
    ) as error:
        count(client)
    assert error.value.until > datetime.now(UTC) + timedelta(seconds=100)
    assert len(server.requests) == 1


def test_a_retry_after_beyond_the_time_of_the_call_ends_it_at_once(start: Start) -> None:
    client, _ = start(in_turn(reply(status=503, headers={"Retry-After": "60"})), retry_seconds=10)
    with pytest.raises(RetryAfterTooLong, match="left for this call"):
        count(client)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Rejected), (401, Permanent), (403, Permanent), (404, Rejected), (409, Rejected), (422, Rejected)],
)
def test_what_is_refused_is_not_repeated(start: Start, status: int, kind: type[Permanent]) -> None:
    client, server = start(in_turn(reply({"title": "No"}, status=status)))
    with pytest.raises(Permanent, match=f"refused with {status}: No") as error:
        count(client)
    assert type(error.value) is kind
    assert len(server.requests) == 1


def test_an_unreachable_ccs_is_named() -> None:
    with Server(lambda _: COUNT) as gone:
        pass
    gave_up = pytest.raises(Transient, match=f"{gone.url} cannot be reached .*gave up after 2 of 2 tries")
    with CcsClient(Connection(gone.url, None, tries=2, backoff_seconds=0.01)) as client, gave_up:
        count(client)


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000, COUNT[:-20] + b" " * 1000])
def test_a_slow_drip_of_head_or_body_ends_with_the_time_of_the_call(start: Start, part: bytes) -> None:
    client, server = start(lambda _: server.drip(part), call_seconds=0.3, tries=2)
    begun = time.monotonic()
    with pytest.raises(Transient, match=r"no complete answer .* within 0\.3 s"):
        count(client)
    assert time.monotonic() - begun < 2
    assert len(server.requests) == 2


def test_an_answer_that_never_comes_ends_with_the_time_of_the_call(start: Start) -> None:
    done = threading.Event()
    client, _ = start(lambda _: [b"late"][done.wait(5) :], call_seconds=0.2, tries=1)
    with pytest.raises(Transient, match=r"within 0\.2 s"):
        count(client)
    done.set()


def test_a_body_cut_off_without_a_length_is_no_json_and_read_again_once(start: Start) -> None:
    cut = until_closed(b'{"totalNumberOfRecords": 5')
    client, server = start(in_turn(cut, COUNT))
    assert count(client) == 5
    server.answer = in_turn(cut)
    with pytest.raises(BadAnswer, match="cut off or not JSON"):
        count(client)


def test_gzip_is_offered_and_taken(start: Start) -> None:
    body = gzip.compress(json.dumps({"totalNumberOfRecords": 5}).encode())
    client, server = start(in_turn(reply(body, headers={"Content-Encoding": "gzip"})))
    assert count(client) == 5
    assert server.requests[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("levels", [1, 2])
def test_a_small_body_that_expands_hugely_is_stopped_at_the_bound(start: Start, levels: int) -> None:
    body = b" " * 100_000_000
    for _ in range(levels):
        body = gzip.compress(body, 9)
    encoding = ", ".join(["gzip"] * levels)
    client, _ = start(in_turn(reply(body, headers={"Content-Encoding": encoding})), max_response_bytes=1_000_000)
    tracemalloc.start()
    with pytest.raises(BadAnswer, match=r"larger than 1,000,000 bytes|only gzip was offered"):
        count(client)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_large_body_is_stopped_at_the_bound(start: Start) -> None:
    client, _ = start(in_turn(reply(b" " * 1001)), max_response_bytes=1000)
    with pytest.raises(BadAnswer, match=r"larger than 1,000 bytes: ask for smaller pages \(CCS_DACS_CCS_PAGE_SIZE\)"):
        count(client)


def test_a_second_compressed_stream_is_not_dropped_silently(start: Start) -> None:
    body = gzip.compress(b'{"totalNumberOfRecords": 5}') + gzip.compress(b" ")
    client, _ = start(in_turn(reply(body, headers={"Content-Encoding": "gzip"})))
    with pytest.raises(BadAnswer, match="after the end of its compression"):
        count(client)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_names_both_origins_and_no_credential_leaves(start: Start, status: int) -> None:
    with Server(lambda _: COUNT) as elsewhere:
        location = {"Location": f"{elsewhere.url}/rest?token=secret"}
        client, server = start(in_turn(reply(status=status, headers=location)))
        with pytest.raises(Permanent, match=f"{server.url} redirects to {elsewhere.url} ") as error:
            count(client)
        assert "secret" not in str(error.value)
        assert elsewhere.requests == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("location", ["/elsewhere", "", "http://[bad"])
def test_a_redirect_within_the_origin_or_to_nowhere_is_refused_too(start: Start, location: str) -> None:
    client, server = start(in_turn(reply(status=302, headers={"Location": location})))
    with pytest.raises(Permanent, match="redirects are never followed"):
        count(client)
    assert len(server.requests) == 1


def test_links_in_bodies_are_ignored(start: Start) -> None:
    with Server(lambda _: COUNT) as elsewhere:
        body = {"totalNumberOfRecords": 5, "next": f"{elsewhere.url}/next", "links": [{"href": elsewhere.url}]}
        client, _ = start(in_turn(reply(body)))
        assert count(client) == 5
        assert elsewhere.requests == []


def test_no_proxy_of_the_environment_sees_a_call(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(lambda _: reply(status=500)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        client, _ = start(in_turn(COUNT))
        assert count(client) == 5
        assert proxy.requests == []


def test_cookies_go_back_so_that_ccs_needs_no_new_session_for_each_call(start: Start) -> None:
    with_cookie = reply({"totalNumberOfRecords": 5}, headers={"Set-Cookie": "JSESSIONID=one; Path=/; HttpOnly"})
    elsewhere = reply({"totalNumberOfRecords": 5}, headers={"Set-Cookie": "other=two; Path=/; Domain=example.com"})
    client, server = start(in_turn(with_cookie, elsewhere, COUNT))
    assert [count(client) for _ in range(3)] == [5, 5, 5]
    assert [request.headers.get("cookie") for request in server.requests] == [None, "JSESSIONID=one", "JSESSIONID=one"]


def test_one_client_serves_many_threads(start: Start) -> None:
    client, server = start(SearchableCcs(people("1", "2", "3")), concurrency=4)
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(count(client))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert counts == [3] * 16
    assert len(server.requests) == 16
