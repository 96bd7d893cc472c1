"""What every test of this room starts from."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ccs_dacs_pipeline.ccs import CcsClient, Connection

from .servers import Answer, Server

Start = Callable[..., tuple[CcsClient, Server]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server that answers as told, and a client of it that repeats without much waiting."""
    with ExitStack() as stack:

        def starter(answer: Answer, concurrency: int = 2, **settings: Any) -> tuple[CcsClient, Server]:
            server = stack.enter_context(Server(answer))
            chosen = {"auth": None, "backoff_seconds": 0.01, "call_seconds": 5, "retry_seconds": 10, **settings}
            client = stack.enter_context(CcsClient(Connection(server.url, **chosen), concurrency=concurrency))
            return client, server

        yield starter
