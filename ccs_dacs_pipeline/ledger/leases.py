"""Leases with fencing tokens: who may have effects on the outside now.

Run status, run keys, cursors and pools of Dagster are no mutual exclusion (design.md, decision 4). A lease is; its
token grows with every change of holder, so that a worker that slept through its term is refused when it wakes. Terms
are measured by a clock that all workers share, and by the holder also with the boot-time clock, which runs on in a
suspension and which nobody sets.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ccs_dacs_pipeline.ledger.schema import leases
from ccs_dacs_pipeline.ledger.store import Ledger, LedgerError, insert_missing, mark, marked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection

INCREMENTAL = "incremental"
"""The lane of deltas and resyncs: one of them runs at a time."""
SNAPSHOTS = "snapshots"
"""Held by a command that works on a snapshot, over all its shards."""
ACKNOWLEDGEMENTS = "acknowledgements"
"""The lane of everything that settles requests in CCS."""
TRANSFERS = "transfers"
"""The lane of what moves foreign files."""


_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CLOCK = "clock"
"""The mark under which a ledger on SQLite remembers when the machine began, by the wall clock of its first writer."""
_PROCESS = uuid.uuid4().hex[:12]
_IN = " in process "


class LeaseLostError(LedgerError):
    """This worker's lease has passed to another or has run out; its effects are refused."""


class LeaseHeldError(LedgerError):
    """Another worker holds the lease now."""


def _boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def shared_time(db: Connection) -> float:
    """Seconds since 1970 by the one clock that all workers share: the server's, on SQLite that of the machine."""
    if db.dialect.name == "sqlite":
        return _machine_time(db)
    return float(db.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def _machine_time(db: Connection) -> float:
    """The time as it was when a worker first wrote since the machine was started, and the seconds since then.

    Were it the wall clock, setting that forward would end the term of a worker that is at work, and setting it back
    would keep the lease of a dead one for as long.
    """
    if not _BOOT_ID.exists():
        return time.time()
    boot, seconds = _BOOT_ID.read_text().strip(), _boot_time()
    known = marked(db, _CLOCK)
    if known is None or known["boot"] != boot:
        known = {"boot": boot, "began": time.time() - seconds}
        if db.get_execution_options().get("ledger_write"):
            mark(db, _CLOCK, known)
    return float(known["began"]) + seconds


def _in_this_process(holder: str) -> str:
    """Returns how the ledger knows a holder: Dagster may start one run twice, and then two processes have its name."""
    return f"{holder}{_IN}{_PROCESS}-{os.getpid()}"  # the number for those that were forked after the import


def _name_of(holder: str) -> str:
    return holder.partition(_IN)[0]


class Lease:
    """A held lease.

    `check` before each effect, in the transaction that records it where there is one; `guard` where many effects follow
    one such transaction.
    """

    def __init__(
        self, ledger: Ledger, name: str, holder: str, token: int, *, term: float, since: float, had_before: bool
    ) -> None:
        self.name = name
        self.holder = holder
        self.token = token
        self.had_before = had_before
        self._ledger = ledger
        self._term = term
        self._deadline = since + term
        self._lost = False

    def guard(self) -> None:
        """Makes sure, without asking the ledger, that the term runs on and no renewal has found another holder.

        Raises:
            LeaseLostError: the term has run out by this machine's boot-time clock, or the lease has passed to another.
        """
        if self._lost or _boot_time() >= self._deadline:
            raise self._refusal()

    def check(self, db: Connection | None = None) -> None:
        """Makes sure that the lease is still held.

        Raises:
            LeaseLostError: the term has run out by this machine's boot-time clock, or the ledger names another holder.
        """
        held = sa.select(leases.c.holder, leases.c.token).where(leases.c.name == self.name)
        if db is None:
            with self._ledger.read() as view:
                row = view.execute(held).first()
        else:
            row = db.execute(self._locking(held) if db.dialect.name == "postgresql" else held).first()
        if row is None or (row.holder, row.token) != (self.holder, self.token):
            raise self._refusal()
        self.guard()

    def _locking(self, held: sa.Select[tuple[str, int]]) -> sa.Select[tuple[str, int, str]]:
        """Keeps the lease where it is until the transaction ends, and ends that of a worker that has gone to sleep.

        A successor waits for the transaction's end, so that one that was checked can only commit before it. SQLite has
        the same by its one lock for writing.
        """
        milliseconds = str(int(self._term * 1000))
        setting = sa.func.set_config("idle_in_transaction_session_timeout", milliseconds, True)
        return held.add_columns(setting).with_for_update(read=True)

    def _refusal(self) -> LeaseLostError:
        return LeaseLostError(
            f"The lease {self.name!r} (token {self.token}) is no longer held here: another worker goes on with the "
            "work, and this one's effects are refused. Nothing is to be done; look at the newest run."
        )

    def renew(self) -> None:
        """Begins the term anew.

        Raises:
            LeaseLostError: the ledger names another holder.
        """
        since = _boot_time()
        with self._ledger.write() as db:
            held = (leases.c.name == self.name) & (leases.c.holder == self.holder) & (leases.c.token == self.token)
            expires = shared_time(db) + self._term
            if db.execute(sa.update(leases).where(held).values(expires=expires)).rowcount != 1:
                raise LeaseLostError(f"The lease {self.name!r} has passed to another worker.")
        self._deadline = since + self._term

    def release(self) -> None:
        """Gives the lease up; without effect when it has passed to another."""
        with self._ledger.write() as db:
            held = (leases.c.name == self.name) & (leases.c.holder == self.holder) & (leases.c.token == self.token)
            db.execute(sa.update(leases).where(held).values(holder=None, expires=0.0))

    @contextmanager
    def kept(self) -> Iterator[Lease]:
        """Renews the lease from a thread, three times a term, while the block runs."""
        done = threading.Event()

        def renew_until_done() -> None:
            while not done.wait(self._term / 3):
                try:
                    self.renew()
                except LeaseLostError:
                    self._lost = True
                    return
                except LedgerError:
                    continue  # a database that comes back within the term has done no harm

        thread = threading.Thread(target=renew_until_done, name=f"lease {self.name}", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            done.set()
            thread.join()


def acquire(ledger: Ledger, name: str, holder: str, *, term: float, grace: float) -> Lease:
    """Takes a lease, or takes it again when `holder` has it already in this process (with the same token).

    Args:
        ledger: the ledger.
        name: what is leased.
        holder: names this worker, the same in all its steps: a run id, or a command's own id. The same name in another
            process is another worker: two daemons may start one run twice.
        term: seconds until it runs out unless renewed.
        grace: seconds after the term before another may take it: the longest time of a call that may be under way.

    Raises:
        LeaseHeldError: another worker has it; says for how long at most.
    """
    since, me = _boot_time(), _in_this_process(holder)
    with ledger.write() as db:
        insert_missing(db, leases, [{"name": name, "holder": None, "token": 0, "expires": 0.0}])
        pull_in(db, term)
        row = db.execute(sa.select(leases).where(leases.c.name == name).with_for_update()).one()
        present = shared_time(db)
        left = row.expires + grace - present
        held = row.holder not in (None, me) and left > 0
        token = row.token if row.holder == me else row.token + 1
        if not held:
            values = {"holder": me, "token": token, "expires": present + term}
            db.execute(sa.update(leases).where(leases.c.name == name).values(values))
    if held:
        raise LeaseHeldError(
            f"{name!r} is held by {_name_of(row.holder)}, for {left:.0f} s at most unless renewed. "
            "Wait until it is done, or, if that worker is dead, until the time has passed."
        )
    had_before = bool(row.holder == me)
    return Lease(ledger, name, me, token, term=term, since=since, had_before=had_before)


def pull_in(db: Connection, term: float) -> None:
    """Lets every lease run out within a term: one that would run for longer is from before the clock was set back.

    A holder that is alive puts its own right with its next renewal.
    """
    latest = shared_time(db) + term
    db.execute(sa.update(leases).where(leases.c.expires > latest).values(expires=latest))


def held_by_other(db: Connection, name: str, *, grace: float) -> bool:
    """Says whether somebody holds the lease now (for those who only look)."""
    row = db.execute(sa.select(leases.c.holder, leases.c.expires).where(leases.c.name == name)).first()
    return row is not None and row.holder is not None and row.expires + grace > shared_time(db)


def live_holders(db: Connection, *, grace: float) -> set[str]:
    """Returns the names of the holders of all leases that have not run out (for those who only look)."""
    live = leases.c.holder.is_not(None) & (leases.c.expires + grace > shared_time(db))
    return {_name_of(holder) for holder in db.execute(sa.select(leases.c.holder).where(live)).scalars() if holder}
