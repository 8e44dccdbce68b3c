"""Whether the transfer helps each token, with every comparison; runs before this have no rows of it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "verdicts",
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("ts", sa.BigInteger, nullable=False),
        sa.Column("symbol", sa.String, nullable=False),
        sa.Column("chosen", sa.String, nullable=False),
        sa.Column("reasons", sa.Text, nullable=False),
        sa.Column("gains", sa.Text, nullable=False),
        sa.Column("backward_transfer", sa.Double),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("verdicts")
