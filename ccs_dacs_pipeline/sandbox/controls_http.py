"""The sandbox's own controls over HTTP, under `/sandbox`: changes on request, what DACS holds, the comparison.

They have no authentication: the sandbox holds invented data, and stands on loopback unless told otherwise.
"""

import json
from collections.abc import Callable
from dataclasses import fields
from http import HTTPStatus
from typing import Any, cast

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ccs_dacs_pipeline.sandbox.ccs import SimulatedCcs
from ccs_dacs_pipeline.sandbox.comparison import Eligibility, compare
from ccs_dacs_pipeline.sandbox.dacs import SimulatedDacs
from ccs_dacs_pipeline.sandbox.entities import by_name

_DEFAULT_LIMIT = 1000


def routes(ccs: SimulatedCcs, dacs: SimulatedDacs) -> list[Route]:
    """The routes of the controls."""

    async def change(request: Request) -> Response:
        """`{"count": n, "seed"?, "kinds"?}` -> what was changed."""
        return await _body_call(
            request, lambda body: ccs.change(body["count"], seed=body.get("seed"), kinds=body.get("kinds")).as_json()
        )

    async def touch(request: Request) -> Response:
        """`{"entity", "id", "another"?}` -> the sync request that came of it."""
        return await _body_call(request, lambda body: _touch(ccs, body))

    async def delete(request: Request) -> Response:
        """`{"entity", "id"}` -> removed."""
        return await _body_call(request, lambda body: _delete(ccs, body))

    def ccs_summary(_: Request) -> Response:
        return JSONResponse(ccs.summary())

    def dacs_summary(_: Request) -> Response:
        return JSONResponse(dacs.summary())

    def rows(request: Request) -> Response:
        """Held rows in id order, `afterId` and `limit` as in a search."""
        try:
            entity = by_name(request.path_params["entity"])
            limit = int(request.query_params.get("limit", _DEFAULT_LIMIT))
        except (KeyError, ValueError) as error:
            return _refused(error)
        found, total, has_more = dacs.page(entity.dacs, request.query_params.get("afterId", ""), max(limit, 0))
        return JSONResponse({"hasMore": has_more, "totalNumberOfRecords": total, "rows": found})

    def comparison(request: Request) -> Response:
        """Counts and example ids; `person_types=P&sa_statuses=20&...` narrow it, each repeatable."""
        wanted = {part.name: frozenset(request.query_params.getlist(part.name)) for part in fields(Eligibility)}
        found = compare(ccs, dacs, eligible=Eligibility(**wanted))
        return JSONResponse(
            {
                "holds": all(entity.holds for entity in found.values()),
                "entities": {name: entity.as_json() for name, entity in found.items()},
            }
        )

    return [
        Route("/sandbox/ccs/changes", change, methods=["POST"]),
        Route("/sandbox/ccs/touch", touch, methods=["POST"]),
        Route("/sandbox/ccs/delete", delete, methods=["POST"]),
        Route("/sandbox/ccs/summary", ccs_summary),
        Route("/sandbox/dacs/summary", dacs_summary),
        Route("/sandbox/dacs/{entity}", rows),
        Route("/sandbox/comparison", comparison),
    ]


def _touch(ccs: SimulatedCcs, body: dict[str, Any]) -> dict[str, Any]:
    entity = by_name(body["entity"]).ccs
    return {"syncRequestId": ccs.touch(entity, body["id"], another=bool(body.get("another", False)))}


def _delete(ccs: SimulatedCcs, body: dict[str, Any]) -> dict[str, Any]:
    ccs.delete(by_name(body["entity"]).ccs, body["id"])
    return {"deleted": 1}


async def _body_call(request: Request, call: Callable[[dict[str, Any]], dict[str, Any]]) -> Response:
    """Runs a control with the JSON body, off the event loop; a wrong body is a 400 that says what is wrong."""
    # A page of another site, open on this machine, could reach loopback too.
    if "origin" in request.headers:
        return JSONResponse({"error": "the controls are not for pages in a browser"}, HTTPStatus.FORBIDDEN)
    try:
        body = cast("dict[str, Any]", json.loads(await request.body()))
        return JSONResponse(await run_in_threadpool(call, body))
    except (ValueError, KeyError, TypeError) as error:
        return _refused(error)


def _refused(error: Exception) -> Response:
    return JSONResponse({"error": f"{type(error).__name__}: {error}"}, HTTPStatus.BAD_REQUEST)
