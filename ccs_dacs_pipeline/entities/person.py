"""Person of CCS, Contact of DACS (record-layouts.md, Contact; ccs-rest.md, person)."""

from __future__ import annotations

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

_CONTACT_TYPES = "contact_detail_type"
_HOME, _MOBILE, _BUSINESS, _EMAIL = _ROLES = "home", "mobile", "business", "email"

_DETAILS = "contactDetails.contactDetailsList"
_DETAIL = tuple(
    f"{_DETAILS}.{member}" for member in ("contactDetailType", "contactDetailValue", "contactDetailPrimary")
)

_NAME = "name that counts"
_CONTACT_DETAILS = "contact details with numbers"

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


def _details(_: Scope) -> pl.Expr:
    """The contact details, with their values as phone numbers: the extension, if any, written ``xNN``."""
    value = element("contactDetailValue")
    extension = (pl.lit(" x") + element("contactDetailValueExtension")).fill_null("")
    detail = pl.struct(element("contactDetailType"), element("contactDetailPrimary"), value, number=value + extension)
    return pl.col("contactDetails").list.eval(detail)


def _of_role(scope: Scope, role: str, member: str) -> pl.Expr:
    """A member of the first detail of a role with a value that is marked primary, else of the first with a value."""
    counts = element("contactDetailType").is_in(scope.value_maps[_CONTACT_TYPES].codes_for(role))
    counts &= element("contactDetailValue").is_not_null()
    primary = counts & (element("contactDetailPrimary") == "C1YS")
    # Of the member, not the whole detail, which takes three times as long.
    first = pl.coalesce(element(member).filter(primary).first(), element(member).filter(counts).first())
    return pl.col(_CONTACT_DETAILS).list.agg(first)


def _phone(role: str, *, of: pl.Expr) -> ColumnSource:
    """The phone number of a role, for the kind of person that has such a column."""
    members = ("personOrBusiness", *_DETAIL, f"{_DETAILS}.contactDetailValueExtension")
    return ColumnSource(lambda scope: pl.when(of).then(_of_role(scope, role, "number")), Kind.TEXT, members)


def _email(scope: Scope) -> pl.Expr:
    """The person's e-mail address, else that of the contact details."""
    return pl.coalesce("emailAddress", _of_role(scope, _EMAIL, "contactDetailValue"))


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
    parts={_NAME: _name_that_counts, _CONTACT_DETAILS: _details},
)
