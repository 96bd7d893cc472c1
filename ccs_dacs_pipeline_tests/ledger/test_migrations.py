"""Migrations: the schema that the code knows, however often and by however many they are run at once."""

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from ccs_dacs_pipeline.ledger import Ledger, LedgerError
from ccs_dacs_pipeline.ledger.schema import metadata
from ccs_dacs_pipeline.ledger.store import _MIGRATIONS, known_versions, mark, marked

MIGRATE = "import sys; from ccs_dacs_pipeline.ledger import Ledger; Ledger(sys.argv[1]).migrate()"


def differences(ledger: Ledger) -> list[Any]:
    with ledger.read() as db:
        context = MigrationContext.configure(db, opts={"compare_server_default": True})
        return compare_metadata(context, metadata)


def versions(ledger: Ledger) -> list[str]:
    with ledger.read() as db:
        return list(db.execute(sa.text("SELECT version_num FROM alembic_version")).scalars())


def test_an_empty_database_becomes_the_schema_of_the_code(database_url: str):
    with Ledger(database_url) as ledger:
        assert differences(ledger) != []
        ledger.migrate()
        assert differences(ledger) == []


def test_the_unique_indexes_are_as_partial_as_the_code_says(ledger: Ledger):
    """The comparison above does not look at the condition of an index."""
    expected = {
        index.name: str(index.dialect_options["postgresql"]["where"].compile(compile_kwargs={"literal_binds": True}))
        for table in metadata.tables.values()
        for index in table.indexes
        if index.unique
    }
    assert set(expected) == {"ux_snapshots_open", "ux_requests_open", "ux_batch_entities_active"}
    dialect = ledger_dialect(ledger)
    with ledger.read() as db:
        found = {
            index["name"]: index["dialect_options"][f"{dialect}_where"]
            for table in metadata.tables
            for index in sa.inspect(db).get_indexes(table)
            if index["unique"] and f"{dialect}_where" in index.get("dialect_options", {})
        }
    assert {name: words(str(where)) for name, where in found.items()} == {
        name: words(where.rpartition(".")[2]) for name, where in expected.items()
    }


def ledger_dialect(ledger: Ledger) -> str:
    return "sqlite" if ledger.is_sqlite else "postgresql"


def words(condition: str) -> str:
    """A condition without the brackets and casts that PostgreSQL adds."""
    return condition.replace("(", "").replace(")", "").replace("::text", "").replace("::character varying", "")


def test_to_migrate_again_changes_nothing(ledger: Ledger):
    with ledger.write() as db:
        mark(db, "kept", 1)
    before = versions(ledger)
    ledger.migrate()
    assert versions(ledger) == before
    assert differences(ledger) == []
    with ledger.read() as db:
        assert marked(db, "kept") == 1


def test_a_ledger_of_an_earlier_version_becomes_the_schema_of_the_code_and_keeps_what_it_holds(database_url: str):
    with Ledger(database_url) as ledger:
        with ledger.write() as db:
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.attributes["connection"] = db
            command.upgrade(config, "0001")
            mark(db, "kept", 1)
        assert versions(ledger) == ["0001"]
        assert differences(ledger) != []
        ledger.migrate()
        assert differences(ledger) == []
        with ledger.read() as db:
            assert marked(db, "kept") == 1


def test_a_ledger_of_a_newer_version_is_refused(ledger: Ledger):
    assert [ledger.version] == versions(ledger) == known_versions()[:1]
    with ledger.write() as db:
        db.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LedgerError, match="a newer one has made it"):
        ledger.migrate()
    assert versions(ledger) == ["9999"]


def test_threads_with_ledgers_of_their_own_may_migrate_at_once(database_url: str):
    start = threading.Barrier(4)

    def migrate(_: int) -> list[str]:
        with Ledger(database_url) as ledger:
            start.wait()
            ledger.migrate()
            return versions(ledger)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(migrate, range(4)))
    assert found == [found[0]] * 4
    assert len(found[0]) == 1


def test_processes_may_migrate_at_once(database_url: str):
    command = [sys.executable, "-c", MIGRATE, database_url]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [(process.returncode, error) for process, error in zip(processes, errors, strict=True)] == [(0, "")] * 2
    with Ledger(database_url) as ledger:
        assert differences(ledger) == []


def test_a_new_sqlite_file_that_another_writes_to_is_waited_for(tmp_path: Path):
    """The switch to WAL does not heed SQLite's busy time-out."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other, ThreadPoolExecutor(1) as pool:
        other.execute("BEGIN IMMEDIATE")
        with Ledger(f"sqlite:///{path}") as ledger:
            migrating = pool.submit(ledger.migrate)
            with pytest.raises(TimeoutError):
                migrating.result(0.2)
            other.execute("ROLLBACK")
            migrating.result(20)
            assert differences(ledger) == []


def test_the_folder_of_a_sqlite_file_is_made(tmp_path: Path):
    with Ledger(f"sqlite:///{tmp_path}/data/ledger/ledger.db") as ledger:
        ledger.migrate()
        assert differences(ledger) == []
