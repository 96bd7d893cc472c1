"""The conditions that must hold once all is quiet after any fault (faults.md, O1 to O6), in one place for all tests."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import sqlalchemy as sa

from ccs_dacs_pipeline.ledger.requests import Settlement
from ccs_dacs_pipeline.ledger.schema import journal, requests
from ccs_dacs_pipeline.sandbox.ccs import FINAL
from ccs_dacs_pipeline_tests import steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ccs_dacs_pipeline_tests.conftest import World

_LOOK_SECONDS = 0.002
_PASSES = 20
_MEANT = {
    Settlement.POSITIVE: "SYNCHRONIZED",
    Settlement.ON_DELIVERY: "SYNCHRONIZED",
    Settlement.NEGATIVE: "ERROR",
    Settlement.OWN_ERROR: "ERROR",
    Settlement.DISCARDED: "DISCARDED",
}


class Watcher:
    """Reads every visible file of a folder whenever it looks different: what a consumer could have seen at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, set[str]] = defaultdict(set)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def torn(self) -> list[str]:
        """Files of which something else was visible at any time than is there now."""
        return sorted(
            name
            for name, digests in list(self._seen.items())
            if digests != {hashlib.sha256((self._folder / name).read_bytes()).hexdigest()}
        )

    def _watch(self) -> None:
        known: dict[str, tuple[int, int, int]] = {}
        while not self._done.wait(_LOOK_SECONDS):
            with suppress(FileNotFoundError):
                for path in self._folder.iterdir():
                    if path.name.startswith(".") or not path.is_file():
                        continue
                    found = path.stat()
                    stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
                    if known.get(path.name) != stamp:
                        known[path.name] = stamp
                        self._seen[path.name].add(hashlib.sha256(path.read_bytes()).hexdigest())


def settle_down(world: World, site: steps.Site) -> None:
    """Ordinary passes until nothing is left to do."""
    for _ in range(_PASSES):
        with site.ledger.read() as db:
            snapshot = steps.life.gate_holder(db)
        if snapshot is not None:
            steps.initial(site)
        steps.incremental(site)
        world.sandbox.dacs.wait_until_idle()
        steps.answers(site)
        if not {"PENDING", "AWAITINGACK"} & set(world.request_states()):
            return
    raise AssertionError(f"not quiet after {_PASSES} passes: {world.request_states()}, {world.status()}")


def broken(world: World, watcher: Watcher | None = None, *, logs: str = "") -> list[str]:
    """Returns what does not hold; nothing may be left to do when this is asked."""
    return [
        *(f"O1 {name}: {one.as_json()}" for name, one in world.sandbox.compare().items() if not one.holds),
        *(f"O2 {text}" for text in _requests(world)),
        *(f"O3 torn: {name}" for name in (watcher.torn() if watcher else ())),
        *(f"O3, O4 {one}" for one in world.sandbox.dacs.violations),
        *(f"O5 {text}" for text in _equations(world)),
        *(f"O6 {text}" for text in _secrets(world, logs)),
    ]


def _requests(world: World) -> Iterator[str]:
    """Every request of CCS has one final state, which our record explains; none was taken a step too far."""
    with world.site.ledger.read() as db:
        rows = db.execute(sa.select(requests)).all()
    for row in rows:
        if row.settlement is None:
            yield f"{row.request_id} of {row.batch} has no end in the ledger"
    ends = {row.request_id: row.settlement for row in rows if row.settlement != Settlement.CLOSED}
    closed = {row.request_id for row in rows if row.settlement == Settlement.CLOSED}
    told = [row.request_id for row in rows if row.settlement in (Settlement.POSITIVE, Settlement.NEGATIVE)]
    if len(told) != len(set(told)):
        yield "a request was answered in two batches"
    for one in world.sandbox.ccs.search_requests(limit=10**9).requests:
        name = one.sync_request_id
        if one.bo_status not in FINAL or sum(state in FINAL for state in one.history) != 1:
            yield f"{name} went {one.history}"
        elif name in ends and _MEANT[Settlement(ends[name])] != one.bo_status:
            yield f"{name} is {one.bo_status}, the ledger says {ends[name]}"
        elif name not in ends and name not in closed:
            yield f"{name} is not in the ledger"
    suspects = [row.request_id for row in rows if row.suspect]
    if suspects:
        yield f"suspect: {suspects}"


def _equations(world: World) -> Iterator[str]:
    figures = world.reconcile()
    for batch in figures["batches"]:
        for one in batch["equations"]:
            if not one["holds"]:
                yield f"{batch['key']}: {one}"
    if not figures["holds"]:
        yield f"the whole: {figures['entities']}"


def _secrets(world: World, logs: str) -> Iterator[str]:
    """The password and any person's e-mail address, in what processes printed and in the journal."""
    with world.site.ledger.read() as db:
        logs += repr([tuple(row) for row in db.execute(sa.select(journal.c.event, journal.c.detail))])
    for mark in (world.settings.ccs_password.get_secret_value() if world.settings.ccs_password else "", "@example."):
        if mark and mark != "sandbox" and mark in logs:
            yield f"{mark[:1]}... is shown"
