"""Acknowledgements on their way from DACS to the pipeline's inbox (sync-lifecycle.md, Acknowledgements)."""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httpx

from ccs_dacs_pipeline.sandbox.config import SandboxConfig

Answer = dict[str, Any]
LIST_SIZE = 500
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_TIMEOUT_SECONDS = 30.0

logger = logging.getLogger(__name__)


class Postman:
    """Posts answers in lists, in order, each list until the inbox has taken it.

    What the inbox itself refuses for good (400, 422, items of a 200) is counted and not tried again.
    """

    def __init__(self, config: SandboxConfig, on_progress: Callable[[], None]) -> None:
        self._url = config.inbox_url.rstrip("/") + "/acknowledgements" if config.inbox_url else None
        self._headers: dict[str, str] = {}
        self._auth: httpx.BasicAuth | None = None
        if config.inbox_token is not None:
            self._headers["Authorization"] = f"Bearer {config.inbox_token}"
        elif config.inbox_username is not None:
            self._auth = httpx.BasicAuth(config.inbox_username, config.inbox_password or "")
        self._on_progress = on_progress
        self._waiting: deque[Answer] = deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._size = LIST_SIZE
        self._counts: Counter[str] = Counter()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins posting, when there is an inbox."""
        if self._url is not None:
            self._thread = threading.Thread(target=self._run, name="sandbox-answers", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends posting; what is not accepted yet stays waiting."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def send(self, answers: list[Answer]) -> None:
        """Takes answers to be posted; without an inbox they are dropped."""
        if self._url is None or not answers:
            return
        with self._changed:
            self._waiting.extend(answers)
            self._changed.notify_all()

    def counts(self) -> dict[str, int]:
        """Answers posted (attempts included), accepted, duplicates, parked, refused, pending."""
        names = ("posted", "accepted", "duplicates", "parked", "refused")
        return {name: self._counts[name] for name in names} | {"pending": len(self._waiting)}

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        with httpx.Client(auth=self._auth, headers=self._headers, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            while not self._stopping.is_set():
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._stopping.is_set())
                    batch = [self._waiting[index] for index in range(min(self._size, len(self._waiting)))]
                if not batch or self._stopping.is_set():
                    continue
                settled = self._post(client, batch)
                if settled:
                    pause = _FIRST_PAUSE
                    with self._changed:
                        for _ in range(settled):
                            self._waiting.popleft()
                else:
                    self._stopping.wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                self._on_progress()

    def _post(self, client: httpx.Client, batch: list[Answer]) -> int:
        """Posts one list; gives how many of its items are settled: all of them, or none."""
        assert self._url is not None  # noqa: S101 - started with an inbox only
        try:
            response = client.post(self._url, json=batch)
            self._counts["posted"] += len(batch)
            if response.status_code == HTTPStatus.OK:
                self._count(response.json())
                return len(batch)
        except (httpx.HTTPError, ValueError) as error:
            logger.info("Inbox %s does not take answers yet: %s", self._url, type(error).__name__)
            return 0
        if response.status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
            self._counts["refused"] += len(batch)
            return len(batch)
        if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            self._size = max(self._size // 2, 1)
        logger.info("Inbox %s answered %d; trying again", self._url, response.status_code)
        return 0

    def _count(self, verdict: dict[str, Any]) -> None:
        for name in ("accepted", "duplicates", "parked"):
            self._counts[name] += int(verdict.get(name, 0))
        self._counts["refused"] += len(verdict.get("refused", ()))
