"""The database: what a run wrote can be read, survives a kill, and proves a replay to be the same."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from alembic import command as alembic
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from bot.core import commands, events, records
from bot.core.commands import AdaptModel, AmendOrder, CancelOrder, ExtendChain, MoveStop, PlaceOrder
from bot.core.errors import DataError, RuntimeFault, UsageError
from bot.core.types import FillOrigin, OrderRequest, OrderType, Rung, Side, Stage, Verb
from bot.core.verdict import Gain, Verdict
from bot.storage import schema
from bot.storage.connection import make_engine, parse_url
from bot.storage.database import Database
from bot.storage.journal import LOGGED, Journal, Message, canonical
from tests.postgres import Server

RUN: dict[str, Any] = {
    "kind": "paper", "title": "a market", "simulated": True, "config_json": '{"risk":{}}', "seed": 7,
    "started": 1_750_000_000_000, "start_ts": 100, "end_ts": 10_000,
}  # fmt: skip
OF_A_RUN = [name for name, table in schema.metadata.tables.items() if "run_id" in table.c]
NOT_STORED = {
    events.BarClosed, events.InstrumentListed, events.InstrumentDelisted, events.FundingRatePublished,
    events.InstrumentStatusChanged, events.Traded, events.TickerChanged, events.FeedChanged,
    events.MicrostructureSampled, events.LiquiditySampled, events.PositionMarked,
    events.MarketHealthChanged, events.MarketHealthMeasured, events.TimePassed,
    commands.FetchBook, commands.RenewBook,
    records.FeaturesSeen, records.Readiness,
}  # fmt: skip
FOLDED = {
    events.BalanceChanged,  # as an alarm, like the next two
    events.FeedRefused,
    events.FramesUnreadable,
    events.OthersHold,
    events.PositionAdopted,
    events.OrderAccepted,
    events.OrderRejected,
    events.OrderCancelled,
    events.StopMoved,
}


def order(link_id: str, qty: str = "2", side: Side = Side.BUY) -> OrderRequest:
    return OrderRequest(
        link_id=link_id, symbol="ABCUSDT", side=side, type=OrderType.MARKET,
        qty=Decimal(qty), stop_loss=Decimal("0.985"),
    )  # fmt: skip


def filled(
    ts: int, link_id: str, qty: str, price: str, leaves: str = "0", side: Side = Side.BUY
) -> events.OrderFilled:
    return events.OrderFilled(
        ts, ts, f"x{ts}", link_id, "ABCUSDT", side, Decimal(price), Decimal(qty), Decimal("0.001"),
        Decimal(leaves), False, FillOrigin.ORDER if link_id else FillOrigin.STOP_LOSS,
    )  # fmt: skip


def decided(ts: int, **changes: Any) -> records.DecisionMade:
    decision = records.DecisionMade(
        ts, "ABCUSDT", ts - 1, 1.25, Stage.SHADOW, "adapted", "m1",
        0.7, 0.7, 0.8, nan, 120.0, Side.BUY, "refused", "gate", ts - 1,
    )  # fmt: skip
    return msgspec.structs.replace(decision, **changes)


def report(**changes: float) -> events.AdaptationReport:
    values: dict[str, Any] = dict.fromkeys(events.AdaptationReport.__struct_fields__, 0.1 + 0.2)
    return events.AdaptationReport(**{**values, "steps": 120, **changes})


def adapt(ts: int) -> AdaptModel:
    return AdaptModel(
        ts, "ABCUSDT", ts, "base", 3, np.zeros((4, 2), np.float32), np.arange(4),
        np.array([0, 1, -1, 1], np.int8), np.ones(4, np.float32), "loss drift: 0.9 nats",
    )  # fmt: skip


def steps(first: int = 0, last: int = 6) -> Iterator[list[Message]]:
    """A run in steps, each with every kind of message once."""
    for step in range(first, last):
        ts, link_id = 1000 + 10 * step, f"order-{step}"
        yield [
            decided(ts),
            records.Refused(ts, "ABCUSDT", "spread"),
            PlaceOrder(ts, order(link_id)),
            events.OrderAccepted(ts, ts, link_id, f"ex-{step}"),
            filled(ts + 1, link_id, "2", "1.5"),
            events.StopMoved(ts + 1, ts + 1, "ABCUSDT", Decimal("1.4")),
            adapt(ts),
            events.CandidateArrived(ts + 2, ts + 2, "ABCUSDT", f"m{step}", ts, report()),
            records.LabelMatured(
                ts + 3, "ABCUSDT", ts - 1, ts, 1, 0.01, 0.5, {"frozen": 0.5, "adapted": nan}
            ),
            records.EquityMarked(ts + 3, 1e4, 1e4, 1e4, 0.0, 0.0, 0.1),
            filled(ts + 4, "", "2", "1.4", side=Side.SELL),
        ]


def play(journal: Journal, played: Iterator[list[Message]], every: int = 1) -> None:
    """With a commit after `every` steps, and at the end."""
    for count, step in enumerate(played, 1):
        for message in step:
            journal.write(message)
        if count % every == 0:
            journal.commit()
    journal.commit()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a SQLite file; `target` is that or a PostgreSQL database."""
    return tmp_path / "var" / "bot.sqlite"


@pytest.fixture
def database(target: str | Path) -> Iterator[Database]:
    with Database.open(target) as opened:
        yield opened


@pytest.fixture
def sqlite(path: Path) -> Iterator[Database]:
    with Database.open(path) as opened:
        yield opened


@pytest.fixture
def journal(database: Database) -> Journal:
    return Journal.start(database, **RUN)


def tables(database: Database, run_id: int) -> dict[str, Any]:
    return {name: database.frame(run_id, name).to_dict("list") for name in OF_A_RUN}


# --- writing and reading -----------------------------------------------------------------------------------


def extend(ts: int) -> ExtendChain:
    one = adapt(ts)
    volatility = np.zeros(len(one.rows), np.float32)
    return ExtendChain(
        ts, ts, "base", "base", 1, (("ABCUSDT", len(one.rows)),), one.rows, one.starts, one.labels,
        one.weights, volatility,
    )  # fmt: skip


def test_another_snapshot_of_the_listings_is_another_command() -> None:
    same, other = extend(1), extend(1)
    other.log_vol[0] = 1.0
    assert canonical(same) == canonical(extend(1))
    assert canonical(same) != canonical(other)
    assert b'"ExtendChain"' in canonical(same)


def test_every_message_type_is_stored_folded_or_left_out_on_purpose() -> None:
    kinds = {
        *events.Event.__subclasses__(),
        *commands.Command.__subclasses__(),
        *records.Record.__subclasses__(),
    }
    assert kinds == set(LOGGED) | NOT_STORED | FOLDED
    assert {table for table, _ in LOGGED.values()} | {"commands"} == set(schema.LOGS)


def test_every_row_has_the_columns_of_its_table(database: Database, journal: Journal) -> None:
    gain = Gain("frozen", "base rate", 0.01, nan, nan, nan, 9.0, 1.5)
    verdict = Verdict("none", ("nothing yet",), (gain,))
    samples: list[Message] = [
        PlaceOrder(1, order("b")),
        AmendOrder(1, "ABCUSDT", "b", Decimal("1.4")),
        CancelOrder(1, "ABCUSDT", "b"),
        MoveStop(1, "ABCUSDT", Decimal("1.4")),
        adapt(1),
        extend(1),
        filled(1, "a", "1", "2"),
        events.FundingPaid(1, 2, "x", "ABCUSDT", Decimal("-0.01"), 1e-4),
        events.CandidateArrived(1, 2, "ABCUSDT", "m", 1, report()),
        events.AdaptationFailed(1, 2, "ABCUSDT", 1, "killed"),
        records.EquityMarked(1, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0),
        decided(1),
        records.LabelMatured(1, "ABCUSDT", 0, 1, 1, 0.1, 1.0, {"frozen": 0.5}),
        records.GateDecided(1, "ABCUSDT", "m", "adapted", "promoted", ("evidence",), 0.8, 0.2, 0.1, 140.0),
        records.QualityMeasured(1, "ABCUSDT", "3-7", 40.0, 0.6, 0.01, 0.02),
        records.StageChanged(1, "ABCUSDT", Stage.OBSERVE, Stage.SHADOW, ("ready",)),
        records.RungChanged(1, "ABCUSDT", Stage.SHADOW, Rung.NONE, "frozen", "few labels"),
        records.TransferJudged(1, "ABCUSDT", verdict),
        records.Refused(1, "ABCUSDT", "spread"),
        records.BreakerTripped(1, "drawdown", 0),
        records.BreakerReleased(1, "new day"),
        records.Alarm(1, "ABCUSDT", "look"),
        events.TokenLeftOut(1, 2, "ABCUSDT", "spread"),
        events.EntriesBlocked(1, 2, "feed", "silent"),
        events.EntriesAllowed(1, 2, "feed"),
        events.OperatorCommanded(1, 2, 3, Verb.PAUSE, "ann", "lunch"),
    ]
    assert {type(sample) for sample in samples} == set(LOGGED)
    for sample in samples:
        table, encode = LOGGED[type(sample)]
        assert set(encode(sample)) == set(schema.LOGS[table].columns.keys()) - {"run_id", "seq"}
        journal.write(sample)
    journal.commit()
    assert database.frame(journal.run_id, "stages")["new"].tolist() == ["SHADOW"]
    assert database.frame(journal.run_id, "gates")["reasons"].tolist() == [["evidence"]]
    (judged,) = database.frame(journal.run_id, "verdicts").to_dict("records")
    (read,) = (msgspec.convert(one, Gain) for one in judged["gains"])
    assert (judged["chosen"], judged["reasons"]) == ("none", ["nothing yet"])
    assert (read.arm, read.value, read.e_value) == ("frozen", 0.01, 1.5)
    assert isnan(read.low)
    assert isnan(judged["backward_transfer"])
    alarms = database.frame(journal.run_id, "alarms")
    kinds = ["Refused", "BreakerTripped", "BreakerReleased", "Alarm"]
    kinds += ["TokenLeftOut", "EntriesBlocked", "EntriesAllowed"]
    assert alarms["kind"].tolist() == kinds
    assert alarms["until"].fillna(-1).tolist() == [-1, 0, -1, -1, -1, -1, -1]


def test_a_run_is_described_by_its_row(database: Database, journal: Journal) -> None:
    play(journal, steps())
    journal.finish({"sharpe": 1.5, "arms": ["frozen", "adapted"], "ratio": inf})
    (run,) = database.runs()
    assert run == database.latest("paper") == database.latest("paper", "a market")
    assert database.latest("backtest") is None
    assert database.latest("paper", "another market") is None
    assert {name: getattr(run, name) for name in RUN} == RUN
    assert (run.state, run.last_ts) == ("finished", 1054)
    assert run.summary_json == {"sharpe": 1.5, "arms": ["frozen", "adapted"], "ratio": inf}


def test_nothing_is_stored_before_the_commit(database: Database, journal: Journal) -> None:
    journal.write(decided(1))
    assert len(database.frame(journal.run_id, "decisions")) == 0
    journal.commit()
    assert len(database.frame(journal.run_id, "decisions")) == 1


def test_numbers_come_back_as_floats_and_what_is_unknown_as_nan(database: Database, journal: Journal) -> None:
    journal.write(decided(1, side=None))
    journal.write(filled(2, "a", "0.00000012", "61234.5"))
    journal.commit()
    decisions = database.frame(journal.run_id, "decisions")
    assert decisions["p_up"].dtype == decisions["mmd"].dtype == float
    assert decisions["ts"].dtype == "int64"
    assert isnan(decisions["mmd"][0])
    assert decisions["side"].isna().all()
    fills = database.frame(journal.run_id, "fills", ["qty", "price"])
    assert fills.to_dict("records") == [{"qty": 1.2e-7, "price": 61234.5}]


def test_an_empty_table_reads_as_an_empty_frame(database: Database, journal: Journal) -> None:
    frame = database.frame(journal.run_id, "fills")
    assert len(frame) == 0
    assert frame["price"].dtype == float
    assert "exec_id" in frame.columns


def test_commands_are_canonical_json_in_order(database: Database, journal: Journal) -> None:
    written: list[commands.Command] = [
        PlaceOrder(1, order("a")),
        MoveStop(2, "ABCUSDT", Decimal("0.990")),
        CancelOrder(3, "ABCUSDT", "a"),
        adapt(4),
    ]
    for command in written:
        journal.write(command)
    journal.commit()
    stored = database.commands(journal.run_id)
    assert stored == [canonical(command) for command in written]
    assert b'"stop_loss":"0.990"' in stored[1]
    assert msgspec.json.decode(stored[3]) == {
        "type": "AdaptModel", "ts": 4, "symbol": "ABCUSDT", "cut": 4, "base_model": "base",
        "scratch": "", "seed": 3, "reason": "loss drift: 0.9 nats", "rows": 4, "labels": 3,
        "snapshot": "710f4b463e6b104479e13394da9f201f",
    }  # fmt: skip
    frame = database.frame(journal.run_id, "commands")
    assert frame["kind"].tolist() == ["PlaceOrder", "MoveStop", "CancelOrder", "AdaptModel"]
    assert frame["link_id"].tolist() == ["a", "", "a", ""]


def test_candidates_come_back_as_the_very_events(database: Database, journal: Journal) -> None:
    arrived = events.CandidateArrived(1, 2, "ABCUSDT", "m1", 1, report(mmd_after=-inf, seconds=1 / 3))
    failed = events.AdaptationFailed(3, 4, "ABCUSDT", 3, "out of memory")
    unknown = events.CandidateArrived(5, 6, "ABCUSDT", "m2", 5, report(mmd_before=nan))
    for event in (arrived, failed, unknown):
        journal.write(event)
    journal.commit()
    stored = database.candidates(journal.run_id)
    assert stored[:2] == [arrived, failed]
    last = stored[2]
    assert isinstance(last, events.CandidateArrived)
    assert isnan(last.report.mmd_before)


def test_a_later_run_finds_the_days_opening_equity_and_the_halt(database: Database, journal: Journal) -> None:
    runs = [journal.run_id]
    assert database.opening_equity(runs, 0) is None
    assert database.halts(runs) == []
    assert database.peak(runs, 0) is None
    assert database.highs(runs, 0) == {}
    for ts, equity, loss in ((5, 10_500.0, 0.0), (10, 9_900.0, 0.01), (20, 9_700.0, 0.03)):
        journal.write(records.EquityMarked(ts, equity, equity, 10_500.0, 0.0, loss, 0.0))
    day = records.BreakerTripped(20, "down 3.00%", 99)
    token = records.BreakerTripped(21, "lost", 99, records.Latch.TOKEN, "NEWUSDT")
    journal.write(day)
    journal.write(token)
    journal.commit()
    opened = database.opening_equity(runs, 10)
    assert opened is not None
    assert opened[0] == 10
    assert opened[1] == pytest.approx(10_000)
    assert database.opening_equity([], 10) is None
    assert database.halts(runs) == [day, token]
    assert database.halts([]) == []
    assert database.highs(runs, 10) == {0: (10, 9_900.0)}
    assert database.peak(runs, 0) == (20, 10_500.0)
    journal.write(records.BreakerReleased(30, "a new UTC day", records.Latch.DAY))
    journal.commit()
    assert database.halts(runs) == [token]
    assert database.cleared(runs) == 0
    journal.write(records.BreakerReleased(40, "cleared by a person"))
    journal.commit()
    assert database.halts(runs) == []
    assert database.cleared(runs) == 40
    assert database.peak(runs, 40) is None


def test_a_later_run_finds_when_entries_were_sent_and_which_were_filled(
    database: Database, journal: Journal
) -> None:
    runs = [journal.run_id]
    assert database.entries(runs, 0) == []
    assert database.last_entries(runs) == {}
    buy, sell = Side.BUY, Side.SELL
    for ts, side, is_filled in ((10, buy, True), (20, sell, True), (30, buy, True), (40, buy, False)):
        journal.write(PlaceOrder(ts, order(f"o{ts}", side=side)))
        if is_filled:
            journal.write(filled(ts + 1, f"o{ts}", "1", "1.5", leaves="1", side=side))
    closing = msgspec.structs.replace(order("x"), reduce_only=True, stop_loss=None)
    journal.write(PlaceOrder(50, closing))
    journal.write(filled(51, "x", "2", "1.5"))
    journal.commit()
    assert database.entries(runs, 10) == [20, 30, 40]
    assert database.entries([], 0) == []
    assert database.last_entries(runs) == {("ABCUSDT", buy): 30, ("ABCUSDT", sell): 20}


def test_it_is_known_whether_a_bot_has_ever_run(target: str | Path) -> None:
    assert not Database.exists(target)
    Database.open(target).close()
    assert Database.exists(target)


def test_a_later_run_finds_when_a_symbol_was_that_of_earlier_ones(
    database: Database, journal: Journal
) -> None:
    def adopted(qty: int, ts: int) -> events.PositionAdopted:
        return events.PositionAdopted(ts, ts, "ABCUSDT", Decimal(qty), Decimal(1), None, "")

    def written(*messages: Any) -> list[tuple[int, float]]:
        for message in messages:
            journal.write(message)
        journal.commit()
        return found()

    def found() -> list[tuple[int, float]]:
        return [tuple(span) for span in database.spans(runs).get("ABCUSDT", [])]

    runs = [journal.run_id]
    closing = msgspec.structs.replace(order("x", side=Side.SELL), reduce_only=True, stop_loss=None)
    assert found() == []
    assert written(PlaceOrder(10, order("o1"))) == [(10, inf)]  # its end is not on record
    assert database.spans([]) == {}
    assert written(filled(11, "o1", "2", "1.5")) == [(10, inf)]  # it is held
    out = [PlaceOrder(50, closing), filled(51, "x", "2", "1.5", side=Side.SELL)]
    assert written(*out) == [(10, 51)]
    unfilled = [PlaceOrder(60, order("o2")), events.OrderCancelled(65, 65, "o2", "late")]
    assert written(*unfilled) == [(10, 51), (60, 65)]
    stopped = filled(80, "", "2", "1", side=Side.SELL)
    assert written(PlaceOrder(70, order("o3")), filled(71, "o3", "2", "1.5"), stopped)[2:] == [(70, 80)]
    assert written(PlaceOrder(90, order("o4")))[3:] == [(90, inf)]  # nobody learnt what became of it
    later = journal = Journal.start(database, **RUN)
    runs.append(later.run_id)
    assert written()[3:] == [(90, inf)]  # a run that died before it had looked says nothing
    assert written(adopted(3, 100))[3:] == [(90, inf)]
    stopped = filled(110, "", "3", "1", side=Side.SELL)
    assert written(stopped)[3:] == [(90, 110)]  # of an entry that no run saw filled
    journal = Journal.start(database, **RUN)
    runs.append(journal.run_id)
    assert written(adopted(5, 120))[4:] == [(90, inf)]  # nobody knows since when: our last entry, at most
    assert written(adopted(0, 130))[4:] == [(90, 130)]
    assert written(PlaceOrder(140, order("o5")), filled(141, "o5", "2", "1"), adopted(0, 150))[4:] == [
        (90, 150)
    ]  # something is missing: all of its time counts


def test_what_a_person_told_a_run_comes_back_as_the_very_events(database: Database, journal: Journal) -> None:
    told = [
        events.OperatorCommanded(5, 6, 1, Verb.PAUSE, "ann on desk", "lunch"),
        events.OperatorCommanded(7, 8, 0, Verb.FLATTEN, "the stop of the process", ""),
    ]
    for event in told:
        journal.write(event)
    journal.commit()
    assert database.operator(journal.run_id) == told


def test_an_order_follows_its_life(database: Database, journal: Journal) -> None:
    def row() -> dict[str, Any]:
        journal.commit()
        (only,) = database.frame(journal.run_id, "orders").to_dict("records")
        return only

    journal.write(PlaceOrder(1, order("a", "3")))
    assert (row()["status"], row()["created"]) == ("Sent", 1)
    journal.write(events.OrderAccepted(2, 2, "a", "ex-1"))
    assert (row()["status"], row()["order_id"], row()["updated"]) == ("New", "ex-1", 2)
    journal.write(filled(3, "a", "1", "1.0", leaves="2"))
    assert (row()["status"], row()["filled_qty"]) == ("PartiallyFilled", 1)
    journal.write(filled(4, "a", "2", "1.3"))
    assert (row()["status"], row()["filled_qty"], row()["avg_price"]) == ("Filled", 3, 1.2)
    journal.write(events.OrderCancelled(5, 5, "a", "too late"))
    assert (row()["status"], row()["reason"]) == ("Filled", "too late")


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (events.OrderRejected(2, 2, "a", "balance"), "Rejected"),
        (events.OrderCancelled(2, 2, "a", "balance"), "Cancelled"),
    ],
)
def test_an_order_that_ends_without_a_fill_keeps_the_reason(
    database: Database, journal: Journal, event: events.Event, status: str
) -> None:
    journal.write(PlaceOrder(1, order("a")))
    journal.write(event)
    journal.commit()
    (row,) = database.frame(journal.run_id, "orders").to_dict("records")
    assert (row["status"], row["reason"], row["filled_qty"]) == (status, "balance", 0)


def test_positions_hold_the_latest_quantity_price_and_stop(database: Database, journal: Journal) -> None:
    def row() -> tuple[Any, ...]:
        journal.commit()
        (only,) = database.frame(journal.run_id, "positions").itertuples(index=False)
        return only.qty, only.avg_price, only.stop_loss

    journal.write(filled(1, "a", "2", "1.0"))
    journal.write(filled(2, "b", "2", "2.0"))
    journal.write(events.StopMoved(3, 3, "ABCUSDT", Decimal("0.9")))
    assert row() == (4, 1.5, 0.9)
    journal.write(filled(4, "c", "1", "3.0", side=Side.SELL))
    assert row() == (3, 1.5, 0.9)
    journal.write(filled(5, "d", "5", "2.5", side=Side.SELL))
    assert row()[:2] == (-2, 2.5)
    journal.write(filled(6, "", "2", "2.0"))
    qty, average, stop = row()
    assert qty == 0
    assert isnan(average)
    assert isnan(stop)


def test_a_forgotten_run_leaves_nothing(database: Database, journal: Journal) -> None:
    play(journal, steps())
    other = Journal.start(database, **RUN)
    play(other, steps())
    database.forget(journal.run_id)
    assert [run.id for run in database.runs()] == [other.run_id]
    assert all(not any(columns.values()) for columns in tables(database, journal.run_id).values())
    assert len(database.commands(other.run_id)) == 12


def test_a_reader_needs_no_lock_and_sees_what_is_committed(target: str | Path, journal: Journal) -> None:
    play(journal, steps())
    with Database.open(target, readonly=True) as reader:
        assert len(reader.commands(journal.run_id)) == 12


# --- durability --------------------------------------------------------------------------------------------


def watch_connections(database: Database, prepare: Callable[[sqlite3.Connection], None]) -> None:
    """Have `prepare` called with every connection that is opened from now on."""
    database.engine.dispose()
    sa.event.listen(database.engine, "connect", lambda connection, _: prepare(connection))


@pytest.mark.parametrize("durable", [True, False])
def test_a_commit_with_commands_is_synced_when_the_run_is_durable(sqlite: Database, durable: bool) -> None:
    statements: list[str] = []
    watch_connections(sqlite, lambda connection: connection.set_trace_callback(statements.append))
    journal = Journal.start(sqlite, **RUN, durable=durable)
    statements.clear()
    journal.write(decided(1))
    journal.commit()
    assert "PRAGMA synchronous = NORMAL" in statements
    journal.write(PlaceOrder(2, order("a")))
    journal.commit()
    assert ("PRAGMA synchronous = FULL" in statements) is durable


def test_a_full_disk_is_a_fault_after_which_nothing_was_sent_and_nothing_is_lost(sqlite: Database) -> None:
    connections: list[sqlite3.Connection] = []
    watch_connections(sqlite, connections.append)
    journal = Journal.start(sqlite, **RUN)
    for connection in connections:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 5}")
    for ts in range(2000):
        journal.write(decided(ts))
    journal.write(PlaceOrder(2000, order("a")))
    with pytest.raises(RuntimeFault, match=r"the disk is full; .*nothing was sent"):
        journal.commit()
    assert sqlite.commands(journal.run_id) == []
    assert len(sqlite.frame(journal.run_id, "decisions")) == 0
    for connection in connections:
        connection.execute("PRAGMA max_page_count = 1000000")
    journal.commit()
    assert len(sqlite.commands(journal.run_id)) == 1
    assert len(sqlite.frame(journal.run_id, "decisions")) == 2000


def test_a_server_that_drops_the_connection_is_a_fault_and_the_next_commit_goes_through(
    postgres_server: Server,
) -> None:
    with postgres_server.database() as url, Database.open(url) as database:
        journal = Journal.start(database, **RUN)
        journal.write(PlaceOrder(1, order("a")))
        postgres_server.do("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IS NOT NULL"
                           " AND pid != pg_backend_pid()")  # fmt: skip
        with pytest.raises(RuntimeFault, match=r"the database does not answer .*nothing was sent"):
            journal.commit()
        journal.commit()
        assert len(database.commands(journal.run_id)) == 1


ENDLESS_RUN = """
import sys
from pathlib import Path
from bot.storage.database import Database
from bot.storage.journal import Journal
from tests.test_database import RUN, play, steps

journal = Journal.start(Database.open(sys.argv[1]), **RUN)
step = 0
while True:
    play(journal, steps(step, step + 1))
    step += 1
    print(step, flush=True)
"""


def opened_when_free(target: str | Path) -> Database:
    """A server notices a moment later that a client is dead."""
    end = time.monotonic() + 10
    while True:
        try:
            return Database.open(target)
        except RuntimeFault:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def test_a_killed_run_leaves_whole_steps_and_resumes_to_the_same_end(
    target: str | Path, tmp_path: Path
) -> None:
    root = Path(__file__).parents[1]
    child = subprocess.Popen(
        [sys.executable, "-c", ENDLESS_RUN, str(target)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    committed = 0
    while committed < 40:
        committed = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()

    with opened_when_free(target) as database:
        (run,) = database.runs()
        assert run.state == "interrupted"
        done = len(database.frame(run.id, "decisions"))
        assert done >= committed
        assert run.last_ts == 1000 + 10 * (done - 1) + 4
        counts = {name: len(database.frame(run.id, name)) for name in OF_A_RUN}
        assert counts == {
            **dict.fromkeys(("decisions", "alarms", "orders", "candidates", "labels", "equity"), done),
            **dict.fromkeys(("commands", "fills"), 2 * done),
            **dict.fromkeys(("gates", "stages", "funding", "operator", "quality", "rungs", "verdicts"), 0),
            "positions": 1,
        }
        resumed = Journal.resume(database, run.id)
        play(resumed, steps(0, done + 3))
        resumed.finish({})
        with Database.open(tmp_path / "whole.sqlite") as other:
            whole = Journal.start(other, **RUN)
            play(whole, steps(0, done + 3))
            whole.finish({})
            assert database.commands(run.id) == other.commands(whole.run_id)
            np.testing.assert_equal(tables(database, run.id), tables(other, whole.run_id))


# --- resuming ----------------------------------------------------------------------------------------------


def interrupted(database: Database, count: int = 6, every: int = 1) -> int:
    journal = Journal.start(database, **RUN)
    play(journal, steps(0, count), every)
    journal.interrupt()
    return journal.run_id


def test_a_replay_writes_nothing_twice_and_then_goes_on(database: Database) -> None:
    run_id = interrupted(database, 4)
    journal = Journal.resume(database, run_id)
    assert journal.replaying
    play(journal, steps(0, 3))
    assert journal.replaying
    assert len(database.commands(run_id)) == 8
    play(journal, steps(3, 6))
    assert not journal.replaying
    assert len(database.commands(run_id)) == 12
    whole = Journal.start(database, **RUN)
    play(whole, steps())
    np.testing.assert_equal(tables(database, run_id), tables(database, whole.run_id))


def test_the_stored_state_does_not_go_back_in_time_while_a_run_replays(database: Database) -> None:
    run_id = interrupted(database)
    before = tables(database, run_id)
    journal = Journal.resume(database, run_id)
    play(journal, steps(0, 2))
    np.testing.assert_equal(tables(database, run_id), before)
    journal.interrupt()
    (run,) = database.runs()
    assert (run.state, run.last_ts) == ("interrupted", 1054)


def test_a_replayed_command_that_differs_stops_the_replay(database: Database) -> None:
    journal = Journal.resume(database, interrupted(database))
    journal.write(PlaceOrder(1000, order("order-0")))
    journal.write(adapt(1000))
    with pytest.raises(DataError, match=r"other code, settings or data: command 2 was[\s\S]*--fresh"):
        journal.write(PlaceOrder(1010, order("order-1", qty="2.5")))


def test_a_replayed_decision_that_differs_stops_the_replay(database: Database) -> None:
    journal = Journal.resume(database, interrupted(database))
    journal.write(decided(1000))  # the stored MMD is not known, and so is this one
    with pytest.raises(
        DataError, match=r"decision 1 was\n  p_up 0.7, mmd None\nand is now\n  p_up 0.5, mmd 0.1"
    ):
        journal.write(decided(1010, p_up=0.5, mmd=0.1))


def test_a_replayed_adaptation_of_another_snapshot_stops_the_replay(database: Database) -> None:
    journal = Journal.resume(database, interrupted(database))
    journal.write(PlaceOrder(1000, order("order-0")))
    other = msgspec.structs.replace(adapt(1000), rows=np.full((4, 2), 1e-7, np.float32))
    with pytest.raises(DataError, match="command 1 was"):
        journal.write(other)


def test_a_replay_of_more_rows_than_are_read_at_a_time(database: Database) -> None:
    run_id = interrupted(database, 1_234, every=100)
    journal = Journal.resume(database, run_id)
    play(journal, steps(0, 1_240), every=100)
    journal.finish({})
    assert len(database.commands(run_id)) == 2 * 1_240
    assert len(database.frame(run_id, "orders")) == 1_240


def test_orders_that_ended_long_ago_are_forgotten_and_stay_stored(database: Database) -> None:
    journal = Journal.start(database, **RUN)
    play(journal, steps(0, 1_500), every=100)
    late = events.OrderCancelled(20_000, 20_000, "order-1400", "too late")
    journal.write(late)
    journal.write(msgspec.structs.replace(late, link_id="order-3"))  # long gone: the row stays as it is
    journal.commit()
    assert len(journal._ledger._orders) <= 1_001
    rows = database.frame(journal.run_id, "orders").set_index("link_id")
    assert len(rows) == 1_500
    assert set(rows["status"]) == {"Filled"}
    assert (rows.loc["order-1400", "reason"], rows.loc["order-3", "reason"]) == ("too late", "")


def test_a_replay_that_ends_before_the_stored_run_is_not_the_same_run(database: Database) -> None:
    journal = Journal.resume(database, interrupted(database))
    play(journal, steps(0, 3))
    with pytest.raises(DataError, match="the stored run goes on"):
        journal.finish({})


def test_a_run_that_does_not_exist_cannot_be_resumed(database: Database) -> None:
    with pytest.raises(DataError, match="no run 5"):
        Journal.resume(database, 5)


# --- opening -----------------------------------------------------------------------------------------------


def test_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_a_halt_of_the_first_version_is_still_in_force(target: str | Path) -> None:
    with Database.open(target) as database:
        journal = Journal.start(database, **RUN)
        journal.write(records.BreakerTripped(20, "down 3.00%", 99))
        journal.commit()
        with database.engine.begin() as connection:
            alembic.downgrade(Database.migrations(connection), "0001")
    with Database.open(target) as database:
        assert database.halts([1]) == [records.BreakerTripped(20, "down 3.00%", 99, records.Latch.DAY)]
        assert database.cleared([1]) == 0


REVISIONS = [
    script.revision
    for script in reversed(list(ScriptDirectory.from_config(Database.migrations()).walk_revisions()))
]


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_database_of_every_earlier_version_is_brought_up_to_date_and_keeps_its_rows(
    target: str | Path, path: Path, revision: str
) -> None:
    path.parent.mkdir()
    engine = make_engine(parse_url(target))
    with engine.begin() as connection:
        alembic.upgrade(Database.migrations(connection), revision)
    with engine.begin() as connection:
        old = sa.MetaData()
        old.reflect(connection)
        rows = {table.name: a_row(table) for table in old.sorted_tables if table.name != "alembic_version"}
        for name, row in rows.items():
            connection.execute(old.tables[name].insert(), row)
    engine.dispose()
    with Database.open(target) as database, database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
        for name, row in rows.items():
            (kept,) = connection.execute(old.tables[name].select()).mappings()
            assert {column: kept[column] for column in row} == row


def a_row(table: sa.Table) -> dict[str, Any]:
    """A value for each column, by its type."""
    values: dict[type, Any] = {bool: True, int: 1, float: 0.5, str: "1"}
    return {column.name: values[column.type.python_type] for column in table.columns}


def test_a_second_bot_on_the_same_database_is_refused_until_the_first_is_gone(target: str | Path) -> None:
    with Database.open(target), pytest.raises(RuntimeFault, match=r"another bot \(process \d+.*\) is using"):
        Database.open(target)
    Database.open(target).close()


def execute(target: str | Path, statement: str) -> None:
    """As another program would."""
    engine = make_engine(parse_url(target))
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused_and_left_alone(target: str | Path) -> None:
    Database.open(target).close()
    execute(target, "UPDATE alembic_version SET version_num = '9999'")
    for readonly in (False, True):
        with pytest.raises(
            DataError, match=r"newer version of the bot \(9999.*upgrade the bot or use another"
        ):
            Database.open(target, readonly=readonly)


def test_a_database_of_another_program_is_refused_and_left_alone(target: str | Path, path: Path) -> None:
    path.parent.mkdir()
    execute(target, "CREATE TABLE recipes (id INTEGER)")
    before = path.read_bytes() if path.exists() else b""
    with pytest.raises(DataError, match="another program"):
        Database.open(target)
    assert (path.read_bytes() if path.exists() else b"") == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "bot.sqlite"
    path.write_text("a diary, nothing else")
    with pytest.raises(DataError, match="not a database, or damaged"):
        Database.open(path)
    assert path.read_text() == "a diary, nothing else"


@pytest.mark.parametrize("damage", ["middle", "truncated"])
def test_a_damaged_database_is_refused(path: Path, damage: str) -> None:
    with Database.open(path) as database:
        play(Journal.start(database, **RUN), steps(0, 100))
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    if damage == "truncated":
        del content[half:]
    else:
        content[4096:half] = bytes([0xA5]) * (half - 4096)
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        Database.open(path)


def test_a_directory_that_cannot_be_written_is_a_fault_of_the_world(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeFault, match="cannot be opened"):
        Database.open(tmp_path / "file" / "bot.sqlite")
    with pytest.raises(RuntimeFault, match="cannot be"):
        Database.open(Path("/proc/bot.sqlite"))


def test_a_reader_does_not_make_a_database(path: Path) -> None:
    with pytest.raises(DataError, match="no such database"):
        Database.open(path, readonly=True)
    assert not path.exists()


def test_a_url_opens_the_same_database_as_its_path(path: Path) -> None:
    with Database.open(f"sqlite:///{path}") as database:
        Journal.start(database, **RUN)
    with Database.open(path) as database:
        assert len(database.runs()) == 1


def test_a_url_that_means_nothing_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="nothing is not supported; SQLite and PostgreSQL are"):
        Database.open("nothing://host/name")
    with pytest.raises(UsageError, match="not a database URL"):
        Database.open("://")
