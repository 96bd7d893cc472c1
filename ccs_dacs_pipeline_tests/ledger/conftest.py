"""The ledger that every test of this room starts from: empty, on both databases."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccs_dacs_pipeline.ledger import Ledger

from .databases import KINDS, empty_database


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    with empty_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to be copied, which is quicker than to migrate for each test."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    with Ledger(f"sqlite:///{path}") as ledger:
        ledger.migrate()
    return path


@pytest.fixture
def ledger(database_url: str, migrated_file: Path, tmp_path: Path) -> Iterator[Ledger]:
    """A migrated ledger that holds nothing."""
    with Ledger(database_url) as opened:
        if opened.is_sqlite:
            shutil.copy(migrated_file, tmp_path)
        else:
            opened.migrate()
        yield opened
