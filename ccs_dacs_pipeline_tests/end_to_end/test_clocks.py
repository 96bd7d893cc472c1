"""The wall clock is set forward and back by hours, between processes and within one (libfaketime sets it)."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ccs_dacs_pipeline.settings import PREFIX
from ccs_dacs_pipeline_tests import steps, workers
from ccs_dacs_pipeline_tests.conditions import Watcher, broken, settle_down
from ccs_dacs_pipeline_tests.workers import Point

if TYPE_CHECKING:
    from starlette.types import ASGIApp

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed; .ci/run installs it")
# libfaketime takes the end of Python's sleep for a moment of the wall clock; a wait it lets alone.
SLEEP = "import threading, time\ntime.sleep = lambda seconds: threading.Event().wait(seconds) and None\n"
OPEN = """
from ccs_dacs_pipeline.settings import load_settings
from ccs_dacs_pipeline_tests import steps
site = steps.quick_site(load_settings())
"""
TAKE, PASS = f"{OPEN}site.lease(steps.INCREMENTAL, 'another')", f"{OPEN}steps.incremental(site)"
CHECKED = Point("checked, not sent", "ccs_dacs_pipeline.ccs.client:_BoundedStream.write", naming="PATCH", nth=3)


@pytest.fixture
def faked(tmp_path) -> dict[str, str]:
    """The environment of a process whose wall clock libfaketime sets; the clocks that nobody can set are left alone."""
    (tmp_path / "startup").mkdir()
    (tmp_path / "startup" / "sitecustomize.py").write_text(SLEEP)
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(tmp_path / "startup"),
    }


def run(world, script: str, zone: str = "UTC", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python beside the test's own process, on the world's site."""
    told = world.settings
    settings = world.environment(
        lease_seconds=told.lease_seconds, ccs_call_seconds=told.ccs_call_seconds, base_time_zone=zone
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        env=settings | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def finish(world, script: str, zone: str = "UTC", **environment: str) -> None:
    done = run(world, script, zone, **environment)
    assert done.returncode == 0, done.stderr


def ready(make_world, **options):
    """A world after its initial synchronization, with changes that wait."""
    world = make_world(**options)
    with steps.quick_site(world.settings) as site:
        steps.initial(site)
    touch(world)
    return world


def touch(world) -> None:
    for entity in ("person", "service_point"):
        for one, _ in itertools.islice(world.sandbox.ccs.records(entity), 10):
            world.sandbox.ccs.touch(entity, one)


def assert_all_holds(world, watcher: Watcher | None = None) -> None:
    with steps.quick_site(world.settings) as site:
        settle_down(world, site)
    assert broken(world, watcher) == []


def test_a_clock_that_is_set_forward_ends_no_lease(make_world, faked):
    world = ready(make_world, settings={"lease_seconds": 60})
    with workers.ending(workers.start(world, "sync", point=CHECKED, stop=True)) as at_work:
        workers.wait_until_stopped(at_work)
        assert "LeaseHeldError" in run(world, TAKE, FAKETIME="+3h", **faked).stderr
        os.kill(at_work.pid, signal.SIGCONT)
        assert workers.ended(at_work) == 0
    assert_all_holds(world)


def test_a_clock_that_is_set_back_keeps_no_lease_of_the_dead(make_world, faked):
    world = ready(make_world, settings={"lease_seconds": 60, "ccs_call_seconds": 1})
    assert workers.ended(workers.start(world, "sync", point=CHECKED, lease_seconds=3)) == -signal.SIGKILL
    finish(world, PASS, FAKETIME="-3h", **faked)
    assert_all_holds(world)


def zones_with(folder: Path, hours: int) -> str:
    """Makes a folder of time zones with the one zone `Test/Base`, so many hours before UTC."""
    made, source = folder / f"zones-{hours}", folder / "source"
    source.write_text(f"Zone Test/Base {hours}:00 - BASE\n")
    subprocess.run(["zic", "-d", str(made), str(source)], check=True)
    return str(made)


def test_an_hour_that_comes_twice_takes_nothing_back_at_dacs(make_world, tmp_path):
    """Winter time begins between two passes: by the clock on the wall the second is before the first."""
    world = ready(make_world, settings={"lease_seconds": 60})
    with Watcher(Path(world.settings.folder("upload"))) as watcher:
        for hours in (1, 0):
            finish(world, PASS, "Test/Base", PYTHONTZPATH=zones_with(tmp_path, hours))
            world.sandbox.dacs.wait_until_idle()
            touch(world)
        assert_all_holds(world, watcher)


@pytest.mark.skipif(f"{PREFIX}TEST_ALL" not in os.environ, reason="one of those of `make soak`")
def test_a_clock_that_is_set_with_every_call_takes_nothing_back_at_dacs(make_world, tmp_path, faked):
    """Change Date Times never go backwards, whatever the clock of the pass says."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    offsets = itertools.cycle(["+5h", "-5h", "+0", "-2d", "+90m"])

    def setting(app: ASGIApp) -> ASGIApp:
        async def set_and_answer(scope, receive, send) -> None:
            clock.write_text(next(offsets))
            await app(scope, receive, send)

        return set_and_answer

    world = ready(make_world, middleware=setting, settings={"lease_seconds": 60})
    stepping = {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1", **faked}
    with Watcher(Path(world.settings.folder("upload"))) as watcher:
        for _ in range(2):
            finish(world, PASS, **stepping)
            touch(world)
        assert_all_holds(world, watcher)
