"""Opening the ledger: engine, transactions, migrations."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.dialects import postgresql, sqlite

from ccs_dacs_pipeline.ledger.schema import journal, marks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection

_MIGRATIONS = Path(__file__).with_name("migrations")
_BUSY_MILLISECONDS = 30_000
# It tells of persons, and nobody reads it but this program: its group may, where the umask lets it.
_FILE_MODE = 0o660


class LedgerError(Exception):
    """The ledger refuses or cannot do something; the message says what, where, and the way out."""


class Ledger:
    """The ledger's database, SQLite or PostgreSQL, by SQLAlchemy URL.

    Thread safe. `write` gives a transaction that follows the one before it; on SQLite it takes the write lock at its
    begin, so that no read in it can be stale. Statements are batched by the callers: one transaction a chunk.
    """

    def __init__(self, url: str) -> None:
        """Opens nothing yet; the folder of a SQLite file is made.

        Raises:
            ValueError: it is no URL; without its text, which may hold a password.
            OSError: the folder cannot be made.
            ImportError: the driver of the database is not installed.
        """
        try:
            parsed = sa.make_url(url)
        except (ValueError, sa.exc.ArgumentError) as error:
            raise ValueError(f"CCS_DACS_LEDGER_URL is no SQLAlchemy URL ({type(error).__name__}).") from None
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        # Checked before use, since a restarted server leaves dead connections in the pool.
        self._engine = sa.create_engine(parsed, pool_pre_ping=not self.is_sqlite, hide_parameters=True)
        self._writer = self._engine.execution_options(ledger_write=True)
        if self.is_sqlite:
            sa.event.listen(self._engine, "do_connect", _make_private)
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)

    def migrate(self) -> None:
        """Brings the schema to the newest version; concurrent callers wait for one another.

        Raises:
            LedgerError: a newer version of this program has made it.
        """
        with self.write() as db:
            if not self.is_sqlite:
                db.execute(sa.text("SELECT pg_advisory_xact_lock(4711)"))
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.attributes["connection"] = db
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise LedgerError(
                    f"The ledger is of a version that this program does not know ({error}): a newer one has made it. "
                    "Run that one."
                ) from None

    @property
    def version(self) -> str | None:
        """The version of its schema, None when it is empty."""
        with self.read() as db:
            return MigrationContext.configure(db).get_current_revision()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that commits at the end of the block and rolls back on an error."""
        with _explained(), self._writer.begin() as db:
            yield db

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view for reading."""
        with _explained(), self._engine.connect() as db:
            if not self.is_sqlite:
                db.execution_options(isolation_level="REPEATABLE READ")
            yield db

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def known_versions() -> list[str]:
    """Returns the versions of the schema that this program knows, the newest first."""
    return [script.revision for script in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()]


@contextmanager
def _explained() -> Iterator[None]:
    """Turns a database that cannot be reached, is full, damaged, locked or busy into an error that says what to do."""
    try:
        yield
    except (sa.exc.IntegrityError, sa.exc.DataError):  # what was to be stored is wrong, not the database
        raise
    except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:  # the latter: no connection of the pool was free in time
        # The driver's own text only: SQLAlchemy's would print statement and parameters.
        reason = error.orig if isinstance(error, sa.exc.DBAPIError) else "too much is done in it at once"
        raise LedgerError(
            f"The ledger's database did not do its work: {reason}. Nothing of this step is recorded. "
            "Check that CCS_DACS_LEDGER_URL is right, that the database runs and has space, then run the same again."
        ) from None


def _make_private(_: object, __: object, arguments: list[str], ___: object) -> None:
    """Makes a new file of SQLite, which gives those beside it the same mode.

    Without a descriptor of our own: to close one would end all locks that this process holds on the file.
    """
    if not Path(arguments[0]).is_absolute():  # in memory, or a URI
        return
    with suppress(OSError):  # it is there, or connecting tells
        os.mknod(arguments[0], _FILE_MODE | stat.S_IFREG)


def _prepare_sqlite(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's own connection
    connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={_BUSY_MILLISECONDS}",
        "synchronous=FULL",  # an acknowledgement answered with 200 must outlive a power failure
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    _switch_to_wal(cursor)
    cursor.close()


def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    """Waits while others switch the same new file: this one statement does not heed the busy time-out."""
    deadline = time.monotonic() + _BUSY_MILLISECONDS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(db: Connection) -> None:
    db.exec_driver_sql("BEGIN IMMEDIATE" if db.get_execution_options().get("ledger_write") else "BEGIN")


def now() -> datetime:
    """The present moment, aware."""
    return datetime.now(UTC)


def upsert(db: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Inserts rows, or overwrites those with the same primary key, in one batched statement."""
    if not rows:
        return
    keys = [column.name for column in table.primary_key]
    statement = _insert(db, table)
    others = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    db.execute(statement.on_conflict_do_update(index_elements=keys, set_=others), rows)


def insert_missing(db: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Inserts rows, leaving those whose primary key is there already as they are."""
    if rows:
        keys = [column.name for column in table.primary_key]
        db.execute(_insert(db, table).on_conflict_do_nothing(index_elements=keys), rows)


def _insert(db: Connection, table: sa.Table) -> Any:  # noqa: ANN401 - of the two dialects, alike in what is used here
    return sqlite.insert(table) if db.dialect.name == "sqlite" else postgresql.insert(table)


def note(db: Connection, event: str, batch: str | None = None, **detail: object) -> None:
    """Writes one line into the journal; `detail` holds figures and names, never personal values."""
    db.execute(sa.insert(journal), {"at": now(), "batch": batch, "event": event, "detail": detail})


def mark(db: Connection, name: str, value: object) -> None:
    """Remembers one value under a name."""
    upsert(db, marks, [{"name": name, "value": value}])


def marked(db: Connection, name: str) -> Any:  # noqa: ANN401 - JSON
    """Returns what `mark` remembered, or None."""
    return db.execute(sa.select(marks.c.value).where(marks.c.name == name)).scalar()
