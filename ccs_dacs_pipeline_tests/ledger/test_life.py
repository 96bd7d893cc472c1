"""The life of a batch, and the gate between snapshot and deltas (sync-lifecycle.md)."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ccs_dacs_pipeline.ledger import Ledger, contents, life, report, requests
from ccs_dacs_pipeline.ledger.life import Aside, BatchStateError, GateClosedError, Stage
from ccs_dacs_pipeline.ledger.schema import batch_entities, batches, extracts, files, journal, manifests, snapshots
from ccs_dacs_pipeline.ledger.store import now
from ccs_dacs_pipeline.partitions import Mode, SyncBatch

from .batches import (
    CODES,
    ENTITIES,
    ERROR,
    INITIAL_CODES,
    NOON,
    SHA256,
    acknowledge,
    batch,
    change,
    claim,
    deliver,
    delta,
    finish,
    gate,
    give_up,
    map_all,
    publish,
    request,
    seal,
    send,
    send_snapshot,
    start_delta,
    start_snapshot,
    take,
)


def open_snapshot_row(number: int) -> sa.Insert:
    row = {"number": number, "state": "open", "shards": 1, "low_id": "0", "high_id": "9", "created": now()}
    return sa.insert(snapshots).values(row)


def numbers(ledger: Ledger, owner: str, codes: tuple[str, ...]) -> list[int]:
    with ledger.read() as db:
        return [life.number_of(db, owner, code) for code in codes]


def told(ledger: Ledger) -> list[tuple[str, str | None, dict[str, object]]]:
    """The journal: what happened, to which batch, and the details."""
    columns = (journal.c.event, journal.c.batch, journal.c.detail)
    with ledger.read() as db:
        return [(event, key, detail) for event, key, detail in db.execute(sa.select(*columns).order_by(journal.c.id))]


# Constraints of the database


def test_the_database_refuses_a_second_open_snapshot(ledger: Ledger):
    with ledger.write() as db:
        db.execute(open_snapshot_row(1))
    with pytest.raises(sa.exc.IntegrityError), ledger.write() as db:
        db.execute(open_snapshot_row(2))


def test_ended_snapshots_do_not_count(ledger: Ledger):
    with ledger.write() as db:
        for number, state in ((1, "delivered"), (2, "aborted"), (3, "delivered"), (4, "open")):
            db.execute(open_snapshot_row(number).values(state=state))


def test_the_database_refuses_an_entity_in_two_active_batches(ledger: Ledger):
    start_delta(ledger, 1, change("r1", "a"))
    with pytest.raises(sa.exc.IntegrityError):
        start_delta(ledger, 2, change("r2", "a", after=1))
    resync = SyncBatch(Mode.RESYNC, 1)
    with ledger.write() as db:
        life.create_chosen(db, resync, codes=CODES, first={})
    with pytest.raises(sa.exc.IntegrityError), ledger.write() as db:
        requests.add_entities(db, resync, [("contact", "a")])
    with ledger.read() as db:
        assert {str(one.key) for one in life.listed(db)} == {"delta-1", "resync-1"}


def test_the_same_id_of_another_entity_is_another_thing(ledger: Ledger):
    start_delta(ledger, 1, change("r1", "a"))
    start_delta(ledger, 2, change("r2", "a", entity="metered_service"))


def test_the_database_refuses_a_request_that_another_batch_holds_open(ledger: Ledger):
    start_delta(ledger, 1, change("r1", "a"))
    with pytest.raises(sa.exc.IntegrityError):
        start_delta(ledger, 2, change("r1", "b"))


def test_a_delivered_batch_lets_the_next_change_of_its_entities_go_while_it_waits_for_answers(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, change("r1", "a")))
    start_delta(ledger, 2, change("r2", "a", after=1))
    with ledger.read() as db:
        assert requests.busy_entities(db) == {("contact", "a")}
        assert requests.open_requests(db, ["r1", "r2"]) == {"r2"}  # r1, if CCS lists it as pending, was begun anew


@pytest.mark.parametrize("what", ["snapshot", "entity"])
def test_of_many_writers_at_once_one_gets_through(ledger: Ledger, what: str):
    for number in range(1, 6):
        start_delta(ledger, number)
    start = threading.Barrier(5)

    def write(number: int) -> bool:
        start.wait()
        try:
            with ledger.write() as db:
                if what == "snapshot":
                    db.execute(open_snapshot_row(number))
                else:
                    requests.add_entities(db, delta(number), [("contact", "a")])
        except sa.exc.IntegrityError:
            return False
        return True

    with ThreadPoolExecutor(5) as pool:
        assert sum(pool.map(write, range(1, 6))) == 1


# The gate


def test_with_no_snapshot_ever_made_the_gate_is_open(ledger: Ledger):
    assert gate(ledger) is None
    start_delta(ledger, 1, change("r1", "a"))


def test_the_gate_closes_in_the_transaction_that_creates_the_snapshot(ledger: Ledger):
    with ledger.write() as db:
        life.create_snapshot(db, 1, [("0", "9")], codes=INITIAL_CODES, first={})
        assert life.gate_holder(db) == 1
        assert gate(ledger) is None  # for all others
        db.rollback()
    assert gate(ledger) is None
    start_snapshot(ledger, 1)
    assert gate(ledger) == 1


def test_the_gate_opens_when_the_snapshot_is_delivered(ledger: Ledger):
    send_snapshot(ledger, start_snapshot(ledger, 1, shards=2))
    assert gate(ledger) is None
    start_delta(ledger, 1, change("r1", "a"))


def test_the_gate_opens_when_the_snapshot_is_aborted(ledger: Ledger):
    keys = start_snapshot(ledger, 1, shards=2)
    give_up(ledger, "initial-1")
    assert gate(ledger) is None
    assert {batch(ledger, key).aside for key in keys} == {Aside.ABORTED}
    start_snapshot(ledger, 2)


def test_a_stopped_snapshot_goes_on_holding_the_gate(ledger: Ledger):
    (key,) = start_snapshot(ledger, 1)
    with ledger.write() as db:
        life.stop(db, key, "figures differ")
    assert gate(ledger) == 1


@pytest.mark.parametrize("mode", [Mode.DELTA, Mode.RESYNC])
def test_nothing_is_created_while_the_gate_is_closed(ledger: Ledger, mode: Mode):
    start_snapshot(ledger, 1)
    key = SyncBatch(mode, 1)
    with pytest.raises(GateClosedError, match="held by snapshot 1"), ledger.write() as db:
        life.create_chosen(db, key, codes=CODES, first={})
    with ledger.read() as db:
        assert life.find(db, key) is None


def test_a_second_snapshot_is_refused_with_the_way_out(ledger: Ledger):
    start_snapshot(ledger, 1)
    with pytest.raises(BatchStateError, match="ccs-dacs batch abort initial-1"):
        start_snapshot(ledger, 2)


def test_a_snapshot_number_is_used_once(ledger: Ledger):
    start_snapshot(ledger, 7)
    give_up(ledger, "initial-7")
    for used in (7, 3):
        with pytest.raises(BatchStateError, match="take 8 or a higher one"):
            start_snapshot(ledger, used)


def test_a_delta_that_comes_to_publishing_too_late_is_held_and_goes_on_when_the_gate_opens(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, key)
    map_all(ledger, key)
    seal(ledger, key)
    (shard,) = start_snapshot(ledger, 1)
    with pytest.raises(GateClosedError) as caught:
        publish(ledger, key)
    assert caught.value.snapshot == 1
    assert batch(ledger, key).stage is Stage.SEALED
    with ledger.write() as db:
        life.hold(db, key, 1)
    held = batch(ledger, key)
    assert (held.state, held.reason) == ("held", "held by snapshot 1")
    assert batch(ledger, key).unfinished
    send_snapshot(ledger, [shard])
    deliver(ledger, key)
    assert (batch(ledger, key).stage, batch(ledger, key).aside) == (Stage.DELIVERED, None)


def test_a_delta_passes_the_gate_once(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, key)
    map_all(ledger, key)
    seal(ledger, key)
    publish(ledger, key)
    start_snapshot(ledger, 1)
    publish(ledger, key)  # a repeat after an interruption
    finish(ledger, key)
    assert batch(ledger, key).stage is Stage.DELIVERED
    assert gate(ledger) == 1


def test_closing_and_passing_the_gate_follow_one_another(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, key)
    map_all(ledger, key)
    seal(ledger, key)
    with ThreadPoolExecutor(1) as pool:
        with ledger.write() as db:
            life.create_snapshot(db, 1, [("0", "9")], codes=INITIAL_CODES, first={})
            passing = pool.submit(publish, ledger, key)
            with pytest.raises(TimeoutError):
                passing.result(0.2)
        with pytest.raises(GateClosedError):
            passing.result(10)
    assert batch(ledger, key).stage is Stage.SEALED


def test_holding_does_not_bring_an_aborted_batch_back(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    give_up(ledger, "delta-1")
    with ledger.write() as db:
        life.hold(db, key, 1)
    assert batch(ledger, key).aside is Aside.ABORTED


# Stages


def test_the_stages_come_in_order(ledger: Ledger):
    key = start_delta(ledger, 1)
    for stage in list(Stage)[1:]:
        with ledger.write() as db:
            life.advance(db, key, stage)
        assert batch(ledger, key).stage is stage
    with ledger.read() as db:
        noted = db.execute(sa.select(journal.c.event).order_by(journal.c.id)).scalars().all()
    assert noted == ["batch created", "claimed", "sealed", "publishing", "delivered", "settled"]


def test_no_stage_is_left_out_and_none_is_gone_back(ledger: Ledger):
    key = start_delta(ledger, 1)
    for reached in Stage:
        advance(ledger, key, reached)
        for wanted in Stage:
            if wanted.rank > reached.rank + 1:
                with pytest.raises(BatchStateError, match=f"delta-1 is {reached} and cannot become {wanted}"):
                    advance(ledger, key, wanted)
            elif wanted.rank <= reached.rank:
                advance(ledger, key, wanted)  # a repeat
        assert batch(ledger, key).stage is reached


def advance(ledger: Ledger, key: SyncBatch, stage: Stage) -> None:
    with ledger.write() as db:
        life.advance(db, key, stage)


def test_a_batch_is_sealed_when_all_its_entities_have_their_files(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, key)
    map_all(ledger, key)
    with ledger.write() as db:
        contents.record_extract(db, life.get(db, key), "contact", [])
        assert not contents.seal_when_complete(db, key, ("contact", "metered_service"))
        assert not life.get(db, key).rows_fixed
        contents.record_extract(db, life.get(db, key), "metered_service", [])
        assert contents.seal_when_complete(db, key, ("contact", "metered_service"))
        assert not contents.seal_when_complete(db, key, ("contact", "metered_service"))
    assert batch(ledger, key).rows_fixed


def test_an_unknown_batch_is_named(ledger: Ledger):
    with pytest.raises(BatchStateError, match="no batch delta-9"), ledger.read() as db:
        life.get(db, delta(9))
    for act in (life.resume, life.abort):
        with pytest.raises(BatchStateError, match="no batch delta-9"), ledger.write() as db:
            act(db, "delta-9")


# Stopped, resumed, aborted, replayed


def test_a_stopped_batch_keeps_its_stage_and_what_was_claimed_and_waits_for_an_operator(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, key)
    with ledger.write() as db:
        life.stop(db, key, "21 of 30 records are bad.")
    stopped = batch(ledger, key)
    assert (stopped.stage, stopped.state, stopped.reason) == (Stage.CLAIMED, "stopped", "21 of 30 records are bad.")
    assert request(ledger, "r1").settlement is None
    with pytest.raises(BatchStateError, match=r"21 of 30 .* `ccs-dacs batch resume delta-1`"), ledger.write() as db:
        life.begin_attempt(db, key)


def test_other_batches_go_on_beside_a_stopped_one(ledger: Ledger):
    stopped = start_delta(ledger, 1, change("r1", "a"))
    with ledger.write() as db:
        life.stop(db, stopped, "bad")
    send(ledger, start_delta(ledger, 2, change("r2", "b")))
    assert batch(ledger, delta(2)).reached(Stage.DELIVERED)
    with pytest.raises(sa.exc.IntegrityError):
        start_delta(ledger, 3, change("r3", "a", after=1))


def test_a_resumed_batch_goes_on_to_delivery(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, key)
    with ledger.write() as db:
        life.stop(db, key, "bad")
    with ledger.write() as db:
        assert [(one.aside, one.reason) for one in life.resume(db, "delta-1")] == [(None, None)]
        assert life.begin_attempt(db, key).attempts == 1
    map_all(ledger, key)
    seal(ledger, key)
    deliver(ledger, key)
    assert batch(ledger, key).stage is Stage.DELIVERED


def test_resuming_what_goes_on_anyway_changes_nothing(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    before = batch(ledger, key)
    with ledger.write() as db:
        assert life.resume(db, "delta-1") == [before]


def test_a_snapshot_is_resumed_and_aborted_as_a_whole(ledger: Ledger):
    first, second = start_snapshot(ledger, 1, shards=2)
    with ledger.write() as db:
        life.stop(db, first, "totals differ")
    with pytest.raises(BatchStateError, match="batch resume initial-1`"), ledger.write() as db:
        life.begin_attempt(db, first)
    with ledger.write() as db:
        assert [one.aside for one in life.resume(db, "initial-1")] == [None, None]
    give_up(ledger, "initial-1")
    assert {batch(ledger, key).aside for key in (first, second)} == {Aside.ABORTED}


@pytest.mark.parametrize("ended", ["delivered", "aborted"])
def test_what_has_ended_is_neither_resumed_nor_aborted_nor_stopped(ledger: Ledger, ended: str):
    key = start_delta(ledger, 1, change("r1", "a"))
    if ended == "delivered":
        send(ledger, key)
    else:
        give_up(ledger, "delta-1")
    for act in (life.resume, life.abort):
        reason = rf"delta-1 is {ended}: there is nothing to {act.__name__}\.$"
        with pytest.raises(BatchStateError, match=reason), ledger.write() as db:
            act(db, "delta-1")
    with ledger.write() as db:
        life.stop(db, key, "too late")
    assert batch(ledger, key).state == ended


def test_an_aborted_batch_never_goes_on(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, key)
    give_up(ledger, "delta-1")
    assert batch(ledger, key).reason == "aborted by an operator"
    with pytest.raises(BatchStateError, match="resync"), ledger.write() as db:
        life.begin_attempt(db, key)
    with pytest.raises(BatchStateError, match="is aborted and cannot become sealed"):
        advance(ledger, key, Stage.SEALED)


def test_an_abort_frees_the_entities(ledger: Ledger):
    start_delta(ledger, 1, change("r1", "a"))
    give_up(ledger, "delta-1")
    start_delta(ledger, 2, change("r2", "a"))


def test_a_replay_raises_the_rerun_number_and_fixes_the_rows(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    send(ledger, key)
    with ledger.write() as db:
        (again,) = life.replay(db, "delta-1")
    assert (again.rerun, again.stage) == (1, Stage.CLAIMED)
    assert again.rows_fixed
    with ledger.read() as db:
        assert contents.files_of(db, again) == []
        assert life.extracted(db, again) == set()
    seal(ledger, key)
    deliver(ledger, key)
    with ledger.read() as db:
        assert [file.name for file in contents.files_of(db, life.get(db, key))] == ["contact_delta-1_01.csv"]


def test_a_replay_keeps_its_number(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, change("r1", "a")))
    before = numbers(ledger, "delta-1", CODES)
    with ledger.write() as db:
        life.replay(db, "delta-1")
    assert numbers(ledger, "delta-1", CODES) == before


def test_only_a_delivered_batch_is_replayed(ledger: Ledger):
    start_delta(ledger, 1, change("r1", "a"))
    for owner, state in (("delta-1", "created"), ("delta-9", "unknown")):
        with pytest.raises(BatchStateError, match=f"{owner} is {state}"), ledger.write() as db:
            life.replay(db, owner)


def test_a_replay_that_is_given_up_leaves_the_delivery_before_it(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    send(ledger, key)
    with ledger.write() as db:
        life.replay(db, "delta-1")
    seal(ledger, key)
    publish(ledger, key)
    with ledger.write() as db:
        life.stop(db, key, "a file differs")
        (given_up,) = life.abort(db, "delta-1")
    assert given_up.rerun == 1
    back = batch(ledger, key)
    assert (back.state, back.reason, back.rerun, back.delivered is None) == ("delivered", None, 0, False)
    with ledger.read() as db:
        assert [file.name for file in contents.files_of(db, back)] == ["contact_delta-1_00.csv"]
        assert requests.due(db, 10) == []
    with ledger.write() as db:
        life.replay(db, "delta-1")
    seal(ledger, key)
    deliver(ledger, key)
    assert batch(ledger, key).rerun == 1


def test_a_replay_that_is_given_up_takes_nothing_of_any_other_delivery_with_it(ledger: Ledger):
    keys = [start_delta(ledger, number, change(f"r{number}", one)) for number, one in enumerate("ab", start=1)]

    def seal_with_manifest(key: SyncBatch) -> None:
        seal(ledger, key)
        with ledger.write() as db:
            rerun = life.get(db, key).rerun
            contents.record_manifest(db, str(key), rerun, f"MANIFEST_{key}_{rerun:02d}.json", SHA256)

    for key in keys:
        claim(ledger, key)
        map_all(ledger, key)
        seal_with_manifest(key)
        deliver(ledger, key)
        with ledger.write() as db:
            life.replay(db, str(key))
        seal_with_manifest(key)
    with ledger.write() as db:
        life.abort(db, "delta-1")
    with ledger.read() as db:
        kept = {name for table in (files, manifests) for name in db.execute(sa.select(table.c.name)).scalars()}
        assert [life.extracted(db, life.get(db, key)) for key in keys] == [set(ENTITIES)] * 2
        assert db.execute(sa.select(sa.func.count()).select_from(extracts)).scalar() == 3 * len(ENTITIES)
    assert kept == {
        *("contact_delta-1_00.csv", "contact_delta-2_00.csv", "contact_delta-2_01.csv"),
        *("MANIFEST_delta-1_00.json", "MANIFEST_delta-2_00.json", "MANIFEST_delta-2_01.json"),
    }


def test_a_replay_keeps_nobody_waiting_for_what_was_delivered_before(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"), change("r2", "b"))
    send(ledger, key)
    with ledger.write() as db:
        life.replay(db, "delta-1")
    acknowledge(ledger, r1=False)
    assert take(ledger) == {"delta-1"}
    with ledger.read() as db:
        assert [one["syncRequestId"] for one in report.overdue(db, timedelta(days=-1))] == ["r2"]


def test_a_replayed_delta_waits_at_a_closed_gate_too(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    send(ledger, key)
    start_snapshot(ledger, 1)
    with ledger.write() as db:
        life.replay(db, "delta-1")
    seal(ledger, key)
    with pytest.raises(GateClosedError):
        publish(ledger, key)


def test_a_snapshot_is_replayed_until_a_delta_was_delivered_after_it(ledger: Ledger):
    keys = start_snapshot(ledger, 1, shards=2)
    send_snapshot(ledger, keys)
    with ledger.write() as db:
        assert {one.rerun for one in life.replay(db, "initial-1")} == {1}
    for key in keys:
        seal(ledger, key)
    deliver(ledger, *keys)
    assert gate(ledger) is None
    send(ledger, start_delta(ledger, 1, change("r1", "a")))
    stale = r"old data over new\. Make a new snapshot with `ccs-dacs initial --new`\.$"
    with pytest.raises(BatchStateError, match=stale), ledger.write() as db:
        life.replay(db, "initial-1")


def test_of_two_snapshots_the_one_that_was_made_after_a_delta_s_delivery_is_replayed(ledger: Ledger):
    send_snapshot(ledger, start_snapshot(ledger, 1))
    send(ledger, start_delta(ledger, 1, change("r1", "a")))
    send_snapshot(ledger, start_snapshot(ledger, 2))
    with ledger.write() as db:
        with pytest.raises(BatchStateError, match="delivered after initial-1 was read"):
            life.replay(db, "initial-1")
        assert {one.rerun for one in life.replay(db, "initial-2")} == {1}


def test_a_batch_that_goes_on_is_no_longer_held_for_any_reason(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    with ledger.write() as db:
        life.hold(db, key, 1)
        assert life.get(db, key).reason == "held by snapshot 1"
    claim(ledger, key)
    assert (batch(ledger, key).aside, batch(ledger, key).reason) == (None, None)


def test_a_snapshot_is_not_replayed_while_a_delta_is_being_published(ledger: Ledger):
    send_snapshot(ledger, start_snapshot(ledger, 1))
    key = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, key)
    map_all(ledger, key)
    seal(ledger, key)
    publish(ledger, key)
    with pytest.raises(BatchStateError, match="delivered after initial-1 was read"), ledger.write() as db:
        life.replay(db, "initial-1")


def test_a_batch_without_frames_is_not_replayed(ledger: Ledger):
    send_snapshot(ledger, start_snapshot(ledger, 1))
    with ledger.write() as db:
        contents.forget_frames(db, "initial-1-01of01")
    way_out = r"not asked for its rows again: send the entities anew with `ccs-dacs resync`\.$"
    with pytest.raises(BatchStateError, match=way_out), ledger.write() as db:
        life.replay(db, "initial-1")
    assert gate(ledger) is None


def test_the_replay_of_a_snapshot_holds_the_gate_like_a_new_one(ledger: Ledger):
    """Its rows carry no Change Date Time: published after a delta they would put old data over new."""
    keys = start_snapshot(ledger, 1)
    send_snapshot(ledger, keys)
    late = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, late)
    map_all(ledger, late)
    seal(ledger, late)
    with ledger.write() as db:
        life.replay(db, "initial-1")
    assert gate(ledger) == 1
    with pytest.raises(GateClosedError):
        publish(ledger, late)
    with pytest.raises(BatchStateError, match="Snapshot 1 is unfinished"):
        start_snapshot(ledger, 2)
    seal(ledger, keys[0])
    deliver(ledger, keys[0])
    assert gate(ledger) is None
    deliver(ledger, late)
    start_snapshot(ledger, 2)


def test_a_stale_replay_of_a_snapshot_is_refused_though_the_clock_was_set_back_since(ledger: Ledger):
    send_snapshot(ledger, start_snapshot(ledger, 1))
    late = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, late)
    map_all(ledger, late)
    seal(ledger, late)
    deliver(ledger, late)
    with ledger.write() as db:
        db.execute(sa.update(batches).where(batches.c.key == str(late)).values(delivered=now() - timedelta(hours=9)))
        with pytest.raises(BatchStateError, match="put old data over new"):
            life.replay(db, "initial-1")


def test_a_snapshot_s_replay_that_is_given_up_opens_the_gate(ledger: Ledger):
    send_snapshot(ledger, start_snapshot(ledger, 1))
    with ledger.write() as db:
        life.replay(db, "initial-1")
    give_up(ledger, "initial-1")
    assert gate(ledger) is None
    with ledger.read() as db:
        assert db.execute(sa.select(snapshots.c.state)).scalar() == "delivered"
    start_snapshot(ledger, 2)
    with pytest.raises(BatchStateError, match="Snapshot 2 is unfinished"), ledger.write() as db:
        life.replay(db, "initial-1")


# What an operator can read of it


def test_the_journal_tells_what_happened_to_a_batch(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    with ledger.write() as db:
        life.stop(db, key, "21 of 30 records are bad.")
        life.resume(db, "delta-1")
    claim(ledger, key)
    map_all(ledger, key)
    seal(ledger, key)
    with ledger.write() as db:
        life.hold(db, key, 7)
        life.abort(db, "delta-1")
    assert told(ledger) == [
        ("batch created", "delta-1", {}),
        ("stopped", "delta-1", {"reason": "21 of 30 records are bad."}),
        ("resumed", "delta-1", {}),
        ("claimed", "delta-1", {}),
        ("sealed", "delta-1", {}),
        ("held", "delta-1", {"snapshot": 7}),
        ("aborted", "delta-1", {"stage": "sealed"}),
    ]


def test_the_journal_tells_of_a_snapshot_and_of_its_replay(ledger: Ledger):
    keys = start_snapshot(ledger, 1, shards=2)
    send_snapshot(ledger, keys)
    begun = len(told(ledger))
    with ledger.write() as db:
        life.replay(db, "initial-1")
        life.abort(db, "initial-1")
    assert told(ledger)[0] == ("snapshot created", "initial-1", {"shards": 2})
    assert told(ledger)[begun:] == [
        ("replayed", "initial-1-01of02", {"rerun": 1}),
        ("replayed", "initial-1-02of02", {"rerun": 1}),
        ("replay aborted", "initial-1-01of02", {"stage": "claimed"}),
        ("replay aborted", "initial-1-02of02", {"stage": "claimed"}),
    ]


def test_a_snapshot_and_its_shards_keep_their_ranges(ledger: Ledger):
    start_snapshot(ledger, 1, shards=2)
    with ledger.read() as db:
        ranges = [(one.low_id, one.high_id) for one in life.owned(db, "initial-1")]
        row = db.execute(sa.select(snapshots)).one()
    assert ranges == [("0000000000", "0999999999"), ("1000000000", "1999999999")]
    assert (row.number, row.state, row.shards, row.low_id, row.high_id, row.ended) == (
        1,
        "open",
        2,
        "0000000000",
        "1999999999",
        None,
    )


@pytest.mark.parametrize(
    ("end", "state"), [(send_snapshot, "delivered"), (lambda led, _: give_up(led, "initial-2"), "aborted")]
)
def test_the_end_of_a_snapshot_is_recorded_once_and_of_no_other(ledger: Ledger, end: Callable, state: str):
    send_snapshot(ledger, start_snapshot(ledger, 1))
    with ledger.read() as db:
        first = db.execute(sa.select(snapshots)).one()
    end(ledger, start_snapshot(ledger, 2))
    with ledger.read() as db:
        rows = db.execute(sa.select(snapshots).order_by(snapshots.c.number)).all()
    assert rows[0] == first
    assert (rows[1].state, rows[1].ended >= rows[1].created) == (state, True)


def test_what_happens_to_one_batch_leaves_the_others_as_they_are(ledger: Ledger):
    sent = start_delta(ledger, 1, change("r1", "a"))
    send(ledger, sent)
    other = start_delta(ledger, 2, change("r2", "b"))
    with ledger.write() as db:
        life.stop(db, other, "bad")
    before = [batch(ledger, key) for key in (sent, other)]
    key = start_delta(ledger, 3, change("r3", "c"))
    with ledger.write() as db:
        assert life.begin_attempt(db, key).attempts == 1
        assert life.begin_attempt(db, key).attempts == 2
    send(ledger, key)
    give_up(ledger, str(start_delta(ledger, 4, change("r4", "d"))))
    with ledger.write() as db:
        life.replay(db, str(key))
        life.abort(db, str(key))
    assert [batch(ledger, one) for one in (sent, other)] == before
    with ledger.read() as db:
        assert requests.busy_entities(db) == {("contact", "b")}
        assert requests.held(db) == {"r1", "r2", "r3"}


def test_each_change_of_a_batch_is_dated(ledger: Ledger):
    begun = now()
    key = start_delta(ledger, 1, change("r1", "a"))
    created = batch(ledger, key)
    assert begun <= created.created == created.updated
    send(ledger, key)
    sent = batch(ledger, key)
    assert (sent.created, sent.moment) == (created.created, NOON)
    assert created.updated < sent.delivered <= sent.updated <= now()


def test_batches_are_listed_oldest_first_and_shards_in_order(ledger: Ledger):
    start_delta(ledger, 2)
    start_snapshot(ledger, 1, shards=12)
    give_up(ledger, "initial-1")
    start_delta(ledger, 1)
    with ledger.read() as db:
        keys = [str(one.key) for one in life.listed(db)]
    assert keys == ["delta-2", *(f"initial-1-{shard:02d}of12" for shard in range(1, 13)), "delta-1"]


# Numbers


def test_each_code_counts_for_itself_and_shards_share_one_number(ledger: Ledger):
    start_delta(ledger, 1)
    start_delta(ledger, 2)
    start_snapshot(ledger, 1, shards=3)
    assert numbers(ledger, "delta-1", CODES) == [1, 1, 1]
    assert numbers(ledger, "delta-2", CODES) == [2, 2, 2]
    assert numbers(ledger, "initial-1", INITIAL_CODES) == [1, 1, 1]
    with ledger.read() as db:
        assert {one.key.owner for one in life.owned(db, "initial-1")} == {"initial-1"}


def test_a_resync_counts_on_with_the_incremental_codes(ledger: Ledger):
    start_delta(ledger, 1)
    with ledger.write() as db:
        life.create_chosen(db, SyncBatch(Mode.RESYNC, 1), codes=CODES, first={})
    assert numbers(ledger, "resync-1", CODES) == [2, 2, 2]


def test_first_batch_numbers_are_taken_until_the_own_count_is_past_them(ledger: Ledger):
    def start(number: int, **first: int) -> list[int]:
        with ledger.write() as db:
            codes = {name.replace("_", "-"): value for name, value in first.items()}
            life.create_chosen(db, delta(number), codes=CODES, first=codes)
        return numbers(ledger, f"delta-{number}", CODES)

    assert start(1, C1_DCTEX=100) == [100, 1, 1]
    assert start(2, C1_DCTEX=100) == [101, 2, 2]
    assert start(3, C1_DCTEX=50, C1_DSPEX=7) == [102, 7, 3]
    assert start(4) == [103, 8, 4]


def test_batches_made_at_once_have_numbers_of_their_own(ledger: Ledger):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: start_delta(ledger, number), range(1, 9)))
    assert sorted(numbers(ledger, f"delta-{number}", CODES[:1])[0] for number in range(1, 9)) == list(range(1, 9))


def test_the_highest_number_is_per_mode(ledger: Ledger):
    start_delta(ledger, 4)
    start_snapshot(ledger, 2)
    with ledger.read() as db:
        assert [life.highest_number(db, mode) for mode in Mode] == [2, 4, 0]


def test_after_the_loss_of_a_ledger_batches_are_numbered_above_all_that_it_used(ledger: Ledger):
    with ledger.write() as db:
        life.raise_numbers(db, {Mode.INITIAL: 4, Mode.DELTA: 18}, {"C1-DCTEX": 33, "C1-DSPEX": 1, "C1-DCTIL": 5})
        assert [life.highest_number(db, mode) for mode in Mode] == [4, 18, 0]
    with pytest.raises(BatchStateError, match="take 5 or a higher one"):
        start_snapshot(ledger, 4)
    start_snapshot(ledger, 5)
    assert numbers(ledger, "initial-5", INITIAL_CODES) == [6, 1, 1]
    give_up(ledger, "initial-5")
    start_delta(ledger, 19)
    assert numbers(ledger, "delta-19", CODES) == [34, 2, 1]


def test_what_a_lost_ledger_used_lowers_no_number(ledger: Ledger):
    start_delta(ledger, 2)
    start_delta(ledger, 3)
    for found in ({Mode.DELTA: 7, Mode.RESYNC: 1}, {Mode.DELTA: 5, Mode.RESYNC: 2}, {Mode.INITIAL: 1}):
        with ledger.write() as db:
            life.raise_numbers(db, found, {"C1-DCTEX": 1, "C1-DSPEX": 9})
    with ledger.read() as db:
        assert [life.highest_number(db, mode) for mode in Mode] == [1, 7, 2]
    start_delta(ledger, 8)
    assert numbers(ledger, "delta-8", CODES) == [3, 10, 3]
    start_delta(ledger, 9)
    assert numbers(ledger, "delta-9", CODES) == [4, 11, 4]


def test_the_files_of_unfinished_batches_are_known_by_name(ledger: Ledger):
    sent, given_up, sealed, replayed = (
        start_delta(ledger, number, change(f"r{number}", "abcd"[number - 1])) for number in range(1, 5)
    )
    for key in (sent, replayed):
        send(ledger, key)
    for key in (given_up, sealed):
        claim(ledger, key)
        map_all(ledger, key)
        seal(ledger, key)
    give_up(ledger, str(given_up))
    with ledger.write() as db:
        life.replay(db, str(replayed))
    with ledger.read() as db:
        assert life.file_names(db) == {"contact_delta-3_00.csv", "contact_delta-4_00.csv"}


def test_an_abort_answers_nothing_of_a_snapshot(ledger: Ledger):
    start_snapshot(ledger, 1)
    give_up(ledger, "initial-1")
    with ledger.read() as db:
        assert requests.due(db, 10) == []
        assert db.execute(sa.select(sa.func.count()).select_from(batch_entities)).scalar() == 0


def test_an_abort_frees_untouched_requests_and_answers_the_claimed_ones(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"), change("r2", "b"))
    with ledger.write() as db:
        requests.record_attempts(db, key, ["r1"])
    give_up(ledger, "delta-1")
    with ledger.read() as db:
        assert requests.open_requests(db, ["r1", "r2"]) == {"r1"}
        (due,) = requests.due(db, 10)
    assert (due.request_id, due.has_error, due.answer, due.source) == ("r1", True, ERROR, requests.Source.OWN)
    start_delta(ledger, 2, change("r2", "b"))
