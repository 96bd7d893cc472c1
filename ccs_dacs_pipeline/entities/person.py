"""Person of CCS, Contact of DACS (record-layouts.md, Contact; ccs-rest.md, person)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from ccs_dacs_pipeline.entities.model import (
    ColumnSource,
    Criterion,
    Entity,
    Kind,
    Scope,
    common_sources,
    element,
    member_source,
    texts,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_CONTACT_TYPES = "contact_detail_type"
_HOME, _MOBILE, _BUSINESS, _EMAIL = _ROLES = "home", "mobile", "business", "email"

_DETAILS = "contactDetails.contactDetailsList"
_DETAIL = tuple(
    f"{_DETAILS}.{member}" for member in ("contactDetailType", "contactDetailValue", "contactDetailPrimary")
)

_NAME = "name that counts"

_is_business = pl.col("personOrBusiness").eq_missing("B")


def _name_that_counts(_: Scope) -> pl.Expr:
    """The name marked primary, else the first."""
    names = pl.col("names")
    return pl.coalesce(names.list.filter(element("isPrimary") == "Y").list.first(), names.list.first())


def _name(_: Scope) -> pl.Expr:
    """The name that counts, in the form its kind of person takes."""
    name = pl.col(_NAME).struct
    first, last, entity_name = name.field("firstName"), name.field("lastName"), name.field("entityName")
    halves = entity_name.str.splitn(",", 2).struct
    of_person = (
        pl.when(first.is_not_null() & last.is_not_null())
        .then(_joined(first, last))
        .otherwise(_joined(_half(halves.field("field_1")), _half(halves.field("field_0"))))
    )
    return pl.when(_is_business).then(entity_name).otherwise(of_person)


def _half(text: pl.Expr) -> pl.Expr:
    """One side of the comma, null when it is empty."""
    return text.str.strip_chars(" ").replace("", None)


def _joined(first: pl.Expr, last: pl.Expr) -> pl.Expr:
    """Both with one space between them, or the one that is there, or null."""
    return pl.concat_str(first, last, separator=" ", ignore_nulls=True).replace("", None)


def _detail_of(role: str) -> Callable[[Scope], pl.Expr]:
    """The first contact detail of a role with a value that is marked primary, else the first with a value."""

    def detail(scope: Scope) -> pl.Expr:
        types = scope.value_maps[_CONTACT_TYPES].codes_for(role)
        details = pl.col("contactDetails").list.filter(
            element("contactDetailType").is_in(types) & element("contactDetailValue").is_not_null()
        )
        primary = details.list.filter(element("contactDetailPrimary") == "C1YS")
        return pl.coalesce(primary.list.first(), details.list.first())

    return detail


def _phone(role: str, *, of: pl.Expr) -> ColumnSource:
    """The phone number of a role, its extension written ``xNN``, for the kind of person that has such a column."""
    detail = pl.col(role).struct
    value, extension = detail.field("contactDetailValue"), detail.field("contactDetailValueExtension")
    number = pl.when(of).then(value + (pl.lit(" x") + extension).fill_null(""))
    members = ("personOrBusiness", *_DETAIL, f"{_DETAILS}.contactDetailValueExtension")
    return ColumnSource(lambda _: number, Kind.TEXT, members)


def _email(_: Scope) -> pl.Expr:
    """The person's e-mail address, else that of the contact details."""
    return pl.coalesce("emailAddress", pl.col(_EMAIL).struct.field("contactDetailValue"))


PERSON = Entity(
    name="contact",
    source="person",
    label="Contact",
    source_label="Person",
    service="persons",
    list_member="personList",
    id_member="personId",
    initial_code="C1-DCTIL",
    incremental_code="C1-DCTEX",
    business_object="C1-DACSContactSyncRequest",
    maintenance_object="PERSON",
    schema=pl.Schema(
        {
            **texts("personId", "personOrBusiness", "version"),
            "names": pl.List(pl.Struct(texts("nameType", "entityName", "firstName", "lastName", "isPrimary"))),
            "contactDetails": pl.List(
                pl.Struct(
                    texts(
                        "contactDetailType",
                        "contactDetailValue",
                        "contactDetailValueExtension",
                        "contactDetailPrimary",
                    )
                )
            ),
            **texts("emailAddress", "lifeSupportSensitiveLoad", "lifeSupportSensitiveLoadDescription", "purged"),
        }
    ),
    plural_members={"names": "namesList", "contactDetails": "contactDetailsList"},
    sources={
        **common_sources("personId"),
        "contact_type": member_source("personOrBusiness", Kind.CODE, required=True),
        "name": ColumnSource(
            _name,
            Kind.TEXT,
            (
                "personOrBusiness",
                "names.namesList.isPrimary",
                "names.namesList.firstName",
                "names.namesList.lastName",
                "names.namesList.entityName",
            ),
            required=True,
        ),
        "home_phone": _phone(_HOME, of=~_is_business),
        "mobile_phone": _phone(_MOBILE, of=~_is_business),
        "phone": _phone(_BUSINESS, of=_is_business),
        "email": ColumnSource(_email, Kind.TEXT, ("emailAddress", *_DETAIL)),
        "life_support": member_source("lifeSupportSensitiveLoad", Kind.CODE, required=True),
        "life_support_description": member_source("lifeSupportSensitiveLoadDescription", Kind.TEXT),
        "purged": member_source("purged", Kind.BOOLEAN),
    },
    criteria=(Criterion("person type", pl.col("personOrBusiness"), lambda allowed: allowed.person_types),),
    roles={_CONTACT_TYPES: frozenset(_ROLES)},
    parts={_NAME: _name_that_counts, **{role: _detail_of(role) for role in _ROLES}},
)
