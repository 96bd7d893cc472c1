"""Frames between assets: Parquet files, one folder per batch and asset, one file per chunk.

A chunk is what the asset that wrote it had in memory at once; memory is bounded by chunks, never by the number of
records.
"""

from __future__ import annotations

import errno
import hashlib
import io
import re
import shutil
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from ccs_dacs_pipeline.folders import FolderError, LocalFolder
from ccs_dacs_pipeline.folders.local import folder_errors, make_folder, sync_folder
from ccs_dacs_pipeline.folders.url import local_path
from ccs_dacs_pipeline.parallel import ahead

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTING = "CCS_DACS_FRAMES_URL"
_READ_AHEAD = 2
# Frames hold personal data, and nobody reads them but this program: its group may, where the umask lets it.
_ROOT_MODE = 0o770
# Batch keys as partitions have them; assets as Dagster prints their keys, "ccs/person".
_BATCH = re.compile(r"[A-Za-z0-9_-]+")
_ASSET = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


class FramesMissing(LookupError):
    """Frames that should be read are not stored."""


@dataclass(frozen=True)
class StoredFrames:
    """The frames of one asset and batch.

    Attributes:
        rows: records in all chunks.
        bytes: size of all Parquet files.
        sha256: over the hexadecimal SHA-256 of each Parquet file, in order.
        chunks: number of chunks.
    """

    rows: int
    bytes: int
    sha256: str
    chunks: int


@dataclass(frozen=True)
class Chunk:
    """One stored frame."""

    path: Path

    def read(self) -> pl.DataFrame:
        """Returns the frame as it was written."""
        return pl.read_parquet(self.path)


class FrameWriter:
    """The frames of one asset and batch while they are written, by any number of threads.

    Attributes:
        stored: what was written, once all of it is.
    """

    stored: StoredFrames

    def __init__(self, folder: Path) -> None:
        """Begins with an empty folder."""
        self._folder = LocalFolder(folder)
        with folder_errors(str(folder)):
            make_folder(folder)

    def put(self, number: int, chunk: pl.DataFrame) -> None:
        """Writes a chunk and makes it durable; chunks are read in the order of their numbers, which may have gaps.

        All have one schema. Without any, it is not kept: put one empty frame for that.
        """
        # Through memory: polars' own writer reports a full disk as a fault of the file's format.
        buffer = io.BytesIO()
        # Without statistics, a tenth of the time: every reader reads a chunk as a whole.
        chunk.write_parquet(buffer, compression="zstd", compression_level=1, statistics=False)
        with self._folder.create() as file:
            file.write(buffer.getbuffer())
            file.commit(f"{number:05}.parquet", replace=False)


class FrameStore:
    """Frames by batch key and asset.

    A write is seen as a whole or not at all. Attempts may run side by side: each writes into a folder of its own, and
    the last to end stands. A process killed in the instant between taking an earlier result away and putting the new
    one in its place leaves none: the asset is then materialized again.

    Raises, from every method: `FolderError` or one of its kinds, such as `FolderFull`.
    """

    def __init__(self, url_or_path: str) -> None:
        """Names the store's folder, which is made when the first frames are written.

        Raises:
            FolderError: not a path or a `file://` URL.
        """
        self._root = local_path(url_or_path, setting=SETTING)

    @contextmanager
    def writing(self, batch: str, asset: str) -> Iterator[FrameWriter]:
        """Stores what the block puts, in place of what is stored for the asset and batch, once the block ends.

        When the block fails, what was stored before stays.

        Args:
            batch: key of the batch, `delta-18`.
            asset: name of the asset, `ccs/person`.
        """
        place = self._place(batch, asset)
        staging = place.with_name(f".{place.name}-{uuid.uuid4().hex}")
        with folder_errors(str(self._root)):
            make_folder(self._root, _ROOT_MODE)
        try:
            writer = FrameWriter(staging)
            yield writer
            with folder_errors(str(place)):
                writer.stored = _stored(staging)
                _put(staging, place)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def stored(self, batch: str, asset: str) -> StoredFrames | None:
        """Returns what is stored, counted and hashed anew from the files; None when nothing is."""
        place = self._place(batch, asset)
        with folder_errors(str(place)):
            return _stored(place) if place.is_dir() else None

    def read(self, batch: str, asset: str) -> Iterator[pl.DataFrame]:
        """Returns the chunks one by one, as they were written, some of them read ahead.

        Raises:
            FramesMissing: nothing is stored.
        """
        return ahead(Chunk.read, self.chunks(batch, asset), window=_READ_AHEAD)

    def chunks(self, batch: str, asset: str) -> list[Chunk]:
        """Returns the chunks, in order and yet to be read, so that several can be at once.

        Raises:
            FramesMissing: nothing is stored.
        """
        place = self._place(batch, asset)
        with folder_errors(str(place)):
            if not place.is_dir():
                raise FramesMissing(f"{place}: no frames of {asset} for {batch}. Materialize {asset} for it first.")
            return [Chunk(file) for file in _chunk_files(place)]

    def delete(self, batch: str) -> None:
        """Removes all frames of the batch; absent ones are fine."""
        place = self._batch(batch)
        with folder_errors(str(place)):
            if place.is_dir():
                shutil.rmtree(place)

    def batches(self) -> list[str]:
        """Returns the keys of the batches that have frames."""
        with folder_errors(str(self._root)):
            found = self._root.iterdir() if self._root.is_dir() else ()
            return sorted(place.name for place in found if place.is_dir() and _BATCH.fullmatch(place.name))

    def _batch(self, batch: str) -> Path:
        if not _BATCH.fullmatch(batch):
            raise ValueError(f"{batch!r} is no batch key. Use letters, digits, '_' and '-'.")
        return self._root / batch

    def _place(self, batch: str, asset: str) -> Path:
        if not _ASSET.fullmatch(asset):
            raise ValueError(f"{asset!r} is no asset name. Use letters, digits, '_' and '-', parted by '/'.")
        # Flat, so that no asset's folder lies within another's; an asset name holds no dot itself.
        return self._batch(batch) / asset.replace("/", ".")


def _chunk_files(place: Path) -> list[Path]:
    return sorted(place.glob("*.parquet"), key=lambda file: int(file.stem))


def _stored(place: Path) -> StoredFrames:
    files = _chunk_files(place)
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").hexdigest().encode())
    try:
        rows = int(pl.scan_parquet(files, glob=False).select(pl.len()).collect().item()) if files else 0
    except pl.exceptions.PolarsError as error:
        raise FolderError(f"{place}: a Parquet file is damaged. Materialize the asset again.") from error
    return StoredFrames(rows, sum(file.stat().st_size for file in files), digest.hexdigest(), len(files))


def _put(staging: Path, place: Path) -> None:
    """Gives the folder `staging` the name of `place`, taking away what is there."""
    earlier: list[Path] = []
    while True:
        try:
            staging.rename(place)
            break
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        # A folder cannot be renamed over another; a second attempt may have done either step in between.
        with suppress(FileNotFoundError):
            earlier.append(place.rename(place.with_name(f".{place.name}-{uuid.uuid4().hex}")))
    sync_folder(place.parent)
    for folder in earlier:
        shutil.rmtree(folder, ignore_errors=True)
