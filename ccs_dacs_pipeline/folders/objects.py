"""A folder in S3-compatible object storage: the objects directly below a prefix of a bucket."""

from __future__ import annotations

import hashlib
import io
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, Self

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from ccs_dacs_pipeline.folders.folder import (
    TEMPORARY_PREFIX,
    Counted,
    Entry,
    FileExists,
    FileMissing,
    FolderDenied,
    FolderError,
    checked_name,
    temporary_name,
    unfinished,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from datetime import timedelta
    from types import TracebackType

    from _typeshed import WriteableBuffer
    from obstore.store import S3Store

    from ccs_dacs_pipeline.folders.bucket import Bucket
    from ccs_dacs_pipeline.folders.folder import Data, Folder

# What is sent again after a lost connection. A storage takes 10,000 parts, and so files up to 78 GiB.
_PART_BYTES = 8 * 1024 * 1024
# Parts under way at once; memory holds one more.
_PARTS = 4
_READ_BYTES = 1024 * 1024
# What XML cannot carry, and with it no answer of a storage that names the object; and what no storage takes.
_UNNAMEABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"\b[45][0-9]{2} [A-Z][A-Za-z ]+")
_DENIED = re.compile(r"^40[13]|^AccessDenied|^InvalidAccessKeyId|^SignatureDoesNotMatch")


class ObjectFolder:
    """A prefix of a bucket. Needs no making; an unused one is empty.

    A new file whose name is known goes into a multipart upload of that name, which is nothing until it is complete. One
    whose name is not is first a temporary object, and gets its name by a copy inside the storage. Either is refused by
    the storage itself when the name is taken (`If-None-Match`). A storage that does not honour that is found out by a
    trial; there the name is looked up before, and the content compared after.

    Raises, from every method: `FolderError` or one of its kinds.
    """

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        """Names the folder; `prefix` is without slashes at its ends, and may be empty."""
        self.bucket = bucket
        self._prefix = prefix

    @property
    def url(self) -> str:
        """The folder as a URL, without credentials."""
        return f"s3://{self.bucket.name}/{self._prefix}".rstrip("/")

    @cached_property
    def store(self) -> S3Store:
        """The bucket, opened."""
        try:
            return self.bucket.store()
        except OSError as error:
            raise FolderError(
                f"{self.url}: the file of CCS_DACS_S3_CA_FILE cannot be read ({type(error).__name__}). Name a PEM file."
            ) from error

    def is_same(self, other: Folder) -> bool:
        """Returns whether `other` is this prefix of this bucket; one storage under two names is not recognised."""
        return (
            isinstance(other, ObjectFolder) and self.bucket.base_url == other.bucket.base_url and self.url == other.url
        )

    def names(self, pattern: str = "*") -> list[str]:
        """Returns the visible objects' names that match the glob `pattern`, ascending; deeper ones are left out."""
        return [entry.name for entry in self.entries(pattern)]

    def entries(self, pattern: str = "*") -> list[Entry]:
        """Returns the visible objects that match the glob `pattern`, with size and time, ascending."""
        found = (
            entry for entry in self._listed() if not entry.name.startswith(".") and fnmatchcase(entry.name, pattern)
        )
        return sorted(found, key=lambda entry: entry.name)

    def size(self, name: str) -> int | None:
        """Returns the object's size in bytes, None when it is absent."""
        key = self.key_of(name)
        with suppress(FileMissing), self.errors(name):
            return obstore.head(self.store, key)["size"]
        return None

    def modified(self, name: str) -> datetime | None:
        """Returns when the object was put, None when it is absent."""
        key = self.key_of(name)
        with suppress(FileMissing), self.errors(name):
            return obstore.head(self.store, key)["last_modified"]
        return None

    def sha256(self, name: str) -> str | None:
        """Returns the SHA-256 of the object's bytes, read as a stream, None when it is absent."""
        digest = hashlib.sha256()
        with suppress(FileMissing), self.errors(name):
            for block in obstore.get(self.store, self.key_of(name)).stream(_READ_BYTES):
                digest.update(block)
            return digest.hexdigest()
        return None

    def open(self, name: str) -> BinaryIO:
        """Opens the object for reading; raises `FileMissing` when it is absent."""
        return io.BufferedReader(_ObjectReader(self, name), _READ_BYTES)

    def create(self, name: str | None = None) -> ObjectTemporaryFile | ObjectUpload:
        """Begins a new object; with its `name` it needs no copy in the end."""
        return ObjectTemporaryFile(self) if name is None else ObjectUpload(self, name)

    def remove(self, name: str) -> None:
        """Removes the object; an absent one is fine."""
        self.remove_key(self.key_of(name))

    def rename(self, name: str, new_name: str, *, replace: bool) -> Entry:
        """Gives the object another name: a copy within the storage, then the removal of the old one.

        The old one is removed when it is still what it was before the copy. Between that look and the removal there is
        an instant in which what another writer puts there is lost.

        Raises:
            FileMissing: there is no `name`.
            FileExists: `new_name` is there and `replace` is false.
            FolderError: the object was changed meanwhile and is there under both names, or the storage fails.
        """
        key, new_key = self.key_of(name), self.key_of(new_name)
        with self.errors(name):
            before = obstore.head(self.store, key)
        renamed = Entry(new_name, before["size"], before["last_modified"])
        if key == new_key:
            if replace:
                return renamed
            raise _there(self.url, new_name)
        # Needed by the comparison afterwards only.
        digest = "" if replace or self.honours_conditions else self.sha256(name) or ""
        with (
            self.unoverwritten(new_name, digest, replace=replace) as overwrite,
            self.errors(f"{new_name}, copied from {name}"),
        ):
            obstore.copy(self.store, key, new_key, overwrite=overwrite)
        with suppress(FileMissing), self.errors(name):
            if obstore.head(self.store, key)["e_tag"] != before["e_tag"]:
                raise FolderError(
                    f"{self.url}/{name}: changed while it was being renamed to {new_name}. Compare the two; remove the "
                    "wrong one."
                )
            self.remove_key(key)
        return renamed

    def sweep(self, older_than: timedelta) -> int:
        """Removes this program's temporary objects, and unfinished uploads, older than `older_than`; returns how many.

        Whose an upload is cannot be seen; one that is not complete after so long is taken for abandoned.
        """
        limit = datetime.now(UTC) - older_than
        found = [
            entry.name
            for entry in self._listed()
            if entry.name.startswith(TEMPORARY_PREFIX) and entry.modified <= limit
        ]
        for name in found:
            self.remove_key(self.join(name))
        return len(found) + self.abort_uploads("", limit)

    def close(self) -> None:
        """Does nothing: connections end by themselves when unused."""

    @cached_property
    def honours_conditions(self) -> bool:
        """Whether the storage refuses to create what is there already: found out by a trial, once."""
        key = self.join(temporary_name())
        with self.errors("trial of a conditional write"):
            obstore.put(self.store, key, b"trial")
            try:
                obstore.copy(self.store, key, key, overwrite=False)
            except AlreadyExistsError:
                return True
            except (PermissionDeniedError, UnauthenticatedError):
                raise
            except BaseError:
                # One that cannot copy by parts, or does not know the header.
                return False
            finally:
                self.remove_key(key)
        return False

    @contextmanager
    def unoverwritten(self, name: str, sha256: str, *, replace: bool) -> Iterator[bool]:
        """Yields whether to make an object visible unconditionally; looks before and after where nobody else does.

        Two writers at the same moment are then told apart afterwards only.

        Raises:
            FileExists: the name was taken before, or has other content afterwards.
        """
        careful = not replace and not self.honours_conditions
        if careful and self.size(name) is not None:
            raise _there(self.url, name)
        yield replace or careful
        # Gone means that the consumer took it at once.
        if careful and self.sha256(name) not in {None, sha256}:
            raise _there(self.url, name)

    def abort_uploads(self, prefix: str, begun_before: datetime) -> int:
        """Aborts the unfinished uploads of names that begin with `prefix`; returns how many."""
        start = self.join(prefix)
        with self.errors("unfinished uploads"), closing(self.bucket):
            found = [
                one
                for one in self.bucket.uploads(start)
                if one.begun <= begun_before
                and "/" not in one.key.removeprefix(start)
                and not _UNNAMEABLE.search(one.key)
            ]
            for upload in found:
                self.bucket.abort(upload)
        return len(found)

    def remove_key(self, key: str) -> None:
        """Removes an object by its key; an absent one is fine."""
        with suppress(FileMissing), self.errors(key.rpartition("/")[2]), closing(self.bucket):
            self.bucket.remove(key)

    def key_of(self, name: str) -> str:
        """Returns the key of the visible object `name`, there or not; raises `FolderError` when it can have none."""
        if _UNNAMEABLE.search(name) and "\0" not in name:
            raise FolderError(
                f"{self.url}: object storage takes no name with control characters, or that is not UTF-8, as {name!r}. "
                "Give the file another name."
            )
        return self.join(checked_name(self.url, name))

    def join(self, name: str) -> str:
        """Returns the key of `name` in this folder."""
        return f"{self._prefix}/{name}" if self._prefix else name

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turns the storage's errors over `what` into those of this room."""
        where = f"{self.url}/{what}" if what else self.url
        try:
            yield
        except FileNotFoundError as error:
            if _reason(error) == "NoSuchBucket":
                raise FolderError(
                    f"{where}: the bucket is not there. Look after the folder's URL and CCS_DACS_S3_ENDPOINT, then "
                    "repeat."
                ) from error
            raise FileMissing(
                f"{where}: not there. Look whether it was removed, and whether the bucket is there."
            ) from error
        except AlreadyExistsError as error:
            raise FileExists(
                f"{where}: there already and not replaced. Compare the two; remove the wrong one."
            ) from error
        except (BaseError, OSError) as error:
            reason = _reason(error)
            # obstore's writer raises each error as an OSError, and only its text tells which.
            if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or _DENIED.search(reason):
                raise FolderDenied(
                    f"{where}: the storage refused ({reason}). Let the key of CCS_DACS_S3_ACCESS_KEY read, write and "
                    "list there, and look after CCS_DACS_S3_SECRET_KEY and CCS_DACS_S3_REGION, then repeat."
                ) from error
            raise FolderError(
                f"{where}: the storage failed or cannot be reached ({reason}). Look after CCS_DACS_S3_ENDPOINT "
                "and the bucket, then repeat."
            ) from error

    def _listed(self) -> list[Entry]:
        start = self.join("")
        _ = self.store  # opened, it has found out a file of authorities that cannot be read
        with self.errors(""), closing(self.bucket):
            # What is only asked for one object is in whole seconds.
            return [
                Entry(name, one.size, one.modified.replace(microsecond=0))
                for one in self.bucket.objects(start)
                if (name := one.key.removeprefix(start)) and "/" not in name and not _UNNAMEABLE.search(name)
            ]


class ObjectTemporaryFile(Counted):
    """An object that is being written, under a temporary name, in parts that become an object only at the end.

    Each part is signed with its SHA-256, which the storage compares; a part whose connection is lost is sent again.
    """

    def __init__(self, folder: ObjectFolder) -> None:
        super().__init__()
        self._folder = folder
        self._name = temporary_name()
        self._key = folder.join(self._name)
        with folder.errors(""):
            self._writer = obstore.open_writer(folder.store, self._key, buffer_size=_PART_BYTES, max_concurrency=_PARTS)

    def write(self, data: Data) -> None:
        """Appends `data`."""
        with unfinished(self._folder.url), self._folder.errors(""):
            self._writer.write(data)
        self._count(data)

    def commit(self, name: str, *, replace: bool) -> None:
        """Ends the temporary object, compares its size, then gives it its `name`."""
        final = self._folder.key_of(name)
        store = self._folder.store
        with unfinished(self._folder.url), self._folder.errors(name):
            self._writer.close()
            size = obstore.head(store, self._key)["size"]
        if size != self._bytes:
            raise FolderError(
                f"{self._folder.url}: what the storage holds of {name} is not what was sent ({size} of {self._bytes} "
                "bytes). Nothing of it is visible. Repeat; if it comes again, look after the storage."
            )
        with self._folder.unoverwritten(name, self.sha256, replace=replace) as overwrite, self._folder.errors(name):
            obstore.copy(store, self._key, final, overwrite=overwrite)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What cannot be removed now is swept later.
        with suppress(FolderError):
            if not self._writer.closed():
                self._abandon()
            self._folder.remove_key(self._key)

    def _abandon(self) -> None:
        """Drops the parts that were sent; there are none while all fits into the first."""
        if self._bytes < _PART_BYTES:
            return
        # A part that arrives after the end of its upload may stay behind.
        with suppress(FolderError), self._folder.errors(""):
            self._writer.flush()
        self._folder.abort_uploads(self._name, datetime.now(UTC))


class ObjectUpload(Counted):
    """An object that is being written under its own name, in parts that become an object only at the end.

    Each part is signed with its SHA-256, which the storage compares; a part whose connection is lost is sent again.
    """

    def __init__(self, folder: ObjectFolder, name: str) -> None:
        super().__init__()
        self._folder = folder
        self._name = name
        self._buffer = bytearray()
        self._sent: list[Future[str]] = []
        self._done = False
        key = folder.key_of(name)
        try:
            with folder.errors(name):
                self._upload = folder.bucket.begin(key)
        except FolderError:
            folder.bucket.close()
            raise
        self._pool = ThreadPoolExecutor(_PARTS, thread_name_prefix="s3 part")

    def write(self, data: Data) -> None:
        """Appends `data`."""
        rest = memoryview(data)
        self._count(rest)
        while rest:
            room = _PART_BYTES - len(self._buffer)
            self._buffer += rest[:room]
            rest = rest[room:]
            if len(self._buffer) == _PART_BYTES:
                self._send()

    def commit(self, name: str, *, replace: bool) -> None:
        """Makes the parts an object; `name` is the one that was given at the beginning."""
        if name != self._name:
            raise FolderError(
                f"{self._folder.url}: begun as {self._name}, ended as {name}. Begin it under its own name."
            )
        if self._buffer or not self._sent:
            self._send()
        with unfinished(self._folder.url), self._folder.errors(name):
            etags = [part.result() for part in self._sent]
        with (
            self._folder.unoverwritten(name, self.sha256, replace=replace) as overwrite,
            unfinished(self._folder.url),
            self._folder.errors(name),
        ):
            self._folder.bucket.complete(self._upload, etags, overwrite=overwrite)
            self._done = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A part that arrives after the end of its upload may stay behind.
        self._pool.shutdown(cancel_futures=True)
        if not self._done:
            # What cannot be removed now is swept later.
            with suppress(FolderError), self._folder.errors(self._name):
                self._folder.bucket.abort(self._upload)
        self._folder.bucket.close()

    def _send(self) -> None:
        # Bounds what waits in memory: the part that was begun as many as are under way before must be there.
        if len(self._sent) >= _PARTS:
            with unfinished(self._folder.url), self._folder.errors(self._name):
                self._sent[-_PARTS].result()
        data, self._buffer = self._buffer, bytearray()
        self._sent.append(self._pool.submit(self._folder.bucket.send, self._upload, len(self._sent) + 1, data))


class _ObjectReader(io.RawIOBase):
    """Reads one state of an object as a stream; a lost connection is taken up again where it broke."""

    def __init__(self, folder: ObjectFolder, name: str) -> None:
        super().__init__()
        self._folder = folder
        self._name = name
        with folder.errors(name):
            self._blocks = iter(obstore.get(folder.store, folder.key_of(name)).stream(_READ_BYTES))
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, target: WriteableBuffer) -> int:
        """Fills `target` with what is there of the present block."""
        if not self._rest:
            with self._folder.errors(self._name):
                self._rest = memoryview(next(self._blocks, b""))
        into = memoryview(target).cast("B")
        count = min(len(into), len(self._rest))
        into[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _there(url: str, name: str) -> FileExists:
    return FileExists(f"{url}/{name}: there already. Compare the two; remove the wrong one.")


def _reason(error: Exception) -> str:
    """Returns the storage's own word for an error; never the whole text, which may hold what was sent."""
    text = str(error)
    found = _CODE.search(text) or _STATUS.search(text)
    return found.group(found.re.groups) if found else type(error).__name__
