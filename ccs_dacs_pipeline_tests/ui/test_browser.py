"""What a person sees: the asset lineage in a real browser on the running UI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ccs_dacs_pipeline.definitions import build_defs

if TYPE_CHECKING:
    from ccs_dacs_pipeline_tests.ui.conftest import Services

CHROMIUM = shutil.which("chromium")
WINDOW = {"width": 2400, "height": 900}  # narrower, and the graph is drawn too small for names
# Chromium's own background calls would only meet a closed network.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.mark.xdist_group("services")
@pytest.mark.browser
def test_the_lineage_shows_every_asset(services: Services, tmp_path: Path):
    """Saves the picture where CCS_DACS_TEST_SCREENSHOT says: docs/lineage.png is made so."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed; .ci/run installs it")
    playwright = pytest.importorskip("playwright.sync_api", reason="requirements/browser.txt is not installed")
    picture = Path(os.environ.get("CCS_DACS_TEST_SCREENSHOT", tmp_path / "lineage.png"))
    assert services.command("initial").returncode == 0  # so that there is something to see
    names = {key.path[-1] for key in build_defs().resolve_asset_graph().get_all_asset_keys()}
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport=WINDOW)
        page.goto(f"{services.dagster}/asset-groups", wait_until="domcontentloaded")
        playwright.expect(page.get_by_text("extract", exact=True).last).to_be_visible(timeout=60_000)
        page.keyboard.press("Alt+e")  # expands all groups
        for name in names:
            playwright.expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=60_000)
        page.screenshot(path=picture, animations="disabled")
        browser.close()
    assert picture.stat().st_size > 10_000
