"""Layout profiles: what an extract file looks like, as data (record-layouts.md, Profiles to ship, File dialect).

A profile is a TOML file. ``core`` and ``assumed-tail`` are shipped in ``layouts/``; a site points a setting at its own.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from collections import Counter
from collections.abc import Mapping  # noqa: TC003  pydantic reads the annotation
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from ccs_dacs_pipeline.entities.cleaning import CONTROL_CHARACTERS
from ccs_dacs_pipeline.entities.conversions import DateTimeFormat  # noqa: TC001  pydantic reads the annotation
from ccs_dacs_pipeline.entities.model import Entity, Kind, ValueMap
from ccs_dacs_pipeline.entities.registry import ENTITIES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

SHIPPED = ("core", "assumed-tail")
"""Names of the profiles that come with the package."""

_SEPARATORS = frozenset(map(chr, range(1, 0x20))) - {"\n", "\r"} | frozenset("|;,~^")
# What polars takes for several columns at once.
_PATTERN = re.compile(r"\*|\^.*\$")
_WITHOUT_VALUE_MAP = (Kind.NUMBER, Kind.DATE, Kind.DATE_TIME)


class LayoutError(ValueError):
    """A layout profile that cannot be used.

    Attributes:
        path: the profile's path.
        column: the column in question with its entity, or the part of the profile; None when it is the whole.
        reason: what is wrong, and the way out.
    """

    def __init__(self, path: str, column: str | None, reason: str) -> None:
        where = f", {column}" if column else ""
        super().__init__(f"Layout profile {path}{where}: {reason}")
        self.path = path
        self.column = column
        self.reason = reason


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Column(_Data):
    """One column of an extract file.

    Attributes:
        name: as DACS's guides name the field; the header line and reports show it.
        source: name of one of the entity's sources.
        required: whether an empty value quarantines the record.
        max_length: greatest length in Unicode code points, after cleaning; None for any.
        value_map: name of the value map that translates the value; None for none.
        mark: ``D`` documented by Oracle, ``A`` assumed.
    """

    name: str = Field(min_length=1)
    source: str
    required: bool = False
    max_length: PositiveInt | None = None
    value_map: str | None = None
    mark: Literal["D", "A"] = "A"


class EntityLayout(_Data):
    """The columns of one entity's extract files, in file order."""

    entity: str
    columns: tuple[Column, ...] = Field(strict=False, min_length=1)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in file order."""
        return tuple(column.name for column in self.columns)

    @property
    def id_column(self) -> str:
        """Name of the column that holds the External Id."""
        return next(column.name for column in self.columns if column.source == "external_id")


class Dialect(_Data):
    """How values become lines.

    Attributes:
        separator: one character between values; there is no quoting.
        header: whether the first line names the columns.
        line_end: end of every line.
        encoding: UTF-8 (without BOM), or a single-byte encoding that extends ASCII.
        datetime_format: ``ouaf`` (``YYYY-MM-DD-HH.MM.SS`` in the base time zone) or ``xsd`` (ISO 8601 with its offset).
    """

    separator: str = "\t"
    header: bool = False
    line_end: Literal["\n", "\r\n"] = "\n"
    encoding: str = "utf-8"
    datetime_format: DateTimeFormat = "ouaf"

    @property
    def not_encodable(self) -> str | None:
        """Regular expression for one character that the encoding cannot carry; None when it carries all.

        Raises:
            LookupError: if the encoding is unknown, or neither UTF-8 nor a single-byte one that extends ASCII.
        """
        return _not_encodable(self.encoding)


@cache
def _not_encodable(encoding: str) -> str | None:
    every_byte, ascii_bytes = bytes(range(0x100)), bytes(range(0x80))
    try:
        if codecs.lookup(encoding).name == "utf-8":
            return None
        characters = every_byte.decode(encoding, "replace")
        single_byte = len(characters) == len(every_byte) and ascii_bytes.decode("ascii").encode(encoding) == ascii_bytes
    except ValueError:  # some encodings know no replacement, cp864 has no per cent sign
        single_byte = False
    if not single_byte:
        raise LookupError(f"{encoding} is not a single-byte encoding that extends ASCII")
    carried = "".join(rf"\x{{{ord(character):x}}}" for character in characters if character != "\ufffd")
    return f"[^{carried}]"


class LayoutProfile(_Data):
    """All layouts of a site, with the value maps and the dialect they share.

    Attributes:
        name: the profile's name.
        version: the profile's version.
        source: where its facts come from, for people.
        dialect: how values become lines.
        entities: layout by DACS entity; every entity of ``ENTITIES`` has one.
        value_maps: value maps by name.
    """

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    source: str = Field(min_length=1)
    dialect: Dialect = Dialect()
    entities: Mapping[str, EntityLayout]
    value_maps: Mapping[str, ValueMap] = {}

    @field_validator("entities", mode="before")
    @classmethod
    def _name_layouts(cls, layouts: object) -> object:
        """A table's key is its entity's name."""
        if not isinstance(layouts, dict):
            return layouts
        return {
            name: {**layout, "entity": name} if isinstance(layout, dict) else layout for name, layout in layouts.items()
        }

    def with_datetime_format(self, datetime_format: str) -> LayoutProfile:
        """The same profile with another format of dates and times.

        Raises:
            ValidationError: if there is no such format.
        """
        dialect = Dialect.model_validate({**self.dialect.model_dump(), "datetime_format": datetime_format})
        return self.model_copy(update={"dialect": dialect})


def load_profile(name_or_path: str, *, datetime_format: str | None = None) -> LayoutProfile:
    """Load and check a profile.

    Args:
        name_or_path: ``core``, ``assumed-tail``, or the path of a TOML file.
        datetime_format: takes the place of the profile's, if given.

    Raises:
        LayoutError: if there is no such profile or it breaks a rule, with its path, the column and the reason.
    """
    file = _locate(name_or_path)
    path = str(file)
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise LayoutError(path, None, f"it cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise LayoutError(path, None, f"it is not a TOML file in UTF-8: {error}.") from error
    try:
        profile = LayoutProfile.model_validate(data)
        if datetime_format is not None:
            profile = profile.with_datetime_format(datetime_format)
    except ValidationError as error:
        first = error.errors()[0]
        raise LayoutError(path, _place(first["loc"], data), f"{first['msg']}.") from error
    for column, reason in _faults(profile):
        raise LayoutError(path, column, reason)
    return profile


def _locate(name_or_path: str) -> Traversable | Path:
    if name_or_path in SHIPPED:
        return resources.files(__package__).joinpath("layouts", f"{name_or_path}.toml")
    path = Path(name_or_path)
    if path.suffix != ".toml" and not path.is_file():  # a misspelt name rather than a path
        raise LayoutError(name_or_path, None, f"choose {' or '.join(SHIPPED)}, or the path of a TOML file.")
    return path


def _place(location: tuple[int | str, ...], data: dict[str, Any]) -> str:
    """Where a fault is, with the column's name where it has one: ``contact column Name, max_length``."""
    match location:
        case ("entities", entity, "columns", int(index), *rest):
            name = data["entities"][entity]["columns"][index]
            name = name.get("name", index + 1) if isinstance(name, dict) else index + 1
            return ", ".join(map(str, (f"{entity} column {name}", *rest)))
        case _:
            return ".".join(map(str, location))


def _faults(profile: LayoutProfile) -> Iterator[tuple[str, str]]:
    """What the types alone do not show: place and reason of each fault, in the order of the profile."""
    yield from _dialect_faults(profile.dialect)
    for name, value_map in profile.value_maps.items():
        yield from ((f"value map {name}", reason) for reason in _value_map_faults(value_map))
    entities = {entity.name: entity for entity in ENTITIES}
    for name in profile.entities:
        if name not in entities:
            yield f"entity {name}", f"there is no such entity; there are {', '.join(entities)}."
    for name, entity in entities.items():
        if name not in profile.entities:
            yield f"entity {name}", f"its table is missing; add [entities.{name}] with its columns."
        else:
            yield from _role_faults(entity, profile.value_maps)
            yield from _layout_faults(entity, profile.entities[name], profile)


def _dialect_faults(dialect: Dialect) -> Iterator[tuple[str, str]]:
    if dialect.separator not in _SEPARATORS:
        yield (
            "dialect.separator",
            "it must be one control character other than NUL and the line ends (tab, say), or one of | ; , ~ ^.",
        )
    try:
        _ = dialect.not_encodable
    except LookupError as error:
        yield "dialect.encoding", f"{error}; choose utf-8 or a single-byte encoding such as iso8859-1."


def _value_map_faults(value_map: ValueMap) -> Iterator[str]:
    for ccs, dacs in value_map.codes.items():
        if not _is_clean(ccs):
            yield f"code {ccs!r} can never be met, since codes are cleaned and trimmed first; write it so."
        if not dacs or not _is_clean(dacs):
            yield f"code {ccs!r} is translated to {dacs!r}; give a code without control characters and outer spaces."


def _role_faults(entity: Entity, value_maps: Mapping[str, ValueMap]) -> Iterator[tuple[str, str]]:
    for name, roles in entity.roles.items():
        place, choices = f"value map {name}", ", ".join(sorted(roles))
        if name not in value_maps:
            yield place, f"it is missing; {entity.name} needs it to translate to {choices}."
        elif strange := set(value_maps[name].codes.values()) - roles:
            yield place, f"it translates to {', '.join(sorted(strange))}; it may only translate to {choices}."
        elif value_maps[name].unlisted != "pass":
            yield place, 'an unlisted code fills no column and is no fault of its record; write unlisted = "pass".'


def _layout_faults(entity: Entity, layout: EntityLayout, profile: LayoutProfile) -> Iterator[tuple[str, str]]:
    names, sources = Counter(layout.names), Counter(column.source for column in layout.columns)
    for column in layout.columns:
        for reason in _column_faults(entity, column, profile):
            yield f"{entity.name} column {column.name}", reason
        if names[column.name] > 1:
            yield f"{entity.name} column {column.name}", "it is there twice; each column has its own name."
        if sources[column.source] > 1:
            yield f"{entity.name} column {column.name}", f"another one has the same source {column.source}; keep one."
    for name, source in entity.sources.items():
        if source.required and name not in sources:
            yield entity.name, f"the required column with the source {name} is missing; add it."


def _column_faults(entity: Entity, column: Column, profile: LayoutProfile) -> Iterator[str]:
    if not _is_clean(column.name) or profile.dialect.separator in column.name:
        yield "a column's name holds no control character, separator, or outer space."
    if _PATTERN.fullmatch(column.name):
        yield "a name of this form is a pattern of names; choose another."
    if column.name.encode(profile.dialect.encoding, "ignore").decode(profile.dialect.encoding) != column.name:
        yield f"its name holds a character that {profile.dialect.encoding} has not; choose another name or encoding."
    source = entity.sources.get(column.source)
    if source is None:
        yield f"there is no source {column.source}; choose one of {', '.join(entity.sources)}."
    elif column.source == "external_id" and not column.required:
        yield "the External Id is always required; write required = true."
    elif column.value_map is not None and source.kind in _WITHOUT_VALUE_MAP:
        yield f"a {source.kind} takes no value map; remove it."
    if column.value_map is not None and column.value_map not in profile.value_maps:
        yield f"there is no value map {column.value_map}; add [value_maps.{column.value_map}]."


def _is_clean(text: str) -> bool:
    return text == text.strip(" ") and not re.search(CONTROL_CHARACTERS, text)
