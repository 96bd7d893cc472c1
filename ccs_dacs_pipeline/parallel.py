"""Work on several items at once whose results are wanted in order, with a bounded number of them in memory."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

WORKERS = 2 * (os.cpu_count() or 1)
"""How many threads keep the machine busy with work that mostly runs outside the interpreter lock, as polars' does.

More than there are cores, since each waits now and then: for the lock, or for the disk.
"""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ahead(work: Callable[[_Item], _Result], items: Iterable[_Item], *, window: int) -> Iterator[_Result]:
    """Yields `work(item)` for each item, in the items' order.

    Args:
        work: runs on threads of its own.
        items: taken one by one as there is room.
        window: items under way or waiting to be yielded, at most.

    Raises:
        Exception: what `work` or `items` raise; nothing of it runs on by then.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(max_workers=window) as pool:
        under_way: deque[Future[_Result]] = deque()
        try:
            while True:
                under_way.extend(pool.submit(work, item) for item in islice(waiting, window - len(under_way)))
                if not under_way:
                    return
                yield under_way.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
