"""Both syncs on a ledger in PostgreSQL, and two workers at once on it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ccs_dacs_pipeline_tests.ledger.databases import empty_database


@pytest.mark.postgres
def test_both_syncs_and_two_workers_at_once(make_world, tmp_path):
    with empty_database("postgres", tmp_path) as url:
        world = make_world(sandbox={"negative_share": 0.2}, settings={"ledger_url": url})
        world.initial(shards=2)
        world.sandbox.ccs.change(30, seed=1)
        with ThreadPoolExecutor(2) as pool:
            passes = [pool.submit(worker.sync, wait=30) for worker in (world.worker, world.worker)]
            batches = [line["key"] for one in passes for line in one.result()["batches"]]
        assert batches == ["delta-1"]
        world.sync()
        world.assert_quiet()
        world.site.close()
