"""What is particular to SFTP: trust, login, lost connections, what the server stored, its errors."""

import getpass
import os
import pwd
import random
import resource
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import asyncssh
import pytest

from ccs_dacs_pipeline.folders import (
    FileExists,
    FileMissing,
    FolderDenied,
    FolderError,
    FolderFull,
    LocalFolder,
    Published,
    publish,
)
from ccs_dacs_pipeline.folders import sftp_server as module
from ccs_dacs_pipeline.folders.sftp import SftpFolder, _SftpReader
from ccs_dacs_pipeline.folders.sftp_server import ServerNotTrusted, SftpAccess
from ccs_dacs_pipeline_tests.folders.conftest import Places
from ccs_dacs_pipeline_tests.folders.files import content, public_directory, put, read_only, sha256
from ccs_dacs_pipeline_tests.folders.sftp_servers import (
    FaultySftp,
    Served,
    asyncssh_server,
    known_hosts,
    openssh_server,
)

MIB = 1024 * 1024


@pytest.fixture(params=["asyncssh", "openssh"])
def served(request: pytest.FixtureRequest, places: Places) -> Served:
    found = getattr(places, request.param)
    assert isinstance(found, Served)
    return found


@pytest.fixture
def faulty() -> Iterator[type[FaultySftp]]:
    """The faults of asyncssh's server, taken back at the end."""
    yield FaultySftp
    FaultySftp.drop_at, FaultySftp.full, FaultySftp.spoil = None, False, False


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes what a test opened by itself."""
    opened: list[SftpFolder] = []
    original = SftpFolder.__init__

    def remember(self: SftpFolder, *args: object) -> None:
        original(self, *args)  # type: ignore[arg-type]
        opened.append(self)

    monkeypatch.setattr(SftpFolder, "__init__", remember)
    yield
    for folder in opened:
        folder.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAITS", (0.01, 0.01))


def test_a_changed_host_key_is_refused_with_the_way_out(served: Served, tmp_path: Path):
    other = known_hosts(tmp_path / "hosts", served.port, asyncssh.generate_private_key("ssh-ed25519"))
    folder = served.folder(tmp_path / "in", replace(served.access, known_hosts=other))
    with pytest.raises(
        ServerNotTrusted, match=rf"host key is not the one known in {other}.*ssh-keyscan -p {served.port}"
    ):
        folder.names()
    with pytest.raises(ServerNotTrusted):
        put(folder, "name", b"x")
    assert not (tmp_path / "in").exists()


def test_a_key_that_changes_while_the_folder_is_open_is_refused(tmp_path: Path):
    with asyncssh_server(tmp_path) as first:
        folder = first.folder(tmp_path / "in")
        put(folder, "name", b"x")
    with asyncssh_server(tmp_path / ".", port=first.port) as second:
        known_hosts(first.access.known_hosts or tmp_path, 1, asyncssh.generate_private_key("ssh-ed25519"))
        assert second.port == first.port
        with pytest.raises(ServerNotTrusted):
            folder.names()


@pytest.mark.parametrize("written", ["", None], ids=["unknown", "no file"])
def test_an_unknown_host_key_is_refused_with_the_way_out(served: Served, tmp_path: Path, written: str | None):
    hosts = tmp_path / "hosts"
    if written is not None:
        hosts.write_text(written)
    folder = served.folder(tmp_path / "in", replace(served.access, known_hosts=hosts))
    with pytest.raises(ServerNotTrusted, match=rf"{hosts}.*ssh-keyscan"):
        folder.names()


@pytest.mark.usefixtures("impatient")
def test_a_known_host_key_of_another_type_is_named_with_the_way_out(served: Served, tmp_path: Path):
    other = known_hosts(tmp_path / "hosts", served.port, asyncssh.generate_private_key("ssh-rsa", key_size=2048))
    folder = served.folder(tmp_path / "in", replace(served.access, known_hosts=other))
    with pytest.raises(FolderError, match=rf"known in {other} \(ssh-rsa\).*ssh-keyscan -p {served.port}"):
        folder.names()


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("127.0.0.1 Z\xe4hler ssh-rsa AAAA".encode("latin-1"), "not in UTF-8"),
        (b"canary\n", "a line is not in the file's format"),
        (b"|9|canary|canary ssh-ed25519 AAAA\n", None),
    ],
)
def test_known_hosts_that_cannot_be_understood_are_named(
    served: Served, tmp_path: Path, written: bytes, reason: str | None
):
    (tmp_path / "hosts").write_bytes(written)
    folder = served.folder(tmp_path / "in", replace(served.access, known_hosts=tmp_path / "hosts"))
    with pytest.raises(ServerNotTrusted, match=rf"{tmp_path / 'hosts'}.*{reason or ''}.*ssh-keyscan") as caught:
        folder.names()
    assert "canary" not in str(caught.value)


def test_known_hosts_that_may_not_be_read_are_named(places: Places, tmp_path: Path):
    with public_directory() as path:
        (path / "hosts").write_bytes((places.asyncssh.access.known_hosts or path).read_bytes())
        folder = places.asyncssh.folder(tmp_path, replace(places.asyncssh.access, known_hosts=path / "hosts"))
        (path / "hosts").chmod(0)
        with (
            read_only(path),
            pytest.raises(ServerNotTrusted, match=rf"{path / 'hosts'} .*Permission denied.*Let the user"),
        ):
            folder.names()


def test_a_known_hosts_that_is_a_folder_is_named(served: Served, tmp_path: Path):
    with pytest.raises(ServerNotTrusted, match="no file of known host keys"):
        served.folder(tmp_path, replace(served.access, known_hosts=tmp_path)).names()


def test_the_users_own_known_hosts_are_the_default(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert served.access.known_hosts is not None
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_bytes(served.access.known_hosts.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert served.folder(tmp_path / "in", replace(served.access, known_hosts=None)).names() == []


def test_a_wrong_password_is_named_by_its_setting_alone(places: Places, tmp_path: Path):
    access = replace(places.asyncssh.access, password="canary-wrong")
    with pytest.raises(FolderDenied, match="CCS_DACS_SFTP_PASSWORD") as caught:
        places.asyncssh.folder(tmp_path, access).names()
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(access)


@pytest.mark.parametrize("passphrase", [None, "canary-wrong"])
def test_a_key_without_its_passphrase_is_named_by_the_setting(places: Places, tmp_path: Path, passphrase: str | None):
    access = replace(places.openssh.access, key_passphrase=passphrase)
    with pytest.raises(FolderDenied, match="CCS_DACS_SFTP_KEY_PASSPHRASE") as caught:
        places.openssh.folder(tmp_path, access).names()
    assert "canary" not in str(caught.value)


def test_a_key_that_the_server_does_not_know_is_refused(places: Places, tmp_path: Path):
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(tmp_path / "key")
    access = SftpAccess(key_file=tmp_path / "key", known_hosts=places.openssh.access.known_hosts)
    with pytest.raises(FolderDenied, match="refused the user"):
        places.openssh.folder(tmp_path, access).names()


def test_neither_password_nor_key_is_an_error(served: Served, tmp_path: Path):
    access = SftpAccess(known_hosts=served.access.known_hosts)
    with pytest.raises(FolderDenied, match="CCS_DACS_SFTP_PASSWORD or CCS_DACS_SFTP_KEY_FILE"):
        served.folder(tmp_path, access).names()


def test_a_lost_connection_is_made_again(served: Served, tmp_path: Path):
    folder = served.folder(tmp_path / "in")
    put(folder, "name", b"x")
    served.drop_connections()
    assert content(folder, "name") == b"x"
    served.drop_connections()
    put(folder, "name", b"y", replace=True)
    assert content(folder, "name") == b"y"


def test_a_file_survives_connections_lost_in_mid_upload(served: Served, tmp_path: Path):
    folder = served.folder(tmp_path / "in")
    data = bytes(range(256)) * (100 * 1024)
    with folder.create() as file:
        for start in range(0, len(data), MIB):
            file.write(data[start : start + MIB])
            if start in {5 * MIB, 14 * MIB}:
                served.drop_connections()
        file.commit("name", replace=False)
    assert content(folder, "name") == data
    assert folder.sweep(timedelta(0)) == 0


def test_a_connection_lost_within_a_block_is_no_loss(places: Places, tmp_path: Path, faulty: type[FaultySftp]):
    extract, upload = LocalFolder(tmp_path / "extract"), places.asyncssh.folder(tmp_path / "upload")
    data = bytes(range(256)) * (50 * 1024)
    recorded = put(extract, "name", data)
    faulty.drop_at = 6 * MIB
    assert publish(extract, "name", upload, sha256=recorded) is Published.NEW
    assert faulty.drop_at is None
    assert (tmp_path / "upload" / "name").read_bytes() == data


def test_a_file_is_read_on_after_a_lost_connection(served: Served, tmp_path: Path):
    folder = served.folder(tmp_path / "in")
    data = bytes(range(256)) * (100 * 1024)
    put(folder, "name", data)
    with folder.open("name") as stream:
        first = stream.read(6 * MIB)
        served.drop_connections()
        assert first + stream.read() == data


def test_a_file_that_changes_under_a_lost_connection_is_not_read_on(served: Served, tmp_path: Path):
    folder = served.folder(tmp_path / "in")
    put(folder, "name", bytes(20 * MIB))
    with folder.open("name") as stream:
        stream.read(MIB)
        put(folder, "name", b"other", replace=True)
        served.drop_connections()
        with pytest.raises(FolderError, match="changed while it was being read"):
            stream.read()


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_away_is_named(tmp_path: Path):
    with asyncssh_server(tmp_path) as served:
        folder = served.folder(tmp_path / "in")
        put(folder, "name", b"x")
    with pytest.raises(FolderError, match=rf"{folder.url}: no connection .*after 3 attempts"):
        folder.names()


@pytest.mark.usefixtures("impatient")
def test_a_writer_whose_server_goes_away_leaves_nothing_visible(tmp_path: Path):
    with asyncssh_server(tmp_path) as served:
        folder = served.folder(tmp_path / "in")
        file = folder.create()
        file.write(bytes(MIB))
    with pytest.raises(FolderError, match="no connection"), file:
        file.commit("name", replace=False)
    assert not (tmp_path / "in" / "name").exists()


def test_what_the_server_stored_is_read_back(places: Places, tmp_path: Path, faulty: type[FaultySftp]):
    folder = places.asyncssh.folder(tmp_path / "in")
    faulty.spoil = True
    with pytest.raises(FolderError, match="not what was sent"):
        put(folder, "name", bytes(5 * MIB))
    assert list((tmp_path / "in").iterdir()) == []


class TestReadingBackMeanwhile:
    """A file of several blocks is read back while it is written, and again as a whole where that cannot be trusted."""

    SIZE = 14 * MIB

    @pytest.fixture
    def data(self) -> bytes:
        return random.Random(1).randbytes(self.SIZE)

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
        """Reads and writes of the server, with how many bytes they were about."""
        calls: list[tuple[str, int]] = []
        read, write = FaultySftp.read, FaultySftp.write

        def reads(self: FaultySftp, file_obj: Any, offset: int, size: int) -> bytes:
            data = cast("bytes", read(self, file_obj, offset, size))
            calls.append(("read", len(data)))
            return data

        def writes(self: FaultySftp, file_obj: Any, offset: int, data: bytes) -> int:
            calls.append(("write", len(data)))
            return write(self, file_obj, offset, data)

        monkeypatch.setattr(FaultySftp, "read", reads)
        monkeypatch.setattr(FaultySftp, "write", writes)
        return calls

    def test_each_byte_is_read_once_and_the_first_before_the_last_is_written(
        self, places: Places, tmp_path: Path, data: bytes, calls: list[tuple[str, int]]
    ):
        put(places.asyncssh.folder(tmp_path / "in"), "name", data)
        kinds = [kind for kind, _ in calls]
        assert sum(size for kind, size in calls if kind == "read") == self.SIZE
        assert kinds.index("read") < len(kinds) - 1 - kinds[::-1].index("write")

    def test_a_server_that_shows_no_file_before_it_is_closed(
        self,
        places: Places,
        tmp_path: Path,
        data: bytes,
        calls: list[tuple[str, int]],
        monkeypatch: pytest.MonkeyPatch,
    ):
        original_open, original_close = FaultySftp.open, FaultySftp.close
        writing: list[object] = []

        def opened(self: FaultySftp, path: bytes, flags: int, attrs: Any) -> Any:
            if writing and not flags & asyncssh.FXF_WRITE:
                raise asyncssh.SFTPNoSuchFile("not yet")
            file = original_open(self, path, flags, attrs)
            if flags & asyncssh.FXF_WRITE:
                writing.append(file)
            return file

        def closed(self: FaultySftp, file_obj: Any) -> Any:
            if file_obj in writing:
                writing.remove(file_obj)
            return original_close(self, file_obj)

        monkeypatch.setattr(FaultySftp, "open", opened)
        monkeypatch.setattr(FaultySftp, "close", closed)
        put(places.asyncssh.folder(tmp_path / "in"), "name", data)
        assert (tmp_path / "in" / "name").read_bytes() == data
        assert sum(size for kind, size in calls if kind == "read") == self.SIZE

    @pytest.mark.parametrize(("size", "at"), [(SIZE, "write"), (2 * MIB, "fsync")])
    def test_a_server_that_has_lost_what_it_had_given_back(
        self, places: Places, tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch, size: int, at: str
    ):
        """It was started anew, and what was not synced is gone, with size and time as they were."""
        original = getattr(FaultySftp, at)
        lost = threading.Event()

        def start_anew(self: FaultySftp, file_obj: Any, offset: int = 12 * MIB, *data: bytes) -> Any:
            if offset >= 12 * MIB and not lost.is_set():
                lost.set()
                before = os.fstat(file_obj.fileno())
                os.pwrite(file_obj.fileno(), bytes(MIB), 0)
                os.utime(file_obj.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
                self._connection.abort()
                raise asyncssh.SFTPConnectionLost("started anew")
            return original(self, file_obj, *((offset, *data) if data else ()))

        monkeypatch.setattr(FaultySftp, at, start_anew)
        with pytest.raises(FolderError, match="not what was sent"):
            put(places.asyncssh.folder(tmp_path / "in"), "name", data[:size])
        assert lost.is_set()
        assert list((tmp_path / "in").iterdir()) == []


class TestAskingTheServer:
    """A server with a command for checksums is asked for a file's; what it does not confirm is read back."""

    DATA = random.Random(2).randbytes(5 * MIB)

    @pytest.fixture
    def read_back(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The paths that were opened for reading."""
        paths: list[str] = []
        original = _SftpReader.__init__

        def remember(self: _SftpReader, folder: SftpFolder, path: str) -> None:
            paths.append(path)
            original(self, folder, path)

        monkeypatch.setattr(_SftpReader, "__init__", remember)
        return paths

    @staticmethod
    def store(served: Served, path: Path, command: str) -> None:
        put(served.folder(path, replace(served.access, sha256_command=command)), "name", TestAskingTheServer.DATA)
        assert (path / "name").read_bytes() == TestAskingTheServer.DATA

    def test_nothing_is_read_back_then(self, places: Places, tmp_path: Path, read_back: list[str]):
        self.store(places.openssh, tmp_path / "it's $HOME", "sha256sum")
        assert read_back == []

    @pytest.mark.parametrize(
        "command",
        [
            pytest.param("false", id="fails"),
            pytest.param("no-such-command", id="not there"),
            pytest.param("printf '%064d' 0 ; :", id="another sum"),
            pytest.param("printf 1 ; :", id="too short"),
            pytest.param(r"printf '%64s' | tr ' ' '\377' ; :", id="no text"),
        ],
    )
    def test_what_a_command_does_not_confirm_is_read_back(
        self, places: Places, tmp_path: Path, read_back: list[str], command: str
    ):
        self.store(places.openssh, tmp_path / "in", command)
        assert len(read_back) == 1

    def test_a_command_that_does_not_end_is_not_waited_for(
        self, places: Places, tmp_path: Path, read_back: list[str], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(module, "_COMMAND_SECONDS", 0.5)
        waiting = tmp_path / "waiting"
        os.mkfifo(waiting)
        self.store(places.openssh, tmp_path / "in", f"cat {waiting}")
        assert len(read_back) == 1
        with waiting.open("w"):  # lets the command end
            pass

    def test_a_server_that_runs_no_commands(self, places: Places, tmp_path: Path, read_back: list[str]):
        self.store(places.asyncssh, tmp_path / "in", "sha256sum")
        assert len(read_back) == 1

    def test_a_server_that_runs_sftp_whatever_the_command(self, tmp_path: Path, read_back: list[str]):
        (tmp_path / "sshd").mkdir()
        with openssh_server(tmp_path / "sshd", more="ForceCommand internal-sftp\n") as served:
            self.store(served, tmp_path / "in", "sha256sum")
        assert len(read_back) == 1

    def test_a_file_that_was_spoiled_is_found_out_all_the_same(
        self, places: Places, tmp_path: Path, faulty: type[FaultySftp]
    ):
        faulty.spoil = True
        access = replace(places.asyncssh.access, sha256_command="sha256sum")
        with pytest.raises(FolderError, match="not what was sent"):
            put(places.asyncssh.folder(tmp_path / "in", access), "name", self.DATA)
        assert list((tmp_path / "in").iterdir()) == []


def test_a_full_server_is_named(places: Places, tmp_path: Path, faulty: type[FaultySftp]):
    folder = places.asyncssh.folder(tmp_path / "in")
    faulty.full = True
    with pytest.raises(FolderFull, match="no room is left"):
        put(folder, "name", bytes(5 * MIB))
    assert list((tmp_path / "in").iterdir()) == []


def test_a_folder_that_is_a_file_is_named(served: Served, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match=str(tmp_path / "file")):
        put(served.folder(tmp_path / "file"), "name", b"x")


def test_permission_denied_is_named_with_the_way_out(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    folder = places.asyncssh.folder(tmp_path / "in")
    for method in ("open", "rename"):
        with monkeypatch.context() as patched:
            patched.setattr(FaultySftp, method, denied)
            with pytest.raises(FolderDenied, match=rf"{folder.url}.*Let the user of the folder's URL"):
                put(folder, "name", b"x")
    assert list((tmp_path / "in").iterdir()) == []


def test_permission_denied_by_openssh_to_a_user_who_is_not_root():
    user = "nobody" if os.geteuid() == 0 else getpass.getuser()
    if user not in {one.pw_name for one in pwd.getpwall()}:
        pytest.skip("this system has no user nobody, and to root nothing is denied")
    with public_directory() as place, openssh_server(place, user=user) as served:
        path = place / "in"
        path.mkdir()
        (path / "unreadable").write_bytes(b"x")
        (path / "unreadable").chmod(0o000)
        path.chmod(0o555)
        folder = served.folder(path)
        assert folder.names() == ["unreadable"]
        for denied in (
            lambda: put(folder, "name", b"x"),
            lambda: folder.sha256("unreadable"),
            lambda: folder.remove("unreadable"),
        ):
            with pytest.raises(FolderDenied, match=rf"{folder.url}.*Let the user of the folder's URL"):
                denied()
        folder.close()
        assert [one.name for one in path.iterdir()] == ["unreadable"]
        path.chmod(0o755)


def test_the_answer_to_a_rename_may_be_lost(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The consumer may have taken the file before the connection is there again."""
    original = FaultySftp.rename
    done = threading.Event()

    def rename(self: FaultySftp, old: bytes, new: bytes) -> None:
        original(self, old, new)
        if not done.is_set():
            done.set()
            Path(new.decode()).unlink()
            self._connection.abort()

    monkeypatch.setattr(FaultySftp, "rename", rename)
    folder = places.asyncssh.folder(tmp_path / "in")
    put(folder, "name", b"x")
    assert done.is_set()
    assert folder.names() == []
    assert folder.sweep(timedelta(0)) == 0


@pytest.mark.parametrize("replace", [False, True])
def test_a_renamed_file_keeps_its_time(served: Served, tmp_path: Path, *, replace: bool):
    folder = served.folder(tmp_path)
    put(folder, "name", b"x")
    os.utime(tmp_path / "name", (1, 1_000_000_000))
    before = folder.modified("name")
    folder.rename("name", "other", replace=replace)
    assert folder.modified("other") == before


@pytest.mark.parametrize("replace", [False, True])
def test_the_answer_to_a_renaming_may_be_lost(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replace: bool
):
    done = threading.Event()

    def losing(original: Any) -> Any:
        def rename(self: FaultySftp, old: bytes, new: bytes) -> None:
            original(self, old, new)
            if not done.is_set():
                done.set()
                self._connection.abort()

        return rename

    for method in ("rename", "posix_rename"):
        monkeypatch.setattr(FaultySftp, method, losing(getattr(FaultySftp, method)))
    folder = places.asyncssh.folder(tmp_path / "in")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "old").write_bytes(b"x")
    folder.rename("old", "new", replace=replace)
    assert done.is_set()
    assert folder.names() == ["new"]


def test_a_renaming_that_was_cut_off_between_its_two_names_is_ended(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """OpenSSH's server makes a link, then removes the old name."""
    original = FaultySftp.rename

    def rename(self: FaultySftp, old: bytes, new: bytes) -> None:
        monkeypatch.setattr(FaultySftp, "rename", original)
        os.link(old, new)
        self._connection.abort()

    monkeypatch.setattr(FaultySftp, "rename", rename)
    folder = places.asyncssh.folder(tmp_path)
    (tmp_path / "old").write_bytes(b"x")
    folder.rename("old", "new", replace=False)
    assert (tmp_path / "new").read_bytes() == b"x"
    assert not (tmp_path / "old").exists()


def test_one_file_under_two_names_is_renamed_from_one_to_the_other(served: Served, tmp_path: Path):
    (tmp_path / "old").write_bytes(b"x")
    os.link(tmp_path / "old", tmp_path / "new")
    folder = served.folder(tmp_path)
    with pytest.raises(FileExists):
        folder.rename("old", "new", replace=False)
    folder.rename("old", "new", replace=True)
    assert [one.name for one in tmp_path.iterdir()] == ["new"]


def test_a_server_without_posix_rename_keeps_what_is_there_when_there_is_nothing_to_rename(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def unsupported(*_: object) -> None:
        raise asyncssh.SFTPOpUnsupported("")

    monkeypatch.setattr(FaultySftp, "posix_rename", unsupported)
    folder = places.asyncssh.folder(tmp_path)
    (tmp_path / "new").write_bytes(b"x")
    with pytest.raises(FileMissing, match="old"):
        folder.rename("old", "new", replace=True)
    assert content(folder, "new") == b"x"
    put(folder, "old", b"y")
    folder.rename("old", "new", replace=True)
    assert (folder.names(), content(folder, "new")) == (["new"], b"y")


def test_a_folder_is_not_renamed(served: Served, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FolderError, match="it is a folder"):
        served.folder(tmp_path).rename("folder", "other", replace=True)


def test_folders_and_links_are_told_from_files(served: Served, tmp_path: Path):
    folder = served.folder(tmp_path / "in")
    put(folder, "name", b"x")
    (tmp_path / "in" / "folder").mkdir()
    (tmp_path / "in" / "link").symlink_to("name")
    (tmp_path / "in" / "link to folder").symlink_to("folder")
    (tmp_path / "in" / ".hidden").touch()
    assert folder.names() == ["link", "name"]
    assert folder.sweep(timedelta(0)) == 0


def test_what_cannot_be_looked_at_does_not_hide_the_others(served: Served, tmp_path: Path):
    (tmp_path / "name").write_bytes(b"x")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    folder = served.folder(tmp_path)
    assert folder.names() == ["name"]
    assert [entry.name for entry in folder.entries()] == ["name"]


def test_a_link_has_size_and_time_of_what_it_leads_to(served: Served, tmp_path: Path):
    (tmp_path / "name").write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to("name")
    folder = served.folder(tmp_path)
    assert [(one.bytes, one.modified) for one in folder.entries("link")] == [(1000, folder.modified("link"))]


def test_a_server_that_lists_names_alone_is_asked_for_the_rest(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async def scandir(self: FaultySftp, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        for found in Path(os.fsdecode(path)).iterdir():
            yield asyncssh.SFTPName(os.fsencode(found.name), attrs=asyncssh.SFTPAttrs())

    (tmp_path / "name").write_bytes(b"xyz")
    (tmp_path / "folder").mkdir()
    folder = places.asyncssh.folder(tmp_path)
    told = folder.entries()
    monkeypatch.setattr(FaultySftp, "scandir", scandir)
    assert folder.entries() == told
    assert [(one.name, one.bytes) for one in told] == [("name", 3)]


def test_names_that_are_not_utf_8_are_those_of_a_local_folder(served: Served, tmp_path: Path):
    (tmp_path / os.fsdecode(b"Z\xe4hler.csv")).write_bytes(b"x")
    access = replace(served.access, sha256_command="sha256sum")
    folder, local = served.folder(tmp_path, access), LocalFolder(tmp_path)
    (name,) = folder.names()
    assert [name] == local.names() == [os.fsdecode(b"Z\xe4hler.csv")]
    assert folder.entries()[0].bytes == folder.size(name) == 1
    assert (content(folder, name), folder.sha256(name)) == (b"x", local.sha256(name))
    assert folder.modified(name) is not None
    folder.rename(name, name + "2", replace=False)
    put(folder, name, b"y" * 5 * MIB)
    assert folder.sha256(name) == local.sha256(name)
    assert folder.is_told(name, folder.sha256(name) or "") or served.access.password
    assert len(local.names()) == 2
    folder.remove(name)
    folder.remove(name + "2")
    assert local.names() == []


def test_a_time_that_no_calendar_holds_is_the_nearest_that_one_does(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """SFTP version 3, which these servers speak, has 32 bits for it; later ones have 64."""
    original = asyncssh.SFTPClient.stat

    async def stat(self: asyncssh.SFTPClient, *args: Any, **options: Any) -> asyncssh.SFTPAttrs:
        attrs = await original(self, *args, **options)
        attrs.mtime = 2**40
        return attrs

    (tmp_path / "name").write_bytes(b"x")
    monkeypatch.setattr(asyncssh.SFTPClient, "stat", stat)
    modified = places.asyncssh.folder(tmp_path).modified("name")
    assert modified is not None
    assert modified.year == 9999


def test_a_folder_is_known_again_whatever_its_path(served: Served, tmp_path: Path):
    folder = served.folder(tmp_path / "in")
    put(folder, "name", b"x")
    (tmp_path / "link").symlink_to("in")
    for path in ("in", "link", "in/../in", "in/"):
        assert folder.is_same(served.folder(tmp_path / path))
    assert not folder.is_same(served.folder(tmp_path))


def test_a_path_may_begin_where_the_user_arrives(places: Places):
    """Both servers let the user arrive somewhere; nothing is written there."""
    folder = SftpFolder(places.openssh.folder(Path("/")).server, "no such folder")
    assert folder.names() == []
    assert folder.url.endswith("/~/no such folder")


def test_a_file_has_the_mode_that_the_server_gives(served: Served, tmp_path: Path):
    put(served.folder(tmp_path / "in"), "name", b"x")
    assert stat.S_IMODE((tmp_path / "in" / "name").stat().st_mode) & 0o600 == 0o600


def test_a_closed_folder_leaves_no_thread(served: Served, tmp_path: Path):
    before = threading.active_count()
    folder = served.folder(tmp_path)
    folder.names()
    assert threading.active_count() > before
    folder.close()
    assert {thread.name for thread in threading.enumerate()}.isdisjoint({"sftp 127.0.0.1"})


@pytest.mark.long
def test_memory_is_bounded_by_blocks(served: Served, tmp_path: Path):
    """The process's peak grows by far less than the file."""
    data = bytes(MIB)
    folder = served.folder(tmp_path / "in")
    put(folder, "warm", data * 10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with folder.create() as file:
        for _ in range(300):
            file.write(data)
        file.commit("name", replace=False)
    assert file.sha256 == folder.sha256("name")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
    assert sha256(b"") != file.sha256
