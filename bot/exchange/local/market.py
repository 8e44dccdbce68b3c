"""One symbol at the exchange: contract, book, prices, trades, and the orders that wait for a price."""

from collections import deque
from decimal import Decimal
from typing import NamedTuple

from bot.core.types import Side
from bot.exchange.local.book import Book
from bot.exchange.local.contract import CLOSED, PRICE_LIMIT_X, PRICE_LIMIT_Y, TRADING, Contract
from bot.exchange.local.orders import INDEX_PRICE, LAST_PRICE, MARK_PRICE, RISES, Order

KEPT_TRADES = 2_000


class Print(NamedTuple):
    """A public trade. `side` is the taker's; price in ticks, quantity in lots."""

    ts: int
    side: Side
    price: int
    lots: int
    id: str
    seq: int


class Range:
    """The prices of one kind since the triggers were last looked at."""

    __slots__ = ("high", "last", "low")

    def __init__(self, price: int) -> None:
        self.last = self.low = self.high = price

    def move(self, price: int) -> None:
        self.last = price
        self.low = min(self.low, price)
        self.high = max(self.high, price)


class Market:
    def __init__(self, contract: Contract, price: int) -> None:
        self.contract = contract
        self.book = Book()
        self.ranges = {kind: Range(price) for kind in (LAST_PRICE, MARK_PRICE, INDEX_PRICE)}
        self.waiting: dict[str, Order] = {}  # untriggered, by id
        self.prints: deque[Print] = deque(maxlen=KEPT_TRADES)  # newest last
        self.fresh: list[Print] = []  # not yet published
        self.open_interest = 0  # lots, of the crowd and of our accounts
        self.funding_rate = Decimal("0.0001")
        self.next_funding = 0  # ms UTC
        self.liquidations: list[tuple[int, Side, int, int]] = []  # (ts, side, lots, price), not yet published
        self.is_moved = False  # since the triggers were last looked at
        self.looked = 0  # number of the newest order that has seen the whole ranges

    @property
    def symbol(self) -> str:
        return self.contract.symbol

    @property
    def is_trading(self) -> bool:
        return self.contract.status == TRADING

    @property
    def is_closed(self) -> bool:
        return self.contract.status == CLOSED

    @property
    def last(self) -> int:
        return self.ranges[LAST_PRICE].last

    @property
    def mark(self) -> int:
        return self.ranges[MARK_PRICE].last

    @property
    def index(self) -> int:
        return self.ranges[INDEX_PRICE].last

    def move(self, kind: str, price: int) -> None:
        """A price in ticks has changed."""
        if price != self.ranges[kind].last:
            self.ranges[kind].move(price)
            self.is_moved = True

    def take_ranges(self, number: int) -> None:
        """The triggers have been looked at, with all orders up to `number`."""
        self.is_moved = False
        self.looked = number
        for prices in self.ranges.values():
            prices.low = prices.high = prices.last

    def reaches(self, order: Order) -> bool:
        """Has the trigger price of a waiting order been seen? A new one only knows the newest price."""
        prices = self.ranges[order.trigger_by or LAST_PRICE]
        is_new = order.number > self.looked
        if order.trigger_direction == RISES:
            return (prices.last if is_new else prices.high) >= order.trigger_price
        return (prices.last if is_new else prices.low) <= order.trigger_price

    def record(self, trade: Print) -> None:
        self.prints.append(trade)
        self.fresh.append(trade)
        self.move(LAST_PRICE, trade.price)

    def price_limits(self) -> tuple[int, int]:
        """(highest buy, lowest sell) in ticks: futures orders beyond them are moved to them."""
        mark, index = self.mark, self.index
        highest = min(mark * (1 + PRICE_LIMIT_Y), max(Decimal(index), mark * (1 + PRICE_LIMIT_X)))
        lowest = max(mark * (1 - PRICE_LIMIT_Y), min(Decimal(index), mark * (1 - PRICE_LIMIT_X)))
        return int(highest), max(1, int(lowest))
