"""What a batch holds: figures of its entities, frames, extract files, manifest, quarantine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ccs_dacs_pipeline.ledger.life import Aside, Batch, Stage, advance, extracted, forget_extract, get
from ccs_dacs_pipeline.ledger.schema import (
    batch_entities,
    batches,
    extracts,
    files,
    frames,
    manifests,
    quarantine,
    tallies,
)
from ccs_dacs_pipeline.ledger.store import LedgerError, note, now, upsert

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.engine import Connection

    from ccs_dacs_pipeline.partitions import SyncBatch

_ID_LENGTH, _FIELD_LENGTH = 32, 120
"""As long as the ledger's columns: PostgreSQL refuses what is longer."""


@dataclass(frozen=True)
class Tally:
    """The figures of one entity in one batch, records."""

    fetched: int
    written: int | None = None
    quarantined: Mapping[str, int] | None = None
    not_eligible: Mapping[str, int] | None = None
    cleaned: Mapping[str, int] | None = None
    unknown_references: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Frame:
    """A stored frame: rows, bytes, and the sha256 over its chunks."""

    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class File:
    """One extract file or part, as recorded."""

    batch: str
    entity: str
    part: int
    name: str
    rows: int
    bytes: int
    sha256: str
    delivered: datetime | None


@dataclass(frozen=True)
class Finding:
    """A record that breaks a rule; never holds its value."""

    entity_id: str
    rule: str
    field: str
    detail: str


def record_fetched(db: Connection, batch: Batch, entity: str, raw_asset: str, frame: Frame) -> None:
    """Records the raw frame of an entity; what was made of an earlier one is forgotten."""
    forget_extract(db, batch, entity)
    _forget_frames(db, batch, entity)
    upsert(db, frames, [{"batch": str(batch.key), "asset": raw_asset, **_frame(frame)}])
    upsert(db, tallies, [{"batch": str(batch.key), "entity": entity, **_tally(Tally(fetched=frame.rows))}])


def _forget_frames(db: Connection, batch: Batch, asset: str) -> None:
    db.execute(sa.delete(frames).where(frames.c.batch == str(batch.key), frames.c.asset == asset))


def record_mapped(
    db: Connection, batch: Batch, entity: str, frame: Frame, tally: Tally, findings: Iterable[Finding]
) -> None:
    """Records the mapped frame of an entity, its figures and its quarantined records."""
    forget_extract(db, batch, entity)
    upsert(db, frames, [{"batch": str(batch.key), "asset": entity, **_frame(frame)}])
    upsert(db, tallies, [{"batch": str(batch.key), "entity": entity, **_tally(tally)}])
    mine = (quarantine.c.batch == str(batch.key)) & (quarantine.c.entity == entity)
    db.execute(sa.delete(quarantine).where(mine))
    rows = [{"batch": str(batch.key), "entity": entity, **_finding(finding)} for finding in findings]
    if rows:
        db.execute(sa.insert(quarantine), rows)


def record_extract(db: Connection, batch: Batch, entity: str, made: Sequence[File]) -> None:
    """Records the complete extract files of an entity."""
    forget_extract(db, batch, entity)
    rows = [{**vars(file), "rerun": batch.rerun} for file in made]
    if rows:
        db.execute(sa.insert(files), rows)
    db.execute(sa.insert(extracts).values(batch=str(batch.key), rerun=batch.rerun, entity=entity))


def seal_when_complete(db: Connection, key: SyncBatch, entities: Sequence[str]) -> bool:
    """Seals a claimed batch all of whose entities have their extract files; says whether it is sealed now."""
    batch = get(db, key)
    if batch.stage is Stage.CLAIMED and extracted(db, batch) == set(entities):
        advance(db, key, Stage.SEALED)
        return True
    return False


def clear_quarantine(db: Connection, key: SyncBatch) -> None:
    """Closes older findings about entities that this delivered delta or resync has written, or judged anew."""
    mine = sa.and_(
        batch_entities.c.batch == str(key),
        batch_entities.c.entity == quarantine.c.entity,
        batch_entities.c.entity_id == quarantine.c.entity_id,
        batch_entities.c.outcome != "left",
    )
    older = quarantine.c.batch != str(key)
    db.execute(sa.update(quarantine).where(older, sa.exists().where(mine)).values(open=False, rejected=False))


def require_quarantined(db: Connection, entity: str, ids: Sequence[str]) -> None:
    """Makes sure that records are quarantined.

    Raises:
        LedgerError: some are not; names the first.
    """
    found = (quarantine.c.entity == entity) & quarantine.c.open
    known = set(db.execute(sa.select(quarantine.c.entity_id).where(found)).scalars())
    strangers = sorted(set(ids) - known)
    if strangers:
        raise LedgerError(
            f"{len(strangers)} of the {len(set(ids))} {entity} records are not quarantined, for example "
            f"{strangers[0]}; `ccs-dacs quarantine list` shows those that are. Nothing was done."
        )


def reject_quarantined(db: Connection, entity: str, ids: Sequence[str]) -> None:
    """Closes findings about records that an operator accepts as not sent, and says so in the journal.

    Raises:
        LedgerError: a record is not quarantined.
    """
    require_quarantined(db, entity, ids)
    for entity_id in sorted(set(ids)):
        mine = (quarantine.c.entity == entity) & (quarantine.c.entity_id == entity_id) & quarantine.c.open
        for batch, rule in db.execute(sa.select(quarantine.c.batch, quarantine.c.rule).where(mine)).all():
            note(db, "quarantine rejected", batch, entity=entity, id=entity_id, rule=rule)
        db.execute(sa.update(quarantine).where(mine).values(open=False, rejected=True))


def batches_with_old_frames(db: Connection, before: datetime) -> list[str]:
    """Returns the batches that have frames and were settled or aborted before a moment."""
    ended = (batches.c.stage == Stage.SETTLED) | (batches.c.aside == Aside.ABORTED)
    pair = frames.join(batches, batches.c.key == frames.c.batch)
    found = sa.select(frames.c.batch).select_from(pair).where(ended, batches.c.updated < before).distinct()
    return list(db.execute(found.order_by(frames.c.batch)).scalars())


def forget_frames(db: Connection, key: str) -> None:
    """Forgets the frames of a batch, which are deleted; its figures stay."""
    db.execute(sa.delete(frames).where(frames.c.batch == key))


def frame_of(db: Connection, key: SyncBatch, asset: str) -> Frame | None:
    """Returns the recorded frame of an asset, None when there is none."""
    found = (frames.c.batch == str(key)) & (frames.c.asset == asset)
    row = db.execute(sa.select(frames.c.rows, frames.c.bytes, frames.c.sha256).where(found)).first()
    return Frame(*row) if row else None


def tally_of(db: Connection, key: SyncBatch, entity: str) -> Tally | None:
    """Returns the figures of an entity in a batch, None before it is fetched."""
    found = (tallies.c.batch == str(key)) & (tallies.c.entity == entity)
    row = db.execute(sa.select(tallies).where(found)).first()
    if row is None:
        return None
    return Tally(row.fetched, row.written, row.quarantined, row.not_eligible, row.cleaned, row.unknown_references)


def files_of(db: Connection, batch: Batch, entity: str | None = None) -> list[File]:
    """Returns the recorded files of a batch's present rerun, by entity and part."""
    conditions = [files.c.batch == str(batch.key), files.c.rerun == batch.rerun]
    if entity is not None:
        conditions.append(files.c.entity == entity)
    columns = [files.c[name] for name in File.__dataclass_fields__]
    rows = db.execute(sa.select(*columns).where(*conditions).order_by(files.c.entity, files.c.part))
    return [File(*row) for row in rows]


def is_extracted(db: Connection, batch: Batch, entity: str) -> bool:
    """Says whether an entity's files of the present rerun are complete."""
    return entity in extracted(db, batch)


def record_file_delivered(db: Connection, name: str) -> None:
    """Records that a file is in the upload folder under its final name."""
    db.execute(sa.update(files).where(files.c.name == name, files.c.delivered.is_(None)).values(delivered=now()))


def record_manifest(db: Connection, owner: str, rerun: int, name: str, sha256: str) -> None:
    """Records the manifest that is about to be published."""
    upsert(db, manifests, [{"owner": owner, "rerun": rerun, "name": name, "sha256": sha256}])


def record_manifest_delivered(db: Connection, owner: str, rerun: int) -> None:
    """Records that the manifest is in the upload folder."""
    found = (manifests.c.owner == owner) & (manifests.c.rerun == rerun)
    db.execute(sa.update(manifests).where(found).values(delivered=now()))


def manifest_delivered(db: Connection, owner: str, rerun: int) -> bool:
    """Says whether the manifest was recorded as delivered."""
    found = (manifests.c.owner == owner) & (manifests.c.rerun == rerun)
    return db.execute(sa.select(manifests.c.delivered).where(found)).scalar() is not None


def _finding(finding: Finding) -> dict[str, str]:
    """The columns of a finding; an id or a column's name that is too long for its place ends in an ellipsis."""
    shown = {"entity_id": _cut(finding.entity_id, _ID_LENGTH), "field": _cut(finding.field, _FIELD_LENGTH)}
    return vars(finding) | shown


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _frame(frame: Frame) -> dict[str, object]:
    return {"rows": frame.rows, "bytes": frame.bytes, "sha256": frame.sha256}


def _tally(tally: Tally) -> dict[str, object]:
    return dict(vars(tally))
