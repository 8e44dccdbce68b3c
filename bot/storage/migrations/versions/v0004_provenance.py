"""Each decision says until when its features' statistics have seen bars; unknown for older ones."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("decisions", sa.Column("statistics_until", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("decisions", "statistics_until")
