"""The simulated CCS: its records, the audit that notices their changes, and the life of its sync requests.

Written from ccs-rest.md and sync-lifecycle.md; knows nothing of HTTP. All public methods may be called from any thread.
"""

import json
import threading
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import blake2b
from heapq import merge
from itertools import islice
from random import Random
from typing import Any, Literal, NamedTuple, cast

from ccs_dacs_pipeline.sandbox import changes, population
from ccs_dacs_pipeline.sandbox.config import SandboxConfig
from ccs_dacs_pipeline.sandbox.entities import ENTITIES, CcsEntity, Entity, by_name
from ccs_dacs_pipeline.sandbox.oddities import Record, dumps, items
from ccs_dacs_pipeline.sandbox.table import Page

BoStatus = Literal["PENDING", "AWAITINGACK", "SYNCHRONIZED", "ERROR", "DISCARDED", "CANCELED"]
BO_STATUSES: tuple[BoStatus, ...] = ("PENDING", "AWAITINGACK", "SYNCHRONIZED", "ERROR", "DISCARDED", "CANCELED")
FINAL: frozenset[BoStatus] = frozenset(("SYNCHRONIZED", "ERROR", "DISCARDED", "CANCELED"))

LONGEST_COMMENTS = 254
LONGEST_PARAMETER = 2000


class BusinessError(Exception):
    """CCS refuses a call; served as a `problemDetailDocument` (ccs-rest.md, Errors)."""

    def __init__(self, number: int, title: str, detail: str, *, status: int = 400) -> None:
        super().__init__(f"{title}: {detail}")
        self.status, self.number, self.title, self.detail = status, number, title, detail


@dataclass
class SyncRequest:
    """A sync request and all that has been told about it."""

    sync_request_id: str
    entity: Entity
    pk_value1: str
    bo_status: BoStatus
    created: str
    changed: str
    history: list[BoStatus] = field(default_factory=lambda: ["PENDING"])
    """Every state it was in, in order."""
    exceptions: list[dict[str, Any]] = field(default_factory=list)
    external_ids: Any = None

    def as_json(self) -> dict[str, str]:
        """The request as the search service shows it."""
        return {
            "syncRequestId": self.sync_request_id,
            "businessObject": self.entity.business_object,
            "boStatus": self.bo_status,
            "maintenanceObject": self.entity.maintenance_object,
            "pkValue1": self.pk_value1,
            "createDateTime": self.created,
            "statusDateTime": self.changed,
        }


class RequestPage(NamedTuple):
    """A page of sync requests in ascending id order; `total` counts what the filters match, whatever `after` says."""

    requests: list[SyncRequest]
    total: int
    has_more: bool


@dataclass(frozen=True)
class ChangeSummary:
    """What one call of `SimulatedCcs.change` did."""

    changed: int
    by_kind: dict[str, int]
    ids: dict[CcsEntity, tuple[str, ...]]
    """Entities that were changed or made, each once, in the order of their first change."""
    sync_requests: tuple[str, ...]
    """Sync requests that came of it; fewer than changes where one was pending already."""

    def as_json(self) -> dict[str, Any]:
        """The summary as a JSON object."""
        return asdict(self)


class SimulatedCcs:
    """Customer Cloud Service in memory."""

    def __init__(self, config: SandboxConfig, *, now: Callable[[], datetime] | None = None) -> None:
        """Makes the population; `now` gives the present time and is replaced in tests."""
        self.config = config
        self._zone = config.zone
        self._clock = now or (lambda: datetime.now(self._zone))
        self._lock = threading.RLock()
        self._tables = population.build(config)
        self._rng = Random(f"{config.seed}:changes")
        self._writer = population.RecordWriter(config, self._rng)
        self._requests: dict[str, SyncRequest] = {}
        self._by_state: dict[tuple[str, BoStatus], list[str]] = {
            (entity.business_object, status): [] for entity in ENTITIES for status in BO_STATUSES
        }
        self._pending: Counter[tuple[CcsEntity, str]] = Counter()
        self._deleted: dict[CcsEntity, set[str]] = {entity.ccs: set() for entity in ENTITIES}

    # Records

    def count(self, entity: CcsEntity, low: str = "0" * 10, high: str = "9" * 10) -> int:
        """How many records lie in a key range, both ends included."""
        with self._lock:
            table = self._tables[entity]
            return max(table.rank(int(high) + 1) - table.rank(int(low)), 0)

    def page(self, entity: CcsEntity, low: str, high: str, after: str | None, limit: int) -> tuple[Page, int]:
        """A key-range page, and how many records the range holds in all (ccs-rest.md, Searches)."""
        start = int(low) if after is None else max(int(low), int(after) + 1)
        with self._lock:
            return self._tables[entity].page(start, int(high), limit), self.count(entity, low, high)

    def by_ids(self, entity: CcsEntity, ids: Iterable[str]) -> Page:
        """The records with these ids that exist, each once, in id order."""
        with self._lock:
            found = [record for id_ in sorted(set(ids)) if (record := self._tables[entity].get(int(id_))) is not None]
        return Page(b",".join(found), len(found), has_more=False)

    def get(self, entity: CcsEntity, id_: str) -> Record | None:
        """One record as an object, or None."""
        record = self._tables[entity].get(int(id_))
        return None if record is None else cast("Record", json.loads(record))

    def records(self, entity: CcsEntity) -> Iterator[tuple[str, bytes]]:
        """All (id, JSON object) pairs in id order, as they were when the iteration began."""
        for id_, record in self._tables[entity]:
            yield f"{id_:010}", record

    def deleted(self, entity: CcsEntity) -> frozenset[str]:
        """Ids that `delete` removed."""
        with self._lock:
            return frozenset(self._deleted[entity])

    # Changes

    def change(self, count: int, *, seed: int | None = None, kinds: Sequence[str] | None = None) -> ChangeSummary:
        """Changes random entities and creates sync requests as CCS's audit does.

        Args:
            count: How many changes; an entity may be hit more than once.
            seed: Makes the choice repeatable whatever was changed before; none: goes on from the last call.
            kinds: Names out of `changes.WEIGHTS`; none: all, as often as they happen.

        Raises:
            ValueError: A kind is unknown, or the count negative.
        """
        if count < 0:
            raise ValueError(f"sandbox: {count} changes were asked for; ask for 0 or more")
        chosen = tuple(kinds) if kinds is not None else tuple(changes.WEIGHTS)
        if unknown := sorted(set(chosen) - set(changes.WEIGHTS)):
            raise ValueError(f"sandbox: unknown kinds of change {unknown}; known are {sorted(changes.WEIGHTS)}")
        by_kind: Counter[str] = Counter()
        ids: dict[CcsEntity, dict[str, None]] = {entity.ccs: {} for entity in ENTITIES}
        requests: list[str] = []
        rng = self._rng if seed is None else Random(f"{seed}:changes")
        writer = self._writer if seed is None else population.RecordWriter(self.config, rng)
        weights = [changes.WEIGHTS[kind] for kind in chosen]
        for kind in rng.choices(chosen, weights, k=count) if chosen else ():
            with self._lock:  # one change at a time, so that pages are served in between
                at = changes.Moment(rng, writer, self.now())
                touched = list(self._apply(kind, at))
                by_kind[kind] += bool(touched)
                for entity, id_ in touched:
                    ids[entity][id_] = None
                    requests.extend(self._audit(entity, id_))
        return ChangeSummary(
            changed=by_kind.total(),
            by_kind=dict(sorted(by_kind.items())),
            ids={entity: tuple(found) for entity, found in ids.items()},
            sync_requests=tuple(requests),
        )

    def touch(self, entity: CcsEntity, id_: str, *, another: bool = False) -> str | None:
        """Raises an entity's version and lets the audit see it.

        Args:
            entity: Which kind of entity.
            id_: Its id.
            another: Creates a sync request even where one is pending, as many edits in one moment do.

        Returns:
            The new sync request's id, or None when one was pending already.

        Raises:
            KeyError: There is no such entity.
        """
        with self._lock:
            record = self.get(entity, id_)
            if record is None:
                raise KeyError(f"sandbox: there is no {entity} {id_} in CCS; ask for an id that a search gives")
            self._store(entity, id_, record)
            return next(iter(self._audit(entity, id_, another=another)), None)

    def edit(self, entity: CcsEntity, id_: str, alter: Callable[[Record], None]) -> str | None:
        """Lets a caller alter a record in place, as an agent at the screen would; otherwise like `touch`."""
        with self._lock:
            record = self.get(entity, id_)
            if record is None:
                raise KeyError(f"sandbox: there is no {entity} {id_} in CCS; ask for an id that a search gives")
            alter(record)
            self._store(entity, id_, record)
            return next(iter(self._audit(entity, id_)), None)

    def delete(self, entity: CcsEntity, id_: str) -> None:
        """Removes an entity, whose sync requests stay.

        Raises:
            KeyError: There is no such entity.
        """
        with self._lock:
            if not self._tables[entity].remove(int(id_)):
                raise KeyError(f"sandbox: there is no {entity} {id_} in CCS; ask for an id that a search gives")
            self._deleted[entity].add(id_)

    def _apply(self, name: str, at: changes.Moment) -> Iterator[tuple[CcsEntity, str]]:
        """Makes one change; gives the entities it touched, parents first."""
        if name == changes.MOVE_IN:
            yield from self._move_in(at)
            return
        kind = next((kind for kind in changes.KINDS if kind.name == name), None)
        entity: CcsEntity = kind.entity if kind else "service_agreement"
        table = self._tables[entity]
        if not len(table):
            return
        number, text = table.nth(at.rng.randrange(len(table)))
        record: Record = json.loads(text)
        if kind:
            kind.alter(record, at)
        else:
            points = self._tables["service_point"]
            if not len(points):
                return
            target, _ = points.nth(at.rng.randrange(len(points)))
            changes.move(record, f"{target:010}", at)
        self._store(entity, f"{number:010}", record)
        yield entity, f"{number:010}"

    def _move_in(self, at: changes.Moment) -> Iterator[tuple[CcsEntity, str]]:
        person, point, agreement = (self._free_id(entity.ccs, at.rng) for entity in ENTITIES)
        place = at.rng.randrange(len(population.places()))
        terms = population.Agreement(person, point, place, at.now.toordinal(), 0)
        made: tuple[tuple[CcsEntity, int, bytes], ...] = (
            ("person", person, at.writer.person(person)),
            ("service_point", point, at.writer.service_point(point, place)),
            ("service_agreement", agreement, at.writer.service_agreement(agreement, terms, point)),
        )
        for entity, id_, record in made:
            self._tables[entity].put(id_, record)
            yield entity, f"{id_:010}"

    def _free_id(self, entity: CcsEntity, rng: Random) -> int:
        while self._tables[entity].get(id_ := rng.randrange(population.ID_SPACE)) is not None:
            pass
        return id_

    def _store(self, entity: CcsEntity, id_: str, record: Record) -> None:
        record["version"] = record.get("version", 0) + 1
        self._tables[entity].put(int(id_), dumps(record))

    def now(self) -> datetime:
        """The present time in the base time zone, to the second."""
        return self._clock().replace(microsecond=0)

    # Sync requests

    def _audit(self, entity: CcsEntity, id_: str, *, another: bool = False) -> Iterator[str]:
        """Creates a PENDING request unless the entity has one."""
        if self._pending[entity, id_] and not another:
            return
        while (request_id := f"{self._rng.randrange(10**14):014}") in self._requests:
            pass
        now = self.now().isoformat()
        request = SyncRequest(request_id, by_name(entity), id_, "PENDING", created=now, changed=now)
        self._requests[request_id] = request
        self._pending[entity, id_] += 1
        insort(self._by_state[request.entity.business_object, "PENDING"], request_id)
        yield request_id

    def search_requests(
        self,
        *,
        business_object: str | None = None,
        bo_status: str | None = None,
        after: str = "",
        ids: Iterable[str] | None = None,
        limit: int = 500,
    ) -> RequestPage:
        """Sync requests by filters that combine, in ascending id order (ccs-rest.md, Sync requests)."""
        with self._lock:
            lists = [
                found
                for (business, status), found in self._by_state.items()
                if business_object in (None, business) and bo_status in (None, status)
            ]
            if ids is not None:
                wanted = set(ids)
                lists = [sorted(id_ for id_ in wanted if _holds(found, id_)) for found in lists]
            rest = merge(*(found[bisect_right(found, after) :][: limit + 1] for found in lists))
            page = list(islice(rest, limit + 1))
            return RequestPage(
                [self._requests[id_] for id_ in page[:limit]], sum(map(len, lists)), has_more=len(page) > limit
            )

    def sync_request(self, sync_request_id: str) -> SyncRequest:
        """One sync request.

        Raises:
            BusinessError: There is none with this id.
        """
        try:
            return self._requests[sync_request_id]
        except KeyError:
            raise BusinessError(
                201, "Not found", f"sync request {sync_request_id} does not exist; search by ids first", status=404
            ) from None

    def sync_requests(self) -> list[SyncRequest]:
        """All sync requests in the order of their creation."""
        with self._lock:
            return list(self._requests.values())

    def transition(self, sync_request_id: str, body: object) -> None:
        """Takes a request to its next state: not idempotent (ccs-rest.md, Transition).

        Raises:
            BusinessError: The request is in a final state or unknown, or the body breaks the schema.
        """
        exceptions, external_ids = _read_transition(sync_request_id, body)
        with self._lock:
            request = self.sync_request(sync_request_id)
            if request.bo_status in FINAL:
                raise BusinessError(
                    1303, "Invalid state", f"sync request {sync_request_id} is {request.bo_status}, a final state"
                )
            if exceptions:
                request.exceptions = exceptions
                self._enter(request, "ERROR")
                return
            if external_ids is not None:
                request.external_ids = external_ids
            self._enter(request, self._next_state(request))

    def set_state(self, sync_request_id: str, bo_status: BoStatus) -> None:
        """Puts a request into any state, as an operator in CCS may.

        Raises:
            BusinessError: There is none with this id.
        """
        with self._lock:
            self._enter(self.sync_request(sync_request_id), bo_status)

    def _next_state(self, request: SyncRequest) -> BoStatus:
        if request.bo_status == "AWAITINGACK":
            return "SYNCHRONIZED"
        if share_of(self.config.seed, "discard", request.sync_request_id) < self.config.discard_share:
            return "DISCARDED"
        return "AWAITINGACK" if self.config.expects_acknowledgement else "SYNCHRONIZED"

    def _enter(self, request: SyncRequest, bo_status: BoStatus) -> None:
        business_object = request.entity.business_object
        was_pending = request.bo_status == "PENDING"
        ids = self._by_state[business_object, request.bo_status]
        del ids[bisect_left(ids, request.sync_request_id)]
        insort(self._by_state[business_object, bo_status], request.sync_request_id)
        request.bo_status = bo_status
        request.changed = self.now().isoformat()
        request.history.append(bo_status)
        self._pending[request.entity.ccs, request.pk_value1] += (bo_status == "PENDING") - was_pending

    def summary(self) -> dict[str, Any]:
        """Counts of entities, and of sync requests by state."""
        with self._lock:
            return {
                "entities": {entity: len(table) for entity, table in self._tables.items()},
                "deleted": {entity: len(ids) for entity, ids in self._deleted.items()},
                "sync_requests": {
                    status: sum(len(ids) for (_, found), ids in self._by_state.items() if found == status)
                    for status in BO_STATUSES
                },
                "sync_requests_by_entity": {
                    entity.dacs: {status: len(self._by_state[entity.business_object, status]) for status in BO_STATUSES}
                    for entity in ENTITIES
                },
            }


def share_of(seed: int, purpose: str, id_: str) -> float:
    """A number in [0, 1) that depends on seed, purpose and id alone: who is chosen stays chosen."""
    digest = blake2b(f"{seed}:{purpose}:{id_}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _holds(ids: list[str], id_: str) -> bool:
    at = bisect_left(ids, id_)
    return at < len(ids) and ids[at] == id_


def _read_transition(sync_request_id: str, body: object) -> tuple[list[dict[str, Any]], Any]:
    """Checks a body of F1-UpdateSyncRequest; gives its exceptions (none without `hasError`) and external ids."""

    def refuse(detail: str) -> BusinessError:
        return BusinessError(902, "Invalid request", f"sync request {sync_request_id}: {detail}")

    if not isinstance(body, dict):
        raise refuse("the body must be a JSON object")
    if body.get("syncRequestId", sync_request_id) != sync_request_id:
        raise refuse("syncRequestId in the body differs from the one in the path")
    has_error = body.get("hasError", False)
    if not isinstance(has_error, bool):
        raise refuse("hasError must be true or false")
    exceptions = items(body.get("exceptionInfo"))
    for exception in exceptions:
        if not isinstance(exception, dict):
            raise refuse("exceptionInfo must list objects")
        for member in ("sequence", "messageCategory", "messageNumber"):
            if not isinstance(exception.get(member), int):
                raise refuse(f"exceptionInfo needs a number as {member}")
        if len(exception.get("comments") or "") > LONGEST_COMMENTS:
            raise refuse(f"comments are longer than {LONGEST_COMMENTS}")
        for parameter in items(exception.get("messageParameters")):
            if not isinstance(parameter, dict) or len(parameter.get("messageParameterValue") or "") > LONGEST_PARAMETER:
                raise refuse(
                    f"messageParameters must list objects with values of at most {LONGEST_PARAMETER} characters"
                )
    external_ids = body.get("externalIds")
    for external in items(external_ids):
        if not isinstance(external, dict) or not external.get("entity") or not external.get("externalPk1"):
            raise refuse("externalIds needs entity and externalPk1 in each of its members")
    return (exceptions if has_error else []), external_ids
