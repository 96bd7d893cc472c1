"""Fetching the raw CCS entities of a batch: a shard's key range, or the entities of a delta by their ids."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import polars as pl

from ccs_dacs_pipeline.ccs import IncompleteRange, plan_ranges
from ccs_dacs_pipeline.ledger import contents, requests
from ccs_dacs_pipeline.ledger.contents import Frame
from ccs_dacs_pipeline.ledger.life import BatchStateError, Stage, get, refuse_aside, stop
from ccs_dacs_pipeline.parallel import ahead
from ccs_dacs_pipeline.partitions import Mode
from ccs_dacs_pipeline.sync.stored import recorded_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccs_dacs_pipeline.entities import Entity
    from ccs_dacs_pipeline.frames import FrameWriter
    from ccs_dacs_pipeline.ledger.leases import Lease
    from ccs_dacs_pipeline.ledger.life import Batch
    from ccs_dacs_pipeline.sync.site import Site

PAGES_PER_RANGE = 10
"""A range is read again as a whole when it is incomplete (sync-lifecycle.md, Completeness)."""


def fetch(site: Site, batch: Batch, entity: Entity, lease: Lease) -> Frame:
    """Fetches the entities of a claimed batch into its raw frame and records it; returns the recorded figures.

    Before the batch is sealed every call fetches again; after it CCS is never asked, and the stored frame is checked
    against the ledger instead.

    Raises:
        CcsError: CCS did not give the entities; an incomplete range also stops the batch.
        StoredDataError: the stored frame of a sealed batch is not what the ledger recorded.
    """
    refuse_aside(batch)
    if batch.rows_fixed:
        return recorded_frame(site, batch, entity.source)
    if not batch.reached(Stage.CLAIMED):
        raise BatchStateError(f"Batch {batch.key} is not claimed yet: materialize ccs/sync_batch for it first.")
    read = _by_range if batch.key.mode is Mode.INITIAL else _by_ids
    with _stopping(site, batch, lease), site.frames.writing(str(batch.key), entity.source) as frames:
        read(site, batch, entity, frames)
    stored = frames.stored
    frame = Frame(rows=stored.rows, bytes=stored.bytes, sha256=stored.sha256)
    with site.ledger.write() as db:
        lease.check(db)
        contents.record_fetched(db, get(db, batch.key), entity.name, entity.source, frame)
    return frame


@contextmanager
def _stopping(site: Site, batch: Batch, lease: Lease) -> Iterator[None]:
    """Stops the batch when a range stays incomplete: an operator must look at CCS."""
    try:
        yield
    except IncompleteRange as error:
        with site.ledger.write() as db:
            lease.check(db)
            stop(db, batch.key, str(error))
        raise


def ranges(site: Site, entity: Entity, low_id: str, high_id: str) -> Iterator[tuple[str, str]]:
    """Yields key ranges that hold entities, each at most `PAGES_PER_RANGE` pages, in ascending order.

    Ids are spread over the key space, so that equal widths do; where they are not, a range is cut again. A single id
    that seems too full is left to reading, which finds that CCS counts wrongly.
    """
    most = PAGES_PER_RANGE * site.settings.ccs_page_size
    total = site.ccs.count(entity, low_id, high_id)
    if total > most and low_id < high_id:
        for low, high in plan_ranges(low_id, high_id, total, max_entities=most):
            yield from ranges(site, entity, low, high)
    elif total:
        yield low_id, high_id


def _by_range(site: Site, batch: Batch, entity: Entity, frames: FrameWriter) -> None:
    """Stores the entities of a shard in id order, a frame a range, some ranges at once."""

    def store(item: tuple[int, tuple[str, str]]) -> None:
        number, bounds = item
        # A frame a range, since mapping one of thousands of rows costs a third of what it does page by page.
        if pages := site.ccs.read_range(entity, *bounds):
            frames.put(number, pl.concat(pages, rechunk=True))

    numbered = enumerate(ranges(site, entity, str(batch.low_id), str(batch.high_id)))
    for _ in ahead(store, numbered, window=site.settings.ccs_concurrency):
        pass


def _by_ids(site: Site, batch: Batch, entity: Entity, frames: FrameWriter) -> None:
    """Stores the entities that the batch is to send, in id order, a page at a time."""
    with site.ledger.read() as db:
        ids = [entity_id for entity_id, _, _ in requests.to_send(db, batch.key, entity.name)]
    size = site.settings.ccs_page_size
    for start in range(0, len(ids), size):
        frames.put(start, site.ccs.read_ids(entity, ids[start : start + size]))
