"""Sensors: they look, decide and ask for runs; every effect is the run's (design.md, decision 5).

Each is a pure decision over a view, with a thin shell that reads the view. A reading that fails is a skip with its
reason, never "nothing pending". The one thing they do besides: a run whose process has died is marked failed, since
Dagster's own launcher cannot tell, and until its longest time (dagster.yaml) it would keep the lane from everybody.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from sqlalchemy.engine import Connection

from ccs_dacs_pipeline.assets.batch import highest_begun
from ccs_dacs_pipeline.assets.work import HOLDER_TAG, PARTITIONS
from ccs_dacs_pipeline.ccs import CcsError
from ccs_dacs_pipeline.folders import FolderError
from ccs_dacs_pipeline.jobs import (
    DELIVER_ACKNOWLEDGEMENTS,
    INCREMENTAL_SYNC,
    INITIAL_SYNC,
    TRANSFER_FILES,
    deliver_acknowledgements,
    transfer_files,
)
from ccs_dacs_pipeline.ledger import LedgerError, orphans
from ccs_dacs_pipeline.ledger.foreign import Seen
from ccs_dacs_pipeline.ledger.leases import INCREMENTAL, SNAPSHOTS, held_by_other, live_holders, pull_in
from ccs_dacs_pipeline.ledger.life import Aside, Batch, Stage, gate_holder, highest_number
from ccs_dacs_pipeline.ledger.report import answers_due, unfinished
from ccs_dacs_pipeline.ledger.requests import unanswered
from ccs_dacs_pipeline.ledger.store import marked
from ccs_dacs_pipeline.partitions import Mode, SyncBatch
from ccs_dacs_pipeline.settings import SettingsError
from ccs_dacs_pipeline.sync.foreign import look
from ccs_dacs_pipeline.sync.settle import LOOKED
from ccs_dacs_pipeline.sync.site import Site
from ccs_dacs_pipeline.sync.start import BLOCKED, count_pending

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.SUSPENDED,
    dg.DagsterRunStatus.CANCELING,
]
_RUN_KEY_TAG = "dagster/run_key"
_FIRST_WAIT = timedelta(seconds=15)
_LONGEST_WAIT = timedelta(hours=1)
_LOOKED_BACK = 10
_LOOK_EVERY = timedelta(minutes=15)
"""How often requests that await an answer are looked at in CCS, which may have ended them by itself."""


def back_off(attempts: int) -> timedelta:
    """Returns how long to wait after so many attempts before the next: doubling, at most an hour."""
    return min(_FIRST_WAIT * 2 ** min(attempts, 20), _LONGEST_WAIT) if attempts else timedelta()


def is_over(wait: timedelta, *, since: datetime, now: datetime) -> bool:
    """Says whether a wait is over; one that begins in a time to come is, once the clock was set back by so much."""
    return abs(now - since) >= wait


@dataclass(frozen=True)
class View:
    """What the pending sensor sees.

    Attributes:
        now: the present moment.
        gate: the snapshot that holds the gate.
        unfinished: batches neither delivered nor aborted, oldest first.
        active: partitions of the sync jobs that have a run queued or running.
        delta_active: whether a run of the incremental job, or a command, has the lane.
        snapshot_active: whether a command works on a snapshot.
        pending: pending requests in CCS.
        blocked: pending requests that the last pick found to be waiting for unfinished batches.
        highest: the highest delta number that was begun.
        highest_resync: the same of resyncs, where there are children.
        children: entities to be sent again, since their parents are delivered by now.
        trouble: why CCS could not be asked.
    """

    now: datetime
    gate: int | None
    unfinished: Sequence[Batch]
    active: frozenset[str]
    delta_active: bool
    snapshot_active: bool
    pending: int
    blocked: int
    highest: int
    highest_resync: int = 0
    children: int = 0
    trouble: str | None = None


@dataclass(frozen=True)
class Ask:
    """A run to ask for."""

    key: SyncBatch
    job: str


@dataclass(frozen=True)
class Skip:
    """Why no run is asked for."""

    reason: str


def decide(view: View) -> Ask | Skip:
    """Decides on the next run: an unfinished batch first, else children to be sent again, else a new delta.

    While CCS does not answer only batches go on that need nothing of it: a run of another would fail, and put off the
    next attempt at it.
    """
    shard = next((batch for batch in view.unfinished if _shard_is_ready(batch, view)), None)
    if shard is not None:
        return Ask(shard.key, INITIAL_SYNC)
    if view.delta_active:
        return Skip("an incremental pass is queued or running")
    deltas = [batch for batch in view.unfinished if batch.key.mode is not Mode.INITIAL]
    going = [batch for batch in deltas if batch.aside is not Aside.STOPPED]
    # A batch passes the gate once: one that is being published goes on whatever snapshot came since.
    may_go = [batch for batch in going if view.gate is None or batch.reached(Stage.PUBLISHING)]
    ready = next((batch for batch in may_go if _is_ready(batch, view)), None)
    if ready is not None:
        return Ask(ready.key, INCREMENTAL_SYNC)
    return _decide_on_new(view, deltas, going)


def _decide_on_new(view: View, deltas: Sequence[Batch], going: Sequence[Batch]) -> Ask | Skip:
    """Decides when no unfinished batch is to go on.

    Args:
        view: what the sensor sees.
        deltas: unfinished deltas and resyncs.
        going: those of them that do not wait for an operator.
    """
    if view.trouble is not None:
        return Skip(f"Cannot look: {view.trouble}")
    if view.gate is not None:
        return Skip(f"held by snapshot {view.gate}; {view.pending} requests are pending")
    if view.children:
        return Ask(SyncBatch(Mode.RESYNC, view.highest_resync + 1), INCREMENTAL_SYNC)
    if not view.pending:
        return Skip(_waiting(going, "nothing pending"))
    if deltas and view.pending == view.blocked:
        stopped = len(deltas) - len(going)
        blocked = (
            f"{view.pending} pending requests wait for {len(deltas)} unfinished batches, {stopped} of them stopped"
        )
        return Skip(_waiting(going, blocked))
    return Ask(SyncBatch(Mode.DELTA, view.highest + 1), INCREMENTAL_SYNC)


def _shard_is_ready(batch: Batch, view: View) -> bool:
    mine = batch.key.mode is Mode.INITIAL and batch.aside is None and not view.snapshot_active
    return mine and str(batch.key) not in view.active and not _waits_for_shards(batch, view) and _is_ready(batch, view)


def _waits_for_shards(batch: Batch, view: View) -> bool:
    """Says whether a shard has its files while another is still at work: the run that seals the last publishes all."""
    shards = (one for one in view.unfinished if one.key.owner == batch.key.owner)
    at_work = any(not one.reached(Stage.SEALED) or str(one.key) in view.active for one in shards)
    return batch.reached(Stage.SEALED) and at_work


def _is_ready(batch: Batch, view: View) -> bool:
    if batch.aside is Aside.HELD:
        return view.gate is None
    if view.trouble is not None and not batch.rows_fixed:
        return False
    return is_over(back_off(max(batch.attempts, 1)), since=batch.updated, now=view.now)


def _waiting(going: Sequence[Batch], reason: str) -> str:
    if not going:
        return reason
    return f"{reason}; {len(going)} unfinished batches are tried again later, first {going[0].key}"


def pending_sensor(jobs: Sequence[object], *, running: bool) -> dg.SensorDefinition:
    """Returns the sensor that sees pending sync requests and unfinished batches.

    Args:
        jobs: the sync jobs.
        running: whether it is on without anybody turning it on.
    """

    @dg.sensor(
        name="pending_sync_requests",
        jobs=list(jobs),  # type: ignore[arg-type]
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        required_resource_keys={"site"},
        description="Asks for one incremental run when requests are pending in CCS, and resumes unfinished batches.",
    )
    def pending_sync_requests(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        site: Site = context.resources.site
        try:
            _end_dead_runs(context.instance, site)
            decision = decide(_view(context, site))
        except (LedgerError, SettingsError) as error:
            return dg.SkipReason(f"Cannot look: {error}")
        if isinstance(decision, Skip):
            return dg.SkipReason(decision.reason)
        key = str(decision.key)
        runs = context.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": key}))
        run_key = next_run_key(key, [run.tags.get(_RUN_KEY_TAG, "") for run in runs])
        request = dg.RunRequest(run_key=run_key, partition_key=key, job_name=decision.job, tags=tags_of(decision.key))
        return dg.SensorResult(
            run_requests=[request], dynamic_partitions_requests=[PARTITIONS.build_add_request([key])]
        )

    return pending_sync_requests


def next_run_key(key: str, used: Collection[str]) -> str:
    """Returns a run key for a batch that none of its runs has: one that is used is never asked for again.

    Args:
        key: the batch.
        used: the run keys of its runs; some may have been deleted, others have none.
    """
    numbers = [run_key.removeprefix(f"{key}:") for run_key in used]
    return f"{key}:{max((int(number) for number in numbers if number.isdecimal()), default=0) + 1}"


def is_dead(holder: str, last_event: datetime, *, holders: Collection[str], patience: timedelta, now: datetime) -> bool:
    """Says whether a started run has died: it neither holds a lease nor has said anything for twice its patience.

    A step holds its lease for as long as it works, and waits for one no longer than its patience.

    Args:
        holder: under which name the run takes leases.
        last_event: when the run last wrote an event.
        holders: who holds a lease now.
        patience: how long a step waits for a lease.
        now: the present moment.
    """
    return holder not in holders and is_over(2 * patience, since=last_event, now=now)


def _end_dead_runs(instance: dg.DagsterInstance, site: Site) -> None:
    """Marks the runs failed whose process has died; should one be alive after all, its effects are still fenced."""
    started = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    without_partition = {DELIVER_ACKNOWLEDGEMENTS, TRANSFER_FILES}
    ours = [run for run in started if run.job_name in without_partition or "dagster/partition" in run.tags]
    if not ours:
        return
    settings = site.settings
    with site.ledger.read() as db:
        holders = live_holders(db, grace=settings.ccs_call_seconds)
    patience = timedelta(seconds=settings.lease_seconds + settings.ccs_call_seconds)
    for run in ours:
        (last,) = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        holder = run.tags.get(HOLDER_TAG, run.run_id)
        last_event = datetime.fromtimestamp(last.timestamp, UTC)
        if is_dead(holder, last_event, holders=holders, patience=patience, now=datetime.now(UTC)):
            instance.report_run_failed(run, "The process of this run has died: it holds no lease and says nothing.")


def tags_of(key: SyncBatch) -> dict[str, str]:
    """Returns the tags of a batch's runs, to filter and to limit by."""
    tags = {"ccs_dacs/mode": key.mode.value}
    return tags | {"ccs_dacs/snapshot": str(key.number)} if key.mode is Mode.INITIAL else tags


def _view(context: dg.SensorEvaluationContext, site: Site) -> View:
    runs = context.instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY))
    active = {run.tags.get("dagster/partition", "") for run in runs}
    pending, trouble = 0, None
    try:
        pending = count_pending(site)
    except CcsError as error:
        trouble = str(error)
    grace = site.settings.ccs_call_seconds
    with site.ledger.write() as db:
        pull_in(db, site.settings.lease_seconds)
    with site.ledger.read() as db:
        lane_held = held_by_other(db, INCREMENTAL, grace=grace)
        children = len(orphans.ready(db, 1))
        return View(
            now=datetime.now(UTC),
            gate=gate_holder(db),
            unfinished=unfinished(db),
            active=frozenset(active),
            delta_active=lane_held or any(run.job_name == INCREMENTAL_SYNC for run in runs),
            snapshot_active=held_by_other(db, SNAPSHOTS, grace=grace),
            pending=pending,
            blocked=marked(db, BLOCKED) or 0,
            highest=highest_begun(context.instance, Mode.DELTA, highest_number(db, Mode.DELTA)),
            # Where no resync ever was the look goes through all partitions.
            highest_resync=highest_begun(context.instance, Mode.RESYNC, highest_number(db, Mode.RESYNC))
            if children
            else 0,
            children=children,
            trouble=trouble,
        )


def acknowledgements_sensor(*, running: bool) -> dg.SensorDefinition:
    """Returns the sensor that sees answers that are due to CCS.

    Args:
        running: whether it is on without anybody turning it on.
    """

    @dg.sensor(
        name="stored_acknowledgements",
        job=deliver_acknowledgements,
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        required_resource_keys={"site"},
        description=(
            "Asks for a run when stored acknowledgements, or answers of our own, are due to CCS, and now and then to "
            "look at the requests that await an answer."
        ),
    )
    def stored_acknowledgements(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        site: Site = context.resources.site
        try:
            _end_dead_runs(context.instance, site)
            with site.ledger.read() as db:
                due = answers_due(db) or int(_look_is_due(db))
        except (LedgerError, SettingsError) as error:
            return dg.SkipReason(f"Cannot look: {error}")
        records = context.instance.get_run_records(dg.RunsFilter(job_name=DELIVER_ACKNOWLEDGEMENTS), limit=_LOOKED_BACK)
        past = [(record.dagster_run.status, record.update_timestamp) for record in records]
        reason = why_not_deliver(due, past, datetime.now(UTC))
        return dg.SkipReason(reason) if reason else dg.RunRequest()

    return stored_acknowledgements


def _look_is_due(db: Connection) -> bool:
    looked = datetime.fromtimestamp(marked(db, LOOKED) or 0, UTC)
    return is_over(_LOOK_EVERY, since=looked, now=datetime.now(UTC)) and bool(unanswered(db, 1))


def why_not_deliver(due: int, past: Sequence[tuple[dg.DagsterRunStatus, datetime]], present: datetime) -> str | None:
    """Says why no delivery run is asked for, None when one is.

    Args:
        due: answers that are due; a look at the requests that await one counts as one.
        past: status and last change of the last delivery runs, the newest first.
        present: the present moment.
    """
    if not due:
        return "no answers are due"
    if any(status in UNDER_WAY for status, _ in past):
        return f"{due} answers are due, and a delivery is queued or running"
    failures = 0
    for status, _ in past:
        if status is not dg.DagsterRunStatus.FAILURE:
            break
        failures += 1
    if failures and not is_over(back_off(failures), since=past[0][1].astimezone(UTC), now=present):
        return f"{due} answers are due; the last {failures} deliveries failed, the next is tried later"
    return None


def foreign_files_sensor(*, running: bool) -> dg.SensorDefinition:
    """Returns the sensor that sees foreign files in the extract folder.

    Args:
        running: whether it is on without anybody turning it on.
    """

    @dg.sensor(
        name="foreign_files",
        job=transfer_files,
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        required_resource_keys={"site"},
        description="Asks for a run when foreign files stand still in the extract folder; remembers since when.",
    )
    def foreign_files(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        site: Site = context.resources.site
        if not site.settings.foreign_file_patterns:
            return dg.SkipReason("CCS_DACS_FOREIGN_FILE_PATTERNS is empty: no foreign files are moved")
        try:
            _end_dead_runs(context.instance, site)
            seen = look(site)
        except (FolderError, LedgerError, SettingsError) as error:
            return dg.SkipReason(f"Cannot look: {error}")
        filters = dg.RunsFilter(job_name=TRANSFER_FILES, statuses=UNDER_WAY)
        under_way = context.instance.get_runs_count(filters) > 0
        reason = why_not_transfer(seen, quiet=site.settings.foreign_quiet_seconds, under_way=under_way)
        return dg.SkipReason(reason) if reason else dg.RunRequest()

    return foreign_files


def why_not_transfer(seen: Sequence[Seen], *, quiet: float, under_way: bool) -> str | None:
    """Says why no transfer run is asked for, None when one is.

    Args:
        seen: the foreign files in the extract folder.
        quiet: seconds that a file must have stood still.
        under_way: whether a transfer run is queued or running.
    """
    if not seen:
        return "no foreign files are there"
    resting = [one for one in seen if one.rest >= quiet]
    if not resting:
        return f"{len(seen)} foreign files may still be written"
    if under_way:
        return f"{len(resting)} foreign files are to be moved, and a transfer is queued or running"
    if all(one.failed_ago is not None and abs(one.failed_ago) < _seconds_of(one.failures) for one in resting):
        return f"{len(resting)} foreign files could not be moved and are tried again later, first {resting[0].name}"
    return None


def _seconds_of(failures: int) -> float:
    return back_off(failures).total_seconds()
