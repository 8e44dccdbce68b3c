"""What a run finds held is guarded from the first second, however long the past and the model take."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bot.control import Control
from bot.core.commands import MoveStop
from bot.core.errors import RuntimeFault, UsageError
from bot.core.events import (
    EntriesBlocked,
    InstrumentDelisted,
    OrderRejected,
    PositionAdopted,
    PositionMarked,
)
from bot.core.records import EquityMarked
from bot.core.types import DAY_MS
from bot.exchange.bybit.download import BarDownload
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.bybit.errors import ExchangeError, ruling
from bot.exchange.bybit.requests import NewOrder
from bot.exchange.bybit.rest import Rest
from bot.exchange.local import assets
from bot.exchange.local.account import Entry
from bot.exchange.local.assets import Asset
from bot.live.account import account_lock, known_fees
from bot.live.parts import Choice
from bot.live.run import LiveRun
from bot.settings import Bybit, Costs, Settings, Storage
from bot.storage.database import Database
from bot.storage.journal import Journal
from tests.builders import START, bar
from tests.local_exchange import KEY, SECRET, LocalExchange, local_exchange
from tests.test_engine import Desk, nothing, orders_of

KEYS = Credentials(KEY, SECRET)
SOON = 8.0  # seconds
ADOPT = Bybit(foreign_positions="adopt")  # what these tests find held was bought by hand


def with_a_token(now: int) -> Sequence[Asset]:
    launch = now - 30 * DAY_MS
    return [
        assets.plain(name, price, launch, turnover=8e8)
        for name, price in (("BTCUSDT", 60_000.0), ("ETHUSDT", 2_500.0), ("NEWUSDT", 10.0))
    ]


async def never(*_: object) -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def starting(
    exchange: LocalExchange, directory: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[Database]:
    """A run whose first download never comes to its end."""
    monkeypatch.setattr(BarDownload, "run", never)
    rest = Rest(local(exchange.url), KEYS)
    await rest.measure_clock()
    chosen = Settings(**{"storage": Storage(directory=directory), "bybit": ADOPT, **settings})
    with Database.open(directory / "bot.sqlite") as database:
        earlier(database, exchange.venue.world.now + 1)
        choice = Choice("testnet", local(exchange.url), KEYS)
        control = Control(database, "testnet")
        run = LiveRun(chosen, choice, "1", rest, database, Console(quiet=True), control)
        task = asyncio.create_task(run.run(asyncio.Event()))
        try:
            yield database
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            rest.close()


def earlier(database: Database, ts: int) -> None:
    """A run of the same account that saw 10,000 USDT at `ts`, and ended."""
    config = json.dumps({"choice": {"account": "1", "environment": "local"}})
    journal = Journal.start(
        database, kind="testnet", title="", simulated=True, config_json=config, seed=0, started=ts,
        start_ts=ts, end_ts=ts,
    )  # fmt: skip
    journal.write(EquityMarked(ts, 10_000.0, 10_000.0, 10_000.0, 0.0, 0.0, 0.0))
    journal.finish({})


async def hold(exchange: LocalExchange, symbol: str = "NEWUSDT", **changes: Any) -> None:
    exchange.advance(500)
    rest = Rest(local(exchange.url), KEYS)
    await rest.orders.create(
        NewOrder(symbol=symbol, side="Buy", order_type="Market", qty=Decimal(20), **changes)
    )
    rest.close()


def told(database: Database, text: str) -> bool:
    return any(text in alarm for alarm in database.frame(2, "alarms")["text"])


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.02)


async def test_a_position_without_a_stop_gets_one_while_the_rest_of_the_start_takes_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_exchange(with_a_token) as exchange:
        await hold(exchange)
        rest = Rest(local(exchange.url), KEYS)
        async with starting(exchange, tmp_path, monkeypatch) as database:
            stop = None
            end = time.monotonic() + SOON
            while not stop:
                assert time.monotonic() < end, "no stop in time"
                (held,) = await rest.account.positions()
                stop = held.stop_loss
                await asyncio.sleep(0.05)
            assert held.entry is not None
            assert held.entry * Decimal("0.985") <= stop < held.entry
            await until(lambda: len(database.frame(2, "equity")))  # the day has begun, and that is on record
            assert len(database.commands(2)) == 1
        rest.close()


@pytest.mark.parametrize("status", ["Trading", "Delivering"])
async def test_a_held_token_that_is_about_to_end_is_sold_or_else_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    with local_exchange(with_a_token) as exchange:
        await hold(exchange, stop_loss=Decimal("9.9"))
        world = exchange.venue.world
        exchange.do(lambda: world.delist("NEWUSDT", world.now + DAY_MS))
        world.listed["NEWUSDT"].contract.status = status
        rest = Rest(local(exchange.url), KEYS)
        async with starting(exchange, tmp_path, monkeypatch) as database:
            if status == "Trading":
                end = time.monotonic() + SOON
                while await rest.account.positions():
                    assert time.monotonic() < end, "not sold in time"
                    exchange.advance(100)
                    await asyncio.sleep(0.05)
            await until(lambda: told(database, "no longer traded, or about to end: it is closed"))
            if status == "Delivering":
                await until(lambda: told(database, "will be tried again"))
            assert len(database.commands(2)) == 1
        rest.close()


async def test_a_start_that_fails_says_what_nobody_looks_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def expired(*_: object) -> None:
        raise ExchangeError(ruling(33004, write=False), path="/v5/market/kline")

    with local_exchange(with_a_token, manual=False) as exchange:
        rest, out = Rest(local(exchange.url), KEYS), StringIO()
        await rest.measure_clock()
        for symbol, stop in (("NEWUSDT", Decimal("9.9")), ("ETHUSDT", None)):
            await rest.orders.create(
                NewOrder(symbol=symbol, side="Buy", order_type="Market", qty=Decimal(1), stop_loss=stop)
            )
        monkeypatch.setattr(BarDownload, "run", expired)
        with Database.open(tmp_path / "bot.sqlite") as database:
            settings = Settings(storage=Storage(directory=tmp_path), bybit=ADOPT)
            choice = Choice("testnet", local(exchange.url), KEYS)
            control, console = Control(database, "testnet"), Console(file=out, width=500)
            run = LiveRun(settings, choice, "1", rest, database, console, control)
            with pytest.raises(ExchangeError, match="the API key has expired") as ended:
                await run.run(asyncio.Event())
            assert ended.value.exit_code == UsageError.exit_code  # a supervisor does not try again
            rest.close()
        told = " ".join(out.getvalue().split())
        assert "Warning: nobody looks after " in told
        assert "NEWUSDT +1 with its stop at 9.9" in told  # and the other one has been given one
        assert "ETHUSDT +1.00 with its stop at 24" in told
        assert len(exchange.do(lambda: exchange.account.held())) == 2


async def test_a_withdrawal_between_two_runs_of_a_day_is_no_loss_and_a_loss_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_exchange(with_a_token) as exchange:
        account, now = exchange.account, exchange.venue.world.now + 2  # after the earlier run's mark
        account.wallet -= 100
        exchange.do(lambda: account.book(Entry(now, "TRANSFER_OUT", Decimal(-4_900), account.wallet - 4_900)))
        async with starting(exchange, tmp_path, monkeypatch) as database:
            await until(lambda: len(database.frame(2, "equity")))
            (mark,) = database.frame(2, "equity").to_dict("records")
            assert mark["equity"] == 5_000
            assert mark["day_drawdown"] == pytest.approx(100 / 5_100)


async def test_the_fees_that_the_account_pays_are_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_exchange(with_a_token) as exchange:
        guessed = Costs(taker_fee=0.001, maker_fee=0.001)
        async with starting(exchange, tmp_path, monkeypatch, costs=guessed) as database:
            await until(lambda: len(database.frame(2, "equity")))
            costs = json.loads(database.runs()[-1].config_json)["costs"]
            assert (costs["taker_fee"], costs["maker_fee"]) == (0.00055, 0.0002)
            assert known_fees(database, local(exchange.url)) == (0.00055, 0.0002)


def test_a_second_bot_on_the_account_is_refused() -> None:
    environment = local("http://127.0.0.1:1")
    with account_lock(environment, "7"):
        with pytest.raises(RuntimeFault, match=r"account 7 on local: another bot \(process \d+\)"):
            account_lock(environment, "7")
        account_lock(environment, "8").release()
    account_lock(environment, "7").release()


# --- the engine's part -------------------------------------------------------------------------------------


def adopted(stop: Decimal | None = None) -> PositionAdopted:
    return PositionAdopted(START, START, "NEWUSDT", Decimal(2), Decimal(100), stop, "held at the start")


def marked(seconds: int, price: float = 100.0) -> PositionMarked:
    ts = START + 1_000 * seconds
    return PositionMarked(ts, ts, "NEWUSDT", price)


def test_the_exchanges_mark_is_enough_to_guard_a_position() -> None:
    desk = Desk(nothing)
    (asked,) = [item for item in desk.engine.step(adopted()) if isinstance(item, MoveStop)]
    assert asked.stop_loss == Decimal("98.50")
    (closing,) = orders_of(desk.engine.step(marked(100)))  # it never came
    assert closing.order.reduce_only
    passed = Desk(nothing)
    passed.engine.step(adopted())
    assert orders_of(passed.engine.step(marked(1, 98.0)))  # no stop can be set there any more


def test_an_exit_that_is_refused_again_and_again_is_tried_ever_more_rarely() -> None:
    desk = Desk(nothing)
    desk.engine.step(InstrumentDelisted(START, START, "NEWUSDT"))
    desk.engine.step(adopted())
    tried = []
    for second in range(600):
        for order in orders_of(desk.engine.step(marked(second))):
            tried.append(second)
            ts = START + 1_000 * second
            desk.engine.step(OrderRejected(ts, ts, order.order.link_id, "not trading"))
    assert tried == [0, 15, 45, 105, 225, 465]


def test_an_engine_takes_over_what_another_one_looked_after() -> None:
    care, run = Desk(nothing), Desk(nothing)
    care.engine.step(adopted(Decimal(97)))
    care.engine.step(EntriesBlocked(START, START, "operator", "look at this"))
    (leaving,) = orders_of(care.engine.step(marked(1, 97.0)))
    run.engine.take_over(care.engine)
    assert run.engine.account.blocked == "look at this"
    assert run.engine.portfolio.positions["NEWUSDT"].qty == leaving.order.qty
    assert orders_of(run.engine.step(marked(2, 96.0))) == []  # its exit is under way


def test_the_past_says_nothing_of_the_account() -> None:
    desk = Desk(nothing)
    desk.runner.advance([EntriesBlocked(START, START, "history", "the past is being replayed")])
    desk.play(bar(0, 100), bar(1, 100))
    desk.runner.finish()
    assert desk.journal.of(EquityMarked) == []
