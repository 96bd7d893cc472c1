"""Consoles, progress on a terminal, and the errors that end a command."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FILE_WIDTH = 160
output = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
errors = Console(stderr=True, width=None if sys.stderr.isatty() else _FILE_WIDTH)
_REFRESH_SECONDS = 0.5


class Problem(Exception):
    """The work failed; the message says what, where, and the way out. Exit code 1."""


class UsageProblem(Exception):
    """The command was used wrongly. Exit code 2."""


def say(text: str) -> None:
    """Tells a person at the terminal about a stage; figures go to standard output, this to standard error."""
    errors.print(text, markup=False, highlight=False)


@contextmanager
def progress(text: str, figures: Callable[[], str]) -> Iterator[None]:
    """Shows, on a terminal only, what is going on: `text`, and figures read anew twice a second."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    with errors.status(text) as shown:

        def refresh() -> None:
            while not done.wait(_REFRESH_SECONDS):
                shown.update(f"{text}: {figures()}")

        thread = threading.Thread(target=refresh, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
