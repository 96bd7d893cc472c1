"""The life of a batch and the snapshot gate (sync-lifecycle.md, "Life of a batch", "Snapshot and deltas agree").

`created -> claimed -> sealed -> publishing -> delivered -> settled`; aside of it `held`, `stopped`, `aborted`. An aside
keeps the stage that was reached, so that a resume goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ccs_dacs_pipeline.ledger.schema import (
    batch_entities,
    batches,
    extracts,
    file_numbers,
    files,
    frames,
    gate,
    journal,
    manifests,
    quarantine,
    requests,
    snapshots,
)
from ccs_dacs_pipeline.ledger.store import LedgerError, insert_missing, mark, marked, note, now, upsert
from ccs_dacs_pipeline.partitions import Mode, SyncBatch, shards_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.engine import Connection, Row


# Under this name the ledger remembers the numbers that a lost one has used.
_RECOVERED = "recovered"
_SNAPSHOT_CREATED = "snapshot created"


class Stage(StrEnum):
    """How far a batch has come; the order of definition is the order of life."""

    CREATED = "created"
    CLAIMED = "claimed"
    SEALED = "sealed"
    PUBLISHING = "publishing"
    DELIVERED = "delivered"
    SETTLED = "settled"

    @property
    def rank(self) -> int:
        """The place in the order of life."""
        return list(Stage).index(self)


class Aside(StrEnum):
    """Why a batch does not go on by itself."""

    HELD = "held"
    STOPPED = "stopped"
    ABORTED = "aborted"


class GateClosedError(LedgerError):
    """A snapshot holds the gate: nothing of a delta is published before it is delivered or aborted."""

    def __init__(self, snapshot: int) -> None:
        super().__init__(f"held by snapshot {snapshot}")
        self.snapshot = snapshot


class BatchStateError(LedgerError):
    """A batch is not in a state in which this can be done."""


@dataclass(frozen=True)
class Batch:
    """One batch as the ledger knows it."""

    key: SyncBatch
    stage: Stage
    aside: Aside | None
    reason: str | None
    rerun: int
    attempts: int
    low_id: str | None
    high_id: str | None
    moment: datetime | None
    created: datetime
    updated: datetime
    delivered: datetime | None

    @property
    def state(self) -> str:
        """What an operator sees: the aside where there is one, else the stage."""
        return (self.aside or self.stage).value

    def reached(self, stage: Stage) -> bool:
        """Says whether the batch has come to `stage` or past it."""
        return self.stage.rank >= stage.rank

    @property
    def rows_fixed(self) -> bool:
        """Says whether CCS is never asked for its entities again: sealed, or a replay of what was sealed."""
        return self.rerun > 0 or self.reached(Stage.SEALED)

    @property
    def unfinished(self) -> bool:
        """Neither delivered nor aborted."""
        return self.aside is not Aside.ABORTED and not self.reached(Stage.DELIVERED)


def _batch(row: Row[tuple[object, ...]]) -> Batch:
    return Batch(
        key=SyncBatch.parse(row.key),
        stage=Stage(row.stage),
        aside=Aside(row.aside) if row.aside else None,
        reason=row.reason,
        rerun=row.rerun,
        attempts=row.attempts,
        low_id=row.low_id,
        high_id=row.high_id,
        moment=row.moment,
        created=row.created,
        updated=row.updated,
        delivered=row.delivered,
    )


# The stages by name, not "none of the later ones": by those the index finds the few among all batches ever.
UNFINISHED = sa.and_(
    batches.c.stage.in_([stage for stage in Stage if stage.rank < Stage.DELIVERED.rank]),
    batches.c.aside.is_distinct_from(Aside.ABORTED),
)


def find(db: Connection, key: SyncBatch) -> Batch | None:
    """Returns a batch, or None when there is none of that name."""
    row = db.execute(sa.select(batches).where(batches.c.key == str(key))).first()
    return _batch(row) if row else None


def get(db: Connection, key: SyncBatch) -> Batch:
    """Returns a batch.

    Raises:
        BatchStateError: there is none of that name.
    """
    batch = find(db, key)
    if batch is None:
        raise BatchStateError(
            f"The ledger has no batch {key}. Materialize ccs/sync_batch for it first, or see `ccs-dacs batch list`."
        )
    return batch


def owned(db: Connection, owner: str) -> list[Batch]:
    """Returns the batches that share numbers and manifest: a snapshot's shards in order, or the one batch itself."""
    return listed(db, batches.c.owner == owner)


def listed(db: Connection, *conditions: sa.ColumnElement[bool], last: int | None = None) -> list[Batch]:
    """Returns the batches under some conditions, oldest first, shards in order; all, or so many of the last."""
    order = (batches.c.created, batches.c.mode, batches.c.number, batches.c.shard)
    found = sa.select(batches).where(*conditions)
    if last is None:
        return [_batch(row) for row in db.execute(found.order_by(*order))]
    newest = db.execute(found.order_by(*(column.desc() for column in order)).limit(last)).all()
    return [_batch(row) for row in reversed(newest)]


def highest_number(db: Connection, mode: Mode) -> int:
    """Returns the highest batch number of a mode, 0 when there is none; what a lost ledger used counts too."""
    highest = db.execute(sa.select(sa.func.max(batches.c.number)).where(batches.c.mode == mode)).scalar() or 0
    return max(int(highest), int((marked(db, _RECOVERED) or {}).get(mode.value, 0)))


def raise_numbers(db: Connection, numbers: Mapping[Mode, int], file_numbers_by_code: Mapping[str, int]) -> None:
    """Lets batch and file numbers go on above those that a lost ledger has used."""
    before = marked(db, _RECOVERED) or {}
    raised = {mode.value: max(number, before.get(mode.value, 0)) for mode, number in numbers.items()}
    mark(db, _RECOVERED, before | raised)
    taken = _taken_numbers(db)
    rows = [
        {"owner": _RECOVERED, "batch_code": code, "number": number}
        for code, number in file_numbers_by_code.items()
        if number > taken.get(code, 0)
    ]
    upsert(db, file_numbers, rows)


def file_names(db: Connection) -> set[str]:
    """Returns the names of all extract files of unfinished batches."""
    pair = files.join(batches, batches.c.key == files.c.batch)
    return set(db.execute(sa.select(files.c.name).select_from(pair).where(UNFINISHED)).scalars())


def gate_holder(db: Connection) -> int | None:
    """Returns the snapshot that holds the gate, None when it is open."""
    return db.execute(sa.select(gate.c.held_by).where(gate.c.id == 1)).scalar()


def _lock_gate(db: Connection) -> int | None:
    """Locks the gate's row: transactions that close, open or pass it, or take numbers, follow one another."""
    insert_missing(db, gate, [{"id": 1, "held_by": None}])
    return db.execute(sa.select(gate.c.held_by).where(gate.c.id == 1).with_for_update()).scalar()


def _pass_gate(db: Connection) -> None:
    snapshot = _lock_gate(db)
    if snapshot is not None:
        raise GateClosedError(snapshot)


def _allot_numbers(db: Connection, owner: str, codes: Iterable[str], first: Mapping[str, int]) -> None:
    """Fixes the batch number of each code for good, so that a repeated attempt gives the same file names."""
    taken = _taken_numbers(db)
    rows = [
        {"owner": owner, "batch_code": code, "number": max(taken.get(code, 0) + 1, first.get(code, 1))}
        for code in codes
    ]
    db.execute(sa.insert(file_numbers), rows)


def _taken_numbers(db: Connection) -> dict[str, int]:
    """Returns the highest number that each batch code has had."""
    highest = sa.select(file_numbers.c.batch_code, sa.func.max(file_numbers.c.number))
    return dict(db.execute(highest.group_by(file_numbers.c.batch_code)).all())


def number_of(db: Connection, owner: str, code: str) -> int:
    """Returns the batch number that an owner has for a batch code."""
    found = (file_numbers.c.owner == owner) & (file_numbers.c.batch_code == code)
    return int(db.execute(sa.select(file_numbers.c.number).where(found)).scalar_one())


def _insert_batch(db: Connection, key: SyncBatch, low_id: str | None = None, high_id: str | None = None) -> None:
    present = now()
    values = {
        "key": str(key),
        "mode": key.mode,
        "number": key.number,
        "owner": key.owner,
        "shard": key.shard,
        "shards": key.shards,
        "low_id": low_id,
        "high_id": high_id,
        "stage": Stage.CREATED,
        "created": present,
        "updated": present,
    }
    db.execute(sa.insert(batches).values(values))


def create_snapshot(
    db: Connection, number: int, ranges: Sequence[tuple[str, str]], *, codes: Iterable[str], first: Mapping[str, int]
) -> None:
    """Creates a snapshot with one batch per key range, and closes the gate.

    Raises:
        BatchStateError: another snapshot is unfinished, or the number is used.
    """
    _refuse_unfinished_snapshot(_lock_gate(db))
    if number <= highest_number(db, Mode.INITIAL):
        raise BatchStateError(
            f"Snapshot number {number} is used up; take {highest_number(db, Mode.INITIAL) + 1} or a higher one."
        )
    row = {
        "number": number,
        "state": "open",
        "shards": len(ranges),
        "low_id": ranges[0][0],
        "high_id": ranges[-1][1],
        "created": now(),
    }
    db.execute(sa.insert(snapshots).values(row))
    db.execute(sa.update(gate).where(gate.c.id == 1).values(held_by=number))
    shards = shards_of(number, len(ranges))
    for key, (low_id, high_id) in zip(shards, ranges, strict=True):
        _insert_batch(db, key, low_id, high_id)
    _allot_numbers(db, shards[0].owner, codes, first)
    note(db, _SNAPSHOT_CREATED, shards[0].owner, shards=len(ranges))


def _refuse_unfinished_snapshot(holder: int | None) -> None:
    if holder is not None:
        raise BatchStateError(
            f"Snapshot {holder} is unfinished and holds the gate. Finish it with `ccs-dacs initial`, or give it up "
            f"with `ccs-dacs batch abort initial-{holder}`."
        )


def create_chosen(db: Connection, key: SyncBatch, *, codes: Iterable[str], first: Mapping[str, int]) -> None:
    """Creates a delta or resync batch; its requests and entities are added in the same transaction.

    Raises:
        GateClosedError: a snapshot holds the gate.
    """
    _pass_gate(db)
    _insert_batch(db, key)
    _allot_numbers(db, key.owner, codes, first)
    note(db, "batch created", str(key))


def begin_attempt(db: Connection, key: SyncBatch) -> Batch:
    """Counts an attempt at an existing batch and returns it.

    Raises:
        BatchStateError: the batch is stopped or aborted; names the way out.
    """
    batch = get(db, key)
    refuse_aside(batch)
    _update(db, batch, attempts=batch.attempts + 1)
    return get(db, key)


def refuse_aside(batch: Batch) -> None:
    """Refuses work on a batch that waits for an operator, or was given up.

    Raises:
        BatchStateError: the batch is stopped or aborted; names the way out.
    """
    if batch.aside is Aside.STOPPED:
        owner = batch.key.owner  # a shard is resumed and aborted with its whole snapshot
        raise BatchStateError(
            f"Batch {batch.key} is stopped: {batch.reason} Mend the cause, then `ccs-dacs batch resume {owner}`; or "
            f"give it up with `ccs-dacs batch abort {owner}`."
        )
    if batch.aside is Aside.ABORTED:
        raise BatchStateError(
            f"Batch {batch.key} was aborted; nothing more is sent of it. Send the entities anew with `ccs-dacs resync`."
        )


def _update(db: Connection, batch: Batch, **values: object) -> None:
    db.execute(sa.update(batches).where(batches.c.key == str(batch.key)).values(updated=now(), **values))


def advance(db: Connection, key: SyncBatch, stage: Stage) -> None:
    """Takes a batch on to the next stage of its life; without effect when it is there already or past it.

    Raises:
        BatchStateError: a stage would be left out, or the batch is aborted.
    """
    batch = get(db, key)
    if batch.reached(stage) and batch.aside is not Aside.ABORTED:
        return
    if batch.aside is Aside.ABORTED or stage.rank != batch.stage.rank + 1:
        raise BatchStateError(f"Batch {key} is {batch.state} and cannot become {stage}. Run its earlier assets first.")
    _update(db, batch, stage=stage, aside=None, reason=None)
    note(db, stage, str(key))


def begin_publishing(db: Connection, owned_batches: Sequence[Batch]) -> None:
    """Takes sealed batches to `publishing`; a delta or resync passes the gate here, once.

    Raises:
        GateClosedError: a snapshot came in between; the batch waits for it.
    """
    if owned_batches[0].key.mode is not Mode.INITIAL and not owned_batches[0].reached(Stage.PUBLISHING):
        _pass_gate(db)
    for batch in owned_batches:
        advance(db, batch.key, Stage.PUBLISHING)


def finish_delivery(db: Connection, owned_batches: Sequence[Batch]) -> None:
    """Records that files and manifest are visible; a snapshot's delivery opens the gate."""
    delivered = now()
    for batch in owned_batches:
        if not batch.reached(Stage.DELIVERED):
            advance(db, batch.key, Stage.DELIVERED)
            db.execute(sa.update(batches).where(batches.c.key == str(batch.key)).values(delivered=delivered))
            _release_entities(db, batch.key)
    key = owned_batches[0].key
    if key.mode is Mode.INITIAL:
        _end_snapshot(db, key.number, "delivered")
        # What this snapshot read again is judged anew; older findings about it no longer stand.
        older = quarantine.c.batch.not_in([str(batch.key) for batch in owned_batches])
        read = quarantine.c.entity_id.between(owned_batches[0].low_id, owned_batches[-1].high_id)
        db.execute(sa.update(quarantine).where(older, read).values(open=False, rejected=False))


def _end_snapshot(db: Connection, number: int, state: str) -> None:
    """Ends an open snapshot and opens the gate; a replayed one has ended before and holds no gate."""
    _lock_gate(db)
    opened = (snapshots.c.number == number) & (snapshots.c.state == "open")
    db.execute(sa.update(snapshots).where(opened).values(state=state, ended=now()))
    db.execute(sa.update(gate).where(gate.c.held_by == number).values(held_by=None))


def _release_entities(db: Connection, key: SyncBatch) -> None:
    db.execute(sa.update(batch_entities).where(batch_entities.c.batch == str(key)).values(active=False))


def hold(db: Connection, key: SyncBatch, snapshot: int) -> None:
    """Sets a batch aside until the gate opens."""
    batch = get(db, key)
    if batch.unfinished:  # an operator may have aborted it in between
        _update(db, batch, aside=Aside.HELD, reason=f"held by snapshot {snapshot}")
        note(db, "held", str(key), snapshot=snapshot)


def stop(db: Connection, key: SyncBatch, reason: str) -> None:
    """Sets a batch aside for an operator; what was claimed stays claimed."""
    batch = get(db, key)
    if batch.unfinished:
        _update(db, batch, aside=Aside.STOPPED, reason=reason)
        note(db, "stopped", str(key), reason=reason)


def resume(db: Connection, owner: str) -> list[Batch]:
    """Lets stopped or held batches go on; those that are neither stay as they are.

    Raises:
        BatchStateError: there is no such batch, or it is aborted, or nothing of it is unfinished.
    """
    found = _require_unfinished(db, owner, "resume")
    for batch in found:
        if batch.aside is not None:
            _update(db, batch, aside=None, reason=None)
            note(db, "resumed", str(batch.key))
    return owned(db, owner)


def abort(db: Connection, owner: str) -> list[Batch]:
    """Gives batches up for good and frees their entities; a snapshot's abort opens the gate.

    Requests that were chosen but never sent to CCS are let go, and stay pending there. The claimed ones are answered by
    `requests.abort`, in the same transaction. Of a replay only the replay is given up: the delivery before it stands.

    Raises:
        BatchStateError: there is no such batch, or it is delivered or aborted already.
    """
    found = _require_unfinished(db, owner, "abort")
    for batch in found:
        if batch.rerun:
            _give_up_replay(db, batch)
            continue
        _update(db, batch, aside=Aside.ABORTED, reason="aborted by an operator")
        _release_entities(db, batch.key)
        untouched = (requests.c.batch == str(batch.key)) & (requests.c.attempts == 0)
        db.execute(sa.delete(requests).where(untouched))
        note(db, "aborted", str(batch.key), stage=batch.stage)
    if found[0].key.mode is Mode.INITIAL:
        _end_snapshot(db, found[0].key.number, "aborted")
    return found


def _give_up_replay(db: Connection, batch: Batch) -> None:
    """Takes a batch back to its last delivery; another replay gives the same names, and so the same content, again."""
    for table in (extracts, files):
        db.execute(sa.delete(table).where(table.c.batch == str(batch.key), table.c.rerun == batch.rerun))
    db.execute(sa.delete(manifests).where(manifests.c.owner == batch.key.owner, manifests.c.rerun == batch.rerun))
    _update(db, batch, stage=Stage.DELIVERED, aside=None, reason=None, rerun=batch.rerun - 1)
    note(db, "replay aborted", str(batch.key), stage=batch.stage)


def _require_unfinished(db: Connection, owner: str, what: str) -> list[Batch]:
    found = owned(db, owner)
    if not found:
        raise BatchStateError(f"The ledger has no batch {owner}; `ccs-dacs batch list` shows what it has.")
    unfinished = [batch for batch in found if batch.unfinished]
    if not unfinished:
        raise BatchStateError(f"Batch {owner} is {found[0].state}: there is nothing to {what}.")
    return unfinished


def replay(db: Connection, owner: str) -> list[Batch]:
    """Prepares a deliberate replay: the same rows under new file names, the rerun number raised.

    A snapshot's replay closes the gate until it is delivered or given up, since its rows carry no Change Date Time and
    would be put over newer ones.

    Raises:
        BatchStateError: not delivered yet; its frames are removed; or a snapshot while another is unfinished, or after
            which others were delivered.
    """
    found = owned(db, owner)
    if not found or not all(batch.reached(Stage.DELIVERED) and batch.aside is None for batch in found):
        state = found[0].state if found else "unknown"
        raise BatchStateError(f"Batch {owner} is {state}: only a delivered batch can be replayed.")
    keys = {str(batch.key) for batch in found}
    if keys - set(db.execute(sa.select(frames.c.batch).where(frames.c.batch.in_(keys))).scalars()):
        raise BatchStateError(
            f"The frames of {owner} are removed after their time (CCS_DACS_FRAMES_KEEP), and CCS is not asked for its "
            "rows again: send the entities anew with `ccs-dacs resync`."
        )
    if found[0].key.mode is Mode.INITIAL:
        _refuse_unfinished_snapshot(_lock_gate(db))
        _refuse_stale_replay(db, found)
        db.execute(sa.update(gate).where(gate.c.id == 1).values(held_by=found[0].key.number))
    for batch in found:
        _update(db, batch, stage=Stage.CLAIMED, rerun=batch.rerun + 1)
        note(db, "replayed", str(batch.key), rerun=batch.rerun + 1)
    return owned(db, owner)


def _refuse_stale_replay(db: Connection, shards: Sequence[Batch]) -> None:
    """Refuses when others were delivered since the snapshot was made: by the order of the journal, not by a clock."""
    owner = shards[0].key.owner
    others = sa.select(batches.c.key).where(batches.c.owner != owner)
    made = sa.select(sa.func.min(journal.c.id)).where(journal.c.batch == owner, journal.c.event == _SNAPSHOT_CREATED)
    delivered = (journal.c.event == Stage.DELIVERED) & journal.c.batch.in_(others)
    later = sa.exists().where(delivered, journal.c.id > made.scalar_subquery())
    if db.execute(sa.select(later | sa.exists(others.where(batches.c.stage == Stage.PUBLISHING)))).scalar():
        raise BatchStateError(
            f"Batches were delivered after {owner} was read: a replay would put old data over new. "
            "Make a new snapshot with `ccs-dacs initial --new`."
        )


def extracted(db: Connection, batch: Batch) -> set[str]:
    """Returns the entities of a batch whose extract files are complete."""
    found = (extracts.c.batch == str(batch.key)) & (extracts.c.rerun == batch.rerun)
    return set(db.execute(sa.select(extracts.c.entity).where(found)).scalars())


def forget_extract(db: Connection, batch: Batch, entity: str) -> None:
    """Forgets the extract files of an entity, whose frames are about to be made anew (before `sealed` only)."""
    for table in (extracts, files):
        same = (table.c.batch == str(batch.key)) & (table.c.rerun == batch.rerun) & (table.c.entity == entity)
        db.execute(sa.delete(table).where(same))
