"""Tables of the database.

The tables with a `seq` only grow: row `seq` of a run is the seq-th message of that kind, counted from 0, so a
replay knows which rows it has already written. `orders` and `positions` hold the latest state. `requests` and
`heartbeats` belong to no run: by them a person's commands and a running bot find each other.

Times are ms UTC. Prices and quantities of orders are decimal text; a float column holds NULL where the value
is NaN.
"""

import json
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)


class DecimalText(TypeDecorator[Decimal]):
    """A Decimal as plain digits, never with an exponent, so that text compares and reads as it should."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        return None if value is None else format(value, "f")

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class Real(TypeDecorator[float]):
    """A double that is NULL where it is NaN: SQLite makes it so, PostgreSQL would keep a NaN that compares as
    the greatest number."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        return None if value is None or value != value else value


class JsonText(TypeDecorator[Any]):
    """A JSON value with sorted keys. NaN and infinities survive, which a database's own JSON type forbids."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String, nullable=False),  # paper | backtest | testnet | demo | live | rehearsal
    Column("title", String, nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("config_hash", String, nullable=False),
    Column("config_json", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("started", BigInteger, nullable=False),  # wall time
    Column("start_ts", BigInteger, nullable=False),
    Column("end_ts", BigInteger, nullable=False),
    Column("last_ts", BigInteger, nullable=False),
    Column("state", String, nullable=False),  # running | interrupted | finished
    Column("summary_json", JsonText),
)


def _table(name: str, *columns: Column[Any]) -> Table:
    """A table whose key begins with the run."""
    run = Column("run_id", Integer, ForeignKey("runs.id"), primary_key=True)
    return Table(name, metadata, run, *columns, sqlite_with_rowid=False)


def _log(name: str, *columns: Column[Any]) -> Table:
    """A table that only grows, keyed by run and message number."""
    seq = Column("seq", Integer, primary_key=True, autoincrement=False)
    return _table(name, seq, Column("ts", BigInteger, nullable=False), *columns)


commands = _log(
    "commands",
    Column("kind", String, nullable=False),
    Column("link_id", String, nullable=False),  # empty for commands about no order
    Column("body", Text, nullable=False),  # canonical JSON
)

orders = _table(
    "orders",
    Column("link_id", String, primary_key=True),
    Column("order_id", String, nullable=False),  # the exchange's; empty until it answers
    Column("symbol", String, nullable=False),
    Column("side", String, nullable=False),
    Column("type", String, nullable=False),
    Column("qty", DecimalText, nullable=False),
    Column("price", DecimalText),
    Column("stop_loss", DecimalText),
    Column("take_profit", DecimalText),
    Column("reduce_only", Boolean, nullable=False),
    Column("status", String, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    Column("filled_qty", DecimalText, nullable=False),
    Column("avg_price", DecimalText),
)

positions = _table(
    "positions",
    Column("symbol", String, primary_key=True),
    Column("qty", DecimalText, nullable=False),  # signed; zero when flat
    Column("avg_price", DecimalText),
    Column("stop_loss", DecimalText),
    Column("updated", BigInteger, nullable=False),
)

fills = _log(
    "fills",
    Column("received", BigInteger, nullable=False),
    Column("exec_id", String, nullable=False),
    Column("link_id", String, nullable=False),
    Column("symbol", String, nullable=False),
    Column("side", String, nullable=False),
    Column("price", DecimalText, nullable=False),
    Column("qty", DecimalText, nullable=False),
    Column("fee", DecimalText, nullable=False),
    Column("leaves_qty", DecimalText, nullable=False),
    Column("is_maker", Boolean, nullable=False),
    Column("origin", String, nullable=False),
)

funding = _log(
    "funding",
    Column("received", BigInteger, nullable=False),
    Column("exec_id", String, nullable=False),
    Column("symbol", String, nullable=False),
    Column("amount", DecimalText, nullable=False),  # positive when we paid
    Column("rate", Real),
)

equity = _log(
    "equity",
    Column("equity", Real),
    Column("balance", Real),
    Column("peak", Real),
    Column("drawdown", Real),
    Column("day_drawdown", Real),
    Column("exposure", Real),
    Column("ledger", BigInteger),  # until when it contains what came and went without our trading
)

decisions = _log(
    "decisions",
    Column("symbol", String, nullable=False),
    Column("bar_start", BigInteger, nullable=False),
    Column("close", Real),
    Column("stage", String, nullable=False),
    Column("arm", String, nullable=False),
    Column("model_id", String, nullable=False),
    Column("p_up", Real),
    Column("confidence", Real),
    Column("similarity", Real),
    Column("mmd", Real),
    Column("effective_labels", Real),
    Column("side", String),
    Column("verdict", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("statistics_until", BigInteger),
)

labels = _log(
    "labels",
    Column("symbol", String, nullable=False),
    Column("bar_start", BigInteger, nullable=False),
    Column("t_entry", BigInteger, nullable=False),
    Column("outcome", Integer, nullable=False),
    Column("ret", Real),
    Column("weight", Real),
    Column("p_up", JsonText, nullable=False),  # by arm
)

quality = _log(
    "quality",
    Column("symbol", String, nullable=False),
    Column("age", String, nullable=False),  # of the token, in days, or "rolling"
    Column("labels", Real),  # effective number
    Column("accuracy", Real),
    Column("skill", Real),
    Column("ece", Real),
)

gates = _log(
    "gates",
    Column("symbol", String, nullable=False),
    Column("model_id", String, nullable=False),
    Column("arm", String, nullable=False),
    Column("verdict", String, nullable=False),
    Column("reasons", JsonText, nullable=False),
    Column("similarity", Real),
    Column("mmd_before", Real),
    Column("mmd_after", Real),
    Column("effective_labels", Real),
)

stages = _log(
    "stages",
    Column("symbol", String, nullable=False),
    Column("old", String, nullable=False),
    Column("new", String, nullable=False),
    Column("reasons", JsonText, nullable=False),
)

rungs = _log(
    "rungs",
    Column("symbol", String, nullable=False),
    Column("stage", String, nullable=False),
    Column("rung", String, nullable=False),
    Column("arm", String, nullable=False),
    Column("reason", Text, nullable=False),
)

verdicts = _log(
    "verdicts",
    Column("symbol", String, nullable=False),
    Column("chosen", String, nullable=False),
    Column("reasons", JsonText, nullable=False),
    Column("gains", JsonText, nullable=False),  # of bot.core.verdict.Gain
    Column("backward_transfer", Real),
)

alarms = _log(
    "alarms",
    Column("kind", String, nullable=False),  # the type of the message
    Column("symbol", String, nullable=False),  # empty where it concerns the account
    Column("text", Text, nullable=False),
    Column("until", BigInteger),  # of a breaker; 0 = until a person clears it
    Column("latch", String),  # which breaker, empty where all were released; of blocks their cause
)

candidates = _log(
    "candidates",
    Column("received", BigInteger, nullable=False),
    Column("symbol", String, nullable=False),
    Column("cut", BigInteger, nullable=False),
    Column("model_id", String, nullable=False),  # empty when the adaptation failed
    Column("report", JsonText),
    Column("reason", Text, nullable=False),  # of the failure
)

operator = _log(
    "operator",
    Column("received", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),  # of the request; 0 for none
    Column("verb", String, nullable=False),
    Column("by", String, nullable=False),
    Column("reason", Text, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("mode", String, nullable=False),  # as `kind` of the run that is meant
    Column("verb", String, nullable=False),
    Column("by", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("asked", BigInteger, nullable=False),  # wall time, as the other two
    Column("taken", BigInteger),  # when the run had it in its journal
    Column("done", BigInteger),
    Column("answer", Text, nullable=False),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("mode", String, primary_key=True),
    Column("host", String, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("born", String, nullable=False),  # of the process, to tell it from a later one of that number
    Column("phase", String, nullable=False),  # starting | trading | stopped | finished
    Column("since", BigInteger, nullable=False),  # wall time of the start
    Column("beat", BigInteger, nullable=False),  # wall time
    Column("standing", Text),  # JSON of bot.engine.standing.Standing
)

LOGS: dict[str, Table] = {table.name: table for table in metadata.sorted_tables if "seq" in table.columns}
