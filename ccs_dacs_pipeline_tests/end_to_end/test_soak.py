"""Workers killed at random moments, several in each sync (`make soak` kills many, `make test-long` a few)."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from ccs_dacs_pipeline.sandbox.changes import MOVE_IN, WEIGHTS
from ccs_dacs_pipeline.settings import PREFIX
from ccs_dacs_pipeline_tests import steps, workers
from ccs_dacs_pipeline_tests.conditions import Watcher, broken, settle_down
from ccs_dacs_pipeline_tests.ledger.databases import KINDS as KINDS_OF_LEDGER
from ccs_dacs_pipeline_tests.ledger.databases import empty_database

pytestmark = pytest.mark.long

SEED = int(os.environ.get(f"{PREFIX}TEST_SEED", "1"))
KILLS = int(os.environ.get(f"{PREFIX}TEST_STEP_KILLS", "8"))
SECONDS = float(os.environ.get(f"{PREFIX}TEST_SECONDS", "600"))
KINDS = [kind for kind in WEIGHTS if kind != MOVE_IN]
# A worker comes out of the fork server, and is through with its work, within this time on an idle machine.
LONGEST = {"initial": 0.5, "sync": 0.5, "answers": 0.15}


def kill_at(world, work: str, seconds: float) -> bool:
    """Starts a worker and kills it after a while; says whether it was still at work."""
    worker = workers.start(world, work)
    worker.join(seconds)
    worker.kill()
    code = workers.ended(worker)
    workers.forget_dead(world)
    assert code in (0, -signal.SIGKILL), workers.log_of(world).read_text()
    return code == -signal.SIGKILL


@pytest.mark.parametrize("kind", KINDS_OF_LEDGER)
def test_killed_at_any_moment_nothing_is_lost(make_world, tmp_path, capsys, kind):
    with empty_database(kind, tmp_path) as url:
        world = make_world(
            sandbox={"persons": 40, "negative_share": 0.1},
            settings={"ccs_page_size": 8, "delta_max_requests": 12, "ledger_url": url},
        )
        soak(world, capsys, kind, KILLS if kind == "sqlite" else KILLS // 4)
        world.site.close()


def soak(world, capsys, name: str, kills: int) -> None:
    rng = random.Random(f"{SEED}:{name}")
    began, killed, syncs = time.monotonic(), 0, 0
    with steps.quick_site(world.settings) as site, Watcher(Path(world.settings.folder("upload"))) as watcher:
        while killed < kills and time.monotonic() - began < SECONDS:
            first = syncs % 8 == 0
            if not first:
                world.sandbox.ccs.change(rng.randint(5, 40), kinds=KINDS)
            for _ in range(rng.randint(2, 5)):
                work = "initial" if first else rng.choice(["sync", "sync", "answers"])
                killed += kill_at(world, work, rng.uniform(0.0, LONGEST[work]))
                if not first and rng.random() < 0.5:
                    world.sandbox.ccs.change(rng.randint(1, 5), kinds=KINDS)
            if first:  # on a busy machine all were killed before they had begun
                steps.initial(site)
            settle_down(world, site)
            logs = workers.log_of(world)
            assert broken(world, watcher, logs=logs.read_text() if logs.exists() else "") == [], f"seed {SEED}"
            syncs += 1
    with capsys.disabled():
        seconds = time.monotonic() - began
        sys.stdout.write(f"\nsoak on {name}: seed {SEED}, {killed} kills in {syncs} syncs, {seconds:.0f} s\n")
