"""The pipeline as it is measured: its real command, in a process and a data folder of its own."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from benchmarks.machine import Measured, MemoryKind, run
from benchmarks.sandbox import USER, SandboxProcess, clean_environment
from ccs_dacs_pipeline.settings import PREFIX, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COMMAND = (sys.executable, "-m", "ccs_dacs_pipeline.cli")


@dataclass(frozen=True)
class Stage:
    """One part of a run: its name, its wall-clock seconds, and the CPU seconds of all processes meanwhile."""

    name: str
    seconds: float
    cpu: float


def environment(data: Path, sandbox: SandboxProcess, settings: Mapping[str, object]) -> dict[str, str]:
    """The environment of a command: a data folder, the sandbox as CCS, and further settings (without prefix)."""
    mine: dict[str, object] = {
        "DATA_DIR": data,
        "CCS_BASE_URL": sandbox.url,
        "CCS_USERNAME": USER,
        "CCS_PASSWORD": USER,
        **settings,
    }
    return clean_environment() | {f"{PREFIX}{name}": str(value) for name, value in mine.items()}


def initial(
    data: Path, sandbox: SandboxProcess, settings: Mapping[str, object], *, memory: MemoryKind = "rss"
) -> Measured:
    """An initial synchronization with everything: Dagster run, ledger, frames, checks, files, manifest, delivery."""
    return run(
        [*COMMAND, "initial", "--json"], env=environment(data, sandbox, settings), sandbox=sandbox, memory=memory
    )


def stages(data: Path, measured: Measured) -> list[Stage]:
    """The assets of the only run in a data folder, in the order in which they began, and what lay round them."""
    home = str(data / "dagster")
    # Dagster's own storage on the same files, so that it matters nothing what DAGSTER_HOME is here.
    with dg.DagsterInstance.local_temp(home, overrides={"storage": {"sqlite": {"base_dir": home}}}) as instance:
        (only,) = instance.get_runs()
        return stages_of(instance, only.run_id, measured)


def stages_of(instance: dg.DagsterInstance, run_id: str, measured: Measured) -> list[Stage]:
    """The assets of a run, in the order in which they began, and what lay round them."""
    steps = instance.get_run_step_stats(run_id)
    found = [(step.step_key, step.start_time, step.end_time) for step in steps if step.start_time and step.end_time]
    found.sort(key=lambda step: step[1])
    if not found:
        return []
    first, last = found[0][1], max(end for _, _, end in found)
    ended = measured.started + measured.seconds
    spans = [("before the first asset", measured.started, first), *found, ("after the last asset", last, ended)]
    return [
        # Of the last a tick of the kernel's clock may be missing.
        Stage(name, end - begin, max(0.0, measured.cpu_at(end) - measured.cpu_at(begin)))
        for name, begin, end in spans
    ]


def paging(settings: Mapping[str, object]) -> tuple[int, int]:
    """Page size and pages under way at once, as the settings or their defaults have them."""

    def value(name: str) -> int:
        given = settings.get(name.upper())
        return int(str(Settings.model_fields[name].default if given is None else given))

    return value("ccs_page_size"), value("ccs_concurrency")


def files(data: Path) -> dict[str, list[Path]]:
    """The published extract files, zipped or not, by entity of DACS."""
    prefixes = {"contact": "C1-DCT", "metered_service_point": "C1-DSP", "metered_service": "C1-DMS"}
    return {name: sorted((data / "upload").glob(f"{prefix}*.csv*")) for name, prefix in prefixes.items()}
