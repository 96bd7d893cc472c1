"""What DACS should hold, worked out from CCS row by row, and how that compares with what it holds.

A second, plain reading of record-layouts.md, meant to be obviously right rather than quick.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from ccs_dacs_pipeline.sandbox.ccs import SimulatedCcs
from ccs_dacs_pipeline.sandbox.config import SandboxConfig
from ccs_dacs_pipeline.sandbox.dacs import UNKNOWN_PARENT, Refusal, SimulatedDacs
from ccs_dacs_pipeline.sandbox.entities import ENTITIES, CcsEntity, Column, DacsEntity, Entity
from ccs_dacs_pipeline.sandbox.oddities import Record, items
from ccs_dacs_pipeline.sandbox.upload_files import FIRST_DATA_COLUMN

_EXAMPLES = 10
_CONTROLS = re.compile("[\x01-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_CONTACT_TYPES = {"P": "Person", "B": "Business"}
_SOURCE_STATUSES = {"C": "D1CN", "D": "D1DC"}
_LIFE_SUPPORT = {"Y": "true", "N": "false", "": "false"}


@dataclass(frozen=True)
class Eligibility:
    """Which records take part: allowed codes, all where a set is empty (sync-lifecycle.md, Eligibility)."""

    person_types: frozenset[str] = frozenset()
    sp_types: frozenset[str] = frozenset()
    sa_types: frozenset[str] = frozenset()
    sa_statuses: frozenset[str] = frozenset()
    divisions: frozenset[str] = frozenset()

    def admits(self, entity: CcsEntity, record: Record) -> bool:
        """Whether a CCS record takes part."""
        wanted = {
            "person": (("personOrBusiness", self.person_types),),
            "service_point": (("servicePointType", self.sp_types), ("division", self.divisions)),
            "service_agreement": (
                ("saType", self.sa_types),
                ("status", self.sa_statuses),
                ("division", self.divisions),
            ),
        }[entity]
        return all(not allowed or clean(record.get(member)) in allowed for member, allowed in wanted)


@dataclass
class EntityComparison:
    """One entity of both sides.

    `eligible` = `unmappable` + `held_equal` + `held_different` + `missing` + `last_negative` + `parent_missing`: every
    eligible record is counted once, all but the equal ones by id.
    """

    ccs_eligible: int = 0
    expected: int = 0
    """Eligible records that break no rule."""
    unmappable: dict[str, list[str]] = field(default_factory=dict)
    """Ids of the others, by rule."""
    held_equal: int = 0
    held_different: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    last_negative: list[str] = field(default_factory=list)
    """Not held as it is now, and the last row was answered negatively."""
    parent_missing: list[str] = field(default_factory=list)
    """Not held as it is now, and a contact or service point it refers to is not at DACS."""
    unexpected: list[str] = field(default_factory=list)
    """Held by DACS, and not (or no longer) eligible in CCS, without those that were deleted there."""
    gone: list[str] = field(default_factory=list)
    """Held by DACS, and deleted in CCS since: DACS is never told to forget."""

    @property
    def holds(self) -> bool:
        """Whether DACS holds what it should."""
        return not (self.held_different or self.missing or self.unexpected)

    def as_json(self) -> dict[str, Any]:
        """Counts, and a few ids as examples; no personal values."""
        listed = ("held_different", "missing", "last_negative", "parent_missing", "unexpected", "gone")
        unmappable = {rule: len(ids) for rule, ids in sorted(self.unmappable.items())}
        examples = {name: getattr(self, name)[:_EXAMPLES] for name in listed}
        examples |= {f"unmappable {rule}": ids[:_EXAMPLES] for rule, ids in sorted(self.unmappable.items())}
        return {
            "holds": self.holds,
            "ccs_eligible": self.ccs_eligible,
            "expected": self.expected,
            "unmappable": unmappable,
            "held_equal": self.held_equal,
            **{name: len(getattr(self, name)) for name in listed},
            "examples": {name: ids for name, ids in examples.items() if ids},
        }


def compare(
    ccs: SimulatedCcs, dacs: SimulatedDacs, *, eligible: Eligibility | None = None
) -> dict[DacsEntity, EntityComparison]:
    """Compares all entities, by their DACS name. Both sides should be at rest."""
    eligible = eligible or Eligibility()
    config = dacs.config
    now = datetime.now(config.zone)
    held = {entity.dacs: dacs.held_lines(entity.dacs) for entity in ENTITIES}
    result: dict[DacsEntity, EntityComparison] = {}
    for entity in ENTITIES:
        columns = entity.layout(config.layout)
        refusals = dacs.refusals(entity.dacs)
        parents = {index: held[parent] for index, parent in _parent_columns(entity, columns)}
        found = result[entity.dacs] = EntityComparison()
        seen: set[str] = set()
        for id_, text in ccs.records(entity.ccs):
            record = json.loads(text, parse_float=Decimal)
            if not eligible.admits(entity.ccs, record):
                continue
            seen.add(id_)
            found.ccs_eligible += 1
            try:
                row = expected_row(entity, record, config, now)
            except UnmappableError as broken:
                found.unmappable.setdefault(broken.rule, []).append(id_)
                continue
            found.expected += 1
            line = held[entity.dacs].get(id_)
            if line is not None and _same(line.decode().split("\t")[FIRST_DATA_COLUMN:], row, columns):
                found.held_equal += 1
                continue
            parent_missing = any(
                row[index - FIRST_DATA_COLUMN] and row[index - FIRST_DATA_COLUMN] not in there
                for index, there in parents.items()
            )
            _sort_out(found, id_, line is not None, refusals.get(id_), parent_missing=parent_missing)
        beyond = sorted(held[entity.dacs].keys() - seen)
        deleted = ccs.deleted(entity.ccs)
        found.gone = [id_ for id_ in beyond if id_ in deleted]
        found.unexpected = [id_ for id_ in beyond if id_ not in deleted]
    return result


def _sort_out(found: EntityComparison, id_: str, held: bool, refusal: Refusal | None, *, parent_missing: bool) -> None:
    if refusal is not None and refusal.answered:
        found.last_negative.append(id_)
    elif parent_missing and (refusal is None or refusal.rule == UNKNOWN_PARENT):
        found.parent_missing.append(id_)
    elif held:
        found.held_different.append(id_)
    else:
        found.missing.append(id_)


def _parent_columns(entity: Entity, columns: tuple[Column, ...]) -> list[tuple[int, DacsEntity]]:
    return [
        (index, parent)
        for index, column in enumerate(columns)
        for name, parent in entity.parents
        if column.name == name
    ]


def _same(held: list[str], expected: list[str], columns: tuple[Column, ...]) -> bool:
    if held == expected:
        return True
    # `Z` and `+00:00` say the same.
    plain = [
        value.removesuffix("Z") + "+00:00" if column.kind == "datetime" and value.endswith("Z") else value
        for value, column in zip(held, columns[FIRST_DATA_COLUMN:], strict=True)
    ]
    return plain == expected


class UnmappableError(Exception):
    """A record breaks a rule of the layout and must be quarantined."""

    def __init__(self, rule: str, column: str) -> None:
        super().__init__(f"{rule}: {column}")
        self.rule = f"{rule}: {column}"


def expected_row(entity: Entity, record: Record, config: SandboxConfig, now: datetime) -> list[str]:
    """The row DACS should hold for a CCS record, from External Id on.

    Raises:
        UnmappableError: The record breaks a rule of the layout.
    """
    values = _READERS[entity.ccs](record, config, now)
    row = []
    for column in entity.layout(config.layout)[FIRST_DATA_COLUMN:]:
        value = values[column.name]
        if value.startswith(_FAULT):
            raise UnmappableError(value.removeprefix(_FAULT), column.name)
        if not value.isprintable() and _SURROGATE.search(value):
            raise UnmappableError("lone_surrogate", column.name)
        if not value and column.required:
            raise UnmappableError("required", column.name)
        if column.longest is not None and len(value) > column.longest:
            raise UnmappableError("too_long", column.name)
        row.append(value)
    return row


_FAULT = "\0"  # marks a broken rule in the place of a value: it counts only where the layout has the column


def clean(value: object) -> str:
    """Text as it may stand in a file; null is empty (record-layouts.md, File dialect)."""
    if value is None:
        return ""
    text = str(value)
    if text.isprintable():  # no control character among them: most values, and much quicker
        return text.strip(" ")
    text = text.replace("\0", "")
    return _CONTROLS.sub(" ", text).strip(" ")


def _code(value: object, codes: dict[str, str]) -> str:
    found = clean(value)
    return codes.get(found, f"{_FAULT}unknown_code" if found else "")


def _flag(value: object) -> str:
    return "" if value is None else str(value).lower()


def _contact(person: Record, _: SandboxConfig, __: datetime) -> dict[str, str]:
    business = clean(person.get("personOrBusiness")) == "B"
    phones = {kind: "" if business == (kind != "BUSN") else _phone(person, kind) for kind in ("HOME", "CELL", "BUSN")}
    return {
        "external_id": clean(person["personId"]),
        "contact_type": _code(person.get("personOrBusiness"), _CONTACT_TYPES),
        "name": _name(person, business=business),
        "home_phone": phones["HOME"],
        "mobile_phone": phones["CELL"],
        "phone": phones["BUSN"],
        "email": clean(person.get("emailAddress")) or clean(_detail(person, "EMAIL").get("contactDetailValue")),
        "life_support_sensitive_load": _code(person.get("lifeSupportSensitiveLoad"), _LIFE_SUPPORT),
        "life_support_sensitive_load_description": clean(person.get("lifeSupportSensitiveLoadDescription")),
        "purged": _flag(person.get("purged")),
    }


def _name(person: Record, *, business: bool) -> str:
    """The name marked primary, else the first; ccs-rest.md, person."""
    names = items(person.get("names"))
    if not names:
        return ""
    name = next((name for name in names if clean(name.get("isPrimary")) == "Y"), names[0])
    given, family, whole = (clean(name.get(member)) for member in ("firstName", "lastName", "entityName"))
    if business:
        return whole
    if given and family:
        return f"{given} {family}"
    last, comma, first = whole.partition(",")
    if not comma:
        return whole
    return " ".join(half for half in (first.strip(" "), last.strip(" ")) if half)


def _detail(person: Record, kind: str) -> Record:
    """The first contact detail of a kind with a value that is marked primary, else the first with a value."""
    details = [
        detail
        for detail in items(person.get("contactDetails"))
        if clean(detail.get("contactDetailType")) == kind and clean(detail.get("contactDetailValue"))
    ]
    primary = [detail for detail in details if clean(detail.get("contactDetailPrimary")) == "C1YS"]
    return next(iter(primary + details), {})


def _phone(person: Record, kind: str) -> str:
    detail = _detail(person, kind)
    value, extension = clean(detail.get("contactDetailValue")), clean(detail.get("contactDetailValueExtension"))
    return f"{value} x{extension}" if extension else value


def _metered_service_point(point: Record, _: SandboxConfig, __: datetime) -> dict[str, str]:
    premise = point.get("premise") or {}
    address = premise.get("address") or {}
    return {
        "external_id": clean(point["servicePointId"]),
        "metered_sp_type": clean(point.get("servicePointType")),
        "sp_source_status": _code(point.get("sourceStatus"), _SOURCE_STATUSES),
        "division": clean(point.get("division")),
        "external_premise_id": clean(premise.get("premiseId")),
        "time_zone": clean(premise.get("timeZone")),
        **{name: clean(address.get(name)) for name in ("country", "postal", "city", "county", "state")},
        **{f"address_{line}": clean(address.get(f"address{line}")) for line in range(1, 5)},
        "latitude": _decimal(premise.get("geocodeLatitude")),
        "longitude": _decimal(premise.get("geocodeLongitude")),
    }


def _decimal(value: object) -> str:
    """Plain, at most 7 places, shortest form."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return f"{_FAULT}not_a_number"
    text = f"{round(Decimal(value), 7):f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _metered_service(agreement: Record, config: SandboxConfig, now: datetime) -> dict[str, str]:
    account = agreement.get("account") or {}
    return {
        "external_id": clean(agreement["serviceAgreementId"]),
        "metered_service_type": clean(agreement.get("saType")),
        "external_contact_id": clean(account.get("mainCustomerPersonId")),
        "external_account_id": clean(account.get("accountId")),
        "start_date_time": _midnight(agreement.get("startDate"), config.datetime_format, config.zone),
        "end_date_time": _midnight(agreement.get("endDate"), config.datetime_format, config.zone),
        "division": clean(agreement.get("division")),
        "sa_status": clean(agreement.get("status")),
        "external_sp_id": _service_point(items(agreement.get("servicePoints")), now),
    }


def _midnight(value: object, datetime_format: str, zone: ZoneInfo) -> str:
    """00:00:00 of a day in the base time zone."""
    text = clean(value)
    if not text:
        return ""
    try:
        day = date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        return f"{_FAULT}bad_date"
    if datetime_format == "ouaf":
        return f"{day.isoformat()}-00.00.00"
    return datetime.combine(day, time(), zone).isoformat()


def _service_point(links: list[Record], now: datetime) -> str:
    """Linked now: of several the latest start, then the lowest id; else the latest stop; a future link is none."""
    begun = []
    for link in links:
        start = datetime.fromisoformat(link["startDateTime"])
        stop = datetime.fromisoformat(link["stopDateTime"]) if link.get("stopDateTime") else None
        if start <= now:
            begun.append((start, stop, clean(link["servicePointId"])))
    current = [(start, id_) for start, stop, id_ in begun if stop is None or stop > now]
    if current:
        latest = max(start for start, _ in current)
        return min(id_ for start, id_ in current if start == latest)
    if not begun:
        return ""
    last = max(stop for _, stop, _ in begun if stop is not None)
    return min(id_ for _, stop, id_ in begun if stop == last)


_READERS: dict[CcsEntity, Callable[[Record, SandboxConfig, datetime], dict[str, str]]] = {
    "person": _contact,
    "service_point": _metered_service_point,
    "service_agreement": _metered_service,
}
