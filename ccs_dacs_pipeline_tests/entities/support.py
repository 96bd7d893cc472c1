"""Records as raw assets hold them, and short ways to map them."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import polars as pl

from ccs_dacs_pipeline.entities import (
    Entity,
    LayoutProfile,
    Mapped,
    Mapper,
    MappingContext,
    entity_named,
    load_profile,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTACT = entity_named("contact")
MSP = entity_named("metered_service_point")
MS = entity_named("metered_service")

MOMENT = datetime(2026, 3, 1, 18, 0, tzinfo=UTC)
INITIAL = MappingContext("F1IL", MOMENT, ZoneInfo("UTC"))
DEFAULT = load_profile("assumed-tail")

_RECORDS: dict[str, dict[str, Any]] = {
    "contact": {
        "personId": "5775933103",
        "personOrBusiness": "P ",
        "version": "7",
        "names": [
            {
                "nameType": "PRIM",
                "entityName": "Reddy,John",
                "firstName": "John",
                "lastName": "Reddy",
                "isPrimary": "Y ",
            }
        ],
        "contactDetails": [],
        "emailAddress": None,
        "lifeSupportSensitiveLoad": "N ",
        "lifeSupportSensitiveLoadDescription": None,
        "purged": "false",
    },
    "metered_service_point": {
        "servicePointId": "3996166619",
        "servicePointType": "E-RES",
        "sourceStatus": "C ",
        "division": "CA ",
        "version": "3",
        "premise": {
            "premiseId": "2242620736",
            "timeZone": "America/Los_Angeles",
            "address": {
                "country": "USA",
                "postal": "94105",
                "address1": "1 Main St",
                "address2": None,
                "address3": None,
                "address4": None,
                "city": "San Francisco",
                "county": "San Francisco",
                "state": "CA",
            },
            "geocodeLatitude": "37.789",
            "geocodeLongitude": "-122.394",
        },
        "installationDate": "2011-03-04",
        "abolishedDate": None,
    },
    "metered_service": {
        "serviceAgreementId": "4410297731",
        "saType": "E-RES",
        "status": "20",
        "division": "CA ",
        "version": "12",
        "account": {"accountId": "2710098812", "mainCustomerPersonId": "5775933103"},
        "startDate": "2020-01-01",
        "endDate": None,
        "servicePoints": [
            {"servicePointId": "3996166619", "startDateTime": "2020-01-01T00:00:00-08:00", "stopDateTime": None}
        ],
    },
}


def record(entity: Entity, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The contract's example record with changes; a key may be dotted: ``premise.address.city``."""
    changed = deepcopy(_RECORDS[entity.name])
    for path, value in (changes or {}).items():
        *parents, member = path.split(".")
        target = changed
        for parent in parents:
            target = target[parent]
        if member not in target:
            raise KeyError(path)
        target[member] = value
    return changed


def mapped(
    entity: Entity,
    *records: dict[str, Any],
    profile: LayoutProfile = DEFAULT,
    context: MappingContext = INITIAL,
) -> Mapped:
    """Map some records."""
    return Mapper(entity, profile, context).map(pl.DataFrame(list(records), schema=entity.schema))


def written(
    entity: Entity,
    changes: Mapping[str, Any] | None = None,
    *,
    profile: LayoutProfile = DEFAULT,
    context: MappingContext = INITIAL,
) -> dict[str, str | None]:
    """The one row that the changed example record gives; fails when it gives none."""
    result = mapped(entity, record(entity, changes), profile=profile, context=context)
    assert result.quarantined.rows() == []
    assert result.not_eligible.rows() == []
    return result.rows.row(0, named=True)


def quarantined(
    entity: Entity,
    changes: Mapping[str, Any] | None = None,
    *,
    profile: LayoutProfile = DEFAULT,
    context: MappingContext = INITIAL,
) -> tuple[str, str]:
    """Rule and field that the changed example record is quarantined for; fails when it is not."""
    result = mapped(entity, record(entity, changes), profile=profile, context=context)
    assert result.rows.is_empty()
    finding = result.quarantined.row(0, named=True)
    return finding["rule"], finding["field"]
