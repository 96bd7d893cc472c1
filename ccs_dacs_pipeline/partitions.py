"""The partitions of the asset graph: one dynamic set whose keys name batches (design.md, decision 1).

`initial-7-02of16` is the second of sixteen shards of snapshot 7, `delta-18` an incremental batch, `resync-3` chosen
entities sent anew. Nothing but parsing and printing of keys belongs here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

SYNC_BATCH = "sync_batch"
# At most 18 digits: a number that no 64-bit integer holds is no batch's.
_INITIAL = re.compile(r"initial-([1-9][0-9]{0,17})-([0-9]{2,18})of([0-9]{2,18})")
_SNAPSHOT = re.compile(r"initial-([1-9][0-9]{0,17})")
_NUMBERED = re.compile(r"(delta|resync)-([1-9][0-9]{0,17})")


class Mode(StrEnum):
    """What a batch is for."""

    INITIAL = "initial"
    DELTA = "delta"
    RESYNC = "resync"


class KeyRefusedError(ValueError):
    """A partition key is not of the form, or not of the kind, that the work at hand takes."""


@dataclass(frozen=True, order=True)
class SyncBatch:
    """The name of a batch: its mode, its number, and for a snapshot its shard (both counted from 1)."""

    mode: Mode
    number: int
    shard: int = 1
    shards: int = 1

    def __str__(self) -> str:
        """Prints the key; at least two digits for the shard, as many for both, so that keys sort in their order."""
        if self.mode is not Mode.INITIAL:
            return f"{self.mode}-{self.number}"
        width = max(2, len(str(self.shards)))
        return f"{self.owner}-{self.shard:0{width}d}of{self.shards:0{width}d}"

    @property
    def owner(self) -> str:
        """What numbers and the manifest belong to: the snapshot of a shard, else the batch itself."""
        return f"{self.mode}-{self.number}"

    @classmethod
    def parse(cls, key: str) -> SyncBatch:
        """Reads a key; only the very form that `str` prints is taken.

        Raises:
            KeyRefusedError: the key is of another form.
        """
        if found := _INITIAL.fullmatch(key):
            batch = cls(Mode.INITIAL, *(int(part) for part in found.groups()))
            if 1 <= batch.shard <= batch.shards and str(batch) == key:
                return batch
        elif found := _NUMBERED.fullmatch(key):
            return cls(Mode(found[1]), int(found[2]))
        raise KeyRefusedError(f"{key!r} is no sync_batch key; keys look like initial-7-02of16, delta-18 or resync-3.")


def shards_of(number: int, shards: int) -> list[SyncBatch]:
    """Returns the shards of a snapshot, in order."""
    return [SyncBatch(Mode.INITIAL, number, shard, shards) for shard in range(1, shards + 1)]


def snapshot_number(key: str) -> int | None:
    """Returns the number of a snapshot's key such as `initial-7`, None for any other text."""
    found = _SNAPSHOT.fullmatch(key)
    return int(found[1]) if found else None
