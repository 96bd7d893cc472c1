"""Incremental passes: from the sensor's tick to the manifest, and a backlog worked off delta by delta.

In this process, on a real instance with a real ledger: the sensor is evaluated and the run that it asks for is carried
out. The start of a process, which a daemon adds to every run alike, would only flatter the ratio.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import dagster as dg

from benchmarks import pipeline
from benchmarks.initial import stage_table
from benchmarks.machine import Failed, Measured, run_here
from benchmarks.report import Grid, Report, spread, tell
from benchmarks.sandbox import SandboxProcess
from ccs_dacs_pipeline.partitions import SYNC_BATCH, Mode, SyncBatch
from ccs_dacs_pipeline.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ccs_dacs_pipeline.sync.site import Site

_JOB, _SENSOR = "incremental_sync", "pending_sync_requests"
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Pass:
    """One tick of the sensor and the run after it.

    Attributes:
        measured: what it took.
        manifest: seconds from the tick to the manifest in the upload folder; None without one.
        stages: where the time went.
    """

    measured: Measured
    manifest: float | None
    stages: list[pipeline.Stage]


class Passes:
    """Evaluates the sensor and carries out runs, as the daemon would."""

    def __init__(self, site: Site, instance: dg.DagsterInstance, sandbox: SandboxProcess) -> None:
        # Dagster's own remarks, on betas and on steps that yield nothing, are no concern of the figures.
        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        logging.disable(logging.WARNING)
        from ccs_dacs_pipeline.definitions import build_defs  # noqa: PLC0415 - reads the settings of the environment

        self._site, self._instance, self._sandbox = site, instance, sandbox
        self._resource = dg.ResourceDefinition.hardcoded_resource(site)
        self._defs = build_defs(overrides={"site": self._resource})
        self._number = 0

    def one(self, *, empty: bool = False) -> Pass:
        """A tick and its run; where nothing is pending the sensor skips, and the run is carried out all the same.

        Raises:
            Failed: the sensor saw something else than expected, or the run failed.
        """
        done: list[tuple[str, str]] = []
        measured = run_here(lambda: done.append(self._tick(empty=empty)), sandbox=self._sandbox)
        key, run_id = done[0]
        path = self._site.settings.data_path / "upload" / f"MANIFEST_{key}_00.json"
        manifest = path.stat().st_mtime - measured.started if path.exists() else None
        return Pass(measured, manifest, pipeline.stages_of(self._instance, run_id, measured))

    def _tick(self, *, empty: bool) -> tuple[str, str]:
        asked = self.asked()
        if (asked is None) != empty:
            raise Failed(f"The sensor asked for {asked} where {'nothing' if empty else 'work'} was pending.")
        key = asked or str(SyncBatch(Mode.DELTA, self._number + 1))
        self._number = SyncBatch.parse(key).number
        self._instance.add_dynamic_partitions(SYNC_BATCH, [key])
        result = self._defs.resolve_job_def(_JOB).execute_in_process(
            instance=self._instance, partition_key=key, raise_on_error=False, run_config=_QUIET
        )
        if not result.success:
            raise Failed(f"The run of {key} failed; run {result.run_id}.")
        return key, result.run_id

    def asked(self) -> str | None:
        """The partition that the sensor asks a run for."""
        sensor = self._defs.resolve_sensor_def(_SENSOR)
        # As the daemon makes it: with the instance's reference, so that partitions asked for count as there.
        context = dg.SensorEvaluationContext(
            instance_ref=self._instance.get_ref(),
            instance=self._instance,
            definitions=self._defs,
            resources={"site": self._resource},
        )
        with context:
            asked = sensor.evaluate_tick(context).run_requests
        return str(asked[0].partition_key) if asked else None


@contextmanager
def opened(data: Path, sandbox: SandboxProcess, settings: Mapping[str, object]) -> Iterator[Passes]:
    """Yields passes on a new site; the settings stand in this process's environment meanwhile."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(pipeline.environment(data, sandbox, settings))
    try:
        from ccs_dacs_pipeline.cli import work  # noqa: PLC0415 - reads the settings of the environment

        loaded = load_settings()
        work.dagster_home(loaded)
        with work.opened_site(loaded) as site, dg.DagsterInstance.get() as instance:
            yield Passes(site, instance, sandbox)
    finally:
        os.environ.clear()
        os.environ.update(before)


def benchmark(
    folder: Path, *, persons: int, runs: int, requests: int, backlog: int, settings: Mapping[str, object]
) -> Report:
    """Measures both.

    Args:
        folder: an empty folder for everything.
        persons: size of the population.
        runs: rounds of an empty pass, one with a single request, and one with `requests`.
        requests: sync requests of a pass.
        backlog: sync requests that are worked off at the end; 0 leaves that out.
        settings: settings of the pipeline, without prefix.
    """
    with (
        SandboxProcess(folder / "sandbox", persons) as sandbox,
        opened(folder / "data", sandbox, settings) as passes,
    ):
        passes.one(empty=True)  # what the first run of a process loads is not a pass's cost
        found = _rounds(passes, sandbox, runs, requests)
        series = _work_off(passes, sandbox, backlog) if backlog else []
    return _report(found, series, persons=persons, runs=runs, requests=requests, settings=settings)


def _rounds(passes: Passes, sandbox: SandboxProcess, runs: int, requests: int) -> dict[str, list[Pass]]:
    found: dict[str, list[Pass]] = {"nothing pending": [], "1 request": [], f"{requests:,} requests": []}
    for _ in range(runs):
        for (name, done), count in zip(found.items(), (0, 1, requests), strict=True):
            if count:
                sandbox.pending_at_least(count)
            done.append(passes.one(empty=not count))
            tell(f"  {name}: {done[-1].measured.seconds:.2f} s")
    return found


def _pending(sandbox: SandboxProcess) -> int:
    return int(sandbox.summary()["sync_requests"].get("PENDING", 0))


def _work_off(passes: Passes, sandbox: SandboxProcess, backlog: int) -> list[dict[str, Any]]:
    """Works a backlog off; the series says what was pending after each delta."""
    sandbox.pending_at_least(backlog)
    series = [{"seconds": 0.0, "pending": _pending(sandbox)}]
    begun = time.perf_counter()
    while passes.asked():
        passes.one()
        series.append({"seconds": time.perf_counter() - begun, "pending": _pending(sandbox)})
        tell(f"  {series[-1]['pending']:,} pending after {series[-1]['seconds']:.1f} s")
    return series


def _report(
    found: Mapping[str, list[Pass]],
    series: list[dict[str, Any]],
    *,
    persons: int,
    runs: int,
    requests: int,
    settings: Mapping[str, object],
) -> Report:
    results = []
    for name, passes in found.items():
        manifests = [one.manifest for one in passes if one.manifest is not None]
        results.append(
            {
                "name": name,
                "seconds": median(one.measured.seconds for one in passes),
                "manifest_seconds": median(manifests) if manifests else None,
                "cpu": median(one.measured.cpu for one in passes),
                "sandbox_cpu": median(one.measured.sandbox_cpu for one in passes),
                "runs": [one.measured.seconds for one in passes],
            }
        )
    nothing, single, many = (one["seconds"] for one in results)
    full = sorted(list(found.values())[-1], key=lambda one: one.measured.seconds)
    report = Report(
        "delta",
        {"persons": persons, "runs": runs, "requests": requests, "settings": dict(settings)},
        results=[*results, *([{"name": "backlog", "series": series}] if series else [])],
        ratios={"requests / nothing pending": many / nothing, "requests / 1 request": many / single},
        stages=[asdict(stage) for stage in full[(len(full) - 1) // 2].stages],
        notes=[
            "Nothing pending: the run's first asset finds that, and Dagster skips the rest of the graph.",
            "1 request: every asset of the graph runs, with next to no rows.",
        ],
    )
    report.tables = [_passes_table(results, runs), stage_table(report.stages)]
    if series:
        report.tables.append(_series_table(series))
        worked = series[0]["pending"] - series[-1]["pending"]
        report.ratios["backlog requests/hour"] = worked / series[-1]["seconds"] * 3600
    return report


def _passes_table(results: list[dict[str, Any]], runs: int) -> Grid:
    rows = [
        (
            one["name"],
            spread(one["runs"]),
            f"{one['manifest_seconds']:.1f}" if one["manifest_seconds"] is not None else "-",
            f"{one['seconds'] / results[0]['seconds']:.2f}",
            f"{one['seconds'] / results[1]['seconds']:.2f}",
            f"{one['cpu']:.1f}",
            f"{one['sandbox_cpu']:.1f}",
        )
        for one in results
    ]
    head = ("pending", "seconds", "to the manifest", "of nothing", "of 1 request", "CPU s", "sandbox's CPU s")
    return Grid(f"Delta: from the sensor's tick to the end of the run, median of {runs}", head, rows)


def _series_table(series: list[dict[str, Any]]) -> Grid:
    rows = [(f"{one['seconds']:.1f}", f"{one['pending']:,}") for one in series]
    return Grid("Backlog", ("seconds", "pending"), rows)
