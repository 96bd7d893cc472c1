"""Services run in a thread of this process: the demo's inbox."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ccs_dacs_pipeline.dacs.inbox_server import inbox_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.applications import Starlette

_POLL_SECONDS = 0.01


@contextmanager
def served(application: Starlette, host: str = "127.0.0.1") -> Iterator[str]:
    """Serves an application on a free port while the block runs; yields its base URL."""
    with socket.create_server((host, 0)) as listener:
        server = inbox_server(application)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="service", daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(_POLL_SECONDS)
        try:
            yield f"http://{host}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
