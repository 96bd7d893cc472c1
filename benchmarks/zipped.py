"""The initial synchronization with zipped extract files, against the same with plain ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.extract import ZIPPED
from benchmarks.initial import summary
from benchmarks.report import Report
from benchmarks.sandbox import SandboxProcess
from benchmarks.variants import Variant, compare, table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def benchmark(folder: Path, *, persons: int, runs: int, settings: Mapping[str, object]) -> Report:
    """Compares; the rows in the zips must be those of the plain files.

    Args:
        folder: an empty folder for everything.
        persons: size of the population.
        runs: rounds.
        settings: settings of the pipeline, without prefix.
    """
    with SandboxProcess(folder / "sandbox", persons) as sandbox:
        zipped = {**settings, "FILE_NAME_TEMPLATE": ZIPPED}
        found = compare(folder, [Variant("plain", sandbox, settings), Variant("zip", sandbox, zipped)], runs=runs)
    results = [summary(name, one) for name, one in found.items()]
    plain, packed = results
    report = Report(
        "zip",
        {"persons": persons, "runs": runs, "settings": dict(settings)},
        results=results,
        ratios={"seconds with zip / plain": packed["seconds"] / plain["seconds"]},
    )
    report.tables = [
        table(f"Initial with zipped files: {plain['rows']:,} records, median of {runs}", "of plain", results)
    ]
    return report
