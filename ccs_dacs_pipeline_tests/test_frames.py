"""Frames between assets: whole or not at all, chunk by chunk."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ccs_dacs_pipeline.folders import FolderDenied, FolderError
from ccs_dacs_pipeline.frames import FramesMissing, FrameStore, StoredFrames
from ccs_dacs_pipeline_tests.folders.files import public_directory, read_only, run_on_small_disk, umask

BATCH, ASSET = "delta-18", "ccs/person"
CHUNKS = [
    pl.DataFrame({"id": [f"{number:010}" for number in range(start, start + 1000)], "names": [["a", "ü"]] * 1000})
    for start in (0, 1000, 2000)
]


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    return FrameStore(str(tmp_path / "frames"))


def write(store: FrameStore, batch: str, asset: str, chunks: Iterable[pl.DataFrame]) -> StoredFrames:
    with store.writing(batch, asset) as frames:
        for number, chunk in enumerate(chunks):
            frames.put(number, chunk)
    return frames.stored


def files(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "frames").rglob("*") if path.is_file())


def test_chunks_are_read_as_they_were_written(store: FrameStore):
    write(store, BATCH, ASSET, iter(CHUNKS))
    for read, written in zip(store.read(BATCH, ASSET), CHUNKS, strict=True):
        assert_frame_equal(read, written)


@pytest.mark.parametrize(("mask", "mode"), [(0o000, 0o770), (0o022, 0o750), (0o077, 0o700)])
def test_frames_are_nothing_for_others_whatever_the_umask(tmp_path: Path, mask: int, mode: int):
    with umask(mask):
        write(FrameStore(str(tmp_path / "data" / "frames")), BATCH, ASSET, CHUNKS[:1])
    assert (tmp_path / "data" / "frames").stat().st_mode & 0o777 == mode
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o777 & ~mask


def test_what_is_stored_is_counted_and_hashed_from_the_files(store: FrameStore, tmp_path: Path):
    stored = write(store, BATCH, ASSET, CHUNKS)
    chunks = files(tmp_path)
    hashes = "".join(sha256(chunk.read_bytes()).hexdigest() for chunk in chunks)
    size = sum(chunk.stat().st_size for chunk in chunks)
    assert [chunk.name for chunk in chunks] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert stored == StoredFrames(rows=3000, bytes=size, sha256=sha256(hashes.encode()).hexdigest(), chunks=3)
    assert store.stored(BATCH, ASSET) == stored


def test_the_same_frames_give_the_same_hash_and_others_another(store: FrameStore):
    first = write(store, BATCH, ASSET, CHUNKS)
    assert write(store, BATCH, ASSET, CHUNKS) == first
    assert write(store, BATCH, ASSET, CHUNKS[::-1]).sha256 != first.sha256


def test_a_changed_file_changes_the_hash(store: FrameStore, tmp_path: Path):
    stored = write(store, BATCH, ASSET, CHUNKS)
    CHUNKS[0].reverse().write_parquet(files(tmp_path)[0])
    changed = store.stored(BATCH, ASSET)
    assert changed is not None
    assert (changed.rows, changed.chunks) == (stored.rows, stored.chunks)
    assert changed.sha256 != stored.sha256


def test_a_damaged_file_is_an_error_that_names_the_way_out(store: FrameStore, tmp_path: Path):
    write(store, BATCH, ASSET, CHUNKS)
    chunk = files(tmp_path)[1]
    chunk.write_bytes(chunk.read_bytes()[:-30])
    with pytest.raises(FolderError, match=r"damaged.*Materialize"):
        store.stored(BATCH, ASSET)


def test_batches_and_assets_are_apart(store: FrameStore):
    for batch, asset, chunk in ((BATCH, ASSET, 0), (BATCH, "ccs", 1), ("delta-19", ASSET, 2)):
        write(store, batch, asset, [CHUNKS[chunk]])
    write(store, BATCH, "ccs", [CHUNKS[1]])
    assert_frame_equal(pl.concat(store.read(BATCH, ASSET)), CHUNKS[0])
    store.delete(BATCH)
    store.delete(BATCH)
    assert store.stored(BATCH, ASSET) is store.stored(BATCH, "ccs") is None
    assert_frame_equal(pl.concat(store.read("delta-19", ASSET)), CHUNKS[2])


def test_a_later_write_replaces_all_chunks_of_an_earlier_one(store: FrameStore, tmp_path: Path):
    write(store, BATCH, ASSET, CHUNKS)
    write(store, BATCH, ASSET, CHUNKS[:1])
    assert_frame_equal(pl.concat(store.read(BATCH, ASSET)), CHUNKS[0])
    assert len(files(tmp_path)) == 1


def test_frames_without_rows_keep_their_schema(store: FrameStore):
    stored = write(store, BATCH, ASSET, [CHUNKS[0].clear()])
    assert (stored.rows, stored.chunks) == (0, 1)
    assert next(store.read(BATCH, ASSET)).schema == CHUNKS[0].schema


def test_without_any_chunk_there_is_nothing_to_read(store: FrameStore):
    assert write(store, BATCH, ASSET, []).chunks == 0
    assert store.stored(BATCH, ASSET) == StoredFrames(0, 0, sha256(b"").hexdigest(), 0)
    assert list(store.read(BATCH, ASSET)) == []


def test_what_was_never_written_is_missing(store: FrameStore):
    assert store.stored(BATCH, ASSET) is None
    with pytest.raises(FramesMissing, match=f"{ASSET} for {BATCH}"):
        store.read(BATCH, ASSET)


def test_a_write_that_fails_leaves_what_was_stored(store: FrameStore, tmp_path: Path):
    def failing() -> Iterator[pl.DataFrame]:
        yield CHUNKS[0]
        raise ZeroDivisionError

    stored = write(store, BATCH, ASSET, CHUNKS[1:])
    with pytest.raises(ZeroDivisionError):
        write(store, BATCH, ASSET, failing())
    assert store.stored(BATCH, ASSET) == stored
    assert len(files(tmp_path)) == 2


def test_chunks_go_to_their_files_one_by_one_and_are_seen_together(store: FrameStore, tmp_path: Path):
    def chunks() -> Iterator[pl.DataFrame]:
        for number, chunk in enumerate(CHUNKS, start=1):
            yield chunk
            assert len(files(tmp_path)) == number
            assert store.stored(BATCH, ASSET) is None

    write(store, BATCH, ASSET, chunks())
    assert store.stored(BATCH, ASSET) is not None


def test_chunks_put_at_once_are_read_in_the_order_of_their_numbers(store: FrameStore):
    with store.writing(BATCH, ASSET) as frames, ThreadPoolExecutor(3) as pool:
        list(pool.map(frames.put, [20, 3, 100], [CHUNKS[1], CHUNKS[0], CHUNKS[2]]))
    for read, written in zip(store.read(BATCH, ASSET), CHUNKS, strict=True):
        assert_frame_equal(read, written)


def test_of_attempts_at_once_one_stands_whole(store: FrameStore, tmp_path: Path):
    together = threading.Barrier(4)

    def attempt(number: int) -> StoredFrames:
        def chunks() -> Iterator[pl.DataFrame]:
            yield from CHUNKS
            yield CHUNKS[0].head(number)
            together.wait(timeout=10)

        return write(store, BATCH, ASSET, chunks())

    with ThreadPoolExecutor(4) as pool:
        attempts = list(pool.map(attempt, range(4)))
    assert store.stored(BATCH, ASSET) in attempts
    assert len(files(tmp_path)) == 4


@pytest.mark.parametrize("batch", ["", "..", "a/b", "a.b", "delta|18", ".hidden"])
def test_a_batch_key_that_could_leave_the_store_is_refused(store: FrameStore, batch: str):
    with pytest.raises(ValueError, match="no batch key"):
        store.delete(batch)


@pytest.mark.parametrize("asset", ["", "..", "/ccs", "ccs/", "ccs//person", "../person", "ccs.person"])
def test_an_asset_name_that_could_leave_its_batch_is_refused(store: FrameStore, asset: str):
    with pytest.raises(ValueError, match="no asset name"):
        store.stored(BATCH, asset)


@pytest.mark.parametrize("value", ["s3://canary/frames", "sftp://canary@host/frames", ""])
def test_a_store_that_is_not_built_yet_is_refused_with_its_setting(value: str):
    with pytest.raises(FolderError, match="CCS_DACS_FRAMES_URL") as caught:
        FrameStore(value)
    assert "canary" not in str(caught.value)


def test_a_denied_folder_is_named_with_the_way_out():
    with public_directory() as path:
        with read_only(path), pytest.raises(FolderDenied, match=f"{path}.*Let the user of this process"):
            write(FrameStore(str(path)), BATCH, ASSET, CHUNKS)
        assert list(path.iterdir()) == []


def test_a_full_disk_leaves_what_was_stored_and_is_named(tmp_path: Path):
    run_on_small_disk(
        tmp_path / "disk",
        """
        import os
        import polars as pl
        from ccs_dacs_pipeline.folders import FolderFull
        from ccs_dacs_pipeline.frames import FrameStore
        store = FrameStore(str(disk))
        chunk = pl.DataFrame({"noise": [os.urandom(32_000)]})
        with store.writing("delta-18", "ccs/person") as frames:
            frames.put(0, chunk)
        try:
            with store.writing("delta-18", "ccs/person") as more:
                for number in range(20):
                    more.put(number, chunk)
        except FolderFull as error:
            assert str(disk) in str(error) and "make room" in str(error), error
        else:
            raise AssertionError("no error")
        assert store.stored("delta-18", "ccs/person") == frames.stored
        assert len([path for path in disk.rglob("*") if path.is_file()]) == 1
        """,
    )
