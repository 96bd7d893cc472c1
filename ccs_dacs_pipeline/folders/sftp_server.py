"""One SFTP server: an event loop in a thread of its own, and a connection that is made anew when it is lost."""

from __future__ import annotations

import asyncio
import logging
import shlex
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import asyncssh

from ccs_dacs_pipeline.folders.folder import FileExists, FileMissing, FolderDenied, FolderError, FolderFull

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from concurrent.futures import Future

T = TypeVar("T")

_LOST = (
    OSError,
    asyncssh.ConnectionLost,
    asyncssh.ChannelOpenError,
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
)
# Seconds before each further attempt.
_WAITS = (0.2, 1.0, 5.0)
_CONNECT_SECONDS = 20
_LOGIN_SECONDS = 30
# Bounds one block, one listing: what a server that answers keep-alives but does no work would hold up for ever.
_CALL_SECONDS = 300
# Bounds the server's own command; a slow disk takes a minute or two for the largest file.
_COMMAND_SECONDS = 240
_SHA256_DIGITS = 64
_KEEP_ALIVE_SECONDS = 15
# How much the server may send before it must wait for us: several blocks of a file, so that distance costs little.
_WINDOW_BYTES = 8 * 1024 * 1024
# Ciphers that the processor computes come first; the others stay for servers that lack them.
_CIPHERS = (
    "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr"
)
_OWN_KNOWN_HOSTS = "~/.ssh/known_hosts"


class HandshakeLost(asyncssh.ConnectionLost):
    """The connection was lost while it was being made to a server of which keys are known; the reason tells of them."""


class ServerNotTrusted(FolderError):
    """The server's host key is not the one that is known for it, or none is known."""


@dataclass(frozen=True)
class SftpAccess:
    """How a server is entered, and how it proves who it is.

    Attributes:
        password: the user's password.
        key_file: the user's private key, in OpenSSH's or PEM format.
        key_passphrase: what the private key is encrypted with.
        known_hosts: the file of known host keys; None for the user's own, `~/.ssh/known_hosts`.
        sha256_command: what prints a file's SHA-256 when the server's shell runs it with the path; None: nothing does.
        settings: how the names of the settings begin that password and key are from, for messages.
    """

    password: str | None = field(default=None, repr=False)
    key_file: Path | None = None
    key_passphrase: str | None = field(default=None, repr=False)
    known_hosts: Path | None = None
    sha256_command: str | None = None
    settings: str = "CCS_DACS_SFTP"


class SftpServer:
    """Runs work on a server. Connects when first used; thread safe.

    Raises, from every method: `FolderError` or one of its kinds.
    """

    def __init__(self, host: str, port: int, user: str, access: SftpAccess) -> None:
        self.host = host
        self.port = port
        self.user = user
        self._access = access
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connecting: asyncio.Lock
        self._connection: asyncssh.SSHClientConnection | None = None
        self._client: asyncssh.SFTPClient | None = None

    @property
    def url(self) -> str:
        """The server as a URL, without credentials."""
        return f"sftp://{quote(self.user, safe='')}@{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def run(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]], *, where: str) -> T:
        """Runs `work` on a connection, again from its start on a new one when the connection is lost.

        Args:
            work: takes the client; must stand being repeated.
            where: URL of the folder or file, for messages.
        """
        with sftp_errors(where):
            return self.begin(work).result()

    def begin(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> Future[T]:
        """Begins `work` as `run` does it, and returns at once; its errors are asyncssh's."""
        return asyncio.run_coroutine_threadsafe(self._repeated(work), self._running())

    @property
    def sha256_command(self) -> str | None:
        """The server's own command for a file's SHA-256, None when it has none."""
        return self._access.sha256_command

    def told_sha256(self, path: str) -> str | None:
        """Returns the SHA-256 of the file `path` by the server's own command; None when it prints none.

        The shell may see other files under a path than SFTP does: its word confirms a file, and accuses none.
        """
        # In bytes, since a path need not be UTF-8.
        command = f"{self.sha256_command} {shlex.quote(path)}".encode(errors="surrogateescape")

        async def ask(_: asyncssh.SFTPClient) -> str | None:
            connection = self._connection
            if connection is None:
                return None
            # Not repeated when the connection is lost: without an answer the file is read back.
            with suppress(*_LOST, asyncssh.Error, EOFError):
                async with asyncio.timeout(_COMMAND_SECONDS):
                    return (await _printed(connection, command, _SHA256_DIGITS)).decode(errors="replace").lower()
            return None

        return self.run(ask, where=self.url)

    def close(self) -> None:
        """Ends connection, loop and thread."""
        with self._starting:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._disconnect(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop, self._connecting = asyncio.new_event_loop(), asyncio.Lock()
                self._thread = threading.Thread(target=self._loop.run_forever, name=f"sftp {self.host}", daemon=True)
                self._thread.start()
            return self._loop

    async def _repeated(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        for wait in _WAITS:
            try:
                return await self._once(work)
            except _LOST:
                await asyncio.sleep(wait)
        return await self._once(work)

    async def _once(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        client = await self._connected()
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return await work(client)
        except _LOST:
            if self._client is client:
                await self._disconnect()
            raise

    async def _connected(self) -> asyncssh.SFTPClient:
        async with self._connecting:
            if self._client is None:
                self._connection = await self._connect()
                try:
                    # A name need not be UTF-8; such a one is as Python has it for a local file.
                    self._client = await self._connection.start_sftp_client(path_errors="surrogateescape")
                except BaseException:
                    await self._disconnect()
                    raise
            return self._client

    async def _connect(self) -> asyncssh.SSHClientConnection:
        # It reports each connection, authentication and channel at the level of news.
        logging.getLogger("asyncssh").setLevel(logging.WARNING)
        path, known_hosts = self._known_hosts()
        keys = asyncssh.match_known_hosts(known_hosts, self.host, "", self.port)
        try:
            return await asyncssh.connect(
                self.host,
                self.port,
                username=self.user,
                password=self._access.password,
                client_keys=self._keys(),
                known_hosts=known_hosts,
                encryption_algs=_CIPHERS,
                # Only what the settings say: neither the user's ssh configuration, nor agent, nor Kerberos.
                config=None,
                agent_path=None,
                gss_host=None,
                connect_timeout=_CONNECT_SECONDS,
                login_timeout=_LOGIN_SECONDS,
                keepalive_interval=_KEEP_ALIVE_SECONDS,
                window=_WINDOW_BYTES,
            )
        except asyncssh.HostKeyNotVerifiable as error:
            raise ServerNotTrusted(self._mistrust(path, is_known=any(keys))) from error
        except (asyncssh.ConnectionLost, ConnectionResetError, ConnectionAbortedError, BrokenPipeError) as error:
            if not keys[0]:
                raise
            # Some servers say no word when they have none of the keys that they are asked for.
            raise HandshakeLost(f"Or {self._no_common_type(path, keys[0])}") from error
        except asyncssh.KeyExchangeFailed as error:
            if not keys[0] or "host key" not in error.reason:
                raise
            raise ServerNotTrusted(f"{self.url}: {self._no_common_type(path, keys[0])}") from error
        except asyncssh.PermissionDenied as error:
            raise FolderDenied(
                f"{self.url}: the server refused the user. Look after the user name in the folder's URL, and "
                f"{self._access.settings}_PASSWORD or {self._access.settings}_KEY_FILE, then repeat."
            ) from error

    async def _disconnect(self) -> None:
        connection, self._connection, self._client = self._connection, None, None
        if connection is not None:
            connection.abort()
            await connection.wait_closed()

    def _known_hosts(self) -> tuple[Path, asyncssh.SSHKnownHosts]:
        """Returns where the known host keys are, and those."""
        path = self._access.known_hosts or Path(_OWN_KNOWN_HOSTS).expanduser()
        try:
            known_hosts = asyncssh.import_known_hosts(path.read_text(encoding="utf-8"))
            asyncssh.match_known_hosts(known_hosts, self.host, "", self.port)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ServerNotTrusted(
                f"{self.url}: no file of known host keys at {path}. {self._scan} and write the line to a file that "
                "CCS_DACS_SFTP_KNOWN_HOSTS, or the folder's own setting, names."
            ) from error
        except OSError as error:
            raise ServerNotTrusted(
                f"{self.url}: the known host keys in {path} cannot be read ({error.strerror}). Let the user of this "
                "process read the file, then repeat."
            ) from error
        except ValueError as error:
            # Its text would hold a line of what may be another file altogether.
            reason = "it is not in UTF-8" if isinstance(error, UnicodeError) else "a line is not in the file's format"
            raise ServerNotTrusted(
                f"{self.url}: the known host keys in {path} cannot be understood: {reason}. {self._scan} and write the "
                "line to the file anew."
            ) from error
        return path, known_hosts

    def _keys(self) -> list[asyncssh.SSHKey]:
        access = self._access
        if access.key_file is None:
            if access.password is None:
                raise FolderDenied(
                    f"{self.url}: neither password nor key is set. Set {access.settings}_PASSWORD or "
                    f"{access.settings}_KEY_FILE."
                )
            return []
        try:
            return [asyncssh.read_private_key(access.key_file, access.key_passphrase)]
        except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise FolderDenied(
                f"{self.url}: the key in {access.settings}_KEY_FILE cannot be read ({type(error).__name__}). Let this "
                f"user read the file, and set {access.settings}_KEY_PASSPHRASE to the passphrase where it has one."
            ) from error

    def _no_common_type(self, known_hosts: Path, keys: Sequence[asyncssh.SSHKey]) -> str:
        types = ", ".join(sorted({key.get_algorithm() for key in keys}))
        return (
            f"the server has no host key of the types that are known in {known_hosts} ({types}). {self._scan} and add "
            "the line."
        )

    def _mistrust(self, known_hosts: Path, *, is_known: bool) -> str:
        if not is_known:
            return f"{self.url}: no host key of the server is known in {known_hosts}. {self._scan} and add the line."
        return (
            f"{self.url}: the server's host key is not the one known in {known_hosts}. Someone may be in between, or "
            f"the server has a new key. Stop until its operator confirms the change. {self._scan} and replace the line."
        )

    @property
    def _scan(self) -> str:
        return (
            f"Get the key by `ssh-keyscan -p {self.port} {self.host}`, compare its fingerprint (`ssh-keygen -lf`) with "
            "the one the server's operator tells,"
        )


async def _printed(connection: asyncssh.SSHClientConnection, command: bytes, count: int) -> bytes:
    """Returns the first bytes that a command prints on the server, and does not wait for its end."""
    process = await connection.create_process(command, stdin=asyncssh.DEVNULL, stderr=asyncssh.DEVNULL, encoding=None)
    try:
        printed: bytes = await process.stdout.readexactly(count)
        return printed
    finally:
        process.close()


@contextmanager
def sftp_errors(where: str) -> Iterator[None]:
    """Turns asyncssh's errors at `where` (URL of a folder, or of a file in it) into those of this room."""
    try:
        yield
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath) as error:
        raise FileMissing(f"{where}: not there. Look whether it was moved or removed.") from error
    except (asyncssh.SFTPPermissionDenied, asyncssh.SFTPWriteProtect) as error:
        raise FolderDenied(
            f"{where}: permission denied. Let the user of the folder's URL read and write there, then repeat."
        ) from error
    except asyncssh.SFTPFileAlreadyExists as error:
        raise FileExists(f"{where}: there already and not replaced. Compare the two; remove the wrong one.") from error
    except (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded) as error:
        raise FolderFull(f"{where}: no room is left. Nothing partial is visible; make room and repeat.") from error
    except _LOST as error:
        hint = f" {error.reason}" if isinstance(error, HandshakeLost) else ""
        kind = type(error.__cause__ if hint else error).__name__
        raise FolderError(
            f"{where}: no connection ({kind}), after {len(_WAITS) + 1} attempts. Look whether the server runs and can "
            f"be reached from here, then repeat.{hint}"
        ) from error
    except asyncssh.Error as error:
        raise FolderError(
            f"{where}: the server failed ({error.reason}). Look after the folder, then repeat."
        ) from error
