"""What processes use: CPU and memory of a tree of processes, read from /proc while it runs (Linux)."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SAMPLE_SECONDS = 0.05
_PROC = Path("/proc")
_GONE = (FileNotFoundError, ProcessLookupError)

MemoryKind = Literal["rss", "pss"]
"""How memory is counted: `rss` is cheap to read; `pss` parts what processes share, and costs milliseconds a reading."""


class Beside(Protocol):
    """A process that works beside what is measured; its CPU is told apart."""

    def cpu(self) -> float:
        """CPU seconds spent so far."""


class Failed(Exception):
    """A measured command failed; the message holds the end of what it said."""


@dataclass(frozen=True)
class Sample:
    """A tree of processes at one moment (epoch seconds): CPU seconds so far, bytes of memory."""

    at: float
    cpu: float
    memory: int


@dataclass(frozen=True)
class Measured:
    """One run of a command.

    Attributes:
        seconds: from start to end of the process.
        cpu: CPU seconds of the process and its children.
        sandbox_cpu: CPU seconds that the sandbox spent meanwhile.
        peak: the largest sum of the tree's memory that was sampled, bytes.
        started: epoch seconds of the start.
        samples: the readings.
        output: what it wrote to standard output.
    """

    seconds: float
    cpu: float
    sandbox_cpu: float
    peak: int
    started: float
    samples: list[Sample] = field(repr=False)
    output: str = field(repr=False)

    def cpu_at(self, moment: float) -> float:
        """CPU seconds spent up to an epoch second, between two samples in proportion."""
        before = Sample(self.started, 0.0, 0)
        for after in self.samples:
            if after.at >= moment:
                share = (moment - before.at) / (after.at - before.at) if after.at > before.at else 1.0
                return before.cpu + max(0.0, share) * (after.cpu - before.cpu)
            before = after
        return self.cpu


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process, and of those children that it has waited for."""
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def memory_bytes(pid: int, kind: MemoryKind = "rss") -> int:
    """Memory of one process."""
    if kind == "rss":
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE
    lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        with suppress(*_GONE):
            for task in (_PROC / str(one) / "task").iterdir():
                with suppress(*_GONE):
                    found.extend(map(int, (task / "children").read_text().split()))
    return found


def sample(pid: int, kind: MemoryKind = "rss") -> Sample:
    """A tree of processes now; those that end meanwhile count as nothing."""
    cpu, memory = 0.0, 0
    for one in tree(pid):
        with suppress(*_GONE, StopIteration):
            cpu += cpu_seconds(one)
            memory += memory_bytes(one, kind)
    return Sample(time.time(), cpu, memory)


class Sampler:
    """Samples a tree of processes every 50 ms from a thread of its own until it is stopped."""

    def __init__(self, pid: int, kind: MemoryKind) -> None:
        self.samples: list[Sample] = []
        self._pid, self._kind = pid, kind
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self.samples.append(sample(self._pid, self._kind))

    def stop(self) -> None:
        """Ends the sampling."""
        self._done.set()
        self._thread.join()


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    sandbox: Beside | None = None,
    memory: MemoryKind = "rss",
) -> Measured:
    """Runs a command to its end and measures it.

    Args:
        command: the words.
        env: its whole environment.
        sandbox: what it calls, whose CPU is measured beside it.
        memory: how memory is counted.

    Raises:
        Failed: it did not end with 0.
    """
    served = sandbox.cpu() if sandbox else 0.0
    started, clock = time.time(), time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], env=dict(env), stdout=-1, stderr=-1, text=True)
    sampler = Sampler(process.pid, memory)
    said: list[str] = []
    errors = threading.Thread(target=lambda: said.append(process.stderr.read() if process.stderr else ""))
    errors.start()
    output = process.stdout.read() if process.stdout else ""
    errors.join()
    # Not `process.wait`: only wait4 tells what the process and its children used.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - clock
    process.returncode = os.waitstatus_to_exitcode(status)
    sampler.stop()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()
    if process.returncode:
        tail = (said[0] if said else "")[-2000:]
        raise Failed(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{tail}")
    return Measured(
        seconds=seconds,
        cpu=usage.ru_utime + usage.ru_stime,
        sandbox_cpu=(sandbox.cpu() - served) if sandbox else 0.0,
        peak=max((one.memory for one in sampler.samples), default=usage.ru_maxrss * 1024),
        started=started,
        samples=sampler.samples,
        output=output,
    )


def run_here(work: Callable[[], object], *, sandbox: Beside) -> Measured:
    """Does some work in this process and measures it, like `run` a command."""
    served, used = sandbox.cpu(), time.process_time()
    before = sample(os.getpid()).cpu
    started, clock = time.time(), time.perf_counter()
    sampler = Sampler(os.getpid(), "rss")
    try:
        work()
    finally:
        seconds = time.perf_counter() - clock
        sampler.stop()
    samples = [Sample(one.at, one.cpu - before, one.memory) for one in sampler.samples]
    return Measured(
        seconds=seconds,
        cpu=time.process_time() - used,
        sandbox_cpu=sandbox.cpu() - served,
        peak=max((one.memory for one in samples), default=0),
        started=started,
        samples=samples,
        output="",
    )


def call(command: Sequence[str], *, given: bytes = b"") -> None:
    """Runs a command that is not measured, with `given` as its input.

    Raises:
        Failed: it did not end with 0.
    """
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    if done.returncode:
        raise Failed(f"{command[0]} failed: {done.stderr.decode(errors='replace')[-1000:]}")
