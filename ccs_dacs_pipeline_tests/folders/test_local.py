"""What is particular to local folders: permissions, a full disk, killed writers, other programs' files."""

import errno
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from ccs_dacs_pipeline.folders import FolderDenied, FolderError, LocalFolder, publish
from ccs_dacs_pipeline_tests.folders.files import public_directory, put, read_only, run_on_small_disk, umask


def test_an_absent_folder_reads_as_empty_and_is_made_by_the_first_file(tmp_path: Path):
    folder = LocalFolder(tmp_path / "a" / "b")
    assert folder.names() == []
    assert not (tmp_path / "a").exists()
    put(folder, "name", b"x")
    assert folder.names() == ["name"]


def test_a_folder_is_known_again_whatever_its_path(tmp_path: Path):
    folder = LocalFolder(tmp_path / "in")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for path in ("in", "link", "in/../in"):
        assert LocalFolder(tmp_path / path).is_same(folder)
    put(folder, "name", b"x")
    for path in ("in", "link", "in/../in"):
        assert LocalFolder(tmp_path / path).is_same(folder)
    assert not LocalFolder(tmp_path / "out").is_same(folder)
    assert not LocalFolder(tmp_path).is_same(folder)


def test_folders_and_hidden_files_are_no_files_of_the_folder(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / ".hidden").touch()
    assert LocalFolder(tmp_path).names() == []


def test_a_renamed_file_keeps_its_time(tmp_path: Path):
    folder = LocalFolder(tmp_path)
    put(folder, "name", b"x")
    os.utime(tmp_path / "name", (1, 1_000_000_000.25))
    before = folder.modified("name")
    folder.rename("name", "other", replace=False)
    folder.rename("other", "third", replace=True)
    assert folder.modified("third") == before


@pytest.mark.parametrize("replace", [False, True])
def test_a_rename_that_was_killed_between_its_two_names_is_ended_by_a_repeat(tmp_path: Path, *, replace: bool):
    folder = LocalFolder(tmp_path)
    put(folder, "old", b"x")
    os.link(tmp_path / "old", tmp_path / "new")
    folder.rename("old", "new", replace=replace)
    assert folder.names() == ["new"]


def test_a_folder_is_not_renamed(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FolderError, match=f"{tmp_path}/folder: Is a directory"):
        LocalFolder(tmp_path).rename("folder", "other", replace=True)


def test_a_sweep_leaves_other_programs_hidden_files(tmp_path: Path):
    (tmp_path / ".nfs0001").touch()
    assert LocalFolder(tmp_path).sweep(timedelta(0)) == 0
    assert (tmp_path / ".nfs0001").exists()


def test_the_umask_decides_who_may_read_a_file(tmp_path: Path):
    with umask(0o027):
        put(LocalFolder(tmp_path), "name", b"x")
    assert (tmp_path / "name").stat().st_mode & 0o777 == 0o640


def test_a_relative_path_keeps_its_place_when_the_working_directory_changes(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = LocalFolder(Path("data"))
    monkeypatch.chdir("/")
    put(folder, "name", b"x")
    assert (tmp_path / "data" / "name").exists()
    assert folder.url == (tmp_path / "data").as_uri()


def test_a_killed_writer_leaves_nothing_visible_and_a_sweep_cleans_up(tmp_path: Path):
    script = f"""
import os, signal
from pathlib import Path
from ccs_dacs_pipeline.folders import LocalFolder
with LocalFolder(Path({str(tmp_path)!r})).create() as file:
    file.write(bytes(100_000))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode < 0
    folder = LocalFolder(tmp_path)
    assert folder.names() == []
    assert folder.sweep(timedelta(0)) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_denied_folder_is_named_with_the_way_out():
    with public_directory() as path:
        folder = LocalFolder(path)
        with read_only(path), pytest.raises(FolderDenied, match=f"{path}.*Let the user of this process"):
            put(folder, "name", b"x")
        assert folder.names() == []


@pytest.mark.parametrize("path", ["file", "file/below", "file/below/more"])
def test_a_path_that_is_a_file_is_refused(tmp_path: Path, path: str):
    (tmp_path / "file").touch()
    folder = LocalFolder(tmp_path / path)
    for asked in (folder.names, folder.create, lambda: put(folder, "name", b"x")):
        with pytest.raises(FolderError, match=f"{tmp_path / path}: .*is a file, not a folder"):
            asked()


def test_what_cannot_be_looked_at_does_not_hide_the_others():
    with public_directory() as path:
        folder = LocalFolder(path / "in")
        put(folder, "name", b"x")
        (path / "in" / "loop").symlink_to("loop")
        (path / "in" / ".ccs-dacs-loop").symlink_to(".ccs-dacs-loop")
        (path / "in" / "gone").symlink_to("nowhere")
        (path / "closed").mkdir()
        (path / "closed" / "file").touch()
        (path / "in" / "closed").symlink_to(path / "closed" / "file")
        (path / "closed").chmod(0)
        with read_only(path / "in"):
            assert folder.names() == ["name"]
            assert [entry.name for entry in folder.entries()] == ["name"]
        assert folder.sweep(timedelta(0)) == 1


@pytest.mark.parametrize(("seconds", "year"), [(2**40, 9999), (-(2**40), 1)])
def test_a_time_that_no_calendar_holds_is_the_nearest_that_one_does(made, seconds: int, year: int):
    folder = made("other-file-system", "in")
    put(folder, "name", b"x")
    os.utime(folder.path / "name", (seconds, seconds))
    modified = folder.modified("name")
    assert modified is not None
    assert (modified.year, modified.utcoffset()) == (year, timedelta(0))
    assert [entry.modified for entry in folder.entries()] == [modified]


@pytest.mark.parametrize("mode", [0o644, 0o000])
def test_an_unreadable_source_is_named_itself(mode: int):
    with public_directory() as path:
        extract, upload = LocalFolder(path / "extract"), LocalFolder(path / "upload")
        recorded = put(extract, "name", b"x")
        upload.path.mkdir()
        upload.path.chmod(0o777)
        (extract.path / "name").chmod(mode)
        os.chown(extract.path / "name", 65534 if os.geteuid() == 0 else -1, -1)
        source = re.escape(str(extract.path / "name"))
        with read_only(extract.path):
            if mode:
                publish(extract, "name", upload, sha256=recorded)
                return
            for read in (
                lambda: publish(extract, "name", upload, sha256=recorded),
                lambda: extract.sha256("name"),
                lambda: extract.open("name"),
            ):
                with pytest.raises(FolderDenied, match=f"^{source}: Permission denied. Make the file readable"):
                    read()
        assert list(upload.path.iterdir()) == []


def test_where_no_hard_links_are_made_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As by a mounted share; this system has no such file system."""
    folder = LocalFolder(tmp_path)

    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(
        FolderError, match=f"{tmp_path}/name: no hard link to .* can be made .*has hard links"
    ) as caught:
        put(folder, "name", b"x")
    assert not isinstance(caught.value, FolderDenied)
    assert list(tmp_path.iterdir()) == []
    put(folder, "name", b"x", replace=True)
    with pytest.raises(FolderError, match=f"{tmp_path}/other: no hard link to name can be made"):
        folder.rename("name", "other", replace=False)
    folder.rename("name", "other", replace=True)
    assert folder.names() == ["other"]


def test_a_file_of_another_user_may_be_renamed_by_replacing_alone():
    protected = Path("/proc/sys/fs/protected_hardlinks")
    if os.geteuid() != 0 or not protected.exists() or protected.read_text().strip() == "0":
        pytest.skip("this system protects no hard links, or this user cannot make a file of another one")
    with public_directory() as path:
        folder = LocalFolder(path)
        put(folder, "name", b"x")
        path.chmod(0o777)
        os.seteuid(65534)
        try:
            with pytest.raises(FolderError, match="let the file belong to the user of this process"):
                folder.rename("name", "other", replace=False)
            folder.rename("name", "other", replace=True)
        finally:
            os.seteuid(0)
        assert folder.names() == ["other"]


def test_a_full_disk_leaves_nothing_behind_and_is_named(tmp_path: Path):
    run_on_small_disk(
        tmp_path / "disk",
        """
        from ccs_dacs_pipeline.folders import FolderFull, LocalFolder
        folder = LocalFolder(disk)
        try:
            with folder.create() as file:
                for _ in range(100):
                    file.write(bytes(10_001))
                file.commit("name", replace=False)
        except FolderFull as error:
            assert str(disk) in str(error) and "make room" in str(error), error
        else:
            raise AssertionError("no error")
        assert list(disk.iterdir()) == []
        with folder.create() as file:
            file.write(bytes(200_000))
            file.commit("name", replace=False)
        """,
    )
