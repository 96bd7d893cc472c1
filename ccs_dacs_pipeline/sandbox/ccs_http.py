"""CCS's REST services over its state: paths, authentication and shapes of ccs-rest.md."""

import asyncio
import base64
import binascii
import hmac
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import parse_qs, unquote_plus

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ccs_dacs_pipeline.sandbox.ccs import BO_STATUSES, BusinessError, SimulatedCcs
from ccs_dacs_pipeline.sandbox.config import SandboxConfig
from ccs_dacs_pipeline.sandbox.entities import ENTITIES, Entity

LARGEST_IDS = 500
DEFAULT_LIMIT = 500
_ID = re.compile(r"[0-9]{10}")
_REQUEST_ID = re.compile(r"[0-9]{1,14}")
_JSON = "application/json"

Handler = Callable[[Request], Awaitable[Response]]


class Gatekeeper:
    """Lets calls with the configured credential in, and issues OAuth tokens."""

    def __init__(self, config: SandboxConfig) -> None:
        self._config = config
        self._tokens: dict[str, float] = {}

    def admits(self, request: Request) -> bool:
        """Whether the call carries what the configuration asks for."""
        scheme, _, credential = request.headers.get("authorization", "").partition(" ")
        if self._config.auth == "basic":
            wanted = f"{self._config.username}:{self._config.password}".encode()
            return scheme.lower() == "basic" and hmac.compare_digest(_decoded(credential), wanted)
        if self._config.auth == "oauth":
            return scheme.lower() == "bearer" and self._tokens.get(credential, 0.0) > time.monotonic()
        return True

    def expire_tokens(self) -> None:
        """Ends the life of every token issued so far."""
        self._tokens.clear()

    async def issue(self, request: Request) -> Response:
        """`POST /oauth/token`: client credentials, in a Basic header or in the form."""
        form = {key: values[0] for key, values in parse_qs((await request.body()).decode("utf-8", "replace")).items()}
        if form.get("grant_type") != "client_credentials":
            return JSONResponse({"error": "unsupported_grant_type"}, HTTPStatus.BAD_REQUEST)
        scheme, _, credential = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            client, _, secret = _decoded(credential).decode("utf-8", "replace").partition(":")
            given = f"{unquote_plus(client)}:{unquote_plus(secret)}"
        else:
            given = f"{form.get('client_id', '')}:{form.get('client_secret', '')}"
        wanted = f"{self._config.client_id}:{self._config.client_secret}"
        if not hmac.compare_digest(given.encode(), wanted.encode()):
            return JSONResponse({"error": "invalid_client"}, HTTPStatus.UNAUTHORIZED)
        token = secrets.token_urlsafe(24)
        self._tokens[token] = time.monotonic() + self._config.token_seconds
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": self._config.token_seconds}
        return JSONResponse(answer | ({"scope": form["scope"]} if "scope" in form else {}))


def routes(ccs: SimulatedCcs, config: SandboxConfig, gatekeeper: Gatekeeper) -> list[Route]:
    """The routes of CCS and of its token endpoint."""
    services = _Services(ccs, config)
    found: list[tuple[str, str, Handler]] = [
        (f"/rest/apis/cm/dacs/{entity.path}/search", "POST", services.search(entity)) for entity in ENTITIES
    ]
    found += [
        ("/rest/apis/cm/dacs/syncRequests/search", "POST", services.search_requests),
        ("/rest/apis/common/sync/syncRequest/{sync_request_id}", "PATCH", services.transition),
        ("/rest/apis/common/system/healthCheck/", "GET", services.health),
    ]
    guarded = [Route(path, _guard(handler, config, gatekeeper), methods=[method]) for path, method, handler in found]
    return [*guarded, Route("/oauth/token", gatekeeper.issue, methods=["POST"])]


def _guard(handler: Handler, config: SandboxConfig, gatekeeper: Gatekeeper) -> Handler:
    """Adds latency, authentication and the shape of business errors to a service."""

    async def guarded(request: Request) -> Response:
        if config.latency_seconds:
            await asyncio.sleep(config.latency_seconds)
        if not gatekeeper.admits(request):
            scheme = "Bearer" if config.auth == "oauth" else 'Basic realm="CCS"'
            return PlainTextResponse("Unauthorized", HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": scheme})
        try:
            return await handler(request)
        except BusinessError as error:
            return JSONResponse({"problemDetailDocument": _problem(error, request)}, error.status)

    return guarded


class _Services:
    def __init__(self, ccs: SimulatedCcs, config: SandboxConfig) -> None:
        self._ccs = ccs
        self._config = config

    def search(self, entity: Entity) -> Handler:
        """The search service of one entity (ccs-rest.md, Searches)."""
        list_name = entity.list_name.encode()

        async def search(request: Request) -> Response:
            filters, limit = await _search_body(request)
            if "ids" in filters:
                page = self._ccs.by_ids(entity.ccs, _ids(filters["ids"], _ID))
                total = page.records
            else:
                low = _id(filters, "lowId", "0" * 10)
                high = _id(filters, "highId", "9" * 10)
                after = _id(filters, "afterId", "0" * 10) if "afterId" in filters else None
                page, total = self._ccs.page(entity.ccs, low, high, after, min(limit, self._config.page_cap))
            has_more = b"true" if page.has_more and limit else b"false"
            head = b'"limit":%d,"hasMore":%b,"totalNumberOfRecords":%d' % (limit, has_more, total)
            return self._answer(entity.service, b'{%b,"%b":[%b]}' % (head, list_name, page.body))

        return search

    async def search_requests(self, request: Request) -> Response:
        """The search service of sync requests (ccs-rest.md, Sync requests)."""
        filters, limit = await _search_body(request)
        business_object, bo_status = filters.get("businessObject"), filters.get("boStatus")
        if business_object is not None and business_object not in {entity.business_object for entity in ENTITIES}:
            raise _invalid("businessObject is none of the three of the DACS integration")
        if bo_status is not None and bo_status not in BO_STATUSES:
            raise _invalid(f"boStatus must be one of {', '.join(BO_STATUSES)}")
        ids = _ids(filters["ids"], _REQUEST_ID) if "ids" in filters else None
        after = filters.get("afterId") or ""
        if after and not _matches(_REQUEST_ID, after):
            raise _invalid("afterId must be a sync request id of at most 14 digits")
        size = LARGEST_IDS if ids is not None else min(limit, self._config.page_cap)
        page = self._ccs.search_requests(
            business_object=business_object, bo_status=bo_status, after=after, ids=ids, limit=size
        )
        answer = {
            "limit": limit,
            "hasMore": page.has_more and limit > 0,
            "totalNumberOfRecords": page.total,
            "syncRequestList": [found.as_json() for found in page.requests],
        }
        return self._answer("CM-DACSSyncRequestSearch", _dump(answer))

    async def transition(self, request: Request) -> Response:
        """The transition of one sync request: 204 without a body (ccs-rest.md, Transition)."""
        self._ccs.transition(request.path_params["sync_request_id"], await _json(request))
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def health(self, _: Request) -> Response:
        """The health check."""
        results = [{"component": "database", "response": 200}, {"component": "clusterOnlineStatus", "response": 200}]
        return JSONResponse({"healthOverallResponse": 200, "healthCheckResults": results})

    def _answer(self, service: str, body: bytes) -> Response:
        if self._config.envelope:
            body = b'{"%b":%b}' % (service.encode(), body)
        return Response(body, media_type=_JSON)


async def _json(request: Request) -> object:
    try:
        return cast("object", json.loads(await request.body()))
    except ValueError as error:
        raise _invalid("the body must be JSON") from error


async def _search_body(request: Request) -> tuple[dict[str, Any], int]:
    """Filters without nulls, and the limit."""
    body = await _json(request)
    if not isinstance(body, dict) or not isinstance(body.get("filters") or {}, dict):
        raise _invalid("the body must be an object with an object as filters")
    limit = body.get("limit", DEFAULT_LIMIT)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise _invalid("limit must be a whole number, 0 or more")
    return {key: value for key, value in (body.get("filters") or {}).items() if value is not None}, limit


def _id(filters: dict[str, Any], name: str, default: str) -> str:
    value = filters.get(name, default)
    if not _matches(_ID, value):
        raise _invalid(f"{name} must be 10 digits")
    return str(value)


def _ids(value: object, pattern: re.Pattern[str]) -> list[str]:
    if not isinstance(value, list) or not all(_matches(pattern, id_) for id_ in value):
        raise _invalid("ids must be a list of ids as the search gives them")
    if len(value) > LARGEST_IDS:
        raise _invalid(f"ids holds {len(value)} ids; at most {LARGEST_IDS} are taken")
    return value


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _invalid(detail: str) -> BusinessError:
    return BusinessError(902, "Invalid request", detail)


def _problem(error: BusinessError, request: Request) -> dict[str, Any]:
    return {
        "problemType": f"{request.base_url}rest/apis/common/message/11001/{error.number}",
        "title": error.title,
        "detail": error.detail,
        "httpStatus": error.status,
        "problemInstance": request.url.path,
        "stackTrace": None,
        "serverMessage": {"messageCategory": 11001, "messageNumber": error.number, "messageText": error.detail},
    }


def _decoded(credential: str) -> bytes:
    try:
        return base64.b64decode(credential, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
