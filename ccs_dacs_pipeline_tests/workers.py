"""Workers as processes of their own that can be killed or stopped, at a named point of their work or at any moment.

A worker comes out of a fork server that has imported everything already, and does the steps of `steps`. Points are
functions of the pipeline that the worker wraps in itself: the pipeline knows nothing of them.
"""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import os
import re
import signal
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ccs_dacs_pipeline.dacs.inbox import BearerCaller, inbox
from ccs_dacs_pipeline.dacs.inbox_server import inbox_server
from ccs_dacs_pipeline_tests import steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.process import BaseProcess

    from ccs_dacs_pipeline.settings import Settings
    from ccs_dacs_pipeline_tests.conftest import World

TOKEN = "inbox-token"
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["ccs_dacs_pipeline_tests.workers"])


@dataclass(frozen=True)
class Point:
    """A moment in a worker's life, between two of its effects.

    Attributes:
        name: what has just happened there, or is about to.
        target: the function, `module:name` or `module:Class.name`, where it is called from.
        after: whether the moment is after the call, not before it.
        nth: which call.
        naming: a pattern that an argument must have for the call to count.
    """

    name: str
    target: str
    after: bool = False
    nth: int = 1
    naming: str = ""


def _initial(site: steps.Site) -> None:
    steps.initial(site, shards=2)


def _sync(site: steps.Site, holder: str = "") -> None:
    steps.incremental(site, holder)


def _inbox(site: steps.Site, port: int) -> None:
    application = inbox(site.ledger, BearerCaller(TOKEN), max_bytes=10**7)
    with socket.create_server(("127.0.0.1", port)) as listener:
        inbox_server(application).run(sockets=[listener])


WORKS: dict[str, Callable[..., None]] = {
    "initial": _initial,
    "sync": _sync,
    "answers": steps.answers,
    "inbox": _inbox,
}


def start(
    world: World,
    work: str,
    *args: object,
    point: Point | None = None,
    stop: bool = False,
    lease_seconds: float | None = None,
) -> BaseProcess:
    """Starts a worker, with leases of its own length if told so; at the point, if any, it is killed, or stopped."""
    settings = world.settings.model_copy(update={"lease_seconds": lease_seconds} if lease_seconds else {})
    order = (settings, log_of(world), work, args, point, signal.SIGSTOP if stop else signal.SIGKILL)
    process = _SERVER.Process(target=_work, args=order, daemon=True)
    process.start()
    return process


def log_of(world: World) -> Path:
    """What all workers of a world print."""
    return world.settings.data_path / "workers.log"


def _work(
    settings: Settings, log: Path, work: str, args: tuple[Any, ...], point: Point | None, number: signal.Signals
) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    if point is not None:
        _arm(point, number)
    with steps.quick_site(settings) as site:
        WORKS[work](site, *args)


def _arm(point: Point, number: signal.Signals) -> None:
    """Lets the process send itself a signal at the point."""
    module, _, path = point.target.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    calls = itertools.count(1)

    def wrapped(*args: Any, **options: Any) -> Any:
        counts = not point.naming or any(re.search(point.naming, str(one)) for one in args)
        here = counts and next(calls) == point.nth
        if here and not point.after:
            os.kill(os.getpid(), number)
        result = original(*args, **options)
        if here and point.after:
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, wrapped)


def ended(process: BaseProcess, seconds: float = 60) -> int:
    """Waits for a worker's end; returns its exit code, negative for a signal."""
    process.join(seconds)
    assert process.exitcode is not None, "the worker has not ended"
    return process.exitcode


def wait_until_stopped(process: BaseProcess, seconds: float = 30) -> None:
    """Waits until a worker has been stopped by its signal."""
    deadline = time.monotonic() + seconds
    status = Path(f"/proc/{process.pid}/stat")
    while status.read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, "the worker does not come to its point"
        assert process.is_alive(), "the worker has ended before its point"
        time.sleep(0.005)


@contextmanager
def ending(process: BaseProcess) -> Iterator[BaseProcess]:
    """Kills a worker at the end of the block, should it still be there."""
    try:
        yield process
    finally:
        process.kill()
        process.join()


def forget_dead(world: World) -> None:
    """Makes the leases of workers that have certainly ended as old as term and grace, instead of waiting for that."""
    with world.site.ledger.write() as db:
        db.execute(sa.text("UPDATE leases SET expires = expires - 3600"))
