"""A worker killed between any two of its effects, in each of its works; the next pass recovers without help."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ccs_dacs_pipeline.sandbox.changes import MOVE_IN, WEIGHTS
from ccs_dacs_pipeline.settings import PREFIX
from ccs_dacs_pipeline_tests import steps, workers
from ccs_dacs_pipeline_tests.conditions import Watcher, broken, settle_down
from ccs_dacs_pipeline_tests.conftest import worlds
from ccs_dacs_pipeline_tests.workers import Point

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.long

# Without new contacts: the children of one that DACS refuses are sent again by an operator, not by the next pass.
KINDS = [kind for kind in WEIGHTS if kind != MOVE_IN]

PACKAGE = "ccs_dacs_pipeline"
CLAIM, SETTLE, START = f"{PACKAGE}.sync.claim", f"{PACKAGE}.sync.settle", f"{PACKAGE}.sync.start"
CLIENT, LOCAL = f"{PACKAGE}.ccs.services:CcsClient", f"{PACKAGE}.folders.local:LocalFolder"
PUBLISH, FRAMES, STEPS = f"{PACKAGE}.sync.publish", f"{PACKAGE}.frames", "ccs_dacs_pipeline_tests.steps"

CSV, MANIFEST = r"\.csv$", "^MANIFEST"
TO_DELIVERY = [
    Point("page fetched", f"{CLIENT}._search", after=True, nth=6),
    Point("chunk of a frame written", f"{FRAMES}:FrameWriter.put", after=True),
    Point("frame stored, not recorded", f"{FRAMES}:_put", after=True),
    Point("frame recorded", f"{STEPS}:fetch", after=True),
    Point("mapped frame stored, not recorded", f"{FRAMES}:_put", after=True, nth=4),
    Point("mapped frame recorded", f"{STEPS}:map_entity", after=True, nth=2),
    Point("extract file written, not visible", f"{LOCAL}.place", naming=CSV),
    Point("extract file visible, not verified", f"{LOCAL}.place", naming=CSV, after=True),
    Point("extract verified, not recorded", f"{STEPS}:extracting.extract", after=True, nth=2),
    Point("extract recorded", f"{STEPS}:extracting.record", after=True),
    Point("sealed", f"{STEPS}:extracting.record", after=True, nth=3),
    Point("publishing begun", f"{PUBLISH}:_files_in_order"),
    Point("file linked under a temporary name", f"{LOCAL}.link", after=True),
    Point("first file visible, not recorded", f"{PUBLISH}:publish", after=True),
    Point("second file visible, not recorded", f"{PUBLISH}:publish", after=True, nth=2),
    Point("file recorded, its source there", f"{LOCAL}.remove", naming=CSV),
    Point("source removed", f"{LOCAL}.remove", naming=CSV, after=True),
    Point("manifest written, not visible", f"{LOCAL}.place", naming=MANIFEST),
    Point("manifest visible, not recorded", f"{LOCAL}.place", naming=MANIFEST, after=True),
    Point("manifest recorded as delivered", f"{PUBLISH}:_record_delivery"),
    Point("delivery recorded", f"{PUBLISH}:_record_delivery", after=True),
]
CLAIMING = [
    Point("requests chosen", f"{START}:_create", after=True),
    Point("attempts recorded", f"{CLAIM}:transition_all"),
    Point("first transition sent", f"{CLIENT}.transition", after=True),
    Point("fifth transition sent", f"{CLIENT}.transition", after=True, nth=5),
    Point("all transitions sent", f"{CLAIM}:transition_all", after=True),
    Point("states read, not recorded", f"{CLAIM}:read_states", after=True),
    Point("states recorded", f"{CLAIM}:_claim_chunk", after=True),
    Point("claimed", f"{START}:claim", after=True),
]
SHARDS = [
    Point("snapshot created", f"{START}:start_snapshot", after=True),
    Point("counted", f"{CLIENT}.count", after=True),
    Point("first shard sealed", f"{STEPS}:extracting.record", after=True, nth=3),
    Point("second shard begun", f"{STEPS}:begin", after=True, nth=2),
]
SETTLING = [
    Point("answers taken", f"{SETTLE}:_take_stored", after=True),
    Point("states read", f"{SETTLE}:read_states", after=True),
    Point("answer attempts recorded", f"{SETTLE}:transition_all"),
    Point("CCS told the first answer", f"{CLIENT}.transition", after=True),
    Point("CCS told all answers", f"{SETTLE}:transition_all", after=True),
    Point("ends read, not recorded", f"{SETTLE}:read_states", after=True, nth=2),
    Point("ends recorded", f"{SETTLE}:_settle_chunk", after=True),
]
INBOX = [
    Point("answers stored, not committed", f"{PACKAGE}.dacs.inbox:store", after=True),
    Point("answers committed, not answered", f"{PACKAGE}.dacs.inbox:_answer"),
]
MATRIX = [
    *[("sync", point) for point in CLAIMING + TO_DELIVERY],
    *[("initial", point) for point in SHARDS],
    # A snapshot goes to delivery by the same functions as a delta: only `make soak` kills it there too.
    *[("initial", point) for point in TO_DELIVERY if f"{PREFIX}TEST_ALL" in os.environ],
    *[("answers", point) for point in SETTLING],
]


class Scene:
    """One world for all points: what a kill leaves behind meets the next one too."""

    def __init__(self, world) -> None:
        self.world = world
        self.site = steps.quick_site(world.settings)
        self.watcher = Watcher(Path(world.settings.folder("upload")))

    def prepare(self, work: str) -> None:
        """Lets there be something to do for a work."""
        if work == "initial":
            return
        with self.site.ledger.read() as db:
            if not steps.life.highest_number(db, steps.Mode.INITIAL):
                steps.initial(self.site)
        self.world.sandbox.ccs.change(15, kinds=KINDS)
        if work == "answers":
            steps.incremental(self.site)
            self.world.sandbox.dacs.wait_until_idle()

    def recover(self) -> None:
        workers.forget_dead(self.world)
        settle_down(self.world, self.site)
        assert broken(self.world, self.watcher, logs=workers.log_of(self.world).read_text()) == []


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Iterator[Scene]:
    with worlds(tmp_path_factory.mktemp("crash")) as make:
        world = make(
            sandbox={"persons": 20, "negative_share": 0.1},
            settings={"ccs_page_size": 8, "lease_seconds": 5, "ccs_call_seconds": 5},
        )
        made = Scene(world)
        with made.watcher, made.site:
            yield made


@pytest.mark.parametrize(("work", "point"), MATRIX, ids=[f"{work}: {point.name}" for work, point in MATRIX])
def test_killed_at_a_point_the_next_pass_recovers(scene, work, point):
    scene.prepare(work)
    assert workers.ended(workers.start(scene.world, work, point=point)) == -signal.SIGKILL
    scene.recover()


@pytest.mark.parametrize("point", INBOX, ids=[point.name for point in INBOX])
def test_an_inbox_killed_at_a_point_is_posted_to_again(make_world, point):
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    world = make_world(sandbox={"persons": 20, "inbox_url": f"http://127.0.0.1:{port}"})
    with steps.quick_site(world.settings) as site:
        steps.initial(site)
        killed = workers.start(world, "inbox", port, point=point)
        world.sandbox.ccs.change(15, seed=1)
        steps.incremental(site)
        assert workers.ended(killed) == -signal.SIGKILL
        with workers.ending(workers.start(world, "inbox", port)):
            settle_down(world, site)
        assert broken(world) == []
    duplicates = world.status()["acknowledgements"]["duplicates"]
    assert (duplicates > 0) == (point is INBOX[1])
