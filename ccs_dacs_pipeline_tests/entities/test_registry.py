"""The entities there are (record-layouts.md, Objects on both sides; ccs-rest.md, Searches)."""

from __future__ import annotations

import sys
from subprocess import run
from typing import TYPE_CHECKING

import polars as pl
import pytest

from ccs_dacs_pipeline.entities import ENTITIES, Entity, entity_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

each_entity = pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.name)


def test_entities_are_in_sending_order_with_the_contracts_names() -> None:
    assert [
        (e.name, e.source, e.service, e.list_member, e.id_member, e.initial_code, e.incremental_code) for e in ENTITIES
    ] == [
        ("contact", "person", "persons", "personList", "personId", "C1-DCTIL", "C1-DCTEX"),
        (
            "metered_service_point",
            "service_point",
            "servicePoints",
            "servicePointList",
            "servicePointId",
            "C1-DSPIL",
            "C1-DSPEX",
        ),
        (
            "metered_service",
            "service_agreement",
            "serviceAgreements",
            "serviceAgreementList",
            "serviceAgreementId",
            "C1-DMSIL",
            "C1-DMSEX",
        ),
    ]
    assert [(e.business_object, e.maintenance_object) for e in ENTITIES] == [
        ("C1-DACSContactSyncRequest", "PERSON"),
        ("C1-DACSMSPSyncRequest", "SP"),
        ("C1-DACSMSSyncRequest", "SA"),
    ]


@each_entity
def test_an_entity_is_found_by_both_names(entity: Entity) -> None:
    assert entity_named(entity.name) is entity
    assert entity_named(entity.source) is entity


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(KeyError, match="contact, metered_service_point, metered_service"):
        entity_named("meter")


@each_entity
def test_all_scalars_are_text(entity: Entity) -> None:
    assert {dtype for _, dtype in leaves(entity.schema, entity.plural_members)} == {pl.String()}


@each_entity
def test_plural_members_are_the_lists(entity: Entity) -> None:
    assert set(entity.plural_members) == {name for name, dtype in entity.schema.items() if isinstance(dtype, pl.List)}


@each_entity
def test_the_members_of_sources_exist(entity: Entity) -> None:
    members = {path for path, _ in leaves(entity.schema, entity.plural_members)}
    for source in entity.sources.values():
        assert set(source.members) <= members


@each_entity
def test_references_name_entities(entity: Entity) -> None:
    assert {s.references for s in entity.sources.values()} - {None} <= {other.name for other in ENTITIES}


def test_the_room_knows_nothing_of_dagster_http_and_ledger() -> None:
    code = (
        "import sys, ccs_dacs_pipeline.entities; "
        "sys.exit(', '.join({'dagster', 'httpx', 'sqlalchemy'} & set(sys.modules)) or 0)"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0


def leaves(
    members: Mapping[str, pl.DataType], plural: Mapping[str, str], prefix: str = ""
) -> Iterator[tuple[str, pl.DataType]]:
    """Dotted paths and data types of a schema's scalars."""
    for name, dtype in members.items():
        if isinstance(dtype, pl.List):
            yield from leaves(dtype.inner.to_schema(), {}, f"{prefix}{name}.{plural[name]}.")
        elif isinstance(dtype, pl.Struct):
            yield from leaves(dtype.to_schema(), {}, f"{prefix}{name}.")
        else:
            yield prefix + name, dtype
