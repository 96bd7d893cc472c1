"""The ledger's first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the change."""
    op.create_table(
        "acknowledgements",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("request_id", sa.String(length=32), nullable=False),
        sa.Column("has_error", sa.Boolean(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("duplicates", sa.Integer(), server_default="0", nullable=False),
        sa.Column("received", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acknowledgements")),
        sa.UniqueConstraint("request_id", "has_error", name=op.f("uq_acknowledgements_request_id_has_error")),
    )
    with op.batch_alter_table("acknowledgements", schema=None) as batch_op:
        batch_op.create_index("ix_acknowledgements_state", ["state"], unique=False)

    op.create_table(
        "batches",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("mode", sa.String(length=24), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("shards", sa.Integer(), nullable=False),
        sa.Column("low_id", sa.String(length=32), nullable=True),
        sa.Column("high_id", sa.String(length=32), nullable=True),
        sa.Column("stage", sa.String(length=24), nullable=False),
        sa.Column("aside", sa.String(length=24), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("rerun", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("moment", sa.DateTime(), nullable=True),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("updated", sa.DateTime(), nullable=False),
        sa.Column("delivered", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_batches")),
    )
    with op.batch_alter_table("batches", schema=None) as batch_op:
        batch_op.create_index("ix_batches_owner", ["owner"], unique=False)

    op.create_table(
        "file_numbers",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("batch_code", sa.String(length=24), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "batch_code", name=op.f("pk_file_numbers")),
        sa.UniqueConstraint("batch_code", "number", name=op.f("uq_file_numbers_batch_code_number")),
    )
    op.create_table(
        "journal",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("batch", sa.String(length=64), nullable=True),
        sa.Column("event", sa.String(length=40), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal")),
    )
    with op.batch_alter_table("journal", schema=None) as batch_op:
        batch_op.create_index("ix_journal_batch", ["batch"], unique=False)

    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=120), nullable=True),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "manifests",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("rerun", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("delivered", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("owner", "rerun", name=op.f("pk_manifests")),
    )
    op.create_table(
        "marks",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_marks")),
    )
    op.create_table(
        "sent",
        sa.Column("entity", sa.String(length=40), nullable=False),
        sa.Column("entity_id", sa.String(length=32), nullable=False),
        sa.Column("moment", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("entity", "entity_id", name=op.f("pk_sent")),
    )
    op.create_table(
        "snapshots",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("shards", sa.Integer(), nullable=False),
        sa.Column("low_id", sa.String(length=32), nullable=False),
        sa.Column("high_id", sa.String(length=32), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("ended", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_snapshots")),
    )
    with op.batch_alter_table("snapshots", schema=None) as batch_op:
        batch_op.create_index(
            "ux_snapshots_open",
            ["state"],
            unique=True,
            sqlite_where=sa.text("state = 'open'"),
            postgresql_where=sa.text("state = 'open'"),
        )

    op.create_table(
        "batch_entities",
        sa.Column("batch", sa.String(length=64), nullable=False),
        sa.Column("entity", sa.String(length=40), nullable=False),
        sa.Column("entity_id", sa.String(length=32), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("reference", sa.String(length=32), nullable=True),
        sa.Column("moment", sa.DateTime(), nullable=True),
        sa.Column("outcome", sa.String(length=24), nullable=True),
        sa.ForeignKeyConstraint(["batch"], ["batches.key"], name=op.f("fk_batch_entities_batch")),
        sa.PrimaryKeyConstraint("batch", "entity", "entity_id", name=op.f("pk_batch_entities")),
    )
    with op.batch_alter_table("batch_entities", schema=None) as batch_op:
        batch_op.create_index(
            "ux_batch_entities_active",
            ["entity", "entity_id"],
            unique=True,
            sqlite_where=sa.text("active"),
            postgresql_where=sa.text("active"),
        )

    op.create_table(
        "extracts",
        sa.Column("batch", sa.String(length=64), nullable=False),
        sa.Column("rerun", sa.Integer(), nullable=False),
        sa.Column("entity", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batches.key"], name=op.f("fk_extracts_batch")),
        sa.PrimaryKeyConstraint("batch", "rerun", "entity", name=op.f("pk_extracts")),
    )
    op.create_table(
        "files",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("batch", sa.String(length=64), nullable=False),
        sa.Column("rerun", sa.Integer(), nullable=False),
        sa.Column("entity", sa.String(length=40), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("delivered", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["batch"], ["batches.key"], name=op.f("fk_files_batch")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_files")),
    )
    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.create_index("ix_files_batch", ["batch", "rerun", "entity"], unique=False)

    op.create_table(
        "frames",
        sa.Column("batch", sa.String(length=64), nullable=False),
        sa.Column("asset", sa.String(length=40), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batches.key"], name=op.f("fk_frames_batch")),
        sa.PrimaryKeyConstraint("batch", "asset", name=op.f("pk_frames")),
    )
    op.create_table(
        "gate",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("held_by", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["held_by"], ["snapshots.number"], name=op.f("fk_gate_held_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gate")),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("batch", sa.String(length=64), nullable=False),
        sa.Column("entity", sa.String(length=40), nullable=False),
        sa.Column("entity_id", sa.String(length=32), nullable=False),
        sa.Column("rule", sa.String(length=40), nullable=False),
        sa.Column("field", sa.String(length=120), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("open", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batches.key"], name=op.f("fk_quarantine_batch")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
    )
    with op.batch_alter_table("quarantine", schema=None) as batch_op:
        batch_op.create_index("ix_quarantine_batch", ["batch", "entity"], unique=False)
        batch_op.create_index("ix_quarantine_entity", ["entity", "entity_id"], unique=False)

    op.create_table(
        "refused",
        sa.Column("request_id", sa.String(length=32), nullable=False),
        sa.Column("batch", sa.String(length=64), nullable=False),
        sa.Column("entity", sa.String(length=40), nullable=False),
        sa.Column("entity_id", sa.String(length=32), nullable=False),
        sa.Column("state_time", sa.DateTime(), nullable=True),
        sa.Column("message", sa.String(length=40), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batches.key"], name=op.f("fk_refused_batch")),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_refused")),
    )
    op.create_table(
        "requests",
        sa.Column("request_id", sa.String(length=32), nullable=False),
        sa.Column("batch", sa.String(length=64), nullable=False),
        sa.Column("entity", sa.String(length=40), nullable=False),
        sa.Column("entity_id", sa.String(length=32), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("found", sa.String(length=24), nullable=True),
        sa.Column("outcome", sa.String(length=24), nullable=True),
        sa.Column("answer", sa.JSON(), nullable=True),
        sa.Column("answer_error", sa.Boolean(), nullable=True),
        sa.Column("answer_source", sa.String(length=24), nullable=True),
        sa.Column("answer_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("settlement", sa.String(length=24), nullable=True),
        sa.Column("settled", sa.DateTime(), nullable=True),
        sa.Column("suspect", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batches.key"], name=op.f("fk_requests_batch")),
        sa.PrimaryKeyConstraint("request_id", "batch", name=op.f("pk_requests")),
    )
    with op.batch_alter_table("requests", schema=None) as batch_op:
        batch_op.create_index("ix_requests_batch", ["batch", "entity", "entity_id"], unique=False)
        batch_op.create_index(
            "ux_requests_open",
            ["request_id"],
            unique=True,
            sqlite_where=sa.text("settlement IS NULL"),
            postgresql_where=sa.text("settlement IS NULL"),
        )

    op.create_table(
        "tallies",
        sa.Column("batch", sa.String(length=64), nullable=False),
        sa.Column("entity", sa.String(length=40), nullable=False),
        sa.Column("fetched", sa.BigInteger(), nullable=False),
        sa.Column("written", sa.BigInteger(), nullable=True),
        sa.Column("quarantined", sa.JSON(), nullable=True),
        sa.Column("not_eligible", sa.JSON(), nullable=True),
        sa.Column("cleaned", sa.JSON(), nullable=True),
        sa.Column("unknown_references", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["batch"], ["batches.key"], name=op.f("fk_tallies_batch")),
        sa.PrimaryKeyConstraint("batch", "entity", name=op.f("pk_tallies")),
    )
