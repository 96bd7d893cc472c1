"""Requests, batches, snapshot, gate and acknowledgements against a small model, in many interleavings.

Everything is the pipeline's own: steps, ledger, files, and the paging of CCS's client. What is left out is what has
tests of its own: sockets, processes and Dagster. Changes happen between any two steps and between the chunks of a
snapshot, which hold a few entities each.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ccs_dacs_pipeline.ccs import CcsClient, Connection
from ccs_dacs_pipeline.dacs.inbox import sort_items
from ccs_dacs_pipeline.entities import ENTITIES
from ccs_dacs_pipeline.ledger import Ledger, life, report
from ccs_dacs_pipeline.ledger.acknowledgements import store
from ccs_dacs_pipeline.ledger.leases import ACKNOWLEDGEMENTS, INCREMENTAL
from ccs_dacs_pipeline.ledger.life import Aside, Stage
from ccs_dacs_pipeline.partitions import Mode, SyncBatch
from ccs_dacs_pipeline.sandbox import SandboxConfig, SimulatedCcs, SimulatedDacs, compare
from ccs_dacs_pipeline.settings import PREFIX, load_settings
from ccs_dacs_pipeline.sync import start
from ccs_dacs_pipeline.sync.extract import extract, record
from ccs_dacs_pipeline.sync.fetch import fetch
from ccs_dacs_pipeline.sync.mapping import map_entity
from ccs_dacs_pipeline.sync.publish import deliver
from ccs_dacs_pipeline.sync.settle import settle
from ccs_dacs_pipeline.sync.site import Site
from ccs_dacs_pipeline.sync.start import Nothing, begin
from ccs_dacs_pipeline_tests.conditions import broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INTERLEAVINGS = int(os.environ.get(f"{PREFIX}TEST_INTERLEAVINGS", "8"))
CHUNK = 7
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
SEEDS = st.integers(0, 10**6)


@cache
def new_ledger() -> bytes:
    """A migrated ledger: making one takes longer than most interleavings."""
    with tempfile.TemporaryDirectory() as folder:
        with Ledger(f"sqlite:///{folder}/new.db") as ledger:
            ledger.migrate()
        return Path(folder, "new.db").read_bytes()


class MemoryCcs(CcsClient):
    """The client with its paging and checks, on a simulated CCS in this process instead of HTTP."""

    def __init__(self, ccs: SimulatedCcs, between: Callable[[], None]) -> None:
        self._connection = Connection("http://127.0.0.1:1", None, page_size=CHUNK)
        self._ccs, self._between = ccs, between

    def close(self) -> None: ...

    def transition(self, request_id: str, answer: Any, *, guard: Callable[[], object] = lambda: None) -> None:
        guard()
        self._ccs.transition(request_id, {"syncRequestId": request_id, **answer.to_json()})

    def _search(self, service: str, filters: dict[str, Any], limit: int, decode: Callable[[bytes], Any]) -> Any:
        if service == "syncRequests":
            return decode(self._requests(filters, limit))
        entity = next(one for one in ENTITIES if one.service == service)
        if "ids" in filters:
            page, total = self._ccs.by_ids(entity.source, filters["ids"]), 0
        else:
            self._between()
            bounds = filters["lowId"], filters["highId"], filters.get("afterId")
            page, total = self._ccs.page(entity.source, *bounds, limit)
        head = b'{"limit":1,"hasMore":%b,"totalNumberOfRecords":%d,' % (b"true" if page.has_more else b"false", total)
        return decode(head + b'"%b":[%b]}' % (entity.list_member.encode(), page.body))

    def _requests(self, filters: dict[str, Any], limit: int) -> bytes:
        page = self._ccs.search_requests(
            business_object=filters.get("businessObject"),
            bo_status=filters.get("boStatus"),
            after=filters.get("afterId", ""),
            ids=filters.get("ids"),
            limit=limit,
        )
        listed = [one.as_json() for one in page.requests]
        answer = {"limit": limit, "hasMore": page.has_more, "totalNumberOfRecords": page.total}
        return json.dumps(answer | {"syncRequestList": listed}).encode()


class Interleaving(RuleBasedStateMachine):
    """One interleaving; the model is the gate, the snapshots delivered, and the first verdict about each request."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        (self.folder / "ledger.db").write_bytes(new_ledger())
        options: dict[str, Any] = {"negative_share": 0.1, "upload_folder": self.folder / "upload"}
        config = SandboxConfig(persons=14, awkward_share=0.0, **options)
        self.ccs, self.dacs = SimulatedCcs(config), SimulatedDacs(config)
        (self.folder / "upload").mkdir()
        self.site = Site(
            load_settings(
                data_dir=self.folder,
                ledger_url=f"sqlite:///{self.folder}/ledger.db",
                lease_seconds=3600,
                delta_max_requests=6,
                ccs_page_size=CHUNK,
                ccs_concurrency=1,
            )
        )
        self.site.ccs = MemoryCcs(self.ccs, self._change_between)
        self.between: list[int] = []
        self.lives: dict[str, Iterator[None]] = {}
        self.told = 0
        self.waiting: list[dict[str, Any]] = []
        # The model.
        self.gate: int | None = None
        self.snapshots_delivered = 0
        self.verdicts: dict[str, bool] = {}

    def teardown(self) -> None:
        try:
            self._settle_down()
        finally:
            self.site.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    # What happens in CCS

    @initialize(seed=SEEDS)
    def begin_with_changes(self, seed: int) -> None:
        self.ccs.change(8, seed=seed)

    @rule(seed=SEEDS, count=st.integers(1, 6))
    def change(self, seed: int, count: int) -> None:
        self.ccs.change(count, seed=seed)

    @rule(seeds=st.lists(SEEDS, min_size=1, max_size=6))
    def change_between_chunks(self, seeds: list[int]) -> None:
        self.between += seeds

    @rule(seed=SEEDS)
    def touch_twice(self, seed: int) -> None:
        persons = [person for person, _ in self.ccs.records("person")]
        for _ in range(2):
            self.ccs.touch("person", random.Random(seed).choice(persons), another=True)

    def _change_between(self) -> None:
        if self.between:
            self.ccs.change(1, seed=self.between.pop())

    # What the pipeline does, a step at a time

    @precondition(lambda self: self.gate is None)
    @rule(shards=st.integers(1, 2))
    def start_snapshot(self, shards: int) -> None:
        with self.site.ledger.read() as db:
            number = life.highest_number(db, Mode.INITIAL) + 1
        start.start_snapshot(self.site, number, shards)
        self.gate = number

    @rule(steps=st.integers(1, 6))
    def work_on_snapshot(self, steps: int) -> None:
        if self.gate is not None:
            with self.site.ledger.read() as db:
                shards = life.owned(db, f"initial-{self.gate}")
            open_ones = [one.key for one in shards if not one.reached(Stage.SEALED)]
            self._advance((open_ones or [shards[-1].key])[0], steps)

    @rule(steps=st.integers(1, 6))
    def work_on_delta(self, steps: int) -> None:
        with self.site.ledger.read() as db:
            going = [one for one in report.unfinished(db) if one.key.mode is not Mode.INITIAL]
            fresh = SyncBatch(Mode.DELTA, life.highest_number(db, Mode.DELTA) + 1)
        may_go = [one for one in going if one.aside is not Aside.HELD or self.gate is None]
        self._advance(may_go[0].key if may_go else fresh, steps)

    @rule()
    def worker_dies(self) -> None:
        self.lives.clear()

    def _advance(self, key: SyncBatch, steps: int) -> None:
        going = self.lives.setdefault(str(key), self._life(key))
        for _ in range(steps):
            if next(going, "ended") == "ended":
                del self.lives[str(key)]
                return

    def _life(self, key: SyncBatch) -> Iterator[None]:
        site = self.site
        lease = site.lease(str(key) if key.mode is Mode.INITIAL else INCREMENTAL, "model")
        batch = begin(site, key, lease)
        if isinstance(batch, Nothing):
            return
        yield
        for work in (fetch, map_entity):
            for entity in ENTITIES:
                work(site, self._batch(key), entity, lease)
                yield
        for entity in ENTITIES:
            record(site, self._batch(key), entity, extract(site, self._batch(key), entity), lease)
            yield
        published = set((self.folder / "upload").iterdir())
        done = deliver(site, key, lease)
        if key.mode is Mode.INITIAL:
            if done.waiting_for is None:
                self.gate = None
                self.snapshots_delivered += 1
        elif self.gate is not None:
            assert done.waiting_for is not None, "a delta passed the closed gate"
            assert set((self.folder / "upload").iterdir()) == published

    def _batch(self, key: SyncBatch) -> life.Batch:
        with self.site.ledger.read() as db:
            return life.get(db, key)

    @rule()
    def deliver_answers(self) -> None:
        settle(self.site, self.site.lease(ACKNOWLEDGEMENTS, "model"), look=True)

    # What an operator does

    @rule(pick=SEEDS)
    def abort(self, pick: int) -> None:
        with self.site.ledger.read() as db:
            owners = sorted({one.key.owner for one in report.unfinished(db)})
        if not owners:
            return
        owner = owners[pick % len(owners)]
        self.lives = {key: one for key, one in self.lives.items() if not key.startswith(owner)}
        for batch in start.give_up(self.site, owner):
            if batch.key.mode is Mode.INITIAL:
                self.gate = None
            else:
                self._change_again(batch.key)

    def _change_again(self, key: SyncBatch) -> None:
        """What an aborted delta would have sent is changed once more, as its error answers ask for."""
        names = {entity.name: entity.source for entity in ENTITIES}
        with self.site.ledger.read() as db:
            subjects = [(one.entity, one.entity_id) for one in start.requests.claims(db, key)]
        for entity, entity_id in subjects:
            self.ccs.touch(names[entity], entity_id, another=True)

    @rule(pick=SEEDS)
    def replay(self, pick: int) -> None:
        with self.site.ledger.read() as db:
            done = [one.key for one in life.listed(db) if one.key.mode is Mode.DELTA and one.reached(Stage.DELIVERED)]
        if done:
            try:
                with self.site.ledger.write() as db:
                    life.replay(db, str(done[pick % len(done)]))
            except life.BatchStateError:
                pass  # replayed already, or without rows

    # What DACS does

    @rule()
    def dacs_reads(self) -> None:
        self.dacs._scan(self.folder / "upload")
        answers = self.dacs.answers
        self.waiting += answers[self.told :]
        self.told = len(answers)

    @rule(seed=SEEDS, share=st.sampled_from([0.3, 1.0]), repeated=st.booleans())
    def dacs_answers(self, seed: int, share: float, repeated: bool) -> None:
        """Posts some answers out of order, perhaps twice."""
        rng = random.Random(seed)
        rng.shuffle(self.waiting)
        count = max(1, int(len(self.waiting) * share))
        posted, self.waiting = self.waiting[:count], self.waiting[count:]
        if not posted:
            return
        for one in posted:
            self.verdicts.setdefault(one["syncRequestId"], one["hasError"])
        good, refused = sort_items(posted + posted[: len(posted) if repeated else 0])
        assert not refused
        with self.site.ledger.write() as db:
            store(db, good)

    # What must hold always

    @invariant()
    def the_gate_is_as_the_model_says(self) -> None:
        with self.site.ledger.read() as db:
            assert life.gate_holder(db) == self.gate

    @invariant()
    def nothing_forbidden_was_seen_and_the_equations_hold(self) -> None:
        assert self.dacs.violations == []
        with self.site.ledger.read() as db:
            found = [(str(one.key), e) for one in life.listed(db) for e in report.equations(db, one) if not e.holds]
        assert found == []

    # Quiet in the end

    def _settle_down(self) -> None:
        for _ in range(80):
            if self.gate is None and not self.snapshots_delivered:
                self.start_snapshot(1)
            self.work_on_snapshot(20)
            self.work_on_delta(20)
            self.dacs_reads()
            if self.waiting:
                self.dacs_answers(1, 1.0, False)
            self.deliver_answers()
            with self.site.ledger.read() as db:
                left = report.unfinished(db)
            states = self.ccs.summary()["sync_requests"]
            if not left and self.gate is None and not states["PENDING"] + states["AWAITINGACK"] and not self.waiting:
                break
        sandbox = SimpleNamespace(compare=lambda: compare(self.ccs, self.dacs), dacs=self.dacs, ccs=self.ccs)
        world = SimpleNamespace(
            sandbox=sandbox, site=self.site, settings=self.site.settings, reconcile=self._reconciled
        )
        assert broken(world) == []
        for request_id, has_error in self.verdicts.items():
            state = self.ccs.sync_request(request_id).bo_status
            assert state == ("ERROR" if has_error else "SYNCHRONIZED"), f"{request_id} is {state}"

    def _reconciled(self) -> dict[str, Any]:
        with self.site.ledger.read() as db:
            return report.reconcile(db, [entity.name for entity in ENTITIES])


TestInterleavings = Interleaving.TestCase
TestInterleavings.settings = settings(
    max_examples=INTERLEAVINGS,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
