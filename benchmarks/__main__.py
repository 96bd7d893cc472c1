"""The benchmarks' command line: `python -m benchmarks <what> [--persons N] [--runs R] [--json FILE]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import acknowledgements, charts, delta, folders, initial, latency, memory, peer_tools, zipped
from benchmarks.equality import Different
from benchmarks.machine import Failed
from benchmarks.report import Report, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _initial(folder: Path, given: argparse.Namespace) -> Report:
    if given.zip:
        return zipped.benchmark(folder, persons=given.persons, runs=given.runs, settings=given.set)
    wanted = [peer for peer in peer_tools.PEERS if peer.name in given.peers]
    return initial.benchmark(folder, persons=given.persons, runs=given.runs, settings=given.set, peers=wanted)


def _memory(folder: Path, given: argparse.Namespace) -> Report:
    return memory.benchmark(folder, sizes=given.sizes or [given.persons], settings=given.set)


def _latency(folder: Path, given: argparse.Namespace) -> Report:
    return latency.benchmark(folder, persons=given.persons, runs=given.runs, latency=given.latency, settings=given.set)


def _delta(folder: Path, given: argparse.Namespace) -> Report:
    return delta.benchmark(
        folder,
        persons=given.persons,
        runs=given.runs,
        requests=given.requests or 1000,
        backlog=given.backlog,
        settings=given.set,
    )


def _acknowledgements(folder: Path, given: argparse.Namespace) -> Report:
    return acknowledgements.benchmark(
        folder, persons=given.persons, answers=given.requests or 50_000, settings=given.set
    )


def _folders(folder: Path, given: argparse.Namespace) -> Report:
    return folders.benchmark(
        folder, megabytes=given.megabytes, runs=given.runs, extract_gib=given.extract_gib, lines=given.lines
    )


WORK: dict[str, Callable[[Path, argparse.Namespace], Report]] = {
    "initial": _initial,
    "memory": _memory,
    "latency": _latency,
    "delta": _delta,
    "acknowledgements": _acknowledgements,
    "folders": _folders,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("what", choices=[*WORK, "charts"])
    made.add_argument("inputs", nargs="*", type=Path, help="charts: the JSON files to draw from")
    made.add_argument("--persons", type=int, default=100_000, help="persons of the simulated utility")
    made.add_argument("--runs", type=int, default=3, help="rounds; figures are medians")
    made.add_argument("--json", type=Path, help="file for the figures")
    made.add_argument("--folder", type=Path, help="where temporary data goes (default: the system's)")
    made.add_argument("--set", type=_setting, action="append", default=[], metavar="NAME=VALUE", help="a setting")
    names = [peer.name for peer in peer_tools.PEERS]
    made.add_argument("--peers", nargs="*", choices=names, default=names, help="initial: which peers; none: alone")
    made.add_argument("--zip", action="store_true", help="initial: zipped files against plain ones, without peers")
    made.add_argument("--sizes", type=int, nargs="+", help="memory: several sizes, in persons")
    made.add_argument("--latency", type=float, default=0.03, help="latency: seconds per call")
    made.add_argument("--requests", type=int, help="delta, acknowledgements: how many (1,000 and 50,000)")
    made.add_argument("--backlog", type=int, default=20_000, help="delta: requests worked off in deltas; 0: none")
    made.add_argument("--megabytes", type=int, default=256, help="folders: size of the file, MiB")
    made.add_argument(
        "--extract-gib", type=float, default=0, help="folders: an extract of so many GiB in parts besides"
    )
    made.add_argument(
        "--lines", type=int, nargs="*", default=(), help="folders: SFTP over lines of these rates too, Mbit/s (as root)"
    )
    made.add_argument("--out", type=Path, default=Path("docs/charts"), help="charts: folder for the SVG files")
    return made


def _setting(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, as CCS_PAGE_SIZE=4000")
    return name.removeprefix("CCS_DACS_"), value


def main(words: Sequence[str] | None = None) -> int:
    """Runs one benchmark; exit code 1 when what it measures fails, or tools disagree about the rows."""
    given = parser().parse_args(words)
    given.set = dict(given.set)
    if given.what == "charts":
        charts.draw(given.inputs, given.out)
        return 0
    try:
        with tempfile.TemporaryDirectory(prefix="ccs-dacs-bench-", dir=given.folder) as folder:
            report = WORK[given.what](Path(folder), given)
    except (Failed, Different) as error:
        tell(str(error))
        return 1
    report.show()
    if given.json:
        report.write(given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
