"""Faults of CCS over HTTP (faults.md): each alone, then a seeded mix; all conditions hold once it is quiet again."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ccs_dacs_pipeline.ccs import BadAnswer, CcsError, IncompleteRange, Permanent, RetryAfterTooLong, Transient
from ccs_dacs_pipeline.ledger import requests
from ccs_dacs_pipeline.ledger.leases import ACKNOWLEDGEMENTS
from ccs_dacs_pipeline.ledger.life import Aside, resume
from ccs_dacs_pipeline.ledger.report import answers_due, unfinished
from ccs_dacs_pipeline.sandbox import faults
from ccs_dacs_pipeline.sandbox.faults import Fault, Faults
from ccs_dacs_pipeline.settings import PREFIX, load_settings
from ccs_dacs_pipeline.sync.settle import settle
from ccs_dacs_pipeline_tests import steps
from ccs_dacs_pipeline_tests.conditions import Watcher, broken, settle_down
from ccs_dacs_pipeline_tests.steps import held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEED = int(os.environ.get(f"{PREFIX}TEST_SEED", "7"))
CHANGES = 20


class Faulty:
    """A world whose CCS can be made to fail."""

    def __init__(self, make_world: Callable[..., object], **settings: object) -> None:
        self.faults = Faults(SEED)
        self.world = make_world(
            sandbox={"persons": 40}, settings={"ccs_page_size": 10, **settings}, middleware=self.faults
        )
        self.site = steps.quick_site(self.world.settings)
        self.world.site._opened.append(self.site)
        self.watcher = Watcher(Path(self.world.settings.folder("upload")))

    def recover(self) -> None:
        settle_down(self.world, self.site)
        assert broken(self.world, self.watcher) == []


@pytest.fixture
def faulty(make_world) -> Iterator[Faulty]:
    made = Faulty(make_world)
    with made.watcher:
        yield made


ONCE = [
    (faults.status(503), faults.searches),
    (faults.status(503), faults.transitions),
    (faults.status(500, after_effect=True), faults.transitions),
    (faults.status(429, retry_after="0"), faults.transitions),
    (faults.status(429, retry_after="Thu, 01 Jan 2026 00:00:00 GMT"), faults.searches),
    (faults.status(429, retry_after="soon"), faults.transitions),
    (faults.refused(), faults.transitions),
    (faults.lost(), faults.transitions),
    (faults.lost(), faults.searches),
    (faults.cut(length=True), faults.searches),
    (faults.cut(length=False), faults.searches),
    (faults.cut(length=True, reset=True), faults.searches),
    (faults.drip(pieces=50, pause=0.001), faults.searches),
    (faults.html(), faults.searches),
    (faults.html(), faults.transitions),
    (faults.wrong_total(), None),
    (faults.without_has_more(), None),
    (faults.doubled(), None),
    (faults.reordered(), faults.entity_pages),
    (faults.repeated_page(), None),
]


@pytest.mark.parametrize(
    ("fault", "where"), ONCE, ids=[f"{one.name}, {where.__name__ if where else 'own'}" for one, where in ONCE]
)
def test_one_that_passes_is_survived_within_the_pass(faulty, fault, where):
    for after in (0, 3):
        faulty.faults.script(fault, where=where, after=after)
    steps.initial(faulty.site, shards=2)
    faulty.world.sandbox.ccs.change(CHANGES, seed=1)
    steps.incremental(faulty.site)
    faulty.world.sandbox.dacs.wait_until_idle()
    steps.answers(faulty.site)
    assert faulty.faults.met[fault.name] == 2
    faulty.recover()


LASTING: list[tuple[Fault, type[CcsError], str]] = [
    (faults.status(503), Transient, "gave up after 5 of 5 tries"),
    (faults.status(429, retry_after="86400"), RetryAfterTooLong, "asks to wait 86400 s"),
    (faults.status(429, retry_after="9" * 400), RetryAfterTooLong, "asks to wait"),
    (faults.bomb(), BadAnswer, "larger than"),
    (faults.without_has_more(), BadAnswer, "hasMore"),
    (faults.wrong_total(), IncompleteRange, "where CCS counts"),
    (faults.redirect("http://localhost:1/"), Permanent, "redirects are never followed"),
    (faults.renamed("personId", "id"), BadAnswer, "personId"),
    (faults.html(), BadAnswer, "JSON"),
]


@pytest.mark.parametrize(("fault", "error", "message"), LASTING, ids=[f"{one.name}" for one, _, _ in LASTING])
def test_one_that_lasts_ends_the_pass_with_a_clear_error_and_the_next_goes_on(faulty, fault, error, message):
    faulty.faults.script(fault, where=faults.entity_pages, times=10**6)
    with pytest.raises(error, match=message):
        steps.initial(faulty.site)
    faulty.faults.stop()
    with faulty.site.ledger.write() as db:
        for batch in unfinished(db):
            if batch.aside is Aside.STOPPED:  # an incomplete range is for an operator to look at
                resume(db, batch.key.owner)
    steps.initial(faulty.site)
    faulty.world.sandbox.ccs.change(CHANGES, seed=1)
    faulty.recover()


def test_a_burst_longer_than_the_budget_leaves_a_claim_that_the_next_pass_finishes(faulty):
    steps.initial(faulty.site)
    faulty.world.sandbox.ccs.change(CHANGES, seed=1)
    faulty.faults.script(faults.status(503, after_effect=True), where=faults.transitions, times=10**6)
    faulty.faults.script(faults.status(503), where=faults.searches, after=8, times=10**6)
    with pytest.raises(Transient):
        steps.incremental(faulty.site)
    faulty.faults.stop()
    faulty.recover()


def test_an_answer_that_a_gateway_finds_too_large_holds_up_no_other(faulty):
    steps.initial(faulty.site)
    faulty.world.sandbox.ccs.change(CHANGES, seed=1)
    steps.incremental(faulty.site)
    faulty.world.sandbox.dacs.wait_until_idle()
    with faulty.site.ledger.read() as db:
        largest = requests.unanswered(db, 1)[0][0]  # answers are told in the order of the ids
    faulty.faults.script(faults.status(413), where=lambda call: call.path.endswith(largest), times=10**6)
    with held(faulty.site, ACKNOWLEDGEMENTS) as lease:
        settled = settle(faulty.site, lease)
    assert settled.still_due == [largest]
    assert settled.by_settlement.total() > 1
    with faulty.site.ledger.read() as db:
        assert answers_due(db) == 1
    faulty.faults.stop()
    faulty.recover()


def test_a_silence_longer_than_a_call_may_take_is_no_answer(make_world):
    made = Faulty(make_world, ccs_call_seconds=0.3)
    steps.initial(made.site)
    made.world.sandbox.ccs.change(5, seed=1)
    made.faults.script(faults.silence(0.6), where=faults.transitions)
    made.faults.script(faults.drip(pieces=10**6, pause=0.05), where=faults.searches, after=2)
    steps.incremental(made.site)
    assert {"silence", "drip"} <= set(made.faults.met)
    made.recover()


def test_entities_that_change_come_and_go_while_paging(faulty):
    ccs = faulty.world.sandbox.ccs
    faulty.faults.script(
        faults.first("change", lambda: ccs.change(3), faults.entity_pages), where=faults.entity_pages, times=12
    )
    victims = [person for person, _ in ccs.records("person")][::9]
    gone = faults.first("delete", lambda: victims and ccs.delete("person", victims.pop()))
    faulty.faults.script(gone, where=faults.entity_pages, after=2, times=2)
    steps.initial(faulty.site)
    faulty.faults.stop()
    faulty.recover()


def test_a_token_that_ends_in_mid_run_and_a_token_endpoint_that_is_down_for_a_moment(make_world):
    made = Faults(SEED)
    oauth = {"ccs_auth": "oauth", "ccs_client_id": "sandbox", "ccs_client_secret": "sandbox"}
    world = make_world(
        sandbox={"persons": 40, "auth": "oauth"},
        settings={**oauth, "ccs_page_size": 10, "ccs_token_url": "http://127.0.0.1:1/"},
        middleware=made,
    )
    with steps.quick_site(
        load_settings(**world.settings.model_dump() | {"ccs_token_url": f"{world.sandbox.base_url}/oauth/token"})
    ) as site:
        made.script(faults.first("expired", world.sandbox.expire_tokens), where=faults.entity_pages, after=2, times=2)
        made.script(faults.status(503), where=faults.tokens, after=1)
        made.script(faults.first("expired", world.sandbox.expire_tokens), where=faults.transitions, after=2, times=2)
        steps.initial(site)
        world.sandbox.ccs.change(CHANGES, seed=1)
        settle_down(world, site)
        assert made.met == {"expired": 4, "503": 1}
        assert broken(world) == []


def test_no_call_and_no_credential_follows_a_redirect(faulty):
    called = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.3)
        thread = threading.Thread(target=lambda: _accepts(elsewhere, called))
        thread.start()
        faulty.faults.script(faults.redirect(f"http://127.0.0.1:{elsewhere.getsockname()[1]}/"), times=10**6)
        with pytest.raises(Permanent):
            steps.initial(faulty.site)
        thread.join()
    assert not called.is_set()


def _accepts(listener: socket.socket, called: threading.Event) -> None:
    try:
        listener.accept()[0].close()
    except TimeoutError:
        return
    called.set()


def test_a_mix_of_all_that_can_be_survived(faulty):
    faulty.faults.mix(faults.survivable(), share=0.2)
    ccs = faulty.world.sandbox.ccs
    failures, works = 0, [lambda: steps.initial(faulty.site, shards=2), *[lambda: _pass(faulty)] * 8]
    while works and failures < 30:
        ccs.change(CHANGES)
        try:
            works[0]()
            works.pop(0)
        except CcsError:
            failures += 1
    faulty.faults.stop()
    faulty.recover()
    met = faulty.faults.met
    assert not works, f"seed {SEED}: {failures} passes failed, {met}"
    assert len(met) >= 12, f"seed {SEED}: {met}"
    assert met.total() > 40, f"seed {SEED}: {met}"


def _pass(faulty: Faulty) -> None:
    steps.incremental(faulty.site)
    faulty.world.sandbox.dacs.wait_until_idle()
    steps.answers(faulty.site)
