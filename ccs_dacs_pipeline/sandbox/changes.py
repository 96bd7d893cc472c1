"""What happens at a utility from day to day: the alterations that make CCS's audit create sync requests.

Each takes a record as an object and changes it in place; the caller raises its version and stores it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from ccs_dacs_pipeline.sandbox import names
from ccs_dacs_pipeline.sandbox.entities import CcsEntity
from ccs_dacs_pipeline.sandbox.oddities import Record, items
from ccs_dacs_pipeline.sandbox.population import RecordWriter

MOVE_IN = "move_in"
"""A new person, service point and agreement at once."""


@dataclass(frozen=True)
class Moment:
    """What an alteration may draw on: chance, the writer of new values, the present time in the base time zone."""

    rng: Random
    writer: RecordWriter
    now: datetime


@dataclass(frozen=True)
class Kind:
    """A kind of change: the entity it is about, how often it happens, and what it does."""

    name: str
    entity: CcsEntity
    weight: int
    alter: Callable[[Record, Moment], None]


def _is_business(person: Record) -> bool:
    return (person["personOrBusiness"] or "").strip() == "B"


def _rename(person: Record, at: Moment) -> None:
    given, family = at.writer.human_name()
    name: Record = {"nameType": "PRIM", "entityName": f"{family},{given}", "isPrimary": "Y "}
    if _is_business(person):
        name["entityName"] = at.writer.business_name()
    else:
        name |= {"firstName": given, "lastName": family}
    _replace_plural(person, "names", [name])


def _phone(person: Record, at: Moment) -> None:
    kind = "BUSN" if _is_business(person) else at.rng.choice(("HOME", "CELL"))
    details = [detail for detail in items(person.get("contactDetails")) if detail["contactDetailType"] != kind]
    details.append(
        {"contactDetailType": kind, "contactDetailValue": at.writer.phone(), "contactDetailPrimary": "C1NO"},
    )
    _replace_plural(person, "contactDetails", details)


def _email(person: Record, at: Moment) -> None:
    person["emailAddress"] = at.writer.email(at.rng.randrange(10**9))


def _life_support(person: Record, at: Moment) -> None:
    on = (person.get("lifeSupportSensitiveLoad") or "").strip() != "Y"
    person["lifeSupportSensitiveLoad"] = "Y " if on else "N "
    person["lifeSupportSensitiveLoadDescription"] = at.rng.choice(("Ventilator", "Home dialysis")) if on else None


def _purge(person: Record, _: Moment) -> None:
    person["purged"] = True


def _switch(point: Record, _: Moment) -> None:
    point["sourceStatus"] = "D " if (point.get("sourceStatus") or "").strip() == "C" else "C "


def _address(point: Record, at: Moment) -> None:
    point["premise"]["address"]["address1"] = f"{at.rng.randint(1, 9999)} {at.rng.choice(names.STREETS)}"


def _stop(agreement: Record, at: Moment) -> None:
    agreement["status"] = "40"
    agreement["endDate"] = at.now.date().isoformat()
    _stop_links(items(agreement.get("servicePoints")), at.now)


def _stop_links(links: list[Record], now: datetime) -> None:
    """Ends the open links now; one that has not begun ends a second after its start."""
    for link in links:
        if link.get("stopDateTime") is None:
            link["stopDateTime"] = max(now, _after(link["startDateTime"])).isoformat()


def _status(agreement: Record, at: Moment) -> None:
    agreement["status"] = at.rng.choice([code for code in ("20", "50", "60") if code != agreement["status"]])


KINDS = (
    Kind("person_rename", "person", 12, _rename),
    Kind("person_phone", "person", 25, _phone),
    Kind("person_email", "person", 15, _email),
    Kind("person_life_support", "person", 2, _life_support),
    Kind("person_purge", "person", 1, _purge),
    Kind("service_point_switch", "service_point", 10, _switch),
    Kind("service_point_address", "service_point", 5, _address),
    Kind("agreement_stop", "service_agreement", 10, _stop),
    Kind("agreement_status", "service_agreement", 10, _status),
)
WEIGHTS = {kind.name: kind.weight for kind in KINDS} | {"agreement_move": 5, MOVE_IN: 5}
"""Every kind of change and how often it is chosen; `agreement_move` and `move_in` need more than their record."""


def move(agreement: Record, service_point: str, at: Moment) -> None:
    """Takes an agreement to another service point: present links stop now, a new one starts now."""
    links = [link for link in items(agreement.get("servicePoints")) if link["servicePointId"] != service_point]
    _stop_links(links, at.now)
    links.append({"servicePointId": service_point, "startDateTime": at.now.isoformat(), "stopDateTime": None})
    _replace_plural(agreement, "servicePoints", links)


def _after(moment: str) -> datetime:
    return datetime.fromisoformat(moment) + timedelta(seconds=1)


def _replace_plural(record: Record, name: str, members: list[Any]) -> None:
    """Puts new members into a plural in the shape the record's other plurals have."""
    wrapped = isinstance(record.get("names", record.get("servicePoints")), dict)
    record[name] = {f"{name}List": members} if wrapped else members
