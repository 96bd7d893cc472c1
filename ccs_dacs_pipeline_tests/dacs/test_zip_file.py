"""Zip files with one member (record-layouts.md, File names)."""

import random
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from ccs_dacs_pipeline.dacs.zip_file import ZipError, ZippedContent, content_limit, member_of, unzipped
from ccs_dacs_pipeline.folders import LocalFolder
from ccs_dacs_pipeline_tests.folders.files import run_on_small_disk

MIB = 1024 * 1024
NAME = "C1-DCTIL_0033_00.csv.zip"


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    return LocalFolder(tmp_path)


def pack(folder: LocalFolder, chunks: list[bytes], name: str = NAME) -> str:
    with folder.create() as file, ZippedContent(file) as content:
        for chunk in chunks:
            content.write(chunk)
        content.finish(name.removesuffix(".zip"))
        file.commit(name, replace=True)
        return file.sha256


def noise(size: int) -> bytes:
    return random.Random(7).randbytes(size)


def text(size: int) -> bytes:
    return b"".join(b"%010d\tJohn Reddy\tjohn.reddy@example.com\n" % number for number in range(size // 46 + 1))[:size]


@pytest.mark.parametrize("data", [b"", b"x", text(100_000), text(10 * MIB), noise(3 * MIB)], ids=len)
def test_the_standard_library_reads_it_and_so_do_we(folder: LocalFolder, data: bytes):
    pack(folder, [data])
    with zipfile.ZipFile(folder.path / NAME) as container:
        assert container.testzip() is None
        (member,) = container.infolist()
        assert (member.filename, member.date_time) == (NAME.removesuffix(".zip"), (1980, 1, 1, 0, 0, 0))
        assert container.read(member) == data
    with folder.open(NAME) as stream:
        assert b"".join(unzipped(stream.read, NAME.removesuffix(".zip"))) == data


def test_a_name_that_is_not_ascii_is_read_as_it_was_written(folder: LocalFolder):
    pack(folder, [b"x"], "C1-DCTIL_0033_00_Zoë.csv.zip")
    with zipfile.ZipFile(folder.path / "C1-DCTIL_0033_00_Zoë.csv.zip") as container:
        assert container.namelist() == ["C1-DCTIL_0033_00_Zoë.csv"]


@pytest.mark.parametrize("size", [1, 1000, MIB - 1, MIB, 3 * MIB + 7])
@pytest.mark.parametrize("make", [noise, text])
def test_the_same_content_gives_the_same_bytes_however_it_comes(folder: LocalFolder, size: int, make):
    data = make(size)
    pieces = [data[start : start + 77_777] for start in range(0, size, 77_777)]
    assert pack(folder, [data]) == pack(folder, pieces)


@pytest.mark.parametrize("size", [0, 1, 500, 1000, 65_536, MIB, 10 * MIB])
def test_a_content_within_its_limit_keeps_the_file_within_its_own(folder: LocalFolder, size: int):
    file_bytes = next(limit for limit in range(size, size + size // 500 + 1000) if content_limit(limit) >= size)
    pack(folder, [noise(size)], f"{'n' * 251}.zip")
    assert (folder.path / f"{'n' * 251}.zip").stat().st_size <= file_bytes


def test_memory_stays_bounded(folder: LocalFolder):
    tracemalloc.start()
    try:
        with folder.create() as file, ZippedContent(file) as content:
            for _ in range(64):
                content.write(noise(MIB))
            content.finish("file.csv")
            file.commit("file.csv.zip", replace=False)
        with folder.open("file.csv.zip") as stream:
            assert sum(map(len, unzipped(stream.read, "file.csv"))) == 64 * MIB
        assert tracemalloc.get_traced_memory()[1] < 24 * MIB
    finally:
        tracemalloc.stop()


def test_every_changed_or_missing_byte_is_found(folder: LocalFolder):
    pack(folder, [text(200)])
    data = (folder.path / NAME).read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        for damaged in (bytes(changed), data[:place], data[:place] + b"x" + data[place:]):
            with pytest.raises(ZipError, match="cut off or damaged"):
                list(unzipped(_reader(damaged), NAME.removesuffix(".zip")))
    with pytest.raises(ZipError, match="C1-DCTIL_0034_00"):
        list(unzipped(_reader(data), "C1-DCTIL_0034_00.csv"))


def _reader(data: bytes):
    """A stream that gives few bytes at a time, as a network may."""
    parts = iter([data[start : start + 50] for start in range(0, len(data), 50)])
    held = b""

    def read(limit: int) -> bytes:
        nonlocal held
        held = held or next(parts, b"")
        given, held = held[:limit], held[limit:]
        return given

    return read


def test_what_is_a_zip_is_told_by_its_name():
    assert member_of("C1-DCTIL_0033_00.csv.zip") == "C1-DCTIL_0033_00.csv"
    assert member_of("C1-DCTIL_0033_00.csv") is None


def test_a_full_disk_for_temporary_files_is_named(tmp_path: Path):
    run_on_small_disk(
        tmp_path / "mount",
        """
        import os, tempfile
        from contextlib import nullcontext
        from ccs_dacs_pipeline.dacs import zip_file
        from ccs_dacs_pipeline.folders import FolderFull, LocalFolder

        tempfile.tempdir, zip_file._IN_MEMORY_BYTES = str(disk), 1
        folder = LocalFolder(disk.parent / "folder")
        try:
            with folder.create() as file, zip_file.ZippedContent(file) as content:
                content.write(os.urandom(4_000_000))
                content.finish("file.csv")
            raise AssertionError("no error")
        except FolderFull as error:
            assert str(disk) in str(error)
        assert folder.names() == []
        """,
    )
