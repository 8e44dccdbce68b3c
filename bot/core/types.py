"""The nouns: sides, orders, instruments, ladder stages."""

from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS


class Side(StrEnum):
    BUY = "Buy"
    SELL = "Sell"

    @property
    def sign(self) -> int:
        return 1 if self is Side.BUY else -1

    @property
    def opposite(self) -> "Side":
        return Side.SELL if self is Side.BUY else Side.BUY


class OrderType(StrEnum):
    MARKET = "Market"
    LIMIT = "Limit"


class TimeInForce(StrEnum):
    GTC = "GTC"
    IOC = "IOC"
    POST_ONLY = "PostOnly"


class Trigger(StrEnum):
    """Which price sets off stops and take profits."""

    LAST = "last"
    MARK = "mark"


class OrderStatus(StrEnum):
    """Our view of an order. SENT: written down and handed to the broker, no answer yet."""

    SENT = "Sent"
    NEW = "New"
    PARTIALLY_FILLED = "PartiallyFilled"
    FILLED = "Filled"
    CANCELLED = "Cancelled"
    REJECTED = "Rejected"

    @property
    def is_open(self) -> bool:
        return self in (OrderStatus.SENT, OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)


class FillOrigin(StrEnum):
    """Who caused a fill: our own order, or one that the exchange made for us."""

    ORDER = "order"
    STOP_LOSS = "stop_loss"
    TAKE_PROFIT = "take_profit"


class Stage(StrEnum):
    """The listing ladder (ARCHITECTURE.md, 'Ladder')."""

    OBSERVE = "OBSERVE"
    SHADOW = "SHADOW"
    SMALL = "SMALL"
    FULL = "FULL"
    SUSPENDED = "SUSPENDED"


class Rung(StrEnum):
    """What a token is traded by, from the best to nothing, as far as each has proven itself."""

    PROMOTED = "promoted"  # the adapted model
    FROZEN = "frozen"  # the model from which it starts: the source's, or the chain's
    ENSEMBLE = "ensemble"  # with what the token's labels alone have made, where transfer did harm
    NONE = "no trade"


class TradingStatus(StrEnum):
    """Of an instrument, in the exchange's words. Orders are taken while TRADING only."""

    PRE_LAUNCH = "PreLaunch"
    TRADING = "Trading"
    SETTLING = "Settling"
    DELIVERING = "Delivering"
    CLOSED = "Closed"


class Verb(StrEnum):
    """What a person can tell a running bot."""

    PAUSE = "pause"  # no entries; exits go on
    RESUME = "resume"  # ends a pause, a flattening, a kill and a halt
    FLATTEN = "flatten"  # close everything, then as PAUSE
    KILL = "kill"  # end the process at once; no start trades before RESUME


class Feed(StrEnum):
    """What is heard of a symbol."""

    BARS = "bars"
    BOOK = "book"
    TRADES = "trades"
    TICKER = "ticker"


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """One contract with the exchange's filters. Quantities are in base coin, notionals in quote coin."""

    symbol: str
    tick_size: Decimal
    qty_step: Decimal
    min_qty: Decimal
    max_qty: Decimal
    max_market_qty: Decimal
    min_notional: Decimal
    launch_time: int  # ms UTC
    funding_interval_ms: int = 8 * HOUR_MS
    price_band: Decimal = Decimal(0)  # share of the mark price within which orders are taken; 0 = unknown
    simulated: bool = False


class OrderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An order as it goes to the exchange. `link_id` is ours, unique, and written down before sending.

    `stop_loss` and `take_profit` are attached to the position that the fill opens; `price` is None for
    market orders. Prices lie on the instrument's tick, quantities on its step.
    """

    link_id: str
    symbol: str
    side: Side
    type: OrderType
    qty: Decimal
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    reduce_only: bool = False
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    trigger_price: Decimal | None = None  # a conditional order: rests untriggered until last price reaches it
    trigger_by: Trigger = Trigger.LAST  # of the attached stop loss and take profit


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A one-way position; `qty` is signed, positive when long. Replaced, never changed, at each fill."""

    symbol: str
    qty: Decimal
    entry: Decimal  # average price of the open quantity
    opened: int  # ms UTC of the first fill
    stop: Decimal | None = None

    @property
    def side(self) -> Side:
        return Side.BUY if self.qty > 0 else Side.SELL
