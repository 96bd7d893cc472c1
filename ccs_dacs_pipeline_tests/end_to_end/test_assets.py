"""Every asset materialized by hand, for any partition, again and again (sync-lifecycle.md, Life of a batch)."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ccs_dacs_pipeline.assets import build_assets
from ccs_dacs_pipeline.checks import EQUATIONS
from ccs_dacs_pipeline.dacs.verify import verify_file
from ccs_dacs_pipeline.definitions import build_defs
from ccs_dacs_pipeline.entities import ENTITIES
from ccs_dacs_pipeline.folders import LocalFolder, SourceMissing
from ccs_dacs_pipeline.jobs import INCREMENTAL_SYNC, INITIAL_SYNC
from ccs_dacs_pipeline.ledger import life
from ccs_dacs_pipeline.ledger.leases import LeaseLostError
from ccs_dacs_pipeline.partitions import SYNC_BATCH, SyncBatch
from ccs_dacs_pipeline.sandbox.upload_files import inspect
from ccs_dacs_pipeline.sync import fetch, mapping, publish, start

SHARD, DELTA = "initial-1-01of01", "delta-1"
ORDER = [
    "ccs/sync_batch",
    "ccs/person",
    "ccs/service_point",
    "ccs/service_agreement",
    "dacs/contact",
    "dacs/metered_service_point",
    "dacs/metered_service",
    "extract/contact",
    "extract/metered_service_point",
    "extract/metered_service",
    "upload/delivery",
    "upload/acknowledgement",
    "upload/reconciliation",
]
CHANGING = ("seconds", "attempt")


def materialize(world, key: str, *names: str) -> dg.ExecuteInProcessResult:
    """Materializes some assets as a person at the UI would: in a run that is no sync job."""
    world.instance.add_dynamic_partitions(SYNC_BATCH, [key])
    selection = dg.AssetSelection.assets(*[dg.AssetKey(name.split("/")) for name in names])
    return dg.materialize(
        build_assets(world.site.profile),
        selection=selection,
        partition_key=key,
        instance=world.instance,
        resources={"site": dg.ResourceDefinition.hardcoded_resource(world.site)},
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def run_job(world, job: str, key: str | None) -> dg.ExecuteInProcessResult:
    if key is not None:
        world.instance.add_dynamic_partitions(SYNC_BATCH, [key])
    defs = build_defs(overrides={"site": dg.ResourceDefinition.hardcoded_resource(world.site)})
    return defs.resolve_job_def(job).execute_in_process(
        instance=world.instance, partition_key=key, raise_on_error=False
    )


def figures(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """The metadata of the materialized assets, but for what differs from run to run."""
    return {
        event.asset_key.to_user_string(): {
            name: value.value for name, value in event.materialization.metadata.items() if name not in CHANGING
        }
        for event in result.get_asset_materialization_events()
    }


def failure(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    event = next(event for event in result.all_events if event.is_step_failure)
    return str(event.step_failure_data.user_failure_data.description)


def test_a_run_without_a_partition_ends_and_says_how_batches_begin(world):
    assert "This run has no partition" in failure(run_job(world, "incremental_sync", None))


@pytest.mark.parametrize("key", [SHARD, DELTA])
def test_one_by_one_in_order_is_a_sync(world, key):
    if key == DELTA:
        world.initial()
        world.sandbox.ccs.change(10)
    for name in ORDER:
        assert materialize(world, key, name).success, name
    world.sandbox.dacs.wait_until_idle()
    world.worker.deliver_acknowledgements(wait=5)
    world.assert_quiet()


@pytest.mark.parametrize("key", [SHARD, DELTA])
def test_again_after_delivery_gives_the_recorded_figures_and_asks_ccs_for_nothing(world, key):
    world.initial()
    world.sandbox.ccs.change(10)
    world.sync()
    before = {name: figures(materialize(world, key, name))[name] for name in ORDER}
    world.sandbox.ccs.change(30, seed=9)
    uploaded = sorted(Path(world.settings.folder("upload")).iterdir())
    for name in ORDER:
        result = materialize(world, key, name)
        assert result.success, name
        assert figures(result)[name] == before[name], name
    assert sorted(Path(world.settings.folder("upload")).iterdir()) == uploaded
    world.sync()
    world.assert_quiet()


def test_again_before_it_is_sealed_fetches_again(world):
    assert materialize(world, SHARD, *ORDER[:5]).success
    person = next(iter(world.sandbox.ccs.records("person")))[0]
    world.sandbox.ccs.edit("person", person, lambda one: one.update(emailAddress="new@example.com"))
    first = figures(materialize(world, SHARD, "dacs/contact"))["dacs/contact"]["sha256"]
    assert materialize(world, SHARD, "ccs/person", "dacs/contact").success
    assert figures(materialize(world, SHARD, "dacs/contact"))["dacs/contact"]["sha256"] != first
    assert materialize(world, SHARD, *ORDER[1:]).success
    world.sync()
    world.assert_quiet()


def test_the_batch_asset_never_picks_more(world):
    world.initial()
    world.sandbox.ccs.change(5, seed=1)
    first = figures(materialize(world, DELTA, "ccs/sync_batch"))
    world.sandbox.ccs.change(5, seed=2)
    assert figures(materialize(world, DELTA, "ccs/sync_batch")) == first
    world.sync()
    world.assert_quiet()


def test_a_shard_waits_for_its_siblings_and_the_last_one_speaks_for_all(world):
    keys = ["initial-1-01of02", "initial-1-02of02"]
    first = run_job(world, INITIAL_SYNC, keys[0])
    assert first.success
    assert "upload/delivery" not in figures(first)
    assert run_job(world, INITIAL_SYNC, keys[1]).success
    for name in ("delivery", "acknowledgement", "reconciliation"):
        asset = dg.AssetKey(["upload", name])
        assert world.instance.get_materialized_partitions(asset) == set(keys)
    world.sandbox.dacs.wait_until_idle()
    world.assert_quiet()


def test_a_shard_goes_on_whose_snapshot_another_shard_has_begun_meanwhile(world, monkeypatch):
    """As in a backfill over the shards of a new snapshot, whose runs start at the same time."""
    begin = start.start_snapshot

    def overtaken(*details: Any) -> None:
        begin(*details)
        begin(*details)

    monkeypatch.setattr(start, "start_snapshot", overtaken)
    assert materialize(world, "initial-1-02of02", "ccs/sync_batch").success
    assert world.status()["gate"]["heldBy"] == "initial-1"


@pytest.mark.parametrize("name", ORDER[10:])
def test_the_run_that_publishes_a_snapshot_reports_all_its_shards(world, name):
    """A backfill over the shards counts as done only what a run of its own has reported."""
    world.initial(shards=2)
    records = world.instance.fetch_materializations(dg.AssetKey(name.split("/")), limit=5).records
    assert {record.partition_key for record in records} == {"initial-1-01of02", "initial-1-02of02"}
    (publishing,) = {record.run_id for record in records}
    assert world.instance.get_run_by_id(publishing).tags["dagster/partition"] == "initial-1-02of02"


def test_the_equations_of_every_shard_are_checked(world):
    world.initial(shards=2)
    (publishing,) = world.instance.get_runs(limit=1)
    found = world.instance.all_logs(publishing.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    checks = [entry.dagster_event.event_specific_data for entry in found]
    own = publishing.tags["dagster/partition"]  # of which Dagster notes no partition in a check
    shards = {one.partition or own for one in checks if one.check_name == EQUATIONS and one.passed}
    assert shards == {"initial-1-01of02", "initial-1-02of02"}


@pytest.mark.parametrize(
    ("job", "key", "said"),
    [
        (INCREMENTAL_SYNC, SHARD, "initial_sync"),
        (INITIAL_SYNC, DELTA, "incremental_sync"),
        (INITIAL_SYNC, "initial-1", "keys look like"),
        (INCREMENTAL_SYNC, "resync-1", "ccs-dacs resync"),
    ],
)
def test_a_key_of_the_wrong_kind_is_refused_with_the_right_job(world, job, key, said):
    assert said in failure(run_job(world, job, key))


@pytest.mark.parametrize(
    ("key", "next_one", "way"),
    [
        ("delta-900", "delta-2", "`ccs-dacs sync`"),
        ("initial-7-02of03", "initial-2-02of03", "`ccs-dacs initial --shards 3`"),
        ("initial-1-01of03", "initial-2-01of03", "`ccs-dacs initial --shards 3`"),
        ("resync-9", "resync-1", "`ccs-dacs resync`"),
    ],
)
def test_a_key_made_by_hand_begins_nothing_unless_it_comes_next(world, key, next_one, way):
    world.initial()
    world.sandbox.ccs.change(5)
    world.sync()
    world.sandbox.ccs.change(5, seed=2)
    before = world.status()
    refused = failure(materialize(world, key, "ccs/sync_batch"))
    assert f"There is no batch {key}" in refused
    assert next_one in refused
    assert way in refused
    assert world.status() == before
    assert [line["key"] for line in world.sync()["batches"]] == ["delta-2"]
    world.initial()
    assert world.status()["batches"][-1]["key"] == "initial-2-01of01"


@pytest.mark.parametrize(("name", "said"), [("ccs/person", "ccs/sync_batch"), ("upload/delivery", "sync_batch")])
def test_an_asset_without_what_it_needs_names_it(world, name, said):
    assert said in failure(materialize(world, SHARD, name))


@pytest.mark.parametrize("extension", ["csv", "csv.zip"])
def test_a_missing_extract_file_is_restored_with_the_same_content(make_world, extension):
    template = "{batchCode}_{batchNumber}_{rerunNumber}." + extension
    world = make_world(sandbox={"file_name_template": template}, settings={"file_name_template": template})
    assert materialize(world, SHARD, *ORDER[:10]).success
    folder = Path(world.settings.folder("extract"))
    content = {path.name: path.read_bytes() for path in folder.glob("C1-*")}
    (folder / f"C1-DCTIL_0001_00.{extension}").unlink()
    assert materialize(world, SHARD, "extract/contact").success
    assert {path.name: path.read_bytes() for path in folder.glob("C1-*")} == content
    assert materialize(world, SHARD, *ORDER[10:]).success
    world.sandbox.dacs.wait_until_idle()
    world.assert_quiet()


def test_a_lost_frame_of_a_sealed_batch_is_an_error_that_names_the_way_out(world):
    assert materialize(world, SHARD, *ORDER[:10]).success
    world.site.frames.delete(SHARD)
    assert "CCS is not asked again" in failure(materialize(world, SHARD, "ccs/person"))


def test_a_file_of_the_same_name_with_other_content_stops_the_batch(world):
    assert materialize(world, SHARD, *ORDER[:10]).success
    upload = Path(world.settings.folder("upload"))
    upload.mkdir(exist_ok=True)
    (upload / "C1-DSPIL_0001_00.csv").write_text("not ours\n")
    assert "C1-DSPIL_0001_00.csv" in failure(materialize(world, SHARD, "upload/delivery"))
    assert (upload / "C1-DSPIL_0001_00.csv").read_text() == "not ours\n"
    assert world.status()["batches"][0]["state"] == "stopped"
    assert "ccs-dacs batch resume initial-1" in failure(materialize(world, SHARD, "upload/delivery"))
    (upload / "C1-DSPIL_0001_00.csv").unlink()
    resumed = world.worker.resume("initial-1", wait=5)
    assert resumed["batches"][0]["state"] == "settled"
    assert (upload / "C1-DSPIL_0001_00.csv").read_text() != "not ours\n"


def test_a_late_worker_does_not_stop_the_batch_that_its_successor_publishes(world, monkeypatch):
    """The successor has published the file and removed the source, which the late worker does not find then."""
    assert materialize(world, SHARD, *ORDER[:10]).success
    key = SyncBatch.parse(SHARD)
    lease = world.site.lease(key.owner, "late")

    def overtaken(*_: object, **__: object) -> None:
        lease.release()
        world.site.lease(key.owner, "successor")
        raise SourceMissing("C1-DCTIL_0001_00.csv is not there")

    monkeypatch.setattr(publish, "publish", overtaken)
    with pytest.raises(LeaseLostError):
        publish.deliver(world.site, key, lease)
    assert world.status()["batches"][0]["state"] == "publishing"


def test_a_late_worker_does_not_stop_the_batch_for_bad_records(world, monkeypatch):
    for person, _ in list(world.sandbox.ccs.records("person"))[:30]:
        world.sandbox.ccs.edit("person", person, lambda one: one.update(personOrBusiness="X "))
    assert materialize(world, SHARD, *ORDER[:4]).success
    key = SyncBatch.parse(SHARD)
    lease = world.site.lease(SHARD, "late")
    mapped = mapping.Mapper.map

    def overtaken(*details: Any) -> Any:
        lease.release()
        world.site.lease(SHARD, "successor")
        return mapped(*details)

    monkeypatch.setattr(mapping.Mapper, "map", overtaken)
    with world.site.ledger.read() as db:
        batch = life.get(db, key)
    with pytest.raises(LeaseLostError):
        mapping.map_entity(world.site, batch, ENTITIES[0], lease)
    assert world.status()["batches"][0]["state"] == "claimed"


def test_a_torn_extract_file_fails_its_checks_and_is_not_recorded(world, monkeypatch):
    """The verifier must be able to fail: a writer that loses the last byte is found out."""
    assert materialize(world, SHARD, *ORDER[:7]).success
    whole = LocalFolder.open

    def torn(self, name):
        path = Path(world.settings.folder("extract")) / name
        path.write_bytes(path.read_bytes()[:-1])
        return whole(self, name)

    monkeypatch.setattr(LocalFolder, "open", torn)
    result = materialize(world, SHARD, "extract/contact")
    assert not result.success
    failed = {one.check_name for one in result.get_asset_check_evaluations() if not one.passed}
    assert {"line_end", "control_totals"} <= failed
    assert world.status()["batches"][0]["state"] == "claimed"


def test_a_delta_that_a_snapshot_overtakes_is_held_and_goes_on_when_the_gate_opens(world):
    world.initial()
    world.sandbox.ccs.change(8)
    assert materialize(world, DELTA, *ORDER[:10]).success
    start.start_snapshot(world.site, 2, 1)
    late = materialize(world, DELTA, *ORDER[10:])
    assert late.success
    assert figures(late) == {}
    assert world.status()["batches"][-2]["state"] == "held"
    assert world.worker.sync(wait=5)["held"] == "initial-2"
    world.initial()
    assert [line["key"] for line in world.sync()["batches"]] == [DELTA]
    world.assert_quiet()


def test_two_independent_readers_agree_on_every_file(world):
    world.initial(shards=2)
    world.sandbox.ccs.change(10)
    world.sync()
    upload = Path(world.settings.folder("upload"))
    manifests = [json.loads(path.read_text()) for path in upload.glob("MANIFEST_*.json")]
    files = {file["name"]: file for manifest in manifests for file in manifest["files"]}
    assert set(files) == {path.name for path in upload.glob("C1-*")}
    profile = world.site.profile
    for name, file in files.items():
        layout = profile.entities[file["entity"]]
        with (upload / name).open("rb") as stream:
            ours = verify_file(stream, layout=layout, dialect=profile.dialect)
        theirs = inspect(upload / name, len(layout.columns))
        assert ours.sound
        assert not theirs.dialect_faults
        assert ours.rows == theirs.rows == file["rows"], name
        assert ours.last_id == theirs.last_id, name
        assert (ours.bytes, ours.sha256) == (file["bytes"], file["sha256"]), name
    assert not world.sandbox.dacs.violations  # DACS compared bytes and sha256 with the manifest by itself


def test_ids_that_crowd_in_one_corner_are_read_in_bounded_ranges(world, monkeypatch):
    """Memory is bounded by the range, so no range may hold more than its pages, however ids are spread."""
    monkeypatch.setattr(fetch, "PAGES_PER_RANGE", 1)
    low, high = "0000000000", "9999999999"
    person = next(entity for entity in ENTITIES if entity.source == "person")
    found = list(fetch.ranges(world.site, person, low, high))
    counts = [world.site.ccs.count(person, *one) for one in found]
    assert sum(counts) == world.site.ccs.count(person, low, high)
    assert max(counts) <= world.settings.ccs_page_size
    assert found == sorted(found)


def test_frames_of_ended_batches_are_removed_after_their_time_and_the_figures_stay(make_world):
    world = make_world(settings={"frames_keep": "P0D"})
    world.initial()
    world.sandbox.ccs.change(5)
    world.worker.sync(wait=5)  # delivered, and still waiting for its answers
    frames = Path(world.settings.folder("frames"))
    before = world.reconcile()
    site = dg.ResourceDefinition.hardcoded_resource(world.site)
    assert build_defs(overrides={"site": site}).resolve_job_def("tidy_up").execute_in_process().success
    assert not list((frames / SHARD).rglob("*.parquet"))
    assert list((frames / DELTA).rglob("*.parquet")) or world.status()["batches"][-1]["state"] == "settled"
    assert world.reconcile() == before
    assert "ccs-dacs resync" in failure(materialize(world, SHARD, "ccs/person"))


@pytest.mark.parametrize("seed", [1, 2])
def test_changes_between_and_within_shards_arrive_once_all_is_quiet(world, seed):
    """The snapshot's rows may be older than the changes it meets: the deltas that the gate held put that right."""
    rng = random.Random(seed)
    shards = [f"initial-1-0{shard}of03" for shard in (1, 2, 3)]
    for key in shards:
        cuts = sorted(rng.sample(range(1, len(ORDER)), 3))
        for first, last in pairwise([0, *cuts, len(ORDER)]):
            assert materialize(world, key, *ORDER[first:last]).success
            world.sandbox.ccs.change(rng.randint(1, 5), seed=rng.randint(0, 999))
            world.worker.sync(wait=5)
    world.sandbox.dacs.wait_until_idle()
    world.sync()
    world.assert_quiet()


@pytest.mark.parametrize(
    "template", ["{batchCode}.{batchNumber}_{rerunNumber}", "{batchCode}_{partNumber}_{batchNumber}_{rerunNumber}"]
)
def test_an_abort_removes_the_batchs_own_extract_files_alone(make_world, template: str):
    world = make_world(
        settings={"file_name_template": template, "max_file_bytes": 1024}, sandbox={"file_name_template": template}
    )
    world.initial()
    extract = world.site.extract
    world.sandbox.ccs.change(20, seed=1)
    for name in ORDER[:10]:
        assert materialize(world, "delta-1", name).success
    first = set(extract.names())
    world.sandbox.ccs.change(20, seed=2)
    for name in ORDER[:10]:
        assert materialize(world, "delta-2", name).success
    second = set(extract.names()) - first
    assert len(first) > len(ENTITIES) < len(second)
    start.give_up(world.site, "delta-1")
    assert set(extract.names()) == second
