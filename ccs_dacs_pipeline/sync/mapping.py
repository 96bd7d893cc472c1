"""Mapping the raw entities of a batch, with quarantine and breaker (sync-lifecycle.md, Bad records; Breaker)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from ccs_dacs_pipeline.ccs import Answer
from ccs_dacs_pipeline.entities import Mapper, MappingContext
from ccs_dacs_pipeline.entities.model import REFERENCES_SCHEMA
from ccs_dacs_pipeline.ledger import contents, orphans, requests
from ccs_dacs_pipeline.ledger.contents import Finding, Frame, Tally
from ccs_dacs_pipeline.ledger.life import BatchStateError, get, refuse_aside, stop
from ccs_dacs_pipeline.ledger.requests import Outcome
from ccs_dacs_pipeline.parallel import WORKERS, ahead
from ccs_dacs_pipeline.partitions import Mode
from ccs_dacs_pipeline.sync.stored import recorded_frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import Connection

    from ccs_dacs_pipeline.entities import Entity, Mapped
    from ccs_dacs_pipeline.frames import Chunk, FrameWriter
    from ccs_dacs_pipeline.ledger.leases import Lease
    from ccs_dacs_pipeline.ledger.life import Batch
    from ccs_dacs_pipeline.ledger.orphans import Orphan
    from ccs_dacs_pipeline.sync.site import Site

_BREAKER_LEAST = 20
"""Fewer bad records never stop a batch (sync-lifecycle.md, Breaker)."""


class BreakerError(Exception):
    """Too many records of an entity are bad: a changed interface. The batch is stopped, nothing is published."""


def map_entity(site: Site, batch: Batch, entity: Entity, lease: Lease) -> Frame:
    """Maps the raw frame of an entity, records rows, figures and quarantined records; returns the mapped frame.

    Raises:
        BreakerError: more bad records than `BREAKER_SHARE` allows; the batch is stopped.
        StoredDataError: a stored frame is missing, or the batch is sealed and its frame differs from the ledger.
    """
    refuse_aside(batch)
    if batch.rows_fixed:
        return recorded_frame(site, batch, entity.name)
    with site.ledger.read() as db:
        if contents.frame_of(db, batch.key, entity.source) is None:
            raise BatchStateError(f"Materialize ccs/{entity.source} of {batch.key} first: there is nothing to map.")
        chosen = requests.to_send(db, batch.key, entity.name)
        parents = withheld_parents(db, site, batch, entity)
    raw = recorded_frame(site, batch, entity.source)
    mapping = _Mapping(site, batch, entity, lease, chosen, parents, fetched=raw.rows)
    with site.frames.writing(str(batch.key), entity.name) as frames:
        mapping.run(frames)
    stored = frames.stored
    mapping.judge(eligible=raw.rows - mapping.reasons.total())
    frame = Frame(rows=stored.rows, bytes=stored.bytes, sha256=stored.sha256)
    with site.ledger.write() as db:
        lease.check(db)
        current = get(db, batch.key)
        contents.record_mapped(db, current, entity.name, frame, mapping.tally(frame), mapping.quarantined)
        orphans.record(db, batch.key, entity.name, mapping.orphans)
        if not mapping.initial:
            requests.record_mapped(db, batch.key, entity.name, mapping.outcomes())
    return frame


@dataclass(frozen=True)
class Parents:
    """A column that refers to another entity, and the ids of that entity that are withheld from DACS."""

    column: str
    entity: str
    withheld: Sequence[str]


def withheld_parents(db: Connection, site: Site, batch: Batch, entity: Entity) -> list[Parents]:
    """Returns what of an entity's parents is withheld, for each column that refers to some."""
    columns = site.profile.entities[entity.name].columns
    referring = [(column.name, entity.sources[column.source].references) for column in columns]
    return [Parents(column, parent, orphans.withheld(db, batch.key, parent)) for column, parent in referring if parent]


def orphans_among(rows: pl.DataFrame, id_column: str, parents: Sequence[Parents]) -> Iterator[Orphan]:
    """Yields the mapped rows that refer to withheld parents, one for each reference."""
    for one in parents:
        found = rows.filter(pl.col(one.column).is_in(one.withheld)) if one.withheld else rows.clear()
        for child, parent in found.select(id_column, one.column).iter_rows():
            yield child, one.entity, parent


@dataclass
class _Mapping:
    """One entity's mapping in one batch: its rows chunk by chunk, and what was found over all chunks."""

    site: Site
    batch: Batch
    entity: Entity
    lease: Lease
    chosen: Sequence[tuple[str, str | None, datetime]]
    parents: Sequence[Parents]
    fetched: int
    quarantined: list[Finding] = field(default_factory=list)
    orphans: list[Orphan] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    _cleaned: Counter[str] = field(default_factory=Counter)
    # Of a delta only, which answers each request; a shard may hold millions of entities.
    _present: set[str] = field(default_factory=set)
    _not_eligible: dict[str, str] = field(default_factory=dict)

    @property
    def initial(self) -> bool:
        """Whether this is a shard of a snapshot."""
        return self.batch.key.mode is Mode.INITIAL

    def run(self, frames: FrameWriter) -> None:
        """Stores the good rows of each chunk, some chunks at once, and keeps what was found.

        Raises:
            BreakerError: so many records are bad already that the rest cannot make up for them.
        """
        context = MappingContext(
            load_flag="F1IL" if self.initial else "F1IC",
            moment=datetime.now(UTC),
            time_zone=self.site.settings.zone,
            eligibility=self.site.eligibility,
            references=None if self.initial else pl.DataFrame(self.chosen, schema=REFERENCES_SCHEMA, orient="row"),
        )
        mapper = Mapper(self.entity, self.site.profile, context)

        def map_chunk(item: tuple[int, Chunk]) -> tuple[pl.Series, Mapped]:
            number, chunk = item
            raw = chunk.read()
            mapped = mapper.map(raw)
            frames.put(number, mapped.rows)
            return raw[self.entity.id_member], mapped

        chunks = enumerate(self.site.frames.chunks(str(self.batch.key), self.entity.source))
        for ids, mapped in ahead(map_chunk, chunks, window=WORKERS):
            self._collect(ids, mapped)
            self.judge(eligible=self.fetched)

    def _collect(self, ids: pl.Series, mapped: Mapped) -> None:
        self.quarantined.extend(Finding(*row) for row in mapped.quarantined.iter_rows())
        self.reasons.update(mapped.not_eligible["reason"].to_list())
        self._cleaned.update(mapped.cleaned)
        id_column = self.site.profile.entities[self.entity.name].id_column
        self.orphans.extend(orphans_among(mapped.rows, id_column, self.parents))
        if not self.initial:
            self._present.update(ids.str.strip_chars().to_list())
            self._not_eligible.update(dict(mapped.not_eligible.iter_rows()))

    def judge(self, *, eligible: int) -> None:
        """Stops the batch when too many of its eligible records are bad.

        Raises:
            BreakerError: names how many, which rule, and an example.
        """
        bad, share = len(self.quarantined), self.site.settings.breaker_share
        if bad < _BREAKER_LEAST or bad <= share * eligible:
            return
        rule, count = Counter(finding.rule for finding in self.quarantined).most_common(1)[0]
        example = next(finding for finding in self.quarantined if finding.rule == rule)
        reason = (
            f"{bad} of {eligible} {self.entity.source_label.lower()} records are bad, more than CCS_DACS_BREAKER_SHARE "
            f"allows ({100 * share:g}%); most often {rule} ({count}), field {example.field}, for example id "
            f"{example.entity_id}. Nothing of the batch is published: the interface has changed."
        )
        with self.site.ledger.write() as db:
            self.lease.check(db)
            stop(db, self.batch.key, reason)
        owner = self.batch.key.owner
        raise BreakerError(
            f"{reason} Mend CCS or the layout profile, then `ccs-dacs batch resume {owner}`; or give the batch up with "
            f"`ccs-dacs batch abort {owner}`."
        )

    def tally(self, frame: Frame) -> Tally:
        """Returns the figures for the ledger."""
        return Tally(
            fetched=self.fetched,
            written=frame.rows,
            quarantined=dict(Counter(finding.rule for finding in self.quarantined)),
            not_eligible=dict(self.reasons),
            cleaned=dict(self._cleaned),
            unknown_references={
                one.column: sum(parent == one.entity for _, parent, _ in self.orphans) for one in self.parents
            },
        )

    def outcomes(self) -> dict[str, tuple[Outcome, dict[str, Any] | None]]:
        """Returns what became of each entity that was to be sent and, unless written, the answer for CCS."""
        bad = {finding.entity_id: finding for finding in self.quarantined}
        return {entity_id: self._outcome(entity_id, bad.get(entity_id)) for entity_id, _, _ in self.chosen}

    def _outcome(self, entity_id: str, finding: Finding | None) -> tuple[Outcome, dict[str, Any] | None]:
        if entity_id not in self._present:
            text = f"gone: the {self.entity.source_label.lower()} no longer exists"
            return Outcome.GONE, own_error(self.site, text)
        if entity_id in self._not_eligible:
            return Outcome.NOT_ELIGIBLE, own_error(self.site, f"not-eligible: {self._not_eligible[entity_id]}")
        if finding is not None:
            text = f"{finding.rule}: {finding.field}: {finding.detail}"
            return Outcome.QUARANTINED, own_error(self.site, text)
        return Outcome.WRITTEN, None


def own_error(site: Site, text: str) -> dict[str, Any]:
    """Returns an error answer of ours, `rule: text`, as it is kept in the ledger and sent to CCS."""
    return Answer.error(site.settings.message_category, site.settings.message_number, text).to_json()
