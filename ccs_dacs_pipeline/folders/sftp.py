"""A folder on an SFTP server."""

from __future__ import annotations

import hashlib
import io
import time
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, BinaryIO, Self

import asyncssh

from ccs_dacs_pipeline.folders.folder import (
    TEMPORARY_PREFIX,
    Counted,
    Entry,
    FileExists,
    FileMissing,
    FolderError,
    FolderFull,
    checked_name,
    moment,
    temporary_name,
    unfinished,
)
from ccs_dacs_pipeline.folders.sftp_server import SftpServer, sftp_errors

if TYPE_CHECKING:
    from concurrent.futures import Future
    from datetime import datetime, timedelta
    from types import TracebackType

    from _typeshed import WriteableBuffer

    from ccs_dacs_pipeline.folders.folder import Data, Folder

# What is sent or read again after a lost connection. Three are in memory at once: one on its way to the server, the one
# before it on its way back, one being filled. As large as the window that OpenSSH opens for what comes: with larger
# ones its server would keep what is written waiting for what is read.
_BLOCK_BYTES = 2 * 1024 * 1024


class SftpFolder:
    """A folder of an SFTP server. An absent one reads as empty, and is made when the first file is created.

    Raises, from every method: `FolderError` or one of its kinds.
    """

    def __init__(self, server: SftpServer, path: str) -> None:
        """Names the folder; `path` is absolute on the server, or relative to the folder where the user arrives."""
        self.server = server
        self.path = path.rstrip("/") or "/"

    @property
    def url(self) -> str:
        """The folder as a URL, without credentials."""
        return f"{self.server.url}{self.path if self.path.startswith('/') else f'/~/{self.path}'}"

    def is_same(self, other: Folder) -> bool:
        """Returns whether `other` is this folder of this server, by whatever way its path leads there.

        One server under two names is not recognised.
        """
        if not isinstance(other, SftpFolder):
            return False
        if (self.server.host, self.server.port) != (other.server.host, other.server.port):
            return False
        return self._real_path() == other._real_path()  # noqa: SLF001 - another one of the same class

    def names(self, pattern: str = "*") -> list[str]:
        """Returns the visible files' names that match the glob `pattern`, ascending; folders are left out."""
        return [entry.name for entry in self.entries(pattern)]

    def entries(self, pattern: str = "*") -> list[Entry]:
        """Returns the visible files that match the glob `pattern`, with size and time, ascending."""
        found = [
            (name, self._looked_at(name, attrs))
            for name, attrs in self._listed()
            if not name.startswith(".") and fnmatchcase(name, pattern)
        ]
        return [
            _entry(name, attrs)
            for name, attrs in sorted(found, key=lambda one: one[0])
            if attrs is not None and attrs.type == asyncssh.FILEXFER_TYPE_REGULAR
        ]

    def size(self, name: str) -> int | None:
        """Returns the file's size in bytes, None when it is absent."""
        path = self.path_of(name)
        with suppress(FileMissing):
            return self.server.run(lambda client: client.getsize(path), where=f"{self.url}/{name}")
        return None

    def modified(self, name: str) -> datetime | None:
        """Returns the file's modification time, whole seconds, None when it is absent."""
        path = self.path_of(name)
        with suppress(FileMissing):
            attrs = self.server.run(lambda client: client.stat(path), where=f"{self.url}/{name}")
            return moment(attrs.mtime or 0)
        return None

    def sha256(self, name: str) -> str | None:
        """Returns the SHA-256 of the file's bytes, read as a stream, None when it is absent."""
        with suppress(FileMissing):
            return self.digest(self.path_of(name))
        return None

    def open(self, name: str) -> BinaryIO:
        """Opens the file for reading; raises `FileMissing` when it is absent."""
        return io.BufferedReader(_SftpReader(self, self.path_of(name)), _BLOCK_BYTES)

    def create(self, name: str | None = None) -> SftpTemporaryFile:
        """Begins a new file beside its later place."""
        self.server.run(lambda client: client.makedirs(self.path, exist_ok=True), where=self.url)
        return SftpTemporaryFile(self)

    def remove(self, name: str) -> None:
        """Removes the file; an absent one is fine."""
        self.remove_path(self.path_of(name))

    def rename(self, name: str, new_name: str, *, replace: bool) -> Entry:
        """Gives the file another name, at once where the server can.

        Raises:
            FileMissing: there is no `name`.
            FileExists: `new_name` is there and `replace` is false.
            FolderError: `name` is a folder, or the server fails.
        """
        old, new = self.path_of(name), self.path_of(new_name)
        attrs = self.server.run(lambda client: client.stat(old), where=self.url_of(old))
        if attrs.type == asyncssh.FILEXFER_TYPE_DIRECTORY:
            raise FolderError(f"{self.url_of(old)}: it is a folder. Name a file.")
        if old == new:
            if replace:
                return _entry(new_name, attrs)
            raise FileExists(f"{self.url_of(new)}: there already, under this very name. Give another one.")
        move = _Move(old, new, replace=replace)
        try:
            self.server.run(move, where=f"{self.url_of(old)} to {new_name}")
        except FileExists:
            if not move.asked or not self._are_alike(old, new):
                raise
        # Both are there when they were two names of one file, or when a server was stopped between linking and
        # unlinking.
        if self._are_alike(old, new):
            self.remove_path(old)
        return _entry(new_name, self.server.run(lambda client: client.stat(new), where=self.url_of(new)))

    def sweep(self, older_than: timedelta) -> int:
        """Removes this program's temporary files that nobody wrote to for `older_than`; returns how many.

        Their age is counted from this machine's clock, so a server's clock that is wrong by hours matters.
        """
        limit = time.time() - older_than.total_seconds()
        found = [
            name
            for name, attrs in self._listed()
            if name.startswith(TEMPORARY_PREFIX) and (attrs.mtime is None or attrs.mtime <= limit)
        ]
        for name in found:
            self.remove_path(self.join(name))
        return len(found)

    def close(self) -> None:
        """Ends the connection."""
        self.server.close()

    def digest(self, path: str) -> str:
        """Returns the SHA-256 of the file `path` of the server, read back from it; raises `FileMissing`."""
        digest = hashlib.sha256()
        with _SftpReader(self, path) as reader:
            while block := reader.block():
                digest.update(block)
        return digest.hexdigest()

    def is_told(self, name: str, sha256: str) -> bool:
        """Returns whether the server's command, where one is set, prints this SHA-256 of the file."""
        server = self.server
        return server.sha256_command is None or server.told_sha256(self.path_of(name)) == sha256

    def witness(self, path: str) -> Witness:
        """Returns what can confirm the file `path` of the server once it is written."""
        return Echo(self, path) if self.server.sha256_command is None else ServersWord(self.server, path)

    def remove_path(self, path: str) -> None:
        """Removes the file `path` of the server; an absent one is fine."""
        with suppress(FileMissing):
            self.server.run(lambda client: client.remove(path), where=self.url_of(path))

    def path_of(self, name: str) -> str:
        """Returns the server's path of the visible file `name`, there or not."""
        return self.join(checked_name(self.url, name))

    def join(self, name: str) -> str:
        """Returns the server's path of `name` in this folder."""
        return f"{self.path.rstrip('/')}/{name}"

    def url_of(self, path: str) -> str:
        """Returns the URL of a file of this folder, for messages."""
        return f"{self.url}/{path.rpartition('/')[2]}"

    def _listed(self) -> list[tuple[str, asyncssh.SFTPAttrs]]:
        with suppress(FileMissing):
            entries = self.server.run(lambda client: client.readdir(self.path), where=self.url)
            return [(str(entry.filename), entry.attrs) for entry in entries]
        return []

    def _looked_at(self, name: str, attrs: asyncssh.SFTPAttrs) -> asyncssh.SFTPAttrs | None:
        """Returns what the listing says of a file, or else the server; None for what it cannot look at."""
        is_told = attrs.type not in {asyncssh.FILEXFER_TYPE_UNKNOWN, asyncssh.FILEXFER_TYPE_SYMLINK}
        if is_told and attrs.size is not None and attrs.mtime is not None:
            return attrs
        path = self.join(name)

        async def ask(client: asyncssh.SFTPClient) -> asyncssh.SFTPAttrs | None:
            try:
                return await client.stat(path)
            except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection):
                raise
            except asyncssh.SFTPError:
                # One such, as a link that leads in a circle, must not hide the others.
                return None

        return self.server.run(ask, where=self.url_of(path))

    def _are_alike(self, path: str, other: str) -> bool:
        with suppress(FileMissing):
            return self.digest(path) == self.digest(other)
        return False

    def _real_path(self) -> str:
        # Some servers follow links only in paths that are there; others give back what they were asked.
        return self.server.run(lambda client: client.realpath(self.path), where=self.url)


def _entry(name: str, attrs: asyncssh.SFTPAttrs) -> Entry:
    return Entry(name, attrs.size or 0, moment(attrs.mtime or 0))


class SftpTemporaryFile(Counted):
    """A file that is being written to the server, in the folder it is meant for.

    Blocks go out one after the other while the next is being filled. After a lost connection the block under way is
    sent again. The protocol has no checksum, so the file is read back before anyone sees it: where that can be done
    while the rest still goes out, and else by `commit`. A server that has a command for it is asked instead.
    """

    def __init__(self, folder: SftpFolder) -> None:
        super().__init__()
        self._folder = folder
        self._path = folder.join(temporary_name())
        self._buffer = bytearray()
        self._sent = 0
        self._under_way: Future[None] | None = None
        self._handle: asyncssh.SFTPClientFile | None = None
        self._client: asyncssh.SFTPClient | None = None
        self._connections = 0
        self._witness = folder.witness(self._path)
        self._placed = False

    def write(self, data: Data) -> None:
        """Appends `data`."""
        rest = memoryview(data)
        self._count(rest)
        while rest:
            room = _BLOCK_BYTES - len(self._buffer)
            self._buffer += rest[:room]
            rest = rest[room:]
            if len(self._buffer) == _BLOCK_BYTES:
                self._send()

    def commit(self, name: str, *, replace: bool) -> None:
        """Makes the bytes durable, reads them back, then gives them their `name`."""
        final = self._folder.path_of(name)
        # An empty file is sent too, so that it is there.
        self._send()
        self._wait()
        where = self._folder.url
        with unfinished(where):
            size = self._folder.server.run(self._finish, where=where)
            stored = self._stored()
        if (size, stored) != (self._bytes, self.sha256):
            raise FolderError(
                f"{where}: what the server stored of {name} is not what was sent ({size} of {self._bytes} bytes, or "
                "another SHA-256). Nothing of it is visible. Look after the server's disk, then repeat."
            )
        self._place(final, replace=replace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._placed:
            return
        # What cannot be removed now is swept later.
        self._witness.end()
        with suppress(FolderError):
            self._wait()
        with suppress(FolderError):
            self._folder.server.run(self._release, where=self._folder.url)
            self._folder.remove_path(self._path)

    def _send(self) -> None:
        self._wait()
        if self._sent:
            self._witness.follow()
        block, offset = bytes(self._buffer), self._sent
        self._buffer.clear()
        self._sent += len(block)

        async def write(client: asyncssh.SFTPClient) -> None:
            handle = await self._opened(client)
            try:
                await handle.write(block, offset)
            except asyncssh.SFTPFailure:
                await self._explain(client, len(block))
                raise

        self._under_way = self._folder.server.begin(write)

    def _wait(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            with unfinished(self._folder.url), sftp_errors(self._folder.url):
                under_way.result()

    def _stored(self) -> str:
        """Returns the SHA-256 of what the server holds of the finished file."""
        told = self._witness.finish()
        # A server that was started anew may have lost what it had taken, and given back, before.
        if self._connections == 1 and told == self.sha256:
            return told
        return self._folder.digest(self._path)

    async def _opened(self, client: asyncssh.SFTPClient) -> asyncssh.SFTPClientFile:
        if self._handle is None or self._client is not client:
            self._connections += 1
            # Made once; on a further connection it must be there still, or a sweep took it.
            flags = asyncssh.FXF_WRITE | (asyncssh.FXF_CREAT if self._handle is None else 0)
            self._handle, self._client = await client.open(self._path, flags, encoding=None), client
        return self._handle

    async def _explain(self, client: asyncssh.SFTPClient, wanted: int) -> None:
        """Raises `FolderFull` when there is no room: OpenSSH's server calls every failure by one name."""
        with suppress(asyncssh.SFTPError):
            room = await client.statvfs(self._path)
            if room.bavail * room.frsize < wanted:
                raise FolderFull(
                    f"{self._folder.url}: no room is left. Nothing partial is visible; make room there and repeat."
                )

    async def _finish(self, client: asyncssh.SFTPClient) -> int | None:
        handle = await self._opened(client)
        with suppress(asyncssh.SFTPOpUnsupported):
            await handle.fsync()
        size = (await handle.stat()).size
        await self._release(client)
        return size

    async def _release(self, client: asyncssh.SFTPClient) -> None:
        if self._handle is not None and self._client is client:
            self._client = None
            await self._handle.close()

    def _place(self, final: str, *, replace: bool) -> None:
        with unfinished(self._folder.url):
            move = _Move(self._path, final, replace=replace)
            self._folder.server.run(move, where=self._folder.url_of(final))
        self._placed = True


class _Move:
    """Gives a file of the server another path; may be repeated when its answer was lost with the connection."""

    def __init__(self, path: str, new: str, *, replace: bool) -> None:
        self._path = path
        self._new = new
        self._replace = replace
        self.asked = False

    async def __call__(self, client: asyncssh.SFTPClient) -> None:
        if self.asked and not await client.exists(self._path):
            return  # it took effect
        if not self._replace and await client.exists(self._new):
            raise asyncssh.SFTPFileAlreadyExists("")
        self.asked = True
        if self._replace:
            await self._replacing(client)
            return
        try:
            await client.rename(self._path, self._new)
        except asyncssh.SFTPFailure:
            if await client.exists(self._new):
                raise asyncssh.SFTPFileAlreadyExists("") from None
            raise

    async def _replacing(self, client: asyncssh.SFTPClient) -> None:
        try:
            await client.posix_rename(self._path, self._new)
        except asyncssh.SFTPOpUnsupported:
            # Without the extension there is no replacing at once; for an instant none is there.
            await client.lstat(self._path)  # or what is there would be removed for nothing
            with suppress(asyncssh.SFTPNoSuchFile):
                await client.remove(self._new)
            await client.rename(self._path, self._new)


class Witness:
    """Follows a file while it is written, and can confirm it and nothing else. This one has seen nothing."""

    def follow(self) -> None:
        """Takes note that the server has taken one block more."""

    def finish(self) -> str | None:
        """Returns the SHA-256 of the file, all of which the server has taken; None when that is not to be had."""
        return None

    def end(self) -> None:
        """Gives back what it holds of the server."""


class ServersWord(Witness):
    """Has the server compute the SHA-256 of a finished file."""

    def __init__(self, server: SftpServer, path: str) -> None:
        self._server = server
        self._path = path

    def finish(self) -> str | None:
        """Asks the server."""
        return self._server.told_sha256(self._path)


class Echo(Witness):
    """Reads a file back while it is being written, each block once the server has taken it.

    It gives up on any error, as at a server that shows no file before it is closed, and what it has read may be short.
    """

    def __init__(self, folder: SftpFolder, path: str) -> None:
        self._folder = folder
        self._path = path
        self._digest = hashlib.sha256()
        self._reader: _SftpReader | None = None
        self._ended = False

    def follow(self) -> None:
        """Begins with the next block, which the server must have taken, once the one before is here."""
        if self._ended:
            return
        try:
            if self._reader is None:
                self._reader = _SftpReader(self._folder, self._path)
            else:
                self._digest.update(self._reader.taken())
                self._reader.begin()
        except FolderError:
            self.end()

    def finish(self) -> str | None:
        """Reads the last block and ends; returns the SHA-256 of all blocks, None when they could not be read."""
        self.follow()
        try:
            if self._reader is None or self._ended:
                return None
            self._digest.update(self._reader.taken())
            return self._digest.hexdigest()
        except FolderError:
            return None
        finally:
            self.end()

    def end(self) -> None:
        """Gives the server's handle back."""
        self._ended = True
        if self._reader is not None:
            self._reader.close()


class _SftpReader(io.RawIOBase):
    """Reads a file in blocks, the next one under way while one is used; goes on after a lost connection."""

    def __init__(self, folder: SftpFolder, path: str) -> None:
        super().__init__()
        self._folder = folder
        self._path = path
        self._offset = 0
        self._handle: asyncssh.SFTPClientFile | None = None
        self._client: asyncssh.SFTPClient | None = None
        self._stat: tuple[int | None, int | None] | None = None
        self._rest = memoryview(b"")
        folder.server.run(self._opened, where=folder.url_of(path))
        self._under_way: Future[bytes] | None = None
        self.begin()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, target: WriteableBuffer) -> int:
        """Fills `target` with what is there of the present block."""
        if not self._rest:
            self._rest = memoryview(self.block())
        into = memoryview(target).cast("B")
        count = min(len(into), len(self._rest))
        into[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def block(self) -> bytes:
        """Returns the next block, empty at the end."""
        block = self.taken()
        if len(block) == _BLOCK_BYTES:
            self.begin()
        return block

    def taken(self) -> bytes:
        """Returns the block under way once it is here; empty when there is none."""
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            return b""
        with sftp_errors(self._folder.url_of(self._path)):
            block = under_way.result()
        self._offset += len(block)
        return block

    def close(self) -> None:
        """Gives the server's handle back."""
        if not self.closed:
            # The block under way cannot be called back; its parts would complain into the log.
            with suppress(FolderError):
                self.taken()
            with suppress(FolderError):
                self._folder.server.run(self._release, where=self._folder.url)
        super().close()

    def begin(self) -> None:
        """Begins to read the next block."""
        offset = self._offset

        async def read(client: asyncssh.SFTPClient) -> bytes:
            return await (await self._opened(client)).read(_BLOCK_BYTES, offset)

        self._under_way = self._folder.server.begin(read)

    async def _opened(self, client: asyncssh.SFTPClient) -> asyncssh.SFTPClientFile:
        if self._handle is None or self._client is not client:
            handle = await client.open(self._path, asyncssh.FXF_READ, encoding=None)
            attrs = await handle.stat()
            if self._stat not in {None, (attrs.size, attrs.mtime)}:
                raise FolderError(
                    f"{self._folder.url_of(self._path)}: changed while it was being read, and the connection was lost "
                    "meanwhile. Repeat."
                )
            self._handle, self._client, self._stat = handle, client, (attrs.size, attrs.mtime)
        return self._handle

    async def _release(self, client: asyncssh.SFTPClient) -> None:
        if self._handle is not None and self._client is client:
            self._client = None
            await self._handle.close()
