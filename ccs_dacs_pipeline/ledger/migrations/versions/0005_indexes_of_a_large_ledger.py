"""Indexes for what is asked often of a ledger that holds years: answers due, unfinished batches, highest numbers."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ANSWER_DUE = sa.text("settlement IS NULL AND answer_source IS NOT NULL")


def upgrade() -> None:
    """Makes the change."""
    with op.batch_alter_table("batches", schema=None) as batch_op:
        batch_op.create_index("ix_batches_mode_number", ["mode", "number"], unique=False)
        batch_op.create_index("ix_batches_stage", ["stage"], unique=False)
    with op.batch_alter_table("requests", schema=None) as batch_op:
        batch_op.create_index(
            "ix_requests_due", ["request_id"], unique=False, sqlite_where=_ANSWER_DUE, postgresql_where=_ANSWER_DUE
        )
