"""A line of a given rate to a server of this machine: a network namespace behind a pair of virtual devices (Linux)."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.machine import Failed, call

if TYPE_CHECKING:
    from collections.abc import Iterator

_HERE, _THERE = "10.99.0.1", "10.99.0.2"
_BUFFER = ("burst", "256kb", "latency", "50ms")


@dataclass(frozen=True)
class Line:
    """How a server is reached.

    Attributes:
        host: the address where it listens.
        prefix: the words before the command that starts it.
    """

    host: str
    prefix: tuple[str, ...] = ()


LOOPBACK = Line("127.0.0.1")


@contextmanager
def line(mbit: int) -> Iterator[Line]:
    """Yields a line that carries `mbit` Mbit/s each way at once, and takes it away in the end.

    Raises:
        Failed: not root, or iproute2 is not installed.
    """
    if os.geteuid() or not (shutil.which("ip") and shutil.which("tc")):
        raise Failed("A line of a given rate needs root and iproute2: install it, run as root, or leave --lines out.")
    space, device = f"bench{os.getpid()}", f"b{os.getpid()}"
    there = ("ip", "netns", "exec", space)
    rate = ("root", "tbf", "rate", f"{mbit}mbit", *_BUFFER)
    with ExitStack() as stack:
        call(["ip", "netns", "add", space])
        stack.callback(call, ["ip", "netns", "delete", space])
        call(["ip", "link", "add", device, "type", "veth", "peer", "name", "far", "netns", space])
        # Of itself it would go some time after the namespace, and its address with it.
        stack.callback(call, ["ip", "link", "delete", device])
        call(["ip", "addr", "add", f"{_HERE}/30", "dev", device])
        call(["ip", "link", "set", device, "up"])
        call([*there, "ip", "addr", "add", f"{_THERE}/30", "dev", "far"])
        call([*there, "ip", "link", "set", "far", "up"])
        call(["tc", "qdisc", "add", "dev", device, *rate])
        call([*there, "tc", "qdisc", "add", "dev", "far", *rate])
        yield Line(_THERE, there)
