"""A sandbox in a process of its own on loopback, so that its CPU is told apart from that of whoever calls it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx

from benchmarks.machine import Failed, cpu_seconds
from ccs_dacs_pipeline.settings import PREFIX

USER = "sandbox"
_GRACE_SECONDS = 30
_TOP = Path(__file__).parents[1]
"""Where `benchmarks` is found by the processes that a benchmark starts, wherever it was started itself."""


def clean_environment() -> dict[str, str]:
    """This environment without settings of the pipeline, so that each benchmark has those that it makes."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "DAGSTER_"))}
    return mine | {f"{PREFIX}ENV_FILE": "", "PYTHONPATH": str(_TOP)}


class SandboxProcess:
    """`ccs-dacs sandbox` while the block runs. Its simulated DACS watches an empty folder, and so stays idle."""

    def __init__(self, folder: Path, persons: int, *, seed: int = 1, latency: float = 0.0) -> None:
        self._folder, self._persons, self._seed, self._latency = folder, persons, seed, latency
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        """Starts it; returns once it answers.

        Raises:
            Failed: it did not start.
        """
        unwatched = self._folder / "unwatched"
        unwatched.mkdir(parents=True)
        words = [sys.executable, "-m", "ccs_dacs_pipeline.cli", "sandbox"]
        options = {"persons": self._persons, "seed": self._seed, "latency": self._latency, "upload": unwatched}
        for name, value in options.items():
            words += [f"--{name}", str(value)]
        env = clean_environment() | {f"{PREFIX}DATA_DIR": str(self._folder)}
        self._process = subprocess.Popen(words, env=env, stdout=-1, text=True)
        self.url = self._process.stdout.readline().strip() if self._process.stdout else ""
        if not self.url:
            raise Failed(f"The sandbox did not start; it ended with {self._process.wait()}.")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout:
                self._process.stdout.close()

    def cpu(self) -> float:
        """CPU seconds spent so far."""
        return cpu_seconds(self._process.pid) if self._process else 0.0

    def summary(self) -> dict[str, Any]:
        """What CCS holds: `entities` and `sync_requests` by state."""
        found: dict[str, Any] = httpx.get(f"{self.url}/sandbox/ccs/summary", timeout=60).json()
        return found

    def change(self, count: int) -> list[str]:
        """Makes changes in CCS; returns the ids of the sync requests that came of them."""
        made = httpx.post(f"{self.url}/sandbox/ccs/changes", json={"count": count}, timeout=600)
        made.raise_for_status()
        return list(made.json()["sync_requests"])

    def pending_at_least(self, wanted: int) -> list[str]:
        """Makes changes until so many sync requests came of them; returns exactly so many ids, or some more."""
        ids: list[str] = []
        while len(ids) < wanted:
            ids += self.change(min(wanted - len(ids), 5000))
        return ids
