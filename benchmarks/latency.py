"""The initial synchronization with latency in each answer of CCS, against the same on loopback: the fetch window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import pipeline
from benchmarks.initial import summary
from benchmarks.report import Report
from benchmarks.sandbox import SandboxProcess
from benchmarks.variants import Variant, compare, table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def benchmark(folder: Path, *, persons: int, runs: int, latency: float, settings: Mapping[str, object]) -> Report:
    """Compares.

    Args:
        folder: an empty folder for everything.
        persons: size of the population.
        runs: rounds.
        latency: seconds added to each call.
        settings: settings of the pipeline, without prefix.
    """
    near, far = "loopback", f"{latency * 1000:.0f} ms a call"
    with (
        SandboxProcess(folder / "near", persons) as loopback,
        SandboxProcess(folder / "far", persons, latency=latency) as distant,
    ):
        found = compare(folder, [Variant(near, loopback, settings), Variant(far, distant, settings)], runs=runs)
    page_size, concurrency = pipeline.paging(settings)
    results = [summary(name, one) for name, one in found.items()]
    share = results[1]["rate"] / results[0]["rate"]
    report = Report(
        "latency",
        {"persons": persons, "runs": runs, "latency": latency, "page_size": page_size, "concurrency": concurrency},
        results=results,
        ratios={"with latency / loopback": share},
    )
    title = f"Latency: pages of {page_size:,}, {concurrency} at once, {results[0]['rows']:,} records, median of {runs}"
    report.tables = [table(title, "of loopback", results)]
    return report
