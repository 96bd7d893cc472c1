"""A folder of the local machine, or of a network share that is mounted there."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, BinaryIO, Self

from ccs_dacs_pipeline.folders.folder import (
    TEMPORARY_PREFIX,
    Counted,
    Entry,
    FileExists,
    FileMissing,
    FolderDenied,
    FolderError,
    FolderFull,
    checked_name,
    moment,
    temporary_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime, timedelta
    from pathlib import Path
    from types import TracebackType

    from ccs_dacs_pipeline.folders.folder import Data, Folder

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
# Other file system, no hard links there, not allowed for another owner's file, or too many already.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_CANNOT_LINK = _NO_LINKS | {errno.EXDEV, errno.EACCES}


@contextmanager
def folder_errors(where: str) -> Iterator[None]:
    """Turns the operating system's errors at `where` (a folder, or a file in it) into those of this room."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        if error.errno in _FULL:
            raise FolderFull(f"{where}: {reason}. Nothing partial is visible; make room there and repeat.") from error
        if error.errno in _DENIED:
            message = f"{where}: {reason}. Let the user of this process read and write there, then repeat."
            raise FolderDenied(message) from error
        if error.errno == errno.EEXIST:
            raise FileExists(
                f"{where}: there already and not replaced. Compare the two; remove the wrong one."
            ) from error
        if error.errno == errno.ENOENT:
            raise FileMissing(f"{where}: not there. Look whether it was moved or removed.") from error
        if error.errno == errno.ENOTDIR:
            raise FolderError(
                f"{where}: it, or what is above it, is a file, not a folder. Look after the setting that names it."
            ) from error
        raise FolderError(f"{where}: {reason}. Look after the folder, then repeat.") from error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """As `folder_errors`, where the file `path` is only read."""
    with folder_errors(str(path)):
        try:
            yield
        except PermissionError as error:
            raise FolderDenied(
                f"{path}: {os.strerror(error.errno or errno.EACCES)}. Make the file readable for the user of this "
                "process, then repeat."
            ) from error


def sync_folder(path: Path) -> None:
    """Makes the names in the folder `path` durable: those put there, renamed and removed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems refuse it because every change of a name is durable there at once.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Makes the folder with `mode` but for the umask, and those above it, durably; one that is there is fine."""
    if not path.is_dir():
        make_folder(path.parent)
        try:
            path.mkdir(mode, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error
        sync_folder(path.parent)


class LocalFolder:
    """A local folder. An absent one reads as empty, and is made when the first file is created.

    Raises, from every method: `FolderError` or one of its kinds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def url(self) -> str:
        """The folder as a `file://` URL."""
        return self.path.as_uri()

    def is_same(self, other: Folder) -> bool:
        """Returns whether `other` is this folder, by whatever way its path leads there; neither need be there yet."""
        if not isinstance(other, LocalFolder):
            return False
        with folder_errors(str(self.path)), suppress(FileNotFoundError):
            return self.path.samefile(other.path)
        return self.path.resolve() == other.path.resolve()

    def names(self, pattern: str = "*") -> list[str]:
        """Returns the visible files' names that match the glob `pattern`, ascending; folders are left out."""
        return sorted(entry.name for entry in self._listed(pattern))

    def entries(self, pattern: str = "*") -> list[Entry]:
        """Returns the visible files that match the glob `pattern`, with size and time, ascending."""
        found = []
        for entry in self._listed(pattern):
            with suppress(OSError):  # removed meanwhile
                status = entry.stat()
                found.append(Entry(entry.name, status.st_size, moment(status.st_mtime)))
        return sorted(found, key=lambda entry: entry.name)

    def size(self, name: str) -> int | None:
        """Returns the file's size in bytes, None when it is absent."""
        path = self.path_of(name)
        with folder_errors(str(path)), suppress(FileNotFoundError):
            return path.stat().st_size
        return None

    def modified(self, name: str) -> datetime | None:
        """Returns the file's modification time, None when it is absent."""
        path = self.path_of(name)
        with folder_errors(str(path)), suppress(FileNotFoundError):
            return moment(path.stat().st_mtime)
        return None

    def sha256(self, name: str) -> str | None:
        """Returns the SHA-256 of the file's bytes, None when it is absent."""
        path = self.path_of(name)
        with _reading(path), suppress(FileNotFoundError):
            return _sha256(path)
        return None

    def open(self, name: str) -> BinaryIO:
        """Opens the file for reading; raises `FileMissing` when it is absent."""
        path = self.path_of(name)
        with _reading(path):
            return path.open("rb")

    def create(self, name: str | None = None) -> LocalTemporaryFile:
        """Begins a new file beside its later place."""
        with folder_errors(str(self.path)):
            make_folder(self.path)
            return LocalTemporaryFile(self, self._temporary())

    def link(self, source: Path) -> LinkedTemporaryFile | None:
        """Begins a new file as a hard link to `source`, None where the file systems do not allow one.

        Raises:
            FileMissing: `source` is absent.
        """
        with folder_errors(str(self.path)):
            make_folder(self.path)
        temporary = self._temporary()
        with folder_errors(f"{self.path}, link to {source}"):
            try:
                # Resolved, or a symbolic link would be linked itself and could change its target later.
                os.link(source.resolve(), temporary)
            except OSError as error:
                if error.errno in _CANNOT_LINK:
                    return None
                raise
        return LinkedTemporaryFile(self, temporary, source)

    def remove(self, name: str) -> None:
        """Removes the file; an absent one is fine."""
        path = self.path_of(name)
        with folder_errors(str(path)):
            path.unlink(missing_ok=True)

    def rename(self, name: str, new_name: str, *, replace: bool) -> Entry:
        """Gives the file another name, at once.

        Without `replace` it has both names for an instant; a repeat after a crash in it takes the old one away.

        Raises:
            FileMissing: there is no `name`.
            FileExists: `new_name` is another file and `replace` is false.
            FolderError: `name` is a folder, or without `replace`, no hard links can be made there.
        """
        old, new = self.path_of(name), self.path_of(new_name)
        with folder_errors(str(old)):
            if stat.S_ISDIR(old.stat().st_mode):
                raise IsADirectoryError(errno.EISDIR, "")
        with folder_errors(str(new)):
            if old != new and _are_one(old, new):
                # Of two names of one file a rename leaves both.
                old.unlink()
            elif replace:
                old.replace(new)
            else:
                _link(old, new)
                old.unlink()
            status = new.stat()
            sync_folder(self.path)
        return Entry(new_name, status.st_size, moment(status.st_mtime))

    def sweep(self, older_than: timedelta) -> int:
        """Removes this program's temporary files that nobody touched for `older_than`; returns how many."""
        limit = time.time() - older_than.total_seconds()
        swept = 0
        with folder_errors(str(self.path)):
            for path in self.path.glob(f"{TEMPORARY_PREFIX}*"):
                # Of the two times the one that a hard link moves too: a link keeps the source's modification time.
                with suppress(FileNotFoundError):
                    if path.lstat().st_ctime <= limit:
                        path.unlink()
                        swept += 1
        return swept

    def close(self) -> None:
        """Does nothing: a local folder holds nothing open."""

    def place(self, temporary: Path, name: str, *, replace: bool) -> None:
        """Gives the durable file `temporary` its final `name`.

        Raises:
            FileExists: `name` is there and `replace` is false.
            FolderError: without `replace`, no hard links can be made there.
        """
        final = self.path_of(name)
        with folder_errors(str(final)):
            if replace:
                temporary.replace(final)
            else:
                _link(temporary, final)
                temporary.unlink()
            sync_folder(self.path)

    def path_of(self, name: str) -> Path:
        """Returns the path of the visible file `name`, there or not."""
        return self.path / checked_name(str(self.path), name)

    def _listed(self, pattern: str) -> list[os.DirEntry[str]]:
        found = []
        with folder_errors(str(self.path)), suppress(FileNotFoundError), os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not fnmatchcase(entry.name, pattern):
                    continue
                # One that cannot be looked at, such as a link that leads in a circle, must not hide the others.
                with suppress(OSError):
                    if entry.is_file():
                        found.append(entry)
        return found

    def _temporary(self) -> Path:
        return self.path / temporary_name()


class LocalTemporaryFile(Counted):
    """A file that is being written, in the folder it is meant for."""

    def __init__(self, folder: LocalFolder, path: Path) -> None:
        super().__init__()
        self._folder = folder
        self._path = path
        # The process's umask decides who may read it, as for any file: the consumer is mostly another user.
        self._file = path.open("xb")

    def write(self, data: Data) -> None:
        """Appends `data`."""
        with folder_errors(str(self._folder.path)):
            self._file.write(data)
        self._count(data)

    def commit(self, name: str, *, replace: bool) -> None:
        """Makes the bytes durable, then visible as `name`."""
        with folder_errors(str(self._folder.path)):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        self._folder.place(self._path, name, replace=replace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # On a full disk closing fails once more, in the flush; the file goes all the same.
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._path.unlink()


class LinkedTemporaryFile:
    """A file that is a hard link to a finished one: pinned, so that what is hashed is what becomes visible."""

    def __init__(self, folder: LocalFolder, path: Path, source: Path) -> None:
        self._folder = folder
        self._path = path
        self._source = source

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes, read anew."""
        with self._errors():
            return _sha256(self._path)

    def commit(self, name: str, *, replace: bool) -> None:
        """Makes the bytes durable, then visible as `name`."""
        with self._errors(), self._path.open("rb") as file:
            os.fsync(file.fileno())
        self._folder.place(self._path, name, replace=replace)

    def _errors(self) -> AbstractContextManager[None]:
        # Of a link that nobody but this process knows, the operator knows the source.
        return _reading(self._source)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._path.unlink()


def _link(path: Path, new: Path) -> None:
    """Gives the file a second name; a rename would silently overwrite what has that name already."""
    try:
        os.link(path, new, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise FolderError(
            f"{new}: no hard link to {path.name} can be made there ({os.strerror(error.errno)}), without which another "
            "file could be overwritten. Use a file system that has hard links, or reach the folder by SFTP; where it "
            "has them, let the file belong to the user of this process."
        ) from error


def _are_one(path: Path, other: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.lstat(), other.lstat())
    return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
