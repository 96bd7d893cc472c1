"""No secret and no personal value shows in a log, in Dagster's databases, or in what the UI is sent (faults.md, O6)."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from ccs_dacs_pipeline_tests.canaries import Canaries

pytestmark = pytest.mark.long


def run(world, canaries_settings: dict[str, str], *words: str) -> str:
    """Runs a command on the world's site with every log line on; returns all that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "ccs_dacs_pipeline.cli", *words],
        env=canaries_settings | world.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


def test_canaries_show_nowhere(make_world):
    canaries = Canaries()
    password = canaries.plant("CCS_DACS_CCS_PASSWORD")
    world = make_world(
        sandbox={"password": password, "bad_share": 0.05, "negative_share": 0.2}, settings={"ccs_password": password}
    )
    sandbox = world.sandbox

    def plant(record: dict[str, Any]) -> None:
        record.update(canaries.planted(dict(record)))

    for entity in ("person", "service_point", "service_agreement"):
        for entity_id, _ in list(sandbox.ccs.records(entity)):
            sandbox.ccs.edit(entity, entity_id, plant)
    printed = [run(world, canaries.settings(), "initial")]
    sandbox.dacs.wait_until_idle()
    person = next(iter(sandbox.ccs.records("person")))[0]
    long = canaries.plant("emailAddress", "{}" + "x" * 254)
    sandbox.ccs.edit("person", person, lambda record: record.update(emailAddress=long))
    point = next(iter(sandbox.ccs.records("service_point")))[0]
    odd = canaries.plant("latitude")
    sandbox.ccs.edit("service_point", point, lambda record: record["premise"].update(geocodeLatitude=odd))
    # A member of another type than the contract's ends the run; its value must not show either.
    printed.append(run(world, canaries.settings(), "sync"))
    wrong = {"given": canaries.plant("emailAddress as an object")}
    sandbox.ccs.edit("person", person, lambda record: record.update(emailAddress=wrong))
    printed += [
        run(world, canaries.settings(), *words) for words in (["sync"], ["status"], ["batch", "show", "delta-1"])
    ]
    assert any("emailAddress" in text for text in printed)  # the bad answer is named by its member
    assert canaries.in_text(*printed) == []
    assert canaries.under(world.settings.data_path / "dagster") == []
