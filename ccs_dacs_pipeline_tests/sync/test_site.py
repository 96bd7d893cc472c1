"""What a site opens (interface.md, Settings)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ccs_dacs_pipeline.ccs import CcsError
from ccs_dacs_pipeline.settings import load_settings
from ccs_dacs_pipeline.sync import site as site_module
from ccs_dacs_pipeline.sync.site import Site, connection

if TYPE_CHECKING:
    from pathlib import Path


def test_each_further_try_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    settings = load_settings(data_dir=tmp_path, ccs_base_url="http://127.0.0.1:1", ccs_auth="none")
    quick = replace(connection(settings), backoff_seconds=0.001, tries=3)
    monkeypatch.setattr(site_module, "connection", lambda _: quick)
    with Site(settings) as site, pytest.raises(CcsError, match="gave up after 3 of 3 tries"):
        list(site.ccs.sync_requests(ids=["85810617092033"]))
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition("; ")[2].partition(" in ")[0] for text in told] == ["try 2", "try 3"]
    assert all("http://127.0.0.1:1 cannot be reached (ConnectError)" in text for text in told)
