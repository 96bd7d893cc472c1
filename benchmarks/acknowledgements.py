"""Acknowledgements: taken by the real inbox, delivered to CCS by the real command, and the ledger's share of both."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import httpx

from benchmarks import pipeline
from benchmarks.machine import Failed, Measured, cpu_seconds, run
from benchmarks.report import Grid, Report, tell
from benchmarks.sandbox import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

LIST = 500
"""Answers in one call."""
POSTERS = 4
"""Calls under way at once."""
_NEGATIVE_EACH = 50
_START_SECONDS = 60
_CLOCKED = (sys.executable, "-m", "benchmarks.ledger_clock")


def benchmark(folder: Path, *, persons: int, answers: int, settings: Mapping[str, object]) -> Report:
    """Sends so many changes through deltas, answers every row, and delivers the answers.

    Args:
        folder: an empty folder for everything.
        persons: size of the population.
        answers: sync requests to begin with; those of one entity share a row and an answer.
        settings: settings of the pipeline, without prefix.
    """
    data = folder / "data"
    token = {"ACK_AUTH": "bearer", "ACK_TOKEN": secrets.token_urlsafe()}
    with SandboxProcess(folder / "sandbox", persons) as sandbox:
        env = pipeline.environment(data, sandbox, {**token, **settings})
        sandbox.pending_at_least(answers)
        sent = _clocked(folder / "sync.json", ["sync", "--json"], env, sandbox)
        ids = _references(data)
        tell(f"{len(ids):,} rows are sent and wait for answers")
        taken = _post(folder / "inbox.json", env, token["ACK_TOKEN"], ids)
        tell(f"The inbox took {len(ids):,} answers in {taken['seconds']:.1f} s")
        delivered = _clocked(folder / "deliver.json", ["acks", "deliver", "--json"], env, sandbox)
        run([*pipeline.COMMAND, "reconcile", "--json"], env=env)  # fails when an equation does not hold
        states = sandbox.summary()["sync_requests"]
    if states.get("AWAITINGACK") or states.get("PENDING"):
        raise Failed(f"Not every request reached a final state: {states}")
    parts = {"sync": sent, "inbox": taken, "deliver": delivered}
    return _report(parts, len(ids), persons=persons, answers=answers, settings=settings)


def _clocked(out: Path, words: Sequence[str], env: Mapping[str, str], sandbox: SandboxProcess) -> dict[str, Any]:
    """Runs a command with its ledger clocked."""
    measured: Measured = run([*_CLOCKED, out, *words], env=env, sandbox=sandbox)
    figures = {name: getattr(measured, name) for name in ("seconds", "cpu", "sandbox_cpu", "peak")}
    return figures | {"ledger": json.loads(out.read_text())}


def _references(data: Path) -> list[str]:
    """The External Reference Ids of all rows sent: what DACS quotes in its answers."""
    found = []
    for path in sorted((data / "upload").glob("C1-*.csv")):
        with path.open(encoding="utf-8") as file:
            found += [line.partition("\t")[0] for line in file]
    return found


def _answer(number: int, request_id: str) -> dict[str, Any]:
    """DACS's answer, every fiftieth negative."""
    if number % _NEGATIVE_EACH:
        entity = {"entity": "D1-CONTACT", "externalPk1": f"{number:012}"}
        return {"syncRequestId": request_id, "hasError": False, "externalIds": {"entityIdList": [entity]}}
    reason = {"sequence": 1, "messageCategory": 11508, "messageNumber": 1, "comments": "refused on purpose"}
    return {"syncRequestId": request_id, "hasError": True, "exceptionInfo": [reason]}


def _post(out: Path, env: Mapping[str, str], token: str, ids: Sequence[str]) -> dict[str, Any]:
    """Posts an answer for each id to the inbox's process."""
    answers = [_answer(number, request_id) for number, request_id in enumerate(ids)]
    bodies = [json.dumps(answers[start : start + LIST]).encode() for start in range(0, len(answers), LIST)]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with _inbox(out, env) as (url, pid), httpx.Client(headers=headers, timeout=120, trust_env=False) as client:
        before, begun = cpu_seconds(pid), time.perf_counter()
        with ThreadPoolExecutor(POSTERS) as pool:
            taken = list(pool.map(lambda body: client.post(url, content=body).raise_for_status().json(), bodies))
        seconds, cpu = time.perf_counter() - begun, cpu_seconds(pid) - before
    accepted = sum(one["accepted"] for one in taken)
    if accepted != len(ids):
        raise Failed(f"The inbox accepted {accepted} of {len(ids)} answers")
    return {"seconds": seconds, "cpu": cpu, "sandbox_cpu": 0.0, "ledger": json.loads(out.read_text())}


@contextmanager
def _inbox(out: Path, env: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """The inbox in a process of its own; yields its address and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*_CLOCKED, str(out), "acks", "serve", "--port", str(port)], env=dict(env), stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(f"{url}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed("The inbox did not start.")
            time.sleep(0.1)
        yield f"{url}/acknowledgements", process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url, trust_env=False).is_success
    return False


def _report(
    parts: Mapping[str, dict[str, Any]], rows: int, *, persons: int, answers: int, settings: Mapping[str, object]
) -> Report:
    labels = {
        "sync": "deltas: claimed, sent (ccs-dacs sync)",
        "inbox": f"inbox: lists of {LIST}, {POSTERS} at once",
        "deliver": "to CCS (ccs-dacs acks deliver)",
    }
    results = [
        {"name": name, "label": labels[name], "rows": rows, "rate": rows / part["seconds"], **part}
        for name, part in parts.items()
    ]
    report = Report(
        "acknowledgements",
        {"persons": persons, "requests": answers, "rows": rows, "settings": dict(settings)},
        results=results,
        ratios={f"ledger's share, {one['name']}": one["ledger"]["seconds"] / one["seconds"] for one in results},
        notes=[
            "Ledger: wall-clock seconds in open transactions over all threads, waiting for one included.",
            "Where several wait at once (the inbox) its share may pass 100 %.",
        ],
    )
    lines = [
        (
            one["label"],
            f"{one['seconds']:,.1f}",
            f"{one['rate']:,.0f}",
            f"{one['cpu']:,.1f}",
            f"{one['sandbox_cpu']:,.1f}",
            f"{one['ledger']['seconds']:,.1f} ({one['ledger']['seconds'] / one['seconds']:.0%})",
            f"{one['ledger']['write']:,}",
        )
        for one in results
    ]
    head = ("", "seconds", "rows/s", "CPU s", "sandbox's CPU s", "ledger s (share)", "writes")
    report.tables = [Grid(f"Acknowledgements: {rows:,} rows of {answers:,} requests", head, lines)]
    return report
