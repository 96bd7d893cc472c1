"""The acknowledgement inbox over real sockets (sync-lifecycle.md, Acknowledgements)."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPResponse
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy as sa

from ccs_dacs_pipeline.dacs.inbox import BasicCaller, BearerCaller, Caller, _take, inbox
from ccs_dacs_pipeline.dacs.inbox_server import inbox_server
from ccs_dacs_pipeline.ledger import Ledger, LedgerError
from ccs_dacs_pipeline.ledger.acknowledgements import Acknowledgement, Stored, store
from ccs_dacs_pipeline.ledger.report import status
from ccs_dacs_pipeline.ledger.schema import acknowledgements
from ccs_dacs_pipeline_tests.folders.files import read_only
from ccs_dacs_pipeline_tests.ledger.batches import change, send, start_delta
from ccs_dacs_pipeline_tests.ledger.databases import KINDS, empty_database

USER = BasicCaller("dacs", "canary:påss")
MAX_BYTES = 100_000
NOTHING = {"accepted": 0, "duplicates": 0, "parked": 0, "refused": []}
CANARY = "Canary Reddy"

PROCESS = """
import socket, sys
from ccs_dacs_pipeline.dacs.inbox import BearerCaller, inbox
from ccs_dacs_pipeline.dacs.inbox_server import inbox_server
from ccs_dacs_pipeline.ledger import Ledger

ledger = Ledger(sys.argv[1])
ledger.migrate()
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
application = inbox(ledger, BearerCaller("t0ken"), max_bytes=100_000)
inbox_server(application).run(sockets=[listener])
"""


@dataclass(frozen=True)
class Inbox:
    """An inbox that is being served, and a client that presents what it asks for."""

    client: httpx.Client
    ledger: Ledger

    def post(self, document: object, **arguments: Any) -> httpx.Response:
        return self.client.post("/acknowledgements", json=document, **arguments)

    def post_bytes(self, content: bytes) -> httpx.Response:
        return self.client.post("/acknowledgements", content=content)

    @property
    def stored(self) -> list[str]:
        """The requests whose acknowledgements the ledger has."""
        with self.ledger.read() as db:
            return list(db.execute(sa.select(acknowledgements.c.request_id).order_by(acknowledgements.c.id)).scalars())

    def connection(self) -> socket.socket:
        """A connection on which nothing has been said."""
        return socket.create_connection((self.client.base_url.host, self.client.base_url.port or 0), timeout=10)

    def unfinished(self, head: str, body: bytes = b"") -> tuple[int, bytes]:
        """Sends a request whose body does not come to its end; returns status and body of the answer to it."""
        with self.connection() as connection:
            connection.sendall(f"POST /acknowledgements HTTP/1.1\r\nHost: inbox\r\n{head}\r\n\r\n".encode() + body)
            with HTTPResponse(connection) as answer:
                answer.begin()
                return answer.status, answer.read()

    @property
    def credential(self) -> str:
        """The header that the client presents."""
        request = next(self.client.auth.auth_flow(httpx.Request("POST", self.client.base_url)))  # type: ignore[union-attr]
        return f"Authorization: {request.headers['Authorization']}"


@contextmanager
def serve(ledger: Ledger, caller: Caller = USER, *, head_seconds: float = 20, **bounds: float) -> Iterator[Inbox]:
    """Serves an inbox on a free port."""
    application = inbox(ledger, caller, max_bytes=MAX_BYTES, **bounds)
    server = inbox_server(application, log_level=logging.ERROR, head_seconds=head_seconds)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    auth = httpx.BasicAuth(USER.username, USER.password)
    try:
        with httpx.Client(base_url=url, auth=auth, trust_env=False, timeout=20) as client:
            yield Inbox(client, ledger)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    with empty_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def both(database_url: str) -> Iterator[Inbox]:
    """An inbox, on either database."""
    with Ledger(database_url) as ledger:
        ledger.migrate()
        with serve(ledger) as served:
            yield served


@pytest.fixture(scope="module")
def shared_inbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inbox]:
    """An inbox for calls that leave nothing behind."""
    with Ledger(f"sqlite:///{tmp_path_factory.mktemp('inbox')}/ledger.db") as ledger:
        ledger.migrate()
        with serve(ledger) as served:
            yield served


@pytest.fixture
def refusing(shared_inbox: Inbox) -> Iterator[Inbox]:
    """The shared inbox, which must have stored nothing in the end."""
    yield shared_inbox
    assert shared_inbox.stored == []


def item(request_id: object = "85810617092033", *, has_error: object = False, **members: object) -> dict[str, object]:
    return {"syncRequestId": request_id, "hasError": has_error, **members}


# 401


@pytest.mark.parametrize(
    "auth",
    [
        None,
        ("dacs", "wrong"),
        ("wrong", USER.password),
        ("", ""),
    ],
)
def test_a_caller_without_the_credential_is_refused(refusing: Inbox, auth: tuple[str, str] | None):
    answer = refusing.post([item()], auth=auth)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Basic"
    assert answer.json() == {"reason": "present the credential of CCS_DACS_ACK_AUTH"}


@pytest.mark.parametrize("header", ["Bearer canary:påss", "Basic", "Basic !!", "Basic ZGFjcw==", "Digest x", "x", ""])
def test_another_scheme_or_a_malformed_header_is_refused(refusing: Inbox, header: str):
    answer = refusing.post([item()], auth=None, headers={"Authorization": header.encode()})
    assert answer.status_code == 401


def test_a_refused_caller_does_not_get_to_send_its_body(refusing: Inbox):
    status_code, _ = refusing.unfinished("Content-Type: application/json\r\nContent-Length: 100")
    assert status_code == 401


def test_a_bearer_token_is_taken_where_it_is_asked_for(tmp_path: Path):
    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.migrate()
        with serve(ledger, BearerCaller("t0ken")) as served:
            for header in ("Bearer t0ken", "bearer t0ken"):
                assert served.post([], auth=None, headers={"Authorization": header}).status_code == 200
            for header in ("Bearer t0kem", "Bearer", "Basic t0ken"):
                answer = served.post([], auth=None, headers={"Authorization": header})
                assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert served.post([]).status_code == 401  # Basic


@pytest.mark.parametrize("caller", [BasicCaller("dacs", CANARY), BearerCaller(CANARY)], ids=["basic", "bearer"])
def test_what_a_caller_presents_does_not_show_in_repr(caller: Caller):
    assert CANARY not in repr(caller)


def test_a_bearer_token_may_hold_any_character(tmp_path: Path):
    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.migrate()
        with serve(ledger, BearerCaller("tökén€")) as served:
            for token, status_code in (("tökén€", 200), ("tökén", 401)):
                headers = {"Authorization": f"Bearer {token}".encode()}
                assert served.post([], auth=None, headers=headers).status_code == status_code


# 400 and 413


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"syncRequestId": "1", "hasError": false',
        b"[" * 50_000,
        b"9" * 50_000,
    ],
)
def test_a_body_that_is_not_json_is_refused(refusing: Inbox, body: bytes):
    answer = refusing.post_bytes(body)
    assert answer.status_code == 400
    assert answer.json() == {"reason": "the body is not JSON"}


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(refusing: Inbox):
    status_code, _ = refusing.unfinished(f"{refusing.credential}\r\nContent-Length: {100 * 1024**2}")
    assert status_code == 413


def test_a_streamed_body_is_refused_as_soon_as_it_is_too_large(refusing: Inbox):
    chunk = b"%x\r\n" % MAX_BYTES + b" " * MAX_BYTES + b"\r\n"
    head = f"{refusing.credential}\r\nTransfer-Encoding: chunked"
    status_code, answer = refusing.unfinished(head, chunk + b"2\r\n  \r\n")
    assert status_code == 413
    assert json.loads(answer) == {"reason": "the body is over 100000 bytes; post fewer at once"}


def test_a_body_of_just_the_limit_is_taken(both: Inbox):
    body = json.dumps([item()]).encode()
    for content in (body.ljust(MAX_BYTES), iter([body, b" " * (MAX_BYTES - len(body))])):
        assert both.client.post("/acknowledgements", content=content).status_code == 200
    assert both.post_bytes(body.ljust(MAX_BYTES + 1)).status_code == 413


@pytest.mark.parametrize("begun", [b"", b"[", b'[{"syncRequestId": "1", "hasError": false}'])
def test_a_body_that_does_not_come_to_its_end_is_not_waited_for(tmp_path: Path, begun: bytes):
    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.migrate()
        with serve(ledger, body_seconds=0.2) as served:
            address = (served.client.base_url.host, served.client.base_url.port or 0)
            head = (
                f"POST /acknowledgements HTTP/1.1\r\nHost: inbox\r\n{served.credential}\r\nContent-Length: 100\r\n\r\n"
            )
            with socket.create_connection(address, timeout=10) as connection, connection.makefile("rb") as answer:
                connection.sendall(head.encode() + begun)
                whole = answer.read()  # to the end of the connection
            assert whole.startswith(b"HTTP/1.1 408 ")
            assert whole.endswith(b'{"reason":"the body has not come within 0.2 s; post the same again"}')
            assert served.stored == []


# 422 and refusals of single items

BAD = [
    ("text", "item"),
    (None, "item"),
    ([item()], "item"),
    ({"hasError": False}, "syncRequestId"),
    ({"syncRequestId": "1"}, "hasError"),
    (item(None), "syncRequestId"),
    (item(85810617092033), "syncRequestId"),
    (item(""), "syncRequestId"),
    (item("123456789012345"), "syncRequestId"),
    (item(CANARY), "syncRequestId"),
    (item(has_error="true"), "hasError"),
    (item(has_error=1), "hasError"),
    (item(has_error=None), "hasError"),
    (item(has_error=True, exceptionInfo=CANARY), "exceptionInfo"),
    (item(has_error=True, exceptionInfo=[CANARY]), "exceptionInfo.0"),
    (item(has_error=True, exceptionInfo=[{"comments": {"name": CANARY}}]), "exceptionInfo.0.comments"),
    (item(has_error=True, exceptionInfo=[{"messageCategory": CANARY}]), "exceptionInfo.0.messageCategory"),
    (item(has_error=True, exceptionInfo=[{"comments": "\ud800"}]), "item"),
    (item(externalIds={"entityIdList": [{"externalPk1": "\ud800"}]}), "item"),
    (item(externalIds=float("nan")), "item"),
    (item(externalIds=[float("-inf")]), "item"),
]


@pytest.mark.parametrize(("document", "where"), BAD)
def test_an_item_is_refused_with_its_reason_and_without_its_values(refusing: Inbox, document: object, where: str):
    answer = refusing.post_bytes(json.dumps([document]).encode())
    assert answer.status_code == 422
    (refused,) = answer.json()["refused"]
    assert answer.json() == NOTHING | {"refused": [refused]}
    assert refused["index"] == 0
    assert refused["reason"].startswith(f"{where}: ")
    assert "Canary" not in answer.text


def test_a_single_object_is_refused_in_the_same_way(refusing: Inbox):
    answer = refusing.post({"syncRequestId": "1"})
    assert (answer.status_code, answer.json()["refused"][0]["index"]) == (422, 0)


def test_malformed_items_do_not_keep_good_ones_out(both: Inbox):
    answer = both.post([item("1"), "text", item("2"), {"syncRequestId": "3"}, item("4")])
    assert answer.status_code == 200
    assert [one["index"] for one in answer.json()["refused"]] == [1, 3]
    assert answer.json()["parked"] == 3
    assert both.stored == ["1", "2", "4"]


# 200


def test_a_list_of_absurd_length_is_refused(tmp_path: Path):
    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.migrate()
        answer = _take(ledger, b"[" + b"1," * 200_000 + b"1]")
    assert answer.status_code == 413
    assert b"more than 200000 items; post fewer at once" in answer.body


def test_a_long_list_is_stored_piece_by_piece_and_each_piece_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    body = json.dumps([item(f"{number:014}") for number in range(20)]).encode()
    monkeypatch.setattr("ccs_dacs_pipeline.dacs.inbox._PER_TRANSACTION", 6)
    pieces = count(1)

    def fail_at_the_third(db: sa.Connection, items: list[Acknowledgement]) -> Stored:
        if next(pieces) == 3:
            raise LedgerError("the database is full")
        return store(db, items)

    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.migrate()
        with monkeypatch.context() as failing:
            failing.setattr("ccs_dacs_pipeline.dacs.inbox.store", fail_at_the_third)
            assert _take(ledger, body).status_code == 503
        answer = _take(ledger, body)
    assert answer.status_code == 200
    assert json.loads(answer.body) == NOTHING | {"parked": 8, "duplicates": 12}


def test_an_empty_list_is_fine(refusing: Inbox):
    answer = refusing.post([])
    assert (answer.status_code, answer.json()) == (200, NOTHING)


def test_each_item_counts_in_one_figure(both: Inbox):
    send(both.ledger, start_delta(both.ledger, 1, change("1", "a"), change("2", "b")))
    assert both.post(item("1")).json() == NOTHING | {"accepted": 1}
    answer = both.post([item("1"), item("1", has_error=True), item("2"), item("2"), item("3"), item("3"), {}])
    figures = answer.json()
    assert len(figures.pop("refused")) == 1
    assert figures == {"accepted": 2, "duplicates": 3, "parked": 1}
    with both.ledger.read() as db:
        found = status(db, timedelta(days=2))["acknowledgements"]
    assert found == {"stored": 4, "delivered": 0, "parked": 1, "contradicting": 1, "duplicates": 3}


def test_an_answer_is_kept_as_ccs_is_to_get_it(both: Inbox):
    ids = {"entityIdList": [{"entity": "D1-CONTACT", "externalPk1": "4711", "note": "Zoë 😀 \u0000"}]}
    answer = both.post([item(" 1 ", externalIds=ids, ackId="a-1", more=1), item("2", has_error=True)])
    assert answer.json()["parked"] == 2
    with both.ledger.read() as db:
        rows = db.execute(sa.select(acknowledgements.c.request_id, acknowledgements.c.payload))
        payloads = {row.request_id: row.payload for row in rows}
    assert payloads["1"] == {"hasError": False, "externalIds": ids}
    assert payloads["2"]["hasError"] is True
    assert len(payloads["2"]["exceptionInfo"]) == 1  # without a message CCS would take it as positive


def test_messages_that_an_object_wraps_are_kept_as_a_list(both: Inbox):
    message = {"messageCategory": 7, "messageNumber": 12, "comments": "too-long: Name"}
    answer = both.post(item("1", has_error=True, exceptionInfo={"exceptionInfoList": [message]}))
    assert (answer.status_code, answer.json()) == (200, NOTHING | {"parked": 1})
    with both.ledger.read() as db:
        payload = db.execute(sa.select(acknowledgements.c.payload)).scalar_one()
    assert payload["exceptionInfo"] == [{"sequence": 1, **message, "messageParameters": []}]


def test_external_ids_of_any_depth_are_stored_or_refused(both: Inbox):
    for depth, code in ((10, 200), (100, 200), (300, 422), (900, 422), (40_000, 400)):
        body = b'[{"syncRequestId": "%d", "hasError": false, "externalIds": %s}]' % (depth, b"[" * depth + b"]" * depth)
        assert both.post_bytes(body).status_code == code
    assert both.stored == ["10", "100"]


def test_posts_at_once_are_all_stored(both: Inbox):
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: both.post([item(str(n)), item("same")]), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json()["parked"] for answer in answers) == 9
    assert sum(answer.json()["duplicates"] for answer in answers) == 7


def test_only_a_post_is_taken(refusing: Inbox):
    assert refusing.client.get("/acknowledgements").status_code == 405
    assert refusing.client.post("/other", json=[item()]).status_code == 404


# Durable before 200


def test_what_was_answered_survives_the_death_of_the_process(database_url: str):
    command = [sys.executable, "-c", PROCESS, database_url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/acknowledgements"
        headers = {"Authorization": "Bearer t0ken"}
        answer = httpx.post(url, json=[item("1"), item("2")], headers=headers, trust_env=False, timeout=20)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert answer.json() == NOTHING | {"parked": 2}
    with Ledger(database_url) as ledger, ledger.read() as db:
        assert db.execute(sa.select(acknowledgements.c.request_id)).scalars().all() == ["1", "2"]


# Callers that have shown no credential yet


@pytest.mark.parametrize("piece", [b"X-Flood: %b\r\n" % (b"x" * 1000), b"x" * 1000], ids=["many headers", "a long one"])
def test_a_head_that_does_not_end_is_not_kept(refusing: Inbox, piece: bytes):
    head = b"POST /acknowledgements HTTP/1.1\r\nHost: inbox\r\n" + 50_000 * piece
    with refusing.connection() as connection, pytest.raises(ConnectionError):
        connection.sendall(head)


BEGUN = {
    "nothing": (b"", b""),
    "part of a head": (b"POST /acknowledgements HTT", b""),
    "part of a second head": (b"GET /health HTTP/1.1\r\nHost: inbox\r\n\r\n", b"POST /ack"),
    "part of a body that was refused": (
        b"POST /acknowledgements HTTP/1.1\r\nHost: inbox\r\nContent-Length: 9\r\n\r\n",
        b"[",
    ),
}


@pytest.mark.parametrize(("request_bytes", "more"), BEGUN.values(), ids=BEGUN)
def test_a_caller_that_sends_no_request_is_let_go(tmp_path: Path, request_bytes: bytes, more: bytes):
    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger, ExitStack() as stack:
        ledger.migrate()
        connection = stack.enter_context(serve(ledger, head_seconds=0.3)).connection()
        stack.enter_context(connection)
        connection.sendall(request_bytes)
        answer = connection.recv(65536) if more else b""
        assert answer.startswith(b"HTTP/1.1 ") == bool(more)
        connection.sendall(more)
        while connection.recv(65536):
            pass


def test_a_request_may_take_longer_than_its_head(tmp_path: Path):
    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger, ThreadPoolExecutor(1) as pool:
        ledger.migrate()
        with serve(ledger, head_seconds=0.1) as served:
            with ledger.write():
                post = pool.submit(served.post, [item("1")])
                with pytest.raises(TimeoutError):
                    post.result(0.5)
            assert post.result(20).status_code == 200


# 503 and health


def unable(served: Inbox) -> None:
    """The inbox says that it cannot store now, in both its answers, and nothing else."""
    answer = served.post([item()])
    assert (answer.status_code, answer.json()) == (503, {"reason": "cannot be stored now; post the same again later"})
    answer = served.client.get("/health")
    assert (answer.status_code, answer.json()) == (503, {"status": "the ledger's database does not answer"})


def test_a_database_that_is_not_there_gives_503():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Ledger(f"postgresql://postgres@127.0.0.1:{port}/ledger") as ledger, serve(ledger) as served:
        unable(served)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.postgres
def test_a_standby_that_takes_no_writes_gives_503(database_url: str):
    with Ledger(database_url) as ledger:
        ledger.migrate()
    with Ledger(f"{database_url}%20-cdefault_transaction_read_only=on") as ledger, serve(ledger) as served:
        answer = served.post([item()])
        assert answer.status_code == 503


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.postgres
def test_a_restarted_database_is_found_again(database_url: str):
    application = f"{database_url}&application_name=inbox-{os.getpid()}"
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(application))
        ledger.migrate()
        served = stack.enter_context(serve(ledger))
        assert served.post([item("1")]).status_code == 200
        with psycopg.connect(database_url) as other:
            ended = other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
                [f"inbox-{os.getpid()}"],
            )
            assert ended.rowcount >= 1
        assert served.post([item("2")]).status_code == 200
        assert served.stored == ["1", "2"]


def test_a_sqlite_file_that_cannot_be_written_gives_503(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    with Ledger(url) as ledger:
        ledger.migrate()
    with Ledger(url) as ledger, serve(ledger) as served:
        assert (
            served.client.get("/health").status_code == 200
        )  # what is imported late could not be read as another user
        ledger.close()  # its open connection could still write
        with read_only(tmp_path):
            unable(served)
    with Ledger(url) as ledger, serve(ledger) as served:
        assert served.stored == []
        assert served.post([item()]).status_code == 200


def test_a_damaged_sqlite_file_gives_503(tmp_path: Path):
    (tmp_path / "ledger.db").write_bytes(b"no database" * 1000)
    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger, serve(ledger) as served:
        unable(served)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.postgres
def test_a_database_without_the_ledgers_tables_gives_503(database_url: str):
    with Ledger(database_url) as ledger, serve(ledger) as served:
        assert served.post([item()]).status_code == 503


def test_more_posts_than_the_database_takes_at_once_give_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger, ExitStack() as stack:
        ledger.migrate()
        monkeypatch.setattr(ledger._engine.pool, "_timeout", 0.1)  # seconds; 30 by default
        served = stack.enter_context(serve(ledger))
        for _ in range(15):  # the connections of a pool
            stack.enter_context(ledger.read())
        unable(served)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_another_writer_is_waited_for(both: Inbox):
    with ThreadPoolExecutor(1) as pool:
        with both.ledger.write():
            post = pool.submit(both.post, [item("1")])
            with pytest.raises(TimeoutError):
                post.result(0.3)
        assert post.result(20).status_code == 200
    assert both.stored == ["1"]


def test_health_asks_for_no_credential_and_says_ok(both: Inbox):
    answer = both.client.get("/health", auth=None)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
