"""What an entity pair is: a CCS entity, the DACS entity it becomes, and the vocabulary to say how.

One module per pair (``person.py``, ``service_point.py``, ``service_agreement.py``) says everything about it with these
types. Nothing here reads or writes; ``mapping.py`` applies them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from ccs_dacs_pipeline.entities.rules import Rule

REFERENCES_SCHEMA = pl.Schema(
    {"entity_id": pl.String(), "external_reference_id": pl.String(), "change_date_time": pl.Datetime("us")}
)
"""Columns of ``MappingContext.references``; the Datetime is wall clock time in the base time zone."""

INITIAL_LOAD = "F1IL"


class ValueMap(BaseModel):
    """Translates CCS codes to DACS codes (record-layouts.md, Value maps).

    Attributes:
        codes: CCS code, trimmed, to DACS code. The key ``""`` stands for an empty code.
        unlisted: what a code that is not listed does: ``pass`` as it is, or ``quarantine`` its record.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    codes: dict[str, str]
    unlisted: Literal["pass", "quarantine"]

    def translate(self, code: pl.Expr) -> pl.Expr:
        """The DACS code of a trimmed CCS code (null when empty); null for an unlisted one that quarantines."""
        listed = {ccs: dacs for ccs, dacs in self.codes.items() if ccs}
        unlisted = code if self.unlisted == "pass" else pl.lit(None, pl.String)
        translated = code.replace_strict(listed, default=unlisted, return_dtype=pl.String) if listed else unlisted
        return pl.when(code.is_null()).then(pl.lit(self.codes.get(""), pl.String)).otherwise(translated)

    def codes_for(self, dacs_code: str) -> list[str]:
        """The CCS codes that are translated to a DACS code."""
        return [ccs for ccs, dacs in self.codes.items() if dacs == dacs_code]


@dataclass(frozen=True)
class Eligibility:
    """Allowed lists of CCS's own codes (sync-lifecycle.md, Eligibility); an empty one allows all.

    Codes are compared after trimming. A record whose code is missing is not in a list.
    """

    person_types: frozenset[str] = frozenset()
    sp_types: frozenset[str] = frozenset()
    sa_types: frozenset[str] = frozenset()
    sa_statuses: frozenset[str] = frozenset()
    divisions: frozenset[str] = frozenset()


@dataclass(frozen=True)
class MappingContext:
    """What a batch knows beyond the records.

    Attributes:
        load_flag: ``F1IL`` for an initial load, ``F1IC`` for a delta and a resync.
        moment: time of the fetch, aware: "linked now" of record-layouts.md, Metered Service 12.
        time_zone: the CCS environment's base time zone.
        eligibility: allowed lists.
        references: None in an initial load. Else exactly one row for each fetched entity, with the columns of
            ``REFERENCES_SCHEMA``: its id, the id of the sync request that is written (null in a resync), and its
            Change Date Time as wall clock time in the base time zone.

    Raises:
        ValueError: if references do not go with the load flag or have other columns, or the moment has no time zone.
    """

    load_flag: Literal["F1IL", "F1IC"]
    moment: datetime
    time_zone: ZoneInfo
    eligibility: Eligibility = field(default_factory=Eligibility)
    references: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        if self.moment.utcoffset() is None:
            raise ValueError("MappingContext.moment needs a time zone: pass an aware datetime.")
        if (self.load_flag == INITIAL_LOAD) != (self.references is None):
            raise ValueError(
                f"MappingContext.references must be None in an initial load ({INITIAL_LOAD}) and given in any other; "
                f"the load flag is {self.load_flag}."
            )
        if self.references is not None and not set(REFERENCES_SCHEMA) <= set(self.references.columns):
            raise ValueError(
                f"MappingContext.references needs the columns {', '.join(REFERENCES_SCHEMA)}; "
                f"it has {', '.join(self.references.columns)}."
            )
        if self.references is not None and not _is_wall_clock(self.references.schema["change_date_time"]):
            raise ValueError("MappingContext.references: change_date_time must be a Datetime without a time zone.")


@dataclass(frozen=True)
class Scope:
    """What a source's expression may use besides the record's members: the batch and the profile's value maps."""

    context: MappingContext
    value_maps: Mapping[str, ValueMap]


class Kind(StrEnum):
    """What a source yields, and so how it is checked and written."""

    TEXT = "text"
    CODE = "code"
    """A code of CCS, which a value map may translate."""
    REFERENCE = "reference"
    """The id of another entity."""
    BOOLEAN = "boolean"
    """JSON text ``true`` or ``false``; a value map may translate it."""
    DATE = "date"
    """Text ``YYYY-MM-DD``, written as a date and time: 00:00:00 in the base time zone."""
    DATE_TIME = "date_time"
    """A naive Datetime, wall clock time in the base time zone."""
    NUMBER = "number"
    """JSON text of a number, written as a plain decimal of at most 7 places."""


@dataclass(frozen=True)
class Flaw:
    """A rule that a column's value can break.

    Attributes:
        rule: the rule.
        broken: Boolean expression; null means not broken.
        detail: what is wrong in words, without the value.
    """

    rule: Rule
    broken: pl.Expr
    detail: str


@dataclass(frozen=True)
class ColumnSource:
    """What a layout column may name as its source: how the value comes to be.

    Attributes:
        expression: makes the value from a cleaned record (texts trimmed, empty ones null, no null list elements) and
            the entity's parts: String, or Datetime for ``Kind.DATE_TIME``.
        kind: how the value is checked and written.
        members: CCS members it comes from, dotted, with the wrapper's inner list: ``names.namesList.firstName``.
        required: whether record-layouts.md marks the column as required, so that every profile must have it.
        references: the DACS entity it refers to, for a reference.
        flaw: a rule of its own, over the same cleaned record.
    """

    expression: Callable[[Scope], pl.Expr]
    kind: Kind
    members: tuple[str, ...] = ()
    required: bool = False
    references: str | None = None
    flaw: Flaw | None = None


@dataclass(frozen=True)
class Criterion:
    """One allowed list an entity is held against.

    Attributes:
        reason: what the list is about, as figures name it: ``person type``.
        code: the record's code, trimmed.
        allowed: picks the list.
    """

    reason: str
    code: pl.Expr
    allowed: Callable[[Eligibility], frozenset[str]]


@dataclass(frozen=True)
class Entity:
    """Everything about one pair of entities (record-layouts.md, Objects on both sides; ccs-rest.md, Searches).

    Attributes:
        name: DACS entity, as reports name it (interface.md): ``contact``.
        source: CCS entity, as raw assets name it: ``person``.
        label: DACS entity for people: ``Contact``.
        source_label: CCS entity for people: ``Person``.
        service: path segment of the search service: ``persons``.
        list_member: member of a search answer that holds the entities.
        id_member: member of an entity that holds its id.
        initial_code: batch code of an initial load's files.
        incremental_code: batch code of a delta's and a resync's files.
        business_object: business object of its sync requests.
        maintenance_object: maintenance object of its sync requests.
        schema: one record as raw assets hold it. All scalars are String, numbers and booleans as their JSON text, so
            that a value of a wrong type quarantines its record instead of being lost; plural members are List(Struct).
        plural_members: member to the inner list of the object that may wrap it.
        sources: what a layout column may name as its source.
        criteria: allowed lists it is held against.
        roles: value maps that its sources consult themselves, and the codes that these may give.
        parts: values of a cleaned record that several sources build on, made once and read by name as a column.
    """

    name: str
    source: str
    label: str
    source_label: str
    service: str
    list_member: str
    id_member: str
    initial_code: str
    incremental_code: str
    business_object: str
    maintenance_object: str
    schema: pl.Schema
    plural_members: Mapping[str, str]
    sources: Mapping[str, ColumnSource]
    criteria: tuple[Criterion, ...]
    roles: Mapping[str, frozenset[str]] = field(default_factory=dict)
    parts: Mapping[str, Callable[[Scope], pl.Expr]] = field(default_factory=dict)


def _is_wall_clock(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.Datetime) and dtype.time_zone is None


def texts(*members: str) -> dict[str, pl.DataType]:
    """Members of text, to build a schema of."""
    return dict.fromkeys(members, pl.String())


def element(member: str) -> pl.Expr:
    """A member of a plural member's element, within list expressions."""
    return pl.element().struct.field(member)


def member_source(path: str, kind: Kind, *, required: bool = False, references: str | None = None) -> ColumnSource:
    """A source that is one member of the record, by its dotted path through sub-objects."""
    head, *tail = path.split(".")
    value = pl.col(head)
    for name in tail:
        value = value.struct.field(name)
    return ColumnSource(lambda _: value, kind, (path,), required=required, references=references)


def common_sources(id_member: str) -> dict[str, ColumnSource]:
    """Columns 1 to 4 of every layout: external reference id, change date time, initial load flag, external id."""
    return {
        "external_reference_id": ColumnSource(_of_references("external_reference_id"), Kind.TEXT),
        "change_date_time": ColumnSource(_of_references("change_date_time"), Kind.DATE_TIME),
        "initial_load_flag": ColumnSource(lambda scope: pl.lit(scope.context.load_flag), Kind.CODE, required=True),
        "external_id": member_source(id_member, Kind.TEXT, required=True),
    }


def _of_references(column: str) -> Callable[[Scope], pl.Expr]:
    """A column that the mapper joins from the context's references; null in an initial load."""
    empty = pl.lit(None, REFERENCES_SCHEMA[column])
    return lambda scope: empty if scope.context.references is None else pl.col(column)
