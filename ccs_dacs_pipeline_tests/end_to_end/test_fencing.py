"""An old worker, stopped before its last check and woken when its successor has finished, is refused.

Nothing is made older here: the successor waits for the real term and call limit, as the old worker's own clock does.
Only the old worker's term is short: a successor that a busy machine keeps waiting must not lose its own.
"""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ccs_dacs_pipeline.ledger import Ledger
from ccs_dacs_pipeline_tests import steps, workers
from ccs_dacs_pipeline_tests.conditions import Watcher, broken, settle_down
from ccs_dacs_pipeline_tests.conftest import worlds
from ccs_dacs_pipeline_tests.workers import Point

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.long

SYNC = "ccs_dacs_pipeline.sync"
CLIENT, LOCAL = "ccs_dacs_pipeline.ccs.services:CcsClient", "ccs_dacs_pipeline.folders.local:LocalFolder"
SEND = "ccs_dacs_pipeline.ccs.client:_BoundedStream.write"

POINTS = [
    ("sync", Point("claim: before the attempts are recorded", f"{SYNC}.claim:_claim_chunk")),
    ("sync", Point("claim: attempts recorded", f"{SYNC}.claim:transition_all")),
    ("sync", Point("transition: before its last check", f"{CLIENT}.transition", nth=3)),
    ("sync", Point("transition: checked, not sent", SEND, naming="PATCH", nth=3)),
    ("sync", Point("record: frame stored", "ccs_dacs_pipeline.frames:_put", after=True)),
    ("sync", Point("record: extract verified", "ccs_dacs_pipeline_tests.steps:extracting.record")),
    ("sync", Point("publish: before its last check", f"{SYNC}.publish:publish", nth=2)),
    ("sync", Point("publish: checked, not visible", f"{LOCAL}.place", naming="upload.*|^C1-DSPEX", nth=2)),
    ("sync", Point("publish: the manifest", f"{SYNC}.publish:_publish_manifest")),
    ("sync", Point("record: the delivery", f"{SYNC}.publish:_record_delivery")),
    ("answers", Point("transition: answer attempts recorded", f"{SYNC}.settle:transition_all")),
    ("answers", Point("transition: answer checked, not sent", SEND, naming="PATCH", nth=3)),
    ("answers", Point("record: ends read", f"{SYNC}.settle:read_states", after=True, nth=2)),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[object]:
    with worlds(tmp_path_factory.mktemp("fencing")) as make:
        made = make(sandbox={"persons": 20}, settings={"ccs_page_size": 8, "lease_seconds": 60, "ccs_call_seconds": 1})
        with steps.quick_site(made.settings) as site:
            steps.initial(site)
        yield made


@pytest.mark.parametrize(("work", "point"), POINTS, ids=[point.name for _, point in POINTS])
def test_a_worker_that_wakes_after_its_successor_has_finished_is_refused(world, work, point):
    watcher = Watcher(Path(world.settings.folder("upload")))
    with watcher, steps.quick_site(world.settings) as site:
        world.sandbox.ccs.change(15)
        if work == "answers":
            steps.incremental(site)
            world.sandbox.dacs.wait_until_idle()
        log = workers.log_of(world)
        before = log.stat().st_size if log.exists() else 0
        with workers.ending(workers.start(world, work, point=point, stop=True, lease_seconds=2)) as old:
            workers.wait_until_stopped(old)
            settle_down(world, site)
            assert broken(world, watcher) == []
            os.kill(old.pid, signal.SIGCONT)
            assert workers.ended(old) == 1
        # Or it ends by a call of another thread, which was under way when all were stopped and has outlived its time.
        assert re.search("LeaseLostError|no complete answer", log.read_text()[before:])
        settle_down(world, site)
        assert broken(world, watcher) == []


@pytest.mark.parametrize("names", [("", ""), ("one run", "one run")], ids=["two runs", "one run started twice"])
def test_two_workers_at_once_have_one_effect(world, names):
    world.sandbox.ccs.change(15)
    both = [workers.start(world, "sync", name) for name in names]
    assert [workers.ended(one) for one in both] == [0, 0]
    with steps.quick_site(world.settings) as site:
        settle_down(world, site)
    assert broken(world) == []


def test_a_transition_costs_no_reading_of_the_ledger(make_world, monkeypatch):
    world = make_world()
    world.sandbox.ccs.change(80, seed=1)
    readings = []
    read = Ledger.read
    monkeypatch.setattr(Ledger, "read", lambda ledger: (readings.append(1), read(ledger))[1])
    with steps.quick_site(world.settings) as site, steps.held(site, steps.INCREMENTAL) as lease:
        steps.begin(site, steps.SyncBatch(steps.Mode.DELTA, 1), lease)
    assert len(readings) < 10


@pytest.mark.postgres
def test_many_workers_at_once_on_postgresql_take_turns(make_world, tmp_path):
    from ccs_dacs_pipeline_tests.ledger.databases import empty_database  # noqa: PLC0415

    with empty_database("postgres", tmp_path) as url:
        world = make_world(sandbox={"persons": 20}, settings={"ledger_url": url, "ccs_page_size": 8})
        with steps.quick_site(world.settings) as site:
            steps.initial(site)
            world.sandbox.ccs.change(20, seed=1)
            with ThreadPoolExecutor(3) as pool:
                for one in [pool.submit(steps.incremental, site) for _ in range(3)]:
                    one.result()
            settle_down(world, site)
            assert broken(world) == []
        world.site.close()
