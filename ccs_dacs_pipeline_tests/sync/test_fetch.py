"""Fetching by key range, from a CCS whose count is wrong."""

from pathlib import Path

import pytest

from ccs_dacs_pipeline.ccs import IncompleteRange
from ccs_dacs_pipeline.entities import entity_named
from ccs_dacs_pipeline.settings import load_settings
from ccs_dacs_pipeline.sync.fetch import ranges
from ccs_dacs_pipeline.sync.site import Site
from ccs_dacs_pipeline_tests.ccs.servers import Server, page, reply


def test_a_count_that_ignores_the_range_ends_at_a_single_id_whose_figures_disagree(tmp_path: Path) -> None:
    """A range that seems too full is cut, but no id can be: it is read, and that names both figures."""
    person = entity_named("contact")
    with Server(lambda _: reply(page([], total=25_000))) as server:
        settings = load_settings(data_dir=tmp_path, ccs_base_url=server.url, ccs_auth="none", ccs_page_size=2_000)
        with Site(settings) as site:
            low, high = next(ranges(site, person, "0000000000", "9999999999"))
            assert low == high
            with pytest.raises(IncompleteRange, match="gave 0 entities where CCS counts 25000"):
                site.ccs.read_range(person, low, high)
