"""The asset `upload/delivery`: the files of a batch, or of a whole snapshot, in DACS's upload folder."""

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from ccs_dacs_pipeline.assets import extract
from ccs_dacs_pipeline.assets.work import OWNERS, PARTITIONS, working
from ccs_dacs_pipeline.entities import ENTITIES
from ccs_dacs_pipeline.sync.publish import Delivery, deliver

KEY = dg.AssetKey(["upload", "delivery"])


def delivery_asset() -> dg.AssetsDefinition:
    """Returns the asset of the delivery. It yields nothing while shards are missing or a snapshot holds the gate."""

    @dg.asset(
        key=KEY,
        deps=[extract.key_of(entity) for entity in ENTITIES],
        partitions_def=PARTITIONS,
        group_name="upload",
        kinds={"file"},
        owners=OWNERS,
        output_required=False,
        required_resource_keys={"site"},
        description=(
            "The extract files in DACS's upload folder: contacts, metered service points, metered services, then the "
            "manifest. A snapshot is published as a whole, by the run that seals its last shard."
        ),
    )
    def delivery(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        started = time.monotonic()
        with working(context, whole_snapshot=True) as work:
            result = deliver(work.site, work.key, work.lease)
        if result.waiting_for:
            context.log.info(f"{work.key} is not delivered yet: {result.waiting_for}")
            return
        metadata = _metadata(result) | {"seconds": round(time.monotonic() - started, 3)}
        for batch in result.batches:
            if batch.key != work.key:  # in this run, since a backfill over the shards counts only what its own report
                context.log_event(dg.AssetMaterialization(KEY, partition=str(batch.key), metadata=metadata))
        yield dg.MaterializeResult(metadata=metadata)

    return delivery


def _metadata(result: Delivery) -> dict[str, Any]:
    return {
        "dagster/row_count": sum(file.rows for file in result.files),
        "files": [file.name for file in result.files],
        "bytes": sum(file.bytes for file in result.files),
        "sha256": {file.name: file.sha256 for file in result.files},
        "state": result.batches[0].state,
    }
