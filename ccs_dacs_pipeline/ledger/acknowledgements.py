"""The durable inbox of acknowledgements (sync-lifecycle.md, Acknowledgements)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ccs_dacs_pipeline.ledger.schema import acknowledgements, batches, requests
from ccs_dacs_pipeline.ledger.store import note, now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection

_CHUNK = 500
_USED = ("delivered", "kept", "contradicting")
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Acknowledgement:
    """One answer of DACS; `payload` is the body for CCS, as it came."""

    request_id: str
    has_error: bool
    payload: dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """How many acknowledgements of one call were accepted, known already, or parked."""

    accepted: int
    duplicates: int
    parked: int


def store(db: Connection, items: Sequence[Acknowledgement]) -> Stored:
    """Stores acknowledgements; the first verdict about a request stands, each item counts in one figure.

    Of a request that CCS has begun anew, what answered its earlier life does not stand against the present one.
    """
    accepted = duplicates = parked = 0
    for start in range(0, len(items), _CHUNK):
        chunk = items[start : start + _CHUNK]
        ids = sorted({item.request_id for item in chunk})
        # Two posts at once about one request follow one another on PostgreSQL too.
        _lock(db)
        known = set(db.execute(sa.select(requests.c.request_id).where(requests.c.request_id.in_(ids))).scalars())
        verdicts: dict[str, set[bool]] = {}
        spent: set[tuple[str, bool]] = set()
        for request_id, has_error, is_spent in _earlier(db, ids):
            if is_spent:
                spent.add((request_id, has_error))
            else:
                verdicts.setdefault(request_id, set()).add(has_error)
        fresh: list[dict[str, Any]] = []
        renewed: list[dict[str, Any]] = []
        again: list[dict[str, Any]] = []
        for item in chunk:
            earlier = verdicts.setdefault(item.request_id, set())
            if item.has_error in earlier:
                duplicates += 1
                again.append({"request": item.request_id, "error": item.has_error})
                continue
            state = "contradicting" if earlier else "waiting" if item.request_id in known else "parked"
            if state == "parked":
                parked += 1
            else:
                accepted += 1
            if state == "contradicting":
                note(db, "contradicting acknowledgement", None, request=item.request_id, has_error=item.has_error)
            earlier.add(item.has_error)
            row = {**vars(item), "state": state, "received": now()}
            (renewed if (item.request_id, item.has_error) in spent else fresh).append(row)
        if fresh:
            db.execute(sa.insert(acknowledgements), fresh)
        if renewed:
            _renew(db, renewed)
        if again:
            _count_duplicates(db, again)
    return Stored(accepted, duplicates, parked)


def _earlier(db: Connection, ids: Sequence[str]) -> list[tuple[str, bool, bool]]:
    """Returns request id and verdict of what is stored, and whether it answered a life of the request that is past."""
    life = requests.join(batches, batches.c.key == requests.c.batch)
    begun = sa.select(requests.c.request_id, batches.c.created).select_from(life)
    begun = begun.where(requests.c.request_id.in_(ids), requests.c.settlement.is_(None))
    present: dict[str, datetime] = dict(db.execute(begun).all())
    columns = [acknowledgements.c[name] for name in ("request_id", "has_error", "state", "received")]
    stored = db.execute(sa.select(*columns).where(acknowledgements.c.request_id.in_(ids)))
    return [
        (one.request_id, bool(one.has_error), one.state in _USED and one.received < present.get(one.request_id, _NEVER))
        for one in stored
    ]


def _renew(db: Connection, rows: list[dict[str, Any]]) -> None:
    """Lets an answer that came to an earlier life of its request come again, to the present one."""
    statement = (
        sa.update(acknowledgements)
        .where(
            acknowledgements.c.request_id == sa.bindparam("request"),
            acknowledgements.c.has_error == sa.bindparam("error"),
        )
        .values(state=sa.bindparam("now"), received=sa.bindparam("at"), payload=sa.bindparam("body"))
    )
    names = {"request_id": "request", "has_error": "error", "state": "now", "received": "at", "payload": "body"}
    db.execute(statement, [{names[name]: value for name, value in row.items()} for row in rows])


def _lock(db: Connection) -> None:
    if db.dialect.name != "sqlite":  # SQLite's write transactions follow one another anyway
        db.execute(sa.text("SELECT pg_advisory_xact_lock(4712)"))


def _count_duplicates(db: Connection, again: list[dict[str, Any]]) -> None:
    statement = (
        sa.update(acknowledgements)
        .where(
            acknowledgements.c.request_id == sa.bindparam("request"),
            acknowledgements.c.has_error == sa.bindparam("error"),
        )
        .values(duplicates=acknowledgements.c.duplicates + 1)
    )
    db.execute(statement, again)


def match_parked(db: Connection) -> int:
    """Lets parked acknowledgements wait for their request where it is known by now; returns how many."""
    known = sa.exists().where(requests.c.request_id == acknowledgements.c.request_id)
    parked = acknowledgements.c.state == "parked"
    return db.execute(sa.update(acknowledgements).where(parked, known).values(state="waiting")).rowcount
