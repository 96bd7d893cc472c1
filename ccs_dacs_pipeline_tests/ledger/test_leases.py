"""Leases with fencing tokens (design.md, decision 4; sync-lifecycle.md, Life of a batch)."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from ccs_dacs_pipeline.ledger import Ledger, LedgerError
from ccs_dacs_pipeline.ledger import leases as leases_module
from ccs_dacs_pipeline.ledger.leases import (
    INCREMENTAL,
    SNAPSHOTS,
    Lease,
    LeaseHeldError,
    LeaseLostError,
    acquire,
    held_by_other,
    live_holders,
    pull_in,
)
from ccs_dacs_pipeline.ledger.schema import leases
from ccs_dacs_pipeline.ledger.store import mark, marked

from .batches import let_pass

TERM, GRACE = 60.0, 30.0


def take(ledger: Ledger, holder: str, *, term: float = TERM, name: str = INCREMENTAL) -> Lease:
    return acquire(ledger, name, holder, term=term, grace=GRACE)


def expires(ledger: Ledger) -> float:
    with ledger.read() as db:
        return db.execute(sa.select(leases.c.expires)).scalar_one()


def test_a_free_lease_is_taken(ledger: Ledger):
    lease = take(ledger, "run-1")
    lease.check()
    assert (lease.token, lease.had_before) == (1, False)


def test_the_same_holder_takes_it_again_with_the_same_token(ledger: Ledger):
    first = take(ledger, "run-1")
    again = take(ledger, "run-1")
    assert (again.token, again.had_before) == (first.token, True)
    first.check()
    again.check()


def test_the_same_name_in_another_process_is_another_holder(ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    take(ledger, "run-1")
    with ledger.read() as db:
        assert live_holders(db, grace=GRACE) == {"run-1"}
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(LeaseHeldError, match="is held by run-1, for"):
        take(ledger, "run-1")


def test_the_same_holder_takes_it_again_after_its_term(ledger: Ledger):
    first = take(ledger, "run-1")
    let_pass(ledger, 10 * TERM, INCREMENTAL)
    assert take(ledger, "run-1").token == first.token


def test_another_is_refused_and_told_who_has_it_and_for_how_long(ledger: Ledger):
    take(ledger, "run-1")
    with pytest.raises(LeaseHeldError, match=r"'incremental' is held by run-1, for (89|90) s at most"):
        take(ledger, "run-2")


def test_a_lease_from_before_the_clock_was_set_back_runs_out_within_a_term(ledger: Ledger):
    take(ledger, "run-1")
    let_pass(ledger, -7200, INCREMENTAL)
    with pytest.raises(LeaseHeldError, match=r"for (89|90) s at most"):
        take(ledger, "run-2")
    with ledger.write() as db:
        pull_in(db, TERM)
    let_pass(ledger, TERM + GRACE + 1, INCREMENTAL)
    take(ledger, "run-2").check()


def test_a_renewal_puts_a_lease_right_that_was_pulled_in(ledger: Ledger):
    lease = take(ledger, "run-1")
    with ledger.write() as db:
        pull_in(db, 0.0)
    lease.renew()
    let_pass(ledger, TERM + GRACE - 1, INCREMENTAL)
    with pytest.raises(LeaseHeldError):
        take(ledger, "run-2")


def test_on_sqlite_a_step_of_the_wall_clock_moves_no_term(ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    if not ledger.is_sqlite:
        pytest.skip("a server's clock is its own")
    take(ledger, "run-1")
    before = time.time()
    monkeypatch.setattr(time, "time", lambda: before + 7200)
    with pytest.raises(LeaseHeldError):
        take(ledger, "run-2")


def test_on_sqlite_the_leases_of_before_a_restart_of_the_machine_run_out(ledger: Ledger, monkeypatch, tmp_path):
    if not ledger.is_sqlite:
        pytest.skip("a server's clock is its own")
    take(ledger, "run-1")
    (tmp_path / "boot_id").write_text("another")
    monkeypatch.setattr(leases_module, "_BOOT_ID", tmp_path / "boot_id")
    monkeypatch.setattr(leases_module, "_boot_time", lambda: 5.0)
    before = time.time()
    monkeypatch.setattr(time, "time", lambda: before + TERM + GRACE + 1)
    take(ledger, "run-2").check()


def test_the_term_alone_does_not_let_another_take_it(ledger: Ledger):
    take(ledger, "run-1")
    let_pass(ledger, TERM + GRACE - 1, INCREMENTAL)  # a call of run-1 may still be under way
    with pytest.raises(LeaseHeldError):
        take(ledger, "run-2")


def test_after_term_and_grace_a_successor_takes_it_and_the_old_holder_is_refused(ledger: Ledger):
    old = take(ledger, "run-1")
    let_pass(ledger, TERM + GRACE + 1, INCREMENTAL)
    new = take(ledger, "run-2")
    assert new.token == old.token + 1
    new.check()
    with pytest.raises(LeaseLostError, match=r"'incremental' \(token 1\)"):
        old.check()
    with pytest.raises(LeaseLostError):
        old.renew()
    old.release()  # without effect
    new.check()


def test_an_old_holder_that_takes_it_back_gets_a_new_token_which_its_old_lease_lacks(ledger: Ledger):
    old = take(ledger, "run-1")
    let_pass(ledger, TERM + GRACE + 1, INCREMENTAL)
    take(ledger, "run-2").release()
    back = take(ledger, "run-1")
    assert back.token > old.token + 1
    with pytest.raises(LeaseLostError):
        old.check()


def test_a_refused_check_takes_the_effect_with_it(ledger: Ledger):
    old = take(ledger, "run-1")
    let_pass(ledger, TERM + GRACE + 1, INCREMENTAL)
    take(ledger, "run-2")

    def effect() -> None:
        with ledger.write() as db:
            mark(db, "effect", 1)
            old.check(db)

    with pytest.raises(LeaseLostError):
        effect()
    with ledger.read() as db:
        assert marked(db, "effect") is None


def test_a_holder_whose_term_ran_out_is_refused_though_the_ledger_still_names_it(ledger: Ledger):
    lease = take(ledger, "run-1", term=0.0)
    let_pass(ledger, -3600, INCREMENTAL)  # whatever the database's clock says
    with pytest.raises(LeaseLostError):
        lease.check()


def test_a_renewal_begins_the_term_anew(ledger: Ledger):
    lease = take(ledger, "run-1")
    let_pass(ledger, TERM + GRACE + 1, INCREMENTAL)
    lease.renew()
    lease.check()
    with pytest.raises(LeaseHeldError):
        take(ledger, "run-2")


def test_a_kept_lease_outlasts_its_term(ledger: Ledger):
    lease = take(ledger, "run-1", term=1.5)
    end = expires(ledger) + 1.5
    with lease.kept():
        deadline = time.monotonic() + 10
        while expires(ledger) < end:
            assert time.monotonic() < deadline
        lease.check()
    assert "lease incremental" not in {thread.name for thread in threading.enumerate()}


def test_a_kept_lease_that_passed_to_another_is_not_taken_back(ledger: Ledger):
    lease = take(ledger, "run-1", term=0.15)
    with lease.kept():
        let_pass(ledger, 3600, INCREMENTAL)
        successor = take(ledger, "run-2")
        keeper = next(thread for thread in threading.enumerate() if thread.name == "lease incremental")
        keeper.join(10)
        assert not keeper.is_alive()
    successor.check()
    with pytest.raises(LeaseLostError):
        lease.check()


def test_a_released_lease_is_free_at_once(ledger: Ledger):
    first = take(ledger, "run-1")
    first.release()
    with pytest.raises(LeaseLostError):
        first.check()
    assert take(ledger, "run-2").token == first.token + 1


def test_leases_of_different_names_are_apart(ledger: Ledger):
    take(ledger, "run-1", name=SNAPSHOTS).check()
    take(ledger, "run-2").check()


def test_those_who_look_see_a_lease_until_term_and_grace_are_over(ledger: Ledger):
    def held() -> bool:
        with ledger.read() as db:
            return held_by_other(db, INCREMENTAL, grace=GRACE)

    assert not held()
    lease = take(ledger, "run-1")
    assert held()
    let_pass(ledger, TERM + GRACE - 1, INCREMENTAL)
    assert held()
    let_pass(ledger, 2, INCREMENTAL)
    assert not held()
    lease.release()
    assert not held()


def test_of_many_that_reach_for_it_at_once_one_gets_it(ledger: Ledger):
    start = threading.Barrier(6)

    def reach(holder: str) -> bool:
        start.wait()
        try:
            take(ledger, holder)
        except LeaseHeldError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(reach, [f"run-{number}" for number in range(6)])) == 1
    with ledger.read() as db:
        assert db.execute(sa.select(leases.c.token)).scalar_one() == 1


def test_a_worker_that_fell_asleep_in_its_transaction_cannot_commit_after_its_successor_began(ledger: Ledger):
    if ledger.is_sqlite:
        pytest.skip("SQLite's one lock for writing keeps the successor out until the transaction ends")
    old = take(ledger, "run-1", term=0.5)

    def asleep() -> None:
        with ledger.write() as db:
            old.check(db)
            mark(db, "effect", 1)
            let_pass(ledger, TERM + GRACE + 1, INCREMENTAL)  # waits until the server has ended the sleeper
            take(ledger, "run-2")

    with pytest.raises(LedgerError):
        asleep()
    with ledger.read() as db:
        assert marked(db, "effect") is None


def test_a_successor_waits_for_a_transaction_that_was_checked(ledger: Ledger):
    old = take(ledger, "run-1")
    order = []
    with ThreadPoolExecutor(1) as pool:
        with ledger.write() as db:
            old.check(db)
            successor = pool.submit(lambda: (old.release(), order.append("released")))
            time.sleep(0.2)
            mark(db, "effect", 1)
            order.append("committing")
        successor.result(10)
    assert order == ["committing", "released"]


def test_a_guard_asks_no_ledger_and_refuses_after_the_term(ledger: Ledger):
    lease = take(ledger, "run-1")
    short = take(ledger, "run-1", term=0.0)
    ledger.close()
    lease.guard()
    with pytest.raises(LeaseLostError):
        short.guard()


def test_a_renewal_that_finds_another_holder_ends_the_guard_at_once(ledger: Ledger):
    lease = take(ledger, "run-1", term=60)
    lease._term = 0.15
    with lease.kept():
        let_pass(ledger, 3600, INCREMENTAL)
        take(ledger, "run-2")
        keeper = next(thread for thread in threading.enumerate() if thread.name == "lease incremental")
        keeper.join(10)
        with pytest.raises(LeaseLostError):
            lease.guard()
