"""A worker killed at any moment loses nothing: the next one goes on where it was (faults.md, Process)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from ccs_dacs_pipeline.settings import PREFIX

pytestmark = pytest.mark.long

SEED = int(os.environ.get(f"{PREFIX}TEST_SEED", "20"))
KILLS = int(os.environ.get(f"{PREFIX}TEST_KILLS", "3"))
# From the first import to the end of a pass; the earliest moments only start Python.
EARLIEST, LATEST = 2.0, 6.0


def command(world, *words: str, lease_seconds: float = 60) -> subprocess.Popen[bytes]:
    """Starts `ccs-dacs` as a process of its own on the world's site."""
    environment = world.environment(lease_seconds=lease_seconds, ccs_call_seconds=1, delta_max_requests=15)
    return subprocess.Popen(
        [sys.executable, "-m", "ccs_dacs_pipeline.cli", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(world, *words: str) -> None:
    """Runs a command to its end; it must succeed without anybody's help."""
    with command(world, *words) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def kill_some(world, rng: random.Random, *words: str) -> None:
    for _ in range(KILLS):
        with command(world, *words, lease_seconds=1) as process:
            try:
                process.wait(rng.uniform(EARLIEST, LATEST))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            process.communicate()


@pytest.mark.parametrize("words", [("initial", "--shards", "2"), ("sync",)], ids=["initial", "sync"])
def test_killed_again_and_again_it_recovers_without_help(make_world, words, capsys):
    world = make_world(sandbox={"negative_share": 0.1, "poll_seconds": 0.02})
    rng = random.Random(SEED)
    if words[0] == "sync":
        world.initial()
        world.sandbox.ccs.change(60, seed=SEED)
    began = time.monotonic()
    kill_some(world, rng, *words)
    finish(world, *words)
    world.sandbox.dacs.wait_until_idle()
    finish(world, "sync")
    world.sandbox.dacs.wait_until_idle()
    finish(world, "acks", "deliver")
    with capsys.disabled():
        sys.stdout.write(f"\n{words[0]}: seed {SEED}, {KILLS} kills, {time.monotonic() - began:.0f} s\n")
    world.assert_quiet()
    assert world.status()["suspect"] == []
