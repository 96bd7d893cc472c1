"""Service Point of CCS, Metered Service Point of DACS (record-layouts.md, Metered Service Point; ccs-rest.md)."""

from __future__ import annotations

import polars as pl

from ccs_dacs_pipeline.entities.model import Criterion, Entity, Kind, common_sources, member_source, texts

_ADDRESS = ("country", "postal", "address1", "address2", "address3", "address4", "city", "county", "state")

SERVICE_POINT = Entity(
    name="metered_service_point",
    source="service_point",
    label="Metered Service Point",
    source_label="Service Point",
    service="servicePoints",
    list_member="servicePointList",
    id_member="servicePointId",
    initial_code="C1-DSPIL",
    incremental_code="C1-DSPEX",
    business_object="C1-DACSMSPSyncRequest",
    maintenance_object="SP",
    schema=pl.Schema(
        {
            **texts("servicePointId", "servicePointType", "sourceStatus", "division", "version"),
            "premise": pl.Struct(
                {
                    **texts("premiseId", "timeZone"),
                    "address": pl.Struct(texts(*_ADDRESS)),
                    **texts("geocodeLatitude", "geocodeLongitude"),
                }
            ),
            **texts("installationDate", "abolishedDate"),
        }
    ),
    plural_members={},
    sources={
        **common_sources("servicePointId"),
        "sp_type": member_source("servicePointType", Kind.CODE, required=True),
        "sp_source_status": member_source("sourceStatus", Kind.CODE, required=True),
        "division": member_source("division", Kind.CODE),
        "external_premise_id": member_source("premise.premiseId", Kind.TEXT),
        "time_zone": member_source("premise.timeZone", Kind.TEXT, required=True),
        **{member: member_source(f"premise.address.{member}", Kind.TEXT) for member in _ADDRESS},
        "latitude": member_source("premise.geocodeLatitude", Kind.NUMBER),
        "longitude": member_source("premise.geocodeLongitude", Kind.NUMBER),
    },
    criteria=(
        Criterion("service point type", pl.col("servicePointType"), lambda allowed: allowed.sp_types),
        Criterion("division", pl.col("division"), lambda allowed: allowed.divisions),
    ),
)
