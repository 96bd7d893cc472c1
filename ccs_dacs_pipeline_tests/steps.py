"""The steps of both syncs in the order of the assets, without Dagster, whose start alone takes seconds."""

from __future__ import annotations

import time
import uuid
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ccs_dacs_pipeline.ccs import CcsClient
from ccs_dacs_pipeline.entities import ENTITIES
from ccs_dacs_pipeline.ledger import life, report
from ccs_dacs_pipeline.ledger.leases import ACKNOWLEDGEMENTS, INCREMENTAL, LeaseHeldError
from ccs_dacs_pipeline.ledger.life import Aside, Batch, Stage
from ccs_dacs_pipeline.partitions import Mode, SyncBatch
from ccs_dacs_pipeline.sync import extract as extracting
from ccs_dacs_pipeline.sync import start
from ccs_dacs_pipeline.sync.fetch import fetch
from ccs_dacs_pipeline.sync.mapping import map_entity
from ccs_dacs_pipeline.sync.publish import deliver
from ccs_dacs_pipeline.sync.settle import settle
from ccs_dacs_pipeline.sync.site import Site, connection
from ccs_dacs_pipeline.sync.start import Nothing, begin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccs_dacs_pipeline.ledger.leases import Lease
    from ccs_dacs_pipeline.settings import Settings


def quick_site(settings: Settings) -> Site:
    """A site whose client repeats at once: waiting for a second proves nothing here."""
    site = Site(settings)
    client = CcsClient(replace(connection(settings), backoff_seconds=0.01), concurrency=settings.ccs_concurrency)
    site._opened.append(client)
    site.ccs = client
    return site


@contextmanager
def held(site: Site, name: str, holder: str = "") -> Iterator[Lease]:
    """Holds a lease during the block; waits for a dead holder's term, as every worker does."""
    holder = holder or f"worker {uuid.uuid4()}"
    deadline = time.monotonic() + site.settings.lease_seconds + site.settings.ccs_call_seconds + 5
    while True:
        try:
            lease = site.lease(name, holder)
            break
        except LeaseHeldError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    try:
        with lease.kept():
            yield lease
    finally:
        lease.release()


def to_files(site: Site, key: SyncBatch, lease: Lease) -> Batch | Nothing:
    """Takes a batch from nothing, or from where it is, to its sealed extract files."""
    batch = begin(site, key, lease)
    if isinstance(batch, Nothing):
        return batch
    for entity in ENTITIES:
        fetch(site, batch_of(site, key), entity, lease)
    for entity in ENTITIES:
        map_entity(site, batch_of(site, key), entity, lease)
    for entity in ENTITIES:
        made = extracting.extract(site, batch_of(site, key), entity)
        assert made.totals_agree
        extracting.record(site, batch_of(site, key), entity, made, lease)
    return batch_of(site, key)


def batch_of(site: Site, key: SyncBatch) -> Batch:
    with site.ledger.read() as db:
        return life.get(db, key)


def initial(site: Site, shards: int = 1) -> None:
    """An initial synchronization to delivery: the unfinished one, or a new one."""
    with site.ledger.read() as db:
        number = life.gate_holder(db)
    if number is None:
        with site.ledger.read() as db:
            number = life.highest_number(db, Mode.INITIAL) + 1
        start.start_snapshot(site, number, shards)
    with site.ledger.read() as db:
        batches = life.owned(db, f"initial-{number}")
    for batch in batches:
        if not batch.reached(Stage.SEALED):
            with held(site, str(batch.key)) as lease:
                to_files(site, batch.key, lease)
    with held(site, f"initial-{number}") as lease:
        deliver(site, batches[-1].key, lease)


def incremental(site: Site, holder: str = "") -> list[SyncBatch]:
    """One incremental pass: unfinished batches, then a delta of what is pending; returns the batches worked on."""
    done: list[SyncBatch] = []
    with held(site, INCREMENTAL, holder) as lease:
        with site.ledger.read() as db:
            unfinished = [
                batch.key
                for batch in report.unfinished(db)
                if batch.key.mode is not Mode.INITIAL and batch.aside is not Aside.STOPPED
            ]
            fresh = SyncBatch(Mode.DELTA, life.highest_number(db, Mode.DELTA) + 1)
        for key in (*unfinished, fresh):
            if not isinstance(to_files(site, key, lease), Nothing):
                deliver(site, key, lease)
                done.append(key)
    return done


def answers(site: Site) -> None:
    """One pass that takes every answer that is due to CCS."""
    with held(site, ACKNOWLEDGEMENTS) as lease:
        settle(site, lease)
