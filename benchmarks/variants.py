"""The initial synchronization under several conditions, interleaved: what does one cost beside the other."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import pipeline
from benchmarks.equality import check_same, row_sets
from benchmarks.report import MIB, Grid, spread, tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.sandbox import SandboxProcess


@dataclass(frozen=True)
class Variant:
    """A condition: its name, the sandbox it calls, its settings without prefix."""

    name: str
    sandbox: SandboxProcess
    settings: Mapping[str, object]


def compare(folder: Path, variants: Sequence[Variant], *, runs: int) -> dict[str, list[dict[str, Any]]]:
    """Runs the pipeline once a round under each condition; all must write the same rows.

    Returns:
        The figures of each run, by the condition's name.
    """
    results: dict[str, list[dict[str, Any]]] = {variant.name: [] for variant in variants}
    expected = None
    for number in range(runs):
        tell(f"Round {number + 1} of {runs}")
        for variant in variants:
            data = folder / "run"
            measured = pipeline.initial(data, variant.sandbox, variant.settings)
            found = row_sets(pipeline.files(data), "plain")
            shutil.rmtree(data)
            expected = expected or found
            check_same(variant.name, found, expected)
            figures = {name: getattr(measured, name) for name in ("seconds", "cpu", "sandbox_cpu", "peak")}
            results[variant.name].append(figures | {"rows": sum(one.rows for one in found.values())})
            tell(f"  {variant.name}: {measured.seconds:.1f} s")
    return results


def table(title: str, share: str, results: Sequence[Mapping[str, Any]]) -> Grid:
    """The conditions' medians, each with its rate as a share of the first's."""
    rows = [
        (
            one["label"],
            spread([each["seconds"] for each in one["runs"]]),
            f"{one['rate']:,.0f}",
            f"{one['rate'] / results[0]['rate']:.0%}",
            f"{one['cpu']:,.1f}",
            f"{one['peak'] / MIB:,.0f}",
        )
        for one in results
    ]
    return Grid(title, ("", "seconds", "records/s", share, "CPU s", "peak RSS MiB"), rows)
