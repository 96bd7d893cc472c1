"""The whole story on a temporary sandbox: arrive, change, arrive again, be acknowledged, add up."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccs_dacs_pipeline.cli import work
from ccs_dacs_pipeline.cli.console import progress, say
from ccs_dacs_pipeline.cli.services import served
from ccs_dacs_pipeline.dacs.inbox import inbox
from ccs_dacs_pipeline.entities import ENTITIES
from ccs_dacs_pipeline.ledger import report
from ccs_dacs_pipeline.sandbox import Sandbox, SandboxConfig
from ccs_dacs_pipeline.settings import PREFIX, load_settings
from ccs_dacs_pipeline.sync.site import Site, inbox_caller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ccs_dacs_pipeline.sandbox import ChangeSummary
    from ccs_dacs_pipeline.sandbox.entities import CcsEntity

_WAIT_SECONDS = 600.0
_NEGATIVE_SHARE = 0.02
_SPOILT_EACH = 3
_SPOILERS: dict[CcsEntity, Callable[[dict[str, Any]], None]] = {
    "person": lambda person: person.update(emailAddress="a" * 254 + "@example.com"),
    "service_point": lambda point: point.update(sourceStatus="X "),
    "service_agreement": lambda agreement: agreement.update(startDate="2026-02-30"),
}


def run(*, persons: int, changes: int, seed: int, shards: int) -> dict[str, Any]:
    """Tells the story and returns the last table's figures: `holds`, and a line for each entity."""
    with tempfile.TemporaryDirectory(prefix="ccs-dacs-demo-") as folder, _world(Path(folder), persons, seed) as sandbox:
        _tell_population(sandbox)
        with work.opened() as worker:
            say(f"1. Initial synchronization, {shards} shards")
            worker.initial(shards=shards, new=False, wait=_WAIT_SECONDS)
            _await_dacs(sandbox)
            if changes:
                made = sandbox.ccs.change(changes, seed=seed)
                say(f"2. {made.changed:,} changes in CCS: {_listed(made.by_kind)}")
                say(f"   and {_spoil(sandbox, made)} records spoilt, which the rules of the layout will quarantine")
                say("3. Incremental synchronization")
                worker.sync(wait=_WAIT_SECONDS)
                _await_dacs(sandbox)
                say("4. Acknowledgements to CCS")
                worker.deliver_acknowledgements(wait=_WAIT_SECONDS)
            say("5. Reconciliation")
            return _compare(worker.site, sandbox)


@contextmanager
def _world(folder: Path, persons: int, seed: int) -> Iterator[Sandbox]:
    """A sandbox, an inbox, and the settings that point to them; the site's own settings are put away meanwhile."""
    token = secrets.token_urlsafe()
    mine = {"DATA_DIR": str(folder / "data"), "ENV_FILE": "", "ACK_AUTH": "bearer", "ACK_TOKEN": token}
    with _environment(mine), Site(load_settings()) as site:
        caller = inbox_caller(site.settings)
        with served(inbox(site.ledger, caller, max_bytes=int(site.settings.ack_max_bytes))) as inbox_url:
            config = SandboxConfig(
                persons=persons,
                seed=seed,
                negative_share=_NEGATIVE_SHARE,
                upload_folder=Path(site.settings.folder("upload")),
                inbox_url=inbox_url,
                inbox_token=token,
            )
            say(f"A utility of {persons:,} persons is made (seed {seed}).")
            with Sandbox(config) as sandbox:
                reach = {
                    "CCS_BASE_URL": sandbox.base_url,
                    "CCS_USERNAME": config.username,
                    "CCS_PASSWORD": config.password,
                }
                with _environment(mine | reach):
                    yield sandbox


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets exactly these settings in the environment, and DAGSTER_HOME to its default, while the block runs."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(PREFIX) or name == "DAGSTER_HOME":
            del os.environ[name]
    os.environ.update({f"{PREFIX}{name}": value for name, value in values.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _tell_population(sandbox: Sandbox) -> None:
    summary = sandbox.ccs.summary()
    say(f"CCS at {sandbox.base_url} has: {_listed(summary['entities'])}.")


def _spoil(sandbox: Sandbox, made: ChangeSummary) -> int:
    """Gives some changed records values that break a rule; returns how many.

    Only records that DACS holds already: their children are sent all the same, and find them there.
    """
    spoilt = 0
    for entity, alter in _SPOILERS.items():
        for entity_id in made.ids[entity][:_SPOILT_EACH]:
            sandbox.ccs.edit(entity, entity_id, alter)
            spoilt += 1
    return spoilt


def _await_dacs(sandbox: Sandbox) -> None:
    """Waits until DACS has read all files and posted all answers."""
    with progress("DACS reads", lambda: ""):
        sandbox.dacs.wait_until_idle(timeout=_WAIT_SECONDS)


def _compare(site: Site, sandbox: Sandbox) -> dict[str, Any]:
    """Holds CCS against DACS: the pipeline's figures, and the sandbox's own comparison of both contents."""
    compared = sandbox.compare()
    with site.ledger.read() as db:
        figures = report.reconcile(db, [entity.name for entity in ENTITIES])
        status = report.status(db, site.settings.ack_timeout)
    lines = []
    for line in figures["entities"]:
        found = compared[line["entity"]]
        rules = Counter(one["rule"] for one in status["quarantined"] if one["entity"] == line["entity"])
        difference = found.ccs_eligible - rules.total() - len(found.last_negative) - found.held_equal
        lines.append(
            line
            | {
                "eligible": found.ccs_eligible,
                "quarantined": dict(rules),
                "lastNegative": len(found.last_negative),
                "heldEqual": found.held_equal,
                "difference": difference,
            }
        )
    settled = not any(line["awaiting"] for line in lines)
    return {
        "holds": figures["holds"]
        and settled
        and not sandbox.dacs.violations
        and not any(line["difference"] for line in lines),
        "violations": [str(one) for one in sandbox.dacs.violations],
        "entities": lines,
        "batches": figures["batches"],
    }


def _listed(figures: dict[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in figures.items())
