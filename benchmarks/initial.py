"""The initial synchronization beside merely fetching the same pages, and beside its peers, in interleaved runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import peer_tools, pipeline
from benchmarks.equality import RowSet, check_same, row_sets
from benchmarks.machine import Measured, run
from benchmarks.report import MIB, Grid, Report, spread, tell
from benchmarks.sandbox import USER, SandboxProcess, clean_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.peer_tools import Peer

OURS, FETCH, FETCH_OWN = "pipeline", "fetch", "fetch-own-client"
_LABELS = {
    OURS: "ccs-dacs initial",
    FETCH: "fetch only, httpx",
    FETCH_OWN: "fetch only, the project's client",
    **{peer.name: peer.label for peer in peer_tools.PEERS},
}


class Comparison:
    """Runs of several tools on one sandbox, one after the other in each round."""

    def __init__(self, folder: Path, sandbox: SandboxProcess, settings: Mapping[str, object]) -> None:
        self._folder, self._sandbox, self._settings = folder, sandbox, settings
        self.page_size, self.concurrency = pipeline.paging(settings)
        self.results: dict[str, list[dict[str, Any]]] = {}
        self.stages: list[list[pipeline.Stage]] = []
        self.expected: dict[str, RowSet] = {}

    def round(self, peers: Sequence[Peer]) -> None:
        """Runs everything once. The pipeline comes before the peers, whose rows are held against its."""
        self._note(FETCH, *self._fetch("httpx"))
        self._note(FETCH_OWN, *self._fetch("pipeline"))
        self._in_folder(self._ours)
        for peer in peers:
            self._in_folder(lambda folder, peer=peer: self._peer(peer, folder))

    def _fetch(self, client: str) -> tuple[Measured, int, dict[str, float]]:
        options = {"url": self._sandbox.url, "user": USER, "page-size": self.page_size, "concurrency": self.concurrency}
        words = [pipeline.COMMAND[0], "-m", "benchmarks.fetch", client]
        for name, value in options.items():
            words += [f"--{name}", str(value)]
        measured = run(words, env=clean_environment(), sandbox=self._sandbox)
        figures = json.loads(measured.output)
        # Without the start of the interpreter: the bound is what the network alone takes.
        inner = {"seconds": figures["seconds"], "cpu": figures["cpu"], "bytes": figures["bytes"]}
        return measured, figures["records"], inner

    def _ours(self, folder: Path) -> None:
        measured = pipeline.initial(folder, self._sandbox, self._settings)
        found = row_sets(pipeline.files(folder), "plain")
        self.expected = self.expected or found
        check_same(OURS, found, self.expected)
        self.stages.append(pipeline.stages(folder, measured))
        self._note(OURS, measured, sum(one.rows for one in found.values()), {})

    def _peer(self, peer: Peer, folder: Path) -> None:
        measured = peer_tools.measure(peer, folder / "out", self._sandbox, concurrency=self.concurrency)
        found = row_sets(peer_tools.files(peer, folder / "out"), peer.dialect)
        check_same(peer.label, found, self.expected)
        self._note(peer.name, measured, sum(one.rows for one in found.values()), {})

    def _in_folder(self, work: Callable[[Path], None]) -> None:
        folder = self._folder / "run"
        folder.mkdir()
        try:
            work(folder)
        finally:
            shutil.rmtree(folder)

    def _note(self, name: str, measured: Measured, rows: int, inner: Mapping[str, float]) -> None:
        figures: dict[str, Any] = {
            "seconds": measured.seconds,
            "cpu": measured.cpu,
            "sandbox_cpu": measured.sandbox_cpu,
            "peak": measured.peak,
            "rows": rows,
            **inner,
        }
        self.results.setdefault(name, []).append(figures)
        tell(f"  {_LABELS[name]}: {rows:,} records in {figures['seconds']:.1f} s")


def benchmark(
    folder: Path, *, persons: int, runs: int, settings: Mapping[str, object], peers: Sequence[Peer] = peer_tools.PEERS
) -> Report:
    """Compares; every tool's rows are checked before any ratio is formed.

    Args:
        folder: an empty folder for everything.
        persons: size of the population.
        runs: rounds.
        settings: settings of the pipeline, without prefix.
        peers: the peers to run.
    """
    if peers:
        peer_tools.ensure()
    with SandboxProcess(folder / "sandbox", persons) as sandbox:
        comparison = Comparison(folder, sandbox, settings)
        for number in range(runs):
            tell(f"Round {number + 1} of {runs}")
            comparison.round(peers)
    return _report(comparison, persons=persons, runs=runs, settings=settings)


def _report(comparison: Comparison, *, persons: int, runs: int, settings: Mapping[str, object]) -> Report:
    summaries = {name: summary(name, found) for name, found in comparison.results.items()}
    rate = {name: one["rate"] for name, one in summaries.items()}
    report = Report(
        "initial",
        {
            "persons": persons,
            "runs": runs,
            "settings": dict(settings),
            "page_size": comparison.page_size,
            "concurrency": comparison.concurrency,
            "rows": {name: one.rows for name, one in comparison.expected.items()},
        },
        results=list(summaries.values()),
        ratios={f"pipeline / {name}": rate[OURS] / rate[name] for name in rate if name != OURS},
        stages=median_stages(comparison.stages),
        notes=[
            "Rates are of whole processes, start included, but for fetch only, whose start is not counted.",
            "Rows of all tools are equal, per entity. Peers test no lengths and no required values; the pipeline does.",
        ],
    )
    report.tables = [_rates(report), stage_table(report.stages)]
    return report


def summary(name: str, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The medians of some runs, and the runs."""
    seconds = median(one["seconds"] for one in found)
    return {
        "name": name,
        "label": _LABELS.get(name, name),
        "rows": found[0]["rows"],
        "seconds": seconds,
        "rate": found[0]["rows"] / seconds,
        "cpu": median(one["cpu"] for one in found),
        "sandbox_cpu": median(one["sandbox_cpu"] for one in found),
        "peak": median(one["peak"] for one in found),
        "runs": list(found),
    }


def median_stages(runs: Sequence[Sequence[pipeline.Stage]]) -> list[dict[str, Any]]:
    """The stages of the run whose whole time is the median's."""
    ordered = sorted(runs, key=lambda stages: sum(stage.seconds for stage in stages))
    return [asdict(stage) for stage in ordered[(len(ordered) - 1) // 2]] if ordered else []


def _rates(report: Report) -> Grid:
    ours = next(one["rate"] for one in report.results if one["name"] == OURS)
    rows = []
    for one in report.results:
        cpu, served = one["cpu"], one["sandbox_cpu"]
        rows.append(
            (
                one["label"],
                spread([each["seconds"] for each in one["runs"]]),
                f"{one['rate']:,.0f}",
                f"{ours / one['rate']:.2f}",
                f"{cpu:,.1f}",
                f"{served:,.1f} ({served / (cpu + served):.0%})",
                f"{one['peak'] / MIB:,.0f}",
            )
        )
    title = f"Initial: {sum(report.options['rows'].values()):,} records, median of {report.options['runs']}"
    head = ("", "seconds", "records/s", "ours / it", "CPU s", "sandbox's CPU s (share)", "peak RSS MiB")
    return Grid(title, head, rows)


def stage_table(stages: Sequence[Mapping[str, Any]]) -> Grid:
    """Where the time of a run of the pipeline went."""
    total = sum(stage["seconds"] for stage in stages) or 1.0
    rows = [
        (stage["name"], f"{stage['seconds']:.2f}", f"{stage['seconds'] / total:.0%}", f"{stage['cpu']:.2f}")
        for stage in stages
    ]
    return Grid(
        "Stages of the median run (wall clock; CPU of the whole process meanwhile)", ("", "s", "share", "CPU s"), rows
    )
