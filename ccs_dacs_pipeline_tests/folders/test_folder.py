"""What every folder does, whatever its kind (sync-lifecycle.md, Files)."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from ccs_dacs_pipeline.folders import FileExists, FileMissing, Folder, FolderError
from ccs_dacs_pipeline_tests.folders.files import content, put, sha256

NOW = timedelta(0)
LARGE = 40 * 1024 * 1024


def test_a_new_folder_is_empty(folder: Folder):
    assert folder.names() == []
    assert folder.sweep(NOW) == 0


def test_a_stored_file_has_its_name_size_hash_and_content(folder: Folder):
    data = b"line 1\nline 2\n" * 100_000
    with folder.create() as file:
        file.write(data[:70_001])
        file.write(memoryview(data)[70_001:])
        file.commit("C1-DCTIL_0033_00.csv", replace=False)
    assert (file.bytes, file.sha256) == (len(data), sha256(data))
    assert folder.names() == ["C1-DCTIL_0033_00.csv"]
    assert folder.size("C1-DCTIL_0033_00.csv") == len(data)
    assert folder.sha256("C1-DCTIL_0033_00.csv") == sha256(data)
    assert content(folder, "C1-DCTIL_0033_00.csv") == data


def test_a_file_has_a_time_of_its_last_change(folder: Folder):
    before = datetime.now(UTC)
    put(folder, "file", b"x")
    modified = folder.modified("file")
    assert modified is not None
    # A store may keep whole seconds, and have a clock of its own.
    assert abs(modified - before) < timedelta(seconds=60)
    assert folder.modified("file") == modified
    assert folder.modified("absent") is None


def test_an_empty_file_can_be_stored(folder: Folder):
    put(folder, "empty", b"")
    assert folder.size("empty") == 0


def test_names_ascend_and_match_a_pattern_with_its_case(folder: Folder):
    for name in ("C1-DSPIL_0001_00.csv", "C1-DCTIL_0002_00.csv", "C1-DCTIL_0001_00.csv", "c1-dctil.csv"):
        put(folder, name, b"x")
    assert folder.names("C1-DCT*") == ["C1-DCTIL_0001_00.csv", "C1-DCTIL_0002_00.csv"]
    assert len(folder.names()) == 4


def test_entries_are_what_is_told_of_each_file_alone(folder: Folder):
    assert folder.entries() == []
    for number, name in enumerate(("b.csv", "C.csv", "a.csv", "a.txt")):
        put(folder, name, b"x" * number)
    found = folder.entries("*.csv")
    assert [one.name for one in found] == ["C.csv", "a.csv", "b.csv"] == folder.names("*.csv")
    for one in found:
        assert (one.bytes, one.modified) == (folder.size(one.name), folder.modified(one.name))


@pytest.mark.parametrize("name", ["a%20b +&=~#.csv", "Zähler \u4e2d\U0001f600.csv", "?[x]*{}\\^`|<>'\".csv", "x" * 200])
def test_odd_names_are_names(folder: Folder, name: str):
    recorded = put(folder, name, b"x")
    assert folder.names() == [name]
    assert (folder.size(name), folder.sha256(name)) == (1, recorded)
    folder.rename(name, "plain", replace=False)
    folder.rename("plain", name, replace=False)
    assert content(folder, name) == b"x"
    folder.remove(name)
    assert folder.names() == []


def test_a_file_is_invisible_before_it_is_committed(folder: Folder):
    with folder.create() as file:
        file.write(b"half")
        assert folder.names() == []
        file.write(b" and half")
        file.commit("whole", replace=False)
        assert folder.names() == ["whole"]


def test_a_file_that_is_not_committed_is_discarded(folder: Folder):
    with folder.create() as file:
        file.write(b"data")
    assert folder.names() == []
    assert folder.sweep(NOW) == 0


def test_a_large_file_that_is_not_committed_is_discarded(folder: Folder):
    with folder.create() as file:
        file.write(bytes(LARGE))
    assert folder.names() == []
    assert folder.sweep(NOW) == 0


def test_a_named_file_that_is_not_committed_is_discarded(folder: Folder):
    with folder.create("name") as file:
        file.write(bytes(LARGE))
        assert folder.names() == []
    assert folder.names() == []
    assert folder.sweep(NOW) == 0


@pytest.mark.parametrize("name", ["large", None], ids=["named", "unnamed"])
def test_a_large_file_written_in_odd_pieces_is_stored_whole(folder: Folder, name: str | None):
    data = random.randbytes(LARGE // 2 + 1)
    with folder.create(name) as file:
        for start in range(0, len(data), 3_333_333):
            file.write(memoryview(data)[start : start + 3_333_333])
        file.commit("large", replace=False)
    assert file.sha256 == sha256(data) == folder.sha256("large")
    assert content(folder, "large") == data
    with folder.open("large") as stream:
        assert stream.read(5) == data[:5]  # and the rest is left


def test_a_file_whose_writer_fails_is_discarded(folder: Folder):
    with pytest.raises(ZeroDivisionError), folder.create() as file:
        file.write(bytes(1 // 0))
    assert folder.names() == []
    assert folder.sweep(NOW) == 0


def test_an_existing_file_is_never_overwritten(folder: Folder):
    put(folder, "name", b"first")
    with pytest.raises(FileExists, match="name"):
        put(folder, "name", b"second")
    assert content(folder, "name") == b"first"
    assert folder.sweep(NOW) == 0


def test_an_existing_file_is_replaced_on_demand(folder: Folder):
    put(folder, "name", b"first")
    put(folder, "name", b"second", replace=True)
    assert content(folder, "name") == b"second"
    assert folder.names() == ["name"]


def test_a_reader_keeps_the_file_it_opened_while_it_is_replaced(folder: Folder):
    put(folder, "name", b"first")
    with folder.open("name") as stream:
        put(folder, "name", b"second", replace=True)
        assert stream.read() == b"first"


def test_an_absent_file_has_neither_size_nor_hash_and_cannot_be_read(folder: Folder):
    assert folder.size("absent") is None
    assert folder.sha256("absent") is None
    with pytest.raises(FileMissing, match="absent"):
        folder.open("absent")


def test_a_removed_file_is_gone_and_removing_it_again_is_fine(folder: Folder):
    put(folder, "name", b"x")
    folder.remove("name")
    folder.remove("name")
    assert folder.names() == []


@pytest.mark.parametrize("replace", [False, True])
def test_a_renamed_file_is_there_under_its_new_name_alone(folder: Folder, *, replace: bool):
    put(folder, "old", b"first")
    folder.rename("old", "new", replace=replace)
    assert folder.names() == ["new"]
    assert content(folder, "new") == b"first"
    with pytest.raises(FileMissing, match="old"):
        folder.rename("old", "new", replace=replace)
    assert content(folder, "new") == b"first"


def test_a_rename_overwrites_on_demand_only(folder: Folder):
    put(folder, "old", b"first")
    put(folder, "new", b"second")
    with pytest.raises(FileExists, match="new"):
        folder.rename("old", "new", replace=False)
    assert (content(folder, "old"), content(folder, "new")) == (b"first", b"second")
    folder.rename("old", "new", replace=True)
    assert folder.names() == ["new"]
    assert content(folder, "new") == b"first"


def test_a_file_may_be_renamed_over_another_of_the_same_content(folder: Folder):
    put(folder, "old", b"same")
    put(folder, "new", b"same")
    with pytest.raises(FileExists, match="new"):
        folder.rename("old", "new", replace=False)
    folder.rename("old", "new", replace=True)
    assert folder.names() == ["new"]


def test_a_file_that_is_given_its_own_name_stays(folder: Folder):
    put(folder, "name", b"x")
    folder.rename("name", "name", replace=True)
    with pytest.raises(FileExists, match="name"):
        folder.rename("name", "name", replace=False)
    assert content(folder, "name") == b"x"
    assert folder.sweep(NOW) == 0


@pytest.mark.parametrize(("name", "new_name"), [("name", ".hidden"), ("../name", "name"), ("name", "a/b")])
def test_a_file_is_renamed_within_its_folder(folder: Folder, name: str, new_name: str):
    put(folder, "name", b"x")
    with pytest.raises(FolderError, match="no file name"):
        folder.rename(name, new_name, replace=True)
    assert folder.names() == ["name"]


def test_a_sweep_takes_abandoned_temporary_files_only_once_they_are_old(folder: Folder):
    put(folder, "name", b"x")
    with folder.create() as file:
        file.write(bytes(LARGE))  # more than any kind keeps to itself
        assert folder.sweep(timedelta(hours=1)) == 0
        assert folder.sweep(NOW) == 1
        with pytest.raises(FolderError):
            file.commit("late", replace=False)
    assert folder.names() == ["name"]


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../up", "/root", "nul\0"])
def test_only_plain_visible_names_are_files_of_a_folder(folder: Folder, name: str):
    with pytest.raises(FolderError, match="no file name"):
        folder.size(name)
    with pytest.raises(FolderError, match="no file name"):
        put(folder, name, b"x")


def test_the_url_names_the_folder(folder: Folder):
    assert "://" in folder.url
    assert "canary" not in folder.url


def test_a_folder_is_itself_and_no_other(folder: Folder, made: Callable[[str, str], Folder], extract: Folder):
    assert folder.is_same(folder)
    assert not folder.is_same(extract)
    assert not folder.is_same(made("local", "other"))


def test_a_closed_folder_opens_again_when_it_is_used(folder: Folder):
    put(folder, "name", b"x")
    folder.close()
    folder.close()
    assert content(folder, "name") == b"x"


def test_many_threads_use_one_folder(folder: Folder):
    data = {f"file-{number}": random.randbytes(100_000) for number in range(12)}
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: put(folder, name, data[name]), data))
        assert list(pool.map(lambda name: content(folder, name), data)) == list(data.values())
