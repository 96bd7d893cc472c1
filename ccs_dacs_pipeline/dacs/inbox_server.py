"""The HTTP server of the inbox, with bounds on what a caller may do before it has shown a credential."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

    from starlette.applications import Starlette

# A caller whose request never begins would hold a connection for ever, of which the process has but so many.
_HEAD_SECONDS = 20.0


def inbox_server(
    application: Starlette, *, log_level: int = logging.WARNING, head_seconds: float = _HEAD_SECONDS
) -> uvicorn.Server:
    """Returns a server of the inbox, yet to be run.

    Args:
        application: the inbox.
        log_level: what it logs.
        head_seconds: the longest that the head of a request may take to come.
    """

    class Protocol(_HeadBounded):
        seconds = head_seconds

    config = uvicorn.Config(application, http=Protocol, ws="none", lifespan="off", log_level=log_level)
    return uvicorn.Server(config)


class _HeadBounded(H11Protocol):
    """HTTP in Python: unlike the quicker one it bounds the size of a head, and here its time is bounded too."""

    seconds: ClassVar[float]
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as the library has it
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._head_timer is not None:
            self._head_timer.cancel()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_head()

    def _await_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = self.loop.call_later(self.seconds, self._end_without_head)

    def _end_without_head(self) -> None:
        # The rest of a body that was refused, which might drip for ever, is waited for no longer either.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
