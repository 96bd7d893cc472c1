"""One uvicorn server for both halves, in a thread of its own or in the foreground."""

import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from types import TracebackType
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ccs_dacs_pipeline.sandbox import ccs_http, controls_http
from ccs_dacs_pipeline.sandbox.ccs import SimulatedCcs
from ccs_dacs_pipeline.sandbox.comparison import Eligibility, EntityComparison, compare
from ccs_dacs_pipeline.sandbox.config import SandboxConfig
from ccs_dacs_pipeline.sandbox.dacs import SimulatedDacs
from ccs_dacs_pipeline.sandbox.entities import DacsEntity

_START_SECONDS = 30
_KEEP_ALIVE_SECONDS = 75  # above what clients keep idle connections for, so that none is closed in their hands
_BACKLOG = 512

Middleware = Callable[[ASGIApp], ASGIApp]


class Sandbox:
    """A simulated CCS and DACS behind one port; a context manager.

    CCS answers at `{base_url}/rest/apis/...` and `{base_url}/oauth/token`, the controls at `{base_url}/sandbox/...`.
    """

    def __init__(self, config: SandboxConfig | None = None, *, middleware: Middleware | None = None) -> None:
        """Makes the population; nothing listens yet.

        Args:
            config: What to simulate; none: the defaults.
            middleware: Wraps the whole HTTP application; the seam for faults.
        """
        self.config = config or SandboxConfig()
        self.ccs = SimulatedCcs(self.config)
        self.dacs = SimulatedDacs(self.config)
        self._gatekeeper = ccs_http.Gatekeeper(self.config)
        self._middleware = middleware
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._base_url: str | None = None
        self._ready = threading.Event()

    @property
    def base_url(self) -> str:
        """Where it answers, without a slash at the end.

        Raises:
            RuntimeError: It has not been started.
        """
        if self._base_url is None:
            raise RuntimeError("sandbox: it has no address before start(); start it, or use it in a with statement")
        return self._base_url

    def start(self) -> Self:
        """Listens and watches; returns when calls are answered.

        Raises:
            OSError: The port is taken.
            RuntimeError: The server did not come up.
        """
        family = socket.AF_INET6 if ":" in self.config.host else socket.AF_INET
        listener = socket.create_server((self.config.host, self.config.port), family=family, backlog=_BACKLOG)
        host = f"[{self.config.host}]" if family == socket.AF_INET6 else self.config.host
        self._base_url = f"http://{host}:{listener.getsockname()[1]}"
        skew = self.config.clock_skew_seconds
        app = _dated(self._app(), skew) if skew else self._app()
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._middleware(app) if self._middleware else app,
                log_config=None,
                log_level="warning",
                access_log=False,
                date_header=not skew,
                proxy_headers=False,
                lifespan="on",
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="sandbox-http", daemon=True
        )
        self._thread.start()
        if not self._ready.wait(_START_SECONDS):
            raise RuntimeError(f"sandbox: no server at {self._base_url} after {_START_SECONDS} s; see the log")
        self.dacs.start()
        return self

    def stop(self) -> None:
        """Ends both halves; what they hold can still be looked at."""
        self.dacs.stop()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()

    def compare(self, *, eligible: Eligibility | None = None) -> dict[DacsEntity, EntityComparison]:
        """What DACS should hold against what it holds, by DACS entity."""
        return compare(self.ccs, self.dacs, eligible=eligible)

    def expire_tokens(self) -> None:
        """Ends the life of every OAuth token issued so far."""
        self._gatekeeper.expire_tokens()

    def _app(self) -> Starlette:
        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            self._ready.set()
            yield

        app = Starlette(
            routes=[
                *ccs_http.routes(self.ccs, self.config, self._gatekeeper),
                *controls_http.routes(self.ccs, self.dacs),
            ],
            lifespan=lifespan,
        )
        app.router.redirect_slashes = False  # collection paths end exactly as ccs-rest.md writes them
        return app

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _dated(app: ASGIApp, skew: float) -> ASGIApp:
    """Answers with a `Date` of a clock that is `skew` seconds ahead."""

    async def dated(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = formatdate(time.time() + skew, usegmt=True).encode()
                message = {**message, "headers": [*message["headers"], (b"date", date)]}
            await send(message)

        await app(scope, receive, send_dated)

    return dated


def serve(config: SandboxConfig) -> None:
    """Serves in the foreground until SIGINT or SIGTERM; the first line printed is the base URL."""
    ended = threading.Event()
    previous = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Sandbox(config) as sandbox:
            sys.stdout.write(f"{sandbox.base_url}\n")
            sys.stdout.flush()
            ended.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
