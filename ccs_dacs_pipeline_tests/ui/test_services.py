"""From a change in CCS to the row in DACS and its answer back, with nobody but the sensors at work."""

from __future__ import annotations

import json
import sys
import time

import pytest

from ccs_dacs_pipeline_tests.ui.conftest import Services, until

pytestmark = pytest.mark.xdist_group("services")  # they share the running services
ARRIVAL_SECONDS = 120.0

LATEST = """query($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset {
  assetMaterializations(limit: 1) { partition metadataEntries { label } } } } }"""
SENSORS = """{ sensorsOrError(repositorySelector: {repositoryName: "__repository__",
  repositoryLocationName: "%s"}) { ... on Sensors { results { name sensorState { status } } } } }"""


def test_the_sensors_bring_changes_to_dacs_and_answers_back(services: Services, capsys):
    seen = services.get("dacs/summary")["manifests"]
    initial = services.command("initial", "--json")
    assert initial.returncode == 0, initial.stderr
    until("DACS has read the snapshot", lambda: services.get("dacs/summary")["manifests"] == seen + 1, ARRIVAL_SECONDS)
    assert services.get("comparison")["holds"]

    began = time.monotonic()
    changed = services.change(20)["changed"]
    until("a row is in DACS", lambda: services.get("dacs/summary")["manifests"] == seen + 2, ARRIVAL_SECONDS)
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


def test_both_sensors_are_on(services: Services):
    found = services.graphql(SENSORS % services.location)["sensorsOrError"]["results"]
    assert {one["name"]: one["sensorState"]["status"] for one in found} == {
        "pending_sync_requests": "RUNNING",
        "stored_acknowledgements": "RUNNING",
    }
