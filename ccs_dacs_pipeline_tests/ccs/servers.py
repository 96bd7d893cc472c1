"""A small HTTP server that answers exactly what a test says, whole or broken, and a CCS that keeps the contract."""

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self

import polars as pl

from ccs_dacs_pipeline.ccs import SearchService

PERSONS = SearchService(
    name="persons",
    list_member="personList",
    id_member="personId",
    schema=pl.Schema(
        {
            "personId": pl.String,
            "version": pl.String,
            "names": pl.List(pl.Struct({"nameType": pl.String, "entityName": pl.String})),
            "contactDetails": pl.List(pl.Struct({"contactDetailType": pl.String, "contactDetailValue": pl.String})),
            "premise": pl.Struct({"premiseId": pl.String, "address": pl.Struct({"city": pl.String})}),
            "latitude": pl.String,
            "purged": pl.String,
        }
    ),
    plural_members={"names": "namesList", "contactDetails": "contactDetailsList"},
)


@dataclass(frozen=True)
class Request:
    """A request as it came in; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Reset(Exception):
    """Raised by an answer to end the connection with a reset."""


Answer = Callable[[Request], bytes | Iterable[bytes]]


def reply(body: object = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole HTTP answer; a body that is not bytes goes as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{head}\r\n".encode() + content


def until_closed(body: bytes) -> bytes:
    """An answer without length, which ends with its connection."""
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body


class Server:
    """Serves on a free port of 127.0.0.1, each connection in a thread, until the `with` block ends.

    Args:
        answer: gives the bytes of an answer, whole or piece by piece. After an answer that holds `Connection: close`
            the connection is closed.
        context: serves TLS.
    """

    def __init__(self, answer: Answer, context: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.stopped = threading.Event()
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._connections: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in list(self._connections):
            with _quiet():
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def drip(self, data: bytes, seconds: float = 0.02) -> Iterable[bytes]:
        """The data one byte at a time, until the server stops."""
        for place in range(len(data)):
            if self.stopped.wait(seconds):
                return
            yield data[place : place + 1]

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.add(connection)
            with connection.makefile("rb") as stream:
                while (request := _read(stream)) and self._send(connection, request):
                    pass
        except Reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        finally:
            self._connections.discard(connection)
            connection.close()

    def _send(self, connection: socket.socket, request: Request) -> bool:
        self.requests.append(request)
        answer = self.answer(request)
        last = b""
        for piece in [answer] if isinstance(answer, bytes) else answer:
            connection.sendall(piece)
            last += piece[:200]
        return b"Connection: close" not in last


def _read(stream: Any) -> Request | None:
    line = stream.readline().decode()
    if not line:
        return None
    method, path, _ = line.split()
    headers = {}
    while header := stream.readline().decode().strip():
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    return Request(method, path, headers, stream.read(int(headers.get("content-length", 0))))


class _quiet:  # noqa: N801 -- reads as a statement
    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, OSError)


def in_turn(*answers: bytes | Answer | Exception) -> Answer:
    """The answers one after the other, the last one for ever."""
    left = list(answers)

    def answer(request: Request) -> bytes | Iterable[bytes]:
        now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(now, Exception):
            raise now
        return now if isinstance(now, bytes) else now(request)

    return answer


def page(
    records: Iterable[Mapping[str, Any]],
    *,
    has_more: bool = False,
    total: int | None = None,
    member: str = "personList",
) -> bytes:
    """A page of a search as JSON."""
    listed = list(records)
    total = len(listed) if total is None else total
    return json.dumps({"limit": 9, "hasMore": has_more, "totalNumberOfRecords": total, member: listed}).encode()


def people(*ids: str) -> list[dict[str, Any]]:
    """Persons with nothing but an id."""
    return [{"personId": key} for key in ids]


class SearchableCcs:
    """Answers searches as ccs-rest.md says, with pages as small as it likes."""

    def __init__(self, records: Iterable[Mapping[str, Any]], *, largest_page: int = 10_000) -> None:
        self.records = {record["personId"]: record for record in records}
        self.largest_page = largest_page

    def __call__(self, request: Request) -> bytes:
        filters, limit = request.json["filters"], min(request.json["limit"], self.largest_page)
        if "ids" in filters:
            found = [self.records[key] for key in sorted(filters["ids"]) if key in self.records]
            return reply(page(found))
        matching = [key for key in sorted(self.records) if filters["lowId"] <= key <= filters["highId"]]
        after = [key for key in matching if key > filters.get("afterId", "")]
        listed = [self.records[key] for key in after[:limit]]
        return reply(page(listed, has_more=len(after) > limit, total=len(matching)))
