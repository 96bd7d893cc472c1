"""The asset graph: one factory over ENTITIES; the assets themselves are thin shells round the sync steps."""

import dagster as dg

from ccs_dacs_pipeline.assets.acknowledgement import acknowledgement_asset, reconciliation_asset
from ccs_dacs_pipeline.assets.batch import sync_batch_asset
from ccs_dacs_pipeline.assets.delivery import delivery_asset
from ccs_dacs_pipeline.assets.extract import extract_asset
from ccs_dacs_pipeline.assets.mapped import mapped_asset
from ccs_dacs_pipeline.assets.raw import raw_asset
from ccs_dacs_pipeline.entities import ENTITIES, LayoutProfile


def build_assets(profile: LayoutProfile) -> list[dg.AssetsDefinition]:
    """Returns the assets in the order of data's way through (design.md)."""
    return [
        sync_batch_asset(),
        *(raw_asset(entity) for entity in ENTITIES),
        *(mapped_asset(entity, profile) for entity in ENTITIES),
        *(extract_asset(entity, profile) for entity in ENTITIES),
        delivery_asset(),
        acknowledgement_asset(),
        reconciliation_asset(),
    ]
