"""Canaries: secrets and personal values that a test plants, and looks for where none may ever show.

What must stay free of them is every log, Dagster's databases, run metadata and what the UI is sent. The extract files,
the frames, the ledger's quarantine and CCS itself hold personal values by their purpose: those are not looked into.
"""

from __future__ import annotations

import base64
import gzip
import re
import secrets
import sqlite3
import zipfile
import zlib
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from ccs_dacs_pipeline.settings import variable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SECRET_SETTINGS = (
    *("ccs_password", "ccs_client_secret", "ack_password", "ack_token"),
    *("sftp_password", "sftp_key_passphrase", "s3_secret_key"),
)
PERSONAL_MEMBERS = frozenset(
    {
        *("entityName", "firstName", "lastName", "contactDetailValue", "emailAddress"),
        *("lifeSupportSensitiveLoadDescription", "address1", "address2", "address3", "address4"),
    }
)
"""Members of CCS's entities that say something about a person (ccs-rest.md, Searches)."""

_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True, order=True)
class Sighting:
    """A canary that shows: which one, and where."""

    label: str
    place: str


class Canaries:
    """Planted values, each with a token of its own that is found in any case, in base64, and in compressed data."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}

    def plant(self, label: str, shape: str = "{}") -> str:
        """Returns a new value.

        Args:
            label: what the value is, for `Sighting`.
            shape: the value with `{}` for its token of 16 letters, as `{}@example.com`.
        """
        token = "".join(secrets.choice("bcdfghjklmnpqrstvwxz") for _ in range(16))
        self._labels[token] = label
        return shape.format(token)

    def settings(self) -> dict[str, str]:
        """Returns environment variables that plant every secret of a site."""
        return {variable(name): self.plant(variable(name)) for name in SECRET_SETTINGS}

    def planted(self, record: object) -> object:
        """Returns a copy of a CCS entity whose personal values are canaries; absent and null ones stay as they are."""
        if isinstance(record, list):
            return [self.planted(one) for one in record]
        if not isinstance(record, dict):
            return record
        return {
            member: self.plant(member) if member in PERSONAL_MEMBERS and value else self.planted(value)
            for member, value in record.items()
        }

    def in_text(self, *texts: str) -> list[Sighting]:
        """Returns the canaries that show in texts: log lines, messages, bodies."""
        return self._seen((f"text {place}", text.encode(errors="replace")) for place, text in enumerate(texts))

    def under(self, *paths: Path) -> list[Sighting]:
        """Returns the canaries that show in files and folders: in names, bytes, cells of SQLite, archives."""
        files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
        return self._seen(piece for file in sorted(files) for piece in _pieces(file))

    def _seen(self, pieces: Iterable[tuple[str, bytes]]) -> list[Sighting]:
        forms = {form: label for token, label in self._labels.items() for form in _forms(token)}
        pattern = re.compile(b"|".join(map(re.escape, forms)) or b"(?!)")
        found = (
            Sighting(forms[form], place)
            for place, data in pieces
            for unpacked in _unpacked(data)
            for haystack in (unpacked, unpacked.lower())
            for form in set(pattern.findall(haystack))
        )
        return sorted(set(found))


def _forms(token: str) -> Iterator[bytes]:
    """Yields a token as it is, and its base64 wherever it begins within a longer text (`user:password` of Basic)."""
    yield token.encode()
    for lead in range(3):
        encoded = base64.b64encode(b"\0" * lead + token.encode())
        # The first and the last characters depend on what stands around the token.
        yield encoded[(lead * 8 + 5) // 6 : (lead + len(token)) * 8 // 6]


def _pieces(file: Path) -> Iterator[tuple[str, bytes]]:
    yield f"name of {file}", file.name.encode()
    if not file.is_file():
        return
    data = file.read_bytes()
    yield str(file), data
    if data.startswith(_SQLITE):
        yield from _cells(file)


def _cells(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yields the cells of a SQLite database: bytes that are compressed cannot be seen in the file as a whole."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in db.execute(f'SELECT * FROM "{table}"'):
                for cell in row:
                    if isinstance(cell, str | bytes):
                        yield f"{file}, table {table}", cell.encode() if isinstance(cell, str) else cell


def _unpacked(data: bytes) -> Iterator[bytes]:
    """Yields data, and what is in it where it is compressed: gzip, zip, zlib (Dagster's snapshots)."""
    yield data
    if data.startswith(b"\x1f\x8b"):
        yield from _unpacked(gzip.decompress(data))
    elif data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from _unpacked(archive.read(name))
    elif data[:1] == b"\x78" and int.from_bytes(data[:2], "big") % 31 == 0:
        try:
            inner = zlib.decompress(data)
        except zlib.error:  # two bytes that happen to look like a header
            return
        yield from _unpacked(inner)
