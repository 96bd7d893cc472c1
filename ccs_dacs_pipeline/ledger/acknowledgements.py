"""The durable inbox of acknowledgements (sync-lifecycle.md, Acknowledgements)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ccs_dacs_pipeline.ledger.schema import acknowledgements, requests
from ccs_dacs_pipeline.ledger.store import note, now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection

_CHUNK = 500


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
    """Stores acknowledgements; the first verdict about a request stands, each item counts in one figure."""
    accepted = duplicates = parked = 0
    for start in range(0, len(items), _CHUNK):
        chunk = items[start : start + _CHUNK]
        ids = sorted({item.request_id for item in chunk})
        # Two posts at once about one request follow one another on PostgreSQL too.
        _lock(db)
        known = set(db.execute(sa.select(requests.c.request_id).where(requests.c.request_id.in_(ids))).scalars())
        mine = acknowledgements.c.request_id.in_(ids)
        verdicts: dict[str, set[bool]] = {}
        for request_id, has_error in db.execute(
            sa.select(acknowledgements.c.request_id, acknowledgements.c.has_error).where(mine)
        ):
            verdicts.setdefault(request_id, set()).add(bool(has_error))
        fresh: list[dict[str, Any]] = []
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
            fresh.append({**vars(item), "state": state, "received": now()})
        if fresh:
            db.execute(sa.insert(acknowledgements), fresh)
        if again:
            _count_duplicates(db, again)
    return Stored(accepted, duplicates, parked)


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
