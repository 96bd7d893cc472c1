"""The mapping of record-layouts.md by vectorized expressions: a page's bytes to an Arrow table of finished columns.

What a dlt user writes who feeds it frames. Like `rows.py` it does the job of the pipeline's mapping but for its rules.
"""

import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import polars as pl
from rows import ENTITIES, Entity

CONTROL = r"[\x01-\x1f\x7f-\x9f\u2028\u2029]+"
TIME = "%Y-%m-%dT%H:%M:%S%#z"
ADDRESS = ("country", "postal", "address1", "address2", "address3", "address4", "city", "county", "state")


def _texts(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, pl.String)


_NAMES = pl.List(pl.Struct(_texts("entityName", "firstName", "lastName", "isPrimary")))
_DETAILS = pl.List(
    pl.Struct(
        _texts("contactDetailType", "contactDetailValue", "contactDetailValueExtension", "contactDetailPrimary"),
    )
)
_LINKS = pl.List(pl.Struct(_texts("servicePointId", "startDateTime", "stopDateTime")))
_PREMISE = pl.Struct(
    {
        **_texts("premiseId", "timeZone", "geocodeLatitude", "geocodeLongitude"),
        "address": pl.Struct(_texts(*ADDRESS)),
    }
)
SCHEMAS: dict[str, dict[str, Any]] = {
    "contact": {
        **_texts("personId", "personOrBusiness", "emailAddress", "purged"),
        **_texts("lifeSupportSensitiveLoad", "lifeSupportSensitiveLoadDescription"),
        "names": pl.Struct({"namesList": _NAMES}),
        "contactDetails": pl.Struct({"contactDetailsList": _DETAILS}),
    },
    "metered_service_point": {
        **_texts("servicePointId", "servicePointType", "sourceStatus", "division"),
        "premise": _PREMISE,
    },
    "metered_service": {
        **_texts("serviceAgreementId", "saType", "status", "division", "startDate", "endDate"),
        "account": pl.Struct(_texts("accountId", "mainCustomerPersonId")),
        "servicePoints": pl.Struct({"servicePointsList": _LINKS}),
    },
}


def clean(text: pl.Expr) -> pl.Expr:
    """Text as a field carries it; an empty one is null."""
    without_nul = text.str.replace_all("\0", "", literal=True)
    return without_nul.str.replace_all(CONTROL, " ").str.strip_chars(" ").replace("", None)


def _member(name: str) -> pl.Expr:
    return pl.element().struct.field(name)


def _head(id_member: str) -> dict[str, pl.Expr]:
    return {
        "external_reference_id": pl.lit(None, pl.String),
        "change_date_time": pl.lit(None, pl.String),
        "initial_load_sync_flag": pl.lit("F1IL"),
        "external_id": clean(pl.col(id_member)),
    }


def _contact() -> dict[str, pl.Expr]:
    business = clean(pl.col("personOrBusiness")) == "B"
    details = pl.col("contactDetails").struct.field("contactDetailsList")
    return {
        **_head("personId"),
        "contact_type": clean(pl.col("personOrBusiness")).replace_strict({"P": "Person", "B": "Business"}),
        "name": _name(business),
        "home_phone": pl.when(~business).then(_phone(details, "HOME")),
        "mobile_phone": pl.when(~business).then(_phone(details, "CELL")),
        "phone": pl.when(business).then(_phone(details, "BUSN")),
        "email": pl.coalesce(
            clean(pl.col("emailAddress")), clean(_detail(details, "EMAIL").struct.field("contactDetailValue"))
        ),
        "life_support_sensitive_load": clean(pl.col("lifeSupportSensitiveLoad"))
        .fill_null("N")
        .replace_strict({"Y": "true", "N": "false"}),
        "life_support_sensitive_load_description": clean(pl.col("lifeSupportSensitiveLoadDescription")),
        "purged": pl.col("purged"),
    }


def _name(business: pl.Expr) -> pl.Expr:
    names = pl.col("names").struct.field("namesList")
    primary = names.list.filter(clean(_member("isPrimary")) == "Y").list.first()
    name = pl.coalesce(primary, names.list.first()).struct
    first, last, entity = (clean(name.field(member)) for member in ("firstName", "lastName", "entityName"))
    halves = entity.str.splitn(",", 2).struct
    family, given = (halves.field(half).str.strip_chars(" ").replace("", None) for half in ("field_0", "field_1"))
    both = first.is_not_null() & last.is_not_null()
    human = (
        pl.when(both)
        .then(first + " " + last)
        .otherwise(pl.concat_str(given, family, separator=" ", ignore_nulls=True).replace("", None))
    )
    return pl.when(business).then(entity).otherwise(human)


def _detail(details: pl.Expr, kind: str) -> pl.Expr:
    usable = (clean(_member("contactDetailType")) == kind) & clean(_member("contactDetailValue")).is_not_null()
    found = details.list.filter(usable)
    primary = found.list.filter(clean(_member("contactDetailPrimary")) == "C1YS")
    return pl.coalesce(primary.list.first(), found.list.first())


def _phone(details: pl.Expr, kind: str) -> pl.Expr:
    detail = _detail(details, kind).struct
    extension = clean(detail.field("contactDetailValueExtension"))
    return clean(detail.field("contactDetailValue")) + (pl.lit(" x") + extension).fill_null("")


def _metered_service_point() -> dict[str, pl.Expr]:
    premise = pl.col("premise").struct
    address = premise.field("address").struct
    columns = [f"address_{name[-1]}" if name.startswith("address") else name for name in ADDRESS]
    return {
        **_head("servicePointId"),
        "metered_sp_type": clean(pl.col("servicePointType")),
        "sp_source_status": clean(pl.col("sourceStatus")).replace_strict({"C": "D1CN", "D": "D1DC"}),
        "division": clean(pl.col("division")),
        "external_premise_id": clean(premise.field("premiseId")),
        "time_zone": clean(premise.field("timeZone")),
        **{column: clean(address.field(member)) for column, member in zip(columns, ADDRESS, strict=True)},
        "latitude": _decimal(premise.field("geocodeLatitude")),
        "longitude": _decimal(premise.field("geocodeLongitude")),
    }


def _decimal(text: pl.Expr) -> pl.Expr:
    return text.cast(pl.Decimal(38, 7)).cast(pl.String).str.strip_chars_end("0").str.strip_chars_end(".")


def _metered_service() -> dict[str, pl.Expr]:
    account = pl.col("account").struct
    return {
        **_head("serviceAgreementId"),
        "metered_service_type": clean(pl.col("saType")),
        "external_contact_id": clean(account.field("mainCustomerPersonId")),
        "external_account_id": clean(account.field("accountId")),
        "start_date_time": _midnight("startDate"),
        "end_date_time": _midnight("endDate"),
        "division": clean(pl.col("division")),
        "sa_status": clean(pl.col("status")),
        "external_sp_id": _linked(),
    }


def _midnight(member: str) -> pl.Expr:
    return clean(pl.col(member)).str.to_date("%Y-%m-%d").dt.strftime("%Y-%m-%d-00.00.00")


def _linked() -> pl.Expr:
    """The service point linked now: of several the latest start, then the lowest id; else the latest stop."""
    now = pl.lit(datetime.now(UTC))
    start, stop = (
        _member(member).str.to_datetime(TIME, time_unit="us", time_zone="UTC")
        for member in ("startDateTime", "stopDateTime")
    )
    current = (stop > now).fill_null(value=True)
    id_ = clean(_member("servicePointId"))
    links = pl.col("servicePoints").struct.field("servicePointsList")
    begun = links.list.filter(id_.is_not_null() & (start <= now).fill_null(value=True))
    when = pl.when(current).then(start).otherwise(stop)
    return begun.list.agg(
        id_.sort_by(current, when, id_, descending=[True, True, False], nulls_last=True).first(),
    )


_MAPPINGS: dict[str, Callable[[], dict[str, pl.Expr]]] = {
    "contact": _contact,
    "metered_service_point": _metered_service_point,
    "metered_service": _metered_service,
}


def table(entity: Entity, body: bytes) -> tuple[Any, str | None]:
    """The finished columns of one page as an Arrow table, and the last id where more follows."""
    schema = {"hasMore": pl.String, entity.list_member: pl.List(pl.Struct(SCHEMAS[entity.name]))}
    answer = pl.read_json(io.BytesIO(body), schema=schema)
    records = answer.item(0, entity.list_member).struct.unnest()
    more = answer.item(0, "hasMore") == "true"
    mapped = records.select(**_MAPPINGS[entity.name]())
    last = records.item(-1, entity.id_member) if more else None
    return mapped.to_arrow(compat_level=pl.CompatLevel.oldest()), last


__all__ = ["ENTITIES", "table"]
