"""What several rooms' tests share: the world of a test, with a sandbox, an inbox and a site of its own."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from ccs_dacs_pipeline.cli.services import served
from ccs_dacs_pipeline.cli.work import Worker
from ccs_dacs_pipeline.dacs.inbox import BearerCaller, inbox
from ccs_dacs_pipeline.entities import ENTITIES
from ccs_dacs_pipeline.ledger import report
from ccs_dacs_pipeline.sandbox import Sandbox, SandboxConfig
from ccs_dacs_pipeline.settings import PREFIX, Settings, load_settings
from ccs_dacs_pipeline.sync.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ccs_dacs_pipeline.sandbox.server import Middleware

WAIT = 30.0
TOKEN = "inbox-token"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has the settings that it makes; the test databases' names stay."""
    for name in list(os.environ):
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv(f"{PREFIX}ENV_FILE", "")


@dataclass
class World:
    """A simulated CCS and DACS, and a pipeline of its own between them."""

    sandbox: Sandbox
    settings: Settings
    site: Site
    instance: dg.DagsterInstance

    @property
    def worker(self) -> Worker:
        """What the commands use; each has a holder's name of its own."""
        return Worker(self.site, self.instance)

    def environment(self, **settings: object) -> dict[str, str]:
        """The environment of a process of its own on this world's site and a Dagster instance in its data folder.

        Further settings are given in lower case and without prefix.
        """
        data = self.settings.data_path
        mine = {
            "data_dir": data,
            "env_file": "",
            "ccs_base_url": self.sandbox.base_url,
            "ccs_username": "sandbox",
            "ccs_password": self.sandbox.config.password,
            "ccs_page_size": 50,
            **settings,
        }
        named = {f"{PREFIX}{name.upper()}": str(value) for name, value in mine.items()}
        return os.environ | named | {"DAGSTER_HOME": str(data / "dagster")}

    def initial(self, shards: int = 1) -> dict[str, Any]:
        """An initial synchronization, read by DACS."""
        figures = self.worker.initial(shards=shards, new=False, wait=WAIT)
        self.sandbox.dacs.wait_until_idle(WAIT)
        return figures

    def sync(self) -> dict[str, Any]:
        """An incremental pass, read and answered by DACS, its answers taken to CCS."""
        figures = self.worker.sync(wait=WAIT)
        self.sandbox.dacs.wait_until_idle(WAIT)
        self.worker.deliver_acknowledgements(wait=WAIT)
        return figures

    def reconcile(self) -> dict[str, Any]:
        """The control equations."""
        with self.site.ledger.read() as db:
            return report.reconcile(db, [entity.name for entity in ENTITIES])

    def status(self) -> dict[str, Any]:
        """The status report."""
        with self.site.ledger.read() as db:
            return report.status(db, self.settings.ack_timeout)

    def request_states(self) -> dict[str, int]:
        """How many sync requests CCS has in each state, those with none left out."""
        states = self.sandbox.ccs.summary()["sync_requests"]
        return {state: number for state, number in states.items() if number}

    def assert_quiet(self) -> None:
        """Asserts what must hold whenever all is at rest (faults.md, O1 to O5)."""
        assert not self.sandbox.dacs.violations
        compared = self.sandbox.compare()
        assert {name: one.as_json() for name, one in compared.items() if not one.holds} == {}
        figures = self.reconcile()
        broken = [one for batch in figures["batches"] for one in batch["equations"] if not one["holds"]]
        assert not broken
        assert figures["holds"]
        assert not {"PENDING", "AWAITINGACK"} & set(self.request_states())


@contextmanager
def worlds(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Gives what makes worlds, all ended with the block.

    Its keyword arguments: `sandbox` and `settings` change the defaults, `middleware` wraps the sandbox.
    """
    with ExitStack() as stack:

        def make(
            *,
            sandbox: dict[str, Any] | None = None,
            settings: dict[str, Any] | None = None,
            middleware: Middleware | None = None,
        ) -> World:
            folder = tmp_path / f"world-{len(list(tmp_path.glob('world-*')))}"
            folder.mkdir()
            base: dict[str, Any] = {
                "data_dir": folder,
                "lease_seconds": 5,
                "ccs_call_seconds": 5,
                "ccs_username": "sandbox",
                "ccs_password": "sandbox",
                "ccs_page_size": 50,
            }
            ledger_site = stack.enter_context(Site(load_settings(**base | (settings or {}))))
            application = inbox(ledger_site.ledger, BearerCaller(TOKEN), max_bytes=10**7)
            inbox_url = stack.enter_context(served(application))
            defaults: dict[str, Any] = {
                "persons": 60,
                "poll_seconds": 0.02,
                "negative_share": 0.0,
                "upload_folder": folder / "upload",
                "inbox_url": inbox_url,
                "inbox_token": TOKEN,
            }
            config = SandboxConfig(**defaults | (sandbox or {}))
            running = stack.enter_context(Sandbox(config, middleware=middleware))
            chosen = load_settings(**base | {"ccs_base_url": running.base_url} | (settings or {}))
            site = stack.enter_context(Site(chosen))
            instance = stack.enter_context(dg.DagsterInstance.ephemeral())
            return World(running, chosen, site, instance)

        yield make


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes a world: keyword arguments `sandbox`, `settings` and `middleware` change its defaults."""
    with worlds(tmp_path) as make:
        yield make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A world with the defaults."""
    return make_world()
