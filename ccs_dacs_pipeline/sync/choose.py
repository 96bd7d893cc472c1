"""Which pending sync requests a delta batch takes: a pure decision (sync-lifecycle.md, delta step 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccs_dacs_pipeline.entities import ENTITIES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ccs_dacs_pipeline.ledger.requests import Chosen

_ORDER = {entity.name: place for place, entity in enumerate(ENTITIES)}


def choose(pending: Iterable[Chosen], *, limit: int, busy: Collection[tuple[str, str]]) -> list[Chosen]:
    """Returns the requests of the next batch, the longest pending entity first, an entity's requests never parted.

    Args:
        pending: all pending requests, in any order.
        limit: how many requests at most; exceeded only where one entity alone has more.
        busy: entities of batches that are neither delivered nor aborted; their requests wait.
    """
    by_subject: dict[tuple[str, str], list[Chosen]] = {}
    for request in pending:
        if request.subject not in busy:
            by_subject.setdefault(request.subject, []).append(request)
    groups = sorted(by_subject.values(), key=_age)
    chosen: list[Chosen] = []
    for group in groups:
        if chosen and len(chosen) + len(group) > limit:
            break
        chosen.extend(group)
    return chosen


def _age(group: list[Chosen]) -> tuple[object, ...]:
    oldest = min(request.created for request in group)
    return oldest, _ORDER[group[0].entity], group[0].entity_id
