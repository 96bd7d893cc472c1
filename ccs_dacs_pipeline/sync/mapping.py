"""Mapping the raw entities of a batch, with quarantine and breaker (sync-lifecycle.md, Bad records; Breaker)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from ccs_dacs_pipeline.ccs import Answer
from ccs_dacs_pipeline.entities import MappingContext, map_records
from ccs_dacs_pipeline.ledger import contents, requests
from ccs_dacs_pipeline.ledger.contents import Finding, Frame, Tally
from ccs_dacs_pipeline.ledger.life import BatchStateError, get, stop
from ccs_dacs_pipeline.ledger.requests import Outcome
from ccs_dacs_pipeline.partitions import Mode
from ccs_dacs_pipeline.sync.stored import recorded_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccs_dacs_pipeline.entities import Entity, Mapped
    from ccs_dacs_pipeline.ledger.leases import Lease
    from ccs_dacs_pipeline.ledger.life import Batch
    from ccs_dacs_pipeline.sync.site import Site

_BREAKER_LEAST = 20
"""Fewer bad records never stop a batch (sync-lifecycle.md, Breaker)."""


class BreakerError(Exception):
    """Too many records of an entity are bad: a changed interface. The batch is stopped, nothing is published."""


@dataclass
class _Findings:
    """What mapping found, over all chunks of a frame."""

    fetched: list[str] = field(default_factory=list)
    quarantined: list[Finding] = field(default_factory=list)
    not_eligible: dict[str, str] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    cleaned: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)


def map_entity(site: Site, batch: Batch, entity: Entity, lease: Lease) -> Frame:
    """Maps the raw frame of an entity, records rows, figures and quarantined records; returns the mapped frame.

    Raises:
        BreakerError: more bad records than `BREAKER_SHARE` allows; the batch is stopped.
        StoredDataError: a stored frame is missing, or the batch is sealed and its frame differs from the ledger.
    """
    if batch.rows_fixed:
        return recorded_frame(site, batch, entity.name)
    with site.ledger.read() as db:
        if contents.frame_of(db, batch.key, entity.source) is None:
            raise BatchStateError(f"Materialize ccs/{entity.source} of {batch.key} first: there is nothing to map.")
        chosen = requests.to_send(db, batch.key, entity.name)
    raw = recorded_frame(site, batch, entity.source)
    found = _Findings()
    stored = site.frames.write(str(batch.key), entity.name, _mapped_chunks(site, batch, entity, chosen, found))
    _break_when_too_many(site, batch, entity, found, eligible=raw.rows - sum(found.reasons.values()))
    frame = Frame(rows=stored.rows, bytes=stored.bytes, sha256=stored.sha256)
    with site.ledger.write() as db:
        lease.check(db)
        contents.record_mapped(db, get(db, batch.key), entity.name, frame, _tally(raw, frame, found), found.quarantined)
        if batch.key.mode is not Mode.INITIAL:
            _record_outcomes(site, db, batch, entity, chosen, found)
    return frame


def _mapped_chunks(
    site: Site, batch: Batch, entity: Entity, chosen: list[tuple[str, str | None, datetime]], found: _Findings
) -> Iterator[pl.DataFrame]:
    context = MappingContext(
        load_flag="F1IL" if batch.key.mode is Mode.INITIAL else "F1IC",
        moment=datetime.now(UTC),
        time_zone=site.settings.zone,
        eligibility=site.eligibility,
        references=None if batch.key.mode is Mode.INITIAL else _references(chosen),
    )
    for raw in site.frames.read(str(batch.key), entity.source):
        mapped = map_records(entity, raw, site.profile, context)
        _collect(site, batch, entity, raw, mapped, found)
        yield mapped.rows


def _references(chosen: list[tuple[str, str | None, datetime]]) -> pl.DataFrame:
    schema = {
        "entity_id": pl.String(),
        "external_reference_id": pl.String(),
        "change_date_time": pl.Datetime("us"),
    }
    return pl.DataFrame(chosen, schema=schema, orient="row")


def _collect(site: Site, batch: Batch, entity: Entity, raw: pl.DataFrame, mapped: Mapped, found: _Findings) -> None:
    found.quarantined.extend(Finding(*row) for row in mapped.quarantined.iter_rows())
    found.reasons.update(mapped.not_eligible["reason"].to_list())
    found.cleaned.update(mapped.cleaned)
    if batch.key.mode is not Mode.INITIAL:  # a delta answers each request; a shard may hold millions
        found.fetched.extend(raw[entity.id_member].str.strip_chars().to_list())
        found.not_eligible.update(dict(mapped.not_eligible.iter_rows()))
    for column in site.profile.entities[entity.name].columns:
        parent = entity.sources[column.source].references
        if parent:
            ids = mapped.rows[column.name].drop_nulls()
            with site.ledger.read() as db:
                unknown = contents.quarantined_among(db, parent, ids.unique().to_list())
            found.unknown[column.name] += int(ids.is_in(list(unknown)).sum())


def _break_when_too_many(site: Site, batch: Batch, entity: Entity, found: _Findings, *, eligible: int) -> None:
    bad = len(found.quarantined)
    if bad < _BREAKER_LEAST or bad <= site.settings.breaker_share * eligible:
        return
    rules = Counter(finding.rule for finding in found.quarantined)
    rule, count = rules.most_common(1)[0]
    example = next(finding for finding in found.quarantined if finding.rule == rule)
    reason = (
        f"{bad} of {eligible} {entity.source_label.lower()} records are bad, more than CCS_DACS_BREAKER_SHARE allows "
        f"({site.settings.breaker_share:.0%}); most often {rule} ({count}), field {example.field}, for example id "
        f"{example.entity_id}. Nothing of the batch is published: the interface has changed."
    )
    with site.ledger.write() as db:
        stop(db, batch.key, reason)
    raise BreakerError(
        f"{reason} Mend CCS or the layout profile, then `ccs-dacs batch resume {batch.key.owner}`; or give the batch "
        f"up with `ccs-dacs batch abort {batch.key.owner}`."
    )


def _tally(raw: Frame, frame: Frame, found: _Findings) -> Tally:
    return Tally(
        fetched=raw.rows,
        written=frame.rows,
        quarantined=dict(Counter(finding.rule for finding in found.quarantined)),
        not_eligible=dict(found.reasons),
        cleaned=dict(found.cleaned),
        unknown_references=dict(found.unknown),
    )


def _record_outcomes(
    site: Site,
    db: Any,  # noqa: ANN401
    batch: Batch,
    entity: Entity,
    chosen: list[tuple[str, str | None, datetime]],
    found: _Findings,
) -> None:
    bad = {finding.entity_id: finding for finding in found.quarantined}
    fetched = set(found.fetched)
    outcomes: dict[str, tuple[Outcome, dict[str, Any] | None]] = {}
    for entity_id, _, _ in chosen:
        if entity_id not in fetched:
            text = f"gone: the {entity.source_label.lower()} no longer exists"
            outcomes[entity_id] = (Outcome.GONE, own_error(site, text))
        elif entity_id in found.not_eligible:
            text = f"not-eligible: {found.not_eligible[entity_id]}"
            outcomes[entity_id] = (Outcome.NOT_ELIGIBLE, own_error(site, text))
        elif entity_id in bad:
            finding = bad[entity_id]
            text = f"{finding.rule}: {finding.field}: {finding.detail}"
            outcomes[entity_id] = (Outcome.QUARANTINED, own_error(site, text))
        else:
            outcomes[entity_id] = (Outcome.WRITTEN, None)
    requests.record_mapped(db, batch.key, entity.name, outcomes)


def own_error(site: Site, text: str) -> dict[str, Any]:
    """Returns an error answer of ours, `rule: text`, as it is kept in the ledger and sent to CCS."""
    return Answer.error(site.settings.message_category, site.settings.message_number, text).to_json()
