"""Seeded records that are awkward in every way the contract and the list of faults name."""

from __future__ import annotations

import random
from typing import Any

from ccs_dacs_pipeline.entities.cleaning import LONE_SURROGATE

Record = dict[str, Any]

_PIECES = (
    "Ann",
    "Reddy",
    "O'Neil",
    "Jean-Luc",
    "Ωμέγα",
    "Иван",
    "محمد",
    "שרה",
    "李",
    "佐藤",
    "กานต์",
    "é",
    "e\u0301",
    "😀",
    "\U0001d4b3",
    " ",
    "  ",
    ",",
    ", ",
    "x",
    '"',
    '"quoted"',
    "'",
    "\\",
    "=1+1",
    "\u00a0",
    "\u200b",
    "\u202e",
    "\ufeff",
    "\u3000",
    "\t",
    "\n",
    "\r\n",
    "\0",
    "\x1f",
    "\x7f",
    "\x85",
    "\x9f",
    "\u2028",
    "\u2029",
    "\t\0\t",
    " \n ",
)
_DATES = (
    "2020-01-01",
    "2024-02-29",
    "9999-12-31",
    "9999-07-01",
    "0001-01-01",
    "1850-06-01",
    "2018-11-04",
    "2012-03-30",
    "2023-02-29",
    "2020-02-30",
    "0000-00-00",
    "0000-01-01",
    "2020-13-01",
    "2020-1-1",
    "20200101",
    "2020-01-01T00:00:00",
    "\u0662\u0660\u0662\u0660-\u0660\u0661-\u0660\u0661",
    "+2020-01-01",
    " 2020-01-01 ",
    "2020-01-01\t",
    "2020-01\t-01",
    "2020/01/01",
    "12020-01-01",
    "soon",
)
_NUMBERS = (
    "37.789",
    "-122.394",
    "37",
    "37.0",
    "-0.0",
    "0",
    "1e-5",
    "-1.5E+2",
    "1e-400",
    "0.00000005",
    "0.00000015",
    "007.50",
    "0.000000050000000000000000000000000000000000000001",
    "179.99999995",
    "12345678.123456789",
    "+5",
    "1e30",
    "1e31",
    "abc",
    "NaN",
    "Infinity",
    "1e400",
    "5.",
    ".5",
    "1,5",
    "0x10",
    "--1",
    "1 2",
    "9" * 40,
    "\u0663",
    "true",
    "37.7\u00b0",
)
_INSTANTS = (
    "2020-01-01T00:00:00-08:00",
    "2020-01-01T08:00:00Z",
    "2021-06-01T00:00:00.5+0530",
    "2022-06-01T00:00-08:00",
    "2022-06-01T08:00Z",
    "2022-06-02T00:00:00+05",
    "2026-03-01T18:00:00Z",
    "2026-03-01T17:59:59Z",
    "2026-03-01T18:00:01+00:00",
    "2030-01-01T00:00:00Z",
    "9999-12-31T23:59:59-08:00",
    "2019-01-01T00:00:00Z",
    "2025-01-01T00:00:00Z",
    "1970-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
)
_BAD_INSTANTS = (
    "2020-02-30T00:00:00Z",
    "2020-01-01",
    "2020-01-01T00:00:00",
    "2020-01-01T24:30:00Z",
    "2020-01-01T24:30Z",
    "2020-01-01T00Z",
    "2020-01-01T23:59:60Z",
    "0000-01-01T00:00:00Z",
    "2020-01-01 00:00:00Z",
    "2020-01-01T00:00:00+24:00",
    "2020-01-01T00:00:00+01:60",
    "never",
)


class Awkward:
    """Makes records of each entity; the same seed gives the same records."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def records(self, entity: str, count: int) -> list[Record]:
        """So many records with distinct ids, in no order."""
        make = {"contact": self._person, "metered_service_point": self._sp, "metered_service": self._sa}[entity]
        ids = self._random.sample(range(10**10), count)
        return [make(f"{number:010}") for number in ids]

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _pick(self, *usual: str | None, odd: tuple[str | None, ...] = (), share: float = 0.05) -> str | None:
        return self._random.choice(odd if odd and self._chance(share) else usual)

    def _text(self, limit: int, *, missing: float = 0.2) -> str | None:
        if self._chance(missing):
            return self._random.choice((None, "", " ", "\t", "\0"))
        if self._chance(0.02):
            return f"lone {LONE_SURROGATE}"
        if self._chance(0.08):
            return self._random.choice("a😀é") * (limit + self._random.choice((-1, 0, 0, 1)))
        if self._chance(0.5):
            return self._random.choice(_PIECES[:15])
        return "".join(self._random.choices(_PIECES, k=self._random.randrange(1, 7)))

    def _id(self, entity_id: str) -> str | None:
        if self._chance(0.97):
            return entity_id
        return self._random.choice((None, "", " ", f" {entity_id} ", f"{entity_id}1", f"{entity_id}\t", LONE_SURROGATE))

    def _many(self, make: Any, weights: tuple[int, ...]) -> list[Any] | None:
        if self._chance(0.03):
            return None
        count = self._random.choices(range(len(weights)), weights)[0]
        return [None if self._chance(0.02) else make() for _ in range(count)]

    def _person(self, entity_id: str) -> Record:
        return {
            "personId": self._id(entity_id),
            "personOrBusiness": self._pick(
                "P", "P ", "B", "B  ", odd=("X", None, "", "p", "P\t", "P\0", LONE_SURROGATE)
            ),
            "version": "7",
            "names": self._many(self._name, (1, 20, 5, 2)),
            "contactDetails": self._many(self._detail, (3, 5, 5, 3, 2, 1)),
            "emailAddress": self._text(254, missing=0.5),
            "lifeSupportSensitiveLoad": self._pick("Y", "Y ", "N ", None, "", odd=("X", "true", "y", "N\n")),
            "lifeSupportSensitiveLoadDescription": self._text(1000, missing=0.7),
            "purged": self._pick("true", "false", None, odd=("TRUE", "0", "Y", "false ", "fal\0se")),
        }

    def _name(self) -> Record:
        return {
            "nameType": "PRIM",
            "entityName": self._pick("Reddy,John", "Reddy, John ", "Reddy", ",", ",John", "Reddy,", self._text(254)),
            "firstName": self._text(126),
            "lastName": self._text(127),
            "isPrimary": self._pick("Y ", "Y", "N ", None, odd=("y", "true", "Y\t")),
        }

    def _detail(self) -> Record:
        return {
            "contactDetailType": self._pick("HOME", "CELL", "BUSN", "EMAIL", odd=("FAX", None, "home", " HOME\t")),
            "contactDetailValue": self._text(254),
            "contactDetailValueExtension": self._pick(None, "12", " 7 ", "", odd=("\t", "1\t2")),
            "contactDetailPrimary": self._pick("C1YS", "C1NO", "C1NO ", None, "C1YS "),
        }

    def _sp(self, entity_id: str) -> Record:
        address = {
            "country": self._pick("USA", "GR", None, odd=("USAX", "U\0SA")),
            "postal": self._text(12, missing=0.7),
            "address1": self._text(254),
            "address2": self._text(254, missing=0.8),
            "address3": self._text(254, missing=0.9),
            "address4": self._text(254, missing=0.9),
            "city": self._pick("San Francisco", None, odd=(self._text(30),)),
            "county": self._pick("Κέρκυρα", None, odd=(self._text(30),)),
            "state": self._pick("CA", None, odd=(self._text(6),)),
        }
        premise = {
            "premiseId": self._pick("2242620736", None, odd=("22426207361",)),
            "timeZone": self._pick("America/Los_Angeles", "Europe/Athens ", odd=(None, "", "\t")),
            "address": None if self._chance(0.02) else address,
            "geocodeLatitude": self._pick(None, *_NUMBERS[:12], odd=_NUMBERS),
            "geocodeLongitude": self._pick(None, *_NUMBERS[:12], odd=_NUMBERS),
        }
        return {
            "servicePointId": self._id(entity_id),
            "servicePointType": self._pick("E-RES", "G-COM  ", odd=(None, " ", "\t", LONE_SURROGATE)),
            "sourceStatus": self._pick("C", "C ", "D ", "D", odd=("X", None, "", "c")),
            "division": self._pick("CA ", "NY", None, odd=("C\tA",)),
            "version": "3",
            "premise": None if self._chance(0.02) else premise,
            "installationDate": "no date at all",
            "abolishedDate": None,
        }

    def _sa(self, entity_id: str) -> Record:
        account = {
            "accountId": self._pick("2710098812", None, odd=("27100988121",)),
            "mainCustomerPersonId": self._pick("5775933103", " 5775933103", None, odd=("57759331033",)),
        }
        return {
            "serviceAgreementId": self._id(entity_id),
            "saType": self._pick("E-RES", "W-IRR ", odd=(None, "")),
            "status": self._pick("20", "60 ", None),
            "division": self._pick("CA ", "NY", None),
            "version": "12",
            "account": None if self._chance(0.05) else account,
            "startDate": self._pick(*_DATES[:8], odd=(*_DATES, None, "")),
            "endDate": self._pick(None, *_DATES[:8], odd=_DATES),
            "servicePoints": self._many(self._link, (3, 12, 5, 3, 2)),
        }

    def _link(self) -> Record:
        return {
            "servicePointId": self._pick(
                "3996166619", "3996166620", "1000000000", odd=(None, "", " 3996166618", "39961666191")
            ),
            "startDateTime": self._pick(*_INSTANTS, odd=(*_BAD_INSTANTS, None, ""), share=0.03),
            "stopDateTime": self._pick(None, None, *_INSTANTS, odd=(*_BAD_INSTANTS, ""), share=0.03),
        }
