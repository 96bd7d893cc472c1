"""Re-baselines while changes go on: held, failed, resumed, given up (sync-lifecycle.md, Snapshot and deltas agree)."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from ccs_dacs_pipeline.cli.console import Problem
from ccs_dacs_pipeline.folders import FolderFull
from ccs_dacs_pipeline.ledger import life
from ccs_dacs_pipeline.sync import fetch

pytestmark = pytest.mark.long


def uploaded(world) -> set[str]:
    return {path.name for path in Path(world.settings.folder("upload")).iterdir() if path.is_file()}


def in_extract(world) -> list[str]:
    return sorted(path.name for path in Path(world.settings.folder("extract")).glob("[!.]*"))


def attempts(world, owner: str) -> list[int]:
    with world.site.ledger.read() as db:
        return [batch.attempts for batch in life.owned(db, owner)]


@pytest.fixture
def half_way(world, monkeypatch):
    """A second snapshot of three shards whose second one failed, and the ids of the shards that were fetched since."""
    world.initial()
    world.sandbox.ccs.change(10, seed=1)
    world.sync()
    writing, fetched = world.site.frames.writing, []

    def write_or_fail(batch, asset):
        if str(batch).startswith("initial-2-02"):
            raise FolderFull("no room is left for the frames")
        return writing(batch, asset)

    with monkeypatch.context() as full:
        full.setattr(world.site.frames, "writing", write_or_fail)
        with pytest.raises(Problem, match=r"initial-2-02of03 failed.*no room is left"):
            world.worker.initial(shards=3, new=False, wait=5)
    by_range = fetch._by_range

    def note(site, batch, entity, frames):
        fetched.append(str(batch.key))
        by_range(site, batch, entity, frames)

    monkeypatch.setattr(fetch, "_by_range", note)
    return fetched


def test_one_that_failed_half_way_is_resumed_by_its_missing_shards_alone(world, half_way):
    assert not any("_0002_" in name for name in uploaded(world) if "IL" in name)
    assert in_extract(world) == [f"C1-{code}_0002_00_T01.csv" for code in ("DCTIL", "DMSIL", "DSPIL")]
    world.sandbox.ccs.change(10, seed=2)
    assert world.worker.sync(wait=5)["held"] == "initial-2"
    assert world.status()["gate"] == {"open": False, "heldBy": "initial-2"}
    figures = world.initial()
    assert set(half_way) == {"initial-2-02of03", "initial-2-03of03"}
    assert [line["state"] for line in figures["batches"]] == ["settled"] * 3
    assert {f"C1-DCTIL_0002_00_T0{shard}.csv" for shard in (1, 2, 3)} <= uploaded(world)
    world.sync()
    world.assert_quiet()


def test_one_that_failed_half_way_can_be_given_up_and_changes_go_on(world, half_way):
    world.sandbox.ccs.change(10, seed=2)
    world.worker.abort("initial-2", wait=5)
    assert in_extract(world) == []
    assert world.status()["gate"]["open"]
    assert [line["state"] for line in world.status()["batches"] if line["key"].startswith("initial-2")] == [
        "aborted"
    ] * 3
    world.sync()
    world.assert_quiet()
    world.initial()
    assert "MANIFEST_initial-3_00.json" in uploaded(world)
    assert half_way == ["initial-3-01of01"] * 3
    world.assert_quiet()


def test_a_second_one_while_deltas_flow(world, monkeypatch):
    """Changes come all the time, and passes with them, the first of which has begun before the snapshot."""
    world.initial()
    changes = count(1)
    publish = world.site.extract.open

    def change_and_sync(*arguments):
        """Between any two steps of the snapshot that read an extract file."""
        with monkeypatch.context() as plain:
            plain.setattr(world.site.extract, "open", publish)
            world.sandbox.ccs.change(3, seed=next(changes))
            assert world.worker.sync(wait=5)["held"] == "initial-2"
        return publish(*arguments)

    world.sandbox.ccs.change(10, seed=0)
    world.worker.sync(wait=5)
    monkeypatch.setattr(world.site.extract, "open", change_and_sync)
    world.worker.initial(shards=2, new=False, wait=5)
    monkeypatch.undo()
    assert next(changes) > 6
    world.sandbox.dacs.wait_until_idle()
    world.sync()
    world.assert_quiet()
