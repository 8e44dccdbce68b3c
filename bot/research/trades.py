"""Round trips: from flat to flat, with the fees and the funding of the time in between."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from bot.core.folding import average
from bot.core.types import Side

_FLAT = 1e-9  # of the largest quantity held: what floats leave of a closed position


class Execution(NamedTuple):
    """A fill with floats; `fee` is positive when paid."""

    ts: int
    symbol: str
    side: Side
    price: float
    qty: float
    fee: float
    origin: str

    def part(self, qty: float) -> "Execution":
        """The same for a part of the quantity and of the fee."""
        return self._replace(qty=qty, fee=self.fee * qty / self.qty)


@dataclass(slots=True)
class RoundTrip:
    """One position from its first fill on; money in quote coin, costs positive when paid."""

    symbol: str
    side: Side
    opened: int  # ms UTC
    closed: int = 0  # 0 = still open
    qty: float = 0.0  # largest held
    entry: float = 0.0  # average prices
    exit: float = 0.0
    gross: float = 0.0
    fees: float = 0.0
    funding: float = 0.0
    origin: str = ""  # of the fill that closed it
    held: float = 0.0
    left: float = 0.0

    @property
    def net(self) -> float:
        return self.gross - self.fees - self.funding

    def enlarge(self, fill: Execution) -> None:
        self.entry = average(self.entry, self.held, fill.price, fill.qty)
        self.held += fill.qty
        self.qty = max(self.qty, self.held)
        self.fees += fill.fee

    def reduce(self, fill: Execution) -> None:
        """Book an exit of at most what is held."""
        self.exit = average(self.exit, self.left, fill.price, fill.qty)
        self.left += fill.qty
        self.held -= fill.qty
        self.gross += self.side.sign * (fill.price - self.entry) * fill.qty
        self.fees += fill.fee
        if self.held <= _FLAT * self.qty:
            self.held, self.closed, self.origin = 0.0, fill.ts, fill.origin


def executions(fills: pd.DataFrame) -> list[Execution]:
    """fills: (ts, symbol, side, price, qty, fee, origin) as in the database, oldest first."""
    rows = fills[["ts", "symbol", "side", "price", "qty", "fee", "origin"]].to_dict("records")
    return [
        Execution(
            int(row["ts"]), str(row["symbol"]), Side(row["side"]), float(row["price"]), float(row["qty"]),
            float(row["fee"]), str(row["origin"]),
        )
        for row in rows
    ]  # fmt: skip


def round_trips(fills: pd.DataFrame, funding: pd.DataFrame) -> list[RoundTrip]:
    """The round trips of all symbols by time of entry; those still open have `closed` = 0.

    A fill that turns a position over closes one round trip and opens the next; its fee is shared by
    quantity. Frames as in the database: fills (see `executions`), funding (ts, symbol, amount).
    """
    by_symbol: dict[str, list[Execution]] = {}
    for fill in executions(fills):
        by_symbol.setdefault(fill.symbol, []).append(fill)
    trips = [trip for own in by_symbol.values() for trip in _of_symbol(own)]
    trips.sort(key=lambda trip: (trip.opened, trip.symbol))
    _charge(trips, funding)
    return trips


def _of_symbol(fills: Iterable[Execution]) -> Iterator[RoundTrip]:
    trip: RoundTrip | None = None
    for fill in fills:
        rest = fill
        if trip is not None and fill.side is not trip.side:
            closing = min(trip.held, fill.qty)
            trip.reduce(fill.part(closing))
            if not trip.closed:
                continue
            yield trip
            trip, rest = None, fill.part(fill.qty - closing)
            if rest.qty <= _FLAT * fill.qty:
                continue
        trip = trip or RoundTrip(fill.symbol, fill.side, fill.ts)
        trip.enlarge(rest)
    if trip is not None:
        yield trip


def _charge(trips: list[RoundTrip], funding: pd.DataFrame) -> None:
    """Funding belongs to the position that was open when it was paid."""
    for row in funding[["ts", "symbol", "amount"]].to_dict("records"):
        for trip in trips:
            if trip.symbol == row["symbol"] and trip.opened <= row["ts"] <= (trip.closed or row["ts"]):
                trip.funding += float(row["amount"])
                break
