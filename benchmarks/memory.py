"""Peak memory of the initial synchronization against the number of customers."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from benchmarks import pipeline
from benchmarks.report import MIB, Grid, Report, tell
from benchmarks.sandbox import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def benchmark(folder: Path, *, sizes: Sequence[int], settings: Mapping[str, object]) -> Report:
    """Runs the pipeline once at each size.

    Args:
        folder: an empty folder for everything.
        sizes: persons, each with service points and agreements in proportion.
        settings: settings of the pipeline, without prefix.
    """
    results = [_one(folder, persons, settings) for persons in sizes]
    peaks = [one["peak"] for one in results]
    page_size, concurrency = pipeline.paging(settings)
    report = Report(
        "memory",
        {"sizes": list(sizes), "settings": dict(settings), "page_size": page_size, "concurrency": concurrency},
        results=results,
        ratios={"largest / smallest peak": max(peaks) / min(peaks)},
        notes=["Sum of PSS over the process tree of `ccs-dacs initial`, sampled every 50 ms; reading it costs CPU."],
    )
    rows = [
        (
            f"{one['persons']:,}",
            f"{one['rows']:,}",
            f"{one['peak'] / MIB:,.0f}",
            f"{one['peak'] / peaks[0]:.2f}",
            f"{one['seconds']:,.1f}",
            f"{one['rate']:,.0f}",
            f"{one['cpu']:,.1f}",
        )
        for one in results
    ]
    head = ("persons", "records", "peak PSS MiB", "of the first", "seconds", "records/s", "CPU s")
    report.tables = [Grid("Memory of `ccs-dacs initial` against size", head, rows)]
    return report


def _one(folder: Path, persons: int, settings: Mapping[str, object]) -> dict[str, Any]:
    data, place = folder / "run", folder / f"sandbox-{persons}"
    with SandboxProcess(place, persons) as sandbox:
        entities = sandbox.summary()["entities"]
        measured = pipeline.initial(data, sandbox, settings, memory="pss")
    stages = [vars(stage) for stage in pipeline.stages(data, measured)]
    shutil.rmtree(data)
    rows = sum(entities.values())
    tell(f"{persons:,} persons: {measured.peak / MIB:,.0f} MiB, {measured.seconds:.1f} s")
    return {
        "persons": persons,
        "rows": rows,
        "peak": measured.peak,
        "seconds": measured.seconds,
        "rate": rows / measured.seconds,
        "cpu": measured.cpu,
        "sandbox_cpu": measured.sandbox_cpu,
        "stages": stages,
        "series": [(round(one.at - measured.started, 2), one.memory) for one in measured.samples[::10]],
    }
