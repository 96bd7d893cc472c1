"""Two Dagster daemons on one instance, and one partition launched twice by hand: one effect of each change."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from ccs_dacs_pipeline.jobs import INCREMENTAL_SYNC
from ccs_dacs_pipeline.ledger.life import highest_number
from ccs_dacs_pipeline.partitions import SYNC_BATCH, Mode, SyncBatch
from ccs_dacs_pipeline.settings import PREFIX
from ccs_dacs_pipeline_tests.conditions import Watcher, broken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccs_dacs_pipeline_tests.conftest import World

pytestmark = pytest.mark.skipif(f"{PREFIX}TEST_ALL" not in os.environ, reason="takes two minutes; `make soak` runs it")

PROJECT = Path(__file__).parents[2]
CHANGES, ROUNDS, PATIENCE = 10, 3, 180
MODULE = ["-m", "ccs_dacs_pipeline.definitions"]


@pytest.fixture
def environment(world) -> dict[str, str]:
    """That of Dagster's processes on the world's site, with an instance of their own and the sensors on."""
    home = world.settings.data_path / "dagster"
    home.mkdir()
    shutil.copy(PROJECT / "dagster.yaml", home)
    return world.environment(sensors="on")


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@contextmanager
def daemon(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (
        log.open("ab") as stream,
        subprocess.Popen(
            [program("dagster-daemon"), "run", *MODULE], env=environment, cwd=PROJECT, stdout=stream, stderr=stream
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def launch(environment: dict[str, str], key: str) -> subprocess.Popen[bytes]:
    """Queues a run of one partition, as an operator does."""
    tags = json.dumps({"dagster/partition": key})
    words = [program("dagster"), "job", "launch", *MODULE, "-j", INCREMENTAL_SYNC, "--tags", tags]
    return subprocess.Popen(words, env=environment, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_until_quiet(world: World, instance: dg.DagsterInstance) -> None:
    """Waits until every request is final in CCS, every batch settled, and every run at its end."""
    deadline = time.monotonic() + PATIENCE
    while True:
        figures = world.request_states()
        ended = not {"PENDING", "AWAITINGACK"} & set(figures)
        if ended and all(run.is_finished for run in instance.get_runs()):
            return
        assert time.monotonic() < deadline, figures
        time.sleep(0.5)


def test_two_daemons_and_two_launches_of_one_partition_have_one_effect(world, environment, monkeypatch):
    world.initial()
    monkeypatch.setenv("DAGSTER_HOME", environment["DAGSTER_HOME"])
    log = world.settings.data_path / "daemons.log"
    with ExitStack() as stack:
        instance = stack.enter_context(dg.DagsterInstance.get())
        watcher = stack.enter_context(Watcher(Path(world.settings.folder("upload"))))
        processes = [stack.enter_context(daemon(environment, log)) for _ in range(2)]
        for round_ in range(ROUNDS):
            with world.site.ledger.read() as db:
                key = str(SyncBatch(Mode.DELTA, highest_number(db, Mode.DELTA) + 1))
            world.sandbox.ccs.change(CHANGES, seed=round_)
            instance.add_dynamic_partitions(SYNC_BATCH, [key])
            for one in [launch(environment, key) for _ in range(2)]:
                _, errors = one.communicate(timeout=120)
                assert one.returncode == 0, errors.decode()
            wait_until_quiet(world, instance)
        assert [process.poll() for process in processes] == [None, None]
        runs = instance.get_runs()
    assert len(runs) > 2 * ROUNDS
    failed = [run.run_id for run in runs if run.status is not dg.DagsterRunStatus.SUCCESS]
    assert failed == [], log.read_text()[-4000:]
    assert broken(world, watcher) == []
