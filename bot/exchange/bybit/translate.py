"""From Bybit's messages to the facts that the engine knows.

Fails closed: what changes our money or positions and is not understood raises WireError, so that the caller
stops, tells and reconciles; it is never skipped.
"""

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from msgspec import UNSET

from bot.core.events import (
    BarClosed,
    Event,
    FundingPaid,
    FundingRatePublished,
    InstrumentStatusChanged,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    StopMoved,
    TickerChanged,
    Traded,
)
from bot.core.types import MINUTE_MS, FillOrigin, Instrument, TradingStatus
from bot.exchange.bybit.wire import WireError
from bot.exchange.bybit.wire.instruments import InstrumentInfo
from bot.exchange.bybit.wire.market import BookSnapshot, FundingRate, KlineRow
from bot.exchange.bybit.wire.private import Execution, Order, Position
from bot.exchange.bybit.wire.public import Klines, MaybeNumber, Ticker, Trades
from bot.market.book_messages import RestBook

EARLY_MS: Final = 1_000  # by which news may be ahead of our idea of the exchange's time; more cannot be true
_ZERO: Final = Decimal(0)
_OPEN: Final = ("New", "Untriggered")
_CANCELLED: Final = ("Cancelled", "PartiallyFilledCanceled", "Deactivated")
ENDED: Final = ("Rejected", *_CANCELLED)  # nothing more will be filled
_NOTHING_NEW: Final = ("PartiallyFilled", "Filled", "Triggered")  # the executions tell
_FILLS: Final = ("Trade", "AdlTrade", "BustTrade", "BlockTrade", "Delivery", "Settle")
_NO_REASON: Final = ("", "EC_NoError", "UNKNOWN")


def events_of_order(order: Order, received: int, category: str = "linear") -> list[Event]:
    """The facts in one order, of the stream or of a REST list. Raises WireError.

    `received`, here and below: our receipt time on the exchange's clock, ms UTC.
    """
    return list(_of_order(order, received, category))


def events_of_position(position: Position, received: int, category: str = "linear") -> list[Event]:
    """The facts in one position, of the stream or of a REST list. Raises WireError."""
    return list(_of_position(position, received, category))


def event_of_execution(execution: Execution, received: int, category: str = "linear") -> Event | None:
    """One execution, of the stream or of a REST list; None for one of another market (spot, say), which the
    private stream of a unified account brings as well. Given as often as the exchange sends it: whoever
    books it keeps the `exec_id`. Raises WireError for a kind that we cannot book.
    """
    if execution.category not in ("", category):
        return None
    if execution.exec_type == "Funding":
        return FundingPaid(
            execution.exec_time,
            received,
            execution.exec_id,
            execution.symbol,
            execution.exec_fee or _ZERO,
            float(execution.fee_rate or _ZERO),
        )
    if execution.exec_type not in _FILLS:
        raise WireError(f"execution {execution.exec_id} is of the kind {execution.exec_type!r}: reconcile")
    if execution.order_link_id and execution.leaves_qty is None:
        raise WireError(f"execution {execution.exec_id} does not say what its order still wants")
    return OrderFilled(
        execution.exec_time,
        received,
        execution.exec_id,
        execution.order_link_id,
        execution.symbol,
        execution.side,
        execution.exec_price,
        execution.exec_qty,
        _fee(execution),
        execution.leaves_qty or _ZERO,
        execution.is_maker,
        _origin(execution),
    )


def _of_order(order: Order, received: int, category: str) -> Iterator[Event]:
    if order.category not in ("", category) or not order.order_link_id:
        return  # the exchange's own orders show as executions and as the position's stops
    status, link = order.order_status, order.order_link_id
    if status in _OPEN:
        yield OrderAccepted(order.updated_time, received, link, order.order_id)
    elif status == "Rejected":
        yield OrderRejected(order.updated_time, received, link, _reason(order))
    elif status in _CANCELLED:
        yield OrderCancelled(order.updated_time, received, link, _reason(order))
    elif status not in _NOTHING_NEW:
        raise WireError(f"order {link} has the status {status!r}, which we do not know")


def _of_position(position: Position, received: int, category: str) -> Iterator[Event]:
    if position.category not in ("", category) or not position.size:
        return
    if position.position_idx:
        raise WireError(f"{position.symbol} is in hedge mode, which we do not trade: switch it to one-way")
    yield StopMoved(position.updated_time, received, position.symbol, position.stop_loss or None)


def _reason(order: Order) -> str:
    """Why it ended: the exchange's reason, or else who cancelled it."""
    named = [text for text in (order.reject_reason, order.cancel_type) if text not in _NO_REASON]
    return named[0] if named else order.order_status


def _fee(execution: Execution) -> Decimal:
    """In quote coin. A fee paid in another coin (a discount coin) counts at its rate of the value."""
    if execution.exec_fee is not None and (
        not execution.fee_currency or execution.symbol.endswith(execution.fee_currency)
    ):
        return execution.exec_fee
    value = execution.exec_value or execution.exec_price * execution.exec_qty
    return value * (execution.fee_rate or _ZERO)


def _origin(execution: Execution) -> FillOrigin:
    made_by = f"{execution.stop_order_type} {execution.create_type}"
    if "StopLoss" in made_by or "TrailingStop" in made_by:
        return FillOrigin.STOP_LOSS
    if "TakeProfit" in made_by:
        return FillOrigin.TAKE_PROFIT
    return FillOrigin.ORDER


# --- market -----------------------------------------------------------------------------------------------


def bars_from_klines(message: Klines, received: int) -> list[BarClosed]:
    """The bars that this message confirms as closed; an open one is never a bar. Raises WireError."""
    return [
        _bar(
            message.symbol,
            candle.start,
            candle.end + 1 - candle.start,
            received,
            (candle.open, candle.high, candle.low, candle.close, candle.volume, candle.turnover),
        )
        for candle in message.data
        if candle.confirm
    ]


def bar_from_row(symbol: str, interval: int, row: KlineRow, received: int) -> BarClosed:
    """The bar of a closed REST row. Raises WireError."""
    values = (row.open, row.high, row.low, row.close, row.volume, row.turnover)
    return _bar(symbol, row.start, interval, received, values)


def _bar(symbol: str, start: int, interval: int, received: int, values: tuple[float, ...]) -> BarClosed:
    if start + interval > received + EARLY_MS:
        raise WireError(f"{symbol}: a bar that closes at {start + interval} was told at {received}")
    opened, high, low, close, volume, turnover = values
    if not 0 < low <= min(opened, close) <= max(opened, close) <= high or start % interval:
        raise WireError(f"{symbol}: no bar can be {values} at {start}")
    return BarClosed(
        start + interval, received, symbol, start, interval, opened, high, low, close, volume, turnover
    )


def funding_published(rate: FundingRate, received: int) -> FundingRatePublished:
    return FundingRatePublished(rate.ts, received, rate.symbol, rate.rate)


def trades(message: Trades, received: int) -> list[Traded]:
    """Without block trades, which were agreed off the book and say nothing of the order flow.

    Raises WireError for trades of the future: they would take the place of true ones.
    """
    if any(trade.time > received + EARLY_MS for trade in message.data):
        raise WireError(f"{message.topic}: a trade of the future")
    return [
        Traded(trade.time, received, trade.symbol, trade.side, trade.price, trade.size)
        for trade in message.data
        if not trade.is_block
    ]


def ticker(message: Ticker, received: int) -> TickerChanged:
    data = message.data
    return TickerChanged(
        message.ts,
        received,
        data.symbol,
        message.type == "snapshot",
        last_price=_news(data.last_price),
        mark_price=_news(data.mark_price),
        index_price=_news(data.index_price),
        funding_rate=_news(data.funding_rate),
        next_funding_time=None if data.next_funding_time is UNSET else data.next_funding_time or 0,
        open_interest=_news(data.open_interest),
        turnover_24h=_news(data.turnover_24h),
    )


def _news(value: MaybeNumber) -> float | None:
    """None for what did not change, NaN for what has no value now."""
    if value is UNSET:
        return None
    return math.nan if value is None else value


def rest_book(snapshot: BookSnapshot) -> RestBook:
    """For audits of the book of the stream."""
    return RestBook(snapshot.symbol, snapshot.bids, snapshot.asks, snapshot.sequence)


def status_changed(info: InstrumentInfo, ts: int) -> InstrumentStatusChanged:
    """Raises WireError for a status that we do not know."""
    try:
        return InstrumentStatusChanged(ts, ts, info.symbol, TradingStatus(info.status))
    except ValueError:
        raise WireError(f"{info.symbol} has the status {info.status!r}, which we do not know") from None


def instrument(info: InstrumentInfo) -> Instrument:
    """A linear contract with its filters. Raises WireError when one is missing that orders depend on."""
    lots = info.lot_size_filter
    if lots.qty_step is None or lots.min_order_qty is None or lots.max_order_qty is None:
        raise WireError(f"{info.symbol}: the quantity filters are incomplete")
    if not info.price_filter.tick_size > 0 or not lots.qty_step > 0:
        raise WireError(f"{info.symbol}: tick size and quantity step must be positive")
    if info.funding_interval <= 0:
        raise WireError(f"{info.symbol}: no funding interval; only perpetuals are traded")
    return Instrument(
        symbol=info.symbol,
        tick_size=info.price_filter.tick_size,
        qty_step=lots.qty_step,
        min_qty=lots.min_order_qty,
        max_qty=lots.max_order_qty,
        max_market_qty=lots.max_market_order_qty or lots.max_order_qty,
        min_notional=lots.min_notional_value or _ZERO,
        launch_time=info.launch_time,
        funding_interval_ms=info.funding_interval * MINUTE_MS,
        price_band=(info.risk_parameters.price_limit_ratio_x if info.risk_parameters else None) or _ZERO,
    )
