"""A believable utility of any size, the same for the same seed: persons, service points and service agreements.

Records are rendered straight to JSON text, since a million of them shall be there in a minute; only the few awkward and
bad ones pass through objects (`oddities`). Shapes are those of ccs-rest.md, "Searches". All names are put together from
word lists, phones are from the fictional 555-01xx range, e-mails are at example domains.
"""

# ruff: noqa: PLR2004 - the shares compared with chance are what this module has to say

import csv
from array import array
from collections.abc import Iterator
from datetime import date, datetime, time
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from random import Random
from typing import NamedTuple, TypeVar

from ccs_dacs_pipeline.sandbox import names, oddities
from ccs_dacs_pipeline.sandbox.config import SandboxConfig
from ccs_dacs_pipeline.sandbox.entities import ENTITIES, CcsEntity
from ccs_dacs_pipeline.sandbox.table import RecordTable

ID_SPACE = 10**10
"""Ids are 10 digits, spread over the whole key space (ccs-rest.md, Searches)."""

_TODAY = date(2025, 1, 1).toordinal()  # fixed: a population depends on its seed alone, not on the day it is made
_FIRST_DAY = date(1995, 1, 1).toordinal()
_FUTURE_DAY = date(2099, 1, 1).toordinal()
_SPS_PER_PERSON = 1.05
_AGREEMENTS_PER_SP = (0,) * 4 + (1,) * 77 + (2,) * 16 + (3,) * 3  # 1.18 in the mean: 1.24 a person
_WITHOUT_AGREEMENT = 0.06  # share of persons
_COMMODITIES = ("E-RES",) * 11 + ("E-COM",) * 2 + ("G-RES",) * 4 + ("G-COM",) + ("W-RES",) * 2
_NO_END = 0

_T = TypeVar("_T")


class Place(NamedTuple):
    """A city with the facts a premise needs; text is ready to stand in JSON."""

    city: str
    county: str
    state: str
    postal: str
    time_zone: str
    latitude: float
    longitude: float


@lru_cache(maxsize=1)
def places() -> tuple[Place, ...]:
    """The packaged table of US places."""
    with (files(__package__) / "places.csv").open(encoding="utf-8") as source:
        return tuple(
            Place(
                row["city"],
                row["county"],
                row["state"],
                row["postal"],
                row["time_zone"],
                float(row["latitude"]),
                float(row["longitude"]),
            )
            for row in csv.DictReader(source)
        )


class Agreement(NamedTuple):
    """What a service agreement says about its surroundings; days are proleptic ordinals, 0 = no end."""

    person: int
    service_point: int
    place: int
    start: int
    end: int


def build(config: SandboxConfig) -> dict[CcsEntity, RecordTable]:
    """Makes the whole population of a configuration, by CCS entity."""
    plan = _Plan(config)
    writer = RecordWriter(config, Random(f"{config.seed}:records"))
    odd = oddities.Oddities(config)
    sources: dict[CcsEntity, Iterator[tuple[int, bytes]]] = {
        "person": ((id_, writer.person(id_)) for id_ in plan.person_ids),
        "service_point": (
            (id_, writer.service_point(id_, place))
            for id_, place in zip(plan.service_point_ids, plan.service_point_places, strict=True)
        ),
        "service_agreement": (
            (id_, writer.service_agreement(id_, agreement, plan.another_service_point()))
            for id_, agreement in zip(plan.agreement_ids, plan.agreements(), strict=True)
        ),
    }
    return {entity.ccs: RecordTable(odd.sprinkle(entity.ccs, sources[entity.ccs])) for entity in ENTITIES}


class _Plan:
    """Ids, and who is served where and when, in columns: 20 bytes an agreement."""

    def __init__(self, config: SandboxConfig) -> None:
        self._rng = rng = Random(f"{config.seed}:plan")
        points = round(config.persons * _SPS_PER_PERSON)
        self.person_ids = array("q", sorted(rng.sample(range(ID_SPACE), config.persons)))
        self.service_point_ids = array("q", sorted(rng.sample(range(ID_SPACE), points)))
        self.service_point_places = array("H", rng.choices(range(len(places())), k=points))
        counts = rng.choices(_AGREEMENTS_PER_SP, k=points) if config.persons else []
        total = sum(counts)
        self.agreement_ids = array("q", sorted(rng.sample(range(ID_SPACE), total)))
        slots = list(range(total))
        rng.shuffle(slots)
        self._point = array("I", bytes(4 * total))
        self._start = array("I", bytes(4 * total))
        self._end = array("I", bytes(4 * total))
        self._person = self._customers(config.persons, total)
        begin = 0
        for point, count in enumerate(counts):
            for slot, (start, end) in zip(slots[begin : begin + count], self._history(count), strict=True):
                self._point[slot], self._start[slot], self._end[slot] = point, start, end
            begin += count

    def _customers(self, persons: int, agreements: int) -> "array[int]":
        """A person for each agreement: everybody served has one, and chance gives some several."""
        served = self._rng.sample(range(persons), persons - round(persons * _WITHOUT_AGREEMENT))
        chosen = array("I", served[:agreements])
        chosen.extend(self._rng.choices(served, k=agreements - len(chosen)) if len(chosen) < agreements else ())
        return chosen

    def _history(self, count: int) -> Iterator[tuple[int, int]]:
        """Start and end of a service point's agreements: one customer moves out, the next moves in."""
        days = sorted(self._rng.sample(range(_FIRST_DAY, _TODAY), count + 1))
        yield from pairwise(days[:count])
        if count:
            fate = self._rng.random()
            if fate < 0.01:  # one in a hundred is signed and not yet begun
                yield _FUTURE_DAY, _NO_END
            else:
                yield days[count - 1], days[count] if fate > 0.88 else _NO_END  # 12 % moved out

    def agreements(self) -> Iterator[Agreement]:
        """The agreements in the order of their ids."""
        for person, point, start, end in zip(self._person, self._point, self._start, self._end, strict=True):
            yield Agreement(
                self.person_ids[person], self.service_point_ids[point], self.service_point_places[point], start, end
            )

    def another_service_point(self) -> int:
        """Any service point, for agreements that have two."""
        return self.service_point_ids[int(self._rng.random() * len(self.service_point_ids))]


class RecordWriter:
    """Renders single records as JSON text; consecutive calls draw from one generator."""

    def __init__(self, config: SandboxConfig, rng: Random) -> None:
        self._random = rng.random
        self._zone = config.zone
        self._wrapped = config.plural_style == "wrapped"
        self._script_of = tuple(script for script in names.SCRIPTS for _ in range(script.weight))
        self._midnights: dict[int, str] = {_NO_END: "null"}

    def _one(self, choices: tuple[_T, ...]) -> _T:
        return choices[int(self._random() * len(choices))]

    def _below(self, bound: int) -> int:
        return int(self._random() * bound)

    def _plural(self, name: str, items: str) -> str:
        return f'"{name}":{{"{name}List":[{items}]}}' if self._wrapped else f'"{name}":[{items}]'

    def _null(self, member: str) -> str:
        """An optional member without a value: mostly said, sometimes left out."""
        return f'"{member}":null,' if self._random() < 0.7 else ""

    def _midnight(self, day: int) -> str:
        """JSON of 00:00:00 of a day in the base time zone, with its offset."""
        if day not in self._midnights:
            moment = datetime.combine(date.fromordinal(day), time(), self._zone)
            self._midnights[day] = f'"{moment.isoformat()}"'
        return self._midnights[day]

    def phone(self) -> str:
        """A fictional phone number."""
        return f"({self._one(names.AREA_CODES)}) 555-01{self._below(100):02}"

    def email(self, id_: int) -> str:
        """An address at an example domain."""
        return f"customer.{id_ % 999_983}@example.{self._one(('com', 'org', 'net'))}"

    def human_name(self) -> tuple[str, str]:
        """A given and a family name of one script."""
        script = self._one(self._script_of)
        return self._one(script.given), self._one(script.family)

    def business_name(self) -> str:
        """The name of a business that does not exist."""
        first, second = self._one(names.BUSINESS_FIRST), self._one(names.BUSINESS_FIRST)
        return f"{first} {second} {self._one(names.BUSINESS_TRADE)} {self._one(names.BUSINESS_FORM)}"

    def person(self, id_: int) -> bytes:
        """A person or business, as ccs-rest.md shows it, with members beyond."""
        chance = self._random
        business = chance() < 0.12
        purged = "true" if chance() < 0.001 else "false"
        if business:
            name = f'"entityName":"{self.business_name()}",{self._null("firstName")}{self._null("lastName")}'
            details = self._details(id_, (("BUSN", 0.95, 0.15), ("CELL", 0.1, 0.0), ("EMAIL", 0.3, 0.0)))
        else:
            name = self._human()
            details = self._details(id_, (("HOME", 0.5, 0.03), ("CELL", 0.85, 0.0), ("EMAIL", 0.2, 0.0)))
        email = f'"emailAddress":"{self.email(id_)}",' if chance() < 0.6 else self._null("emailAddress")
        return (
            f'{{"personId":"{id_:010}","personOrBusiness":"{"B " if business else "P "}",'
            f'"version":{1 + self._below(20)},'
            f"{self._names(name)},{details}{email}{self._life_support(business)}"
            f'"purged":{purged},"language":"ENG","customerClass":"{"COM " if business else "RES "}"}}'
        ).encode()

    def _human(self) -> str:
        given, family = self.human_name()
        fate = self._random()
        if fate < 0.88:
            return f'"entityName":"{family},{given}","firstName":"{given}","lastName":"{family}",'
        if fate < 0.99:
            return f'"entityName":"{family},{given}",{self._null("firstName")}{self._null("lastName")}'
        return f'"entityName":"{given}",{self._null("firstName")}'

    def _names(self, name: str) -> str:
        fate = self._random()
        if fate < 0.9:
            return self._plural("names", f'{{"nameType":"PRIM",{name}"isPrimary":"Y "}}')
        if fate < 0.95:
            return self._plural("names", f'{{"nameType":"PRIM",{name}"sequence":1}}')
        alias = self.business_name()
        return self._plural(
            "names",
            f'{{"nameType":"AKA ","entityName":"{alias}","isPrimary":"N "}},'
            f'{{"nameType":"PRIM",{name}"isPrimary":"Y "}}',
        )

    def _details(self, id_: int, kinds: tuple[tuple[str, float, float], ...]) -> str:
        """Contact details; each kind with the shares of those who have it, and of those with an extension."""
        chance = self._random
        items = []
        primary = self._below(len(kinds) + 1)
        for index, (kind, share, extended) in enumerate(kinds):
            if chance() >= share:
                continue
            for again in range(2 if chance() < 0.05 else 1):
                value = self.email(id_ + 1 + again) if kind == "EMAIL" else self.phone()
                extension = f'"contactDetailValueExtension":"{self._below(1000)}",' if chance() < extended else ""
                flag = "C1YS" if index == primary and not again else "C1NO"
                items.append(
                    f'{{"contactDetailType":"{kind}","contactDetailValue":"{value}",{extension}'
                    f'"contactDetailPrimary":"{flag}"}}'
                )
        if not items:
            return self._null("contactDetails")
        return self._plural("contactDetails", ",".join(items)) + ","

    def _life_support(self, business: bool) -> str:
        fate = self._random()
        if fate < 0.01 and not business:
            text = self._one(("Home dialysis", "Oxygen concentrator, day and night", "Ventilator — call before outage"))
            return f'"lifeSupportSensitiveLoad":"Y ","lifeSupportSensitiveLoadDescription":"{text}",'
        load = '"lifeSupportSensitiveLoad":"N ",' if fate < 0.9 else self._null("lifeSupportSensitiveLoad")
        return load + self._null("lifeSupportSensitiveLoadDescription")

    def service_point(self, id_: int, place_index: int) -> bytes:
        """A service point with its premise at a place (index into `places()`)."""
        chance = self._random
        place = places()[place_index]
        status = "C " if chance() < 0.95 else "D "
        division = f'"division":"{place.state} ",' if chance() < 0.97 else self._null("division")
        unit = (
            f'"address2":"{self._one(names.UNITS)} {1 + self._below(99)}",'
            if chance() < 0.25
            else self._null("address2")
        )
        postal = place.postal if chance() < 0.9 else f"{place.postal}-{1000 + self._below(9000)}"
        installed = date.fromordinal(_FIRST_DAY - self._below(9000)).isoformat()
        if chance() < 0.97:
            latitude, longitude = place.latitude + self._jitter(), place.longitude + self._jitter()
            geocode = f'"geocodeLatitude":{latitude:.6f},"geocodeLongitude":{longitude:.6f}'
        else:
            geocode = '"geocodeLatitude":null,"geocodeLongitude":null'
        return (
            f'{{"servicePointId":"{id_:010}","servicePointType":"{self._one(_COMMODITIES)}","sourceStatus":"{status}",'
            f'{division}"version":{1 + self._below(9)},"premise":{{"premiseId":"{self._below(ID_SPACE):010}",'
            f'"premiseType":"SFD ","timeZone":"{place.time_zone}","address":{{"country":"USA","postal":"{postal}",'
            f'"address1":"{1 + self._below(9999)} {self._one(names.STREETS)}",{unit}'
            f'{self._null("address3")}{self._null("address4")}"city":"{place.city}","county":"{place.county}",'
            f'"state":"{place.state}"}},{geocode}}},"installationDate":"{installed}","abolishedDate":null}}'
        ).encode()

    def _jitter(self) -> float:
        return (self._random() - 0.5) / 20

    def service_agreement(self, id_: int, agreement: Agreement, another_service_point: int) -> bytes:
        """A service agreement; one in twenty has a second service point, one in fifty none."""
        chance = self._random
        state = places()[agreement.place].state
        division = f'"division":"{state} ",' if chance() < 0.97 else self._null("division")
        if agreement.start == _FUTURE_DAY:
            status = "10"
        elif agreement.end:
            status = self._one(("40", "60", "60"))
        else:
            status = "20"
        end = f'"{date.fromordinal(agreement.end)}"' if agreement.end else "null"
        fate = chance()
        links = []
        if fate > 0.02:
            links.append(self._link(agreement.service_point, agreement.start, agreement.end))
        if fate > 0.95 and another_service_point != agreement.service_point:
            stop = agreement.start + 31 if fate > 0.98 else _NO_END
            if agreement.end and stop in (_NO_END, agreement.end):
                stop = agreement.end + 1  # never in the same moment: which of the two is the last must be plain
            links.append(self._link(another_service_point, agreement.start + 7, stop))
        return (
            f'{{"serviceAgreementId":"{id_:010}","saType":"{self._one(_COMMODITIES)}","status":"{status}",{division}'
            f'"version":{1 + self._below(30)},"account":{{"accountId":"{account_of(agreement.person):010}",'
            f'"mainCustomerPersonId":"{agreement.person:010}","billCycle":"M{self._below(21):02}"}},'
            f'"startDate":"{date.fromordinal(agreement.start)}","endDate":{end},'
            f"{self._plural('servicePoints', ','.join(links))}}}"
        ).encode()

    def _link(self, service_point: int, start: int, stop: int) -> str:
        return (
            f'{{"servicePointId":"{service_point:010}","startDateTime":{self._midnight(start)},'
            f'"stopDateTime":{self._midnight(stop)}}}'
        )


def account_of(person: int) -> int:
    """The account of a person: one each, spread over the key space like every id."""
    return (person * 7_919 + 4_711) % ID_SPACE
