"""The tables of the ledger, the durable record that decides every outside effect (design.md, decision 4).

One definition serves SQLite and PostgreSQL. Moments are stored as UTC without zone and read back aware; Change Date
Times are wall clock in the base time zone, as they are written (record-layouts.md, Contact 2).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect


class Moment(sa.types.TypeDecorator[datetime]):
    """An aware moment, stored as UTC without zone, since SQLite has no zones."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Drops the zone after converting to UTC."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ANN401 - SQLAlchemy's signature
        """Puts UTC back on."""
        return None if value is None else value.replace(tzinfo=UTC)


metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

KEY = sa.String(64)
ENTITY = sa.String(40)
ID = sa.String(32)
WORD = sa.String(24)
# A row number that grows in both databases: SQLite counts only an INTEGER primary key by itself.
SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _batch() -> sa.Column[str]:
    return sa.Column("batch", KEY, sa.ForeignKey("batches.key"), nullable=False)


snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", WORD, nullable=False),  # open, delivered, aborted
    sa.Column("shards", sa.Integer, nullable=False),
    sa.Column("low_id", ID, nullable=False),
    sa.Column("high_id", ID, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.Column("ended", Moment),
)
# One unfinished snapshot at a time (sync-lifecycle.md, Initial synchronization).
sa.Index(
    "ux_snapshots_open",
    snapshots.c.state,
    unique=True,
    sqlite_where=snapshots.c.state == "open",
    postgresql_where=snapshots.c.state == "open",
)

# One row, locked by whoever closes, opens or passes the gate, so that those transactions follow one another.
gate = sa.Table(
    "gate",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("held_by", sa.Integer, sa.ForeignKey("snapshots.number")),
)

batches = sa.Table(
    "batches",
    metadata,
    sa.Column("key", KEY, primary_key=True),
    sa.Column("mode", WORD, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("owner", KEY, nullable=False),  # what numbers and manifest belong to: the snapshot, or the batch itself
    sa.Column("shard", sa.Integer, nullable=False),
    sa.Column("shards", sa.Integer, nullable=False),
    sa.Column("low_id", ID),
    sa.Column("high_id", ID),
    sa.Column("stage", WORD, nullable=False),  # created .. settled
    sa.Column("aside", WORD),  # held, stopped, aborted
    sa.Column("reason", sa.Text),
    sa.Column("rerun", sa.Integer, nullable=False, server_default="0"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("moment", sa.DateTime),  # the batch's Change Date Time, wall clock
    sa.Column("created", Moment, nullable=False),
    sa.Column("updated", Moment, nullable=False),
    sa.Column("delivered", Moment),
)
sa.Index("ix_batches_owner", batches.c.owner)
sa.Index("ix_batches_mode_number", batches.c.mode, batches.c.number)
sa.Index("ix_batches_stage", batches.c.stage)

file_numbers = sa.Table(
    "file_numbers",
    metadata,
    sa.Column("owner", KEY, primary_key=True),
    sa.Column("batch_code", WORD, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.UniqueConstraint("batch_code", "number"),
)

requests = sa.Table(
    "requests",
    metadata,
    sa.Column("request_id", ID, primary_key=True),
    sa.Column("batch", KEY, sa.ForeignKey("batches.key"), primary_key=True),
    sa.Column("entity", ENTITY, nullable=False),
    sa.Column("entity_id", ID, nullable=False),
    sa.Column("created", Moment, nullable=False),  # in CCS
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),  # of the claim
    sa.Column("found", WORD),  # the state read back after the claim
    sa.Column("outcome", WORD),  # see ledger.requests.Outcome
    sa.Column("answer", sa.JSON),  # what CCS is to be told, once known
    sa.Column("answer_error", sa.Boolean),
    sa.Column("answer_source", WORD),  # dacs, own, delivery
    sa.Column("answer_attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("settlement", WORD),  # see ledger.requests.Settlement; null = not final
    sa.Column("settled", Moment),
    sa.Column("suspect", sa.Boolean, nullable=False, server_default=sa.false()),
)
# A request is open in at most one batch; an ended life stays as history when CCS reopens the request.
sa.Index(
    "ux_requests_open",
    requests.c.request_id,
    unique=True,
    sqlite_where=requests.c.settlement.is_(None),
    postgresql_where=requests.c.settlement.is_(None),
)
sa.Index("ix_requests_batch", requests.c.batch, requests.c.entity, requests.c.entity_id)
# Few among all that are open: each tick of a sensor counts them, each pass takes them in this order.
_ANSWER_DUE = requests.c.settlement.is_(None) & requests.c.answer_source.is_not(None)
sa.Index("ix_requests_due", requests.c.request_id, sqlite_where=_ANSWER_DUE, postgresql_where=_ANSWER_DUE)

# Requests that CCS would not claim and that were let go: left alone until CCS puts them into a state anew.
refused = sa.Table(
    "refused",
    metadata,
    sa.Column("request_id", ID, primary_key=True),
    _batch(),
    sa.Column("entity", ENTITY, nullable=False),
    sa.Column("entity_id", ID, nullable=False),
    sa.Column("state_time", Moment),  # since when CCS has had it in its state
    sa.Column("message", sa.String(40), nullable=False),  # category and number of CCS's refusal
    sa.Column("at", Moment, nullable=False),
)

batch_entities = sa.Table(
    "batch_entities",
    metadata,
    sa.Column("batch", KEY, sa.ForeignKey("batches.key"), primary_key=True),
    sa.Column("entity", ENTITY, primary_key=True),
    sa.Column("entity_id", ID, primary_key=True),
    sa.Column("active", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("reference", ID),  # the External Reference Id: the request whose answer settles the entity
    sa.Column("moment", sa.DateTime),  # the row's Change Date Time, wall clock
    sa.Column("outcome", WORD),  # written, quarantined, not_eligible, gone, left
)
# An entity is in at most one batch that is neither delivered nor aborted (sync-lifecycle.md, delta step 1).
sa.Index(
    "ux_batch_entities_active",
    batch_entities.c.entity,
    batch_entities.c.entity_id,
    unique=True,
    sqlite_where=batch_entities.c.active,
    postgresql_where=batch_entities.c.active,
)
# As the index has it: for SQLite, SQLAlchemy makes `active = 1` of the column, and the partial index is not used.
ACTIVE = sa.text("batch_entities.active")

sent = sa.Table(
    "sent",
    metadata,
    sa.Column("entity", ENTITY, primary_key=True),
    sa.Column("entity_id", ID, primary_key=True),
    sa.Column("moment", sa.DateTime, nullable=False),
)

tallies = sa.Table(
    "tallies",
    metadata,
    sa.Column("batch", KEY, sa.ForeignKey("batches.key"), primary_key=True),
    sa.Column("entity", ENTITY, primary_key=True),
    sa.Column("fetched", sa.BigInteger, nullable=False),
    sa.Column("written", sa.BigInteger),
    sa.Column("quarantined", sa.JSON),  # rule -> records
    sa.Column("not_eligible", sa.JSON),  # reason -> records
    sa.Column("cleaned", sa.JSON),  # column -> values
    sa.Column("unknown_references", sa.JSON),  # column -> rows
)

frames = sa.Table(
    "frames",
    metadata,
    sa.Column("batch", KEY, sa.ForeignKey("batches.key"), primary_key=True),
    sa.Column("asset", ENTITY, primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
)

files = sa.Table(
    "files",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    _batch(),
    sa.Column("rerun", sa.Integer, nullable=False),
    sa.Column("entity", ENTITY, nullable=False),
    sa.Column("part", sa.Integer, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("delivered", Moment),
)
sa.Index("ix_files_batch", files.c.batch, files.c.rerun, files.c.entity)

# Which entities of a batch have their files, also when they have no rows and so no file.
extracts = sa.Table(
    "extracts",
    metadata,
    sa.Column("batch", KEY, sa.ForeignKey("batches.key"), primary_key=True),
    sa.Column("rerun", sa.Integer, primary_key=True),
    sa.Column("entity", ENTITY, primary_key=True),
)

manifests = sa.Table(
    "manifests",
    metadata,
    sa.Column("owner", KEY, primary_key=True),
    sa.Column("rerun", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("delivered", Moment),
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("id", SERIAL, primary_key=True),
    _batch(),
    sa.Column("entity", ENTITY, nullable=False),
    sa.Column("entity_id", ID, nullable=False),
    sa.Column("rule", sa.String(40), nullable=False),
    sa.Column("field", sa.String(120), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("open", sa.Boolean, nullable=False, server_default=sa.true()),
    # Closed by an operator who accepts that the record is not sent: DACS still does not have it.
    sa.Column("rejected", sa.Boolean, nullable=False, server_default=sa.false()),
)
sa.Index("ix_quarantine_entity", quarantine.c.entity, quarantine.c.entity_id)
sa.Index("ix_quarantine_batch", quarantine.c.batch, quarantine.c.entity)

# Rows that a batch sends while DACS does not have what they refer to; due once it has (ledger/orphans.py).
orphans = sa.Table(
    "orphans",
    metadata,
    sa.Column("batch", KEY, sa.ForeignKey("batches.key"), primary_key=True),
    sa.Column("entity", ENTITY, primary_key=True),
    sa.Column("entity_id", ID, primary_key=True),
    sa.Column("parent_entity", ENTITY, primary_key=True),
    sa.Column("parent_id", ID, primary_key=True),
    sa.Column("due", sa.Boolean, nullable=False, server_default=sa.false()),
)
sa.Index("ix_orphans_entity", orphans.c.entity, orphans.c.entity_id)
sa.Index("ix_orphans_parent", orphans.c.parent_entity, orphans.c.parent_id)

acknowledgements = sa.Table(
    "acknowledgements",
    metadata,
    sa.Column("id", SERIAL, primary_key=True),
    sa.Column("request_id", ID, nullable=False),
    sa.Column("has_error", sa.Boolean, nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("state", WORD, nullable=False),  # waiting, parked, taken, kept, delivered, contradicting
    sa.Column("duplicates", sa.Integer, nullable=False, server_default="0"),
    sa.Column("received", Moment, nullable=False),
    sa.UniqueConstraint("request_id", "has_error"),
)
sa.Index("ix_acknowledgements_state", acknowledgements.c.state)

# Foreign files that were moved, or are being moved; the same name may come again with another content or time.
foreign_files = sa.Table(
    "foreign_files",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("modified", Moment, primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Float),  # that moving took
    sa.Column("delivered", Moment),
    sa.Column("gone", Moment),  # when its source was seen to be away or another: if it comes again, it is to be moved
)
sa.Index("ix_foreign_files_delivered", foreign_files.c.delivered)

# Foreign files that are in the extract folder now: since when each stands as it is, and what failed.
foreign_seen = sa.Table(
    "foreign_seen",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("modified", Moment, nullable=False),
    sa.Column("since", sa.Float, nullable=False),  # by leases.shared_time
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failed", sa.Float),  # the last time, by the same clock
    sa.Column("reason", sa.Text),
)

# Every SENT_PREFIX under which sources were kept: none of them is taken for a new file when the setting changes.
sent_prefixes = sa.Table("sent_prefixes", metadata, sa.Column("prefix", sa.String(255), primary_key=True))

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", KEY, primary_key=True),
    sa.Column("holder", sa.String(120)),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),  # by leases.shared_time
)

marks = sa.Table(
    "marks",
    metadata,
    sa.Column("name", KEY, primary_key=True),
    sa.Column("value", sa.JSON, nullable=False),
)

journal = sa.Table(
    "journal",
    metadata,
    sa.Column("id", SERIAL, primary_key=True),
    sa.Column("at", Moment, nullable=False),
    sa.Column("batch", KEY),
    sa.Column("event", sa.String(40), nullable=False),
    sa.Column("detail", sa.JSON, nullable=False),
)
sa.Index("ix_journal_batch", journal.c.batch)
