"""How batches come to be: a snapshot's shards, a delta's requests, a resync's entities."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from ccs_dacs_pipeline.ccs import SyncStatus
from ccs_dacs_pipeline.entities import ENTITIES, entity_named
from ccs_dacs_pipeline.ledger import orphans, requests
from ccs_dacs_pipeline.ledger.life import (
    BatchStateError,
    GateClosedError,
    Stage,
    abort,
    advance,
    begin_attempt,
    create_chosen,
    create_snapshot,
    find,
    gate_holder,
    get,
    highest_number,
    owned,
)
from ccs_dacs_pipeline.ledger.requests import Chosen
from ccs_dacs_pipeline.ledger.store import mark, note
from ccs_dacs_pipeline.partitions import Mode, SyncBatch
from ccs_dacs_pipeline.sync.choose import choose
from ccs_dacs_pipeline.sync.claim import claim
from ccs_dacs_pipeline.sync.extract import remove_sources
from ccs_dacs_pipeline.sync.fetch import ranges
from ccs_dacs_pipeline.sync.mapping import own_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from ccs_dacs_pipeline.ledger.leases import Lease
    from ccs_dacs_pipeline.ledger.life import Batch
    from ccs_dacs_pipeline.sync.site import Site

BLOCKED = "blocked pending requests"
"""The mark under which the ledger remembers how many pending requests wait for unfinished batches."""


@dataclass(frozen=True)
class Nothing:
    """Why there is no batch to work on; a success, not an error."""

    reason: str


def begin(site: Site, key: SyncBatch, lease: Lease) -> Batch | Nothing:
    """Creates the batch where the ledger has none, claims its requests, and returns it ready for fetching.

    A batch that exists is taken as it is: no request is ever added to it.

    Raises:
        BatchStateError: it is stopped or aborted, or cannot be created; names the way out.
        CcsError: CCS did not do its part; a resume goes on from there.
    """
    with site.ledger.read() as db:
        known = find(db, key)
    if known is not None and known.reached(Stage.CLAIMED) and known.state in (Stage.DELIVERED, Stage.SETTLED):
        return known
    if known is None:
        nothing = _create(site, key, lease)
        if nothing is not None:
            return nothing
    with site.ledger.write() as db:
        lease.check(db)
        begin_attempt(db, key)
    if key.mode is Mode.INITIAL:
        with site.ledger.write() as db:
            lease.check(db)
            advance(db, key, Stage.CLAIMED)
    else:
        claim(site, key, lease, resumed=known is not None)
    with site.ledger.read() as db:
        return get(db, key)


def _create(site: Site, key: SyncBatch, lease: Lease) -> Nothing | None:
    if key.mode is Mode.INITIAL:
        _start_snapshot_of(site, key)
        return None
    if key.mode is Mode.DELTA:
        return _start_delta(site, key, lease)
    return _start_resync_of_children(site, key, lease)


def _start_snapshot_of(site: Site, shard: SyncBatch) -> None:
    try:
        start_snapshot(site, shard.number, shard.shards)
    except BatchStateError:
        with site.ledger.read() as db:
            if find(db, shard) is None:
                raise
        # The run of another shard has begun the same snapshot meanwhile: no lease is about all of its shards here.


def start_snapshot(site: Site, number: int, shards: int) -> None:
    """Creates a snapshot of as many shards, which closes the gate.

    Raises:
        BatchStateError: another one is unfinished, the number is used, or there are more shards than ids.
    """
    low_id, high_id = site.settings.low_id, site.settings.high_id
    ranges = split_evenly(low_id, high_id, shards)
    codes = [entity.initial_code for entity in ENTITIES]
    with site.ledger.write() as db:
        create_snapshot(db, number, ranges, codes=codes, first=site.settings.first_batch_numbers)


def split_evenly(low_id: str, high_id: str, parts: int) -> list[tuple[str, str]]:
    """Cuts an inclusive range of 10-digit ids into consecutive ranges of equal width.

    Raises:
        BatchStateError: there are fewer ids than parts.
    """
    low, width = int(low_id), int(high_id) - int(low_id) + 1
    if not 1 <= parts <= width:
        raise BatchStateError(f"{parts} shards cannot be made of the ids {low_id} to {high_id}; ask for fewer.")
    cuts = [low + width * part // parts for part in range(parts + 1)]
    return [(f"{start:010d}", f"{end - 1:010d}") for start, end in pairwise(cuts)]


def pending_requests(site: Site) -> Iterator[Chosen]:
    """Yields every pending sync request of our entities but for those that CCS has refused as they are."""
    with site.ledger.read() as db:
        refusals = requests.refusals(db)
    return (found for found in _all_pending(site) if not _is_refused(found.request_id, found.state_time, refusals))


def _all_pending(site: Site) -> Iterator[Chosen]:
    for entity in ENTITIES:
        for page in site.ccs.sync_requests(business_object=entity.business_object, status=SyncStatus.PENDING):
            for found in page:
                yield Chosen(found.id, entity.name, found.pk_value1.strip(), found.created, found.status_changed)


def _is_refused(request_id: str, state_time: datetime | None, refusals: Mapping[str, datetime | None]) -> bool:
    return request_id in refusals and refusals[request_id] == state_time


def count_pending(site: Site) -> int:
    """Returns how many sync requests of our entities are pending, without those that CCS has refused as they are.

    Raises:
        CcsError: CCS does not answer at a look; nothing is repeated.
    """
    ccs, status = site.ccs_at_a_look, SyncStatus.PENDING
    total = sum(ccs.count_sync_requests(business_object=entity.business_object, status=status) for entity in ENTITIES)
    with site.ledger.read() as db:
        refusals = requests.refusals(db)
    # Asked for by id: one that is no longer pending must not hide another that is.
    left_alone = sum(
        _is_refused(found.id, found.status_changed, refusals)
        for page in ccs.sync_requests(ids=list(refusals), status=status)
        for found in page
    )
    return total - left_alone


def latest_pending(site: Site) -> datetime | None:
    """Returns when the newest pending request was created: what is pending now is what is not younger."""
    return max((request.created for request in pending_requests(site)), default=None)


def _start_delta(site: Site, key: SyncBatch, lease: Lease) -> Nothing | None:
    with site.ledger.read() as db:
        snapshot = gate_holder(db)
    if snapshot is not None:
        return Nothing(f"held by snapshot {snapshot}")
    found = list(_all_pending(site))
    try:
        with site.ledger.write() as db:
            lease.check(db)
            refusals = requests.refusals(db)
            left_alone = {one.request_id for one in found if _is_refused(one.request_id, one.state_time, refusals)}
            requests.forget_refusals(db, refusals.keys() - left_alone)
            pending = [one for one in found if one.request_id not in left_alone]
            waiting = requests.open_requests(db, [request.request_id for request in pending])
            fresh = [request for request in pending if request.request_id not in waiting]
            chosen = choose(fresh, limit=site.settings.delta_max_requests, busy=requests.busy_entities(db))
            if not chosen:
                mark(db, BLOCKED, len(pending))
                return Nothing(_why_nothing(len(pending), len(left_alone)))
            create_chosen(db, key, codes=incremental_codes(), first=site.settings.first_batch_numbers)
            requests.close_unanswered(db, [request.request_id for request in chosen])
            requests.add(db, key, chosen)
            requests.adopt_followers(db, key)
            mark(db, BLOCKED, 0)  # found before this batch was; left standing it would hide requests that came since
    except GateClosedError as error:
        return Nothing(str(error))
    return None


def _why_nothing(pending: int, refused: int) -> str:
    if not pending and refused:
        return f"nothing pending but {refused} requests that CCS refuses (`ccs-dacs status`)"
    if not pending:
        return "nothing pending"
    return f"{pending} pending requests wait for unfinished batches (`ccs-dacs batch list`)"


def incremental_codes() -> list[str]:
    """Returns the batch codes of deltas and resyncs."""
    return [entity.incremental_code for entity in ENTITIES]


def start_resync(site: Site, entity: str, ids: Sequence[str]) -> tuple[SyncBatch, list[str]]:
    """Creates a resync of chosen entities; returns its key, and the ids that unfinished batches send anyway.

    Raises:
        BatchStateError: nothing is left to send.
        GateClosedError: a snapshot holds the gate.
    """
    name = entity_named(entity).name
    with site.ledger.write() as db:
        busy = {entity_id for kind, entity_id in requests.busy_entities(db) if kind == name}
        chosen = sorted(set(ids) - busy)
        left = sorted(set(ids) & busy)
        if not chosen:
            raise BatchStateError(
                f"None of the {len(set(ids))} ids is left to send: unfinished batches (`ccs-dacs batch list`) hold "
                "them and send them; one that is stopped waits for an operator to resume or abort it."
            )
        key = SyncBatch(Mode.RESYNC, highest_number(db, Mode.RESYNC) + 1)
        create_chosen(db, key, codes=incremental_codes(), first=site.settings.first_batch_numbers)
        requests.add_entities(db, key, ((name, entity_id) for entity_id in chosen))
        note(db, "resync chosen", str(key), entity=name, entities=len(chosen), left=len(left))
    return key, left


def children_due(site: Site) -> int:
    """Returns how many children can be sent again now that their parents are delivered, those of one batch at most."""
    with site.ledger.read() as db:
        return len(orphans.ready(db, site.settings.delta_max_requests))


def _start_resync_of_children(site: Site, key: SyncBatch, lease: Lease) -> Nothing | None:
    """Creates the resync of children that were sent while their parent was withheld, and that is delivered by now."""
    try:
        with site.ledger.write() as db:
            lease.check(db)
            chosen = orphans.ready(db, site.settings.delta_max_requests)
            if not chosen:
                raise BatchStateError(
                    f"There is no batch {key}, and no children wait for their parents: a resync begins with "
                    "`ccs-dacs resync`, which makes its key."
                )
            create_chosen(db, key, codes=incremental_codes(), first=site.settings.first_batch_numbers)
            requests.add_entities(db, key, chosen)
            orphans.forget(db, chosen)
            note(db, "children of delivered parents", str(key), entities=len(chosen))
    except GateClosedError as error:
        return Nothing(str(error))
    return None


def ids_in_range(site: Site, entity: str, low_id: str, high_id: str) -> list[str]:
    """Returns the ids of the entities that CCS has in a range."""
    found = entity_named(entity)
    ids: list[str] = []
    for low, high in ranges(site, found, low_id, high_id):
        for frame in site.ccs.read_range(found, low, high):
            ids.extend(frame[found.id_member].to_list())
    return ids


def give_up(site: Site, owner: str) -> list[Batch]:
    """Aborts a batch or snapshot; every claimed request of it is due an error answer, unless it is a replay."""
    with site.ledger.write() as db:
        batches = abort(db, owner)
        for batch in batches:
            if batch.key.mode is Mode.DELTA and not batch.rerun:
                requests.abort(db, batch.key, own_error(site, f"aborted: batch {batch.key} was given up"))
        requests.settle_batches(db)
        found = owned(db, owner)
    for batch in batches:
        remove_sources(site, batch)
    return found
