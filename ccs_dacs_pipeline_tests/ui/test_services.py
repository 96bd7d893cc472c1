"""From a change in CCS to the row in DACS and its answer back, with nobody but the sensors at work."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from ccs_dacs_pipeline.definitions import build_defs
from ccs_dacs_pipeline_tests.ui.conftest import Services, until

pytestmark = pytest.mark.long

ARRIVAL_SECONDS = 120.0
CHROMIUM = shutil.which("chromium")
WINDOW = {"width": 2900, "height": 1400}  # narrower, and the graph is drawn too small for names
# Chromium's own background calls would only meet a closed network.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

LATEST = """query($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset {
  assetMaterializations(limit: 1) { partition metadataEntries { label } } } } }"""
SENSORS = """{ sensorsOrError(repositorySelector: {repositoryName: "__repository__",
  repositoryLocationName: "%s"}) { ... on Sensors { results { name sensorState { status } } } } }"""

# As the page of a job asks for its runs, and the button "Re-execute all".
RUNS = """query($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results { runId } } } }"""
AGAIN = """mutation($parameters: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $parameters) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"


def test_the_sensors_bring_changes_to_dacs_and_answers_back(services: Services, capsys):
    assert services.get("comparison")["holds"]
    seen = services.get("dacs/summary")["manifests"]
    began = time.monotonic()
    changed = services.change(20)["changed"]
    until("a row is in DACS", lambda: services.get("dacs/summary")["manifests"] > seen, ARRIVAL_SECONDS)
    arrived = time.monotonic() - began

    def settled() -> bool:
        states = services.get("ccs/summary")["sync_requests"]
        return not states["PENDING"] and not states["AWAITINGACK"]

    until("every request is final", settled, ARRIVAL_SECONDS)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{changed} changes: at DACS after {arrived:.1f} s, settled in {time.monotonic() - began:.1f} s\n"
        )

    assert services.get("comparison")["holds"]
    assert services.get("dacs/summary")["violations"] == []
    reconciled = services.command("reconcile", "--json")
    assert reconciled.returncode == 0, reconciled.stdout
    assert json.loads(reconciled.stdout)["holds"]


def test_the_ui_shows_every_asset_of_the_batch_with_its_figures(services: Services):
    def latest(*path: str) -> dict:
        found = services.graphql(LATEST, key={"path": list(path)})["assetOrError"]["assetMaterializations"]
        return found[0] if found else {}

    until("a batch is reconciled", lambda: latest("upload", "reconciliation"), ARRIVAL_SECONDS)
    labels = {entry["label"] for entry in latest("dacs", "contact")["metadataEntries"]}
    assert {"dagster/row_count", "quarantined", "cleaned values", "seconds", "dagster/column_lineage"} <= labels
    labels = {entry["label"] for entry in latest("extract", "contact")["metadataEntries"]}
    assert {"files", "sha256", "bytes"} <= labels


def test_the_sensors_are_on(services: Services):
    found = services.graphql(SENSORS % services.location)["sensorsOrError"]["results"]
    assert {one["name"]: one["sensorState"]["status"] for one in found} == {
        "foreign_files": "RUNNING",
        "pending_sync_requests": "RUNNING",
        "stored_acknowledgements": "RUNNING",
    }


def test_a_run_of_a_command_is_on_the_page_of_its_job_and_can_be_executed_again(services: Services):
    repository = {"key": ".dagster/repository", "value": f"__repository__@{services.location}"}
    page = services.graphql(RUNS, filter={"pipelineName": "initial_sync", "tags": [repository]})
    initial = page["runsOrError"]["results"][-1]["runId"]
    answer = services.graphql(AGAIN, parameters={"parentRunId": initial, "strategy": "ALL_STEPS"})
    again = answer["launchRunReexecution"]
    assert again["__typename"] == "LaunchRunSuccess", again
    run = again["run"]["runId"]
    ended = {"SUCCESS", "FAILURE", "CANCELED"}
    until("it ends", lambda: services.graphql(STATUS, run=run)["runOrError"]["status"] in ended, ARRIVAL_SECONDS)
    assert services.graphql(STATUS, run=run)["runOrError"]["status"] == "SUCCESS"


@pytest.mark.browser
def test_the_lineage_shows_every_asset(services: Services, tmp_path: Path):
    """Saves the picture where CCS_DACS_TEST_SCREENSHOT says: docs/lineage.png is made so."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed; .ci/run installs it")
    playwright = pytest.importorskip("playwright.sync_api", reason="requirements/browser.txt is not installed")
    picture = Path(os.environ.get("CCS_DACS_TEST_SCREENSHOT", tmp_path / "lineage.png"))
    names = {key.path[-1] for key in build_defs().resolve_asset_graph().get_all_asset_keys()}
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport=WINDOW)
        page.goto(f"{services.dagster}/asset-groups", wait_until="domcontentloaded")
        playwright.expect(page.get_by_text("extract", exact=True).last).to_be_visible(timeout=60_000)
        page.keyboard.press("Alt+e")  # expands all groups
        for name in names:
            playwright.expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=60_000)
        playwright.expect(page.get_by_text("Loading")).to_have_count(0, timeout=60_000)
        page.screenshot(path=picture, animations="disabled")
        browser.close()
    assert picture.stat().st_size > 10_000
