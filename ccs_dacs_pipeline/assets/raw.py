"""The assets `ccs/person`, `ccs/service_point`, `ccs/service_agreement`: raw CCS entities of a batch."""

import time

import dagster as dg
import polars as pl

from ccs_dacs_pipeline.assets import batch
from ccs_dacs_pipeline.assets.work import OWNERS, PARTITIONS, working
from ccs_dacs_pipeline.entities import Entity
from ccs_dacs_pipeline.sync.fetch import fetch


def key_of(entity: Entity) -> dg.AssetKey:
    """Returns the key of an entity's raw asset."""
    return dg.AssetKey(["ccs", entity.source])


def raw_asset(entity: Entity) -> dg.AssetsDefinition:
    """Returns the asset of one entity's raw records."""

    @dg.asset(
        key=key_of(entity),
        deps=[batch.KEY],
        partitions_def=PARTITIONS,
        group_name="ccs",
        kinds={"oracle", "parquet"},
        owners=OWNERS,
        required_resource_keys={"site"},
        description=f"{entity.source_label} entities as CCS gives them, of one batch.",
        metadata={"dagster/column_schema": column_schema(entity.schema)},
    )
    def raw(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        started = time.monotonic()
        with working(context) as work:
            frame = fetch(work.site, work.batch, entity, work.lease)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": frame.rows,
                "bytes": frame.bytes,
                "sha256": frame.sha256,
                "seconds": round(time.monotonic() - started, 3),
            }
        )

    return raw


def column_schema(schema: pl.Schema) -> dg.TableSchema:
    """Returns a frame's schema as the UI shows it."""
    return dg.TableSchema(columns=[dg.TableColumn(name, str(dtype)) for name, dtype in schema.items()])
