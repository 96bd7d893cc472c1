"""The slow, obvious oracle: the mapping rules in plain Python, record by record, written from the contract alone.

It shares nothing with the mapping but the contract (record-layouts.md, ccs-rest.md, sync-lifecycle.md) and the constant
that stands for a lone surrogate. It knows the profile ``assumed-tail``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import TYPE_CHECKING, Any, Literal

from ccs_dacs_pipeline.entities.cleaning import LONE_SURROGATE

if TYPE_CHECKING:
    from collections.abc import Callable
    from zoneinfo import ZoneInfo

Record = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """What the batch adds to a record."""

    load_flag: Literal["F1IL", "F1IC"]
    moment: datetime
    zone: ZoneInfo
    datetime_format: Literal["ouaf", "xsd"]
    references: dict[str, tuple[str | None, datetime]]  # entity id -> sync request id, change date time


@dataclass(frozen=True)
class Written:
    """A good record: its fields, in order, None for an empty one."""

    fields: dict[str, str | None]
    cleaned: frozenset[str]


@dataclass(frozen=True)
class Quarantined:
    """A bad record."""

    rule: str
    field: str


class Broken(Exception):
    """A rule is broken."""


def expect(entity: str, record: Record, batch: Batch) -> Written | Quarantined:
    """What must become of a record."""
    values, layout = {
        "contact": (_contact, CONTACT),
        "metered_service_point": (_msp, MSP),
        "metered_service": (_ms, MS),
    }[entity]
    given, uncleaned = values(record, batch, clean), values(record, batch, trim)
    fields: dict[str, str | None] = {}
    for name, (convert, required, max_length) in layout.items():
        try:
            fields[name] = _field(given[name], convert, batch, required=required, max_length=max_length)
        except Broken as broken:
            return Quarantined(str(broken), name)
    of_batch = ("External Reference Id", "Change Date Time")
    return Written(
        fields, frozenset(name for name in layout if name not in of_batch and given[name] != uncleaned[name])
    )


def _field(value: Any, convert: Any, batch: Batch, *, required: bool, max_length: int | None) -> str | None:
    if isinstance(value, Broken):
        raise value
    if isinstance(value, str) and LONE_SURROGATE in value:
        raise Broken("lone-surrogate")
    field = convert(value, batch)
    if not field:
        if required:
            raise Broken("required-value")
        return None
    if max_length is not None and len(field) > max_length:
        raise Broken("too-long")
    return field


# Cleaning


def clean(text: str | None) -> str | None:
    """Remove NUL, make each run of controls one space, trim spaces; an empty text is None."""
    if text is None:
        return None
    kept: list[str] = []
    in_run = False
    for character in text.replace("\0", ""):
        is_control = ord(character) < 0x20 or 0x7F <= ord(character) <= 0x9F or character in "\u2028\u2029"
        if not is_control:
            kept.append(character)
        elif not in_run:
            kept.append(" ")
        in_run = is_control
    return trim("".join(kept))


def trim(text: str | None) -> str | None:
    """Trim spaces; an empty text is None."""
    return (text or "").strip(" ") or None


# Conversions


def _as_is(value: str | None, _: Batch) -> str | None:
    return value


def _mapped(codes: dict[str, str]) -> Callable[[str | None, Batch], str | None]:
    def convert(value: str | None, _: Batch) -> str | None:
        if (value or "") in codes:
            return codes[value or ""]
        if value:
            raise Broken("unlisted-code")
        return None

    return convert


def _boolean(value: str | None, _: Batch) -> str | None:
    if value not in (None, "true", "false"):
        raise Broken("not-a-boolean")
    return value


def _number(value: str | None, _: Batch) -> str | None:
    if value is None:
        return None
    if not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", value):
        raise Broken("not-a-number")
    if (number := Decimal(value)) and number.adjusted() > 40:
        raise Broken("not-a-number")
    with localcontext(prec=2000):
        number = number.quantize(Decimal("1e-7"), ROUND_HALF_EVEN)
    if abs(number) >= Decimal(10) ** 31:
        raise Broken("not-a-number")
    text = f"{number:f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _day(value: str | None, batch: Batch) -> str | None:
    if value is None:
        return None
    if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise Broken("impossible-date")
    try:
        return _moment(datetime.combine(date.fromisoformat(value), time()), batch)
    except ValueError:
        raise Broken("impossible-date") from None


def _moment(value: datetime | None, batch: Batch) -> str | None:
    if value is None:
        return None
    year_to_day = f"{value.year:04}-{value.month:02}-{value.day:02}"
    if batch.datetime_format == "ouaf":
        return f"{year_to_day}-{value.hour:02}.{value.minute:02}.{value.second:02}"
    minutes = int(value.replace(tzinfo=batch.zone).utcoffset() / timedelta(minutes=1))
    sign = "-" if minutes < 0 else "+"
    clock = f"{value.hour:02}:{value.minute:02}:{value.second:02}"
    return f"{year_to_day}T{clock}{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


# Contact


def _contact(record: Record, batch: Batch, tidy: Any) -> dict[str, Any]:
    person_id, kind = tidy(record["personId"]), tidy(record["personOrBusiness"])
    phones = [None, None, _phone(record, "BUSN", tidy)]
    if kind != "B":
        phones = [_phone(record, "HOME", tidy), _phone(record, "CELL", tidy), None]
    email_detail = _detail(record, "EMAIL", tidy)
    return {
        **_head(person_id, batch),
        "Contact Type": kind,
        "Name": _name(record, kind, tidy),
        "Home Phone": phones[0],
        "Mobile Phone": phones[1],
        "Phone": phones[2],
        "Email": tidy(record["emailAddress"]) or (email_detail and tidy(email_detail["contactDetailValue"])),
        "Life Support Sensitive Load": tidy(record["lifeSupportSensitiveLoad"]),
        "Life Support Sensitive Load Description": tidy(record["lifeSupportSensitiveLoadDescription"]),
        "Purged": tidy(record["purged"]),
    }


def _name(record: Record, kind: str | None, tidy: Any) -> str | None:
    names = [name for name in record["names"] or [] if name is not None]
    if not names:
        return None
    name = next((name for name in names if tidy(name["isPrimary"]) == "Y"), names[0])
    first, last, whole = tidy(name["firstName"]), tidy(name["lastName"]), tidy(name["entityName"])
    if kind == "B" or not whole:
        return whole if kind == "B" or not (first and last) else f"{first} {last}"
    if first and last:
        return f"{first} {last}"
    before, _, after = whole.partition(",")
    return " ".join(half.strip(" ") for half in (after, before) if half.strip(" ")) or None


def _detail(record: Record, kind: str, tidy: Any) -> Record | None:
    details = [
        detail
        for detail in record["contactDetails"] or []
        if detail is not None and tidy(detail["contactDetailType"]) == kind and tidy(detail["contactDetailValue"])
    ]
    primary = [detail for detail in details if tidy(detail["contactDetailPrimary"]) == "C1YS"]
    return next(iter(primary + details), None)


def _phone(record: Record, kind: str, tidy: Any) -> str | None:
    detail = _detail(record, kind, tidy)
    if detail is None:
        return None
    extension = tidy(detail["contactDetailValueExtension"])
    return tidy(detail["contactDetailValue"]) + (f" x{extension}" if extension else "")


# Metered Service Point


def _msp(record: Record, batch: Batch, tidy: Any) -> dict[str, Any]:
    premise = record["premise"] or {}
    address = premise.get("address") or {}
    return {
        **_head(tidy(record["servicePointId"]), batch),
        "Metered SP Type": tidy(record["servicePointType"]),
        "SP Source Status": tidy(record["sourceStatus"]),
        "Division": tidy(record["division"]),
        "External Premise Id": tidy(premise.get("premiseId")),
        "Time Zone": tidy(premise.get("timeZone")),
        "Country": tidy(address.get("country")),
        "Postal": tidy(address.get("postal")),
        "Address 1": tidy(address.get("address1")),
        "Address 2": tidy(address.get("address2")),
        "Address 3": tidy(address.get("address3")),
        "Address 4": tidy(address.get("address4")),
        "City": tidy(address.get("city")),
        "County": tidy(address.get("county")),
        "State": tidy(address.get("state")),
        "Latitude": tidy(premise.get("geocodeLatitude")),
        "Longitude": tidy(premise.get("geocodeLongitude")),
    }


# Metered Service


def _ms(record: Record, batch: Batch, tidy: Any) -> dict[str, Any]:
    account = record["account"] or {}
    return {
        **_head(tidy(record["serviceAgreementId"]), batch),
        "Metered Service Type": tidy(record["saType"]),
        "External Contact Id": tidy(account.get("mainCustomerPersonId")),
        "External Account Id": tidy(account.get("accountId")),
        "Start Date Time": tidy(record["startDate"]),
        "End Date Time": tidy(record["endDate"]),
        "Division": tidy(record["division"]),
        "SA Status": tidy(record["status"]),
        "External SP Id": _service_point(record, batch, tidy),
    }


def _service_point(record: Record, batch: Batch, tidy: Any) -> str | Broken | None:
    links: list[tuple[str | None, datetime | None, datetime | None]] = []
    for link in record["servicePoints"] or []:
        if link is not None:
            try:
                times = (_instant(tidy(link["startDateTime"])), _instant(tidy(link["stopDateTime"])))
            except ValueError:
                return Broken("impossible-date") if tidy is clean else None
            links.append((tidy(link["servicePointId"]), *times))
    begun = [link for link in links if link[0] and (link[1] is None or link[1] <= batch.moment)]
    now = [link for link in begun if link[2] is None or link[2] > batch.moment]
    chosen: str | None = None
    latest: datetime | None = None
    for sp_id, start, stop in now or begun:
        when = start if now else stop
        later = when is not None and (latest is None or when > latest)
        if chosen is None or later or (when == latest and sp_id < chosen):
            chosen, latest = sp_id, when
    return chosen


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    pattern = (
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)"
    )
    if not re.fullmatch(pattern, text):
        raise ValueError("not an ISO 8601 time with offset")
    return datetime.fromisoformat(text)


# Layouts: field -> conversion, required, greatest length


def _head(entity_id: str | None, batch: Batch) -> dict[str, Any]:
    reference, changed = batch.references.get(entity_id or "", (None, None))
    return {
        "External Reference Id": reference,
        "Change Date Time": changed,
        "Initial Load Sync Flag": batch.load_flag,
        "External Id": entity_id,
    }


_HEAD: dict[str, tuple[Any, bool, int | None]] = {
    "External Reference Id": (_as_is, False, 14),
    "Change Date Time": (_moment, False, None),
    "Initial Load Sync Flag": (_as_is, True, None),
    "External Id": (_as_is, True, 10),
}
CONTACT = {
    **_HEAD,
    "Contact Type": (_mapped({"P": "Person", "B": "Business"}), True, None),
    "Name": (_as_is, True, 254),
    "Home Phone": (_as_is, False, 254),
    "Mobile Phone": (_as_is, False, 254),
    "Phone": (_as_is, False, 254),
    "Email": (_as_is, False, 254),
    "Life Support Sensitive Load": (_mapped({"Y": "true", "N": "false", "": "false"}), True, None),
    "Life Support Sensitive Load Description": (_as_is, False, 1000),
    "Purged": (_boolean, False, None),
}
MSP = {
    **_HEAD,
    "Metered SP Type": (_as_is, True, None),
    "SP Source Status": (_mapped({"C": "D1CN", "D": "D1DC"}), True, None),
    "Division": (_as_is, False, None),
    "External Premise Id": (_as_is, False, 10),
    "Time Zone": (_as_is, True, None),
    "Country": (_as_is, False, 3),
    "Postal": (_as_is, False, 12),
    "Address 1": (_as_is, False, 254),
    "Address 2": (_as_is, False, 254),
    "Address 3": (_as_is, False, 254),
    "Address 4": (_as_is, False, 254),
    "City": (_as_is, False, 30),
    "County": (_as_is, False, 30),
    "State": (_as_is, False, 6),
    "Latitude": (_number, False, None),
    "Longitude": (_number, False, None),
}
MS = {
    **_HEAD,
    "Metered Service Type": (_as_is, True, None),
    "External Contact Id": (_as_is, False, 10),
    "External Account Id": (_as_is, False, 10),
    "Start Date Time": (_day, True, None),
    "End Date Time": (_day, False, None),
    "Division": (_as_is, False, None),
    "SA Status": (_as_is, False, None),
    "External SP Id": (_as_is, False, 10),
}
