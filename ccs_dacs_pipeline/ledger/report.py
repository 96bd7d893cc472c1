"""Figures for people and programs: status, and the control equations (sync-lifecycle.md, What is promised)."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ccs_dacs_pipeline.ledger.life import UNFINISHED, Aside, Batch, Stage, gate_holder, listed
from ccs_dacs_pipeline.ledger.requests import ANSWERABLE, Outcome, Settlement
from ccs_dacs_pipeline.ledger.schema import (
    acknowledgements,
    batch_entities,
    batches,
    files,
    quarantine,
    refused,
    requests,
    tallies,
)
from ccs_dacs_pipeline.ledger.store import now
from ccs_dacs_pipeline.partitions import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta

    from sqlalchemy.engine import Connection

_SHOWN_SETTLED = 50
_AT_ONCE = 500
_AWAITING = "awaiting"
# How a written row can end; anything else breaks the last control equation.
_ENDS_OF_WRITTEN = (
    Settlement.POSITIVE,
    Settlement.NEGATIVE,
    _AWAITING,
    Settlement.CLOSED,
    Settlement.ON_DELIVERY,
)
_LEFT_OUT = (Outcome.QUARANTINED, Outcome.NOT_ELIGIBLE, Outcome.GONE)
_ENDED = sa.or_(
    sa.and_(batches.c.stage == Stage.SETTLED, batches.c.aside.is_(None)),
    batches.c.aside.is_not_distinct_from(Aside.ABORTED),
)
_SEALED = (Stage.SEALED, Stage.PUBLISHING, Stage.DELIVERED, Stage.SETTLED)


@dataclass(frozen=True)
class Equation:
    """One control equation: its name and both sides."""

    name: str
    left: int
    right: int

    @property
    def holds(self) -> bool:
        """Whether both sides are equal."""
        return self.left == self.right


def equations(db: Connection, batch: Batch) -> list[Equation]:
    """Returns the control equations of a batch that was sealed once; an aborted one keeps those of its requests."""
    ((_, found),) = _equations_of_each(db, [batch])
    return found


def _equations_of_each(db: Connection, found: Sequence[Batch]) -> Iterator[tuple[Batch, list[Equation]]]:
    """Yields batches with their control equations; asks for the figures of many batches at once."""
    for some in _in_chunks(found):
        sums = _sums(db, some)
        for batch in some:
            yield batch, _equations(batch, sums[str(batch.key)])


def _in_chunks(found: Sequence[Batch]) -> Iterator[Sequence[Batch]]:
    return (found[start : start + _AT_ONCE] for start in range(0, len(found), _AT_ONCE))


def _equations(batch: Batch, sums: Mapping[str, int]) -> list[Equation]:
    aborted = batch.aside is Aside.ABORTED
    found: list[Equation] = []
    if not (batch.rows_fixed or aborted):
        return found
    if batch.key.mode is Mode.DELTA:
        found.append(Equation("claimed", sums["claimed"], sums["decided"]))
    if aborted:
        return found
    found.append(Equation("fetched", sums["fetched"], sums["written"] + sums["quarantined"] + sums["not_eligible"]))
    if batch.reached(Stage.SEALED):
        found.append(Equation("rows in files", sums["in files"], sums["written"]))
    if batch.key.mode is Mode.DELTA:
        found.append(Equation("written", sums["written"], sums["ended"]))
    return found


def _sums(db: Connection, some: Sequence[Batch]) -> dict[str, Counter[str]]:
    """Returns what the equations of some batches are made of, by batch."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    keys = [str(batch.key) for batch in some]
    _add_requests(db, keys, sums)
    _add_tallies(db, keys, sums)
    reruns = {str(batch.key): batch.rerun for batch in some}
    in_files = sa.select(files.c.batch, files.c.rerun, sa.func.sum(files.c.rows)).where(files.c.batch.in_(keys))
    for key, rerun, number in db.execute(in_files.group_by(files.c.batch, files.c.rerun)):
        if rerun == reruns[key]:
            sums[key]["in files"] += int(number)
    return sums


def _add_requests(db: Connection, keys: Sequence[str], sums: Mapping[str, Counter[str]]) -> None:
    tried = requests.c.attempts > 0
    by = (requests.c.batch, tried, requests.c.outcome, requests.c.settlement)
    counted = sa.select(*by, sa.func.count()).where(requests.c.batch.in_(keys))
    for key, is_tried, outcome, settlement, number in db.execute(counted.group_by(*by)):
        sums[key]["claimed"] += number if is_tried else 0
        sums[key]["decided"] += number if outcome in set(Outcome) else 0
        if outcome == Outcome.WRITTEN and (settlement or _AWAITING) in _ENDS_OF_WRITTEN:
            sums[key]["ended"] += number


def _add_tallies(db: Connection, keys: Sequence[str], sums: Mapping[str, Counter[str]]) -> None:
    for row in db.execute(sa.select(tallies).where(tallies.c.batch.in_(keys))):
        mine = sums[row.batch]
        mine["fetched"] += row.fetched
        mine["written"] += row.written or 0
        mine["quarantined"] += sum((row.quarantined or {}).values())
        mine["not_eligible"] += sum((row.not_eligible or {}).values())


def outcomes(db: Connection, batch: Batch) -> dict[str, int]:
    """Returns how many requests of a batch had each outcome."""
    counted = sa.select(requests.c.outcome, sa.func.count()).where(requests.c.batch == str(batch.key))
    rows = db.execute(counted.group_by(requests.c.outcome))
    return {str(outcome or "undecided"): number for outcome, number in rows}


def left_out(db: Connection, batch: Batch) -> list[tuple[str, str, str]]:
    """Returns the entities that a delta or resync was to send and does not: why, entity and id."""
    columns = (batch_entities.c.outcome, batch_entities.c.entity, batch_entities.c.entity_id)
    mine = (batch_entities.c.batch == str(batch.key)) & batch_entities.c.outcome.in_(_LEFT_OUT)
    return [(why, entity, one) for why, entity, one in db.execute(sa.select(*columns).where(mine).order_by(*columns))]


def settlements(db: Connection, batch: Batch) -> dict[str, int]:
    """Returns how the written requests of a batch ended; those without an end are `awaiting`."""
    counted = sa.select(requests.c.settlement, sa.func.count()).where(
        requests.c.batch == str(batch.key), requests.c.outcome == Outcome.WRITTEN
    )
    return {str(end or _AWAITING): number for end, number in db.execute(counted.group_by(requests.c.settlement))}


def reconcile(db: Connection, entities: Iterable[str]) -> dict[str, Any]:
    """Returns the reconciliation report as interface.md has it."""
    judged = listed(db)
    by_batch = list(_equations_of_each(db, judged))
    lines = [_entity_line(db, entity) for entity in entities]
    return {
        "holds": all(one.holds for _, found in by_batch for one in found) and not any(e["difference"] for e in lines),
        "entities": lines,
        "batches": [
            {"key": str(batch.key), "equations": [{**vars(one), "holds": one.holds} for one in found]}
            for batch, found in by_batch
            if found
        ],
    }


def _entity_line(db: Connection, entity: str) -> dict[str, Any]:
    """Sums one entity over the batches that were sealed and not aborted."""
    good = sa.select(batches.c.key).where(
        batches.c.stage.in_(_SEALED) | (batches.c.rerun > 0), batches.c.aside.is_distinct_from(Aside.ABORTED)
    )
    eligible = written = 0
    rules: Counter[str] = Counter()
    for row in db.execute(sa.select(tallies).where(tallies.c.entity == entity, tallies.c.batch.in_(good))):
        eligible += row.fetched - sum((row.not_eligible or {}).values())
        written += row.written or 0
        rules.update(row.quarantined or {})
    # While a batch is replayed, what was delivered before stands.
    replayed = (batches.c.rerun > 0) & batches.c.stage.not_in([Stage.DELIVERED, Stage.SETTLED])
    last = sa.case((replayed, batches.c.rerun - 1), else_=batches.c.rerun)
    delivered = sa.select(sa.func.coalesce(sa.func.sum(files.c.rows), 0)).select_from(
        files.join(batches, (batches.c.key == files.c.batch) & (last == files.c.rerun))
    )
    delivered = delivered.where(files.c.entity == entity, files.c.delivered.is_not(None), files.c.batch.in_(good))
    ends: dict[str | None, int] = dict(
        db.execute(
            sa.select(requests.c.settlement, sa.func.count())
            .where(requests.c.entity == entity, requests.c.outcome == Outcome.WRITTEN, requests.c.batch.in_(good))
            .group_by(requests.c.settlement)
        ).all()
    )
    return {
        "entity": entity,
        "eligible": eligible,
        "written": written,
        "quarantined": dict(rules),
        "delivered": int(db.execute(delivered).scalar_one()),
        "acknowledgedYes": ends.get(Settlement.POSITIVE, 0),
        "acknowledgedNo": ends.get(Settlement.NEGATIVE, 0),
        "awaiting": ends.get(None, 0),
        "difference": eligible - written - rules.total(),
    }


def batch_lines(db: Connection, found: Sequence[Batch]) -> list[dict[str, Any]]:
    """Returns batches as the reports show them, with the rows and names of their files."""
    names: dict[str, list[str]] = defaultdict(list)
    rows: Counter[str] = Counter()
    for some in _in_chunks(found):
        reruns = {str(batch.key): batch.rerun for batch in some}
        for file in db.execute(sa.select(files).where(files.c.batch.in_(reruns)).order_by(files.c.name)):
            if file.rerun == reruns[file.batch]:
                names[file.batch].append(file.name)
                rows[file.batch] += file.rows
    return [
        {
            "key": str(batch.key),
            "mode": batch.key.mode.value,
            "state": batch.state,
            "rerun": batch.rerun,
            "created": batch.created.isoformat(),
            "rows": rows[str(batch.key)],
            "files": names[str(batch.key)],
            "reason": batch.reason,
        }
        for batch in found
    ]


def status(db: Connection, ack_timeout: timedelta) -> dict[str, Any]:
    """Returns the status report as interface.md has it: unsettled batches, and the last ones that are settled."""
    holder = gate_holder(db)
    shown = [*listed(db, ~_ENDED), *listed(db, _ENDED, last=_SHOWN_SETTLED)]
    return {
        "gate": {"open": holder is None, "heldBy": None if holder is None else f"initial-{holder}"},
        "batches": batch_lines(db, sorted(shown, key=lambda batch: (batch.created, batch.key))),
        "requests": _request_states(db),
        "acknowledgements": acknowledgement_figures(db),
        "overdue": overdue(db, ack_timeout),
        "suspect": _suspect(db),
        "refused": _refused(db),
        "quarantined": quarantined(db),
    }


def _request_states(db: Connection) -> dict[str, int]:
    state = sa.case(
        (requests.c.settlement.is_not(None), requests.c.settlement),
        (requests.c.answer_source.is_not(None), "answer due"),
        (requests.c.outcome.is_not(None), "awaiting"),
        (requests.c.attempts > 0, "claimed"),
        else_="chosen",
    )
    return dict(db.execute(sa.select(state, sa.func.count()).group_by(state)).all())


def acknowledgement_figures(db: Connection) -> dict[str, int]:
    """Returns how many acknowledgements are stored, and what became of them."""
    table = acknowledgements
    by_state: dict[str, int] = dict(db.execute(sa.select(table.c.state, sa.func.count()).group_by(table.c.state)).all())
    return {
        "stored": sum(by_state.values()),
        "delivered": by_state.get("delivered", 0),
        "parked": by_state.get("parked", 0),
        "contradicting": by_state.get("contradicting", 0),
        "duplicates": int(db.execute(sa.select(sa.func.coalesce(sa.func.sum(table.c.duplicates), 0))).scalar_one()),
    }


def overdue(db: Connection, ack_timeout: timedelta) -> list[dict[str, str]]:
    """Returns the requests that wait for an answer longer than ACK_TIMEOUT, coalesced ones too, the longest first."""
    late = sa.and_(
        requests.c.outcome.in_([Outcome.WRITTEN, Outcome.COALESCED]),
        requests.c.settlement.is_(None),
        requests.c.answer_source.is_(None),
        batches.c.delivered < now() - ack_timeout,
    )
    pair = requests.join(batches, batches.c.key == requests.c.batch)
    columns = (requests.c.request_id, batches.c.delivered)
    rows = db.execute(
        sa.select(*columns).select_from(pair).where(late).order_by(batches.c.delivered, requests.c.request_id)
    )
    return [{"syncRequestId": request_id, "since": since.isoformat()} for request_id, since in rows]


def _suspect(db: Connection) -> list[dict[str, str]]:
    rows = db.execute(sa.select(requests.c.request_id, requests.c.batch).where(requests.c.suspect))
    return [{"syncRequestId": request_id, "batch": batch} for request_id, batch in rows]


def _refused(db: Connection) -> list[dict[str, str]]:
    rows = db.execute(sa.select(refused).order_by(refused.c.at, refused.c.request_id))
    return [
        {
            "syncRequestId": row.request_id,
            "entity": row.entity,
            "id": row.entity_id,
            "message": row.message,
            "since": row.at.isoformat(),
        }
        for row in rows
    ]


def quarantined(db: Connection) -> list[dict[str, str]]:
    """Returns the records that are quarantined now, a line for each finding."""
    columns = [quarantine.c[name] for name in ("entity", "entity_id", "rule", "field", "batch")]
    rows = db.execute(
        sa.select(*columns).where(quarantine.c.open).order_by(quarantine.c.entity, quarantine.c.entity_id)
    )
    return [
        {"entity": entity, "id": entity_id, "rule": rule, "field": field, "batch": batch}
        for entity, entity_id, rule, field, batch in rows
    ]


def unfinished(db: Connection) -> list[Batch]:
    """Returns the batches that are neither delivered nor aborted, oldest first."""
    return listed(db, UNFINISHED)


def answers_due(db: Connection) -> int:
    """Returns how many answers and stored acknowledgements wait to be taken to CCS."""
    due = sa.select(sa.func.count()).where(requests.c.answer_source.is_not(None), requests.c.settlement.is_(None))
    delivered = requests.join(batches, batches.c.key == requests.c.batch).join(
        acknowledgements, acknowledgements.c.request_id == requests.c.request_id
    )
    waiting = (
        sa.select(sa.func.count())
        .select_from(delivered)
        .where(
            acknowledgements.c.state.in_(["waiting", "parked"]),
            ANSWERABLE,
        )
    )
    return db.execute(due).scalar_one() + db.execute(waiting).scalar_one()


def entity_figures(db: Connection, batch: Batch) -> list[dict[str, Any]]:
    """Returns the figures of each entity of a batch."""
    rows = db.execute(sa.select(tallies).where(tallies.c.batch == str(batch.key)).order_by(tallies.c.entity))
    names = ("entity", "fetched", "written", "quarantined", "not_eligible", "cleaned", "unknown_references")
    return [{name: row._mapping[name] for name in names} for row in rows]  # noqa: SLF001 - SQLAlchemy's public name
