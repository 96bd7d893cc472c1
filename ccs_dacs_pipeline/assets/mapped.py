"""The assets `dacs/contact`, `dacs/metered_service_point`, `dacs/metered_service`: mapped DACS entities of a batch."""

import time

import dagster as dg

from ccs_dacs_pipeline.assets import raw
from ccs_dacs_pipeline.assets.work import OWNERS, PARTITIONS, working
from ccs_dacs_pipeline.entities import ENTITIES, Column, Entity, LayoutProfile
from ccs_dacs_pipeline.ledger.contents import tally_of
from ccs_dacs_pipeline.sync.mapping import map_entity


def key_of(entity: Entity) -> dg.AssetKey:
    """Returns the key of an entity's mapped asset."""
    return dg.AssetKey(["dacs", entity.name])


def mapped_asset(entity: Entity, profile: LayoutProfile) -> dg.AssetsDefinition:
    """Returns the asset of one entity's mapped records."""
    columns = profile.entities[entity.name].columns
    # References to quarantined parents are counted, so what is quarantined of them must be known first.
    parents = {entity.sources[column.source].references for column in columns} - {None}

    @dg.asset(
        key=key_of(entity),
        deps=[raw.key_of(entity), *(key_of(other) for other in ENTITIES if other.name in parents)],
        partitions_def=PARTITIONS,
        group_name="dacs",
        kinds={"polars", "parquet"},
        owners=OWNERS,
        required_resource_keys={"site"},
        description=f"{entity.label} records as DACS reads them; records that break a rule are quarantined.",
        metadata={
            "dagster/column_schema": dg.TableSchema(columns=[_column(column) for column in columns]),
            "dagster/column_lineage": _lineage(entity, columns),
            "layout profile": profile.name,
            "layout source": profile.source,
        },
    )
    def mapped(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        started = time.monotonic()
        with working(context) as work:
            frame = map_entity(work.site, work.batch, entity, work.lease)
            with work.site.ledger.read() as db:
                tally = tally_of(db, work.key, entity.name)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": frame.rows,
                "dagster/column_lineage": _lineage(entity, columns),
                "bytes": frame.bytes,
                "sha256": frame.sha256,
                "seconds": round(time.monotonic() - started, 3),
                "fetched": tally.fetched if tally else 0,
                "quarantined": dict(tally.quarantined or {}) if tally else {},
                "not eligible": dict(tally.not_eligible or {}) if tally else {},
                "cleaned values": dict(tally.cleaned or {}) if tally else {},
                "references to quarantined parents": dict(tally.unknown_references or {}) if tally else {},
            }
        )

    return mapped


def _column(column: Column) -> dg.TableColumn:
    constraints = dg.TableColumnConstraints(
        nullable=not column.required, other=[f"at most {column.max_length}"] if column.max_length else []
    )
    mark = "documented" if column.mark == "D" else "assumed"
    return dg.TableColumn(column.name, "string", description=f"from {column.source}; {mark}", constraints=constraints)


def _lineage(entity: Entity, columns: tuple[Column, ...]) -> dg.TableColumnLineage:
    """Returns for each DACS column the CCS members that it comes from."""
    return dg.TableColumnLineage(
        {
            column.name: [
                dg.TableColumnDep(asset_key=raw.key_of(entity), column_name=member)
                for member in entity.sources[column.source].members
            ]
            for column in columns
        }
    )
