"""The asset `ccs/sync_batch`: the batch itself, created and claimed."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ccs_dacs_pipeline.assets.work import OWNERS, PARTITIONS, working
from ccs_dacs_pipeline.entities import ENTITIES
from ccs_dacs_pipeline.ledger.report import outcomes
from ccs_dacs_pipeline.ledger.requests import claims
from ccs_dacs_pipeline.partitions import Mode
from ccs_dacs_pipeline.sync.start import Nothing, begin

KEY = dg.AssetKey(["ccs", "sync_batch"])


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
