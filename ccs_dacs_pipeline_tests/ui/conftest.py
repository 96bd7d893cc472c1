"""Sandbox, inbox and `dg dev` as processes, shared by the tests of this folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROJECT = Path(__file__).parents[2]
STARTING_SECONDS = 120.0
_POLL_SECONDS = 0.5
_LOCATIONS = "{ workspaceOrError { ... on Workspace { locationEntries { name } } } }"


@dataclass
class Services:
    """Where the running services are, and what a test asks them."""

    sandbox: str
    dagster: str
    environment: dict[str, str]

    def change(self, count: int) -> dict[str, Any]:
        """Changes entities in CCS."""
        return httpx.post(f"{self.sandbox}/sandbox/ccs/changes", json={"count": count}, timeout=30).json()

    def get(self, path: str) -> dict[str, Any]:
        """Asks the sandbox, for example `ccs/summary`."""
        return httpx.get(f"{self.sandbox}/sandbox/{path}", timeout=60).json()

    def graphql(self, query: str, **variables: object) -> dict[str, Any]:
        """Asks Dagster what its UI asks."""
        body = {"query": query, "variables": variables}
        answer = httpx.post(f"{self.dagster}/graphql", json=body, timeout=30).json()
        assert "errors" not in answer, answer
        return answer["data"]

    @property
    def location(self) -> str:
        """The code location's name."""
        (only,) = self.graphql(_LOCATIONS)["workspaceOrError"]["locationEntries"]
        return only["name"]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs `ccs-dacs` as an operator would, beside the running services."""
        return subprocess.run(
            [sys.executable, "-m", "ccs_dacs_pipeline.cli", *words],
            env=self.environment,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )


def until(what: str, ready: Callable[[], object], timeout: float) -> None:
    """Waits until `ready` gives something true; what it reads is in other processes, so it is asked again and again."""
    deadline = time.monotonic() + timeout
    while not ready():
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(_POLL_SECONDS)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def _process(words: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    with log.open("w") as errors:
        process = subprocess.Popen(
            words,
            env=environment,
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            # Its children too: dg dev starts a web server, a daemon, code servers and runs.
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A sandbox of 150 persons, the inbox, and Dagster with its sensors on, after the initial synchronization."""
    folder = tmp_path_factory.mktemp("services")
    inbox_port, dagster_port = _free_port(), _free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CCS_DACS_")} | {
        "CCS_DACS_DATA_DIR": str(folder / "data"),
        "CCS_DACS_ENV_FILE": "",
        "CCS_DACS_SENSORS": "on",
        "CCS_DACS_ACK_AUTH": "bearer",
        "CCS_DACS_ACK_TOKEN": "inbox-token",
        "CCS_DACS_CCS_USERNAME": "sandbox",
        "CCS_DACS_CCS_PASSWORD": "sandbox",
        "DAGSTER_HOME": str(folder / "data" / "dagster"),
        "VIRTUAL_ENV": sys.prefix,
    }
    (folder / "data" / "dagster").mkdir(parents=True)
    shutil.copy(PROJECT / "dagster.yaml", folder / "data" / "dagster")
    command = [sys.executable, "-m", "ccs_dacs_pipeline.cli"]
    inbox_url = f"http://127.0.0.1:{inbox_port}"
    with ExitStack() as stack:
        sandbox = stack.enter_context(
            _process(
                [*command, "sandbox", "--persons", "150", "--inbox", inbox_url], environment, folder / "sandbox.log"
            )
        )
        assert sandbox.stdout is not None
        environment["CCS_DACS_CCS_BASE_URL"] = sandbox.stdout.readline().strip()
        stack.enter_context(
            _process([*command, "acks", "serve", "--port", str(inbox_port)], environment, folder / "inbox.log")
        )
        dg = str(Path(sys.executable).with_name("dg"))
        words = [dg, "dev", "--host", "127.0.0.1", "--port", str(dagster_port)]
        log = folder / "dagster.log"
        stack.enter_context(_process(["sh", "-c", 'exec "$@" >&2', "sh", *words], environment, log))
        found = Services(environment["CCS_DACS_CCS_BASE_URL"], f"http://127.0.0.1:{dagster_port}", environment)
        until("the inbox answers", lambda: _answers(f"{inbox_url}/health"), STARTING_SECONDS)
        until("the Dagster UI answers", lambda: _answers(f"{found.dagster}/server_info"), STARTING_SECONDS)
        initial = found.command("initial", "--json")
        assert initial.returncode == 0, initial.stderr
        until("DACS has read the snapshot", lambda: found.get("dacs/summary")["manifests"], STARTING_SECONDS)
        yield found


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
