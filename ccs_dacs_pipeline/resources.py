"""Resources of the code location: the configured site. Opened per process of a run, closed at its end."""

from collections.abc import Iterator

import dagster as dg

from ccs_dacs_pipeline.settings import load_settings
from ccs_dacs_pipeline.sync.site import Site


@dg.resource(description="Ledger, CCS, folders and frames of the site, from its settings.")
def site_resource(_context: dg.InitResourceContext) -> Iterator[Site]:
    """Yields the site that the settings of this process describe; nothing is opened before it is used."""
    with Site(load_settings()) as site:
        yield site
