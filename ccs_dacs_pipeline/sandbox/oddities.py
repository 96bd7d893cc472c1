"""Awkward but legal values, and bad ones: what real data holds now and then.

Awkward values must arrive cleaned as record-layouts.md, "File dialect" says; each bad one breaks exactly one
rule there and must be quarantined.
"""

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from ccs_dacs_pipeline.sandbox.config import SandboxConfig
from ccs_dacs_pipeline.sandbox.entities import CcsEntity

Record = dict[str, Any]
Alteration = Callable[[Record, Random], None]


def dumps(record: Record) -> bytes:
    """A record as JSON; escapes carry what UTF-8 cannot, such as a lone surrogate."""
    return json.dumps(record, separators=(",", ":")).encode("ascii")


def items(plural: object) -> list[Record]:
    """The members of a plural in either shape, wrapped or bare; none for null."""
    if isinstance(plural, dict):
        plural = next(iter(plural.values()), None)
    return plural if isinstance(plural, list) else []


def _set_name(record: Record, given: str, family: str) -> None:
    for name in items(record["names"]):
        name.update(entityName=f"{family},{given}", firstName=given, lastName=family)


def _awkward_name(record: Record, rng: Random) -> None:
    given, family = rng.choice(
        (
            ("Ann\tMarie", "Tab"),
            ("Line\r\nBreak", "Two  Blanks"),
            ("Nul\0Inside", "\x7fDelete\x1b"),
            ("Next\x85Line", "Separ\u2028ator"),
            ("  Padded ", " Both\u00a0Ends  "),
            ('"Quoted"', "Back\\slash"),
            ("=1+1", "@Formula"),
            ("Zero\u200bWidth", "\ufeffByteOrderMark"),
            ("Jose\u0301", "De\u0301compose\u0301"),
            ("\u202eRight", "ToLeft\u202c"),
            ("👩\u200d👩\u200d👧", "Family\U0001f3e0"),
            ("\U0001d49c" * 100, "\U00010348" * 153),  # 254 code points in all, four bytes each
        )
    )
    _set_name(record, given, family)


def _comma_name(record: Record, rng: Random) -> None:
    entity_name = rng.choice((",Cher", "Prince,", "Last, First, Jr.", " Reddy , John ", "Solo"))
    for name in items(record["names"]):
        name.update(entityName=entity_name, firstName=None, lastName="")


def _awkward_description(record: Record, rng: Random) -> None:
    text = rng.choice(("Ventilator;\tsee note\nCall first", "x" * 1000, "ünïcödé " * 125, "\x01\x02 pump \x03"))
    record.update(lifeSupportSensitiveLoad="Y ", lifeSupportSensitiveLoadDescription=text)


def _awkward_phone(record: Record, rng: Random) -> None:
    for detail in items(record.get("contactDetails")):
        value, extension = rng.choice((("+1\t202 555 0188", " 7 "), ("", "12"), ("555-0123", "\n"), (" ", None)))
        detail.update(contactDetailValue=value, contactDetailValueExtension=extension)


def _awkward_address(record: Record, rng: Random) -> None:
    record["premise"]["address"].update(
        address1=rng.choice(("1 Main\tSt\nRear", '12 "The Old Mill"', "Ñuñoa 7\u2029", "A" * 254)),
        address2="  ",
        address3="c/o\r\nConcierge",
        city="X" * 30,
        state=None,
    )


def _awkward_geocode(record: Record, rng: Random) -> None:
    latitude, longitude = rng.choice(((37.0, -122.0), (1e-7, -1e-9), (12.3456789123, -98.76543219876), (0, 180)))
    record["premise"].update(geocodeLatitude=latitude, geocodeLongitude=longitude)


def _awkward_dates(record: Record, rng: Random) -> None:
    start, end = rng.choice((("1900-01-01", None), ("2024-02-29", "9999-12-31"), ("2023-03-12", "2023-11-05")))
    record.update(startDate=start, endDate=end)


def _no_customer(record: Record, rng: Random) -> None:
    record["account"].update(mainCustomerPersonId=rng.choice((None, "", "  ")))


AWKWARD: dict[CcsEntity, tuple[Alteration, ...]] = {
    "person": (_awkward_name, _awkward_name, _comma_name, _awkward_description, _awkward_phone),
    "service_point": (_awkward_address, _awkward_geocode),
    "service_agreement": (_awkward_dates, _no_customer),
}


def _bad_name(record: Record, rng: Random) -> None:
    _set_name(
        record, *rng.choice((("A" * 130, "B" * 124), ("Lone", "\ud800Surrogate"), ("", ""), ("\U0001d49c" * 254, "Z")))
    )
    if items(record["names"])[0]["firstName"] == "":
        record["names"] = None


def _bad_person_code(record: Record, rng: Random) -> None:
    record.update(
        rng.choice(({"personOrBusiness": "X "}, {"personOrBusiness": None}, {"lifeSupportSensitiveLoad": "Q "}))
    )


def _bad_email(record: Record, rng: Random) -> None:
    record["emailAddress"] = "a" * rng.randint(243, 300) + "@example.com"


def _bad_source_status(record: Record, rng: Random) -> None:
    record["sourceStatus"] = rng.choice(("X ", "", None))


def _bad_premise(record: Record, rng: Random) -> None:
    record["premise"].update(rng.choice(({"timeZone": None}, {"timeZone": " "}, {"geocodeLatitude": "north"})))


def _bad_address(record: Record, rng: Random) -> None:
    key, longest = rng.choice(
        (("city", 30), ("county", 30), ("postal", 12), ("state", 6), ("country", 3), ("address1", 254))
    )
    record["premise"]["address"][key] = "W" * (longest + 1)


def _bad_start(record: Record, rng: Random) -> None:
    record["startDate"] = rng.choice(("2023-02-30", "0000-00-00", None, "", "2023-13-01", "yesterday"))


def _bad_end(record: Record, rng: Random) -> None:
    record["endDate"] = rng.choice(("2021-02-29", "0000-00-00", "2024-06-31"))


BAD: dict[CcsEntity, tuple[Alteration, ...]] = {
    "person": (_bad_name, _bad_person_code, _bad_email),
    "service_point": (_bad_source_status, _bad_premise, _bad_address),
    "service_agreement": (_bad_start, _bad_end),
}


class Oddities:
    """Alters a share of the records that pass through, the same ones for the same seed."""

    def __init__(self, config: SandboxConfig) -> None:
        self._bad = config.bad_share
        self._odd = config.bad_share + config.awkward_share
        self._rng = Random(f"{config.seed}:oddities")

    def sprinkle(self, entity: CcsEntity, records: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        """Passes (id, record) pairs on, altered here and there."""
        for id_, record in records:
            fate = self._rng.random()
            if fate >= self._odd:
                yield id_, record
                continue
            altered: Record = json.loads(record)
            self._rng.choice((BAD if fate < self._bad else AWKWARD)[entity])(altered, self._rng)
            yield id_, dumps(altered)
