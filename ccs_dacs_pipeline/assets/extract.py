"""The assets `extract/contact` and so on: the extract files of a batch, with checks that block what follows."""

import time

import dagster as dg

from ccs_dacs_pipeline.assets import mapped
from ccs_dacs_pipeline.assets.work import OWNERS, PARTITIONS, working
from ccs_dacs_pipeline.checks import extract_check_results, extract_check_specs
from ccs_dacs_pipeline.entities import Entity, LayoutProfile
from ccs_dacs_pipeline.sync import extract as step


def key_of(entity: Entity) -> dg.AssetKey:
    """Returns the key of an entity's extract asset."""
    return dg.AssetKey(["extract", entity.name])


def extract_asset(entity: Entity, profile: LayoutProfile) -> dg.AssetsDefinition:
    """Returns the asset of one entity's extract files."""
    key = key_of(entity)

    @dg.asset(
        key=key,
        deps=[mapped.key_of(entity)],
        partitions_def=PARTITIONS,
        group_name="extract",
        kinds={"file", "csv"},
        owners=OWNERS,
        required_resource_keys={"site"},
        check_specs=extract_check_specs(key, profile.entities[entity.name]),
        description=(
            f"{entity.label} extract files in the extract folder (docs/profiles.md): {entity.initial_code} of a "
            f"snapshot, {entity.incremental_code} of a delta. The last of the three seals the batch."
        ),
    )
    def extract(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        started = time.monotonic()
        with working(context) as work:
            batch = work.batch
            result = step.extract(work.site, batch, entity)
            checks = extract_check_results(key, result)
            passed = all(check.passed for check in checks)
            sealed = passed and step.record(work.site, batch, entity, result, work.lease)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": result.rows,
                "files": [file.name for file in result.files],
                "bytes": sum(file.bytes for file in result.files),
                "sha256": {file.name: file.sha256 for file in result.files},
                "seconds": round(time.monotonic() - started, 3),
                "sealed the batch": sealed,
            },
            check_results=checks,
        )

    return extract
