"""The loop of a live run: a bar becomes an order at the exchange, and the order's fill a position."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from aiohttp import web

from bot.core.commands import PlaceOrder
from bot.core.events import BarClosed, InstrumentListed, OrderFilled
from bot.core.signal import Action
from bot.core.types import MINUTE_MS, Position
from bot.exchange.bybit.broker import BrokerSettings
from strategies.base import Advice
from tests.builders import enter, instrument
from tests.bybit_account import AccountServer
from tests.bybit_server import CREDENTIALS
from tests.live_desk import LiveDesk, live_desk
from tests.test_bybit_broker import DESK, QUICK

SETTINGS = BrokerSettings(desk=DESK, reconcile=60.0, look=0.1, patience=5.0)


def in_and_out(closed: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
    """Enter when flat, leave when not."""
    action = Action.EXIT if closed.symbol in positions else Action.ENTER
    return (enter(action=action, price=closed.close, ts=closed.ts, symbol=closed.symbol),)


def bar_now(price: float = 100.0, symbol: str = "NEWUSDT") -> BarClosed:
    """A minute bar that has just closed."""
    end = int(time.time() * 1_000) // MINUTE_MS * MINUTE_MS
    return BarClosed(end, end, symbol, end - MINUTE_MS, MINUTE_MS, price, price, price, price, 1.0, price)


@pytest.fixture
async def venue() -> AsyncIterator[AccountServer]:
    async with AccountServer() as running:
        yield running


def bar_after(bar: BarClosed, minutes: int) -> BarClosed:
    shift = minutes * MINUTE_MS
    return BarClosed(
        bar.ts + shift, bar.ts + shift, bar.symbol, bar.start + shift, bar.interval, bar.open, bar.high,
        bar.low, bar.close, bar.volume, bar.turnover,
    )  # fmt: skip


def listed(desk: LiveDesk) -> None:
    now = desk.rest.clock.now_ms()
    desk.tell(InstrumentListed(now, now, instrument()))


async def test_a_bar_becomes_an_order_and_the_order_a_position_with_its_stop(venue: AccountServer) -> None:
    async with live_desk(
        venue.environment, CREDENTIALS, in_and_out, MINUTE_MS, settings=SETTINGS, streams=QUICK
    ) as desk:
        listed(desk)
        first = bar_after(bar_now(), 1)
        desk.tell(first)
        await desk.until(lambda: bool(desk.engine.portfolio.positions))
        await desk.until(lambda: desk.engine.portfolio.positions["NEWUSDT"].stop is not None)
        assert venue.positions["NEWUSDT"] == desk.engine.portfolio.positions["NEWUSDT"].qty
        desk.tell(bar_after(first, 1))
        await desk.until(lambda: not desk.engine.portfolio.positions)
        assert venue.positions["NEWUSDT"] == 0
        assert desk.engine.portfolio.balance == venue.balance
        assert len(venue.sent) == len(set(venue.sent)) == 2
        assert len(desk.journal.of(OrderFilled)) == 2


async def test_an_order_is_written_down_before_it_leaves(venue: AccountServer) -> None:
    async with live_desk(
        venue.environment, CREDENTIALS, in_and_out, MINUTE_MS, settings=SETTINGS, streams=QUICK
    ) as desk:
        known: list[bool] = []
        create = venue._create

        async def watching(request: web.Request) -> web.StreamResponse:
            link = (await request.json())["orderLinkId"]
            written = desk.journal.messages[: desk.journal.committed]
            known.append(any(isinstance(m, PlaceOrder) and m.order.link_id == link for m in written))
            return await create(request)

        venue.rest._answers["/v5/order/create"].clear()
        venue.rest.will_act("/v5/order/create", watching)
        listed(desk)
        desk.tell(bar_after(bar_now(), 1))
        await desk.until(lambda: bool(known))
        assert known == [True]


async def test_an_entry_from_an_old_bar_does_not_leave(venue: AccountServer) -> None:
    async with live_desk(
        venue.environment, CREDENTIALS, in_and_out, MINUTE_MS, settings=SETTINGS, streams=QUICK
    ) as desk:
        listed(desk)
        desk.tell(bar_after(bar_now(), -10))
        await desk.until(lambda: bool(desk.journal.of(PlaceOrder)))
        await desk.broker.settled()
        assert venue.sent == []
        await desk.until(lambda: not desk.engine.orders.pending_entries)
