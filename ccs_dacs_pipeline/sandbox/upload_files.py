"""Reads upload files as DACS does: names, dialect, rows and their rules, manifests.

Written from record-layouts.md ("File dialect", "File names" and the layouts). A file that breaks the dialect is refused
whole, since DACS commits once per file; a row that breaks a rule is refused alone.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple, cast
from zoneinfo import ZoneInfo

from ccs_dacs_pipeline.sandbox.entities import ENTITIES, Column, Entity, Kind

FIRST_DATA_COLUMN = 3
"""External Id; what stands before it is about the row, not about the entity."""

_TOO_LARGE = 2**30
_BOM = b"\xef\xbb\xbf"
_CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_DIGITS = re.compile(r"[0-9]+")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]{0,6}[1-9])?")
_OUAF = re.compile(r"\d{4}-\d\d-\d\d-\d\d\.\d\d\.\d\d")
_XSD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)")

_BATCH_CODES = {f"{entity.file_prefix}{kind}": (entity, kind == "IL") for entity in ENTITIES for kind in ("IL", "EX")}
_NUMBERS = {
    "batchCode": f"(?P<code>{'|'.join(map(re.escape, _BATCH_CODES))})",
    "batchNumber": r"(?P<number>\d{4,})",
    "rerunNumber": r"(?P<rerun>\d{2,})",
    "threadNumber": r"(?P<thread>\d{2,})",
    "partNumber": r"(?P<part>\d{3,})",
}
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_EXTENSION = re.compile(r"(\.[A-Za-z]+)*$")
MANIFEST_NAME = re.compile(r"MANIFEST_(?P<batch>.+)_(?P<rerun>\d{2,})\.json")


class MalformedFileError(ValueError):
    """A file breaks the dialect: the message names the line and what is wrong with it, never a value."""


class FileName(NamedTuple):
    """What the name of an upload file says."""

    entity: Entity
    initial: bool
    batch_code: str
    number: int
    rerun: int
    thread: int
    part: int

    @property
    def series(self) -> tuple[str, int, int, int]:
        """What the parts of one output have in common."""
        return self.batch_code, self.number, self.rerun, self.thread


class FileNames:
    """Recognizes the names that a template gives (record-layouts.md, File names)."""

    def __init__(self, template: str) -> None:
        extension = _EXTENSION.search(template)
        end = extension.start() if extension else len(template)
        pattern = _pattern_of(template[:end])
        for name, mark in (("threadNumber", "_T"), ("partNumber", "_P")):
            if f"{{{name}}}" not in template:
                pattern += f"(?:{mark}{_NUMBERS[name]})?"
        self._pattern = re.compile(pattern + re.escape(template[end:]))

    def parse(self, name: str) -> FileName | None:
        """Takes a name apart; None when it is none of ours."""
        match = self._pattern.fullmatch(name)
        if match is None:
            return None
        parts = match.groupdict("0")
        entity, initial = _BATCH_CODES[parts["code"]]
        numbers = (int(parts[key]) for key in ("number", "rerun", "thread", "part"))
        return FileName(entity, initial, parts["code"], *numbers)


def _pattern_of(template: str) -> str:
    pieces = _PLACEHOLDER.split(template)
    return "".join(_NUMBERS[piece] if index % 2 else re.escape(piece) for index, piece in enumerate(pieces))


@dataclass(frozen=True)
class Figures:
    """What there is in a file, and the ids it begins and ends with."""

    rows: int
    first_id: str
    last_id: str
    dialect_faults: tuple[str, ...]
    """Faults that leave the rows readable: control characters, blanks at the ends of values, ids not ascending."""


@contextmanager
def _lines(path: Path) -> Iterator[IO[bytes]]:
    """The text of a file, out of its container when it is a zip with one member."""
    if path.suffix != ".zip":
        with path.open("rb") as stream:
            yield stream
        return
    try:
        with zipfile.ZipFile(path) as container:
            names = container.namelist()
            if names != [path.stem]:
                raise MalformedFileError(f"the zip must hold {path.stem} alone and holds {len(names)} members")
            if container.getinfo(names[0]).file_size >= _TOO_LARGE:
                raise MalformedFileError("the file in the zip reaches 1 GiB, at which the flow stops")
            with container.open(names[0]) as stream:
                yield stream
    except (zipfile.BadZipFile, zlib.error) as error:
        raise MalformedFileError(f"not a whole zip file: {error}") from error


def inspect(path: Path, columns: int) -> Figures:
    """Checks the dialect of a whole file, without keeping it.

    Raises:
        MalformedFileError: It is empty, torn, too large, not UTF-8, has a byte order mark or a wrong column count.
    """
    if path.stat().st_size >= _TOO_LARGE:
        raise MalformedFileError("the file reaches 1 GiB, at which the flow stops")
    rows, first_id, last_id = 0, "", ""
    faults: dict[str, str] = {}
    with _lines(path) as lines:
        for line in lines:
            rows += 1
            text = _checked(line, rows, columns)
            if fault := _soft_fault(text):
                faults.setdefault(fault, f"line {rows}: {fault}")
            id_ = text.split("\t", FIRST_DATA_COLUMN + 1)[FIRST_DATA_COLUMN]
            if rows == 1:
                first_id = id_
            elif id_ <= last_id:
                faults.setdefault("order", f"line {rows}: External Ids do not ascend")
            last_id = id_
    if not rows:
        raise MalformedFileError("the file is empty; an entity without rows gives no file")
    return Figures(rows, first_id, last_id, tuple(faults.values()))


def _checked(line: bytes, number: int, columns: int) -> str:
    if not line.endswith(b"\n"):
        raise MalformedFileError(f"line {number}: the file ends within a line")
    if number == 1 and line.startswith(_BOM):
        raise MalformedFileError("line 1: begins with a byte order mark")
    found = line.count(b"\t") + 1
    if found != columns:
        raise MalformedFileError(f"line {number}: {found} columns where the layout has {columns}")
    try:
        return line[:-1].decode()
    except UnicodeDecodeError:
        raise MalformedFileError(f"line {number}: not UTF-8") from None


def _soft_fault(text: str) -> str | None:
    if _CONTROLS.search(text):
        return "a control character"
    if "\t " in text or " \t" in text or text[0] == " " or text[-1] == " ":
        return "blanks at an end of a value"
    return None


def read_rows(path: Path) -> Iterator[list[str]]:
    """The values of each line of a file that `inspect` found well-formed."""
    with _lines(path) as lines:
        for line in lines:
            yield line[:-1].decode().split("\t")


class RowRules:
    """What DACS asks of a row before it takes it: the layout's columns, and how the site writes dates and times."""

    def __init__(self, columns: tuple[Column, ...], datetime_format: str, zone: ZoneInfo) -> None:
        self._columns = columns
        self._is_datetime = lru_cache(maxsize=1 << 16)(
            _is_ouaf if datetime_format == "ouaf" else lambda value: _is_xsd(value, zone)
        )
        self._checks: dict[Kind, tuple[str, Callable[[str], object]]] = {
            "id": ("bad_id", _DIGITS.fullmatch),
            "reference": ("bad_id", _DIGITS.fullmatch),
            "datetime": ("bad_date_time", self._is_datetime),
            "boolean": ("unknown_code", {"true", "false"}.__contains__),
            "decimal": ("bad_number", _is_decimal),
            "contact_type": ("unknown_code", {"Person", "Business"}.__contains__),
            "source_status": ("unknown_code", {"D1CN", "D1DC"}.__contains__),
            "flag": ("unknown_code", {"F1IL", "F1IC"}.__contains__),
        }

    def broken(self, values: list[str], *, initial: bool) -> str | None:
        """The first rule a row breaks, as `rule: column`; None when it keeps them all."""
        for value, column in zip(values, self._columns, strict=True):
            if not value:
                if column.required:
                    return f"required: {column.name}"
                continue
            if column.longest is not None and len(value) > column.longest:
                return f"too_long: {column.name}"
            rule, holds = self._checks.get(column.kind, ("", bool))
            if not holds(value):
                return f"{rule}: {column.name}"
        return self._broken_head(values, initial=initial)

    def _broken_head(self, values: list[str], *, initial: bool) -> str | None:
        """The first rule that the columns before External Id break together (record-layouts.md, Contact 1-3)."""
        reference, changed, flag = values[:FIRST_DATA_COLUMN]
        if flag != ("F1IL" if initial else "F1IC"):
            return "wrong_flag: initial_load_sync_flag"
        if initial and (reference or changed):
            return "incremental_only: external_reference_id, change_date_time"
        if not initial and not changed:
            return "required: change_date_time"
        return None


def _is_ouaf(value: str) -> bool:
    try:
        return bool(_OUAF.fullmatch(value) and datetime.strptime(value, "%Y-%m-%d-%H.%M.%S"))  # noqa: DTZ007
    except ValueError:
        return False


def _is_xsd(value: str, zone: ZoneInfo) -> bool:
    if not _XSD.fullmatch(value):
        return False
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return False
    return moment.utcoffset() == moment.replace(tzinfo=zone, fold=0).utcoffset()


def _is_decimal(value: str) -> bool:
    return value != "-0" and _DECIMAL.fullmatch(value) is not None


class ManifestFile(NamedTuple):
    """What a manifest says about one file."""

    name: str
    entity: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A manifest: the batch it closes, and its files in their order."""

    batch: str
    mode: str
    rerun: int
    profile: str
    files: tuple[ManifestFile, ...]


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest.

    Raises:
        MalformedFileError: It is not the JSON that record-layouts.md shows, or does not go with its own name.
    """
    try:
        raw: dict[str, Any] = json.loads(path.read_bytes())
        files = tuple(
            ManifestFile(str(file["name"]), str(file["entity"]), int(file["rows"]), int(file["bytes"]), file["sha256"])
            for file in raw["files"]
        )
        manifest = Manifest(str(raw["batch"]), str(raw["mode"]), int(raw["rerun"]), cast("str", raw["profile"]), files)
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedFileError(f"not a manifest: {type(error).__name__} {error}") from error
    named = MANIFEST_NAME.fullmatch(path.name)
    if named is None or named["batch"] != manifest.batch or int(named["rerun"]) != manifest.rerun:
        raise MalformedFileError("batch and rerun in the manifest differ from those in its name")
    if manifest.mode not in {"initial", "delta", "resync"}:
        raise MalformedFileError(f"unknown mode {manifest.mode!r}")
    if not files:
        raise MalformedFileError("no files; a batch without rows publishes nothing")
    return manifest
