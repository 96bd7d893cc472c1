"""Settling requests in CCS: DACS's answers, our own errors, and what delivery settles, many at a time.

Each answer is recorded before it is sent and the state is read before and after (ccs-rest.md, Sync requests), so that a
lost answer is never repeated blind. CCS may be down for days: what is not told stays due. Requests that CCS ended by
itself while DACS's answer is awaited are found by looking at all of them now and then.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ccs_dacs_pipeline.ccs import Answer, SyncStatus
from ccs_dacs_pipeline.ledger import acknowledgements, requests
from ccs_dacs_pipeline.ledger.requests import Due, Settlement, Source
from ccs_dacs_pipeline.ledger.store import mark
from ccs_dacs_pipeline.sync.claim import CHUNK, read_states, transition_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ccs_dacs_pipeline.ledger.leases import Lease
    from ccs_dacs_pipeline.sync.site import Site

_TRIES = 3
LOOKED = "looked for ended requests"
"""The mark under which the ledger remembers when, in seconds since 1970."""


@dataclass
class Settled:
    """What one pass settled: requests by how they ended, batches touched, ids of requests whose answer stays due."""

    by_settlement: Counter[str] = field(default_factory=Counter)
    batches: set[str] = field(default_factory=set)
    still_due: list[str] = field(default_factory=list)


def settle(site: Site, lease: Lease, *, look: bool = False) -> Settled:
    """Takes every answer that is due to CCS.

    Args:
        site: the site.
        lease: the acknowledgements lane.
        look: whether to look also for requests without an answer that CCS has ended by itself.

    Raises:
        CcsError: CCS cannot be asked; what was not told stays due.
        LeaseLostError: another worker goes on with this.
    """
    result = Settled()
    _take_stored(site, lease, result)
    after = ""
    while True:
        with site.ledger.read() as db:
            due = requests.due(db, CHUNK, after)
        if not due:
            break
        after = due[-1].request_id
        _settle_chunk(site, lease, due, result)
    if look:
        _close_ended(site, lease, result)
    with site.ledger.write() as db:
        lease.check(db)
        result.batches.update(requests.settle_batches(db))
    return result


def _take_stored(site: Site, lease: Lease, result: Settled) -> None:
    """Turns stored acknowledgements into answers that are due."""
    with site.ledger.write() as db:
        lease.check(db)
        acknowledgements.match_parked(db)
    while True:
        with site.ledger.write() as db:
            lease.check(db)
            taken = requests.take_acknowledgements(db)
        if taken is None:
            return
        result.batches.update(taken)


def _settle_chunk(site: Site, lease: Lease, due: Sequence[Due], result: Settled) -> None:
    states = read_states(site.ccs, [one.request_id for one in due])
    tried: set[str] = set()
    for _ in range(_TRIES):  # a lost answer is no answer: what still awaits one is told again
        waiting = [one for one in due if states[one.request_id] == SyncStatus.AWAITINGACK]
        if not waiting:
            break
        with site.ledger.write() as db:
            lease.check(db)
            requests.record_answer_attempts(db, waiting)
        transition_all(site, lease, [(one.request_id, _answer(site, one)) for one in waiting])
        tried.update(one.request_id for one in waiting)
        states |= read_states(site.ccs, [one.request_id for one in waiting])
    settled = [(one, how) for one in due if (how := _settlement(one, states, tried=one.request_id in tried))]
    with site.ledger.write() as db:
        lease.check(db)
        requests.settle(db, settled)
    result.by_settlement.update(how.value for _, how in settled)
    result.batches.update(one.batch for one, _ in settled)
    ended = {one.request_id for one, _ in settled}
    result.still_due += [one.request_id for one in due if one.request_id not in ended]


def _close_ended(site: Site, lease: Lease, result: Settled) -> None:
    """Closes the requests that await an answer and that CCS has ended, or begun anew (sync-lifecycle.md, step 2)."""
    after = ""
    while True:
        with site.ledger.read() as db:
            waiting = requests.unanswered(db, CHUNK, after)
        if not waiting:
            break
        after = waiting[-1][0]
        states = read_states(site.ccs, [request_id for request_id, _ in waiting])
        ended = [one for one in waiting if states[one[0]] != SyncStatus.AWAITINGACK]
        with site.ledger.write() as db:
            lease.check(db)
            requests.close_unanswered(db, [request_id for request_id, _ in ended])
        result.by_settlement.update([Settlement.CLOSED.value] * len(ended))
        result.batches.update(key for _, key in ended)
    with site.ledger.write() as db:
        mark(db, LOOKED, time.time())


def _answer(site: Site, due: Due) -> Answer:
    settings = site.settings
    return Answer.from_json(due.answer, category=settings.message_category, number=settings.message_number)


def _settlement(due: Due, states: Mapping[str, str], *, tried: bool) -> Settlement | None:
    """Says how a request ended, from the state read last; None when it has not.

    A final state that our own recorded attempt explains is ours; any other was made by somebody else in CCS.
    """
    state = states[due.request_id]
    if state == SyncStatus.AWAITINGACK:
        return None
    if state == SyncStatus.PENDING:
        return Settlement.CLOSED  # CCS began it anew: it is picked again as a new change
    meant = SyncStatus.ERROR if due.has_error else SyncStatus.SYNCHRONIZED
    if state != meant or not (tried or due.attempts):
        return Settlement.CLOSED
    if due.source is Source.OWN:
        return Settlement.OWN_ERROR
    if due.source is Source.DELIVERY:
        return Settlement.ON_DELIVERY
    return Settlement.NEGATIVE if due.has_error else Settlement.POSITIVE
