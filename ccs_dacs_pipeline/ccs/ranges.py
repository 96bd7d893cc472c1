"""Cuts a key range into smaller ones."""

from itertools import pairwise

FILL = 4, 5
"""A range is planned to hold 4/5 of what it may hold: ids are spread evenly over the key space, but not exactly."""


def plan_ranges(low: str, high: str, total: int, *, max_entities: int) -> list[tuple[str, str]]:
    """Cuts `low`..`high` into consecutive inclusive ranges that cover it exactly.

    The ranges are equally wide (to one key), and so many that each is expected to hold at most 80 % of
    `max_entities` (sync-lifecycle.md, Completeness; ids are spread over the whole key space: ccs-rest.md, Searches).

    Args:
        low: the lowest id, digits.
        high: the highest id, as many digits.
        total: entities in the whole range.
        max_entities: entities that a range may hold.

    Returns:
        (lowest id, highest id) of each range, ascending, with as many digits as `low`.

    Raises:
        ValueError: the ids are not digits of equal length or `high` is below `low`; a number is out of range.
    """
    if not (low.isdecimal() and high.isdecimal() and low.isascii() and high.isascii() and len(low) == len(high)):
        raise ValueError(f"low id {low!r} and high id {high!r} must be digits of equal length, as 0000000000")
    if low > high:
        raise ValueError(f"low id {low} is above high id {high}: exchange them")
    if total < 0 or max_entities < 1:
        raise ValueError(f"total ({total}) must be 0 or more and max_entities ({max_entities}) 1 or more")
    first, keys, width = int(low), int(high) - int(low) + 1, len(low)
    share, whole = FILL
    count = min(keys, max(1, -(-total * whole // (max_entities * share))))
    bounds = [first + keys * index // count for index in range(count + 1)]
    return [(f"{start:0{width}d}", f"{end - 1:0{width}d}") for start, end in pairwise(bounds)]
