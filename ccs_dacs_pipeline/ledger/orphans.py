"""Children that were sent while their parent was withheld, to be sent again once it is delivered.

A parent is withheld while a finding about it is open, or rejected by an operator. DACS refuses rows whose parents it
does not know, so such a child goes again, as part of a resync, when none of its parents is withheld any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from ccs_dacs_pipeline.ledger.requests import Outcome
from ccs_dacs_pipeline.ledger.schema import ACTIVE, batch_entities, batches, orphans, quarantine, snapshots
from ccs_dacs_pipeline.ledger.store import insert_missing
from ccs_dacs_pipeline.partitions import Mode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy.engine import Connection

    from ccs_dacs_pipeline.ledger.life import Batch
    from ccs_dacs_pipeline.partitions import SyncBatch

Orphan = tuple[str, str, str]
"""Id of the child, entity and id of its withheld parent."""
_STANDING = quarantine.c.open | quarantine.c.rejected


def withheld(db: Connection, key: SyncBatch, entity: str) -> list[str]:
    """Returns the ids of an entity's records that DACS does not have when it reads a batch: each once.

    What the batch itself judges counts for more than what was found before.
    """
    stands: sa.ColumnElement[bool]
    if key.mode is Mode.INITIAL:
        stands = quarantine.c.batch.in_(_shards(key)) | ~_is_read(key, quarantine.c.entity_id)
    else:
        stands = ~_writes(key, quarantine.c.entity, quarantine.c.entity_id)
    found = sa.select(quarantine.c.entity_id).where(quarantine.c.entity == entity, _STANDING, stands)
    return list(db.execute(found.distinct()).scalars())


def record(db: Connection, key: SyncBatch, entity: str, found: Iterable[Orphan]) -> None:
    """Records the children that a batch sends without their parents, in place of what was recorded of it before."""
    db.execute(sa.delete(orphans).where(orphans.c.batch == str(key), orphans.c.entity == entity))
    add(db, key, entity, found)


def add(db: Connection, key: SyncBatch, entity: str, found: Iterable[Orphan]) -> None:
    """Records further children that a batch sends without their parents."""
    names = ("entity_id", "parent_entity", "parent_id")
    rows = [
        {"batch": str(key), "entity": entity, **dict(zip(names, one, strict=True)), "due": False} for one in set(found)
    ]
    insert_missing(db, orphans, rows)


def deliver(db: Connection, delivered: Sequence[Batch]) -> None:
    """Makes the children of parents that are delivered now due; forgets older records of children that go along.

    Args:
        db: the transaction that records the delivery.
        delivered: the batch, or all shards of the snapshot.
    """
    key = delivered[0].key
    older = orphans.c.batch.not_in([str(batch.key) for batch in delivered])
    sent_along: sa.ColumnElement[bool]
    arrived: sa.ColumnElement[bool]
    if key.mode is Mode.INITIAL:
        sent_along = _is_read(key, orphans.c.entity_id)
        bad = sa.exists().where(
            quarantine.c.batch.in_(_shards(key)),
            quarantine.c.entity == orphans.c.parent_entity,
            quarantine.c.entity_id == orphans.c.parent_id,
        )
        arrived = older & _is_read(key, orphans.c.parent_id) & ~bad
    else:
        sent_along = sa.exists().where(
            batch_entities.c.batch == str(key),
            batch_entities.c.entity == orphans.c.entity,
            batch_entities.c.entity_id == orphans.c.entity_id,
            batch_entities.c.outcome != "left",
        )
        arrived = _writes(key, orphans.c.parent_entity, orphans.c.parent_id)
    db.execute(sa.delete(orphans).where(older, sent_along))
    db.execute(sa.update(orphans).where(arrived).values(due=True))


def ready(db: Connection, limit: int) -> list[tuple[str, str]]:
    """Returns the children to be sent again now: all their parents are delivered, and no unfinished batch has them."""
    other = orphans.alias("other")
    waits = sa.exists().where(
        other.c.entity == orphans.c.entity, other.c.entity_id == orphans.c.entity_id, other.c.due.is_(False)
    )
    busy = sa.exists().where(
        batch_entities.c.entity == orphans.c.entity,
        batch_entities.c.entity_id == orphans.c.entity_id,
        ACTIVE,
    )
    columns = (orphans.c.entity, orphans.c.entity_id)
    found = sa.select(*columns).where(orphans.c.due, ~waits, ~busy).distinct().order_by(*columns).limit(limit)
    return [(entity, entity_id) for entity, entity_id in db.execute(found)]


def forget(db: Connection, subjects: Collection[tuple[str, str]]) -> None:
    """Forgets children: a new batch sends them."""
    same = (orphans.c.entity == sa.bindparam("name")) & (orphans.c.entity_id == sa.bindparam("id"))
    if subjects:
        db.execute(sa.delete(orphans).where(same), [{"name": name, "id": one} for name, one in subjects])


def _shards(key: SyncBatch) -> sa.Select[tuple[str]]:
    return sa.select(batches.c.key).where(batches.c.owner == key.owner)


def _is_read(key: SyncBatch, entity_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Says that an id is in the key range of a snapshot."""
    covers = (snapshots.c.low_id <= entity_id) & (snapshots.c.high_id >= entity_id)
    return sa.exists().where(snapshots.c.number == key.number, covers)


def _writes(key: SyncBatch, entity: sa.ColumnElement[str], entity_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Says that a delta or resync sends an entity."""
    return sa.exists().where(
        batch_entities.c.batch == str(key),
        batch_entities.c.entity == entity,
        batch_entities.c.entity_id == entity_id,
        batch_entities.c.outcome == Outcome.WRITTEN,
    )
