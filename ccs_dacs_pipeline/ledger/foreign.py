"""Foreign files: what is seen of them in the extract folder, and which were moved (sync-lifecycle.md, Files)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ccs_dacs_pipeline.ledger.leases import shared_time
from ccs_dacs_pipeline.ledger.schema import file_numbers, files, foreign_files, foreign_seen, sent_prefixes
from ccs_dacs_pipeline.ledger.store import insert_missing, now, upsert

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.engine import Connection

_NAMES_AT_ONCE = 1000


@dataclass(frozen=True)
class Look:
    """A file as one look finds it: its size, and when its bytes were last changed."""

    bytes: int
    modified: datetime


@dataclass(frozen=True)
class Seen:
    """A file that is in the extract folder.

    Attributes:
        name: its name.
        look: as the last look found it.
        rest: seconds since it was first found so.
        failures: how often moving it has failed since then.
        failed_ago: seconds since the last of them, None without any.
    """

    name: str
    look: Look
    rest: float
    failures: int
    failed_ago: float | None


def observe(db: Connection, looks: Mapping[str, Look]) -> None:
    """Records what a look at the extract folder found; what has changed since the last one stands still from now on."""
    present = shared_time(db)
    known = {row.name: row for row in db.execute(sa.select(foreign_seen))}
    same = {name for name, row in known.items() if Look(row.bytes, row.modified) == looks.get(name)}
    _record_gone(db, [(name, row.modified) for name, row in known.items() if name not in same])
    gone = [{"gone": name} for name in known.keys() - looks.keys()]
    if gone:
        db.execute(sa.delete(foreign_seen).where(foreign_seen.c.name == sa.bindparam("gone")), gone)
    # What stands still since a moment to come was seen before the clock was set back.
    still = {name for name in same if known[name].since <= present}
    fresh = {"since": present, "failures": 0, "failed": None, "reason": None}
    rows = [{"name": name, **vars(look), **fresh} for name, look in looks.items() if name not in still]
    upsert(db, foreign_seen, rows)


def seen(db: Connection) -> list[Seen]:
    """Returns the files that the last look found, the oldest first."""
    present = shared_time(db)
    rows = db.execute(sa.select(foreign_seen).order_by(foreign_seen.c.modified, foreign_seen.c.name))
    return [
        Seen(
            row.name,
            Look(row.bytes, row.modified),
            present - row.since,
            row.failures,
            None if row.failed is None else present - row.failed,
        )
        for row in rows
    ]


def own_names(db: Connection, names: Iterable[str]) -> set[str]:
    """Returns those of some names that recorded extract files have."""
    return _among(db, files.c.name, names)


def given_numbers(db: Connection, numbers: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """Returns those of some batch codes and numbers that were given to batches of ours."""
    asked = sorted(set(numbers))
    found = set[tuple[str, int]]()
    for start in range(0, len(asked), _NAMES_AT_ONCE):
        codes, wanted = (set(one) for one in zip(*asked[start : start + _NAMES_AT_ONCE], strict=True))
        given = file_numbers.c.batch_code.in_(codes) & file_numbers.c.number.in_(wanted)
        rows = db.execute(sa.select(file_numbers.c.batch_code, file_numbers.c.number).where(given))
        found.update((row.batch_code, row.number) for row in rows)
    return found


def delivered_names(db: Connection, names: Iterable[str]) -> set[str]:
    """Returns those of some names under which foreign files were moved."""
    return _among(db, foreign_files.c.name, names)


def used_prefixes(db: Connection) -> list[str]:
    """Returns every prefix under which sources were kept."""
    return list(db.execute(sa.select(sent_prefixes.c.prefix)).scalars())


def record_prefix(db: Connection, prefix: str) -> None:
    """Records a prefix before a source is kept under it; an empty one keeps none."""
    if prefix:
        insert_missing(db, sent_prefixes, [{"prefix": prefix}])


def begin(db: Connection, name: str, look: Look, sha256: str) -> bool:
    """Records that a file is about to be moved; says whether it was delivered before and only its source is left.

    One whose source was away since has come again, and is moved again.
    """
    insert_missing(db, foreign_files, [{"name": name, "sha256": sha256, **vars(look)}])
    came_again = _is(name, look, sha256) & foreign_files.c.gone.is_not(None)
    db.execute(sa.update(foreign_files).where(came_again).values(delivered=None, seconds=None, gone=None))
    return db.execute(sa.select(foreign_files.c.delivered).where(_is(name, look, sha256))).scalar() is not None


def record_delivered(db: Connection, name: str, look: Look, sha256: str, seconds: float) -> None:
    """Records that a file is in the upload folder."""
    values = {"delivered": now(), "seconds": seconds}
    db.execute(sa.update(foreign_files).where(_is(name, look, sha256)).values(values))


def record_failure(db: Connection, name: str, reason: str) -> None:
    """Records that a file could not be moved, and why."""
    values = {"failures": foreign_seen.c.failures + 1, "failed": shared_time(db), "reason": reason}
    db.execute(sa.update(foreign_seen).where(foreign_seen.c.name == name).values(values))


def pass_report(db: Connection, since: datetime) -> dict[str, Any]:
    """Returns what a pass that began at a moment has sent, in its order, and what is still in the folder.

    `failed` are those whose last attempt did not succeed, `waiting` the others: what is still being written.
    """
    sent = sa.select(foreign_files).where(foreign_files.c.delivered >= since).order_by(foreign_files.c.delivered)
    left = db.execute(sa.select(foreign_seen).order_by(foreign_seen.c.modified, foreign_seen.c.name)).all()
    return {
        "sent": [
            {"name": row.name, "bytes": row.bytes, "sha256": row.sha256, "seconds": row.seconds}
            for row in db.execute(sent)
        ],
        "failed": [{"name": row.name, "reason": row.reason} for row in left if row.failures],
        "waiting": [row.name for row in left if not row.failures],
    }


def _among(db: Connection, column: sa.ColumnElement[str], names: Iterable[str]) -> set[str]:
    asked = sorted(names)
    found = set[str]()
    for start in range(0, len(asked), _NAMES_AT_ONCE):
        chunk = asked[start : start + _NAMES_AT_ONCE]
        found.update(db.execute(sa.select(column).where(column.in_(chunk))).scalars())
    return found


def _record_gone(db: Connection, sources: Sequence[tuple[str, datetime]]) -> None:
    """Records that the sources of moved files, by name and time, are no longer there as they were."""
    one = foreign_files.c
    away = (one.name == sa.bindparam("source")) & (one.modified == sa.bindparam("at")) & one.delivered.is_not(None)
    if sources:
        statement = sa.update(foreign_files).where(away).values(gone=now())
        db.execute(statement, [{"source": name, "at": modified} for name, modified in sources])


def _is(name: str, look: Look, sha256: str) -> sa.ColumnElement[bool]:
    one = foreign_files.c
    return sa.and_(one.name == name, one.modified == look.modified, one.sha256 == sha256)
