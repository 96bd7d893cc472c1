"""Foreign files: which were moved, and what is seen of those that are there."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the change."""
    op.create_table(
        "foreign_files",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("modified", sa.DateTime(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("delivered", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("name", "modified", "sha256", name=op.f("pk_foreign_files")),
    )
    with op.batch_alter_table("foreign_files", schema=None) as batch_op:
        batch_op.create_index("ix_foreign_files_delivered", ["delivered"], unique=False)

    op.create_table(
        "foreign_seen",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("modified", sa.DateTime(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed", sa.Float(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_foreign_seen")),
    )
