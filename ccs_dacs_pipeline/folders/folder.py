"""What a folder can do, wherever it is, and the errors it raises."""

from __future__ import annotations

import hashlib
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta
    from types import TracebackType

Data: TypeAlias = bytes | memoryview
# Our own mark, so that a sweep never takes another program's hidden file.
TEMPORARY_PREFIX = ".ccs-dacs-"


class FolderError(Exception):
    """A folder cannot do what was asked. The message names folder, file and way out, and holds no secret."""


class FileExists(FolderError):
    """A file of that name is there already and must not be replaced."""


class FileMissing(FolderError):
    """A file that should be read is not there."""


class FolderFull(FolderError):
    """No room is left for the file; nothing of it is visible."""


class FolderDenied(FolderError):
    """The process may not read or write there."""


def temporary_name() -> str:
    """Returns a name for a file that is not finished, which no other writer has."""
    return f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"


def checked_name(where: str, name: str) -> str:
    """Returns `name` when it can be that of a visible file in the folder `where`; raises `FolderError` otherwise."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise FolderError(f"{where}: {name!r} is no file name of a folder. Give a name without '/' or leading '.'.")
    return name


def moment(seconds: float) -> datetime:
    """Returns the time `seconds` after 1970, aware; one that no `datetime` can hold becomes the nearest that can be."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError):
        return datetime.max.replace(tzinfo=UTC) if seconds > 0 else datetime.min.replace(tzinfo=UTC)


@contextmanager
def unfinished(where: str) -> Iterator[None]:
    """Tells a temporary file that is gone from a file that should be read and is absent."""
    try:
        yield
    except FileMissing as error:
        raise FolderError(
            f"{where}: the temporary file was removed while it was being written, or all of the folder was. Repeat."
        ) from error


@dataclass(frozen=True)
class Entry:
    """A visible file as its folder lists it.

    Attributes:
        name: its name.
        bytes: its size.
        modified: when its bytes were last changed, aware, by the folder's own clock.
    """

    name: str
    bytes: int
    modified: datetime


class TemporaryFile(Protocol):
    """A file on its way into a folder, invisible until `commit`; leaving the context without it discards the file."""

    @property
    def bytes(self) -> int:
        """Number of bytes written so far."""
        ...

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes written so far, 64 lower-case hexadecimal digits."""
        ...

    def write(self, data: Data) -> None:
        """Appends `data`.

        Raises:
            FolderFull: no room is left.
            FolderError: it cannot be written for another reason.
        """
        ...

    def commit(self, name: str, *, replace: bool) -> None:
        """Makes the bytes durable, then visible as `name`, whole and at once.

        Raises:
            FileExists: `name` is there and `replace` is false; it is left as it was.
            FolderError: it cannot be stored; nothing partial is visible.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Counted:
    """What a temporary file of any kind counts while it is written."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Number of bytes written so far."""
        return self._bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes written so far."""
        return self._digest.hexdigest()

    def _count(self, data: Data) -> None:
        self._digest.update(data)
        self._bytes += len(data)


class Folder(Protocol):
    """A flat set of named files: the extract or the upload folder (sync-lifecycle.md, Files).

    Names that begin with `.` are temporary files; they are never listed and cannot be asked for.
    """

    @property
    def url(self) -> str:
        """Where the folder is, for messages and metadata, without credentials."""
        ...

    def is_same(self, other: Folder) -> bool:
        """Returns whether `other` holds the very same files, under whatever name it is known."""
        ...

    def names(self, pattern: str = "*") -> list[str]:
        """Returns the names of the visible files that match the glob `pattern` (case counts), in ascending order."""
        ...

    def entries(self, pattern: str = "*") -> list[Entry]:
        """Returns the files that `names` gives, with the sizes and times that `size` and `modified` give.

        They are those of the listing, so that many files cost no more than one. What cannot be looked at is left out.
        """
        ...

    def size(self, name: str) -> int | None:
        """Returns the file's size in bytes, None when it is absent."""
        ...

    def modified(self, name: str) -> datetime | None:
        """Returns when the file's bytes were last changed, aware, by the folder's own clock, None when it is absent."""
        ...

    def sha256(self, name: str) -> str | None:
        """Returns the SHA-256 of the file's bytes, read as a stream, None when it is absent."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Opens the file for reading.

        Raises:
            FileMissing: it is absent.
        """
        ...

    def create(self, name: str | None = None) -> TemporaryFile:
        """Begins a new file, to be used as a context manager.

        Args:
            name: what `commit` will call it, where that is known already; some folders are quicker then.
        """
        ...

    def remove(self, name: str) -> None:
        """Removes the file; an absent one is fine."""
        ...

    def rename(self, name: str, new_name: str, *, replace: bool) -> Entry:
        """Gives the file another name; its bytes are not touched.

        A repeat after a crash may find it under both names; with `replace` it then comes to the same end.

        Returns:
            What has the new name now, with the time that it had under the old one.

        Raises:
            FileMissing: there is no `name`.
            FileExists: `new_name` is there and `replace` is false; both are left as they were.
            FolderError: it cannot be renamed; it is there under one of the two names, or under both.
        """
        ...

    def sweep(self, older_than: timedelta) -> int:
        """Removes the temporary files that killed writers left, untouched for `older_than`; returns how many."""
        ...

    def close(self) -> None:
        """Gives back what the folder holds, such as a connection; it opens again when it is used again."""
        ...
