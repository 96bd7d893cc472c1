"""Maps CCS records to rows of an extract file, and sorts out those that cannot be (record-layouts.md).

Everything is a polars expression over whole frames: no Python runs per record, so that a record of a frame of some
thousand costs a few microseconds. The steps: clean all texts, hold the records against the allowed lists, make each
column's source value, convert or translate it, and test every value against the rules in column order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from ccs_dacs_pipeline.entities.cleaning import LONE_SURROGATE, any_text, cleaned, holds_control, trimmed, with_texts
from ccs_dacs_pipeline.entities.conversions import boolean, date_time_text, decimal, midnight
from ccs_dacs_pipeline.entities.model import (
    REFERENCES_SCHEMA,
    ColumnSource,
    Entity,
    Flaw,
    Kind,
    MappingContext,
    Scope,
)
from ccs_dacs_pipeline.entities.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ccs_dacs_pipeline.entities.profile import Column, Dialect, LayoutProfile


@dataclass(frozen=True)
class Mapped:
    """What became of a frame of records: each is in exactly one of the three frames, in input order.

    Attributes:
        rows: good records: exactly the layout's columns, in order, all String, as they are written; null is an empty
            field.
        quarantined: ``entity_id``, ``rule``, ``field``, ``detail``, all String: one row per bad record, with the first
            rule it breaks in column order. ``detail`` never holds the value.
        not_eligible: ``entity_id``, ``reason``, both String: records that an allowed list leaves out.
        cleaned: column name to the number of written values that cleaning changed, where there are any. Spaces trimmed
            from the ends of a text do not count as a change, since CCS pads its codes as a matter of course.
    """

    rows: pl.DataFrame
    quarantined: pl.DataFrame
    not_eligible: pl.DataFrame
    cleaned: dict[str, int]


@dataclass(frozen=True)
class _Field:
    """A column of the layout bound to its source, with the names its values have on their way."""

    column: Column
    source: ColumnSource

    @property
    def name(self) -> str:
        """The written value."""
        return self.column.name

    @property
    def given(self) -> str:
        """The source's value, before it is converted; no column's name holds a tab."""
        return f"{self.column.name}\tgiven"

    @property
    def flawed(self) -> str:
        """Whether the source's own rule is broken."""
        return f"{self.column.name}\tflawed"


class Mapper:
    """Maps frames of records of one entity in one batch, in any number of threads at once.

    Its expressions are made once: they are hundreds, and making them takes half as long as to map a small frame.
    """

    def __init__(self, entity: Entity, profile: LayoutProfile, context: MappingContext) -> None:
        """Prepares the mapping.

        Args:
            entity: the entity pair.
            profile: the layout profile.
            context: what the batch knows beyond the records.
        """
        self._entity = entity
        self._context = context
        columns = profile.entities[entity.name].columns
        fields = [_Field(column, entity.sources[column.source]) for column in columns]
        scope = Scope(context, profile.value_maps)

        self._entity_id = pl.col(entity.id_member).str.replace_all(LONE_SURROGATE, "\ufffd", literal=True)
        self._touched = any_text(entity.schema, holds_control)
        self._trimmed = with_texts(entity.schema, trimmed)
        self._cleaned = with_texts(entity.schema, cleaned)
        self._reason = _reason(entity, context)
        self._parts = [part(scope).alias(name) for name, part in entity.parts.items()]
        self._given = [field.source.expression(scope).alias(field.given) for field in fields]
        self._flawed = [field.source.flaw.broken.alias(field.flawed) for field in fields if field.source.flaw]
        self._written = [_written(field, profile, context) for field in fields]
        self._names = [field.name for field in fields]
        self._of_record = [field for field in fields if field.source.members]
        self._given_of_record = [field.source.expression(scope).alias(field.given) for field in self._of_record]

        flaws = [(field.name, flaw) for field in fields for flaw in _flaws(field, profile)]
        self._first_broken = _first_broken(flaws)
        self._findings = pl.DataFrame(
            [(name, flaw.rule.value, flaw.detail) for name, flaw in flaws],
            schema=dict.fromkeys(("field", "rule", "detail"), pl.String()),
            orient="row",
        )

    def map(self, raw: pl.DataFrame) -> Mapped:
        """Maps records.

        Args:
            raw: records with the entity's schema, in any order.

        Raises:
            ValueError: if ``raw`` has another schema, or an entity has no row or several among the context's
                references.
        """
        if raw.schema != self._entity.schema:
            raise ValueError(_schema_difference(self._entity, raw.schema))
        # Pages come in several chunks. Of such a frame polars gives a literal alone, as the reason is where all records
        # are eligible, once for each chunk, which fits neither one value nor one for each record.
        raw = raw.rechunk()
        touched = raw.select(self._touched).to_series()
        records = self._clean(raw, touched)
        reason = records.select(self._reason).to_series()
        eligible = reason.is_null()
        not_eligible = records.filter(~eligible).select(entity_id=self._entity_id, reason=reason.drop_nulls())

        records = records.filter(eligible)
        values = _with_references(self._entity, records, self._context)
        values = values.with_columns(self._parts).select(*self._given, *self._flawed).with_columns(self._written)
        verdict = values.select(self._first_broken).to_series()
        good = verdict.is_null()
        quarantined = records.filter(~good).select(entity_id=self._entity_id)

        changed = good & touched.filter(eligible)
        places = pl.int_range(raw.height, eager=True).filter(eligible).filter(changed)
        return Mapped(
            rows=values.filter(good).select(self._names),
            quarantined=quarantined.hstack(self._findings[verdict.drop_nulls()]).select(
                "entity_id", "rule", "field", "detail"
            ),
            not_eligible=not_eligible,
            # The few raw records by their places: to filter all of them, the largest frame, takes a tenth of the time.
            cleaned=self._changes(raw[places], values.filter(changed)),
        )

    def _clean(self, raw: pl.DataFrame, touched: pl.Series) -> pl.DataFrame:
        """Records with all texts cleaned: all are trimmed, the touched ones, which are few, replaced."""
        records = raw.select(self._trimmed)
        if not touched.any():
            return records
        replacements = raw.filter(touched).select(self._cleaned)
        nth_replacement = raw.height - 1 + touched.cast(pl.Int64).cum_sum()
        positions = pl.select(pl.when(touched).then(nth_replacement).otherwise(pl.int_range(raw.height))).to_series()
        return pl.concat([records, replacements], rechunk=True)[positions]

    def _changes(self, raw: pl.DataFrame, values: pl.DataFrame) -> dict[str, int]:
        """How many values of each column differ from what trimming alone would have given, in the same records."""
        if raw.is_empty():
            return {}
        uncleaned = raw.select(self._trimmed).with_columns(self._parts).select(self._given_of_record)
        counts = {
            field.name: uncleaned.get_column(field.given)
            .ne_missing(values.get_column(field.given))
            .to_list()
            .count(True)
            for field in self._of_record
        }
        return {name: count for name, count in counts.items() if count}


def _reason(entity: Entity, context: MappingContext) -> pl.Expr:
    """Why a record is left out: the first allowed list that it is not in; null when it is eligible."""
    reasons = [pl.lit(None, pl.String)]
    for criterion in entity.criteria:
        if allowed := [code.strip(" ") for code in criterion.allowed(context.eligibility)]:
            listed = criterion.code.is_in(allowed).fill_null(value=False)
            reasons.append(pl.when(~listed).then(pl.lit(criterion.reason)))
    return pl.coalesce(reasons)


def _with_references(entity: Entity, records: pl.DataFrame, context: MappingContext) -> pl.DataFrame:
    """The records with what the context knows of each, where it does."""
    if context.references is None:
        return records
    references = context.references.select(*REFERENCES_SCHEMA).with_columns(pl.col("entity_id").str.strip_chars(" "))
    ids = records.get_column(entity.id_member).drop_nulls()
    if twice := references.height - references.get_column("entity_id").n_unique():
        raise ValueError(f"{entity.name}: {twice} references are there twice; give one for each entity of the batch.")
    if missing := (~ids.is_in(references.get_column("entity_id").implode())).sum():
        raise ValueError(
            f"{entity.name}: {missing} of {ids.len()} records have no reference; map only records that the batch chose."
        )
    return records.join(references, left_on=entity.id_member, right_on="entity_id", how="left", maintain_order="left")


def _written(field: _Field, profile: LayoutProfile, context: MappingContext) -> pl.Expr:
    """The value as it is written, from the source's; null where it is empty or cannot be converted."""
    given = pl.col(field.given)
    if field.column.value_map is not None:
        return profile.value_maps[field.column.value_map].translate(given).alias(field.name)
    match field.source.kind:
        case Kind.BOOLEAN:
            written = boolean(given)
        case Kind.NUMBER:
            written = decimal(given)
        case Kind.DATE:
            written = date_time_text(midnight(given), profile.dialect.datetime_format, context.time_zone)
        case Kind.DATE_TIME:
            written = date_time_text(given, profile.dialect.datetime_format, context.time_zone)
        case Kind.TEXT | Kind.CODE | Kind.REFERENCE:
            written = given
    return written.alias(field.name)


_CONVERSION_FLAWS = {
    Kind.BOOLEAN: (Rule.NOT_A_BOOLEAN, "neither true nor false"),
    Kind.NUMBER: (Rule.NOT_A_NUMBER, "no decimal number"),
    Kind.DATE: (Rule.IMPOSSIBLE_DATE, "no day of the calendar in the form YYYY-MM-DD"),
}


def _flaws(field: _Field, profile: LayoutProfile) -> Iterator[Flaw]:
    """The rules a column's value can break, the first that counts first."""
    column, source, dialect = field.column, field.source, profile.dialect
    given, written = pl.col(field.given), pl.col(field.name)
    if source.members:
        lone = given.str.contains(LONE_SURROGATE, literal=True)
        yield Flaw(Rule.LONE_SURROGATE, lone, "half of a surrogate pair")
    if source.flaw is not None:
        yield Flaw(source.flaw.rule, pl.col(field.flawed), source.flaw.detail)
    lost = given.is_not_null() & written.is_null()
    if column.value_map is not None:
        yield Flaw(Rule.UNLISTED_CODE, lost, f"not in the value map {column.value_map}")
    elif source.kind in _CONVERSION_FLAWS:
        rule, detail = _CONVERSION_FLAWS[source.kind]
        yield Flaw(rule, lost, detail)
    if column.required:
        yield Flaw(Rule.REQUIRED_VALUE, written.is_null(), "empty, but required")
    if column.max_length is not None:
        too_long = written.str.len_chars() > column.max_length
        yield Flaw(Rule.TOO_LONG, too_long, f"longer than {column.max_length} characters")
    yield from _dialect_flaws(written, dialect)


def _dialect_flaws(written: pl.Expr, dialect: Dialect) -> Iterator[Flaw]:
    """What the file cannot carry. A control character as the separator needs no test: cleaning leaves none."""
    if dialect.separator.isprintable():
        holds = written.str.contains(dialect.separator, literal=True)
        yield Flaw(Rule.HOLDS_SEPARATOR, holds, f"holds the separator {dialect.separator}")
    if dialect.not_encodable is not None:
        not_encodable = written.str.contains(dialect.not_encodable)
        yield Flaw(Rule.NOT_ENCODABLE, not_encodable, f"a character that {dialect.encoding} has not")


def _first_broken(flaws: Sequence[tuple[str, Flaw]]) -> pl.Expr:
    """Position of the first rule that is broken; null for a good record."""
    return pl.coalesce(
        pl.when(flaw.broken).then(pl.lit(position, pl.UInt32)) for position, (_, flaw) in enumerate(flaws)
    )


def _schema_difference(entity: Entity, schema: pl.Schema) -> str:
    wrong = [name for name, dtype in entity.schema.items() if schema.get(name) != dtype]
    wrong += [name for name in schema if name not in entity.schema]
    return (
        f"{entity.source}: raw records differ from the schema in {', '.join(wrong) or 'the order of members'}; "
        f"read them with entity_named({entity.source!r}).schema."
    )
