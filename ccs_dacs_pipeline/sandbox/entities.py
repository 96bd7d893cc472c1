"""The entities on both sides, written from the contract: what CCS calls them, and the columns DACS reads.

Sources: record-layouts.md, "Objects on both sides" and the three layouts; ccs-rest.md, "Searches".
A fourth entity is one more `Entity` here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Layout = Literal["assumed-tail", "core"]
CcsEntity = Literal["person", "service_point", "service_agreement"]
DacsEntity = Literal["contact", "metered_service_point", "metered_service"]

Kind = Literal["text", "id", "datetime", "boolean", "decimal", "contact_type", "source_status", "flag", "reference"]


@dataclass(frozen=True)
class Column:
    """One column of an upload file: its name, whether it is required, its longest value in code points."""

    name: str
    required: bool = False
    longest: int | None = None
    kind: Kind = "text"


@dataclass(frozen=True)
class Entity:
    """One pair: an entity of CCS and the entity of DACS that mirrors it."""

    ccs: CcsEntity
    dacs: DacsEntity
    id_name: str
    list_name: str
    path: str
    service: str
    business_object: str
    maintenance_object: str
    file_prefix: str
    staging_object: str
    external_entity: str
    columns: tuple[Column, ...]
    core_columns: int
    parents: tuple[tuple[str, DacsEntity], ...] = ()

    def layout(self, layout: Layout) -> tuple[Column, ...]:
        """The columns of a layout profile (record-layouts.md, Profiles to ship)."""
        return self.columns[: self.core_columns] if layout == "core" else self.columns


_HEAD = (
    Column("external_reference_id", longest=14, kind="reference"),
    Column("change_date_time", kind="datetime"),
    Column("initial_load_sync_flag", required=True, kind="flag"),
    Column("external_id", required=True, longest=10, kind="id"),
)

CONTACT = Entity(
    ccs="person",
    dacs="contact",
    id_name="personId",
    list_name="personList",
    path="persons",
    service="CM-DACSPersonSearch",
    business_object="C1-DACSContactSyncRequest",
    maintenance_object="PERSON",
    file_prefix="C1-DCT",
    staging_object="X1-DASyncReqContact",
    external_entity="D1-CONTACT",
    core_columns=13,
    columns=(
        *_HEAD,
        Column("contact_type", required=True, kind="contact_type"),
        Column("name", required=True, longest=254),
        Column("home_phone", longest=254),
        Column("mobile_phone", longest=254),
        Column("phone", longest=254),
        Column("email", longest=254),
        Column("life_support_sensitive_load", required=True, kind="boolean"),
        Column("life_support_sensitive_load_description", longest=1000),
        Column("purged", kind="boolean"),
    ),
)

METERED_SERVICE_POINT = Entity(
    ccs="service_point",
    dacs="metered_service_point",
    id_name="servicePointId",
    list_name="servicePointList",
    path="servicePoints",
    service="CM-DACSServicePointSearch",
    business_object="C1-DACSMSPSyncRequest",
    maintenance_object="SP",
    file_prefix="C1-DSP",
    staging_object="X1-SyncReqMeteredSP",
    external_entity="D1-SP",
    core_columns=12,
    columns=(
        *_HEAD,
        Column("metered_sp_type", required=True),
        Column("sp_source_status", required=True, kind="source_status"),
        Column("division"),
        Column("external_premise_id", longest=10, kind="id"),
        Column("time_zone", required=True),
        Column("country", longest=3),
        Column("postal", longest=12),
        Column("address_1", longest=254),
        Column("address_2", longest=254),
        Column("address_3", longest=254),
        Column("address_4", longest=254),
        Column("city", longest=30),
        Column("county", longest=30),
        Column("state", longest=6),
        Column("latitude", kind="decimal"),
        Column("longitude", kind="decimal"),
    ),
)

METERED_SERVICE = Entity(
    ccs="service_agreement",
    dacs="metered_service",
    id_name="serviceAgreementId",
    list_name="serviceAgreementList",
    path="serviceAgreements",
    service="CM-DACSServiceAgreementSearch",
    business_object="C1-DACSMSSyncRequest",
    maintenance_object="SA",
    file_prefix="C1-DMS",
    staging_object="X1-DASyncReqMeteredService",
    external_entity="D1-US",
    core_columns=11,
    parents=(("external_contact_id", "contact"), ("external_sp_id", "metered_service_point")),
    columns=(
        *_HEAD,
        Column("metered_service_type", required=True),
        Column("external_contact_id", longest=10, kind="id"),
        Column("external_account_id", longest=10, kind="id"),
        Column("start_date_time", required=True, kind="datetime"),
        Column("end_date_time", kind="datetime"),
        Column("division"),
        Column("sa_status"),
        Column("external_sp_id", longest=10, kind="id"),
    ),
)

ENTITIES = (CONTACT, METERED_SERVICE_POINT, METERED_SERVICE)
"""Parents before children: the order in which DACS reads its files (record-layouts.md, Order)."""


def by_name(name: str) -> Entity:
    """Finds an entity by its name on either side.

    Raises:
        KeyError: No such entity.
    """
    return _one(name, lambda entity: name in (entity.ccs, entity.dacs))


def _one(wanted: str, matches: Callable[[Entity], bool]) -> Entity:
    for entity in ENTITIES:
        if matches(entity):
            return entity
    names = ", ".join(f"{entity.ccs}/{entity.dacs}" for entity in ENTITIES)
    raise KeyError(f"sandbox: no entity is called {wanted!r}; known are {names}")
