"""Dagster's own records on SQLite, with engines that are kept (docs/decisions/0020-kept-engines-for-sqlite.md).

Dagster's event log makes a database engine for every access: it compiles each statement anew, and closes the last
connection to a file, at which SQLite folds its journal into it. Tables, files and statements stay Dagster's; ours is
how long an engine lives.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS, create_db_conn_string
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from ccs_dacs_pipeline.settings import load_settings, named_dagster_home

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dagster._serdes import ConfigurableClassData

_RUNS_KEPT = 8
"""Runs whose events are written or read side by side; one more costs it a new engine."""


class SqliteStorage(DagsterSqliteStorage):
    """The storage that the project's dagster.yaml names: Dagster's files, where Dagster would keep them.

    Its only setting, `base_dir`, is DAGSTER_HOME unless it is given.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        index = Path(self._event_log_storage.path_for_shard(INDEX_SHARD_NAME))
        self._event_log_storage = EventLog(str(index.parent))

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Returns what dagster.yaml may set."""
        return {"base_dir": dg.Field(dg.StringSource, is_required=False)}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, object]
    ) -> SqliteStorage:
        """Returns the storage as dagster.yaml has it.

        Raises:
            SettingsError: neither `base_dir` nor DAGSTER_HOME is set, and the settings that would tell are wrong.
        """
        # Settings last: with a wrong one the UI still comes up, to show what the code location says of it.
        home = config_value.get("base_dir") or named_dagster_home() or load_settings().dagster_home
        return cls.from_local(str(home), inst_data)


class EventLog(SqliteEventLogStorage):
    """Dagster's event log: a file for each run, and an index of what happened to the assets in all of them."""

    def __init__(self, base_dir: str) -> None:
        self._run_engine = lru_cache(_RUNS_KEPT)(partial(_engine, base_dir, poolclass=sa.NullPool))
        self._index_engine = _engine(base_dir, INDEX_SHARD_NAME)
        super().__init__(base_dir)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        """Yields a connection within a transaction, one at a time, as Dagster's does.

        The index keeps its connection. A run's file does not, since the UI learns of new events by changes of the file
        itself, which come when its last connection is closed.
        """
        with self._db_lock:
            engine = self._index_engine if shard == INDEX_SHARD_NAME else self._run_engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def has_table(self, table_name: str) -> bool:
        """Says whether the index has a table."""
        return sa.inspect(self._index_engine).has_table(table_name)

    def dispose(self) -> None:
        """Closes the index, too."""
        super().dispose()
        self._index_engine.dispose()


def _engine(base_dir: str, shard: str, poolclass: type[sa.Pool] = sa.QueuePool) -> sa.Engine:
    url = create_db_conn_string(base_dir, shard)
    return sa.create_engine(url, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}, poolclass=poolclass)
