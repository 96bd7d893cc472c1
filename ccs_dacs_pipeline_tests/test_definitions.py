"""The code location: what it names (interface.md, Names in Dagster), and that loading it touches nothing."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, time, timedelta
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from ccs_dacs_pipeline.dacs.names import FileNameError
from ccs_dacs_pipeline.definitions import build_defs
from ccs_dacs_pipeline.settings import PREFIX, SettingsError
from ccs_dacs_pipeline_tests.canaries import Canaries

PROJECT = Path(__file__).parent.parent
EDGES = [
    "ccs/person -> dacs/contact",
    "ccs/service_agreement -> dacs/metered_service",
    "ccs/service_point -> dacs/metered_service_point",
    "ccs/sync_batch -> ccs/person",
    "ccs/sync_batch -> ccs/service_agreement",
    "ccs/sync_batch -> ccs/service_point",
    "dacs/contact -> dacs/metered_service",
    "dacs/contact -> extract/contact",
    "dacs/metered_service -> extract/metered_service",
    "dacs/metered_service_point -> dacs/metered_service",
    "dacs/metered_service_point -> extract/metered_service_point",
    "extract/contact -> upload/delivery",
    "extract/metered_service -> upload/delivery",
    "extract/metered_service_point -> upload/delivery",
    "upload/acknowledgement -> upload/reconciliation",
    "upload/delivery -> upload/acknowledgement",
]
ASSETS = sorted({name for edge in EDGES for name in edge.split(" -> ")})
WITH_EXTERNAL = sorted([*ASSETS, "upload/foreign_file"])
EXTRACT_CHECKS = {
    "encoding",
    "header",
    "line_end",
    "column_count",
    "required_values",
    "external_ids_ascending",
    "control_totals",
}

# Loads the definitions while the interpreter reports every socket, process, database and change of a file.
WATCHED_LOADING = """if True:
    import json, os, sys
    TOUCHING = ("socket.", "sqlite3.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.mkdir",
                "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.", "tempfile.")
    touched = []

    def watch(event, details):
        if event == "open":
            path, _, flags = details
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path != os.devnull:
                touched.append(f"open {path}")
        elif event.startswith(TOUCHING):
            touched.append(f"{event} {details}")

    import dagster, httpx, polars, sqlalchemy, uvicorn  # what a library does when it is loaded is its own affair
    sys.addaudithook(watch)
    from ccs_dacs_pipeline.definitions import defs
    seen = list(touched)
    keys = sorted(key.to_user_string() for key in defs.resolve_all_asset_keys())
    print(json.dumps({"keys": keys, "touched": seen}))
"""

# Resolves sensors and jobs, as daemon and UI do, while Dagster's remarks on betas are errors.
WITHOUT_REMARKS = """if True:
    import warnings
    import dagster
    warnings.simplefilter("error", dagster.BetaWarning)
    from ccs_dacs_pipeline.definitions import defs
    defs.get_repository_def()
"""


def load_elsewhere(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Loads the definitions in a process of their own, in an empty folder, with no settings but those given."""
    return run_elsewhere(WATCHED_LOADING, folder, **settings)


def run_elsewhere(program: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a process of its own, in an empty folder, with no settings but those given."""
    environment = {"PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(folder)}
    environment |= {PREFIX + name: value for name, value in settings.items()}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_it_loads_without_any_setting_and_touches_neither_network_nor_disk(tmp_path: Path):
    done = load_elsewhere(tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"keys": WITH_EXTERNAL, "touched": []}
    assert list(tmp_path.iterdir()) == []


def test_it_loads_with_settings_whose_servers_and_folders_do_not_exist(tmp_path: Path):
    done = load_elsewhere(
        tmp_path,
        CCS_BASE_URL="https://ccs.invalid/ouaf",
        LEDGER_URL="postgresql+psycopg://user@ledger.invalid/ledger",
        EXTRACT_URL="sftp://user@files.invalid/extract",
        DATA_DIR=str(tmp_path / "absent"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["touched"] == []


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CCS_DACS_MANIFEST", "perhaps")
    with pytest.raises(SettingsError, match=r"^CCS_DACS_MANIFEST: "):
        build_defs()


def test_a_file_name_template_without_a_number_it_needs_is_refused_at_loading(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CCS_DACS_FILE_NAME_TEMPLATE", "{batchCode}_{batchNumber}.csv")
    with pytest.raises(FileNameError, match=r"FILE_NAME_TEMPLATE .* lacks"):
        build_defs()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine that runs the tests, and no `.env` of its user."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(f"{PREFIX}ENV_FILE", "")


@cache
def defs() -> dg.Definitions:
    return build_defs()


def assets() -> list[dg.AssetsDefinition]:
    return [asset for asset in defs().assets or () if isinstance(asset, dg.AssetsDefinition)]


def sensors(definitions: dg.Definitions) -> list[dg.SensorDefinition]:
    return [sensor for sensor in definitions.sensors or () if isinstance(sensor, dg.SensorDefinition)]


def check_specs(key: str) -> list[dg.AssetCheckSpec]:
    return [spec for asset in assets() for spec in asset.check_specs if spec.asset_key.to_user_string() == key]


def test_the_lineage():
    graph = defs().resolve_asset_graph()
    edges = [
        f"{parent.to_user_string()} -> {key.to_user_string()}"
        for key in graph.get_all_asset_keys()
        for parent in graph.get(key).parent_keys
    ]
    assert sorted(edges) == EDGES


def test_all_assets_are_partitioned_by_sync_batch_alone():
    partitions = {asset.key.to_user_string(): asset.partitions_def for asset in assets()}
    assert sorted(partitions) == ASSETS
    assert {getattr(one, "name", None) for one in partitions.values()} == {"sync_batch"}
    assert all(isinstance(one, dg.DynamicPartitionsDefinition) for one in partitions.values())


def test_the_jobs():
    jobs = {job.name: job for job in defs().resolve_all_job_defs() if not job.name.startswith("__")}
    assert sorted(jobs) == [
        "deliver_acknowledgements",
        "incremental_sync",
        "initial_sync",
        "tidy_up",
        "transfer_files",
    ]
    assert {name for name, job in jobs.items() if job.partitions_def is None} == {
        "deliver_acknowledgements",
        "tidy_up",
        "transfer_files",
    }
    assert {name: job.executor_def for name, job in jobs.items()} == dict.fromkeys(jobs, dg.in_process_executor)


@pytest.mark.parametrize(
    ("job", "lane"),
    [
        ("initial_sync", "initial"),
        ("incremental_sync", "incremental"),
        ("deliver_acknowledgements", "acknowledgements"),
        ("tidy_up", "tidy"),
        ("transfer_files", "transfers"),
    ],
)
def test_runs_of_a_job_carry_the_lane_that_the_run_queue_limits(job: str, lane: str):
    assert defs().resolve_job_def(job).tags == {"ccs_dacs/lane": lane}


@pytest.mark.parametrize("job", ["initial_sync", "incremental_sync"])
def test_a_sync_job_is_the_whole_graph(job: str):
    selected = defs().resolve_job_def(job).asset_layer.executable_asset_keys
    assert sorted(key.to_user_string() for key in selected) == ASSETS


def test_the_sensors_and_the_jobs_they_ask_for():
    targets = {sensor.name: sorted(target.job_name for target in sensor.targets) for sensor in sensors(defs())}
    assert targets == {
        "foreign_files": ["transfer_files"],
        "pending_sync_requests": ["incremental_sync", "initial_sync"],
        "stored_acknowledgements": ["deliver_acknowledgements"],
    }


@pytest.mark.parametrize(
    ("setting", "status"),
    [
        (None, dg.DefaultSensorStatus.STOPPED),
        ("off", dg.DefaultSensorStatus.STOPPED),
        ("on", dg.DefaultSensorStatus.RUNNING),
    ],
)
def test_sensors_run_from_the_start_only_where_the_site_says_so(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, status: dg.DefaultSensorStatus
):
    if setting is not None:
        monkeypatch.setenv("CCS_DACS_SENSORS", setting)
    assert {sensor.default_status for sensor in sensors(build_defs())} == {status}


@pytest.mark.parametrize("entity", ["contact", "metered_service_point", "metered_service"])
def test_every_extract_asset_has_its_checks_and_each_blocks_what_follows(entity: str):
    specs = check_specs(f"extract/{entity}")
    assert {spec.name for spec in specs} == EXTRACT_CHECKS
    assert all(spec.blocking and spec.description for spec in specs)


def test_the_reconciliation_has_the_equations_as_its_check():
    assert [(spec.name, spec.blocking) for spec in check_specs("upload/reconciliation")] == [
        ("control_equations", True)
    ]


def test_no_other_asset_has_checks():
    checked = {spec.asset_key.to_user_string() for asset in assets() for spec in asset.check_specs}
    assert {key for key in checked if not key.startswith("extract/")} == {"upload/reconciliation"}


@pytest.mark.parametrize(
    ("profile", "columns"),
    [
        ("core", {"contact": 13, "metered_service_point": 12, "metered_service": 11}),
        ("assumed-tail", {"contact": 13, "metered_service_point": 20, "metered_service": 12}),
    ],
)
def test_mapped_assets_show_the_columns_of_the_profile(
    monkeypatch: pytest.MonkeyPatch, profile: str, columns: dict[str, int]
):
    monkeypatch.setenv("CCS_DACS_LAYOUT_PROFILE", profile)
    graph = build_defs().resolve_asset_graph()
    for entity, number in columns.items():
        metadata: Any = graph.get(dg.AssetKey(["dacs", entity])).metadata
        schema = metadata["dagster/column_schema"]
        assert len(schema.columns) == number
        assert {column.name for column in schema.columns} == metadata["dagster/column_lineage"].deps_by_column.keys()


def test_every_asset_job_and_sensor_says_what_it_does_and_whose_it_is():
    graph = defs().resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description
        assert node.owners
        assert node.kinds
        assert node.group_name == key.path[0]
    jobs = [job for job in defs().resolve_all_job_defs() if not job.name.startswith("__")]
    assert all(one.description for one in (*jobs, *sensors(defs())))


def test_a_test_can_bring_a_world_of_its_own():
    site = object()
    assert build_defs(overrides={"site": site}).resources == {"site": site}


def test_no_secret_of_the_site_is_in_what_the_ui_is_told(monkeypatch: pytest.MonkeyPatch):
    from dagster._core.remote_representation.external_data import RepositorySnap  # noqa: PLC0415 - no public name

    canaries = Canaries()
    for name, value in canaries.settings().items():
        monkeypatch.setenv(name, value)
    snapshot = RepositorySnap.from_def(build_defs().get_repository_def())
    assert canaries.in_text(dg.serialize_value(snapshot)) == []


def nightly_schedule() -> dg.ScheduleDefinition:
    (schedule,) = build_defs().get_repository_def().schedule_defs
    return schedule


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("America/Los_Angeles", datetime(2026, 3, 6, tzinfo=UTC)),
        ("America/Los_Angeles", datetime(2026, 10, 30, tzinfo=UTC)),
        ("Europe/Helsinki", datetime(2026, 3, 27, tzinfo=UTC)),
        ("Europe/Helsinki", datetime(2026, 10, 23, tzinfo=UTC)),
    ],
)
def test_the_nightly_schedule_comes_once_a_night_where_clocks_change(
    monkeypatch: pytest.MonkeyPatch, zone: str, day: datetime
):
    """Los Angeles skips or repeats the hour before; Helsinki the hour itself."""
    monkeypatch.setenv("CCS_DACS_BASE_TIME_ZONE", zone)
    schedule = nightly_schedule()
    ticks = schedule_execution_time_iterator(day.timestamp(), schedule.cron_schedule, schedule.execution_timezone)
    nights = [tick.astimezone(ZoneInfo(zone)) for tick in islice(ticks, 5)]
    assert {later.date() - earlier.date() for earlier, later in pairwise(nights)} == {timedelta(days=1)}
    assert {night.time() for night in nights} <= {time(3, 30), time(4)}


def test_the_nightly_schedule_is_in_utc_where_the_site_names_no_zone():
    assert nightly_schedule().execution_timezone == "UTC"


def test_definitions_are_made_without_dagsters_remarks_on_betas(tmp_path: Path):
    done = run_elsewhere(WITHOUT_REMARKS, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
