"""The benchmark of the initial synchronization runs, and its figures have the members that the docs are drawn from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.long

PERSONS = 200


def test_figures_of_fetching_and_of_the_pipeline(tmp_path: Path) -> None:
    out = tmp_path / "initial.json"
    words = ["initial", "--persons", str(PERSONS), "--runs", "1", "--peers", "--json", str(out)]
    assert main([*words, "--folder", str(tmp_path)]) == 0
    figures = json.loads(out.read_text())
    assert set(figures) == {"benchmark", "options", "results", "ratios", "stages", "notes", "machine", "at"}
    assert figures["options"]["rows"]["contact"] == PERSONS
    by_name = {one["name"]: one for one in figures["results"]}
    assert list(by_name) == ["fetch", "fetch-own-client", "pipeline"]
    rows = sum(figures["options"]["rows"].values())
    for one in by_name.values():
        assert one["rows"] == rows
        assert one["rate"] > 0
        assert one["seconds"] > 0
        assert one["cpu"] >= 0
        assert one["sandbox_cpu"] >= 0
        assert one["peak"] > 0
        assert len(one["runs"]) == 1
    assert set(figures["ratios"]) == {"pipeline / fetch", "pipeline / fetch-own-client"}
    assert {"ccs__person", "dacs__contact", "extract__contact"} <= {stage["name"] for stage in figures["stages"]}


def test_figures_of_zipped_files_beside_plain_ones(tmp_path: Path) -> None:
    out = tmp_path / "zip.json"
    words = ["initial", "--zip", "--persons", str(PERSONS), "--runs", "1", "--json", str(out)]
    assert main([*words, "--folder", str(tmp_path)]) == 0
    figures = json.loads(out.read_text())
    assert [one["name"] for one in figures["results"]] == ["plain", "zip"]
    assert figures["results"][0]["rows"] == figures["results"][1]["rows"] > PERSONS
    assert figures["ratios"]["seconds with zip / plain"] > 0
