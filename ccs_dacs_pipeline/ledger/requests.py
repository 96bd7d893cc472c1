"""Sync requests and entities of a batch: chosen, claimed, sent, answered, settled (sync-lifecycle.md).

A request's `outcome` says what became of it in its batch (the left side of the first control equation), its
`settlement` how it ended in CCS; both are written once. Answers for CCS are recorded here before they are sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ccs_dacs_pipeline.ledger.life import Aside, Stage, advance
from ccs_dacs_pipeline.ledger.schema import (
    ACTIVE,
    Moment,
    acknowledgements,
    batch_entities,
    batches,
    refused,
    requests,
    sent,
)
from ccs_dacs_pipeline.ledger.store import note, now, upsert

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.engine import Connection

    from ccs_dacs_pipeline.partitions import SyncBatch


class Outcome(StrEnum):
    """What became of a request in its batch."""

    WRITTEN = "written"
    COALESCED = "coalesced"
    DISCARDED = "discarded"
    QUARANTINED = "quarantined"
    NOT_ELIGIBLE = "not_eligible"
    GONE = "gone"
    CLOSED = "closed"
    ABORTED = "aborted"


class Settlement(StrEnum):
    """How a request ended in CCS."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    OWN_ERROR = "own_error"
    ON_DELIVERY = "on_delivery"
    DISCARDED = "discarded"
    CLOSED = "closed"


class Source(StrEnum):
    """Where an answer for CCS comes from."""

    DACS = "dacs"
    OWN = "own"
    DELIVERY = "delivery"


# The states of CCS that a reading after the claim can give.
AWAITING, SYNCHRONIZED, DISCARDED = "AWAITINGACK", "SYNCHRONIZED", "DISCARDED"
_SENT = (AWAITING, SYNCHRONIZED)
_TAKEN_AT_ONCE = 5000
_IDS_AT_ONCE = 1000
_reopened = requests.alias("reopened")
ANSWERABLE = sa.and_(
    sa.or_(
        batches.c.stage.in_([Stage.DELIVERED, Stage.SETTLED]),
        batches.c.rerun > 0,
        batches.c.aside == Aside.ABORTED,
        requests.c.settlement.is_not(None),
    ),
    sa.or_(
        requests.c.settlement.is_(None),
        ~sa.exists().where(_reopened.c.request_id == requests.c.request_id, _reopened.c.settlement.is_(None)),
    ),
)
"""Where an acknowledgement need not wait for the delivery of its request; of a reopened one the open life counts."""


@dataclass(frozen=True)
class Chosen:
    """A request chosen for a batch."""

    request_id: str
    entity: str
    entity_id: str
    created: datetime
    state_time: datetime | None = None

    @property
    def subject(self) -> tuple[str, str]:
        """The entity that the request is about."""
        return self.entity, self.entity_id


@dataclass(frozen=True)
class Claim:
    """A request on its way to being claimed."""

    request_id: str
    entity: str
    entity_id: str
    attempts: int
    found: str | None


@dataclass(frozen=True)
class Refused:
    """A request that CCS will not claim: since when CCS has had it in its state, and the message of the refusal."""

    request_id: str
    state_time: datetime | None
    message: str


@dataclass(frozen=True)
class Due:
    """An answer that CCS is to be told."""

    request_id: str
    batch: str
    has_error: bool
    answer: dict[str, Any]
    source: Source
    attempts: int


def busy_entities(db: Connection) -> set[tuple[str, str]]:
    """Returns the entities of batches that are neither delivered nor aborted."""
    active = sa.select(batch_entities.c.entity, batch_entities.c.entity_id).where(ACTIVE)
    return {(entity, entity_id) for entity, entity_id in db.execute(active)}


_delivered = sa.exists().where(
    batches.c.key == requests.c.batch,
    sa.or_(batches.c.stage == Stage.DELIVERED, batches.c.rerun > 0),
    batches.c.aside.is_distinct_from(Aside.ABORTED),
)
_unanswered = sa.and_(requests.c.settlement.is_(None), requests.c.answer_source.is_(None), _delivered)
"""A delivered request that waits for its acknowledgement."""


def open_requests(db: Connection, ids: Sequence[str]) -> set[str]:
    """Returns those of some requests that a batch holds and that are not final, but for those that wait for an answer.

    Whoever finds one of the latter pending in CCS sees a request that CCS has begun anew: it is a new change.
    """
    found = set[str]()
    for start in range(0, len(ids), _IDS_AT_ONCE):
        mine = requests.c.request_id.in_(ids[start : start + _IDS_AT_ONCE])
        held = sa.select(requests.c.request_id).where(mine, requests.c.settlement.is_(None), ~_unanswered)
        found.update(db.execute(held).scalars())
    return found


def held(db: Connection) -> set[str]:
    """Returns the ids of all requests that a batch holds and that are not final."""
    return set(db.execute(sa.select(requests.c.request_id).where(requests.c.settlement.is_(None))).scalars())


def raise_moments(db: Connection, entity: str, moments: Mapping[str, datetime]) -> int:
    """Records Change Date Times that DACS has been sent, unless later ones are known; returns how many were new."""
    ids = sorted(moments)
    known = dict(
        db.execute(
            sa.select(sent.c.entity_id, sent.c.moment).where(sent.c.entity == entity, sent.c.entity_id.in_(ids))
        ).all()
    )
    later = [one for one in ids if one not in known or moments[one] > known[one]]
    upsert(db, sent, [{"entity": entity, "entity_id": one, "moment": moments[one]} for one in later])
    return len(later)


def unanswered(db: Connection, limit: int, after: str = "") -> list[tuple[str, str]]:
    """Returns id and batch of delivered requests that wait for an answer, ascending by id, above `after`."""
    columns = (requests.c.request_id, requests.c.batch)
    found = sa.select(*columns).where(_unanswered, requests.c.request_id > after)
    return [(one, key) for one, key in db.execute(found.order_by(requests.c.request_id).limit(limit))]


def close_unanswered(db: Connection, ids: Sequence[str]) -> None:
    """Records that CCS itself has ended requests, or begun them anew, before DACS answered."""
    statement = (
        sa.update(requests)
        .where(_unanswered, requests.c.request_id == sa.bindparam("id"))
        .values(settlement=Settlement.CLOSED, settled=now())
    )
    if ids:
        db.execute(statement, [{"id": request_id} for request_id in ids])


def add(db: Connection, key: SyncBatch, chosen: Sequence[Chosen]) -> None:
    """Adds chosen requests and their entities to a new batch."""
    if not chosen:
        return
    add_entities(db, key, sorted({request.subject for request in chosen}))
    rows = [
        {
            "request_id": request.request_id,
            "batch": str(key),
            "entity": request.entity,
            "entity_id": request.entity_id,
            "created": request.created,
        }
        for request in chosen
    ]
    db.execute(sa.insert(requests), rows)


def adopt(db: Connection, key: SyncBatch, claimed: Sequence[Chosen]) -> None:
    """Adds requests that CCS has claimed already to a new batch that sends their entities.

    An attempt is recorded of each, so that the claim reads its state and never takes a step too many.
    """
    rows = [
        {
            "request_id": one.request_id,
            "batch": str(key),
            "entity": one.entity,
            "entity_id": one.entity_id,
            "created": one.created,
            "attempts": 1,
        }
        for one in claimed
    ]
    if rows:
        db.execute(sa.insert(requests), rows)


def adopt_followers(db: Connection, key: SyncBatch) -> None:
    """Takes along what was coalesced with requests that CCS began anew and that a new batch has.

    The next answer about such a request is that of its new life, so those that wait for it belong there too.
    """
    begun_anew = sa.select(requests.c.request_id).where(requests.c.batch == str(key))
    leader = requests.alias("leader")
    followed = sa.exists().where(
        leader.c.batch == requests.c.batch,
        leader.c.entity == requests.c.entity,
        leader.c.entity_id == requests.c.entity_id,
        leader.c.settlement == Settlement.CLOSED,
        leader.c.answer_source.is_(None),
        _leads(leader),
        leader.c.request_id.in_(begun_anew),
    )
    followers = (requests.c.outcome == Outcome.COALESCED) & _unanswered & followed
    found = db.execute(sa.select(requests).where(followers)).all()
    close_unanswered(db, [row.request_id for row in found])
    adopt(db, key, [Chosen(row.request_id, row.entity, row.entity_id, row.created) for row in found])


def _leads(request: sa.FromClause) -> sa.ColumnElement[bool]:
    """Says that a request lends its id to the row of its entity, or did until that turned out not to be sent."""
    return request.c.outcome.not_in([Outcome.COALESCED, Outcome.DISCARDED, Outcome.CLOSED])


def add_entities(db: Connection, key: SyncBatch, subjects: Iterable[tuple[str, str]]) -> None:
    """Adds entities to a new batch; the database refuses one that is in another unfinished batch."""
    rows = [{"batch": str(key), "entity": entity, "entity_id": entity_id} for entity, entity_id in subjects]
    if rows:
        db.execute(sa.insert(batch_entities), rows)


def claims(db: Connection, key: SyncBatch) -> list[Claim]:
    """Returns the requests of a batch, entity by entity, the newest first (in one second the larger id)."""
    order = (requests.c.entity, requests.c.entity_id, requests.c.created.desc(), requests.c.request_id.desc())
    rows = db.execute(sa.select(requests).where(requests.c.batch == str(key)).order_by(*order))
    return [Claim(row.request_id, row.entity, row.entity_id, row.attempts, row.found) for row in rows]


def record_attempts(db: Connection, key: SyncBatch, ids: Sequence[str]) -> None:
    """Records, before the calls, that a transition of each request is about to be tried."""
    statement = (
        sa.update(requests)
        .where(requests.c.batch == str(key), requests.c.request_id == sa.bindparam("id"))
        .values(attempts=requests.c.attempts + 1)
    )
    if ids:
        db.execute(statement, [{"id": request_id} for request_id in ids])


def record_found(db: Connection, key: SyncBatch, states: Mapping[str, str]) -> None:
    """Records the states read back after the claim; one that took several attempts and is past waiting is suspect."""
    statement = (
        sa.update(requests)
        .where(requests.c.batch == str(key), requests.c.request_id == sa.bindparam("id"))
        .values(
            found=sa.bindparam("state"),
            suspect=sa.and_(requests.c.attempts > 1, sa.bindparam("state", type_=sa.String) == SYNCHRONIZED),
        )
    )
    if states:
        db.execute(statement, [{"id": request_id, "state": state} for request_id, state in states.items()])


def let_go(db: Connection, key: SyncBatch, found: Sequence[Refused]) -> None:
    """Lets requests go that CCS will not claim, and the entities that no other request of the batch is about."""
    by_id = {one.request_id: one for one in found}
    mine = (requests.c.batch == str(key)) & requests.c.request_id.in_(by_id)
    rows = db.execute(sa.select(requests.c.request_id, requests.c.entity, requests.c.entity_id).where(mine)).all()
    upsert(
        db,
        refused,
        [{"batch": str(key), "at": now(), **row._mapping, **vars(by_id[row.request_id])} for row in rows],  # noqa: SLF001
    )
    _take_out(db, key, mine)
    for row in rows:
        note(db, "request refused", str(key), request=row.request_id, message=by_id[row.request_id].message)


def let_untouched_go(db: Connection, key: SyncBatch, moved: Mapping[str, int]) -> None:
    """Lets the requests go that were never tried to be claimed, since others have moved some of them in CCS.

    Args:
        db: the transaction.
        key: the batch.
        moved: how many of them are in which other state than pending.
    """
    _take_out(db, key, (requests.c.batch == str(key)) & (requests.c.attempts == 0))
    note(db, "requests moved by others", str(key), **moved)


def _take_out(db: Connection, key: SyncBatch, which: sa.ColumnElement[bool]) -> None:
    """Takes requests out of a batch, and the entities that no other request of it is about."""
    db.execute(sa.delete(requests).where(which))
    left = sa.exists().where(
        requests.c.batch == batch_entities.c.batch,
        requests.c.entity == batch_entities.c.entity,
        requests.c.entity_id == batch_entities.c.entity_id,
    )
    db.execute(sa.delete(batch_entities).where(batch_entities.c.batch == str(key), ~left))


def refusals(db: Connection) -> dict[str, datetime | None]:
    """Returns the requests that were let go, with the time of the state that they were in."""
    return dict(db.execute(sa.select(refused.c.request_id, refused.c.state_time)).all())


def forget_refusals(db: Connection, ids: Iterable[str] | None = None) -> None:
    """Forgets that requests were refused, all by default: they are taken again where they are pending."""
    which = sa.true() if ids is None else refused.c.request_id.in_(list(ids))
    db.execute(sa.delete(refused).where(which))


def finish_claim(db: Connection, key: SyncBatch, moment: datetime) -> None:
    """Decides from the states read back what each request is for, fixes Change Date Times, and marks the batch claimed.

    The newest request that awaits an acknowledgement lends the row its id; the others follow its answer. Without one,
    the newest that CCS has synchronized already does: it is sent all the same (sync-lifecycle.md, delta steps 1 and 2).

    Args:
        db: the transaction.
        key: the batch.
        moment: the present wall clock in the base time zone, whole seconds.
    """
    outcomes: list[dict[str, Any]] = []
    references: dict[tuple[str, str], str | None] = {}
    by_subject: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims(db, key):
        by_subject.setdefault((claim.entity, claim.entity_id), []).append(claim)
    for subject, found in by_subject.items():
        leader = next((c for state in _SENT for c in found if c.found == state), None)
        references[subject] = leader.request_id if leader else None
        for claim in found:
            outcome, settlement = _after_claim(claim, leader)
            outcomes.append({"id": claim.request_id, "outcome": outcome, "settlement": settlement})
    _record_outcomes(db, key, outcomes)
    _fix_moments(db, key, moment, references)
    db.execute(sa.update(batches).where(batches.c.key == str(key)).values(moment=moment))
    advance(db, key, Stage.CLAIMED)


def _after_claim(claim: Claim, leader: Claim | None) -> tuple[Outcome | None, Settlement | None]:
    if claim.found == DISCARDED:
        return Outcome.DISCARDED, Settlement.DISCARDED
    if claim.found not in _SENT:
        return Outcome.CLOSED, Settlement.CLOSED
    if leader is not None and claim.request_id == leader.request_id:
        return None, None  # decided when the entity is mapped
    return Outcome.COALESCED, None


def _record_outcomes(db: Connection, key: SyncBatch, rows: list[dict[str, Any]]) -> None:
    if rows:
        statement = (
            sa.update(requests)
            .where(requests.c.batch == str(key), requests.c.request_id == sa.bindparam("id"))
            .values(
                outcome=sa.bindparam("outcome"),
                settlement=sa.bindparam("settlement"),
                settled=sa.case(
                    (sa.bindparam("settlement", type_=sa.String).is_not(None), sa.literal(now(), Moment)), else_=None
                ),
            )
        )
        db.execute(statement, rows)


def _fix_moments(
    db: Connection, key: SyncBatch, moment: datetime, references: Mapping[tuple[str, str], str | None]
) -> None:
    """Gives each entity its Change Date Time: the larger of the moment and one second after the last one of it."""
    same = (sent.c.entity == batch_entities.c.entity) & (sent.c.entity_id == batch_entities.c.entity_id)
    last = sa.select(batch_entities.c.entity, batch_entities.c.entity_id, sent.c.moment)
    last = last.select_from(batch_entities.outerjoin(sent, same)).where(batch_entities.c.batch == str(key))
    rows = []
    for entity, entity_id, previous in db.execute(last):
        subject = (entity, entity_id)
        left = subject in references and references[subject] is None
        rows.append(
            {
                "batch": str(key),
                "entity": entity,
                "entity_id": entity_id,
                "reference": references.get(subject),
                "moment": moment if previous is None else max(moment, previous + timedelta(seconds=1)),
                "outcome": "left" if left else None,
            }
        )
    upsert(db, batch_entities, rows)
    upsert(
        db,
        sent,
        [{name: row[name] for name in ("entity", "entity_id", "moment")} for row in rows if not row["outcome"]],
    )


def to_send(db: Connection, key: SyncBatch, entity: str) -> list[tuple[str, str | None, datetime]]:
    """Returns id, External Reference Id and Change Date Time of the entities to fetch and send, ascending by id."""
    columns = (batch_entities.c.entity_id, batch_entities.c.reference, batch_entities.c.moment)
    mine = (batch_entities.c.batch == str(key)) & (batch_entities.c.entity == entity)
    rows = db.execute(
        sa.select(*columns)
        .where(mine, batch_entities.c.outcome.is_distinct_from("left"))
        .order_by(batch_entities.c.entity_id)
    )
    return [(entity_id, reference, moment) for entity_id, reference, moment in rows]


def record_mapped(
    db: Connection, key: SyncBatch, entity: str, outcomes: Mapping[str, tuple[Outcome, dict[str, Any] | None]]
) -> None:
    """Records what mapping made of each entity that was to be sent, and the error answers of those that are not.

    Args:
        db: the transaction.
        key: the batch.
        entity: the DACS entity.
        outcomes: entity id -> outcome and, unless written, the answer for CCS.
    """
    if not outcomes:
        return
    mine = (batch_entities.c.batch == str(key)) & (batch_entities.c.entity == entity)
    db.execute(
        sa.update(batch_entities)
        .where(mine, batch_entities.c.entity_id == sa.bindparam("id"))
        .values(outcome=sa.bindparam("outcome")),
        [{"id": entity_id, "outcome": outcome} for entity_id, (outcome, _) in outcomes.items()],
    )
    leader = (
        sa.select(batch_entities.c.reference)
        .where(mine, batch_entities.c.entity_id == sa.bindparam("id"))
        .scalar_subquery()
    )
    db.execute(
        sa.update(requests)
        .where(requests.c.batch == str(key), requests.c.request_id == leader)
        .values(outcome=sa.bindparam("outcome"), answer=sa.bindparam("answer", type_=sa.JSON(none_as_null=True))),
        [{"id": entity_id, "outcome": outcome, "answer": answer} for entity_id, (outcome, answer) in outcomes.items()],
    )


def release_own_answers(db: Connection, key: SyncBatch) -> None:
    """Makes the error answers found by mapping due, with the requests that follow them: when the batch is sealed."""
    mine = requests.c.batch == str(key)
    answered = requests.c.outcome.in_([Outcome.QUARANTINED, Outcome.NOT_ELIGIBLE, Outcome.GONE])
    db.execute(
        sa.update(requests)
        .where(mine, answered, requests.c.settlement.is_(None), requests.c.answer_source.is_(None))
        .values(answer_error=True, answer_source=Source.OWN)
    )
    _follow_leaders(db, mine)
    _settle_synchronized(db, mine & requests.c.answer_source.is_not(None), Settlement.CLOSED)


def settle_delivered(db: Connection, key: SyncBatch, *, acknowledged: bool, answer: dict[str, Any]) -> None:
    """Does what delivery settles: all written requests without acknowledgements, else those that expect none.

    Args:
        db: the transaction that records the delivery.
        key: the batch.
        acknowledged: whether DACS answers at all (ACKNOWLEDGEMENTS).
        answer: the positive answer for CCS.
    """
    mine = requests.c.batch == str(key)
    written = mine & (requests.c.outcome == Outcome.WRITTEN)
    _settle_synchronized(db, mine, Settlement.ON_DELIVERY)
    if not acknowledged:
        db.execute(
            sa.update(requests)
            .where(written, requests.c.settlement.is_(None), requests.c.answer_source.is_(None))
            .values(answer=answer, answer_error=False, answer_source=Source.DELIVERY)
        )
    _follow_leaders(db, mine)


def _settle_synchronized(db: Connection, which: sa.ColumnElement[bool], settlement: Settlement) -> None:
    """Settles requests that CCS had closed as synchronized at the claim: no call can change them."""
    done = (requests.c.found == SYNCHRONIZED) & requests.c.settlement.is_(None)
    db.execute(sa.update(requests).where(which, done).values(settlement=settlement, settled=now()))


def take_acknowledgements(db: Connection) -> set[str] | None:
    """Turns waiting acknowledgements of delivered requests into answers for CCS, some thousands at a time.

    Returns the batches touched, None when there was nothing to take.

    One that nobody waits for, since its request is final or was settled on delivery, is kept and counted, not sent.
    What was delivered while acknowledgements were expected waits for its own, whatever the setting is by now. Where
    CCS has closed the written request by itself, those that were coalesced with it are still answered.
    """
    pair = acknowledgements.join(requests, requests.c.request_id == acknowledgements.c.request_id).join(
        batches, batches.c.key == requests.c.batch
    )
    columns = (acknowledgements.c.id, acknowledgements.c.has_error, acknowledgements.c.payload, requests)
    waiting = (acknowledgements.c.state == "waiting") & ANSWERABLE
    rows = db.execute(
        sa.select(*columns).select_from(pair).where(waiting).order_by(acknowledgements.c.id).limit(_TAKEN_AT_ONCE)
    ).all()
    if not rows:
        return None
    answering = [row for row in rows if _has_no_answer(row)]
    if answering:
        db.execute(
            sa.update(requests)
            .where(requests.c.request_id == sa.bindparam("id"), requests.c.batch == sa.bindparam("key"))
            .values(
                answer=sa.bindparam("payload", type_=sa.JSON),
                answer_error=sa.bindparam("error"),
                answer_source=Source.DACS,
            ),
            [{"id": r.request_id, "key": r.batch, "payload": r.payload, "error": r.has_error} for r in answering],
        )
    taken_ids = {row.id for row in answering if row.settlement is None}
    db.execute(
        sa.update(acknowledgements)
        .where(acknowledgements.c.id == sa.bindparam("row"))
        .values(state=sa.bindparam("now")),
        [{"row": row.id, "now": "taken" if row.id in taken_ids else "kept"} for row in rows],
    )
    touched = {row.batch for row in answering}
    for batch in touched:
        _follow_leaders(db, requests.c.batch == batch)
    return touched


def _has_no_answer(row: sa.Row[Any]) -> bool:
    open_or_closed = row.settlement in (None, Settlement.CLOSED)
    return row.outcome == Outcome.WRITTEN and row.answer_source is None and open_or_closed


def _follow_leaders(db: Connection, which: sa.ColumnElement[bool]) -> None:
    """Gives coalesced requests the answer of the request that was written for their entity."""
    leader = requests.alias("leader")
    mine = sa.and_(
        leader.c.batch == requests.c.batch,
        leader.c.entity == requests.c.entity,
        leader.c.entity_id == requests.c.entity_id,
        leader.c.request_id != requests.c.request_id,
        _leads(leader),
    )
    followers = which & (requests.c.outcome == Outcome.COALESCED) & requests.c.settlement.is_(None)
    answered = sa.exists().where(mine, leader.c.answer_source.is_not(None))
    db.execute(
        sa.update(requests)
        .where(followers, requests.c.answer_source.is_(None), answered)
        .values(
            answer=sa.select(leader.c.answer).where(mine).scalar_subquery(),
            answer_error=sa.select(leader.c.answer_error).where(mine).scalar_subquery(),
            answer_source=sa.select(leader.c.answer_source).where(mine).scalar_subquery(),
        )
    )


def abort(db: Connection, key: SyncBatch, answer: dict[str, Any]) -> None:
    """Makes an error answer due for every claimed request of an aborted batch, save those that have one already."""
    claimed = (requests.c.batch == str(key)) & requests.c.settlement.is_(None) & requests.c.answer_source.is_(None)
    db.execute(sa.update(requests).where(claimed).values(outcome=Outcome.ABORTED))
    _settle_synchronized(db, claimed, Settlement.CLOSED)
    db.execute(sa.update(requests).where(claimed).values(answer=answer, answer_error=True, answer_source=Source.OWN))
    note(db, "requests aborted", str(key))


def due(db: Connection, limit: int, after: str = "") -> list[Due]:
    """Returns answers that CCS is to be told, ascending by request id, above `after`."""
    open_answer = requests.c.answer_source.is_not(None) & requests.c.settlement.is_(None)
    rows = db.execute(
        sa.select(requests)
        .where(open_answer, requests.c.request_id > after)
        .order_by(requests.c.request_id)
        .limit(limit)
    )
    return [
        Due(r.request_id, r.batch, bool(r.answer_error), r.answer, Source(r.answer_source), r.answer_attempts)
        for r in rows
    ]


def record_answer_attempts(db: Connection, answers: Sequence[Due]) -> None:
    """Records, before the calls, that an answer is about to be told to CCS."""
    statement = (
        sa.update(requests)
        .where(requests.c.request_id == sa.bindparam("id"), requests.c.batch == sa.bindparam("key"))
        .values(answer_attempts=requests.c.answer_attempts + 1)
    )
    if answers:
        db.execute(statement, [{"id": one.request_id, "key": one.batch} for one in answers])


def settle(db: Connection, settled: Sequence[tuple[Due, Settlement]]) -> None:
    """Records how requests ended, and settles the batches whose requests are all final."""
    if not settled:
        return
    db.execute(
        sa.update(requests)
        .where(requests.c.request_id == sa.bindparam("id"), requests.c.batch == sa.bindparam("key"))
        .values(settlement=sa.bindparam("settlement"), settled=now()),
        [{"id": one.request_id, "key": one.batch, "settlement": how} for one, how in settled],
    )
    told = [one.request_id for one, _ in settled if one.source is Source.DACS]
    # One statement for all: for one request the database may choose the index of the state, which thousands share.
    taken = acknowledgements.c.request_id.in_(told) & (acknowledgements.c.state == "taken")
    db.execute(sa.update(acknowledgements).where(taken).values(state="delivered"))


def settle_batches(db: Connection) -> list[str]:
    """Marks delivered batches settled whose requests are all final; returns their keys."""
    unsettled = sa.exists().where(requests.c.batch == batches.c.key, requests.c.settlement.is_(None))
    keys = list(
        db.execute(
            sa.select(batches.c.key).where(
                batches.c.stage == Stage.DELIVERED, batches.c.aside.is_distinct_from(Aside.ABORTED), ~unsettled
            )
        ).scalars()
    )
    if keys:
        db.execute(sa.update(batches).where(batches.c.key.in_(keys)).values(stage=Stage.SETTLED, updated=now()))
        for key in keys:
            note(db, Stage.SETTLED, key)
    return keys
