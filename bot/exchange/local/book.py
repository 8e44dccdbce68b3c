"""The order book of one symbol: price-time priority, nothing else. Prices in ticks, quantities in lots."""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Any, Protocol

from bot.core.types import Side


class Resting(Protocol):
    """What the book needs of an order; the crowd's quotes and the accounts' orders both have it."""

    number: int  # unique
    side: Side
    price: int
    leaves: int


class Meeting(Enum):
    """What happens when two orders meet: they trade, the maker is gone, or the taker is."""

    TRADE = auto()
    NEXT = auto()
    STOP = auto()


class Level:
    """The queue at one price, oldest first."""

    __slots__ = ("orders", "price", "total")

    def __init__(self, price: int) -> None:
        self.price = price
        self.total = 0
        self.orders: OrderedDict[int, Resting] = OrderedDict()

    def first(self) -> Resting:
        return next(iter(self.orders.values()))


class Half:
    """One side of the book. A key is the price times the side's sign, so that the best is the largest."""

    __slots__ = ("keys", "levels", "sign")

    def __init__(self, side: Side) -> None:
        self.sign = side.sign
        self.keys: list[int] = []
        self.levels: dict[int, Level] = {}

    def best(self) -> Level | None:
        return self.levels[self.keys[-1]] if self.keys else None

    def add(self, order: Resting) -> None:
        key = order.price * self.sign
        level = self.levels.get(key)
        if level is None:
            level = self.levels[key] = Level(order.price)
            insort(self.keys, key)
        level.orders[order.number] = order
        level.total += order.leaves

    def remove(self, order: Resting) -> None:
        key = order.price * self.sign
        level = self.levels[key]
        del level.orders[order.number]
        level.total -= order.leaves
        if not level.orders:
            self._drop(key)

    def _drop(self, key: int) -> None:
        del self.levels[key]
        del self.keys[bisect_left(self.keys, key)]

    def best_first(self) -> Iterator[Level]:
        for key in reversed(self.keys):
            yield self.levels[key]


class Book:
    """Two halves that never cross. `version` grows with every change."""

    __slots__ = ("buys", "sells", "version")

    def __init__(self) -> None:
        self.buys = Half(Side.BUY)
        self.sells = Half(Side.SELL)
        self.version = 0

    def half(self, side: Side) -> Half:
        return self.buys if side is Side.BUY else self.sells

    def best_price(self, side: Side) -> int | None:
        keys = self.half(side).keys
        return abs(keys[-1]) if keys else None

    def add(self, order: Resting) -> None:
        """Put an order at the end of its queue. The caller has matched it first."""
        self.half(order.side).add(order)
        self.version += 1

    def remove(self, order: Resting) -> None:
        self.half(order.side).remove(order)
        self.version += 1

    def reduce(self, order: Resting, leaves: int) -> None:
        """Fewer lots, same place in the queue."""
        half = self.half(order.side)
        half.levels[order.price * half.sign].total += leaves - order.leaves
        order.leaves = leaves
        self.version += 1

    def crosses(self, side: Side, price: int) -> bool:
        """Would a limit order trade at once?"""
        best = self.half(side.opposite).keys
        return bool(best) and price * side.sign >= -best[-1]

    def available(self, side: Side, price: int) -> int:
        """Lots that an order of `side` could take up to its limit."""
        total = 0
        for level in self.half(side.opposite).best_first():
            if (price - level.price) * side.sign < 0:
                break
            total += level.total
        return total

    def match(
        self,
        taker: Resting,
        on_fill: Callable[[Any, Any, int, int], None],
        meets: Callable[[Any, Any], Meeting] | None = None,
    ) -> None:
        """Fill `taker` against the other half up to its price, best price first, oldest order first.

        `on_fill(taker, maker, price, lots)` is called after each fill with the quantities already taken; it
        may change the book (reduce-only orders shrink with the position) and the taker's `leaves`.
        `meets(taker, maker)` is asked before each fill and may take one of the two out.
        """
        half = self.half(taker.side.opposite)
        limit = -taker.price * taker.side.sign  # as a key of the other half
        while taker.leaves > 0 and half.keys and half.keys[-1] >= limit:
            level = half.levels[half.keys[-1]]
            maker = level.first()
            meeting = Meeting.TRADE if meets is None else meets(taker, maker)
            if meeting is Meeting.STOP:
                return
            if meeting is Meeting.NEXT:
                continue
            lots = min(taker.leaves, maker.leaves)
            price = level.price
            self.version += 1
            taker.leaves -= lots
            if lots == maker.leaves:
                half.remove(maker)
                maker.leaves = 0
            else:
                maker.leaves -= lots
                level.total -= lots
            on_fill(taker, maker, price, lots)

    def depth(self, side: Side, count: int) -> list[tuple[int, int]]:
        """(price, lots) of the best `count` levels."""
        half = self.half(side)
        levels = half.levels
        return [
            (level.price, level.total) for key in half.keys[: -count - 1 : -1] for level in (levels[key],)
        ]
