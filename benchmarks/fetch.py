"""Fetching alone, in a process of its own: the pages of all entities as raw bytes, neither decoded nor kept.

The bound of what any extraction over HTTP can reach: same page size, same pages under way at once, same key ranges of
at most 20 pages. `httpx` is the plain client; `pipeline` is the project's own, which bounds time and size of each call.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx

from ccs_dacs_pipeline.ccs import plan_ranges
from ccs_dacs_pipeline.ccs.client import HttpClient
from ccs_dacs_pipeline.ccs.connection import BasicAuth, Connection
from ccs_dacs_pipeline.entities import ENTITIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccs_dacs_pipeline.entities import Entity

PAGES_PER_RANGE = 20
LOW, HIGH = "0" * 10, "9" * 10
_HEAD, _TAIL = 400, 100_000
_TOTAL = re.compile(rb'"totalNumberOfRecords":(\d+)')
_MORE = b'"hasMore":true'


class Fetcher:
    """Fetches pages and counts their bytes."""

    def __init__(self, post: Callable[[str, dict[str, object]], bytes], page_size: int, concurrency: int) -> None:
        self._post, self._page_size, self._concurrency = post, page_size, concurrency

    def all(self) -> tuple[int, int]:
        """Fetches every page of every entity; returns records (by CCS's own count) and bytes."""
        records = size = 0
        for entity in ENTITIES:
            total = self._total(entity)
            spans = plan_ranges(LOW, HIGH, total, max_entities=PAGES_PER_RANGE * self._page_size) if total else []
            with ThreadPoolExecutor(self._concurrency) as pool:
                size += sum(pool.map(lambda span, entity=entity: self._range(entity, *span), spans))
            records += total
        return records, size

    def _total(self, entity: Entity) -> int:
        found = _TOTAL.search(self._search(entity, {"lowId": LOW, "highId": HIGH}, 0))
        return int(found[1]) if found else 0

    def _range(self, entity: Entity, low: str, high: str) -> int:
        """One key range, page after page; returns its bytes."""
        last_id = re.compile(rb'.*"%b":"(\d+)"' % entity.id_member.encode(), re.DOTALL)
        filters: dict[str, object] = {"lowId": low, "highId": high}
        size = 0
        while True:
            body = self._search(entity, filters, self._page_size)
            size += len(body)
            if _MORE not in body[:_HEAD]:
                return size
            found = last_id.match(body[-_TAIL:])
            if found is None:
                raise ValueError(f"a page of {entity.service} that has more after it shows no last id")
            filters = {**filters, "afterId": found[1].decode()}

    def _search(self, entity: Entity, filters: dict[str, object], limit: int) -> bytes:
        return self._post(f"/rest/apis/cm/dacs/{entity.service}/search", {"filters": filters, "limit": limit})


def with_httpx(url: str, user: str, page_size: int, concurrency: int) -> tuple[int, int]:
    """Fetches with the plain client."""
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    with httpx.Client(base_url=url, auth=(user, user), limits=limits, timeout=60, trust_env=False) as client:

        def post(path: str, document: dict[str, object]) -> bytes:
            return client.post(path, json=document).raise_for_status().content

        return Fetcher(post, page_size, concurrency).all()


def with_pipeline(url: str, user: str, page_size: int, concurrency: int) -> tuple[int, int]:
    """Fetches with the project's own client."""
    with HttpClient(Connection(url, BasicAuth(user, user)), concurrency=concurrency) as client:
        return Fetcher(lambda path, document: client.read("POST", path, document), page_size, concurrency).all()


CLIENTS = {"httpx": with_httpx, "pipeline": with_pipeline}


def main() -> None:
    """Fetches once and prints what it took, as JSON; the start of the interpreter is not counted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--page-size", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    given = parser.parse_args()
    used, clock = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    records, size = CLIENTS[given.client](given.url, given.user, given.page_size, given.concurrency)
    seconds, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    json.dump({"seconds": seconds, "cpu": cpu, "records": records, "bytes": size}, sys.stdout)


if __name__ == "__main__":
    main()
