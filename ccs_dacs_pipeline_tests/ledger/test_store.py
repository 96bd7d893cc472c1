"""Opening the ledger (interface.md, Settings)."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ccs_dacs_pipeline.ledger import Ledger
from ccs_dacs_pipeline_tests.folders.files import umask


@pytest.mark.parametrize(("mask", "mode"), [(0o000, 0o660), (0o022, 0o640), (0o077, 0o600)])
def test_a_sqlite_ledger_is_nothing_for_others_whatever_the_umask(tmp_path: Path, mask: int, mode: int):
    with umask(mask), Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.migrate()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm"), mode)


def test_a_second_connection_leaves_the_locks_of_the_first(tmp_path: Path):
    """Those of this process: the system ends them all when it closes any descriptor of the file."""
    path = tmp_path / "ledger.db"
    # Leaving the write-ahead log is for him who is alone with the file.
    script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('PRAGMA journal_mode = DELETE')"
    with Ledger(f"sqlite:///{path}") as first, Ledger(f"sqlite:///{path}") as second:
        first.migrate()
        with first.read(), second.read():
            other = subprocess.run(
                [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
            )
    assert "database is locked" in other.stderr


def test_a_ledger_in_memory_makes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with Ledger("sqlite://") as ledger:
        ledger.migrate()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["postgresql://u:canary/x", "postgresql://u:canary@127.0.0.1:abc/x", "canary"])
def test_a_url_that_is_none_is_named_by_its_setting_and_not_repeated(url: str):
    with pytest.raises(ValueError, match=r"^CCS_DACS_LEDGER_URL is no SQLAlchemy URL") as caught:
        Ledger(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary" not in str(error)
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__
