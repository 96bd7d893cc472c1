"""The acknowledgement inbox: `POST /acknowledgements`, `GET /health` (sync-lifecycle.md, Acknowledgements).

Every acknowledgement is stored durably before it is answered; taking it to CCS is apart from that.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Route

from ccs_dacs_pipeline.ccs import Answer
from ccs_dacs_pipeline.ledger import Ledger, LedgerError
from ccs_dacs_pipeline.ledger.acknowledgements import Acknowledgement, Stored, store

if TYPE_CHECKING:
    from starlette.requests import Request

# More than 8 MiB of acceptable items: the reasons for refusing a list of tiny ones would fill the memory.
_MOST_ITEMS = 200_000
_PER_TRANSACTION = 5000
# SQLite's writers look ten times a second whether it is their turn: one that waits must see it between two of ours.
_PAUSE_SECONDS = 0.1
# A caller that falls silent would hold its connection for ever, and the end of the service with it.
_BODY_SECONDS = 60.0
_REASONS = 3
_TEXT = 80
_UNCARRIED = "item: JSON cannot carry it: NaN, Infinity, half a surrogate pair, or nested too deep"


@dataclass(frozen=True)
class BasicCaller:
    """What a caller presents with Basic authentication."""

    username: str
    password: str = field(repr=False)

    def presented_by(self, scheme: str, value: str) -> bool:
        """Says whether an Authorization header has it, in constant time."""
        try:
            given = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return False
        right = f"{self.username}:{self.password}".encode()
        return scheme == "basic" and hmac.compare_digest(given, right)


@dataclass(frozen=True)
class BearerCaller:
    """What a caller presents with a bearer token."""

    token: str = field(repr=False)

    def presented_by(self, scheme: str, value: str) -> bool:
        """Says whether an Authorization header has it, in constant time."""
        # Header values come decoded as Latin-1, which carries every byte.
        return scheme == "bearer" and hmac.compare_digest(value.encode("latin-1"), self.token.encode())


Caller: TypeAlias = BasicCaller | BearerCaller


class _Item(BaseModel):
    """The members that the inbox itself needs; the rest goes to CCS as `Answer` reads it."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    request_id: Annotated[
        str, StringConstraints(strip_whitespace=True, pattern="^[!-~]{1,14}$"), Field(alias="syncRequestId")
    ]
    has_error: Annotated[bool, Field(strict=True, alias="hasError")]


class TooLargeError(Exception):
    """A body is over ACK_MAX_BYTES."""


def inbox(ledger: Ledger, caller: Caller, *, max_bytes: int, body_seconds: float = _BODY_SECONDS) -> Starlette:
    """Returns the inbox as an ASGI application.

    Args:
        ledger: where acknowledgements are stored.
        caller: what callers must present.
        max_bytes: largest body it takes.
        body_seconds: the longest that a body may take to come.
    """

    async def acknowledge(request: Request) -> JSONResponse:
        if not _is_caller(request, caller):
            return JSONResponse(
                {"reason": "present the credential of CCS_DACS_ACK_AUTH"},
                status_code=401,
                headers={"WWW-Authenticate": "Basic" if isinstance(caller, BasicCaller) else "Bearer"},
            )
        try:
            async with asyncio.timeout(body_seconds):
                body = await _body(request, max_bytes)
        except TooLargeError:
            return JSONResponse({"reason": f"the body is over {max_bytes} bytes; post fewer at once"}, status_code=413)
        except TimeoutError:
            reason = f"the body has not come within {body_seconds:g} s; post the same again"
            return JSONResponse({"reason": reason}, status_code=408, headers={"Connection": "close"})
        except ClientDisconnect:  # nobody reads this, but left to the server it is a traceback
            return JSONResponse({"reason": "the body is cut off"}, status_code=400)
        return await run_in_threadpool(_take, ledger, body)

    async def health(_: Request) -> JSONResponse:
        return await run_in_threadpool(_health, ledger)

    return Starlette(
        routes=[
            Route("/acknowledgements", acknowledge, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
        ]
    )


def _is_caller(request: Request, caller: Caller) -> bool:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return caller.presented_by(scheme.lower(), value.strip())


async def _body(request: Request, max_bytes: int) -> bytes:
    """Reads the body; stops at the limit, whatever the Content-Length says."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > max_bytes:
        raise TooLargeError
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise TooLargeError
    return bytes(body)


def _take(ledger: Ledger, body: bytes) -> JSONResponse:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return JSONResponse({"reason": "the body is not JSON"}, status_code=400)
    items = document if isinstance(document, list) else [document]
    if len(items) > _MOST_ITEMS:
        reason = f"the list holds more than {_MOST_ITEMS} items; post fewer at once"
        return JSONResponse({"reason": reason}, status_code=413)
    good, refused = sort_items(items)
    try:
        stored = _store(ledger, good)
    except LedgerError:
        return JSONResponse({"reason": "cannot be stored now; post the same again later"}, status_code=503)
    return JSONResponse(_answer(stored, refused), status_code=422 if items and not good else 200)


def _store(ledger: Ledger, items: list[Acknowledgement]) -> Stored:
    """Stores items in transactions of bounded length, since others wait for each; all are durable when it returns.

    Where it fails part-way the caller posts all of them again, and those that are stored count as duplicates.
    """
    parts: list[Stored] = []
    for start in range(0, len(items), _PER_TRANSACTION):
        if start:
            time.sleep(_PAUSE_SECONDS)
        with ledger.write() as db:
            parts.append(store(db, items[start : start + _PER_TRANSACTION]))
    return Stored(
        accepted=sum(one.accepted for one in parts),
        duplicates=sum(one.duplicates for one in parts),
        parked=sum(one.parked for one in parts),
    )


def _answer(stored: Stored, refused: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "accepted": stored.accepted,
        "duplicates": stored.duplicates,
        "parked": stored.parked,
        "refused": refused,
    }


def sort_items(items: list[Any]) -> tuple[list[Acknowledgement], list[dict[str, Any]]]:
    """Parts acceptable acknowledgements from those that are refused, with index and reason."""
    good: list[Acknowledgement] = []
    refused: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        try:
            head = _Item.model_validate(item)
            answer = Answer.from_json(item)
        except ValidationError as error:
            refused.append({"index": index, "reason": _reason(error)})
            continue
        payload = answer.to_json()
        if _can_be_passed_on(payload):
            good.append(Acknowledgement(head.request_id, head.has_error, payload))
        else:
            refused.append({"index": index, "reason": _UNCARRIED})
    return good, refused


def _can_be_passed_on(payload: dict[str, Any]) -> bool:
    """Says whether strict JSON can carry a payload: one stored without that could never be told to CCS."""
    try:
        from_json(json.dumps(payload), allow_inf_nan=False)
    except (ValueError, RecursionError):
        return False
    return True


def _reason(error: ValidationError) -> str:
    """Says what is wrong with an item, never with its values."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    parts = [
        f"{'.'.join(str(step) for step in one['loc']) or 'item'}: {one['msg']}"[:_TEXT] for one in found[:_REASONS]
    ]
    return "; ".join(parts)


def _health(ledger: Ledger) -> JSONResponse:
    try:
        with ledger.write():
            pass
    except LedgerError:
        return JSONResponse({"status": "the ledger's database does not answer"}, status_code=503)
    return JSONResponse({"status": "ok"})
