"""Claiming requests: transition each, read the states back, never repeat blind (ccs-rest.md, Sync requests)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from ccs_dacs_pipeline.ccs import Answer, CcsClient, Rejected, SyncStatus, Transient, TransitionUnknown
from ccs_dacs_pipeline.ledger import requests
from ccs_dacs_pipeline.ledger.life import Stage, get
from ccs_dacs_pipeline.ledger.requests import Refused
from ccs_dacs_pipeline.parallel import ahead

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ccs_dacs_pipeline.ledger.leases import Lease
    from ccs_dacs_pipeline.ledger.requests import Claim
    from ccs_dacs_pipeline.partitions import SyncBatch
    from ccs_dacs_pipeline.sync.site import Site

CHUNK = 500
"""Requests per transaction and per reading: as many ids as one search takes."""
_TRIES = 5
_IN_A_ROW = 10
"""Transitions that one thread sends in a row, at most: handing each over by itself takes a tenth of the time."""
_Item = TypeVar("_Item")
GONE = "GONE"
"""What stands for the state of a request that CCS no longer has."""


def claim(site: Site, key: SyncBatch, lease: Lease, *, resumed: bool) -> None:
    """Claims the requests of a created batch; one that is claimed already is left as it is.

    An entity's newest request goes first. Attempts are recorded before the calls, states are read back after them; an
    attempt whose outcome is unknown is repeated only when the reading says that it had no effect.

    Args:
        site: the site.
        key: the batch.
        lease: the incremental lane.
        resumed: whether the batch was in the ledger before, so that its requests may not be pending any more.

    Raises:
        CcsError: CCS did not do its part; what was claimed stays recorded, and a resume goes on from there.
        LeaseLostError: another worker goes on with this batch.
    """
    with site.ledger.read() as db:
        if get(db, key).reached(Stage.CLAIMED):
            return
        found = requests.claims(db, key)
    if resumed:
        found = _without_moved(site, key, lease, found)
    for round_of_claims in _rounds(found):
        for chunk in chunks(round_of_claims):
            _claim_chunk(site, key, lease, chunk)
    with site.ledger.write() as db:
        lease.check(db)
        requests.finish_claim(db, key, site.wall_clock())


def chunks(items: Sequence[_Item], size: int = CHUNK) -> Iterator[Sequence[_Item]]:
    """Cuts a sequence into pieces of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _rounds(claims: Iterable[Claim]) -> list[list[Claim]]:
    """Splits claims so that each entity is in a round once, its newest request in the first."""
    rounds: list[list[Claim]] = []
    depth: dict[tuple[str, str], int] = {}
    for one in claims:
        place = depth.get((one.entity, one.entity_id), 0)
        depth[one.entity, one.entity_id] = place + 1
        if place == len(rounds):
            rounds.append([])
        rounds[place].append(one)
    return rounds


def _without_moved(site: Site, key: SyncBatch, lease: Lease, found: Sequence[Claim]) -> list[Claim]:
    """Lets the requests go that this ledger has never tried to claim, should one of them have left PENDING.

    That one is not ours to move: somebody has ended it in CCS, or this ledger is an older copy of one that was lost,
    whose later life has claimed it. Then this batch's file names may be used up, so the others go with another batch.
    """
    untouched = [one.request_id for one in found if not one.attempts]
    moved = Counter(state for state in read_states(site.ccs, untouched).values() if state != SyncStatus.PENDING)
    if not moved:
        return list(found)
    with site.ledger.write() as db:
        lease.check(db)
        requests.let_untouched_go(db, key, moved)
    return [one for one in found if one.attempts]


def _claim_chunk(site: Site, key: SyncBatch, lease: Lease, chunk: Sequence[Claim]) -> None:
    # Those that an earlier attempt left without a reading: their state decides, not a repeat.
    uncertain = [one.request_id for one in chunk if one.attempts and one.found is None]
    waiting = [one.request_id for one in chunk if not one.attempts]
    refusals: dict[str, str] = {}
    for _ in range(_TRIES):
        if uncertain:
            waiting += _record_readings(site, key, lease, uncertain)
        if not waiting:
            return
        with site.ledger.write() as db:
            lease.check(db)
            requests.record_attempts(db, key, waiting)
        refusals = transition_all(site, lease, [(request_id, Answer.positive()) for request_id in waiting])
        uncertain, waiting = waiting, []
    left = _record_readings(site, key, lease, uncertain)
    gone = _let_go(site, key, lease, {one: refusals[one] for one in left if one in refusals})
    left = [one for one in left if one not in gone]
    if left:
        raise Transient(
            "PATCH syncRequest",
            f"{len(left)} sync requests of batch {key} are still PENDING after {_TRIES} transitions each, for example "
            f"{left[0]}. Look at them in CCS; the batch is resumed by itself.",
        )


def _let_go(site: Site, key: SyncBatch, lease: Lease, refusals: Mapping[str, str]) -> set[str]:
    """Lets requests go that CCS refuses each time: the others of the batch must not wait for them for ever.

    One that has left PENDING since its last reading stays, for the resume to read it.
    """
    if not refusals:
        return set()
    found = [
        Refused(one.id, one.status_changed, refusals[one.id])
        for page in site.ccs.sync_requests(ids=list(refusals), status=SyncStatus.PENDING)
        for one in page
    ]
    with site.ledger.write() as db:
        lease.check(db)
        requests.let_go(db, key, found)
    return {one.request_id for one in found}


def _record_readings(site: Site, key: SyncBatch, lease: Lease, ids: Sequence[str]) -> list[str]:
    """Records the present states of requests; returns the ids that are still pending."""
    states = read_states(site.ccs, ids)
    pending = [request_id for request_id in ids if states[request_id] == SyncStatus.PENDING]
    with site.ledger.write() as db:
        lease.check(db)
        requests.record_found(db, key, {one: state for one, state in states.items() if state != SyncStatus.PENDING})
    return pending


def read_states(ccs: CcsClient, ids: Sequence[str]) -> dict[str, str]:
    """Returns the present state of each request; `GONE` for one that CCS no longer has."""
    states = dict.fromkeys(ids, GONE)
    for page in ccs.sync_requests(ids=ids):
        states.update({request.id: request.status.value for request in page})
    return states


def transition_all(site: Site, lease: Lease, answers: Sequence[tuple[str, Answer]]) -> dict[str, str]:
    """Sends transitions, several at once. Unknown outcomes and refusals are left to the reading that follows.

    Returns:
        The message of each refusal, by request: category and number, for CCS's text may hold personal values.

    Raises:
        CcsError: CCS did not do its part; the other threads have ended what they send in a row.
        LeaseLostError: another worker has the lease; nothing more is sent.
    """

    def transition(row: Sequence[tuple[str, Answer]]) -> list[tuple[str, str | None]]:
        return [(request_id, _transition(site.ccs, lease, request_id, answer)) for request_id, answer in row]

    window = site.settings.ccs_concurrency
    told = ahead(transition, _rows(answers, window), window=window)
    return {request_id: refusal for row in told for request_id, refusal in row if refusal is not None}


def _rows(answers: Sequence[_Item], threads: int) -> Iterator[Sequence[_Item]]:
    """Cuts answers into what one thread sends in a row, so that no thread is idle where there is enough for all."""
    return chunks(answers, max(1, min(_IN_A_ROW, len(answers) // threads)))


def _transition(ccs: CcsClient, lease: Lease, request_id: str, answer: Answer) -> str | None:
    try:
        # Its own check of the ledger would cost a transaction a request; that of the chunk was just now.
        ccs.transition(request_id, answer, guard=lease.guard)
    except TransitionUnknown:
        return None
    except Rejected as error:
        return f"{error.problem.category}/{error.problem.number}"
    return None
