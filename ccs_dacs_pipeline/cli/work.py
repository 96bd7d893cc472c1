"""The work behind the commands: Dagster jobs run in this process against DAGSTER_HOME, so that the UI shows them."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG

from ccs_dacs_pipeline.assets.work import HOLDER_TAG
from ccs_dacs_pipeline.ccs import CcsError
from ccs_dacs_pipeline.cli.console import Problem, UsageProblem, progress, say
from ccs_dacs_pipeline.dacs.inbox import inbox
from ccs_dacs_pipeline.dacs.inbox_server import inbox_server
from ccs_dacs_pipeline.entities import ENTITIES
from ccs_dacs_pipeline.folders import FolderError
from ccs_dacs_pipeline.jobs import DELIVER_ACKNOWLEDGEMENTS, INCREMENTAL_SYNC, INITIAL_SYNC, TRANSFER_FILES
from ccs_dacs_pipeline.ledger import LedgerError, contents, foreign, life, report, requests
from ccs_dacs_pipeline.ledger.leases import ACKNOWLEDGEMENTS, INCREMENTAL, SNAPSHOTS, TRANSFERS, LeaseHeldError
from ccs_dacs_pipeline.ledger.life import Aside, Batch, Stage
from ccs_dacs_pipeline.ledger.requests import Outcome
from ccs_dacs_pipeline.ledger.schema import journal
from ccs_dacs_pipeline.partitions import SYNC_BATCH, KeyRefusedError, Mode, SyncBatch, snapshot_number
from ccs_dacs_pipeline.sensors import tags_of
from ccs_dacs_pipeline.settings import SettingsError, load_settings, variable
from ccs_dacs_pipeline.sync import recover, start
from ccs_dacs_pipeline.sync.choose import choose
from ccs_dacs_pipeline.sync.doctor import Line, examine, wrong_settings
from ccs_dacs_pipeline.sync.foreign import look, unnameable, until_rest
from ccs_dacs_pipeline.sync.site import Site, inbox_caller

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ccs_dacs_pipeline.ledger.leases import Lease
    from ccs_dacs_pipeline.settings import Settings

FAILURES = (Problem, LedgerError, CcsError, FolderError)
_POLL_SECONDS = 0.5
# Whoever can write there runs code as this user; the group may, where the umask lets it.
_HOME_MODE = 0o770
_ID_LENGTH = 10
_WHY_LEFT_OUT = {
    Outcome.QUARANTINED: "a rule is broken, see `ccs-dacs quarantine list`",
    Outcome.NOT_ELIGIBLE: "by the settings of eligibility it is not to be sent",
    Outcome.GONE: "CCS does not have it",
}
# Above the step of the ledger's clock, or the look after the wait may come too early by a thousandth.
_CLOCK_STEP = 0.05
# How Dagster names the classes of this package's errors.
_OWN_ERRORS = "ccs_dacs_pipeline."
# Where the UI has the jobs, as workspace.yaml names it; by that it lists the runs of a job.
_REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("ccs_dacs_pipeline"), SINGLETON_REPOSITORY_NAME)
_INTERRUPTED = "dagster._core.errors.DagsterExecutionInterruptedError"


def dagster_home(settings: Settings) -> Path:
    """Returns DAGSTER_HOME, made from the project's dagster.yaml where it does not exist, and exports it.

    Raises:
        UsageProblem: it cannot be made or written.
    """
    home = settings.dagster_home
    try:
        home.mkdir(_HOME_MODE, parents=True, exist_ok=True)
        if not (home / "dagster.yaml").exists():
            shutil.copy(project_file("dagster.yaml"), home / "dagster.yaml")
    except OSError as error:
        raise UsageProblem(
            f"Dagster's home {home} cannot be made or written ({error.strerror}): set DAGSTER_HOME, or "
            f"{variable('data_dir')}, to a folder that can."
        ) from None
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def project_file(name: str) -> Path:
    """Returns a file of the project's top level: of the checkout, else the copy that the wheel carries."""
    package = Path(__file__).parents[1]
    found = next((path for path in (package.parent / name, package / name) if path.exists()), None)
    if found is None:
        raise UsageProblem(f"This installation carries no {name}: use the project's own folder.")
    return found


@contextmanager
def opened_site(settings: Settings) -> Iterator[Site]:
    """Yields the site of the settings, its ledger opened, and closes it.

    Raises:
        UsageProblem: the settings name no database that can be opened.
    """
    with Site(settings) as site:
        try:
            _ = site.ledger
        except (OSError, ImportError, ValueError, sa.exc.ArgumentError) as error:
            # Without the error's own text, which may repeat a part of the URL.
            raise UsageProblem(
                f"The ledger cannot be opened ({type(error).__name__}): make {variable('data_dir')} a folder that can "
                f"be written, or {variable('ledger_url')} a SQLAlchemy URL (PostgreSQL needs the extra `postgres`)."
            ) from None
        yield site


@contextmanager
def opened() -> Iterator[Worker]:
    """Yields a worker on the site of the settings, and closes what it opened.

    Raises:
        SettingsError: a setting that a run needs is missing.
        UsageProblem: one is wrong in a way that the settings alone do not show.
    """
    settings = load_settings()
    with opened_site(settings) as site:
        _check_before_runs(site)
        with _instance(dagster_home(settings)) as instance:
            yield Worker(site, instance)


def _instance(home: Path) -> dg.DagsterInstance:
    """Opens Dagster's instance; two commands that come upon a new home at once would both make its tables.

    Raises:
        UsageProblem: its dagster.yaml is wrong, or the home cannot be written.
    """
    try:
        with _dagster_storage("The command"), (home / ".opening").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return dg.DagsterInstance.get()
    except (dg.DagsterError, OSError) as error:
        # Without the error's own text, which may repeat a password of dagster.yaml.
        raise UsageProblem(
            f"Dagster cannot be opened in DAGSTER_HOME {home} ({type(error).__name__}): check its dagster.yaml, and "
            "that the folder can be written."
        ) from None


def _check_before_runs(site: Site) -> None:
    """Finds wrong settings before a run does: a snapshot that cannot begin would hold the gate. Touches no network."""
    try:
        _ = site.names, site.ccs, site.extract, site.upload, site.frames
    except (ValueError, FolderError) as error:
        raise UsageProblem(str(error)) from None


class Worker:
    """Runs syncs to their end in this process. Holds the lane over all runs of a pass, under a name of its own."""

    def __init__(self, site: Site, instance: dg.DagsterInstance) -> None:
        self.site = site
        self._instance = instance
        self._holder = f"ccs-dacs {uuid.uuid4()}"
        # Not at the top: the module's own `defs` judge the settings, and what is wrong with them is for `main` to tell.
        from ccs_dacs_pipeline.definitions import build_defs  # noqa: PLC0415 - as said above

        # The command's own site serves its runs too: one ledger, one client.
        resource = dg.ResourceDefinition.hardcoded_resource(site)
        self._defs = build_defs(overrides={"site": resource})

    def initial(self, *, shards: int | None, new: bool, wait: float) -> dict[str, Any]:
        """Brings a snapshot to delivery: the unfinished one, or a new one.

        Raises:
            BatchStateError: it is stopped; names the way out.
            Problem: a run failed.
        """
        with self._lane(SNAPSHOTS, wait):
            with self.site.ledger.read() as db:
                number = life.gate_holder(db)
            if number is not None and new:
                self._give_up(f"initial-{number}", time.monotonic() + wait)
                say(f"Snapshot {number} is aborted.")
                number = None
            if number is None:
                with self.site.ledger.read() as db:
                    number = life.highest_number(db, Mode.INITIAL) + 1
                start.start_snapshot(self.site, number, shards or 1)
            else:
                say(f"Snapshot {number} is unfinished and goes on.")
            return self._finish_snapshot(number)

    def _finish_snapshot(self, number: int) -> dict[str, Any]:
        owner = f"initial-{number}"
        with self.site.ledger.read() as db:
            shards = life.owned(db, owner)
        for batch in shards:
            life.refuse_aside(batch)
        unsealed = [batch for batch in shards if not batch.reached(Stage.SEALED)]
        for batch in unsealed or shards[-1:]:
            self._run(INITIAL_SYNC, batch.key)
        return self._delivered(owner)

    def _delivered(self, owner: str) -> dict[str, Any]:
        with self.site.ledger.read() as db:
            batches = life.owned(db, owner)
            lines = report.batch_lines(db, batches)
            snapshot = life.gate_holder(db)
        if batches[0].aside is Aside.HELD:
            say(
                f"{owner} is {batches[0].reason}, and goes on with the next `ccs-dacs sync` after that is finished "
                f"(`ccs-dacs initial`) or given up (`ccs-dacs batch abort initial-{snapshot}`)."
            )
            return {"batches": lines}
        if not all(batch.reached(Stage.DELIVERED) for batch in batches):
            raise Problem(f"{owner} is {batches[0].state}, not delivered: {batches[0].reason or 'see its last run.'}")
        return {"batches": lines}

    def sync(self, *, wait: float, refused: bool = False) -> dict[str, Any]:
        """One incremental pass: unfinished batches, then deltas until nothing is pending that was when it began.

        Args:
            wait: seconds to wait for the lane.
            refused: whether to try again the requests that CCS has refused.

        Raises:
            Problem: a run failed, or the lane is not free in time.
        """
        with self.site.ledger.read() as db:
            snapshot = life.gate_holder(db)
        if snapshot is not None:
            say(f"held by snapshot {snapshot}")
            return {"batches": [], "held": f"initial-{snapshot}"}
        with self._lane(INCREMENTAL, wait):
            if refused:
                with self.site.ledger.write() as db:
                    requests.forget_refusals(db)
            keys = [batch.key for batch in self._unfinished_deltas()]
            until = start.latest_pending(self.site)
            problems = self._run_each(keys)
            try:
                keys += self._send_pending(until)
                keys += self._send_children()
            except Problem as problem:
                problems.append(str(problem))
            with self.site.ledger.read() as db:
                snapshot = life.gate_holder(db)
                batches = [life.get(db, key) for key in keys]
                lines = report.batch_lines(db, batches)
        if problems:
            raise Problem("; ".join(problems))
        if snapshot is not None:
            say(f"held by snapshot {snapshot}")
            return {"batches": lines, "held": f"initial-{snapshot}"}
        if not keys:
            say("nothing pending")
        return {"batches": lines, "held": None}

    def _send_pending(self, until: datetime | None) -> list[SyncBatch]:
        """Sends what is pending and was created up to a moment; says in which batches.

        Raises:
            Problem: a run failed, and with it the rest of this pass.
        """
        keys: list[SyncBatch] = []
        while until is not None and self._is_pending(until):
            with self.site.ledger.read() as db:
                key = SyncBatch(Mode.DELTA, life.highest_number(db, Mode.DELTA) + 1)
            self._run(INCREMENTAL_SYNC, key)
            with self.site.ledger.read() as db:
                batch = life.find(db, key)
            if batch is None or batch.aside is Aside.HELD:
                break
            keys.append(key)
        return keys

    def _send_children(self) -> list[SyncBatch]:
        """Sends again what was sent while its parent was withheld, once that is delivered; says in which batches."""
        keys: list[SyncBatch] = []
        while start.children_due(self.site):
            with self.site.ledger.read() as db:
                key = SyncBatch(Mode.RESYNC, life.highest_number(db, Mode.RESYNC) + 1)
            self._run(INCREMENTAL_SYNC, key)
            with self.site.ledger.read() as db:
                if life.find(db, key) is None:
                    break
            keys.append(key)
        return keys

    def _run_each(self, keys: Sequence[SyncBatch]) -> list[str]:
        """Runs unfinished batches; one that fails holds up neither the others nor new changes. Says what failed."""
        problems = []
        for key in keys:
            try:
                self._run(INCREMENTAL_SYNC, key)
            except Problem as problem:
                problems.append(str(problem))
        return problems

    def _unfinished_deltas(self) -> list[Batch]:
        with self.site.ledger.read() as db:
            return [
                batch
                for batch in report.unfinished(db)
                if batch.key.mode is not Mode.INITIAL and batch.aside is not Aside.STOPPED
            ]

    def _is_pending(self, until: datetime) -> bool:
        """Says whether something can be picked that was pending when the pass began."""
        pending = [request for request in start.pending_requests(self.site) if request.created <= until]
        with self.site.ledger.read() as db:
            waiting = requests.open_requests(db, [request.request_id for request in pending])
            fresh = (request for request in pending if request.request_id not in waiting)
            return bool(choose(fresh, limit=1, busy=requests.busy_entities(db)))

    def resync(self, entity: str, chosen: Sequence[str] | tuple[str, str], *, wait: float) -> dict[str, Any]:
        """Sends chosen entities anew: ids, or all of a key range given as (low, high).

        Raises:
            Problem: a snapshot holds the gate, a run failed, or the lane is not free in time.
        """
        with self.site.ledger.read() as db:
            snapshot = life.gate_holder(db)
        if snapshot is not None:
            raise Problem(
                f"A resync waits for its turn like a delta, and snapshot {snapshot} holds the gate: finish that with "
                f"`ccs-dacs initial`, or give it up with `ccs-dacs batch abort initial-{snapshot}`; then resync again."
            )
        ids = start.ids_in_range(self.site, entity, *chosen) if isinstance(chosen, tuple) else chosen
        if not ids:
            raise Problem(f"CCS has no {entity} whose id is from {chosen[0]} to {chosen[1]}: choose another range.")
        with self._lane(INCREMENTAL, wait):
            key, left = start.start_resync(self.site, entity, ids)
            if left:
                say(f"{len(left)} of the entities are in unfinished batches and go with those, for example {left[0]}.")
            self._run(INCREMENTAL_SYNC, key)
            figures = self._delivered(key.owner)
            self._say_what_is_left_out(key)
            for children in self._send_children():
                figures["batches"] += self._delivered(children.owner)["batches"]
            return figures

    def _say_what_is_left_out(self, key: SyncBatch) -> None:
        """Says which of the chosen entities were not sent, and why: a file without them tells nobody."""
        with self.site.ledger.read() as db:
            found = report.left_out(db, life.get(db, key))
        for (why, entity), group in groupby(found, key=lambda one: one[:2]):
            ids = [one for _, _, one in group]
            say(f"{len(ids)} {entity} of {key} not sent, for example {ids[0]}: {_WHY_LEFT_OUT[Outcome(why)]}.")

    def release(self, entity: str, ids: Sequence[str], *, wait: float) -> dict[str, Any]:
        """Sends quarantined records anew, as a resync; one that still breaks a rule stays quarantined.

        Raises:
            LedgerError: one is not quarantined.
            Problem: as for a resync.
        """
        with self.site.ledger.read() as db:
            contents.require_quarantined(db, entity, ids)
        return self.resync(entity, ids, wait=wait)

    def resume(self, owner: str, *, wait: float) -> dict[str, Any]:
        """Lets a batch or snapshot go on, to delivery."""
        mode = _mode_of(owner)
        with self._lane(SNAPSHOTS if mode is Mode.INITIAL else INCREMENTAL, wait):
            with self.site.ledger.write() as db:
                life.resume(db, owner)
            return self._finish(owner)

    def replay(self, owner: str, *, wait: float) -> dict[str, Any]:
        """Sends a delivered batch or snapshot again under new file names."""
        mode = _mode_of(owner)
        with self._lane(SNAPSHOTS if mode is Mode.INITIAL else INCREMENTAL, wait):
            with self.site.ledger.write() as db:
                life.replay(db, owner)
            return self._finish(owner)

    def _finish(self, owner: str) -> dict[str, Any]:
        number = snapshot_number(owner)
        if number is not None:
            return self._finish_snapshot(number)
        self._run(INCREMENTAL_SYNC, SyncBatch.parse(owner))
        return self._delivered(owner)

    def abort(self, owner: str, *, wait: float) -> dict[str, Any]:
        """Gives a batch or snapshot up; its claimed requests are answered with an error at once where CCS can be told.

        Raises:
            Problem: a run of it does not end in time.
        """
        _mode_of(owner)
        deadline = time.monotonic() + wait
        batches = self._give_up(owner, deadline)
        if any(batch.key.mode is Mode.DELTA for batch in batches):
            try:
                self.deliver_acknowledgements(wait=max(0.0, deadline - time.monotonic()))
            except Problem as problem:
                say(f"{owner} is aborted. Its answers stay due, and go with `ccs-dacs acks deliver`: {problem}")
        with self.site.ledger.read() as db:
            return {"batches": report.batch_lines(db, batches)}

    def _give_up(self, owner: str, deadline: float) -> list[Batch]:
        """Aborts once no run works on the batch, or on any shard of the snapshot, any more."""
        names = [INCREMENTAL]
        if snapshot_number(owner) is not None:
            with self.site.ledger.read() as db:
                names = [SNAPSHOTS, owner, *(str(batch.key) for batch in life.owned(db, owner))]
        with ExitStack() as held:
            for name in names:
                lease = self._acquire(name, deadline)
                if not lease.had_before:
                    held.callback(lease.release)
            return start.give_up(self.site, owner)

    def recover(self, *, dry_run: bool, wait: float) -> dict[str, Any]:
        """Finds what a lost ledger knew and brings it into the present one; with `dry_run` it only looks.

        Raises:
            CcsError: CCS cannot be asked.
            Problem: a snapshot holds the gate, or the lane is not free in time.
        """
        lease = self._acquire(INCREMENTAL, time.monotonic() + wait)
        try:
            with lease.kept():
                found = recover.look(self.site, self._instance.get_dynamic_partitions(SYNC_BATCH))
                if not dry_run:
                    recover.recover(self.site, found, lease)
        except life.GateClosedError as error:
            snapshot = f"initial-{error.snapshot}"
            raise Problem(
                f"Numbers and Change Date Times are recovered, but {len(found.unknown)} requests that nobody knew get "
                f"no batch while {snapshot} holds the gate: finish that with `ccs-dacs initial`, or, when this ledger "
                f"is an older copy, give it up with `ccs-dacs batch abort {snapshot}`; then run `ccs-dacs recover` "
                "again."
            ) from None
        finally:
            lease.release()
        return {
            "dryRun": dry_run,
            "ledgerWasEmpty": found.was_empty,
            "numbers": {mode.value: number for mode, number in found.numbers.items()},
            "fileNumbers": found.file_numbers,
            "changeDateTimes": dict(found.moments),
            "unknown": [
                {"syncRequestId": one.request_id, "entity": one.entity, "id": one.entity_id} for one in found.unknown
            ],
            "batches": [str(key) for key in found.batches],
            "notKnown": found.not_known,
        }

    def deliver_acknowledgements(self, *, wait: float) -> dict[str, Any]:
        """One pass that takes every answer that is due to CCS.

        Raises:
            Problem: the pass failed, or another does not end in time.
        """
        with self.site.ledger.read() as db:
            due = report.answers_due(db)
        with self._lane(ACKNOWLEDGEMENTS, wait):
            self._execute(DELIVER_ACKNOWLEDGEMENTS, None, {})
        with self.site.ledger.read() as db:
            figures = report.acknowledgement_figures(db)
            left = report.answers_due(db)
        return {"due": due, "stillDue": left, "acknowledgements": figures}

    def transfer(self, *, wait: float) -> dict[str, Any]:
        """One pass over the foreign files of the extract folder, which waits until those there stand still.

        Returns:
            What was sent, what failed, and what is still being written.

        Raises:
            SettingsError: no patterns are set.
            Problem: the pass itself failed, or another does not end in time.
        """
        self.site.settings.required("foreign_file_patterns", why="moving foreign files")
        deadline = time.monotonic() + wait
        with self._lane(TRANSFERS, wait):
            began = datetime.now(UTC)
            rest = min(until_rest(self.site, look(self.site)), deadline - time.monotonic())
            if rest > 0:
                say(f"waiting {rest:.0f} s to see what is still being written")
                time.sleep(rest + _CLOCK_STEP)
            problem = self._attempt(TRANSFER_FILES)
            with self.site.ledger.read() as db:
                figures = foreign.pass_report(db, began)
            figures["failed"] += [vars(one) for one in unnameable(self.site)]
        if problem and not figures["failed"]:
            raise problem
        return figures

    def _attempt(self, job: str) -> Problem | None:
        try:
            self._execute(job, None, {})
        except Problem as problem:
            return problem
        return None

    def _run(self, job: str, key: SyncBatch) -> None:
        with _dagster_storage(str(key)):
            self._instance.add_dynamic_partitions(SYNC_BATCH, [str(key)])
        self._execute(job, str(key), tags_of(key))

    def _execute(self, job: str, partition: str | None, tags: dict[str, str]) -> None:
        """Runs a job to its end.

        Raises:
            Problem: it failed; the message is that of the step that failed.
        """
        shown = progress(f"{job} {partition or ''}".strip(), lambda: self._figures(partition))
        # What fails within a step is part of the result.
        with shown, _dagster_storage(partition or job):
            result = self._defs.resolve_job_def(job).execute_in_process(
                instance=self._instance,
                partition_key=partition,
                tags={**tags, HOLDER_TAG: self._holder, REPOSITORY_LABEL_TAG: _REPOSITORY.get_label()},
                raise_on_error=False,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
            # Without it the UI does not know where the job is, and cannot execute the run again.
            self._instance.run_storage.replace_job_origin(result.dagster_run, RemoteJobOrigin(_REPOSITORY, job))
        if not result.success:
            raise Problem(f"{partition or job} failed: {_cause(result)} (run {result.run_id})")

    def _figures(self, partition: str | None) -> str:
        if partition is None:
            return ""
        with self.site.ledger.read() as db:
            batch = life.find(db, SyncBatch.parse(partition))
        return batch.state if batch else "beginning"

    def _acquire(self, name: str, deadline: float) -> Lease:
        """Waits for a lane until the deadline (monotonic seconds).

        Raises:
            Problem: another worker holds it still.
        """
        while True:
            try:
                return self.site.lease(name, self._holder)
            except LeaseHeldError as error:
                if time.monotonic() >= deadline:
                    raise Problem(str(error)) from None
                time.sleep(_POLL_SECONDS)

    @contextmanager
    def _lane(self, name: str, wait: float) -> Iterator[None]:
        lease = self._acquire(name, time.monotonic() + wait)
        try:
            with lease.kept():
                yield
        finally:
            lease.release()


def _cause(result: dg.ExecuteInProcessResult) -> str:
    """Returns the message of the step that failed first."""
    for event in _failures(result):
        data = event.step_failure_data
        if data.user_failure_data and data.user_failure_data.description:
            return str(data.user_failure_data.description)
        error = data.error
        while error is not None and error.cause is not None and not error.message.startswith(_OWN_ERRORS):
            error = error.cause
        if error is not None:
            # An error of ours says what to do, without the name of its class; its own cause is a library's.
            named, _, text = error.message.strip().partition(": ")
            if named == _INTERRUPTED:
                return "interrupted; the same command goes on where it ended"
            return text if named.startswith(_OWN_ERRORS) else error.message.strip()
    return "see the run in the Dagster UI"


@contextmanager
def _dagster_storage(work: str) -> Iterator[None]:
    """Tells that Dagster's own storage failed during some work, without the statement and its values."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        reason = error.orig if isinstance(error, sa.exc.DBAPIError) else type(error).__name__
        raise Problem(
            f"{work} ended, for Dagster cannot write its records ({reason}): look after the room and the rights of "
            f"DAGSTER_HOME, {os.environ['DAGSTER_HOME']}, or after the database that its dagster.yaml names, then "
            "repeat the command."
        ) from None


def _failures(result: dg.ExecuteInProcessResult) -> list[dg.DagsterEvent]:
    return [event for event in result.all_events if event.is_step_failure]


def _mode_of(owner: str) -> Mode:
    """Returns what a batch or snapshot is for.

    Raises:
        UsageProblem: the text is the name of neither, but for example that of a shard.
    """
    if snapshot_number(owner) is not None:
        return Mode.INITIAL
    try:
        key = SyncBatch.parse(owner)
    except KeyRefusedError:
        raise UsageProblem(f"{owner!r} names no batch: names look like initial-7, delta-18 or resync-3.") from None
    if key.mode is Mode.INITIAL:
        raise UsageProblem(f"{owner} is one shard: name the whole snapshot, {key.owner}.")
    return key.mode


def chosen_entities(
    entity: str, ids: Path | None, low: str | None, high: str | None
) -> Sequence[str] | tuple[str, str]:
    """Returns what a resync is to send: the ids of a file, or a key range as (low, high).

    Raises:
        UsageProblem: the options do not go together, or an id is no id.
    """
    _check_entity(entity)
    if (ids is None) == (low is None and high is None) or (low is None) != (high is None):
        raise UsageProblem("Give either --ids FILE, or both --low and --high.")
    chosen = (
        [line.strip() for line in ids.read_text(encoding="utf-8-sig", errors="replace").splitlines() if line.strip()]
        if ids
        else [str(low), str(high)]
    )
    _check_ids(chosen)
    if ids is None and chosen[0] > chosen[1]:
        raise UsageProblem("--low is above --high; swap them.")
    if not chosen:
        raise UsageProblem(f"{ids} holds no ids: write one a line.")
    return chosen if ids else (chosen[0], chosen[1])


def _check_entity(entity: str) -> None:
    if entity not in {one.name for one in ENTITIES}:
        raise UsageProblem(f"An entity is {', '.join(one.name for one in ENTITIES)}, not {entity!r}.")


def _check_ids(ids: Sequence[str]) -> None:
    for one in ids:
        if not (one.isascii() and one.isdigit() and len(one) == _ID_LENGTH):
            raise UsageProblem(f"{one!r} is no id: ids are {_ID_LENGTH} digits.")


def check_records(entity: str, ids: Sequence[str]) -> None:
    """Checks how records are named.

    Raises:
        UsageProblem: there is no such entity, or an id is no id.
    """
    _check_entity(entity)
    _check_ids(ids)


def quarantined(site: Site) -> list[dict[str, str]]:
    """Returns the records that are quarantined now."""
    with site.ledger.read() as db:
        return report.quarantined(db)


def reject(site: Site, entity: str, ids: Sequence[str]) -> list[dict[str, str]]:
    """Accepts that quarantined records are not sent; returns those that are left.

    Raises:
        LedgerError: one is not quarantined.
    """
    with site.ledger.write() as db:
        contents.reject_quarantined(db, entity, ids)
        return report.quarantined(db)


def all_batches(site: Site) -> list[dict[str, Any]]:
    """Returns every batch as the reports show it."""
    with site.ledger.read() as db:
        return report.batch_lines(db, life.listed(db))


def one_batch(site: Site, owner: str) -> dict[str, Any]:
    """Returns all that the ledger knows about a batch or a snapshot, figures only.

    Raises:
        UsageProblem: it cannot be the name of any.
        LedgerError: there is none of that name.
    """
    _mode_of(owner)
    with site.ledger.read() as db:
        found = life.owned(db, owner)
        if not found:
            raise life.BatchStateError(f"The ledger has no batch {owner}; `ccs-dacs batch list` shows what it has.")
        keys = [str(batch.key) for batch in found]
        lines = sa.select(journal).where(journal.c.batch.in_([owner, *keys])).order_by(journal.c.id)
        return {
            "batches": report.batch_lines(db, found),
            "entities": [
                {"batch": str(batch.key), **line} for batch in found for line in report.entity_figures(db, batch)
            ],
            "requests": {str(batch.key): report.outcomes(db, batch) for batch in found},
            "equations": [
                {"batch": str(batch.key), **vars(one), "holds": one.holds}
                for batch in found
                for one in report.equations(db, batch)
            ],
            "journal": [
                {"at": row.at.isoformat(), "batch": row.batch, "event": row.event, "detail": row.detail}
                for row in db.execute(lines)
            ],
        }


def preflight() -> list[Line]:
    """Looks at everything that is configured, and returns a line for each."""
    try:
        settings = load_settings()
    except SettingsError as error:
        return [wrong_settings(error)]
    lines: list[Line] = []
    with progress("preflight", lambda: lines[-1].check if lines else ""):
        lines.extend(examine(settings))
    return lines


def serve_inbox(settings: Settings, host: str, port: int) -> None:
    """Serves the inbox until stopped.

    Raises:
        Problem: the address cannot be listened on.
    """
    caller = inbox_caller(settings)
    with opened_site(settings) as site, _listener(host, port) as listener, suppress(KeyboardInterrupt):
        application = inbox(site.ledger, caller, max_bytes=int(settings.ack_max_bytes))
        shown = f"[{host}]" if ":" in host else host
        say(f"The acknowledgement inbox listens on http://{shown}:{listener.getsockname()[1]}/acknowledgements")
        inbox_server(application).run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    """Opened here, since uvicorn would end the process with a code of its own where that fails."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Problem(f"The inbox cannot listen on {host}:{port} ({error.strerror}): choose another.") from None
