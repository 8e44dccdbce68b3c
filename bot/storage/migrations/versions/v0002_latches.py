"""Breakers have names: which one tripped or was released."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("alarms", sa.Column("latch", sa.String))


def downgrade() -> None:
    op.drop_column("alarms", "latch")
