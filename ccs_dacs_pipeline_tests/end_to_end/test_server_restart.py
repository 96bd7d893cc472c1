"""A PostgreSQL server that is stopped as by a power failure and started again while workers are at it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from ccs_dacs_pipeline.settings import PREFIX
from ccs_dacs_pipeline_tests import steps, workers
from ccs_dacs_pipeline_tests.conditions import Watcher, broken, settle_down
from ccs_dacs_pipeline_tests.workers import Point

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), default=None)
pytestmark = [
    pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL's own server is not installed; .ci/run installs it"),
    pytest.mark.skipif(os.getuid() != 0, reason="a server as another user takes root's rights"),
]
SYNC = "ccs_dacs_pipeline.sync"
MORE = [
    Point("an extract is made", "ccs_dacs_pipeline_tests.steps:extracting.record"),
    Point("a file is visible", f"{SYNC}.publish:publish", after=True),
]
POINTS = [
    Point("attempts recorded", f"{SYNC}.claim:transition_all"),
    *(MORE if f"{PREFIX}TEST_ALL" in os.environ else []),
]


@dataclass(frozen=True)
class Server:
    """A server of the test's own."""

    data: Path
    port: int

    def database(self) -> str:
        """The URL of a new database."""
        name, url = f"ledger_{uuid4().hex}", f"postgresql://postgres@127.0.0.1:{self.port}"
        with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{url}/{name}"

    def control(self, *words: str) -> None:
        """Runs `pg_ctl` as the user that owns the data; its server must not keep the test's pipes open."""
        done = subprocess.run(
            [
                "setpriv",
                "--reuid=postgres",
                "--regid=postgres",
                "--clear-groups",
                str(PROGRAMS),
                "-D",
                self.data,
                *words,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, (self.data / "log").read_text()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.data}"
        self.control("-w", "-l", str(self.data / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Ends it at once, without a checkpoint: the next start recovers from the log."""
        self.control("-m", "immediate", "stop")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    shutil.chown(folder, "postgres")
    made = Server(folder, port)
    made.control("-o", "-A trust -U postgres", "initdb")
    made.start()
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """The server is down during the block."""
    server.stop()
    try:
        yield
    finally:
        server.start()


@pytest.mark.parametrize("point", POINTS, ids=[point.name for point in POINTS])
@pytest.mark.parametrize("down", [False, True], ids=["between two steps", "in a step"])
def test_the_work_goes_on(make_world, server, point, down):
    """A worker that meets a restarted server goes on; one that meets none ends with an error, and the next finishes."""
    world = make_world(settings={"ledger_url": server.database(), "lease_seconds": 60})
    with steps.quick_site(world.settings) as site, Watcher(Path(world.settings.folder("upload"))) as watcher:
        steps.initial(site)
        world.sandbox.ccs.change(20, seed=9)
        with workers.ending(workers.start(world, "sync", point=point, stop=True)) as worker:
            workers.wait_until_stopped(worker)
            with stopped(server):
                if down:
                    os.kill(worker.pid, signal.SIGCONT)
                    assert workers.ended(worker) == 1
            if not down:
                os.kill(worker.pid, signal.SIGCONT)
                assert workers.ended(worker) == 0
        if down:
            assert "run the same again" in workers.log_of(world).read_text()
            workers.forget_dead(world)
        settle_down(world, site)
        assert broken(world, watcher) == []
    world.site.close()
