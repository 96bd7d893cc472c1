"""Acknowledgements in disorder while CCS comes and goes (faults.md, Acknowledgements; `make chaos` for 100,000)."""

from __future__ import annotations

import os
import random
import resource
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import sqlalchemy as sa
import stamina

from ccs_dacs_pipeline.cli.console import Problem
from ccs_dacs_pipeline.ledger import requests
from ccs_dacs_pipeline.ledger.report import answers_due
from ccs_dacs_pipeline.ledger.schema import requests as request_rows
from ccs_dacs_pipeline.sandbox import BusinessError
from ccs_dacs_pipeline.settings import load_settings
from ccs_dacs_pipeline_tests.conftest import TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.long

ANSWERS = int(os.environ.get("CCS_DACS_TEST_CHAOS_ANSWERS", "5000"))
ROUNDS = 8
LIST = 1000
GROWTH_MIB = 250
_PER_PERSON = 3.1


@dataclass
class Expected:
    """What the inbox must count, and how each request must end: by its first verdict."""

    verdicts: dict[str, set[bool]] = field(default_factory=dict)
    first: dict[str, bool] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def see(self, post: Sequence[dict[str, Any]], known: set[str]) -> None:
        for one in post:
            request, error = one["syncRequestId"], one["hasError"]
            earlier = self.verdicts.setdefault(request, set())
            if error in earlier:
                self.counts["duplicates"] += 1
            elif request in known:
                self.counts["accepted"] += 1
                self.counts["contradicting"] += bool(earlier)
            else:
                self.counts["parked"] += 1
            earlier.add(error)
            self.first.setdefault(request, error)


def in_disorder(ids: Sequence[str], rng: random.Random) -> list[dict[str, Any]]:
    """Answers, 5 % negative: 10 % twice, 1 % contradicted, 1 % unknown, 5 % out of their order."""
    placed: list[tuple[float, str, bool]] = []
    total = len(ids)
    for place, one in enumerate(ids):
        error = rng.random() < 0.05
        at = rng.uniform(0, total) if rng.random() < 0.05 else float(place)
        placed.append((at, one, error))
        if rng.random() < 0.10:
            placed.append((rng.uniform(at, total), one, error))
        if rng.random() < 0.01:
            placed.append((rng.uniform(at, total), one, not error))
        if rng.random() < 0.01:
            placed.append((at, f"X{place:013}", error))
    return [{"syncRequestId": one, "hasError": error} for _, one, error in sorted(placed)]


@contextmanager
def failing_after(world, calls: int) -> Iterator[None]:
    """CCS goes down after so many more transitions, and is up again when the block ends."""
    ccs, left = world.sandbox.ccs, count(calls, -1)
    transition, search = ccs.transition, ccs.search_requests
    down = False

    def transition_or_fail(*arguments: Any) -> None:
        nonlocal down
        down = down or next(left) <= 0
        if down:
            raise BusinessError(1, "Down", "CCS is down", status=503)
        transition(*arguments)

    def search_or_fail(*arguments: Any, **named: Any) -> Any:
        if down:
            raise BusinessError(1, "Down", "CCS is down", status=503)
        return search(*arguments, **named)

    ccs.transition, ccs.search_requests = transition_or_fail, search_or_fail
    try:
        with stamina.set_testing(True, attempts=2):  # a CCS that is down for days is not waited for in a test
            yield
    finally:
        ccs.transition, ccs.search_requests = transition, search


def sent_requests(world) -> list[str]:
    """A request for every entity, sent and waiting for its answer."""
    for entity in ("person", "service_point", "service_agreement"):
        for entity_id in [one for one, _ in world.sandbox.ccs.records(entity)]:
            world.sandbox.ccs.touch(entity, entity_id)
    world.worker.sync(wait=60)
    with world.site.ledger.read() as db:
        waiting = sa.select(request_rows.c.request_id).where(request_rows.c.outcome == requests.Outcome.WRITTEN)
        return list(db.execute(waiting).scalars())


def test_answers_in_disorder_while_ccs_is_down_half_the_time(make_world):
    seed = 20260301
    rng = random.Random(seed)
    world = make_world(
        sandbox={"persons": round(ANSWERS / _PER_PERSON), "upload_folder": None, "bad_share": 0.0},
        # Nobody dies here, and a simulated CCS of this size, in the same process, may hold everything up for seconds.
        settings={"ccs_call_seconds": 10, "lease_seconds": 60, "ccs_page_size": 1000, "delta_max_requests": 5000},
    )
    ids = sent_requests(world)
    rng.shuffle(ids)
    late = set(ids[: len(ids) // 50])
    known, expected, counted = set(ids), Expected(), Counter[str]()
    posts = in_disorder([one for one in ids if one not in late], rng)
    posts_late = [{"syncRequestId": one, "hasError": False} for one in sorted(late)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def post(answers: Sequence[dict[str, Any]]) -> None:
        for start in range(0, len(answers), LIST):
            sent = answers[start : start + LIST]
            expected.see(sent, known)
            reply = inbox.post("/acknowledgements", json=sent)
            assert reply.status_code == 200
            figures = reply.json()
            assert not figures.pop("refused")
            counted.update(figures)

    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=world.sandbox.config.inbox_url, headers=headers, timeout=60) as inbox:
        size = -(-len(posts) // ROUNDS)
        for number in range(ROUNDS):
            post(posts[number * size : (number + 1) * size])
            if number % 2:
                world.worker.deliver_acknowledgements(wait=5)
            else:
                with failing_after(world, rng.randrange(size)), suppress(Problem):
                    world.worker.deliver_acknowledgements(wait=5)
        world.worker.deliver_acknowledgements(wait=5)
        world.settings = load_settings(**world.settings.model_dump() | {"ack_timeout": 0})
        assert {one["syncRequestId"] for one in world.status()["overdue"]} == late
        post(posts_late)
        world.worker.deliver_acknowledgements(wait=5)

    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert counted == {name: expected.counts[name] for name in ("accepted", "duplicates", "parked")}
    negative = sum(expected.first[one] for one in ids)
    assert world.request_states() == {"SYNCHRONIZED": len(ids) - negative, "ERROR": negative}
    status = world.status()
    assert status["requests"] == {"positive": len(ids) - negative, "negative": negative}
    assert status["acknowledgements"] == {
        "stored": counted["accepted"] + counted["parked"],
        "delivered": len(ids),
        "parked": counted["parked"],
        "contradicting": expected.counts["contradicting"],
        "duplicates": counted["duplicates"],
    }
    assert status["overdue"] == []
    assert world.reconcile()["holds"]
    with world.site.ledger.read() as db:
        assert answers_due(db) == 0
    assert grown < GROWTH_MIB, f"{grown:.0f} MiB more for {len(posts)} answers"
