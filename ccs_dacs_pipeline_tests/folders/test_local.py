"""What is particular to local folders: permissions, a full disk, killed writers, other programs' files."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from ccs_dacs_pipeline.folders import FolderDenied, FolderError, LocalFolder
from ccs_dacs_pipeline_tests.folders.files import public_directory, put, read_only, run_on_small_disk


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
    umask = os.umask(0o027)
    try:
        put(LocalFolder(tmp_path), "name", b"x")
    finally:
        os.umask(umask)
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


def test_a_path_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="file"):
        LocalFolder(tmp_path / "file").names()


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
