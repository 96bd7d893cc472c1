"""Empty databases for a test, SQLite and PostgreSQL, each gone when the test ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa

SETTING = "CCS_DACS_TEST_POSTGRES_URL"
KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
"""What a fixture is parametrized with that runs on both."""


@contextmanager
def empty_database(kind: str, folder: Path) -> Iterator[str]:
    """Gives the URL of an empty database; skips where there is no PostgreSQL."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'ledger.db'}"
        return
    if not os.environ.get(SETTING):
        pytest.skip(f"{SETTING} is not set, so there is no PostgreSQL to test on")
    with _schema(sa.make_url(os.environ[SETTING])) as url:
        yield url


@contextmanager
def _schema(server: sa.URL) -> Iterator[str]:
    """Makes a schema of its own, in a session far from UTC: no moment may depend on the server's time zone."""
    schema = f"ledger_{uuid4().hex}"
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        try:
            # Who waits for another's lock for ever fails instead, and the schema is dropped all the same.
            options = f"-csearch_path={schema} -cTimeZone=America/Los_Angeles -clock_timeout=20s"
            yield server.update_query_dict({"options": options}).render_as_string(hide_password=False)
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")
