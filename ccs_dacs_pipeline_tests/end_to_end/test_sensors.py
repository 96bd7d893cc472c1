"""The sensors as the daemon evaluates them, on a world of their own: what they ask for, and what they get out of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import pytest
import sqlalchemy as sa
from starlette.responses import PlainTextResponse

from ccs_dacs_pipeline.assets.batch import KEY, highest_begun
from ccs_dacs_pipeline.cli.console import Problem
from ccs_dacs_pipeline.definitions import build_defs
from ccs_dacs_pipeline.folders import LocalFolder
from ccs_dacs_pipeline.jobs import DELIVER_ACKNOWLEDGEMENTS, INCREMENTAL_SYNC, TRANSFER_FILES
from ccs_dacs_pipeline.ledger import orphans
from ccs_dacs_pipeline.ledger.leases import INCREMENTAL, TRANSFERS
from ccs_dacs_pipeline.ledger.schema import batches
from ccs_dacs_pipeline.ledger.schema import orphans as orphan_rows
from ccs_dacs_pipeline.partitions import SYNC_BATCH, Mode, SyncBatch
from ccs_dacs_pipeline_tests.end_to_end.test_recover import lose_ledger
from ccs_dacs_pipeline_tests.folders.files import put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp

PENDING, STORED, FOREIGN = "pending_sync_requests", "stored_acknowledgements", "foreign_files"


def definitions(world) -> dg.Definitions:
    return build_defs(overrides={"site": dg.ResourceDefinition.hardcoded_resource(world.site)})


def tick(world, name: str) -> list[str | None] | str:
    """Evaluates a sensor; gives the partitions of the runs it asks for, or why it asks for none."""
    defs = definitions(world)
    sensor = defs.get_repository_def().get_sensor_def(name)
    with dg.build_sensor_context(instance=world.instance, definitions=defs, resources={"site": world.site}) as context:
        found = sensor._raw_fn(context)  # a direct call fails with `required_resource_keys`
    if isinstance(found, dg.SkipReason):
        return str(found.skip_message)
    asked = [found] if isinstance(found, dg.RunRequest) else found.run_requests
    return [one.partition_key for one in asked]


def started_run(world, job: str, key: str | None = None, *, ago: timedelta) -> str:
    """A run that was started some time ago and has said nothing since."""
    tags = {"dagster/partition": key} if key else {}
    run = world.instance.create_run_for_job(definitions(world).resolve_job_def(job), tags=tags)
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name=job, message="")
    world.instance.report_dagster_event(event, run.run_id, timestamp=(datetime.now(UTC) - ago).timestamp())
    return run.run_id


def status(world, run_id: str) -> dg.DagsterRunStatus:
    run = world.instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


class TestDeadRuns:
    """A killed process leaves its run as started: Dagster's own launcher never notices."""

    @pytest.mark.parametrize(
        ("sensor", "job", "key"),
        [
            (PENDING, INCREMENTAL_SYNC, "delta-1"),
            (STORED, DELIVER_ACKNOWLEDGEMENTS, None),
            (PENDING, TRANSFER_FILES, None),
        ],
    )
    def test_one_that_holds_no_lease_and_says_nothing_is_ended(self, world, sensor, job, key):
        dead = started_run(world, job, key, ago=timedelta(minutes=1))
        tick(world, sensor)
        assert status(world, dead) is dg.DagsterRunStatus.FAILURE

    def test_the_lane_is_free_then(self, world):
        world.sandbox.ccs.change(3)
        world.instance.add_dynamic_partitions(SYNC_BATCH, ["delta-1"])
        started_run(world, INCREMENTAL_SYNC, "delta-1", ago=timedelta(minutes=1))
        assert tick(world, PENDING) == ["delta-1"]

    def test_one_that_holds_a_lease_is_at_work_however_long_it_says_nothing(self, world):
        busy = started_run(world, INCREMENTAL_SYNC, "delta-1", ago=timedelta(hours=1))
        lease = world.site.lease(INCREMENTAL, busy)
        assert "queued or running" in tick(world, PENDING)
        assert status(world, busy) is dg.DagsterRunStatus.STARTED
        lease.release()

    def test_one_between_two_steps_is_left_alone(self, world):
        between = started_run(world, INCREMENTAL_SYNC, "delta-1", ago=timedelta(seconds=5))
        assert "queued or running" in tick(world, PENDING)
        assert status(world, between) is dg.DagsterRunStatus.STARTED


class TestEndedRequests:
    """CCS ends requests by itself, and nobody says so."""

    def test_requests_that_await_an_answer_are_looked_at_now_and_then(self, make_world):
        world = make_world(sandbox={"upload_folder": None})  # nobody answers
        assert tick(world, STORED) == "no answers are due"
        world.sandbox.ccs.touch("person", next(iter(world.sandbox.ccs.records("person")))[0])
        world.worker.sync(wait=5)
        assert tick(world, STORED) == [None]
        world.worker.deliver_acknowledgements(wait=5)
        assert tick(world, STORED) == "no answers are due"


class TestCcsIsDown:
    """What needs nothing of CCS goes on all the same."""

    def test_a_sealed_batch_is_resumed(self, world, tmp_path):
        (tmp_path / "no-folder").write_text("")
        world.site.upload = LocalFolder(tmp_path / "no-folder" / "upload")
        world.sandbox.ccs.change(3)
        with pytest.raises(Problem, match="no-folder"):
            world.worker.sync(wait=5)
        del world.site.upload
        world.sandbox.stop()
        with world.site.ledger.write() as db:
            db.execute(sa.update(batches).values(updated=datetime.now(UTC) - timedelta(hours=2)))
        assert tick(world, PENDING) == ["delta-1"]
        world.worker.resume("delta-1", wait=5)
        assert "Cannot look" in tick(world, PENDING)

    def test_a_tick_tries_once(self, make_world):
        """Dagster ends a tick after a minute, and what needs nothing of CCS would never be asked for."""
        calls = []

        def unavailable(app: ASGIApp) -> ASGIApp:
            async def answer(scope, receive, send) -> None:
                if scope["type"] != "http":
                    await app(scope, receive, send)
                else:
                    calls.append(scope["path"])
                    await PlainTextResponse("later", 503)(scope, receive, send)

            return answer

        assert "answered 503; gave up after 1 of 1 tries" in tick(make_world(middleware=unavailable), PENDING)
        assert len(calls) == 1


class TestNumbers:
    """The next batch is one above those that were begun, in the ledger or, when that is lost, as Dagster has seen."""

    def test_a_partition_that_was_only_named_does_not_count(self, world):
        world.sandbox.ccs.change(3)
        world.instance.add_dynamic_partitions(SYNC_BATCH, ["delta-900", "no batch at all"])
        assert tick(world, PENDING) == ["delta-1"]

    def test_a_lost_ledgers_numbers_are_not_given_again(self, world):
        world.sandbox.ccs.change(3)
        world.sync()
        lose_ledger(world)
        world.sandbox.ccs.change(3, seed=2)
        assert tick(world, PENDING) == ["delta-2"]
        world.instance.add_dynamic_partitions(SYNC_BATCH, ["delta-2"])
        job = definitions(world).resolve_job_def(INCREMENTAL_SYNC)
        job.execute_in_process(instance=world.instance, partition_key="delta-2", raise_on_error=False)
        assert [line["key"] for line in world.status()["batches"]] == ["delta-2"]

    @pytest.mark.parametrize(
        ("known", "pages", "asked_about"),
        [(2500, 1, []), (2499, 2, [{"delta-2500"}]), (0, 3, [{f"delta-{number}" for number in range(1501, 2501)}])],
        ids=["all known", "an older copy", "a lost ledger"],
    )
    def test_dagster_is_asked_about_no_batch_that_the_ledger_knows(self, known, pages, asked_about):
        """All that ever were begun would be read again at every tick."""
        looks: list[str] = []
        asked: list[set[str]] = []

        def note(_db: object, _cursor: object, text: str, values: Sequence[object], *_: object) -> None:
            if "FROM dynamic_partitions" in text:
                looks.append(text)
            if "FROM event_logs" in text:
                asked.append({one for one in values if isinstance(one, str) and one.startswith("delta-")})

        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions(SYNC_BATCH, [f"delta-{number}" for number in range(1, 2501)])
            for number in (1, 2498, 2500):
                instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=f"delta-{number}"))
            sa.event.listen(sa.Engine, "before_cursor_execute", note)
            try:
                assert highest_begun(instance, Mode.DELTA, known) == 2500
            finally:
                sa.event.remove(sa.Engine, "before_cursor_execute", note)
        assert asked == asked_about
        assert len(looks) == pages
        assert all("LIMIT" in text for text in looks)


def test_children_of_a_delivered_parent_are_asked_for(world):
    world.initial()
    with world.site.ledger.write() as db:
        agreement, _ = next(iter(world.sandbox.ccs.records("service_agreement")))
        (shard,) = db.execute(sa.select(batches.c.key)).scalars()
        orphans.add(db, SyncBatch.parse(shard), "metered_service", [(agreement, "contact", "0000000001")])
        db.execute(sa.update(orphan_rows).values(due=True))
    assert tick(world, PENDING) == ["resync-1"]


class TestForeignFiles:
    """Files of CCS's own batches, seen by the sensor and moved by its run."""

    def test_without_patterns_nothing_is_looked_for(self, world):
        assert "FOREIGN_FILE_PATTERNS is empty" in tick(world, FOREIGN)

    def test_a_file_at_rest_is_moved_as_a_materialization(self, make_world):
        world = make_world(settings={"foreign_file_patterns": "*.xml", "foreign_quiet_seconds": 0})
        assert tick(world, FOREIGN) == "no foreign files are there"
        put(world.site.extract, "a.xml", b"<a/>")
        assert tick(world, FOREIGN) == [None]
        job = definitions(world).resolve_job_def(TRANSFER_FILES)
        assert job.execute_in_process(instance=world.instance).success
        event = world.instance.get_latest_materialization_event(dg.AssetKey(["upload", "foreign_file"]))
        metadata = {name: one.value for name, one in event.asset_materialization.metadata.items()}
        assert metadata.keys() == {"name", "bytes", "sha256", "seconds", "from", "to"}
        assert (metadata["name"], metadata["bytes"]) == ("a.xml", 4)
        assert tick(world, FOREIGN) == "no foreign files are there"

    def test_a_run_fails_with_the_name_of_a_file_that_stays(self, make_world):
        world = make_world(settings={"foreign_file_patterns": "*.xml", "foreign_quiet_seconds": 0})
        put(world.site.extract, "a.xml", b"<a/>")
        put(world.site.upload, "a.xml", b"<b/>")
        job = definitions(world).resolve_job_def(TRANSFER_FILES)
        done = job.execute_in_process(instance=world.instance, raise_on_error=False)
        (failure,) = [event for event in done.all_events if event.is_step_failure]
        assert "a.xml" in failure.step_failure_data.user_failure_data.description
        assert "tried again later, first a.xml" in tick(world, FOREIGN)

    def test_a_run_beside_another_pass_leaves_the_work_to_it(self, make_world):
        world = make_world(settings={"foreign_file_patterns": "*.xml", "foreign_quiet_seconds": 0})
        put(world.site.extract, "a.xml", b"<a/>")
        lease = world.site.lease(TRANSFERS, "another pass")
        job = definitions(world).resolve_job_def(TRANSFER_FILES)
        assert job.execute_in_process(instance=world.instance).success
        assert world.site.extract.names() == ["a.xml"]
        lease.release()
