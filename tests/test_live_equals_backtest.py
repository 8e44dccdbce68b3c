"""The same market, live and as a backtest: the same decisions at every bar, and fills that costs explain.

An engine trades through the real client on the local exchange, whose price somebody pushes about. The bars
that it saw are kept and played to the same engine with the simulated broker.
"""

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from random import Random
from typing import NamedTuple

import pytest

from bot.core.events import BarClosed, InstrumentListed, OrderFilled
from bot.core.records import DecisionMade
from bot.core.signal import Action
from bot.core.types import FillOrigin, Position, Side
from bot.engine.engine import Engine
from bot.engine.portfolio import Portfolio
from bot.engine.runner import Runner
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.local import assets
from bot.exchange.local.server import Server
from bot.exchange.local.venue import Venue
from bot.exchange.local.world import World
from bot.exchange.simulated.broker import SimulatedBroker
from bot.execution.orders import Orders
from bot.settings import Costs, Execution, Gate
from risk.breaker import Breaker
from risk.manager import RiskManager
from strategies.base import Advice
from tests.builders import enter
from tests.live_desk import RISK, LiveDesk, live_desk
from tests.test_engine import NoModels, Recorder, Scripted
from tests.test_fault_campaign import SETTINGS, STREAMS

SYMBOL, PRICE, BALANCE = "NEWUSDT", 100.0, Decimal(100_000)
BAR = 500  # ms
BARS = 60
MOVED = 300  # ms that the exchange takes to trade at a moved price, fill a stop and tell it, at most
HALF_SPREAD = 1e-4  # of the exchange's crowd
DEPTH = 5e-4  # what an order of this size may move through the book
COSTS = Costs(half_spread=HALF_SPREAD, default_funding=0)


def follow_the_move(closed: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
    """Buy what rises, sell what we hold when it falls."""
    rises = closed.close > closed.open
    held = closed.symbol in positions
    action = Action.ENTER if rises and not held else Action.EXIT if held and not rises else Action.HOLD
    return (enter(action=action, price=closed.close, ts=closed.ts, symbol=closed.symbol, sigma=0.002),)


async def record(server: Server, desk: LiveDesk, rng: Random) -> list[BarClosed]:
    """Bars of the exchange's trades; the next one begins when nothing of the last is under way.

    The price moves early in a bar, so that a stop which it touches is filled, and heard of, in the same bar.
    """
    world = server.venue.world
    market = world.listed[SYMBOL].market
    price = world.listed[SYMBOL].contract.price
    bars: list[BarClosed] = []
    before, last = 0, float(price(market.last))
    while len(bars) < BARS:
        world.move(SYMBOL, 1 + rng.choice((-1, 1)) * rng.choice((0.0005, 0.001, 0.008)))
        end = (int(time.time() * 1_000 + MOVED) // BAR + 1) * BAR
        await asyncio.sleep(end / 1_000 - time.time())
        traded = [float(price(one.price)) for one in market.prints if before < one.ts <= end]
        prices = [last, *traded]
        low, high, last, before = min(prices), max(prices), prices[-1], end
        bars.append(BarClosed(end, end, SYMBOL, end - BAR, BAR, prices[0], high, low, last, 1e5, 1e5 * last))
        desk.tell(bars[-1])
        await desk.until(desk.inbox.empty, what="the bar is heard")
        await desk.broker.settled()
        await desk.until(lambda: desk.inbox.empty() and not desk.engine.orders.open, what="its orders end")
    return bars


def replay(listed: InstrumentListed, bars: Sequence[BarClosed]) -> Recorder:
    breaker, journal = Breaker(RISK, float(BALANCE)), Recorder()
    engine = Engine(
        Scripted(follow_the_move), RiskManager(RISK, Gate(), COSTS, breaker), breaker, Portfolio(BALANCE),
        Orders(), RISK, BAR, Execution(),
    )  # fmt: skip
    broker = SimulatedBroker(COSTS, lambda symbol, start: HALF_SPREAD, BALANCE)
    runner = Runner(engine, broker, NoModels(), journal, 0)
    runner.advance([listed])
    for closed in bars:
        runner.advance([closed])
    return journal


def decisions(journal: Recorder) -> list[tuple[int, str, str]]:
    return [(made.bar_start, made.verdict, made.reason) for made in journal.of(DecisionMade)]


class Filled(NamedTuple):
    """All executions of one order, or of a stop; `price` is their mean."""

    order: str  # without the tag of the run
    origin: FillOrigin
    side: Side
    ts: int
    qty: Decimal
    price: float


def filled(journal: Recorder) -> list[Filled]:
    found = []
    for (order, origin, side), parts in itertools.groupby(
        journal.of(OrderFilled), lambda fill: (fill.link_id.partition("-")[2], fill.origin, fill.side)
    ):
        fills = list(parts)
        qty = sum(fill.qty for fill in fills)
        price = float(sum(fill.qty * fill.price for fill in fills) / qty)
        found.append(Filled(order, origin, side, fills[0].ts, qty, price))
    return found


def reason(live: Filled, played: Filled, bars: Sequence[BarClosed]) -> str:
    """Why two fills of one decision differ in price; "" when nothing explains it."""
    closed = next(bar for bar in bars if played.ts <= bar.ts)
    apart = abs(live.price / played.price - 1)
    slippage = COSTS.slippage_sigmas * (closed.high - closed.low) / closed.open
    if apart <= 2 * HALF_SPREAD + slippage + DEPTH:
        return "the spread and the slippage that the backtest assumes, and the levels that the order met"
    if live.origin is FillOrigin.STOP_LOSS and apart <= closed.high / closed.low - 1 + 2 * HALF_SPREAD:
        return "the price jumped over the stop, which no bar shows: the backtest fills it on the way"
    return ""


@pytest.mark.slow
async def test_a_backtest_of_the_recorded_bars_decides_as_the_live_run_did() -> None:
    now = int(time.time() * 1_000)
    venue = Venue(World([assets.plain(SYMBOL, PRICE, now - 86_400_000)], 1, now), rate_limit_scale=10.0)
    keys = Credentials("local", "local-secret")
    venue.open_account(keys.key, keys.secret, BALANCE)
    async with Server(venue) as server:
        instrument = venue.world.listed[SYMBOL].contract.instrument
        listed = InstrumentListed(now, now, instrument)
        async with live_desk(
            local(server.url), keys, follow_the_move, BAR, settings=SETTINGS, streams=STREAMS,
            instruments=[instrument],
        ) as desk:  # fmt: skip
            bars = await record(server, desk, Random(1))
            live = desk.journal
    played = replay(listed, bars)
    assert decisions(played) == decisions(live)
    made = [verdict for _, verdict, _ in decisions(live)]
    assert min(map(made.count, ("entered", "exited", "held"))) > 3, made
    worse = 0.0
    for one, other in itertools.zip_longest(filled(live), filled(played)):
        if other is None or one is None:  # of the last bar: the replay has no later one to fill it in
            assert (one or other).ts > bars[-2].ts
            continue
        assert (one.order, one.side, one.origin) == (other.order, other.side, other.origin)
        assert abs(one.qty / other.qty - 1) < Decimal("0.01")  # equity after other costs
        why = reason(one, other, bars)
        print(f"{one.side} {one.qty} at {one.price:.4f}, backtest {other.qty} at {other.price:.4f}: {why}")  # noqa: T201
        assert why, (one, other)
        if one.origin is FillOrigin.ORDER:
            worse += (other.price / one.price - 1) * one.side.sign
    assert worse >= 0, "a backtest flatters nobody"
