"""The first tables."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        _text("kind"),
        _text("title"),
        sa.Column("simulated", sa.Boolean, nullable=False),
        _text("config_hash"),
        sa.Column("config_json", sa.Text, nullable=False),
        _int("seed"),
        _int("started"),
        _int("start_ts"),
        _int("end_ts"),
        _int("last_ts"),
        _text("state"),
        sa.Column("summary_json", sa.Text),
    )
    _create_latest()
    _create_account()
    _create_model()
    _log(
        "alarms",
        _text("kind"),
        _text("symbol"),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("until", sa.BigInteger),
    )


def _create_latest() -> None:
    _table(
        "orders",
        sa.Column("link_id", sa.String, primary_key=True),
        *map(_text, ("order_id", "symbol", "side", "type", "qty")),
        sa.Column("price", sa.String),
        sa.Column("stop_loss", sa.String),
        sa.Column("take_profit", sa.String),
        sa.Column("reduce_only", sa.Boolean, nullable=False),
        _text("status"),
        _int("created"),
        _int("updated"),
        _text("reason"),
        _text("filled_qty"),
        sa.Column("avg_price", sa.String),
    )
    _table(
        "positions",
        sa.Column("symbol", sa.String, primary_key=True),
        _text("qty"),
        sa.Column("avg_price", sa.String),
        sa.Column("stop_loss", sa.String),
        _int("updated"),
    )


def _create_account() -> None:
    _log("commands", _text("kind"), _text("link_id"), sa.Column("body", sa.Text, nullable=False))
    _log(
        "fills",
        _int("received"),
        *map(_text, ("exec_id", "link_id", "symbol", "side", "price", "qty", "fee", "leaves_qty")),
        sa.Column("is_maker", sa.Boolean, nullable=False),
        _text("origin"),
    )
    _log("funding", _int("received"), _text("exec_id"), _text("symbol"), _text("amount"), _float("rate"))
    _log("equity", *map(_float, ("equity", "balance", "peak", "drawdown", "day_drawdown", "exposure")))


def _create_model() -> None:
    _log(
        "decisions",
        _text("symbol"),
        _int("bar_start"),
        _float("close"),
        *map(_text, ("stage", "arm", "model_id")),
        *map(_float, ("p_up", "confidence", "similarity", "mmd", "effective_labels")),
        sa.Column("side", sa.String),
        _text("verdict"),
        _text("reason"),
    )
    _log(
        "labels",
        _text("symbol"),
        _int("bar_start"),
        _int("t_entry"),
        sa.Column("outcome", sa.Integer, nullable=False),
        _float("ret"),
        _float("weight"),
        sa.Column("p_up", sa.Text, nullable=False),
    )
    _log(
        "gates",
        *map(_text, ("symbol", "model_id", "arm", "verdict")),
        sa.Column("reasons", sa.Text, nullable=False),
        *map(_float, ("similarity", "mmd_before", "mmd_after", "effective_labels")),
    )
    _log("stages", *map(_text, ("symbol", "old", "new")), sa.Column("reasons", sa.Text, nullable=False))
    _log(
        "candidates",
        _int("received"),
        _text("symbol"),
        _int("cut"),
        _text("model_id"),
        sa.Column("report", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
    )


def _table(name: str, *columns: sa.Column[Any]) -> None:
    run = sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), primary_key=True)
    op.create_table(name, run, *columns, sqlite_with_rowid=False)


def _log(name: str, *columns: sa.Column[Any]) -> None:
    seq = sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False)
    _table(name, seq, _int("ts"), *columns)


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.String, nullable=False)


def _int(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _float(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Double)
