"""The services of CCS that the pipeline uses: searches, sync requests, health (ccs-rest.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import polars as pl

from ccs_dacs_pipeline.ccs.client import HttpClient
from ccs_dacs_pipeline.ccs.errors import BadAnswer, IncompleteRange
from ccs_dacs_pipeline.ccs.pages import EntityPage, Malformed, Searchable, decode_object, decode_page, decode_total
from ccs_dacs_pipeline.ccs.sync_requests import SyncRequest, check_sync_requests, decode_sync_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from ccs_dacs_pipeline.ccs.answer import Answer
    from ccs_dacs_pipeline.ccs.connection import Connection
    from ccs_dacs_pipeline.ccs.sync_requests import SyncStatus

MAX_IDS = 500
"""Ids in one search, and sync requests in one page (ccs-rest.md)."""
READINGS = 2
"""How often an answer that is not as the contract says is read before it is an error."""
RANGE_READINGS = 4
"""How often a range is read that does not hold its total: once, and 3 times again (sync-lifecycle.md, Completeness)."""
SYNC_REQUESTS = "syncRequests"
TRANSITION_PATH = "/rest/apis/common/sync/syncRequest/"
HEALTH_PATH = "/rest/apis/common/system/healthCheck/"

T = TypeVar("T")


class CcsClient:
    """CCS as the pipeline sees it. Thread safe; a context manager that closes its connections.

    Every reading method repeats transient faults within the bounds of the connection and reads an answer that is not as
    the contract says once more. Then it raises one of `Transient`, `RetryAfterTooLong`, `Permanent` and `BadAnswer`.

    Args:
        connection: where CCS is, and the bounds of a call.
        concurrency: calls under way at once, at most: as many as there are threads that use this client.

    Raises:
        ValueError: the file of the certificate authority cannot be used.
    """

    def __init__(self, connection: Connection, *, concurrency: int = 4) -> None:
        self._connection = connection
        self._http = HttpClient(connection, concurrency=concurrency)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def count(self, service: Searchable, low: str, high: str) -> int:
        """How many entities have an id in `low`..`high`, both inclusive."""
        return self._search(service.service, {"lowId": low, "highId": high}, 0, decode_total)

    def search_range(
        self, service: Searchable, low: str, high: str, *, after: str | None = None, limit: int | None = None
    ) -> EntityPage:
        """One page of the entities with an id in `low`..`high`, both inclusive, and above `after`.

        Args:
            service: the kind of entity.
            low: the lowest id.
            high: the highest id.
            after: the last id of the page before.
            limit: entities in the page, at most; the connection's page size by default. A smaller page is legal.

        Returns:
            The page, its ids checked to ascend without a double within what was asked for.
        """
        filters = {"lowId": low, "highId": high} | ({"afterId": after} if after else {})
        size = self._connection.page_size if limit is None else limit

        def decode(body: bytes) -> EntityPage:
            page = decode_page(body, service)
            _check_ids(page, service.id_member, low=low, high=high, after=after)
            return page

        return self._search(service.service, filters, size, decode)

    def read_range(self, service: Searchable, low: str, high: str) -> list[pl.DataFrame]:
        """All entities with an id in `low`..`high`, both inclusive, as one frame per page, ascending by id.

        Raises:
            IncompleteRange: even the third reading again gave another number of entities than the total of its last
                page (sync-lifecycle.md, Completeness).
        """
        received = total = 0
        for _ in range(RANGE_READINGS):
            frames = []
            for page in self._pages(service, low, high):
                frames.append(page.frame)
                total = page.total
            received = sum(frame.height for frame in frames)
            if received == total:
                return frames
        raise IncompleteRange(
            self._http.name("POST", self._connection.search_path(service.service)),
            f"{low}..{high} gave {received} entities where CCS counts {total}, {RANGE_READINGS} times read: "
            "see whether the service leaves entities out, then resume",
            received,
            total,
        )

    def read_ids(self, service: Searchable, ids: Sequence[str]) -> pl.DataFrame:
        """The entities with these ids, ascending by id; ids that do not exist are absent."""
        frames = [service.schema.to_frame()]
        for chunk in _chunks(ids):
            asked = frozenset(chunk)

            def decode(body: bytes, asked: frozenset[str] = asked) -> pl.DataFrame:
                page = decode_page(body, service)
                _check_asked(page, service.id_member, asked)
                return page.frame

            frames.append(self._search(service.service, {"ids": chunk}, len(chunk), decode))
        return pl.concat(frames).sort(service.id_member)

    def sync_requests(
        self,
        *,
        business_object: str | None = None,
        status: SyncStatus | None = None,
        ids: Sequence[str] | None = None,
    ) -> Iterator[list[SyncRequest]]:
        """The sync requests that match all given filters, page by page; no ids at all match nothing.

        Each page ascends by id, and so do the pages of at most 500 ids.
        """
        filters = _sync_filters(business_object, status)
        if ids is None:
            yield from self._sync_pages(filters)
        else:
            for chunk in _chunks(ids):
                yield from self._sync_pages({**filters, "ids": chunk})

    def count_sync_requests(self, *, business_object: str | None = None, status: SyncStatus | None = None) -> int:
        """How many sync requests match all given filters."""
        return self._search(SYNC_REQUESTS, _sync_filters(business_object, status), 0, decode_total)

    def transition(self, request_id: str, answer: Answer, *, guard: Callable[[], object] = lambda: None) -> None:
        """Takes a sync request one step on: to its error state, or to its default next state whatever that is.

        Sent at most once but for a 401 (one new token) and 429, since it is not idempotent (ccs-rest.md, Sync
        requests). The new state is read afterwards; nothing is returned.

        Args:
            request_id: the sync request.
            answer: what it is told.
            guard: called just before each sending, repeats too; what it raises ends the call, nothing being sent.

        Raises:
            TransitionUnknown: it may or may not have taken effect: read the state before anything else.
            Rejected: CCS refuses it, for example because the state is final.
            Transient: CCS was not reached, or answered 429 to the end. Nothing has changed.
            RetryAfterTooLong: CCS asks to wait too long. Nothing has changed.
            Permanent: CCS refuses the call itself.
        """
        body = {"syncRequestId": request_id, **answer.to_json()}
        self._http.write("PATCH", TRANSITION_PATH + quote(request_id, safe=""), body, guard=guard)

    def health(self) -> dict[str, Any]:
        """What CCS says of its health: `healthOverallResponse` and `healthCheckResults`."""
        return self._read("GET", HEALTH_PATH, None, decode_object)

    def clock(self) -> datetime | None:
        """What time it is at CCS, by its answer to the health check; `None` where the answer does not say."""
        return self._http.clock("GET", HEALTH_PATH)

    def _pages(self, service: Searchable, low: str, high: str) -> Iterator[EntityPage]:
        """The pages of a range, each asked for after the last id of the one before (no offsets, ccs-rest.md)."""
        page = self.search_range(service, low, high)
        yield page
        while page.has_more:
            page = self.search_range(service, low, high, after=page.frame.item(-1, service.id_member))
            yield page

    def _sync_pages(self, filters: dict[str, Any]) -> Iterator[list[SyncRequest]]:
        limit = min(MAX_IDS, self._connection.page_size)
        has_more = True
        while has_more:
            page_filters = dict(filters)

            def decode(body: bytes, asked: dict[str, Any] = page_filters) -> tuple[list[SyncRequest], bool]:
                requests, more = decode_sync_requests(body)
                check_sync_requests(requests, asked)
                _check_progress(len(requests), has_more=more)
                return requests, more

            requests, has_more = self._search(SYNC_REQUESTS, page_filters, limit, decode)
            if requests:
                yield requests
                filters = {**filters, "afterId": requests[-1].id}

    def _search(self, service: str, filters: dict[str, Any], limit: int, decode: Callable[[bytes], T]) -> T:
        path = self._connection.search_path(service)
        return self._read("POST", path, {"filters": filters, "limit": limit}, decode)

    def _read(self, method: str, path: str, document: object, decode: Callable[[bytes], T]) -> T:
        """The decoded answer; one that is not as the contract says is read again (ccs-rest.md, Limits)."""
        reason = ""
        for _ in range(READINGS):
            body = self._http.read(method, path, document)
            try:
                return decode(body)
            except Malformed as error:
                reason = str(error)
        raise BadAnswer(self._http.name(method, path), f"{reason}; read {READINGS} times")


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    """The different ids, ascending, as many at a time as one search takes."""
    different = sorted(set(ids))
    for start in range(0, len(different), MAX_IDS):
        yield different[start : start + MAX_IDS]


def _sync_filters(business_object: str | None, status: SyncStatus | None) -> dict[str, Any]:
    filters = {"businessObject": business_object, "boStatus": status}
    return {name: value for name, value in filters.items() if value is not None}


def _check_ids(page: EntityPage, id_member: str, *, low: str, high: str, after: str | None) -> None:
    """Checks that the ids ascend strictly within the range, above `after`.

    Raises:
        Malformed: they do not, or the page is empty though more is said to follow.
    """
    ids = page.frame[id_member]
    _check_progress(page.frame.height, has_more=page.has_more)
    if ids.null_count():
        raise Malformed(f"{ids.null_count()} entities have no {id_member}")
    if not (ids.slice(1) > ids.slice(0, max(0, ids.len() - 1))).all():
        raise Malformed(f"the page holds a {id_member} twice or out of order")
    if ids.len() and (ids[0] < low or ids[-1] > high or (after is not None and ids[0] <= after)):
        raise Malformed(f"the page holds a {id_member} outside of what was asked for")


def _check_asked(page: EntityPage, id_member: str, asked: frozenset[str]) -> None:
    """Checks that each entity was asked for, and came once.

    Raises:
        Malformed: it did not, or entities were held back, which would pass for entities that do not exist.
    """
    ids = page.frame[id_member].to_list()
    if not asked.issuperset(ids):
        raise Malformed(f"the answer holds a {id_member} that was not asked for")
    if len(set(ids)) != len(ids):
        raise Malformed(f"the answer holds a {id_member} twice")
    if page.has_more:
        raise Malformed(f"the answer to {len(asked)} ids is not complete (hasMore is true)")


def _check_progress(records: int, *, has_more: bool) -> None:
    if has_more and not records:
        raise Malformed("the page is empty and says that more follow")
