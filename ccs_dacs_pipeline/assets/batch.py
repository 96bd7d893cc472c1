"""The asset `ccs/sync_batch`: the batch itself, created and claimed."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dagster as dg

from ccs_dacs_pipeline.assets.work import OWNERS, PARTITIONS, Work, working
from ccs_dacs_pipeline.entities import ENTITIES
from ccs_dacs_pipeline.ledger.life import BatchStateError, find, highest_number
from ccs_dacs_pipeline.ledger.report import outcomes
from ccs_dacs_pipeline.ledger.requests import claims
from ccs_dacs_pipeline.partitions import SYNC_BATCH, KeyRefusedError, Mode, SyncBatch
from ccs_dacs_pipeline.sync.start import Nothing, begin

KEY = dg.AssetKey(["ccs", "sync_batch"])
_PAGE = 1000


def sync_batch_asset() -> dg.AssetsDefinition:
    """Returns the asset that a batch begins with. It yields nothing, and the run ends, when there is nothing to do."""

    @dg.asset(
        key=KEY,
        partitions_def=PARTITIONS,
        group_name="ccs",
        kinds={"python"},
        owners=OWNERS,
        output_required=False,
        required_resource_keys={"site"},
        description=(
            "The batch: for a shard of a snapshot its key range, for a delta the claimed sync requests, for a resync "
            "the chosen entities. Materialized again it gives what is recorded, and never takes more."
        ),
    )
    def sync_batch(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        with working(context) as work:
            _refuse_unless_next(work, context.instance)
            batch = begin(work.site, work.key, work.lease)
            if isinstance(batch, Nothing):
                context.log.info(f"{work.key}: {batch.reason}")
                return
            with work.site.ledger.read() as db:
                found = claims(db, work.key)
                by_outcome = outcomes(db, batch)
            metadata: dict[str, Any] = {"state": batch.state, "attempt": batch.attempts, "rerun": batch.rerun}
            if work.key.mode is Mode.INITIAL:
                metadata |= {"low id": batch.low_id, "high id": batch.high_id, "shards": work.key.shards}
            else:
                metadata |= {"requests": len(found), **{f"requests {name}": n for name, n in by_outcome.items()}}
                for entity in ENTITIES:
                    metadata[f"{entity.label} requests"] = sum(one.entity == entity.name for one in found)
            yield dg.MaterializeResult(metadata=metadata)

    return sync_batch


def highest_begun(instance: dg.DagsterInstance, mode: Mode, known: int) -> int:
    """Returns the highest number of the batches of a mode that the ledger knows or Dagster has seen begun.

    What Dagster has seen counts beside the ledger, which may be lost; a partition that was only named, by hand, does
    not. Dagster is asked only about numbers above the ledger's: to read all that ever were takes seconds.

    Args:
        instance: Dagster's instance.
        mode: what the batches are for.
        known: the highest number in the ledger.
    """
    above = sorted(_above(instance, mode, known), reverse=True)
    for start in range(0, len(above), _PAGE):
        asked = above[start : start + _PAGE]
        seen = instance.get_latest_storage_id_by_partition(
            KEY, dg.DagsterEventType.ASSET_MATERIALIZATION, {str(batch) for batch in asked}
        )
        if seen:
            return max(batch.number for batch in asked if str(batch) in seen)
    return known


def _above(instance: dg.DagsterInstance, mode: Mode, known: int) -> Iterator[SyncBatch]:
    """Yields the batches of a mode that have a partition and a number above the ledger's.

    The newest partitions come first, and the numbers of a mode go up: a whole page of lower ones ends the look.
    """
    cursor, has_more = None, True
    while has_more:
        page = instance.get_paginated_dynamic_partitions(SYNC_BATCH, limit=_PAGE, ascending=False, cursor=cursor)
        cursor, has_more = page.cursor, page.has_more
        found = [batch for key in page.results if (batch := _of_mode(key, mode)) is not None]
        above = [batch for batch in found if batch.number > known]
        yield from above
        if found and not above:
            return


def _of_mode(key: str, mode: Mode) -> SyncBatch | None:
    """Reads a key; None where it names no batch of the mode."""
    try:
        batch = SyncBatch.parse(key)
    except KeyRefusedError:
        return None
    return batch if batch.mode is mode else None


def _refuse_unless_next(work: Work, instance: dg.DagsterInstance) -> None:
    """Refuses to begin a batch out of turn: one high number, made by hand, and all later ones would be above it.

    Raises:
        BatchStateError: there is no such batch, and its number is not the one that comes next; names the way out.
    """
    mode, number = work.key.mode, work.key.number
    with work.site.ledger.read() as db:
        highest = highest_number(db, mode)  # first, since another shard's run may begin the snapshot in between
        if find(db, work.key) is not None:
            return
    next_number = highest_begun(instance, mode, highest) + 1
    # From the ledger's own next number on: the commands go by that alone, also when Dagster has seen higher ones.
    if highest < number <= next_number:
        return
    next_key = replace(work.key, number=next_number)
    raise BatchStateError(
        f"There is no batch {work.key}, and the next one would be {next_key}. {_beginning(work.key)}. Delete the "
        f"partition {work.key}: nothing hangs on it."
    )


def _beginning(key: SyncBatch) -> str:
    if key.mode is Mode.INITIAL:
        return f"A snapshot begins with `ccs-dacs initial --shards {key.shards}`, which makes its keys"
    if key.mode is Mode.RESYNC:
        return "A resync begins with `ccs-dacs resync`, which makes its key"
    return "A delta begins with `ccs-dacs sync`, or by the sensor pending_sync_requests, which make its key"
