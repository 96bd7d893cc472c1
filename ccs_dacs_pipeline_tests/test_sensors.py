"""What the sensors ask for: decision tables over views, nothing else (design.md, decision 5)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_dacs_pipeline.ledger.foreign import Look, Seen
from ccs_dacs_pipeline.ledger.life import Aside, Batch, Stage
from ccs_dacs_pipeline.partitions import Mode, SyncBatch
from ccs_dacs_pipeline.sensors import (
    UNDER_WAY,
    Ask,
    Skip,
    View,
    back_off,
    decide,
    is_over,
    next_run_key,
    tags_of,
    why_not_deliver,
    why_not_transfer,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)
JUST_NOW = NOW - timedelta(seconds=1)
QUIET = View(
    now=NOW,
    gate=None,
    unfinished=(),
    active=frozenset(),
    delta_active=False,
    snapshot_active=False,
    pending=0,
    blocked=0,
    highest=17,
)


def batch(
    key: str,
    stage: Stage = Stage.CLAIMED,
    *,
    aside: Aside | None = None,
    attempts: int = 1,
    updated: datetime = LONG_AGO,
) -> Batch:
    return Batch(
        key=SyncBatch.parse(key),
        stage=stage,
        aside=aside,
        reason=None,
        rerun=0,
        attempts=attempts,
        low_id=None,
        high_id=None,
        moment=None,
        created=LONG_AGO,
        updated=updated,
        delivered=None,
    )


def incremental(key: str) -> Ask:
    return Ask(SyncBatch.parse(key), "incremental_sync")


def initial(key: str) -> Ask:
    return Ask(SyncBatch.parse(key), "initial_sync")


def seen(*unfinished: Batch, **others: object) -> View:
    return replace(QUIET, unfinished=unfinished, **others)  # type: ignore[arg-type]


FRESH = batch("delta-16", updated=JUST_NOW)
STOPPED = batch("delta-15", aside=Aside.STOPPED)
HELD = batch("delta-14", Stage.SEALED, aside=Aside.HELD, updated=JUST_NOW)
SHARD_1 = batch("initial-7-01of02")
SHARD_2 = batch("initial-7-02of02")


@pytest.mark.parametrize(
    ("view", "asked"),
    [
        pytest.param(seen(pending=3), "delta-18", id="pending requests make a new delta, one above the highest"),
        pytest.param(seen(pending=1, highest=0), "delta-1", id="the first delta is number 1"),
        pytest.param(seen(batch("delta-16"), pending=3), "delta-16", id="unfinished first"),
        pytest.param(seen(batch("delta-16")), "delta-16", id="unfinished, though nothing is pending"),
        pytest.param(seen(batch("delta-9"), batch("delta-16")), "delta-9", id="the oldest unfinished first"),
        pytest.param(seen(batch("resync-3"), batch("delta-16")), "resync-3", id="a resync is an incremental batch"),
        pytest.param(
            seen(pending=3, children=1, highest_resync=4), "resync-5", id="children of delivered parents first"
        ),
        pytest.param(
            seen(batch("delta-15"), batch("delta-16", Stage.SEALED), trouble="CCS is down"),
            "delta-16",
            id="what needs nothing of CCS goes on while that is down",
        ),
        pytest.param(seen(FRESH, batch("delta-17")), "delta-17", id="one in back-off lets the next go on"),
        pytest.param(seen(FRESH, pending=3), "delta-18", id="one in back-off lets a new delta go on"),
        pytest.param(seen(STOPPED, batch("delta-16")), "delta-16", id="a stopped one is never asked for"),
        pytest.param(seen(STOPPED, pending=3), "delta-18", id="a new delta goes on beside a stopped one"),
        pytest.param(seen(STOPPED, pending=3, blocked=2), "delta-18", id="more is pending than waits for the stopped"),
        pytest.param(seen(pending=3, blocked=3), "delta-18", id="nothing is unfinished that requests could wait for"),
        pytest.param(
            seen(batch("delta-15"), batch("delta-16", Stage.PUBLISHING), gate=7),
            "delta-16",
            id="one that has passed the gate goes on while a snapshot holds it",
        ),
        pytest.param(seen(HELD), "delta-14", id="a held one at once when the gate is open, without back-off"),
    ],
)
def test_an_incremental_run_is_asked_for(view: View, asked: str):
    assert decide(view) == incremental(asked)


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        pytest.param(seen(), "nothing pending", id="nothing to do"),
        pytest.param(
            seen(batch("delta-16"), pending=3, delta_active=True),
            "an incremental pass is queued or running",
            id="one incremental run at a time",
        ),
        pytest.param(
            seen(pending=3, gate=7), "held by snapshot 7; 3 requests are pending", id="the gate holds new ones"
        ),
        pytest.param(seen(HELD, gate=7), "held by snapshot 7; 0 requests are pending", id="the gate holds held ones"),
        pytest.param(
            seen(batch("delta-16"), gate=7),
            "held by snapshot 7; 0 requests are pending",
            id="the gate holds unfinished",
        ),
        pytest.param(
            seen(FRESH), "nothing pending; 1 unfinished batches are tried again later, first delta-16", id="back-off"
        ),
        pytest.param(seen(STOPPED), "nothing pending", id="a stopped one waits for an operator"),
        pytest.param(
            seen(STOPPED, pending=3, blocked=3),
            "3 pending requests wait for 1 unfinished batches, 1 of them stopped",
            id="all that is pending is blocked by a stopped one",
        ),
        pytest.param(
            seen(STOPPED, FRESH, pending=3, blocked=3),
            "3 pending requests wait for 2 unfinished batches, 1 of them stopped; "
            "1 unfinished batches are tried again later, first delta-16",
            id="all that is pending is blocked, by one in back-off too",
        ),
        pytest.param(
            seen(SHARD_1, gate=7, active=frozenset({"initial-7-01of02"})),
            "held by snapshot 7; 0 requests are pending",
            id="a shard whose run is under way",
        ),
        pytest.param(
            seen(SHARD_1, gate=7, snapshot_active=True),
            "held by snapshot 7; 0 requests are pending",
            id="a command works on the snapshot",
        ),
        pytest.param(
            seen(batch("initial-7-01of02", updated=JUST_NOW), gate=7),
            "held by snapshot 7; 0 requests are pending",
            id="a shard in back-off",
        ),
        pytest.param(
            seen(batch("initial-7-01of02", aside=Aside.STOPPED), gate=7),
            "held by snapshot 7; 0 requests are pending",
            id="a stopped shard",
        ),
        pytest.param(
            seen(replace(SHARD_1, stage=Stage.SEALED), replace(SHARD_2, aside=Aside.STOPPED), gate=7),
            "held by snapshot 7; 0 requests are pending",
            id="a sealed shard while another is stopped",
        ),
        pytest.param(
            seen(
                replace(SHARD_1, stage=Stage.SEALED),
                replace(SHARD_2, stage=Stage.PUBLISHING),
                gate=7,
                active=frozenset({"initial-7-02of02"}),
            ),
            "held by snapshot 7; 0 requests are pending",
            id="a sealed shard while another's run publishes them all",
        ),
    ],
)
def test_no_run_is_asked_for_and_the_reason_is_said(view: View, reason: str):
    assert decide(view) == Skip(reason)


@pytest.mark.parametrize(
    ("view", "asked"),
    [
        pytest.param(seen(SHARD_1, SHARD_2, gate=7), "initial-7-01of02", id="an unfinished shard, the oldest first"),
        pytest.param(
            seen(SHARD_1, SHARD_2, gate=7, active=frozenset({"initial-7-01of02"})),
            "initial-7-02of02",
            id="shards run side by side",
        ),
        pytest.param(
            seen(SHARD_1, batch("delta-16"), pending=3, gate=7, delta_active=True),
            "initial-7-01of02",
            id="the incremental lane does not hold a shard",
        ),
        pytest.param(
            seen(replace(SHARD_1, stage=Stage.SEALED), SHARD_2, gate=7),
            "initial-7-02of02",
            id="the shard without its files, not the sealed one that waits for it",
        ),
        pytest.param(
            seen(replace(SHARD_1, stage=Stage.SEALED), replace(SHARD_2, stage=Stage.PUBLISHING), gate=7),
            "initial-7-01of02",
            id="all have their files and nobody publishes them",
        ),
        pytest.param(
            seen(
                replace(SHARD_1, stage=Stage.SEALED, key=SyncBatch.parse("initial-7-01of01")), batch("delta-16"), gate=7
            ),
            "initial-7-01of01",
            id="a delta without its files does not hold a snapshot",
        ),
        pytest.param(
            seen(replace(SHARD_1, aside=Aside.STOPPED), SHARD_2, gate=7),
            "initial-7-02of02",
            id="another shard goes on beside a stopped one",
        ),
    ],
)
def test_an_initial_run_is_asked_for(view: View, asked: str):
    assert decide(view) == initial(asked)


deltas = st.builds(
    lambda number, mode, stage, aside, attempts, age: batch(
        f"{mode}-{number}", stage, aside=aside, attempts=attempts, updated=NOW - timedelta(seconds=age)
    ),
    st.integers(1, 30),
    st.sampled_from(["delta", "resync"]),
    st.sampled_from([Stage.CREATED, Stage.CLAIMED, Stage.SEALED, Stage.PUBLISHING]),
    st.sampled_from([None, Aside.HELD, Aside.STOPPED]),
    st.integers(0, 30),
    st.integers(0, 7200),
)
shards = st.builds(
    lambda shard, stage, aside, attempts, age: batch(
        f"initial-7-{shard:02d}of04", stage, aside=aside, attempts=attempts, updated=NOW - timedelta(seconds=age)
    ),
    st.integers(1, 4),
    st.sampled_from([Stage.CREATED, Stage.CLAIMED, Stage.SEALED, Stage.PUBLISHING]),
    st.sampled_from([None, Aside.STOPPED]),
    st.integers(0, 30),
    st.integers(0, 7200),
)
unfinished_batches = st.lists(deltas | shards, max_size=6, unique_by=lambda one: one.key)


@st.composite
def views(draw: st.DrawFn) -> View:
    unfinished = draw(unfinished_batches)
    keys = [str(one.key) for one in unfinished]
    return View(
        now=NOW,
        gate=draw(st.none() | st.just(7)),
        unfinished=unfinished,
        active=frozenset(draw(st.sets(st.sampled_from(keys)))) if keys else frozenset(),
        delta_active=draw(st.booleans()),
        snapshot_active=draw(st.booleans()),
        pending=draw(st.integers(0, 5)),
        blocked=draw(st.integers(0, 5)),
        highest=draw(st.integers(30, 40)),
    )


class TestWhatAlwaysHolds:
    """Properties of every decision."""

    @given(views())
    def test_a_stopped_batch_is_never_asked_for(self, view: View):
        stopped = {one.key for one in view.unfinished if one.aside is Aside.STOPPED}
        decision = decide(view)
        assert isinstance(decision, Skip) or decision.key not in stopped

    @given(views())
    def test_a_key_goes_to_its_own_job(self, view: View):
        decision = decide(view)
        if isinstance(decision, Ask):
            assert decision.job == ("initial_sync" if decision.key.mode is Mode.INITIAL else "incremental_sync")

    @given(views())
    def test_nothing_incremental_beside_an_incremental_pass_or_past_a_closed_gate(self, view: View):
        decision = decide(view)
        if isinstance(decision, Ask) and decision.job == "incremental_sync":
            assert not view.delta_active
            published = [one.key for one in view.unfinished if one.stage is Stage.PUBLISHING]
            assert view.gate is None or decision.key in published

    @given(views())
    def test_a_new_delta_has_a_number_that_nothing_has_used(self, view: View):
        decision = decide(view)
        known = {one.key for one in view.unfinished}
        if isinstance(decision, Ask) and decision.key not in known:
            assert decision == incremental(f"delta-{view.highest + 1}")
            assert view.pending > 0

    @given(views())
    def test_an_unfinished_batch_is_asked_for_only_after_its_back_off_or_when_the_gate_has_opened(self, view: View):
        decision = decide(view)
        for one in view.unfinished:
            if isinstance(decision, Ask) and decision.key == one.key and one.aside is not Aside.HELD:
                assert is_over(back_off(max(one.attempts, 1)), since=one.updated, now=view.now)

    @given(views())
    def test_a_run_that_is_under_way_is_not_asked_for_again(self, view: View):
        decision = decide(view)
        if isinstance(decision, Ask) and decision.job == "initial_sync":
            assert str(decision.key) not in view.active
            assert not view.snapshot_active

    @given(views())
    def test_in_time_every_batch_that_can_go_on_is_asked_for(self, view: View):
        """No view stands still for ever while a batch is neither stopped nor held back."""
        later = replace(
            view, now=NOW + timedelta(hours=1), gate=None, active=frozenset(), delta_active=False, snapshot_active=False
        )
        going = [one for one in view.unfinished if one.aside is not Aside.STOPPED and one.key.mode is not Mode.INITIAL]
        assert isinstance(decide(later), Ask) or not going

    @given(views())
    def test_deciding_again_decides_the_same(self, view: View):
        assert decide(view) == decide(view)


def test_the_wait_doubles_up_to_an_hour():
    waits = [back_off(attempts).total_seconds() for attempts in range(12)]
    assert waits == [0, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]


@given(st.integers(0, 10**9))
def test_the_wait_never_shrinks_and_never_overflows(attempts: int):
    assert all(before <= after for before, after in pairwise([back_off(attempts), back_off(attempts + 1)]))
    assert back_off(attempts) <= timedelta(hours=1)


@pytest.mark.parametrize(("seconds", "asked"), [(29, False), (30, True), (31, True)])
def test_a_batch_is_asked_for_as_soon_as_its_back_off_is_over(seconds: int, asked: bool):
    waiting = batch("delta-16", attempts=1, updated=NOW - timedelta(seconds=seconds))
    assert isinstance(decide(seen(waiting)), Ask) == asked


@pytest.mark.parametrize("aside", [None, Aside.HELD])
def test_the_first_attempt_of_a_batch_that_a_command_made_waits_too(aside: Aside | None):
    made = batch("resync-3", Stage.CREATED, attempts=0, updated=JUST_NOW, aside=aside)
    assert isinstance(decide(seen(made)), Ask) == (aside is Aside.HELD)


def test_runs_are_tagged_by_mode_and_those_of_a_snapshot_by_its_number():
    assert tags_of(SyncBatch.parse("delta-18")) == {"ccs_dacs/mode": "delta"}
    assert tags_of(SyncBatch.parse("resync-3")) == {"ccs_dacs/mode": "resync"}
    assert tags_of(SyncBatch.parse("initial-7-02of16")) == {"ccs_dacs/mode": "initial", "ccs_dacs/snapshot": "7"}


SUCCESS, FAILURE, CANCELED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED


class TestDelivery:
    """When stored answers are taken to CCS."""

    @pytest.mark.parametrize(
        "past",
        [
            pytest.param([], id="the first"),
            pytest.param([(SUCCESS, JUST_NOW)], id="after a success"),
            pytest.param([(CANCELED, JUST_NOW), (FAILURE, JUST_NOW)], id="after one that an operator ended"),
            pytest.param([(SUCCESS, JUST_NOW), (FAILURE, JUST_NOW)], id="failures before a success are forgotten"),
            pytest.param([(FAILURE, NOW - timedelta(seconds=30))], id="a failure, its wait over"),
            pytest.param([(FAILURE, NOW - timedelta(hours=1))] * 10, id="many failures, the longest wait over"),
        ],
    )
    def test_answers_that_are_due_are_delivered(self, past: list[tuple[dg.DagsterRunStatus, datetime]]):
        assert why_not_deliver(1, past, NOW) is None

    @pytest.mark.parametrize(
        ("due", "past", "reason"),
        [
            pytest.param(0, [], "no answers are due", id="nothing due"),
            pytest.param(0, [(FAILURE, LONG_AGO)], "no answers are due", id="nothing due after a failure"),
            *(
                pytest.param(
                    2, [(status, LONG_AGO)], "2 answers are due, and a delivery is queued or running", id=status.value
                )
                for status in UNDER_WAY
            ),
            pytest.param(
                2,
                [(FAILURE, NOW - timedelta(seconds=29))],
                "2 answers are due; the last 1 deliveries failed, the next is tried later",
                id="a failure, its wait not over",
            ),
            pytest.param(
                2,
                [
                    (FAILURE, NOW - timedelta(seconds=119)),
                    (FAILURE, LONG_AGO),
                    (FAILURE, LONG_AGO),
                    (SUCCESS, LONG_AGO),
                ],
                "2 answers are due; the last 3 deliveries failed, the next is tried later",
                id="the wait grows with the failures in a row",
            ),
        ],
    )
    def test_no_delivery_and_the_reason_is_said(
        self, due: int, past: list[tuple[dg.DagsterRunStatus, datetime]], reason: str
    ):
        assert why_not_deliver(due, past, NOW) == reason

    def test_under_way_is_every_status_that_is_not_final(self):
        final = {SUCCESS, FAILURE, CANCELED}
        assert set(UNDER_WAY) == set(dg.DagsterRunStatus) - final - {dg.DagsterRunStatus.MANAGED}


def test_while_ccs_is_down_what_needs_it_is_not_begun_and_the_reason_is_told():
    view = seen(batch("delta-15"), batch("initial-7-01of02"), trouble="CCS is down", children=2)
    assert decide(view) == Skip("Cannot look: CCS is down")


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ([], "delta-1:1"),
        (["delta-1:1"], "delta-1:2"),
        (["delta-1:3", "delta-1:2"], "delta-1:4"),  # the first was deleted
        (["", "delta-1:2", "by hand"], "delta-1:3"),  # runs without a key, or with a foreign one
    ],
)
def test_a_run_key_is_never_one_that_a_run_has(used: list[str], expected: str):
    assert next_run_key("delta-1", used) == expected


def a_file(name: str, *, rest: float = 60, failures: int = 0, failed_ago: float | None = None) -> Seen:
    return Seen(name, Look(1, LONG_AGO), rest, failures, failed_ago)


class TestTransfers:
    """When foreign files are moved."""

    @pytest.mark.parametrize(
        "files",
        [
            pytest.param([a_file("a")], id="one at rest"),
            pytest.param([a_file("a", rest=30)], id="just long enough"),
            pytest.param([a_file("a"), a_file("b", rest=0)], id="another is being written"),
            pytest.param([a_file("a", failures=1, failed_ago=30)], id="a failure, its wait over"),
            pytest.param([a_file("a", failures=9, failed_ago=1), a_file("b")], id="another has failed"),
        ],
    )
    def test_files_at_rest_are_moved(self, files: list[Seen]):
        assert why_not_transfer(files, quiet=30, under_way=False) is None

    @pytest.mark.parametrize(
        ("files", "under_way", "reason"),
        [
            ([], False, "no foreign files are there"),
            ([a_file("a", rest=29.9)], False, "1 foreign files may still be written"),
            ([a_file("a")], True, "1 foreign files are to be moved, and a transfer is queued or running"),
            (
                [a_file("a", failures=2, failed_ago=59)],
                False,
                "1 foreign files could not be moved and are tried again later, first a",
            ),
        ],
    )
    def test_no_transfer_and_the_reason_is_said(self, files: list[Seen], under_way: bool, reason: str):
        assert why_not_transfer(files, quiet=30, under_way=under_way) == reason


@pytest.mark.parametrize(("hours", "over"), [(-2, True), (-0.5, False), (0.5, False), (1, True)])
def test_a_wait_that_begins_in_a_time_to_come_is_over_once_the_clock_was_set_back_by_as_much(hours, over):
    since = NOW - timedelta(hours=hours)
    assert is_over(timedelta(hours=1), since=since, now=NOW) is over
