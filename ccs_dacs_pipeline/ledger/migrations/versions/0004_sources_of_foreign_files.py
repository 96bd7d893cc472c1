"""Foreign files: when a source was seen to be gone, and the prefixes under which sources were kept."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the change."""
    op.create_table(
        "sent_prefixes",
        sa.Column("prefix", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("prefix", name=op.f("pk_sent_prefixes")),
    )
    with op.batch_alter_table("foreign_files", schema=None) as batch_op:
        batch_op.add_column(sa.Column("gone", sa.DateTime(), nullable=True))
