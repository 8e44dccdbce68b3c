"""A run that is stopped before it trades ends as one that trades; what waits for a person survives it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bot.control import Control
from bot.core.events import OPERATOR, EntriesAllowed, EntriesBlocked, OperatorCommanded
from bot.core.types import Verb
from bot.exchange.bybit.download import BarDownload
from bot.exchange.bybit.environment import local
from bot.exchange.bybit.requests import NewOrder
from bot.exchange.bybit.rest import Rest
from bot.live.parts import Choice
from bot.live.run import LiveRun
from bot.settings import Live, Risk, Settings, Storage
from bot.storage.database import Database
from bot.storage.journal import Journal
from bot.storage.mailbox import Mailbox
from tests.local_exchange import LocalExchange, local_exchange
from tests.test_care import ADOPT, KEYS, earlier, never, until, with_a_token
from tests.test_database import RUN

SYMBOL = "NEWUSDT"


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    with local_exchange(with_a_token, manual=False) as running:
        yield running


@asynccontextmanager
async def preparing(
    exchange: LocalExchange, directory: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[tuple[Database, StringIO]]:
    """A run that holds something and downloads; it is stopped at the end, and ends by itself."""
    monkeypatch.setattr(BarDownload, "run", never)
    rest, stop, out = Rest(local(exchange.url), KEYS), asyncio.Event(), StringIO()
    await rest.measure_clock()
    await rest.orders.create(
        NewOrder(symbol=SYMBOL, side="Buy", order_type="Market", qty=Decimal(20), stop_loss=Decimal("9.7"))
    )
    chosen = Settings(**{"storage": Storage(directory=directory), "bybit": ADOPT, **settings})
    with Database.open(directory / "bot.sqlite") as database:
        earlier(database, exchange.venue.world.now)
        control = Control(database, "testnet", look_seconds=0.05)
        control.begin()
        run = LiveRun(
            chosen, Choice("testnet", local(exchange.url), KEYS), "1", rest, database,
            Console(file=out, width=200), control,
        )  # fmt: skip
        task = asyncio.create_task(run.run(stop))
        await until(lambda: task.done() or len(database.frame(2, "equity")))
        yield database, out
        stop.set()
        began = time.monotonic()
        await task
        assert time.monotonic() - began < 9.0
        assert database.runs()[-1].state == "finished"
        rest.close()


def held(exchange: LocalExchange) -> dict[str, Decimal]:
    return exchange.do(lambda: {item.contract.symbol: item.qty for item in exchange.account.held()})


async def test_a_stop_while_bars_are_downloaded_has_a_last_look_at_the_account(
    exchange: LocalExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The price of that look trips the limit of the day: the exit is booked by the run that sent it."""
    risk = Risk(daily_drawdown=0.0001)
    async with preparing(exchange, tmp_path, monkeypatch, risk=risk) as (_, out):
        exchange.move(SYMBOL, 0.99)
    assert held(exchange) == {}
    with Database.open(tmp_path / "bot.sqlite") as database:
        fills = database.frame(2, "fills", ["symbol", "side", "qty", "leaves_qty"])
        assert fills.values.tolist() == [[SYMBOL, "Sell", Decimal(20), Decimal(0)]]
    assert "differ" not in out.getvalue()
    assert "balance" in out.getvalue()  # of the table of the audit


async def test_a_stop_before_trading_leaves_what_is_protected(
    exchange: LocalExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with preparing(exchange, tmp_path, monkeypatch):
        pass
    assert held(exchange) == {SYMBOL: Decimal(20)}


async def test_a_stop_before_trading_closes_everything_where_that_is_wanted(
    exchange: LocalExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with preparing(exchange, tmp_path, monkeypatch, live=Live(on_stop="flatten")):
        pass
    assert held(exchange) == {}


# --- what waits for a person --------------------------------------------------------------------------------


def blocked(database: Database, ts: int, reason: str) -> None:
    """By an earlier run of the same account."""
    journal = Journal.start(
        database, **{**RUN, "kind": "testnet", "config_json": '{"choice": {"account": "1"}}'}
    )
    journal.write(EntriesBlocked(ts, ts, OPERATOR, reason))
    journal.finish({})


async def test_what_a_person_must_see_to_holds_the_next_run_until_resume(
    exchange: LocalExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def causes(run: int) -> Callable[[], list[str]]:
        return lambda: list(database.frame(run, "alarms").query("kind == 'EntriesBlocked'")["latch"])

    with Database.open(tmp_path / "bot.sqlite") as database:
        blocked(database, exchange.venue.world.now, "look at this")
    async with preparing(exchange, tmp_path, monkeypatch) as (database, out):
        await until(lambda: "no entries (operator): look at this" in out.getvalue())
        run = database.runs()[-1].id
        assert OPERATOR in causes(run)()
        assert database.unseen([item.id for item in database.runs()]) == "look at this"
        Mailbox(database, "testnet").post(Verb.RESUME, "ann", "", 1)
        await until(lambda: database.operator(run))
        assert database.unseen([item.id for item in database.runs()]) == ""


def test_the_newest_word_counts_and_only_a_later_resume_ends_it(tmp_path: Path) -> None:
    with Database.open(tmp_path / "bot.sqlite") as database:
        first = Journal.start(database, **RUN)
        for message in (
            EntriesBlocked(10, 10, OPERATOR, "one"),
            EntriesBlocked(11, 11, OPERATOR, "two: a"),
            EntriesBlocked(12, 12, "account", "three"),
            EntriesAllowed(13, 13, "account"),
            OperatorCommanded(14, 14, 1, Verb.PAUSE, "ann", ""),
        ):
            first.write(message)
        first.finish({})
        assert database.unseen([1]) == "two: a"
        assert database.unseen([]) == ""
        second = Journal.start(database, **RUN)
        second.write(OperatorCommanded(5, 5, 2, Verb.RESUME, "ann", ""))  # of another clock
        second.commit()
        assert database.unseen([1]) == "two: a"
        assert database.unseen([1, 2]) == ""
        second.write(EntriesBlocked(6, 6, OPERATOR, "three"))
        second.finish({})
        assert database.unseen([1, 2]) == "three"
