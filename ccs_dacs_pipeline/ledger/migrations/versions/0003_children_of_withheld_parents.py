"""Children that were sent while their parent was withheld, and findings that an operator has rejected."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the change."""
    op.create_table(
        "orphans",
        sa.Column("batch", sa.String(length=64), nullable=False),
        sa.Column("entity", sa.String(length=40), nullable=False),
        sa.Column("entity_id", sa.String(length=32), nullable=False),
        sa.Column("parent_entity", sa.String(length=40), nullable=False),
        sa.Column("parent_id", sa.String(length=32), nullable=False),
        sa.Column("due", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batches.key"], name=op.f("fk_orphans_batch")),
        sa.PrimaryKeyConstraint("batch", "entity", "entity_id", "parent_entity", "parent_id", name=op.f("pk_orphans")),
    )
    with op.batch_alter_table("orphans", schema=None) as batch_op:
        batch_op.create_index("ix_orphans_entity", ["entity", "entity_id"], unique=False)
        batch_op.create_index("ix_orphans_parent", ["parent_entity", "parent_id"], unique=False)
    with op.batch_alter_table("quarantine", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rejected", sa.Boolean(), server_default=sa.false(), nullable=False))
