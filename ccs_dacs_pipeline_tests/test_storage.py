"""Dagster's records on SQLite with kept engines: the same files, no event lost, and the UI told of each."""

import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import Queue

import dagster as dg
import pytest
import sqlalchemy as sa

from ccs_dacs_pipeline.storage import EventLog, SqliteStorage

PROJECT = Path(__file__).parents[1]
WAIT = 30
ASSET = dg.AssetKey("something")


@dg.asset(key=ASSET)
def something(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"run": context.run.run_id})


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home with the project's dagster.yaml."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "dagster.yaml").write_bytes((PROJECT / "dagster.yaml").read_bytes())
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


@pytest.fixture
def instance(home) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as opened:
        yield opened


def run_once(instance: dg.DagsterInstance) -> str:
    done = dg.materialize([something], instance=instance)
    assert done.success
    return done.run_id


def events_of(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [record.event_log_entry.dagster_event_type.value for record in instance.get_records_for_run(run_id).records]


def is_open(file: Path) -> bool:
    """Whether this process holds the file open."""
    return any(link.exists() and link.samefile(file) for link in Path("/proc/self/fd").iterdir())


def test_the_projects_dagster_yaml_names_it_and_the_files_are_where_dagster_looks(home, instance):
    run_id = run_once(instance)
    assert isinstance(instance.event_log_storage, EventLog)
    assert (home / "history" / "runs" / "index.db").exists()
    assert (home / "history" / "runs" / f"{run_id}.db").exists()


def test_dagsters_own_storage_reads_and_goes_on(home, instance):
    first = run_once(instance)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as plain:
        assert not isinstance(plain.event_log_storage, EventLog)
        second = run_once(plain)
        for run_id in (first, second):
            assert events_of(plain, run_id) == events_of(instance, run_id)
            assert "ASSET_MATERIALIZATION" in events_of(plain, run_id)
    found = [event.run_id for event in instance.fetch_materializations(ASSET, limit=10).records]
    assert found == [second, first]


def test_the_index_is_opened_once_and_closed_at_the_end(home):
    opened: list[str] = []

    def note(connection: sqlite3.Connection, _: object) -> None:
        opened.append(Path(connection.execute("PRAGMA database_list").fetchone()[2]).name)

    with dg.DagsterInstance.get() as instance:
        run_once(instance)
        sa.event.listen(sa.Pool, "connect", note)
        try:
            run_ids = [run_once(instance) for _ in range(3)]
        finally:
            sa.event.remove(sa.Pool, "connect", note)
        assert opened.count("index.db") == 0
        # The listener does listen: these files are opened for every event.
        assert all(opened.count(f"{run_id}.db") > 5 for run_id in run_ids)
        assert is_open(home / "history" / "runs" / "index.db")
    assert not is_open(home / "history" / "runs" / "index.db")


def test_who_watches_a_run_through_another_instance_learns_of_each_event(home, instance):
    """As the UI does: by changes of the run's file, which the journal beside it would hide while it is open."""
    run_id = run_once(instance)
    seen: Queue[str] = Queue()
    with dg.DagsterInstance.get() as ui:
        ui.watch_event_logs(run_id, None, lambda event, _: seen.put(event.message))
        for number in range(3):
            instance.report_engine_event(f"event {number}", job_name="a", run_id=run_id)
            while seen.get(timeout=WAIT) != f"event {number}":
                pass
    assert not (home / "history" / "runs" / f"{run_id}.db-wal").exists()


def test_many_threads_and_more_runs_than_engines_are_kept_lose_nothing(instance):
    run_ids = [str(uuid.uuid4()) for _ in range(10)]

    def report(number: int) -> None:
        instance.report_engine_event(f"event {number}", job_name="a", run_id=run_ids[number % 10])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(report, range(100)))
    assert [len(events_of(instance, run_id)) for run_id in run_ids] == [10] * 10


def test_two_processes_write_the_index_side_by_side(instance):
    program = "import dagster as dg; from ccs_dacs_pipeline_tests.test_storage import run_once\n"
    program += "with dg.DagsterInstance.get() as instance: [run_once(instance) for _ in range(3)]"
    with ExitStack() as stack:
        words = [sys.executable, "-c", program]
        others = [
            stack.enter_context(subprocess.Popen(words, cwd=PROJECT, stderr=subprocess.DEVNULL)) for _ in range(2)
        ]
        mine = [run_once(instance) for _ in range(3)]
    assert [other.returncode for other in others] == [0, 0]
    found = [event.run_id for event in instance.fetch_materializations(ASSET, limit=100).records]
    assert len(set(found)) == len(found) == 9
    assert set(mine) <= set(found)


def test_wiping_an_asset_forgets_its_events(instance):
    run_once(instance)
    instance.wipe_assets([ASSET])
    assert instance.fetch_materializations(ASSET, limit=10).records == []
    run_id = run_once(instance)
    assert [event.run_id for event in instance.fetch_materializations(ASSET, limit=10).records] == [run_id]


@pytest.mark.parametrize("given", ["base_dir", "DAGSTER_HOME", "the data folder"])
def test_where_it_is(tmp_path, monkeypatch, given):
    monkeypatch.setenv("CCS_DACS_ENV_FILE", "")
    monkeypatch.setenv("CCS_DACS_DATA_DIR", str(tmp_path / "data"))
    if given == "the data folder":
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("DAGSTER_HOME", "~/home")
        monkeypatch.setenv("CCS_DACS_CCS_PAGE_SIZE", "wrong")  # for the code location to tell, not for the storage
    config = {"base_dir": str(tmp_path / "elsewhere")} if given == "base_dir" else {}
    storage = SqliteStorage.from_config_value(None, config)
    place = {"base_dir": "elsewhere", "DAGSTER_HOME": "home", "the data folder": "data/dagster"}[given]
    assert Path(storage.base_dir) == tmp_path / place
    assert (tmp_path / place / "history" / "runs" / "index.db").exists()
    storage.dispose()
