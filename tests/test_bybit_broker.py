"""The broker: no order lost, none doubled, and our books are the exchange's, whatever breaks on the way."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, TypeVar

import pytest
from aiohttp import web

from bot.core.commands import CancelOrder, MoveStop, PlaceOrder
from bot.core.errors import RuntimeFault, UsageError
from bot.core.events import (
    OPERATOR,
    RESTART,
    EntriesAllowed,
    EntriesBlocked,
    Event,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    PositionAdopted,
    StopMoved,
)
from bot.core.types import OrderRequest, OrderType, Side
from bot.exchange.bybit.broker import BrokerSettings, BybitBroker
from bot.exchange.bybit.errors import ExchangeError, Kind, Ruling
from bot.exchange.bybit.order_desk import DeskSettings
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.streams import Backoff, Disconnected, StreamSettings
from tests.bybit_account import AccountServer, order_of
from tests.bybit_server import CREDENTIALS, envelope

SYMBOL = "NEWUSDT"
QUICK = StreamSettings(open_s=1.0, answer_s=1.0, ping_s=30.0, close_s=0.05, look_s=0.05, renew_pause_s=0.0)
DESK = DeskSettings(
    entry_valid=2.0, exit_valid=4.0, confirm=0.2, margin=0.3, shortest_wait=0.02,
    longest_wait=0.1,
)  # fmt: skip
T = TypeVar("T")


class Heard:
    """What the engine would hear, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type[T], count: int = 1) -> list[T]:
        async with asyncio.timeout(8):
            while len(found := self.of(kind)) < count:
                self._changed.clear()
                await self._changed.wait()
        return found


def blocks(heard: Heard) -> dict[str, str]:
    """Why entries are blocked now, by cause."""
    found: dict[str, str] = {}
    for event in heard.events:
        if isinstance(event, EntriesBlocked):
            found[event.cause] = event.reason
        elif isinstance(event, EntriesAllowed):
            found.pop(event.cause, None)
    return found


@pytest.fixture
async def venue() -> AsyncIterator[AccountServer]:
    async with AccountServer() as running:
        yield running


@asynccontextmanager
async def trading(
    venue: AccountServer, prepare: Callable[[str], Awaitable[None]] | None = None, **settings: Any
) -> AsyncIterator[tuple[BybitBroker, Heard]]:
    rest, heard = Rest(venue.environment, CREDENTIALS, timeout=1.0, recv_window_ms=600), Heard()
    await rest.measure_clock()
    wanted = BrokerSettings(**{"desk": DESK, "reconcile": 60.0, "look": 0.1, "patience": 5.0, **settings})
    broker = BybitBroker(
        venue.environment, CREDENTIALS, rest, heard.emit, wanted, prepare=prepare, stream_settings=QUICK,
        backoff=lambda: Backoff(0.01, 0.05),
    )  # fmt: skip
    await broker.start()
    try:
        yield broker, heard
    finally:
        await broker.close()
        rest.close()


def order(link: str = "t-1", qty: str = "2", side: Side = Side.BUY, **changes: Any) -> PlaceOrder:
    request = OrderRequest(
        link_id=link, symbol=SYMBOL, side=side, type=OrderType.MARKET, qty=Decimal(qty),
        **{"stop_loss": Decimal(99), **changes},
    )  # fmt: skip
    return PlaceOrder(int(time.time() * 1_000), request)


async def test_an_order_is_accepted_filled_and_has_its_stop(venue: AccountServer) -> None:
    async with trading(venue) as (broker, heard):
        assert broker.submit(order()) == []
        await heard.until(StopMoved)
        accepted, filled, moved = heard.events
        assert isinstance(accepted, OrderAccepted)
        assert isinstance(filled, OrderFilled)
        assert (filled.qty, filled.leaves_qty) == (2, 0)
        assert filled.fee == Decimal("0.11")
        assert isinstance(moved, StopMoved)
        assert moved.stop_loss == 99


@pytest.mark.parametrize("fate", ["ack lost", "10000", "10016"])
async def test_an_unknown_outcome_is_found_out_and_never_sent_again(venue: AccountServer, fate: str) -> None:
    venue.creates.append(fate)
    venue.muted = {"order", "execution", "position"}  # the stream is of no help
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await broker.settled()
        assert venue.sent == ["t-1"]
        if fate == "ack lost":
            assert [event.qty for event in heard.of(OrderFilled)] == [2]
        else:
            (rejected,) = heard.of(OrderRejected)
            assert rejected.reason == "the exchange never received it"


async def test_an_order_that_shows_late_is_not_given_up_early(venue: AccountServer) -> None:
    """An empty answer proves nothing while the request may still be accepted."""
    venue.creates.append("hidden 0.7")
    venue.muted = {"order", "execution", "position"}
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await broker.settled()
        assert len(heard.of(OrderFilled)) == 1
        assert heard.of(OrderRejected) == []


async def test_an_entry_that_was_given_up_and_shows_after_all_is_cancelled_and_no_other_takes_its_place(
    venue: AccountServer,
) -> None:
    venue.fills = False
    venue.creates.append("hidden 2.5 ack lost")
    venue.muted = {"order", "execution", "position"}
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        (rejected,) = await heard.until(OrderRejected)
        assert rejected.reason == "the exchange never received it"
        broker.submit(order("t-2"))
        (*_, refused) = await heard.until(OrderRejected, 2)
        assert (refused.link_id, "may show yet" in refused.reason) == ("t-2", True)
        venue.muted = set()
        await venue.push("order", order_of(venue.orders["t-1"]))
        assert "t-1 of NEWUSDT was given up" in (await heard.until(EntriesBlocked))[0].reason
        await heard.until(OrderCancelled)
        assert venue.orders["t-1"].status == "Cancelled"
        await broker.reconcile()
        assert blocks(heard) == {}
        assert venue.sent == ["t-1"]


@pytest.mark.parametrize("fills", [True, False])
async def test_a_look_at_the_account_finds_an_entry_that_was_given_up(
    venue: AccountServer, fills: bool
) -> None:
    """Without a word of the streams: filled, it is booked and has its stop; open, it is cancelled."""
    venue.creates.append("hidden 2.5 ack lost")
    venue.muted = {"order", "execution", "position"}
    async with trading(venue) as (broker, heard):
        venue.fills = fills
        broker.submit(order())
        await heard.until(OrderRejected)
        async with asyncio.timeout(5):
            while time.monotonic() < venue.shown_after["t-1"]:  # noqa: ASYNC110  # the exchange's own state
                await asyncio.sleep(0.01)
        assert (await broker.reconcile()).differences == ()
        assert "at the exchange after all" in heard.of(EntriesBlocked)[0].reason
        await broker.settled()
        if fills:
            (filled,), (moved,) = heard.of(OrderFilled), heard.of(StopMoved)
            assert (filled.link_id, filled.qty, filled.leaves_qty, moved.stop_loss) == ("t-1", 2, 0, 99)
        else:
            assert venue.orders["t-1"].status == "Cancelled"
        await broker.reconcile()
        assert blocks(heard) == {}
        assert heard.of(PositionAdopted) == []


async def test_entries_wait_while_an_entry_that_was_given_up_cannot_be_cancelled(
    venue: AccountServer,
) -> None:
    async def busy(_: web.Request) -> web.StreamResponse:
        return web.json_response(envelope({}, 10016, "busy"))

    venue.fills = False
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await heard.until(OrderAccepted)
        await broker.settled()
        kept = venue.orders.pop("t-1")
        for _ in range(2):
            await broker.reconcile()
        assert len(heard.of(OrderCancelled)) == 1  # given up
        venue.orders["t-1"] = kept
        venue.rest.will_act("/v5/order/cancel", busy)
        venue.rest._answers["/v5/order/cancel"].popleft()
        for _ in range(2):
            await broker.reconcile()
            assert "t-1" in blocks(heard)["account"]
        await venue.fill("t-1")
        (filled,) = await heard.until(OrderFilled)
        assert filled.leaves_qty == 0
        await broker.reconcile()
        assert blocks(heard) == {}


@pytest.mark.parametrize("fate", ["hidden 0.7", "hidden 0.7 ack lost"])
async def test_an_order_that_waited_before_it_was_signed_is_not_given_up_early(
    venue: AccountServer, fate: str
) -> None:
    """Its validity begins with the signature, not with the wish to send it."""

    async def slowly(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.8)
        return web.json_response(envelope({"list": [{"symbol": SYMBOL, "lastPrice": "100"}]}))

    venue.rest.will_act("/v5/market/tickers", slowly)
    venue.creates.append(fate)
    venue.muted = {"order", "execution", "position"}
    async with trading(venue) as (broker, heard):
        broker.submit(order(trigger_price=Decimal(101)))
        await broker.settled()
        assert len(heard.of(OrderFilled)) == 1
        assert heard.of(OrderRejected) == []


@pytest.mark.parametrize("fate", ["10006", "10002"])
async def test_what_was_certainly_not_done_is_sent_again_under_the_same_id(
    venue: AccountServer, fate: str
) -> None:
    venue.creates.append(fate)
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await heard.until(OrderFilled)
        assert venue.sent == ["t-1", "t-1"]
        assert venue.positions[SYMBOL] == 2


async def test_an_entry_that_cannot_leave_in_time_is_dropped(venue: AccountServer) -> None:
    venue.creates.extend(["10006"] * 100)
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        (rejected,) = await heard.until(OrderRejected)
        assert rejected.reason == "not sent: older than 2 s"
        sent = len(venue.sent)
        await broker.settled()
        assert len(venue.sent) == sent


async def test_a_refusal_has_the_exchanges_reason(venue: AccountServer) -> None:
    venue.creates.append("110007")
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        (rejected,) = await heard.until(OrderRejected)
        assert "not enough balance" in rejected.reason
        assert venue.sent == ["t-1"]


@pytest.mark.parametrize(("code", "reason"), [("10005", "lacks a permission"), ("10017", "no such endpoint")])
async def test_what_a_person_must_mend_blocks_entries_and_no_reconciliation_lifts_it(
    venue: AccountServer, code: str, reason: str
) -> None:
    venue.creates.append(code)
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await broker.settled()
        assert heard.of(OrderRejected)
        assert reason in blocks(heard)[OPERATOR]
        await broker.reconcile()
        assert OPERATOR in blocks(heard)


async def test_an_execution_that_cannot_be_booked_blocks_entries_for_good(venue: AccountServer) -> None:
    async with trading(venue) as (broker, heard):
        venue.muted = {"order", "execution", "position"}
        await venue.fill("", Decimal(1))
        venue.executions[-1]["execType"] = "Unheard"
        await broker.reconcile()
        venue.executions.clear()
        await broker.reconcile()
        assert OPERATOR in blocks(heard)


async def test_a_command_that_crashed_blocks_entries_for_good(venue: AccountServer) -> None:
    venue.rest.will("/v5/market/tickers", {"list": []})
    async with trading(venue) as (broker, heard):
        broker.submit(order(trigger_price=Decimal(101)))
        await broker.settled()
        await broker.reconcile()
        assert "a command failed" in blocks(heard)[RESTART]


async def test_an_entry_waits_for_its_symbol_to_be_ready_and_an_exit_does_not(venue: AccountServer) -> None:
    ready: list[str] = []

    async def prepare(symbol: str) -> None:
        ready.append(symbol)
        if len(ready) == 1:
            raise ExchangeError(Ruling(Kind.RETRY, "busy"), path="/v5/position/list")
        if len(ready) > 2:
            raise UsageError(f"{symbol} in hedge mode")

    async with trading(venue, prepare) as (broker, heard):
        broker.submit(order())
        await heard.until(OrderFilled)
        broker.submit(order("t-2", side=Side.SELL, reduce_only=True, stop_loss=None))
        await heard.until(OrderFilled, 2)
        assert ready == [SYMBOL, SYMBOL]
        broker.submit(order("t-3"))
        (rejected,) = await heard.until(OrderRejected)
        assert rejected.reason == "NEWUSDT in hedge mode"
        assert heard.of(EntriesBlocked)
        assert venue.sent == ["t-1", "t-2"]


async def test_a_fill_that_the_stream_lost_is_asked_for(venue: AccountServer) -> None:
    venue.muted = {"execution"}
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        (filled,) = await heard.until(OrderFilled)
        assert filled.leaves_qty == 0


async def test_a_fill_that_comes_twice_is_booked_once(venue: AccountServer) -> None:
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await heard.until(OrderFilled)
        await venue.push("execution", venue.executions[0])
        await broker.reconcile()
        assert len(heard.of(OrderFilled)) == 1


async def test_a_cancelled_order_ends_after_its_last_fill(venue: AccountServer) -> None:
    venue.fills = False
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await heard.until(OrderAccepted)
        venue.muted = {"execution"}
        await venue.fill("t-1", Decimal("0.5"))
        broker.submit(CancelOrder(0, SYMBOL, "t-1"))
        await heard.until(OrderCancelled)
        kinds = [type(event) for event in heard.events if isinstance(event, OrderFilled | OrderCancelled)]
        assert kinds == [OrderFilled, OrderCancelled]


async def test_a_cancel_that_lost_the_race_finds_the_fill(venue: AccountServer) -> None:
    venue.muted = {"execution", "order"}
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        broker.submit(CancelOrder(0, SYMBOL, "t-1"))
        await broker.settled()
        assert len(heard.of(OrderFilled)) == 1
        assert heard.of(OrderCancelled) == []


async def test_a_stop_is_moved_and_confirmed(venue: AccountServer) -> None:
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await heard.until(StopMoved)
        broker.submit(MoveStop(0, SYMBOL, Decimal("99.5")))
        moved = await heard.until(StopMoved, 2)
        assert moved[-1].stop_loss == Decimal("99.5")


async def test_a_stop_that_is_refused_is_told_as_it_is(venue: AccountServer) -> None:
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await heard.until(StopMoved)
        venue.stop_answers.append((10001, "StopLoss set for Buy position should lower than base_price"))
        broker.submit(MoveStop(0, SYMBOL, Decimal(120)))
        await broker.settled()
        assert venue.stops[SYMBOL] == "99"
        assert heard.of(StopMoved)[-1].stop_loss == 99
        assert "did not get its stop at 120" in blocks(heard)["account"]


async def test_a_stop_that_is_refused_beside_an_exit_alarms_nobody(venue: AccountServer) -> None:
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await heard.until(StopMoved)
        venue.fills = False
        broker.submit(order("t-2", side=Side.SELL, reduce_only=True, stop_loss=None))
        venue.stop_answers.append((10001, "StopLoss set for Buy position should lower than base_price"))
        broker.submit(MoveStop(0, SYMBOL, Decimal(120)))
        await broker.settled()
        assert blocks(heard) == {}


async def test_a_stop_for_a_position_that_is_gone_alarms_nobody(venue: AccountServer) -> None:
    async with trading(venue) as (broker, heard):
        venue.stop_answers.append((10001, "can not set tp/sl/ts for zero position"))
        broker.submit(MoveStop(0, SYMBOL, Decimal(120)))
        await broker.settled()
        assert blocks(heard) == {}


async def test_a_stop_survives_a_busy_exchange(venue: AccountServer) -> None:
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await heard.until(StopMoved)
        venue.stop_answers.extend([(10006, "Too many visits!"), (10016, "busy")])
        broker.submit(MoveStop(0, SYMBOL, Decimal("99.9")))
        moved = await heard.until(StopMoved, 2)
        assert moved[-1].stop_loss == Decimal("99.9")


async def test_a_stop_that_the_exchange_will_not_set_is_told_while_it_is_tried_again(
    venue: AccountServer,
) -> None:
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await heard.until(StopMoved)
        venue.stop_answers.extend([(54321, "a code of a later Bybit")] * 12)
        broker.submit(MoveStop(0, SYMBOL, Decimal("99.9")))
        (blocked,) = await heard.until(EntriesBlocked)
        assert "no stop at 99.9 after 10 attempts" in blocked.reason
        assert "a code of a later Bybit" in blocked.reason
        assert (await heard.until(StopMoved, 2))[-1].stop_loss == Decimal("99.9")


async def test_an_order_that_cannot_be_cancelled_is_told_while_it_is_tried_again(
    venue: AccountServer,
) -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response(envelope({}, 54321, "a code of a later Bybit"))

    venue.fills = False
    venue.rest.will_act("/v5/order/cancel", refuse)
    venue.rest._answers["/v5/order/cancel"].popleft()
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        broker.submit(CancelOrder(0, SYMBOL, "t-1"))
        (blocked,) = await heard.until(EntriesBlocked)
        assert "t-1 of NEWUSDT is not cancelled after 10 attempts" in blocked.reason
        assert "a code of a later Bybit" in blocked.reason
        await venue.end("t-1", "Cancelled", "EC_PerCancelRequest")
        await broker.settled()


async def test_after_a_reconnect_everything_that_was_missed_is_known(venue: AccountServer) -> None:
    venue.fills = False
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await heard.until(OrderAccepted)
        for session in list(venue.streams.sessions):
            session.transport.abort()
        await venue.streams.until(lambda: not venue.streams.sessions)
        await venue.fill("t-1")
        (filled,) = await heard.until(OrderFilled)
        assert filled.leaves_qty == 0
        await heard.until(EntriesAllowed)
        assert [
            type(event) for event in heard.events if isinstance(event, EntriesBlocked | EntriesAllowed)
        ] == [
            EntriesBlocked,
            EntriesAllowed,
        ]
        assert venue.sent == ["t-1"]


async def test_the_positions_that_a_run_finds_are_adopted_and_their_fills_are_not_booked_again(
    venue: AccountServer,
) -> None:
    await venue.fill("", Decimal(3), side="Sell")
    venue.stops[SYMBOL] = "101"
    async with trading(venue) as (broker, heard):
        (adopted,) = heard.of(PositionAdopted)
        assert (adopted.qty, adopted.entry, adopted.stop_loss) == (-3, 100, 101)
        await venue.push("execution", venue.executions[0])
        reconciled = await broker.reconcile()
        assert reconciled.differences == ()
        assert heard.of(OrderFilled) == []


async def test_what_somebody_else_does_with_the_account_is_booked(venue: AccountServer) -> None:
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await heard.until(OrderFilled)
        await venue.fill("by-hand", Decimal(2), side="Sell")
        await heard.until(OrderFilled, 2)
        assert (await broker.reconcile()).differences == ()


async def test_a_difference_without_an_explanation_is_adopted_and_told(venue: AccountServer) -> None:
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await heard.until(OrderFilled)
        venue.positions[SYMBOL] = Decimal(5)
        reconciled = await broker.reconcile()
        assert reconciled.differences == ("NEWUSDT: the exchange holds 5, our books 2",)
        (adopted,) = heard.of(PositionAdopted)
        assert adopted.qty == 5
        assert (await broker.reconcile()).differences == ()
        assert "adopted without an explanation" in blocks(heard)[OPERATOR]


async def test_an_order_that_the_exchange_forgot_ends(venue: AccountServer) -> None:
    venue.fills = False
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        await heard.until(OrderAccepted)
        await broker.settled()
        venue.orders.clear()
        await broker.reconcile()
        assert heard.of(OrderCancelled) == []  # lists may lag
        await broker.reconcile()
        assert len(heard.of(OrderCancelled)) == 1


async def test_an_account_that_cannot_be_read_is_told(venue: AccountServer) -> None:
    venue.rest.will_act("/v5/position/list", venue._wallet)
    venue.rest._answers["/v5/position/list"].popleft()
    with pytest.raises(RuntimeFault, match=r"could not be read within 2 s \(ExchangeError: .*symbol"):
        async with trading(venue, patience=2.0):
            pass


async def test_orders_by_websocket_are_the_same_orders(venue: AccountServer) -> None:
    async with trading(venue, orders_by_websocket=True) as (broker, _):
        await until_connected(broker)
        venue.streams.order_replies.append({"data": {"orderId": "o-t-1", "orderLinkId": "t-1"}})
        broker.submit(order())
        await venue.streams.until(lambda: any(frame["op"] == "order.create" for frame in venue.streams.seen))
        frame = next(frame for frame in venue.streams.seen if frame["op"] == "order.create")
        assert frame["args"][0]["orderLinkId"] == "t-1"
        assert frame["args"][0]["stopLoss"] == "99"


async def until_connected(broker: BybitBroker) -> None:
    async with asyncio.timeout(5):
        while not (broker._trade_stream and broker._trade_stream.connected):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_while_the_order_entry_stream_is_down_orders_go_by_rest_and_it_is_told(
    venue: AccountServer,
) -> None:
    async with trading(venue, orders_by_websocket=True) as (broker, heard):
        await until_connected(broker)
        assert broker._trade_stream is not None
        broker._trade_stream._link.connection = None
        broker._on_trade_notice(Disconnected("gone", 1.0))
        broker.submit(order(reduce_only=True))
        await heard.until(OrderAccepted)
        assert venue.sent == ["t-1"]
        assert "the order entry stream is down: gone" in [event.reason for event in heard.of(EntriesBlocked)]


async def test_an_unreadable_message_of_the_account_blocks_entries_until_it_was_read_by_rest(
    venue: AccountServer,
) -> None:
    async with trading(venue) as (_, heard):
        venue.muted = {"execution"}
        await venue.fill("", Decimal(2))
        await venue.streams.push('{"topic": "execution", "data": [{"execId": 5}]}')
        (blocked,) = await heard.until(EntriesBlocked)
        assert "cannot be read" in blocked.reason
        await heard.until(EntriesAllowed)  # reconciliation is due in a minute only
        assert len(heard.of(OrderFilled)) == 1


async def test_a_private_topic_that_is_refused_blocks_entries_for_good(venue: AccountServer) -> None:
    venue.streams.unknown_topics = {"execution"}
    async with trading(venue) as (broker, heard):
        await heard.until(EntriesBlocked)
        await broker.reconcile()
        assert "has no execution" in blocks(heard)[RESTART]


async def test_a_position_whose_fill_is_still_on_its_way_is_not_adopted(venue: AccountServer) -> None:
    venue.creates.append("hidden 0.7")
    venue.muted = {"order", "execution", "position"}
    async with trading(venue) as (broker, heard):
        broker.submit(order())
        async with asyncio.timeout(5):
            while not venue.positions:  # noqa: ASYNC110  # the exchange's own state
                await asyncio.sleep(0.01)
        assert (await broker.reconcile()).differences == ()
        assert heard.of(PositionAdopted) == []
        await heard.until(OrderFilled)
