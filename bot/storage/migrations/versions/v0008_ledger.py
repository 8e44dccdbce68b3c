"""Until when an equity contains what came and went without our trading; of earlier rows nobody knows."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("equity", sa.Column("ledger", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("equity", "ledger")
