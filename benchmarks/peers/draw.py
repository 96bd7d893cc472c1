"""Draws SVG charts from the benchmarks' JSON: `draw.py FOLDER JSON...`."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "ccs-dacs"  # the same figures give the same file
from matplotlib import pyplot as plt  # noqa: E402 - after the backend is chosen

MIB = 1024 * 1024
Reports = list[dict[str, Any]]


def _save(figure: Any, path: Path) -> None:  # noqa: ANN401 -- the library has no types
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def _line(path: Path, points: list[tuple[float, float]], title: str, across: str, up: str) -> None:
    figure, axes = plt.subplots(figsize=(6, 3.5))
    axes.plot(*zip(*sorted(points), strict=True), marker="o")
    axes.margins(0.1)
    axes.set(title=title, xlabel=across, ylabel=up, xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)
    _save(figure, path)


def _by_size(folder: Path, reports: Reports) -> None:
    found = [one for report in reports if report["benchmark"] == "memory" for one in report["results"]]
    if found:
        persons = [one["persons"] / 1e6 for one in found]
        memory = [one["peak"] / MIB for one in found]
        cost = [one["seconds"] for one in found]
        pairs = (("memory", memory, "Peak memory", "MiB (PSS)"), ("cost", cost, "Initial synchronization", "seconds"))
        for name, values, title, up in pairs:
            _line(folder / f"{name}.svg", list(zip(persons, values, strict=True)), title, "million persons", up)


def _rates(folder: Path, reports: Reports) -> None:
    for report in reports:
        if report["benchmark"] == "initial":
            results = [one for one in report["results"] if not one["name"].startswith("fetch")]
            figure, axes = plt.subplots(figsize=(6, 2.5))
            bars = axes.barh([one["label"] for one in results], [one["rate"] for one in results])
            axes.bar_label(bars, fmt="{:,.0f}", padding=3)
            axes.invert_yaxis()
            axes.margins(x=0.2)
            axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.set(title="Records per second, all three entities", xlabel="records/s")
            _save(figure, folder / "rates.svg")


def _backlog(folder: Path, reports: Reports) -> None:
    for report in reports:
        for one in report["results"]:
            if series := one.get("series") if report["benchmark"] == "delta" else None:
                points = [(point["seconds"], point["pending"]) for point in series]
                _line(folder / "backlog.svg", points, "Backlog worked off in deltas", "seconds", "pending requests")


def main() -> None:
    """Draws what there is."""
    folder, *inputs = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    reports = [json.loads(path.read_text()) for path in inputs]
    for draw in (_by_size, _rates, _backlog):
        draw(folder, reports)


if __name__ == "__main__":
    main()
