"""Records of one entity as prepared JSON text, in ascending id order.

A page is a handful of slices of bytes that are there already, joined: no record is touched one by one. Leaves are never
changed in place but replaced, so that a reader who took the list of leaves sees one state without a lock.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice
from typing import NamedTuple, Self

_LEAF_RECORDS = 512


class Page(NamedTuple):
    """A page of a key range: JSON objects joined by commas, how many, and whether more follow."""

    body: bytes
    records: int
    has_more: bool


class _Leaf:
    """Up to 1,024 neighbouring records; `starts` holds each one's first byte, and the place of a next one."""

    __slots__ = ("blob", "ids", "starts")

    def __init__(self, ids: Iterable[int], records: list[bytes]) -> None:
        self.ids = array("q", ids)
        self.starts = array("I", accumulate((len(record) + 1 for record in records), initial=0))
        self.blob = b",".join(records)

    def slice(self, start: int, stop: int) -> bytes:
        return self.blob[self.starts[start] : self.starts[stop] - 1]

    def records(self) -> list[bytes]:
        return [self.slice(index, index + 1) for index in range(len(self.ids))]

    def replaced(self, place: int, record: bytes) -> "_Leaf":
        """A leaf that differs in one record; the others' text is copied in two pieces."""
        leaf = object.__new__(_Leaf)
        begin, end = self.starts[place], self.starts[place + 1] - 1
        shift = len(record) - (end - begin)
        leaf.ids = self.ids
        leaf.starts = self.starts[: place + 1] + array("I", [start + shift for start in self.starts[place + 1 :]])
        leaf.blob = b"".join((self.blob[:begin], record, self.blob[end:]))
        return leaf


class RecordTable:
    """A sorted map from a numeric id to the bytes of a JSON object.

    About 12 bytes a record are spent beyond the text itself. Writing is for one thread at a time.
    """

    def __init__(self, records: Iterable[tuple[int, bytes]]) -> None:
        """Takes (id, JSON object) pairs in strictly ascending id order."""
        self._leaves: list[_Leaf] = []
        source = iter(records)
        while chunk := list(islice(source, _LEAF_RECORDS)):
            self._leaves.append(_Leaf((id_ for id_, _ in chunk), [record for _, record in chunk]))
        self._index()

    def _index(self) -> None:
        self._lasts = [leaf.ids[-1] for leaf in self._leaves]
        self._before = list(accumulate((len(leaf.ids) for leaf in self._leaves), initial=0))

    def __len__(self) -> int:
        return self._before[-1]

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """All records in id order, as they were when the iteration began."""
        for leaf in list(self._leaves):
            yield from zip(leaf.ids, leaf.records(), strict=True)

    def _find(self, id_: int) -> tuple[int, int]:
        """Leaf and place of the first record whose id is not below `id_`."""
        at = bisect_left(self._lasts, id_)
        return (at, bisect_left(self._leaves[at].ids, id_)) if at < len(self._leaves) else (at, 0)

    def rank(self, id_: int) -> int:
        """How many records have a smaller id."""
        at, place = self._find(id_)
        return self._before[at] + place

    def page(self, low: int, high: int, limit: int) -> Page:
        """The first `limit` records with `low <= id <= high`."""
        first = self.rank(low)
        matching = max(self.rank(high + 1) - first, 0)
        wanted = min(matching, limit)
        parts: list[bytes] = []
        at, place = self._find(low)
        left = wanted
        while left:
            leaf = self._leaves[at]
            stop = min(place + left, len(leaf.ids))
            parts.append(leaf.slice(place, stop))
            left -= stop - place
            at, place = at + 1, 0
        return Page(b",".join(parts), wanted, matching > wanted)

    def get(self, id_: int) -> bytes | None:
        """The record with this id, if there is one."""
        at, place = self._find(id_)
        if at < len(self._leaves) and self._leaves[at].ids[place] == id_:
            return self._leaves[at].slice(place, place + 1)
        return None

    def nth(self, rank: int) -> tuple[int, bytes]:
        """Id and record at a place counted from 0 in id order.

        Raises:
            IndexError: There are not so many records.
        """
        if not 0 <= rank < len(self):
            raise IndexError(f"sandbox: record {rank} of {len(self)} was asked for")
        at = bisect_left(self._before, rank + 1) - 1
        place = rank - self._before[at]
        leaf = self._leaves[at]
        return leaf.ids[place], leaf.slice(place, place + 1)

    def put(self, id_: int, record: bytes) -> None:
        """Adds a record, or replaces the one with this id."""
        if not self._leaves:
            self._leaves = [_Leaf([id_], [record])]
            self._index()
            return
        at, place = self._find(id_)
        if at == len(self._leaves):
            at, place = at - 1, len(self._leaves[-1].ids)
        leaf = self._leaves[at]
        if place < len(leaf.ids) and leaf.ids[place] == id_:
            self._leaves[at] = leaf.replaced(place, record)
            return
        ids, records = list(leaf.ids), leaf.records()
        ids.insert(place, id_)
        records.insert(place, record)
        half = len(ids) // 2 if len(ids) > 2 * _LEAF_RECORDS else len(ids)
        parts = [_Leaf(ids[:half], records[:half])]
        if half < len(ids):
            parts.append(_Leaf(ids[half:], records[half:]))
        self._leaves = [*self._leaves[:at], *parts, *self._leaves[at + 1 :]]
        self._index()

    def remove(self, id_: int) -> bool:
        """Removes a record; tells whether it was there."""
        at, place = self._find(id_)
        if at == len(self._leaves) or self._leaves[at].ids[place] != id_:
            return False
        leaf = self._leaves[at]
        ids, records = list(leaf.ids), leaf.records()
        del ids[place], records[place]
        self._leaves = [*self._leaves[:at], *([_Leaf(ids, records)] if ids else []), *self._leaves[at + 1 :]]
        self._index()
        return True

    @classmethod
    def empty(cls) -> Self:
        """A table without records."""
        return cls(())
