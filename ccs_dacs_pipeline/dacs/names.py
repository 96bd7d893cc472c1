"""Names of extract files and manifests (record-layouts.md, File names)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_BATCH_CODE = "batchCode"
_NUMBER_WIDTHS = {"batchNumber": 4, "rerunNumber": 2, "threadNumber": 2, "partNumber": 3}
_REQUIRED = ("batchNumber", "rerunNumber")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_ZIP = ".zip"
# With all its numbers and the prefix of a delivered file a name stays below the 255 bytes that file systems take.
_LITERAL_BYTES = 150
_FORBIDDEN = re.compile(r"[/\\{}\x00-\x1f\x7f]")


class FileNameError(Exception):
    """A file name template is refused. The message names the template, the reason and the way out."""


@dataclass(frozen=True)
class FileNameTemplate:
    """A checked template; `literals` stand round `placeholders`, so there is one more of them."""

    literals: tuple[str, ...]
    placeholders: tuple[str, ...]

    @classmethod
    def parse(cls, template: str) -> Self:
        """Checks `template`, for example `{batchCode}_{batchNumber}_{rerunNumber}.csv`.

        Placeholders are `batchCode`, `batchNumber`, `rerunNumber`, `threadNumber` and `partNumber`.

        Raises:
            FileNameError: the names would not begin with the batch code (DACS's upload batches match a prefix per
                entity), would not differ by batch and rerun, could not be told apart, or are no plain file names.
        """
        pieces = _PLACEHOLDER.split(template)
        parsed = cls(literals=tuple(pieces[::2]), placeholders=tuple(pieces[1::2]))
        faults = "; ".join(_faults(parsed))
        if faults:
            raise FileNameError(f"CCS_DACS_FILE_NAME_TEMPLATE {template!r} {faults}.")
        return parsed

    def name(
        self, *, batch_code: str, batch_number: int, rerun: int, thread: int | None = None, part: int | None = None
    ) -> str:
        """Returns the file's name, for example `C1-DCTIL_0033_00_T02_P001.csv`.

        A thread or part whose placeholder the template lacks stands before the extension (`_T02`, `_P001`). Where the
        template holds the placeholder a number always stands: that of an only thread or part is 1.

        Args:
            batch_code: code of the CCS batch, such as `C1-DCTIL`.
            batch_number: at least 4 digits.
            rerun: from 0, at least 2 digits.
            thread: the shard from 1, at least 2 digits; None when there is one.
            part: the part from 1, at least 3 digits; None when there is one.
        """
        return self._composed(
            batch_code, batch_number, rerun, thread, None if part is None else _text("partNumber", part)
        )

    def names_of_parts(
        self, *, batch_code: str, batch_number: int, rerun: int, thread: int | None = None
    ) -> re.Pattern[str]:
        """Returns what the names of these numbers' only file and of all its parts match, and no other name does."""
        only = self._composed(batch_code, batch_number, rerun, thread, None)
        # No name holds a line end, so what stands at one is the part number.
        around = self._composed(batch_code, batch_number, rerun, thread, "\n").split("\n")
        any_part = f"[0-9]{{{_NUMBER_WIDTHS['partNumber']},}}".join(map(re.escape, around))
        return re.compile(f"{re.escape(only)}|{any_part}")

    def number_of(self, name: str, codes: Collection[str] | None = None) -> tuple[str, int] | None:
        """Returns batch code and batch number of a name that this template gives, None for any other.

        Args:
            name: a file's name.
            codes: the batch codes that count, all by default.
        """
        found = self._names.fullmatch(name)
        if found is None or (codes is not None and found[_BATCH_CODE] not in codes):
            return None
        return found[_BATCH_CODE], int(found["batchNumber"])

    @cached_property
    def _names(self) -> re.Pattern[str]:
        """What every name that this template gives matches; at most 9 digits, which every database holds."""
        digits = {name: f"[0-9]{{{width},9}}" for name, width in _NUMBER_WIDTHS.items()}
        texts = {_BATCH_CODE: ".+?"} | digits
        suffix = "".join(
            f"(?:_{name[0].upper()}{digits[name]})?"
            for name in ("threadNumber", "partNumber")
            if name not in self.placeholders
        )
        head = "".join(
            f"{re.escape(literal)}(?P<{placeholder}>{texts[placeholder]})"
            for literal, placeholder in zip(self.literals, self.placeholders, strict=False)
        )
        stem, extension = _extension(self.literals[-1])
        return re.compile(head + re.escape(stem) + suffix + re.escape(extension))

    def _composed(self, batch_code: str, batch_number: int, rerun: int, thread: int | None, part: str | None) -> str:
        texts = {
            _BATCH_CODE: batch_code,
            "batchNumber": _text("batchNumber", batch_number),
            "rerunNumber": _text("rerunNumber", rerun),
            "threadNumber": _text("threadNumber", 1 if thread is None else thread),
            "partNumber": _text("partNumber", 1) if part is None else part,
        }
        suffix = ""
        if thread is not None and "threadNumber" not in self.placeholders:
            suffix += f"_T{texts['threadNumber']}"
        if part is not None and "partNumber" not in self.placeholders:
            suffix += f"_P{texts['partNumber']}"
        head = "".join(
            literal + texts[placeholder] for literal, placeholder in zip(self.literals, self.placeholders, strict=False)
        )
        stem, extension = _extension(self.literals[-1])
        return head + stem + suffix + extension


def manifest_name(batch: str, rerun: int) -> str:
    """Returns the manifest's name, for example `MANIFEST_initial-7_00.json`.

    Args:
        batch: key of the snapshot (without the shard) or of the batch.
        rerun: rerun number, from 0.
    """
    return f"MANIFEST_{batch}_{rerun:02}.json"


def _text(placeholder: str, number: int) -> str:
    return f"{number:0{_NUMBER_WIDTHS[placeholder]}}"


def _extension(tail: str) -> tuple[str, str]:
    """Parts the literal after the last placeholder before its last dot, and before that of `.csv.zip`'s first part."""
    tail, zipped = (tail.removesuffix(_ZIP), _ZIP) if tail.endswith(_ZIP) else (tail, "")
    stem, dot, extension = tail.rpartition(".")
    return (stem if dot else extension), (dot + extension if dot else "") + zipped


def _faults(template: FileNameTemplate) -> Iterator[str]:
    placeholders, literals = template.placeholders, template.literals
    known = (_BATCH_CODE, *_NUMBER_WIDTHS)
    names = ", ".join(f"{{{name}}}" for name in known)
    if not set(placeholders) <= set(known):
        yield f"holds an unknown placeholder; known are {names}"
    if len(set(placeholders)) < len(placeholders):
        yield "holds a placeholder twice; name each once"
    if any(_FORBIDDEN.search(literal) for literal in literals):
        yield "holds a path separator, a stray brace or a control character; write a plain file name"
    if len("".join(literals).encode(errors="replace")) > _LITERAL_BYTES:
        yield f"has more than {_LITERAL_BYTES} bytes beside its placeholders; shorten it"
    if placeholders[:1] != (_BATCH_CODE,) or literals[0]:
        yield f"does not begin with {{{_BATCH_CODE}}}, by whose prefix DACS's upload batches find their files"
    if not set(_REQUIRED) <= set(placeholders):
        yield "lacks " + " or ".join(f"{{{name}}}" for name in _REQUIRED) + ", without which two files have one name"
    # Numbers grow beyond their width: with nothing but digits between them two pairs of numbers could look the same.
    if any(re.fullmatch("[0-9]*", literal) for literal in literals[2 : len(placeholders)]):
        yield "holds two numbers with nothing but digits between them; part them by another character, such as '_'"
    if literals[-1].lower().endswith(_ZIP) and not literals[-1].endswith(_ZIP):
        yield f"asks for a zip file in capitals; write {_ZIP}"
