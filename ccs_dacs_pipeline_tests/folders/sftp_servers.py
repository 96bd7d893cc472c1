"""SFTP servers for the tests: asyncssh's own in this process, and OpenSSH's sshd as a process of its own."""

import asyncio
import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import asyncssh
import pytest

from ccs_dacs_pipeline.folders.sftp import SftpFolder
from ccs_dacs_pipeline.folders.sftp_server import SftpAccess, SftpServer

HOST = "127.0.0.1"
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")


@dataclass
class Served:
    """A running server, and what a client needs to enter it."""

    port: int
    user: str
    access: SftpAccess

    def folder(self, path: Path, access: SftpAccess | None = None) -> SftpFolder:
        return SftpFolder(SftpServer(HOST, self.port, self.user, access or self.access), str(path))

    def url(self, path: Path) -> str:
        return f"sftp://{self.user}@{HOST}:{self.port}{path}"

    def drop_connections(self) -> None:
        """Cuts all connections, as a network does."""
        raise NotImplementedError


def known_hosts(path: Path, port: int, key: asyncssh.SSHKey) -> Path:
    path.write_text(f"[{HOST}]:{port} {key.export_public_key().decode()}")
    return path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


class FaultySftp(asyncssh.SFTPServer):
    """The local file system, with faults that a test asks for."""

    connections: ClassVar[set[asyncssh.SSHServerConnection]] = set()
    drop_at: int | None = None
    """Cuts the connection at the write that reaches this offset, once."""
    full = False
    spoil = False
    """Stores other bytes than were sent."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        super().__init__(channel)
        self._connection = channel.get_connection()
        FaultySftp.connections.add(self._connection)

    def write(self, file_obj: Any, offset: int, data: bytes) -> int:
        cls = FaultySftp
        if cls.full:
            raise OSError(28, "No space left on device")
        if cls.drop_at is not None and offset >= cls.drop_at:
            cls.drop_at = None
            self._connection.abort()
            raise asyncssh.SFTPConnectionLost("dropped")
        return super().write(file_obj, offset, b"x" * len(data) if cls.spoil else data)

    def statvfs(self, path: bytes) -> Any:
        found = super().statvfs(path)
        if not FaultySftp.full:
            return found
        attrs = asyncssh.SFTPVFSAttrs.from_local(found)
        attrs.bavail = 0
        return attrs


@dataclass
class AsyncsshServed(Served):
    """A server in this process."""

    loop: asyncio.AbstractEventLoop

    def drop_connections(self) -> None:
        def drop() -> None:
            for connection in FaultySftp.connections:
                connection.abort()
            FaultySftp.connections.clear()

        self.loop.call_soon_threadsafe(drop)


class _Login(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("mover", "canary-password")


@contextmanager
def asyncssh_server(
    folder: Path, *, host_key: asyncssh.SSHKey | None = None, port: int = 0
) -> Iterator[AsyncsshServed]:
    """Serves the whole file system to the user `mover`, by password."""
    key = host_key or asyncssh.generate_private_key("ssh-ed25519")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> asyncssh.SSHAcceptor:
        return await asyncssh.create_server(
            _Login, HOST, port, server_host_keys=[key], sftp_factory=FaultySftp, reuse_address=True
        )

    async def stop(acceptor: asyncssh.SSHAcceptor) -> None:
        for connection in FaultySftp.connections:
            connection.abort()
        FaultySftp.connections.clear()
        acceptor.close()
        await acceptor.wait_closed()
        await asyncio.sleep(0.05)

    acceptor = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        bound = acceptor.get_port()
        hosts = known_hosts(folder / f"known_hosts-{bound}", bound, key)
        access = SftpAccess(password="canary-password", known_hosts=hosts)
        yield AsyncsshServed(bound, "mover", access, loop)
    finally:
        asyncio.run_coroutine_threadsafe(stop(acceptor), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass
class OpensshServed(Served):
    """A server in a process of its own."""

    process: subprocess.Popen[bytes]

    def drop_connections(self) -> None:
        for pid in _descendants(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(deeper for child in found for deeper in _descendants(child))]


@contextmanager
def openssh_server(folder: Path, *, user: str | None = None, more: str = "") -> Iterator[OpensshServed]:
    """Serves the whole file system by an encrypted key, to the user of this process or, for root, to another one.

    The other user must be able to reach `folder`. `more` is appended to the server's configuration.
    """
    if SSHD is None:
        pytest.skip("sshd is not installed (Debian's package openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    host_key.write_private_key(folder / "host_key")
    (folder / "host_key").chmod(0o600)
    user_key.write_private_key(folder / "user_key", passphrase="canary-passphrase")
    user_key.write_public_key(folder / "authorized_keys")
    port = free_port()
    (folder / "sshd_config").write_text(
        f"""Port {port}
ListenAddress {HOST}
HostKey {folder / "host_key"}
AuthorizedKeysFile {folder / "authorized_keys"}
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
Subsystem sftp internal-sftp
{more}"""
    )
    log = (folder / "sshd.log").open("wb")
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        _wait_for(port, process, folder / "sshd.log")
        access = SftpAccess(
            key_file=folder / "user_key",
            key_passphrase="canary-passphrase",
            known_hosts=known_hosts(folder / "known_hosts", port, host_key),
        )
        yield OpensshServed(port, user or getpass.getuser(), access, process)
    finally:
        process.terminate()
        process.wait()
        log.close()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())
