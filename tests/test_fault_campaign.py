"""Every fault of the local exchange against the real client: nothing lost, nothing doubled, nothing hangs.

The engine trades in and out all the while, by REST or by WebSocket, and so does a person beside it, whose
position it wants to enter and must leave alone. After the fault its book of orders and the public order book
must be healthy within five seconds, and at the end our books are the exchange's.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from bot.core.events import BarClosed, EntriesAllowed, EntriesBlocked, InstrumentListed, PositionAdopted
from bot.core.signal import Action
from bot.core.types import MINUTE_MS, Position, Side
from bot.exchange.bybit.audit import Line, audit
from bot.exchange.bybit.broker import BrokerSettings
from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.bybit.market_watch import MarketWatch
from bot.exchange.bybit.order_desk import DeskSettings
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.streams import (
    ConnectionBudget,
    Stream,
    StreamSettings,
)
from bot.exchange.local import assets
from bot.exchange.local.server import Server
from bot.exchange.local.venue import Venue
from bot.exchange.local.world import World
from bot.market.book import State
from strategies.base import Advice
from tests.builders import enter
from tests.live_desk import LiveDesk, live_desk
from tests.naked import NakedWatch

KEY = Credentials("local", "local-secret")
SYMBOLS = ("AAAUSDT", "BBBUSDT", "CCCUSDT")
THEIRS, THEIR_PAUSE = "DDDUSDT", 3.0  # seconds between trades of the person
BAR = 100  # ms: the engine decides ten times a second
ENTRIES = ("rest", "websocket")
SEEDS = range(1, 21)
TOGETHER = 2  # seeds at a time: more are late for lack of a processor
LONG = 2_500  # ms of a fault
MINUTES = 150_000  # ms more of one that lasts
WAITING = 5  # seeds at a time where nothing happens for minutes
NOTICED = ("refuse", "half_open", "restart")  # entries must have stopped
WELL_AGAIN = 5.0  # seconds after the end of the fault
LATER = 3.0  # seconds more after minutes: two looks at money that a person moved meanwhile, of 1.5 each
NAKED_SECONDS = 1.0  # T: so long may a position be without a stop, whatever happens
SETTINGS = BrokerSettings(
    desk=DeskSettings(
        entry_valid=3.0, exit_valid=5.0, confirm=0.4, margin=0.5, shortest_wait=0.05,
        longest_wait=0.5,
    ),
    reconcile=1.0,
    look=0.2,
    patience=20.0,
)  # fmt: skip
STREAMS = StreamSettings(  # so that a connection which says nothing is noticed within the fault
    open_s=1.0, answer_s=1.0, ping_s=0.7, read_deadline_s=2.0, close_s=0.1, look_s=0.1,
)  # fmt: skip
FAULTS: dict[str, list[dict[str, Any]]] = {
    "refuse": [{"lasts_ms": LONG}],
    "drop": [{"target": "/v5/order/*", "probability": 0.5, "lasts_ms": LONG},
             {"target": "execution", "probability": 0.3, "lasts_ms": LONG},
             {"target": "order", "probability": 0.3, "lasts_ms": LONG},
             {"target": "position", "probability": 0.3, "lasts_ms": LONG}],
    "delay": [{"ms": 700, "probability": 0.5, "lasts_ms": LONG}],
    "duplicate": [{"lasts_ms": LONG}],
    "reorder": [{"probability": 0.5, "lasts_ms": LONG}],
    "half_open": [{"lasts_ms": LONG}],
    "slow_reader": [{"ms": 300, "lasts_ms": LONG}],
    "gap": [{"target": "orderbook.*", "probability": 0.3, "lasts_ms": LONG}],
    "crossed_book": [{"target": "orderbook.*", "probability": 0.3, "lasts_ms": LONG}],
    "bad_gateway": [{"probability": 0.7, "lasts_ms": LONG}],
    "too_many_visits": [{"probability": 0.5, "lasts_ms": LONG}],
    "server_error": [{"target": "/v5/order/create*", "probability": 0.5, "lasts_ms": LONG}],
    "bad_timestamp": [{"target": "/v5/order/*", "probability": 0.5, "lasts_ms": LONG}],
    "ack_lost": [{"target": "/v5/order/create*", "probability": 0.5, "lasts_ms": LONG}],
    "hidden": [{"target": "/v5/order/create*", "probability": 0.5, "ms": 1_200, "lasts_ms": LONG}],
    "fill_before_ack": [{"target": "/v5/order/create*", "ms": 300, "lasts_ms": LONG}],
    "clock_skew": [{"ms": 4_000, "lasts_ms": LONG}],
    "maintenance": [{"lasts_ms": LONG}],
    "restart": [{"ms": 1_500}],
}  # fmt: skip


def in_and_out(closed: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
    """Enter when flat, leave when not."""
    action = Action.EXIT if closed.symbol in positions else Action.ENTER
    return (enter(action=action, price=closed.close, ts=closed.ts, symbol=closed.symbol),)


class Campaign:
    """An exchange, a desk that trades on it, and a public order book that is watched."""

    def __init__(self, server: Server, desk: LiveDesk, naked: NakedWatch) -> None:
        self.server, self.desk, self.naked = server, desk, naked
        self.trading = True
        self.blocked = False
        self.stream = Stream(
            local(server.url).public_url(), clock=desk.rest.clock, settings=STREAMS, raw_books=True,
        )  # fmt: skip
        self.watch = MarketWatch(self.stream, desk.rest.market, desk.rest.clock, lambda _: None, MINUTE_MS)
        self.watch.follow(SYMBOLS[0])
        self._due = 0
        self.bought = 0

    def by_hand(self, side: str) -> None:
        """The person buys or sells one, with a stop of their own; something is always held."""
        body = {
            "category": "linear", "symbol": THEIRS, "side": side, "qty": "1", "orderType": "Market",
            "stopLoss": "" if side == "Sell" else "5", "reduceOnly": side == "Sell",
        }  # fmt: skip
        world = self.server.venue.world
        world.engine.create(self.naked.account, body, world.now)
        self.bought += 1 if side == "Buy" else -1

    async def person(self) -> None:
        while True:
            await asyncio.sleep(THEIR_PAUSE)
            if self.trading:
                self.by_hand("Buy" if self.bought == 1 else "Sell")

    def meddling(self) -> list[str]:
        """What was done to the person's position."""
        account = self.naked.account
        ours = [
            order.link_id for order in account.orders.values() if order.symbol == THEIRS and order.link_id
        ]
        held = [item.qty for item in account.held() if item.contract.symbol == THEIRS]
        return [*ours, *([] if held == [self.bought] else [f"{self.bought} bought, {held}"])]

    def list_all(self) -> None:
        now = self.desk.rest.clock.now_ms()
        for listed in self.server.venue.world.listed.values():
            self.desk.tell(InstrumentListed(now, now, listed.contract.instrument))

    async def feed(self) -> None:
        """Bars of the exchange's last prices."""
        while True:
            now = self.desk.rest.clock.now_ms() // BAR * BAR
            if now > self._due and self.trading:
                self._due = now
                for symbol, listed in self.server.venue.world.listed.items():
                    price = float(listed.contract.price(listed.market.last))
                    self.desk.tell(
                        BarClosed(now, now, symbol, now - BAR, BAR, price, price, price, price, 1.0, price)
                    )
            await asyncio.sleep(BAR / 2_000)

    async def hear(self) -> None:
        while True:
            for delivery in await self.stream.take():
                self.watch.hear(delivery)

    def troubles(self) -> str:
        """What is not well: entries, or the order book (live, fresh, with the exchange's touch)."""
        blocked = [
            event
            for event in self.desk.journal.messages
            if isinstance(event, EntriesBlocked | EntriesAllowed)
        ]
        allowed = not blocked or isinstance(blocked[-1], EntriesAllowed)
        market = self.server.venue.world.listed[SYMBOLS[0]].market
        touch = tuple(
            float(market.contract.price(best))
            for side in (Side.BUY, Side.SELL)
            if (best := market.book.best_price(side)) is not None
        )
        book = self.watch._state[SYMBOLS[0]].book
        features, now = book.features(), self.desk.rest.clock.now_ms()
        age = book.health(now).receipt_age
        fresh = book.state is State.LIVE and age is not None and max(age, book.lag) <= 1_000
        found = {
            f"blocked by {blocked[-1:]}": not allowed,
            "the public stream is down": not self.stream.connected,
            f"the book is {book.health(now)}": not fresh,
            f"the touch is {features.bid, features.ask}, not {touch}": touch != (features.bid, features.ask),
        }
        return "; ".join(text for text, holds in found.items() if holds)

    async def be_well(self, since: float, within: float = WELL_AGAIN) -> None:
        """`within` seconds after `since` (monotonic) at the latest."""
        while troubles := self.troubles():
            assert time.monotonic() < since + within, f"not well within {within:g} s: {troubles}"
            await asyncio.sleep(0.01)

    def flatten(self) -> None:
        """No more entries: what is held is sold."""
        self.trading = False
        now = self.desk.rest.clock.now_ms()
        for message in self.desk.engine.orders.cancel_entries(now):
            self.desk.broker.submit(message)


def faults_of(kind: str, entry: str) -> list[dict[str, Any]]:
    """What strikes order entry by REST strikes the same operation of the WebSocket."""
    if entry == "rest":
        return FAULTS[kind]
    return [
        options | {"target": target.removeprefix("/v5/").replace("/", ".")}
        if (target := options.get("target", "*")).startswith("/v5/order/")
        else options
        for options in FAULTS[kind]
    ]


@asynccontextmanager
async def campaign(seed: int, entry: str = "rest") -> AsyncIterator[Campaign]:
    now = int(time.time() * 1_000)
    symbols = [
        assets.plain(name, price, now - 86_400_000)
        for name, price in zip((*SYMBOLS, THEIRS), (100.0, 0.5, 2_000.0, 10.0), strict=True)
    ]
    venue = Venue(World(symbols, seed, now), rate_limit_scale=10.0)
    naked = NakedWatch(venue, venue.open_account(KEY.key, KEY.secret, Decimal(100_000)))
    async with (
        Server(venue) as server,
        live_desk(
            local(server.url), KEY, in_and_out, BAR, streams=STREAMS,
            settings=replace(SETTINGS, orders_by_websocket=entry == "websocket"),
            clock=ExchangeClock(), budget=ConnectionBudget(1_000_000), owners=Ownership(leave=True),
        ) as desk,
    ):  # fmt: skip
        running = Campaign(server, desk, naked)
        running.by_hand("Buy")
        await desk.until(lambda: THEIRS in desk.engine.others, what="somebody else")
        running.list_all()
        works = (
            running.feed(), running.stream.run(), running.watch.run(), running.hear(), running.person(),
        )  # fmt: skip
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield running
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(outcome, asyncio.CancelledError), outcome


async def compared(desk: LiveDesk, started: int) -> list[Line]:
    """Our books beside the exchange's while nothing is on its way: a failed exit comes again by itself."""
    while True:
        for _ in range(2):
            await desk.broker.reconcile()
        await desk.until(
            lambda: desk.inbox.empty() and not desk.engine.orders.open, 30.0, what="all orders ended"
        )
        sent, books = len(desk.log.sent), desk.engine.portfolio
        lines = await audit(
            desk.rest, desk.broker.owners, desk.log, list(books.positions.values()), books.balance, started
        )
        if len(desk.log.sent) == sent:
            return lines


async def survive(kind: str, seed: int, entry: str, longer_ms: int = 0) -> dict[str, Any]:
    """Trade, break, mend, compare; how long it took to be well again, in seconds."""
    async with asyncio.timeout(60 + longer_ms / 1_000), campaign(seed, entry) as running:
        desk = running.desk
        started = desk.rest.clock.now_ms() - 1_000
        await desk.until(lambda: len(desk.log.sent) > 3, what="orders before the fault")
        for options in faults_of(kind, entry):
            lasting = {"lasts_ms": options["lasts_ms"] + longer_ms} if "lasts_ms" in options else {}
            running.server.arm(kind, **options | lasting)
        lasts = max(options.get("lasts_ms", options.get("ms")) for options in FAULTS[kind])
        await asyncio.sleep((lasts + longer_ms) / 1_000)
        running.server.venue.faults.clear()
        ended = time.monotonic()
        await asyncio.sleep(0.5)  # what the fault did may show only now
        await running.be_well(ended, WELL_AGAIN + (LATER if longer_ms else 0.0))
        well = time.monotonic() - ended
        await asyncio.sleep(1.0)
        running.flatten()
        await desk.broker.settled()
        lines = await compared(desk, started)
        return {
            "kind": kind, "seed": seed, "well": well, "orders": len(desk.log.sent),
            "struck": running.server.venue.faults.struck[kind], "naked": running.naked.longest,
            "noticed": [event.reason for event in desk.journal.of(EntriesBlocked)],
            "adopted": [event.reason for event in desk.journal.of(PositionAdopted)],
            "differs": [line for line in lines if not line.equal],
            "meddling": running.meddling(),
        }  # fmt: skip


@pytest.mark.parametrize("entry", ["rest", pytest.param("websocket", marks=pytest.mark.campaign)])
async def test_without_a_fault_everything_is_equal(entry: str) -> None:
    async with asyncio.timeout(90), campaign(1, entry) as running:
        desk = running.desk
        started = desk.rest.clock.now_ms() - 1_000
        await desk.until(lambda: len(desk.log.sent) >= 20, what="20 orders")
        await running.be_well(time.monotonic())
        running.flatten()
        await desk.broker.settled()
        lines = await compared(desk, started)
        assert [line for line in lines if not line.equal] == []
        assert desk.journal.of(PositionAdopted) == []
        assert running.meddling() == []


async def test_an_acknowledgement_that_the_websocket_lost_is_found_out() -> None:
    judge("ack_lost", await survive("ack_lost", 1, "websocket"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAULTS)
async def test_every_fault_is_survived_by_three_seeds(kind: str) -> None:
    entries = (*ENTRIES, "rest")
    for result in await asyncio.gather(
        *(survive(kind, seed, entry) for seed, entry in enumerate(entries, start=1))
    ):
        judge(kind, result)


@pytest.mark.campaign
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", FAULTS)
async def test_every_fault_is_survived(kind: str, entry: str) -> None:
    for first in range(0, len(SEEDS), TOGETHER):
        seeds = SEEDS[first : first + TOGETHER]
        for result in await asyncio.gather(*(survive(kind, seed, entry) for seed in seeds)):
            judge(kind, result)
            print(kind, entry, {name: result[name] for name in ("seed", "well", "orders", "struck")})  # noqa: T201


@pytest.mark.campaign
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", ["refuse", "half_open"])
async def test_a_disconnect_of_minutes_is_survived(kind: str, entry: str) -> None:
    """Nothing of it is scaled but how soon a silent connection is noticed."""
    for first in range(0, len(SEEDS), WAITING):
        seeds = SEEDS[first : first + WAITING]
        for result in await asyncio.gather(*(survive(kind, seed, entry, MINUTES) for seed in seeds)):
            judge(kind, result)
            print(kind, entry, {name: result[name] for name in ("seed", "well", "orders", "struck")})  # noqa: T201


def judge(kind: str, result: dict[str, Any]) -> None:
    assert result["struck"] > 0, result
    assert result["meddling"] == [], result
    assert result["noticed"] or kind not in NOTICED, result
    assert result["naked"] < NAKED_SECONDS, result
    assert result["differs"] == [], result
    assert result["adopted"] == [], result
