"""Two on one account, with real clients: what a person holds and orders by hand is left alone, and told."""

import json
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bot.core.commands import AmendOrder, CancelOrder, MoveStop, PlaceOrder
from bot.core.events import (
    BalanceChanged,
    BarClosed,
    EntriesBlocked,
    InstrumentListed,
    OrderFilled,
    OrderRejected,
    OthersHold,
    PositionAdopted,
)
from bot.core.records import EquityMarked, Refused
from bot.core.types import DAY_MS, OrderRequest, OrderType, Side
from bot.exchange.bybit.audit import audit
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.requests import NewOrder
from bot.exchange.bybit.rest import Rest
from bot.execution.orders import Orders, tag_of
from bot.settings import Bybit
from bot.storage.database import Database
from bot.storage.journal import Journal
from tests.crash_child import BAR, BROKER, STREAMS
from tests.live_desk import LiveDesk, live_desk
from tests.local_exchange import KEY, SECRET, LocalExchange, local_exchange
from tests.test_care import starting, until, with_a_token
from tests.test_live_loop import in_and_out

KEYS = Credentials(KEY, SECRET)
OURS, THEIRS = "ETHUSDT", "BTCUSDT"
PRICES = {OURS: 2_500.0, THEIRS: 60_000.0}


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    with local_exchange(manual=False) as running:
        yield running


@asynccontextmanager
async def two(exchange: LocalExchange, **known: Any) -> AsyncIterator[tuple[LiveDesk, Rest]]:
    """A desk of ours and a person's client."""
    person = Rest(local(exchange.url), KEYS)
    await person.measure_clock()
    instruments = [item.contract.instrument for item in exchange.venue.world.listed.values()]
    try:
        async with live_desk(
            local(exchange.url), KEYS, in_and_out, BAR, settings=BROKER, streams=STREAMS,
            owners=Ownership(leave=True, **known), instruments=instruments,
        ) as desk:  # fmt: skip
            now = desk.rest.clock.now_ms()
            desk.tell(*(InstrumentListed(now, now, item) for item in instruments))
            yield desk, person
    finally:
        person.close()


async def trade(person: Rest, symbol: str, side: str, qty: str, **more: Any) -> None:
    """By hand, and so without an id of ours."""
    await person.orders.create(
        NewOrder(symbol=symbol, side=side, order_type="Market", qty=Decimal(qty), **more)
    )


async def bar(desk: LiveDesk, symbol: str) -> None:
    """One that makes the desk want in, or out where it holds."""
    price, known = PRICES[symbol], desk.engine._candles.get(symbol)
    await desk.until(lambda: desk.rest.clock.now_ms() // BAR * BAR > (known.next_start if known else 0))
    end = desk.rest.clock.now_ms() // BAR * BAR
    desk.tell(BarClosed(end, end, symbol, end - BAR, BAR, price, price, price, price, 1.0, price))


def held(exchange: LocalExchange) -> dict[str, tuple[Decimal, bool]]:
    """Quantity, and whether a stop lies at the exchange, by symbol."""
    return exchange.do(
        lambda: {
            item.contract.symbol: (item.qty, item.stop_loss is not None) for item in exchange.account.held()
        }
    )


def wallet(exchange: LocalExchange) -> Decimal:
    return exchange.do(lambda: exchange.account.wallet)


async def agreed(desk: LiveDesk, exchange: LocalExchange) -> None:
    """Our books have the wallet's money, and nothing differs."""
    cent = Decimal("0.01")
    await desk.until(
        lambda: abs(desk.engine.portfolio.balance - wallet(exchange)) < cent, what="the same money"
    )
    await desk.broker.settled()
    books = desk.engine.portfolio
    lines = await audit(
        desk.rest, desk.broker.owners, desk.log, list(books.positions.values()), books.balance, desk.opened
    )
    assert [line for line in lines if not line.equal] == []


async def test_a_persons_position_is_left_alone_while_we_trade_beside_it(exchange: LocalExchange) -> None:
    async with two(exchange) as (desk, person):
        before = wallet(exchange)
        await trade(person, THEIRS, "Buy", "0.1")
        await desk.until(lambda: THEIRS in desk.engine.others, what="somebody else")
        for symbol in (THEIRS, OURS):
            await bar(desk, symbol)
        await desk.until(lambda: OURS in desk.engine.portfolio.positions, what="our position")
        (refused,) = desk.journal.of(Refused)
        assert refused.symbol == THEIRS
        assert refused.reason == "somebody else has a position of +0.100 there, which is left alone"
        world = exchange.venue.world
        market, now = world.listed[THEIRS].market, world.now
        exchange.do(lambda: world.clearing.pay_funding(market, Decimal("0.001"), now))
        exchange.move(THEIRS, 1.01)
        await trade(person, THEIRS, "Sell", "0.06", reduce_only=True)
        await desk.until(lambda: "+0.040" in desk.engine.others.get(THEIRS, ""), what="less")
        await agreed(desk, exchange)
        await trade(person, THEIRS, "Sell", "0.04", reduce_only=True)
        await desk.until(lambda: THEIRS not in desk.engine.others, what="nobody else")
        await bar(desk, OURS)
        await desk.until(lambda: not desk.engine.portfolio.positions, what="our exit")
        await agreed(desk, exchange)
        assert wallet(exchange) > before + 40  # what the person has won
        now = desk.rest.clock.now_ms()
        (mark,) = [item for item in desk.engine.appraise(now) if isinstance(item, EquityMarked)]
        assert mark.day_drawdown > 0  # our fees
        assert mark.peak < before + 45
        assert sum(item.amount for item in desk.journal.of(BalanceChanged)) > 40
        assert {item.symbol for item in desk.journal.of(OrderFilled)} == {OURS}
        commands = (PlaceOrder, MoveStop, CancelOrder, AmendOrder)
        sent = [item for kind in commands for item in desk.journal.of(kind)]
        assert {item.order.symbol if isinstance(item, PlaceOrder) else item.symbol for item in sent} == {OURS}
        assert desk.journal.of(EntriesBlocked) == []
        await bar(desk, THEIRS)  # free again
        await desk.until(lambda: THEIRS in desk.engine.portfolio.positions, what="our turn")
        await agreed(desk, exchange)


async def test_a_start_looks_after_what_is_ours_and_touches_nothing_else(exchange: LocalExchange) -> None:
    person = Rest(local(exchange.url), KEYS)
    for symbol, qty in ((OURS, "1"), (THEIRS, "0.1")):
        await trade(person, symbol, "Buy", qty)
    person.close()
    async with two(exchange, past={OURS: [(0, math.inf)]}) as (desk, _):
        await desk.until(lambda: held(exchange)[OURS][1], what="a stop")
        for _ in range(2):
            await desk.broker.reconcile()
        assert held(exchange) == {OURS: (Decimal(1), True), THEIRS: (Decimal("0.1"), False)}
        assert [item.symbol for item in desk.journal.of(PositionAdopted)] == [OURS]
        assert [(item.symbol, item.qty) for item in desk.journal.of(OthersHold)] == [(THEIRS, Decimal("0.1"))]
        await agreed(desk, exchange)


async def test_what_earlier_runs_had_is_free_once_it_is_seen_to_be_over(exchange: LocalExchange) -> None:
    async with two(exchange, past={OURS: [(0, math.inf)]}) as (desk, person):
        await desk.until(lambda: bool(desk.journal.of(PositionAdopted)), 20.0, "a look after the last words")
        assert OURS not in desk.broker.owners.claims
        (over,) = desk.journal.of(PositionAdopted)
        assert (over.symbol, over.qty, over.reason) == (OURS, 0, "what earlier runs had there is over")
        await trade(person, OURS, "Sell", "1")
        await desk.until(lambda: OURS in desk.engine.others, what="somebody else")
        assert desk.engine.portfolio.positions == {}


async def test_what_both_have_traded_into_stays_ours(exchange: LocalExchange) -> None:
    async with two(exchange) as (desk, person):
        await bar(desk, OURS)
        await desk.until(lambda: OURS in desk.engine.portfolio.positions, what="our position")
        own = desk.engine.portfolio.positions[OURS].qty
        await trade(person, OURS, "Buy", "1")
        await desk.until(lambda: desk.engine.portfolio.positions[OURS].qty == own + 1, what="both")
        assert desk.engine.others == {}
        await bar(desk, OURS)
        await desk.until(lambda: held(exchange) == {}, what="our exit")
        await agreed(desk, exchange)


async def test_an_entry_that_was_decided_before_somebody_came_does_not_leave(exchange: LocalExchange) -> None:
    async with two(exchange) as (desk, person):
        await trade(person, THEIRS, "Buy", "0.1")
        await desk.until(lambda: THEIRS in desk.engine.others, what="somebody else")
        link = Orders(tag_of(desk.opened, 7)).next_id(THEIRS)
        order = OrderRequest(
            link_id=link, symbol=THEIRS, side=Side.SELL, type=OrderType.MARKET, qty=Decimal("0.1")
        )
        desk.broker.submit(PlaceOrder(desk.rest.clock.now_ms(), order))
        await desk.until(lambda: bool(desk.journal.of(OrderRejected)), what="a refusal")
        assert desk.journal.of(OrderRejected)[0].reason == f"not sent: somebody else is in {THEIRS}"
        assert held(exchange) == {THEIRS: (Decimal("0.1"), False)}


async def test_a_persons_order_is_told_and_keeps_us_out_and_stays(exchange: LocalExchange) -> None:
    async with two(exchange) as (desk, person):
        resting = NewOrder(
            symbol=THEIRS, side="Buy", order_type="Limit", qty=Decimal("0.1"), price=Decimal(50_000),
            order_link_id="by-hand",
        )  # fmt: skip
        await person.orders.create(resting)
        await desk.until(lambda: desk.engine.others == {THEIRS: "1 open orders"}, what="their order")
        await bar(desk, THEIRS)
        await desk.until(lambda: bool(desk.journal.of(Refused)), what="a refusal")
        for _ in range(2):
            await desk.broker.reconcile()
        assert [item.order_link_id for item in await person.orders.open_orders(settle_coin="USDT")] == [
            "by-hand"
        ]
        await person.orders.cancel_all(symbol=THEIRS)
        await desk.until(lambda: desk.engine.others == {}, what="nobody else")
        await bar(desk, THEIRS)
        await desk.until(lambda: THEIRS in desk.engine.portfolio.positions, what="our turn")


# --- through deaths and starts ------------------------------------------------------------------------------


def died(database: Database, started: int, symbol: str, *, given_up: bool = False) -> str:
    """A run that was killed when its entry had left, or was given up; its id."""
    config = json.dumps({"choice": {"account": "1", "environment": "local"}})
    journal = Journal.start(
        database, kind="testnet", title="", simulated=True, config_json=config, seed=5, started=started,
        start_ts=started, end_ts=started,
    )  # fmt: skip
    link = Orders(tag_of(started, 5)).next_id(symbol)
    order = OrderRequest(link_id=link, symbol=symbol, side=Side.BUY, type=OrderType.MARKET, qty=Decimal(20))
    journal.write(PlaceOrder(started, order))
    if given_up:
        journal.write(OrderRejected(started, started, link, "the exchange never received it"))
    journal.commit()
    return link


async def test_an_entry_whose_fill_no_run_has_booked_is_ours_and_the_persons_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_exchange(with_a_token) as exchange:
        exchange.advance(500)
        with Database.open(tmp_path / "bot.sqlite") as database:
            link = died(database, exchange.venue.world.now, "NEWUSDT")
        rest = Rest(local(exchange.url), KEYS)
        await trade(rest, "NEWUSDT", "Buy", "20", order_link_id=link)
        await trade(rest, "ETHUSDT", "Buy", "1")
        async with starting(exchange, tmp_path, monkeypatch, bybit=Bybit()) as database:
            await until(lambda: held(exchange)["NEWUSDT"][1])
            run = database.runs()[-1].id
            alarms = "somebody else has a position of +1.00 here: left alone, no entries"
            await until(lambda: alarms in list(database.frame(run, "alarms")["text"]))
            assert held(exchange) == {"NEWUSDT": (Decimal(20), True), "ETHUSDT": (Decimal(1), False)}
            assert len(database.commands(run)) == 1
        with Database.open(tmp_path / "bot.sqlite") as database:
            runs = [item.id for item in database.runs()]
            assert set(database.spans(runs)) == {"NEWUSDT"}
        rest.close()


@pytest.mark.parametrize("days", [0, 6])
async def test_a_position_that_only_the_exchange_knows_to_be_ours_is_ours(
    exchange: LocalExchange, days: int
) -> None:
    """The database has given the order up; its tag says whose it was, also after days without a bot. That of
    another bot does not."""
    person = Rest(local(exchange.url), KEYS)
    await person.measure_clock()
    started = person.clock.now_ms()
    await trade(person, OURS, "Buy", "1", order_link_id=Orders(tag_of(started, 5)).next_id(OURS))
    await trade(person, THEIRS, "Buy", "0.1", order_link_id=Orders(tag_of(started, 6)).next_id(THEIRS))
    person.close()

    def age() -> None:
        for made in exchange.account.executions:
            made["execTime"] = str(int(made["execTime"]) - days * DAY_MS)

    exchange.do(age)
    async with two(exchange, earlier=[tag_of(started, 5)]) as (desk, _):
        await desk.until(lambda: held(exchange)[OURS][1], what="a stop")
        assert set(desk.engine.portfolio.positions) == {OURS}
        assert set(desk.engine.others) == {THEIRS}
        assert desk.broker.owners.relatives == {THEIRS}


async def test_what_others_win_and_lose_between_two_runs_is_no_loss_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_exchange(with_a_token, manual=False) as exchange:
        rest = Rest(local(exchange.url), KEYS)
        async with starting(exchange, tmp_path, monkeypatch, bybit=Bybit()) as database:
            await until(lambda: len(database.frame(2, "equity")))
        await trade(rest, "ETHUSDT", "Buy", "2")
        exchange.move("ETHUSDT", 0.9)
        await trade(rest, "ETHUSDT", "Sell", "2", reduce_only=True)
        assert wallet(exchange) < 9_550
        await until(lambda: time.time() * 1_000 > exchange.venue.world.now + 50)  # it had been moved on
        async with starting(exchange, tmp_path, monkeypatch, bybit=Bybit()) as database:
            await until(lambda: len(database.frame(4, "equity")))
            (mark,) = database.frame(4, "equity").to_dict("records")
            assert mark["day_drawdown"] == pytest.approx(0, abs=1e-9)
            assert mark["equity"] == pytest.approx(float(wallet(exchange)))
        rest.close()


async def test_a_given_up_entry_that_filled_and_was_stopped_out_while_no_bot_ran_is_our_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person lost meanwhile is not. Each start knows it, the first one tells it."""
    with local_exchange(with_a_token, manual=False) as exchange:
        rest = Rest(local(exchange.url), KEYS)
        await rest.measure_clock()
        async with starting(exchange, tmp_path, monkeypatch, bybit=Bybit()) as database:
            await until(lambda: len(database.frame(2, "equity")))
        with Database.open(tmp_path / "bot.sqlite") as database:
            link = died(database, rest.clock.now_ms() - 60_000, "ETHUSDT", given_up=True)
        await trade(rest, "ETHUSDT", "Buy", "1", order_link_id=link, stop_loss=Decimal(2_400))
        exchange.move("ETHUSDT", 0.95)
        await until(lambda: held(exchange) == {})
        lost = 10_000 - float(wallet(exchange))
        assert lost > 95
        await trade(rest, "BTCUSDT", "Buy", "0.05")
        exchange.move("BTCUSDT", 0.9)
        await trade(rest, "BTCUSDT", "Sell", "0.05", reduce_only=True)
        assert wallet(exchange) < 9_750 - lost
        await until(lambda: time.time() * 1_000 > exchange.venue.world.now + 50)  # it had been moved on
        text = "an order that had been given up was carried out after all while no bot ran"
        told = [f"{text}: {-lost:+.2f} USDT, which is ours"]
        for start in (5, 7):
            async with starting(exchange, tmp_path, monkeypatch, bybit=Bybit()) as database:
                await until(lambda run=start: len(database.frame(run, "equity")))
                (mark,) = database.frame(start, "equity").to_dict("records")
                assert mark["day_drawdown"] == pytest.approx(lost / (float(wallet(exchange)) + lost))
                alarms = database.frame(start, "alarms")
                assert [item for item in alarms["text"] if text in item] == told
                told = []
        rest.close()
