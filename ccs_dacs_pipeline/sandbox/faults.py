"""Faults between a caller and the simulated CCS, over real sockets: scripted by a test, or mixed by a seed.

`Faults` is a middleware of `Sandbox`. Each fault acts on one call: before it takes effect, after it, or on the answer.
"""

import asyncio
import json
import os
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from http import HTTPStatus
from random import Random
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_GUARDED = ("/rest/", "/oauth/")
_PAUSE = 0.02
"""Long enough on loopback for what was written to arrive before the connection ends."""


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def head(self, *, length: int | None) -> bytes:
        """Status line and headers; the answer ends with its connection where there is no length."""
        lines = [b"HTTP/1.1 %d %b" % (self.status, HTTPStatus(self.status).phrase.encode())]
        lines += [b"%b: %b" % pair for pair in self.headers if pair[0].lower() != b"content-length"]
        lines.append(b"Connection: close" if length is None else b"Content-Length: %d" % length)
        return b"\r\n".join(lines) + b"\r\n\r\n"


class Exchange:
    """One call on its way: what a fault may look at and do."""

    def __init__(self, app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.body = body
        self._app, self._scope, self._receive, self._send = app, scope, receive, send

    async def answer(self, body: bytes | None = None) -> Reply:
        """Lets the call take effect; gives the answer, which nobody has been told yet."""
        messages: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": self.body if body is None else body, "more_body": False}

        async def send(message: Message) -> None:
            messages.append(message)

        await self._app(self._scope, receive, send)
        start = messages[0]
        content = b"".join(message.get("body", b"") for message in messages[1:])
        return Reply(start["status"], tuple((bytes(name), bytes(value)) for name, value in start["headers"]), content)

    async def tell(self, reply: Reply) -> None:
        """Answers."""
        headers = [pair for pair in reply.headers if pair[0].lower() != b"content-length"]
        if reply.status != HTTPStatus.NO_CONTENT:
            headers.append((b"content-length", b"%d" % len(reply.body)))
        await self._send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": reply.body})

    async def write(self, *pieces: bytes, pause: float = 0.0, reset: bool = False) -> None:
        """Writes bytes as they are, past HTTP, and ends the connection, with a reset where asked."""
        # uvicorn gives its own bound method as `send`: the one way from an ASGI application to the socket.
        transport = cast("asyncio.Transport", self._send.__self__.transport)  # type: ignore[attr-defined]
        for piece in pieces:
            if transport.is_closing():
                break
            transport.write(piece)
            await asyncio.sleep(pause)
        if reset:
            await asyncio.sleep(_PAUSE)
            _end_with_reset(transport)
        else:
            transport.close()
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _end_with_reset(transport: asyncio.Transport) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as handle:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


Where = Callable[[Exchange], bool]


def everywhere(_: Exchange) -> bool:
    """Any call of CCS or its token endpoint."""
    return True


def searches(call: Exchange) -> bool:
    """A search of entities or sync requests."""
    return call.path.endswith("/search")


def entity_pages(call: Exchange) -> bool:
    """A page of entities by key range: not a count, not by ids."""
    return searches(call) and "syncRequests" not in call.path and b'"lowId"' in call.body and not counts(call)


def counts(call: Exchange) -> bool:
    """A search that asks for the count alone."""
    return searches(call) and json.loads(call.body).get("limit") == 0


def pages(call: Exchange) -> bool:
    """A search that asks for records: not for their count alone."""
    return searches(call) and not counts(call)


def transitions(call: Exchange) -> bool:
    """A transition of a sync request."""
    return call.method == "PATCH"


def tokens(call: Exchange) -> bool:
    """A call of the token endpoint."""
    return call.path.startswith("/oauth/")


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with one call, where it applies."""

    name: str
    act: Callable[[Exchange], Awaitable[None]]
    where: Where = everywhere


def status(code: int, *, retry_after: str | None = None, after_effect: bool = False) -> Fault:
    """An error status, before the call takes effect or after it."""

    async def act(call: Exchange) -> None:
        if after_effect:
            await call.answer()
        headers = [(b"content-type", b"text/plain")]
        if retry_after is not None:
            headers.append((b"retry-after", retry_after.encode()))
        await call.tell(Reply(code, tuple(headers), b"not now"))

    return Fault(f"{code}{' after effect' if after_effect else ''}{f' for {retry_after}' if retry_after else ''}", act)


def refused() -> Fault:
    """The connection is reset before the call takes effect."""
    return Fault("refused", lambda call: call.write(reset=True))


def lost() -> Fault:
    """The call takes effect, and its answer is lost with the connection."""

    async def act(call: Exchange) -> None:
        await call.answer()
        await call.write(reset=True)

    return Fault("lost", act)


def cut(*, length: bool, reset: bool = False) -> Fault:
    """The answer ends in the middle of its body, its length told or not."""

    async def act(call: Exchange) -> None:
        reply = await call.answer()
        head = reply.head(length=len(reply.body) if length else None)
        await call.write(head + reply.body[: len(reply.body) // 2], reset=reset)

    name = "reset in mid body" if reset else f"cut {'with' if length else 'without'} length"
    return Fault(name, act, searches)


def drip(*, pieces: int, pause: float) -> Fault:
    """The answer comes in small pieces, with a pause after each."""

    async def act(call: Exchange) -> None:
        reply = await call.answer()
        size = max(1, -(-len(reply.body) // pieces))
        parts = [reply.body[start : start + size] for start in range(0, len(reply.body), size)]
        await call.write(reply.head(length=len(reply.body)), *parts, pause=pause)

    return Fault("drip", act, searches)


def silence(seconds: float) -> Fault:
    """The call takes effect, and is answered late."""

    async def act(call: Exchange) -> None:
        reply = await call.answer()
        await asyncio.sleep(seconds)
        await call.tell(reply)

    return Fault("silence", act)


def html() -> Fault:
    """A gateway's page with status 200, where CCS has seen nothing."""
    page = Reply(200, ((b"content-type", b"text/html"),), b"<html><body>Please log in</body></html>")
    return Fault("html", lambda call: call.tell(page))


def bomb(megabytes: int = 300) -> Fault:
    """A small gzip body that expands hugely."""
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    blank = b" " * 2**20
    body = b"".join([packer.compress(b"{"), *(packer.compress(blank) for _ in range(megabytes)), packer.flush()])
    reply = Reply(200, ((b"content-type", b"application/json"), (b"content-encoding", b"gzip")), body)
    return Fault("bomb", lambda call: call.tell(reply), searches)


def redirect(location: str, code: int = 307) -> Fault:
    """Sends the caller elsewhere."""
    reply = Reply(code, ((b"location", location.encode()),), b"")
    return Fault("redirect", lambda call: call.tell(reply))


def first(name: str, doing: Callable[[], object], where: Where = everywhere) -> Fault:
    """Something happens just before the call, which is answered as ever: a change while paging, a token's end."""

    async def act(call: Exchange) -> None:
        await asyncio.to_thread(doing)
        await call.tell(await call.answer())

    return Fault(name, act, where)


def repeated_page() -> Fault:
    """The first page of a range where a later one was asked for."""

    async def act(call: Exchange) -> None:
        document = json.loads(call.body)
        del document["filters"]["afterId"]
        await call.tell(await call.answer(json.dumps(document).encode()))

    return Fault("repeated page", act, lambda call: entity_pages(call) and b'"afterId"' in call.body)


def altered(name: str, alter: Callable[[dict[str, Any], list[Any]], object], where: Where = searches) -> Fault:
    """The answer of a search with something changed in it: `alter` gets the document and its list."""

    async def act(call: Exchange) -> None:
        reply = await call.answer()
        document = json.loads(reply.body)
        listed = next((value for value in document.values() if isinstance(value, list)), [])
        alter(document, listed)
        await call.tell(Reply(reply.status, reply.headers, json.dumps(document).encode()))

    return Fault(name, act, where)


def wrong_total(by: int = 1) -> Fault:
    """A total that does not match."""

    def alter(document: dict[str, Any], _: list[Any]) -> None:
        document["totalNumberOfRecords"] += by

    return altered("wrong total", alter, entity_pages)


def without_has_more() -> Fault:
    """A page that does not say whether more follow."""
    return altered("without hasMore", lambda document, _: document.pop("hasMore"), pages)


def doubled() -> Fault:
    """A page with its first record twice."""

    def alter(_: dict[str, Any], listed: list[Any]) -> None:
        listed[:0] = listed[:1]

    return altered("doubled", alter, pages)


def reordered() -> Fault:
    """A page in descending order."""
    return altered("reordered", lambda _, listed: listed.reverse(), pages)


def renamed(member: str, to: str | None = None) -> Fault:
    """A member of every record under another name, or missing."""

    def alter(_: dict[str, Any], listed: list[Any]) -> None:
        for record in listed:
            if member in record:
                value = record.pop(member)
                if to is not None:
                    record[to] = value

    return altered(f"{member} {'missing' if to is None else 'renamed'}", alter)


def survivable() -> list[Fault]:
    """What an ordinary pass, or the next one, must get over without anybody's help."""
    return [
        status(503),
        status(500, after_effect=True),
        status(429, retry_after="0"),
        status(429, retry_after="Thu, 01 Jan 2026 00:00:00 GMT"),
        status(503, retry_after="soon"),
        refused(),
        lost(),
        cut(length=True),
        cut(length=False),
        cut(length=True, reset=True),
        drip(pieces=10, pause=0.001),
        html(),
        wrong_total(),
        without_has_more(),
        doubled(),
        reordered(),
        repeated_page(),
    ]


@dataclass
class _Planned:
    fault: Fault
    where: Where
    after: int
    times: int


@dataclass
class Faults:
    """A middleware that lets some calls go wrong. All methods may be called from any thread, at any time.

    Attributes:
        seed: decides on the mix.
        met: how often each fault has happened, by its name.
    """

    seed: int = 0
    met: Counter[str] = field(default_factory=Counter)
    _planned: list[_Planned] = field(default_factory=list)
    _mix: Sequence[Fault] = ()
    _share: float = 0.0
    _once: set[tuple[str, bytes]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._rng = Random(f"{self.seed}:faults")

    def script(self, fault: Fault, *, where: Where | None = None, after: int = 0, times: int = 1) -> None:
        """Lets calls go wrong for certain: `times` calls, once `after` of those it applies to have gone well."""
        with self._lock:
            self._planned.append(_Planned(fault, where or fault.where, after, times))

    def mix(self, faults: Sequence[Fault], share: float) -> None:
        """Lets a share of all calls go wrong, no call the same way twice: so a repeat comes through in the end."""
        with self._lock:
            self._mix, self._share = list(faults), share

    def stop(self) -> None:
        """Lets everything go well from now on."""
        with self._lock:
            self._planned.clear()
            self._mix = ()

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """Wraps the application."""

        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or not scope["path"].startswith(_GUARDED):
                await app(scope, receive, send)
                return
            call = Exchange(app, scope, await _body(receive), receive, send)
            fault = self._choose(call)
            if fault is None:
                await call.tell(await call.answer())
            else:
                await fault.act(call)

        return wrapped

    def _choose(self, call: Exchange) -> Fault | None:
        with self._lock:
            fault = self._scripted(call) or self._drawn(call)
            if fault is not None:
                self.met[fault.name] += 1
            return fault

    def _scripted(self, call: Exchange) -> Fault | None:
        for plan in self._planned:
            if plan.times > 0 and plan.where(call):
                if plan.after:
                    plan.after -= 1
                    continue
                plan.times -= 1
                return plan.fault
        return None

    def _drawn(self, call: Exchange) -> Fault | None:
        if not self._mix or self._rng.random() >= self._share:
            return None
        fault = self._rng.choice(self._mix)
        mark = (fault.name, blake2b(b"\0".join([call.method.encode(), call.path.encode(), call.body])).digest())
        if mark in self._once or not fault.where(call):
            return None
        self._once.add(mark)
        return fault


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)
