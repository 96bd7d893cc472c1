"""The mapping of record-layouts.md record by record, as a Python map of a row: what dlt and Singer users write.

It does the job of the pipeline's mapping but for its rules: it tests no lengths and no required values, so it has less
to do. Texts are cleaned with a quick way out for those that hold nothing to clean, which most do not.
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

Record = dict[str, Any]
Row = dict[str, str | None]

_CONTROL = re.compile(r"[\x01-\x1f\x7f-\x9f\u2028\u2029]+")
_PERSON_TYPES = {"P": "Person", "B": "Business"}
_LIFE_SUPPORT = {"Y": "true", "N": "false", None: "false"}
_SOURCE_STATUS = {"C": "D1CN", "D": "D1DC"}
_LONG_AGO, _NEVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_ADDRESS = {
    "country": "country",
    "postal": "postal",
    "address_1": "address1",
    "address_2": "address2",
    "address_3": "address3",
    "address_4": "address4",
    "city": "city",
    "county": "county",
    "state": "state",
}
_HEAD = ("external_reference_id", "change_date_time", "initial_load_sync_flag", "external_id")


def clean(text: str | None) -> str | None:
    """A text as a field carries it; an empty one is None."""
    if text is None:
        return None
    if not text.isprintable():
        text = _CONTROL.sub(" ", text.replace("\0", ""))
    return text.strip(" ") or None


def _items(plural: Any) -> list[Record]:  # noqa: ANN401 -- JSON
    """A plural member in either shape."""
    if isinstance(plural, dict):
        plural = next(iter(plural.values()), None)
    return plural or []


def _head(id_: str) -> Row:
    return {
        "external_reference_id": None,
        "change_date_time": None,
        "initial_load_sync_flag": "F1IL",
        "external_id": clean(id_),
    }


def person(record: Record) -> Row:
    """A contact."""
    business = clean(record.get("personOrBusiness")) == "B"
    details = [
        (clean(one.get("contactDetailType")), value, one)
        for one in _items(record.get("contactDetails"))
        if (value := clean(one.get("contactDetailValue"))) is not None
    ]
    load = clean(record.get("lifeSupportSensitiveLoad"))
    email = clean(record.get("emailAddress")) or (found[0] if (found := _detail(details, "EMAIL")) else None)
    return {
        **_head(record["personId"]),
        "contact_type": "Business" if business else _PERSON_TYPES[clean(record["personOrBusiness"]) or ""],
        "name": _name(_items(record.get("names")), business=business),
        "home_phone": None if business else _phone(details, "HOME"),
        "mobile_phone": None if business else _phone(details, "CELL"),
        "phone": _phone(details, "BUSN") if business else None,
        "email": email,
        "life_support_sensitive_load": _LIFE_SUPPORT[load],
        "life_support_sensitive_load_description": clean(record.get("lifeSupportSensitiveLoadDescription")),
        "purged": "true" if record.get("purged") else "false",
    }


def _name(names: list[Record], *, business: bool) -> str | None:
    if not names:
        return None
    name = next((one for one in names if clean(one.get("isPrimary")) == "Y"), names[0])
    entity_name = clean(name.get("entityName"))
    if business:
        return entity_name
    first, last = clean(name.get("firstName")), clean(name.get("lastName"))
    if first is not None and last is not None:
        return f"{first} {last}"
    family, _, given = (entity_name or "").partition(",")
    return " ".join(half for half in (given.strip(" "), family.strip(" ")) if half) or None


def _detail(details: list[tuple[str | None, str, Record]], kind: str) -> tuple[str, Record] | None:
    found = [(value, one) for type_, value, one in details if type_ == kind]
    if not found:
        return None
    return next((pair for pair in found if clean(pair[1].get("contactDetailPrimary")) == "C1YS"), found[0])


def _phone(details: list[tuple[str | None, str, Record]], kind: str) -> str | None:
    found = _detail(details, kind)
    if found is None:
        return None
    extension = clean(found[1].get("contactDetailValueExtension"))
    return f"{found[0]} x{extension}" if extension else found[0]


def service_point(record: Record) -> Row:
    """A metered service point."""
    premise = record["premise"]
    address = premise["address"]
    return {
        **_head(record["servicePointId"]),
        "metered_sp_type": clean(record["servicePointType"]),
        "sp_source_status": _SOURCE_STATUS[clean(record["sourceStatus"]) or ""],
        "division": clean(record.get("division")),
        "external_premise_id": clean(premise.get("premiseId")),
        "time_zone": clean(premise.get("timeZone")),
        **{column: clean(address.get(member)) for column, member in _ADDRESS.items()},
        "latitude": _decimal(premise.get("geocodeLatitude")),
        "longitude": _decimal(premise.get("geocodeLongitude")),
    }


def _decimal(number: float | None) -> str | None:
    if number is None:
        return None
    text = f"{number:.7f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def service_agreement(record: Record) -> Row:
    """A metered service."""
    account = record.get("account") or {}
    return {
        **_head(record["serviceAgreementId"]),
        "metered_service_type": clean(record["saType"]),
        "external_contact_id": clean(account.get("mainCustomerPersonId")),
        "external_account_id": clean(account.get("accountId")),
        "start_date_time": _midnight(record.get("startDate")),
        "end_date_time": _midnight(record.get("endDate")),
        "division": clean(record.get("division")),
        "sa_status": clean(record.get("status")),
        "external_sp_id": _linked(_items(record.get("servicePoints"))),
    }


def _midnight(day: str | None) -> str | None:
    return f"{date.fromisoformat(text)}-00.00.00" if (text := clean(day)) else None


def _linked(links: list[Record]) -> str | None:
    """The service point linked now: of several the latest start, then the lowest id; else the latest stop."""
    now = datetime.now(UTC)
    best: tuple[bool, datetime, int] | None = None
    chosen = None
    for link in links:
        id_, start, stop = clean(link.get("servicePointId")), link.get("startDateTime"), link.get("stopDateTime")
        begin = datetime.fromisoformat(start) if start else _LONG_AGO
        end = datetime.fromisoformat(stop) if stop else _NEVER
        if id_ is None or begin > now:
            continue
        current = end > now
        rank = (current, begin if current else end, -int(id_))
        if best is None or rank > best:
            best, chosen = rank, id_
    return chosen


class Entity(NamedTuple):
    """One kind of entity for a peer: where it comes from, its columns, its mapping."""

    name: str
    path: str
    list_member: str
    id_member: str
    columns: tuple[str, ...]
    map: Callable[[Record], Row]


def _columns(names: Iterable[str]) -> tuple[str, ...]:
    return (*_HEAD, *names)


ENTITIES = (
    Entity(
        "contact",
        "rest/apis/cm/dacs/persons/search",
        "personList",
        "personId",
        _columns(
            (
                "contact_type",
                "name",
                "home_phone",
                "mobile_phone",
                "phone",
                "email",
                "life_support_sensitive_load",
                "life_support_sensitive_load_description",
                "purged",
            )
        ),
        person,
    ),
    Entity(
        "metered_service_point",
        "rest/apis/cm/dacs/servicePoints/search",
        "servicePointList",
        "servicePointId",
        _columns(
            (
                "metered_sp_type",
                "sp_source_status",
                "division",
                "external_premise_id",
                "time_zone",
                *_ADDRESS,
                "latitude",
                "longitude",
            )
        ),
        service_point,
    ),
    Entity(
        "metered_service",
        "rest/apis/cm/dacs/serviceAgreements/search",
        "serviceAgreementList",
        "serviceAgreementId",
        _columns(
            (
                "metered_service_type",
                "external_contact_id",
                "external_account_id",
                "start_date_time",
                "end_date_time",
                "division",
                "sa_status",
                "external_sp_id",
            )
        ),
        service_agreement,
    ),
)
