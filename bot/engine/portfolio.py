"""Our books: balance, positions and equity, from executions and funding only."""

from collections.abc import Iterator, Mapping
from decimal import Decimal

from msgspec import structs

from bot.core.events import BalanceChanged, FundingPaid, OrderFilled, PositionAdopted, StopMoved
from bot.core.folding import fold
from bot.core.types import Position

_ZERO = Decimal(0)


class Portfolio:
    """Money is exact (Decimal) where it changes; equity between fills is a float, for speed, and so is
    the balance as `cash`.

    `positions` holds open positions only; `last_loss` when each token's newest losing position ended, ms.
    `ledger`: until when, by the exchange's ledger, it contains what came and went without our trading, ms.
    """

    def __init__(self, balance: Decimal, ledger: int = 0) -> None:
        self.balance = balance
        self.ledger = ledger
        self._brought = balance  # the money without what our trading made of it
        self.positions: dict[str, Position] = {}
        self.last_loss: dict[str, int] = {}
        self._realised: dict[str, Decimal] = {}  # of each token since the beginning, after fees and funding
        self._gains: dict[str, float] = {}  # the same as floats
        self._before: dict[str, Decimal] = {}  # of that, before the open position
        self._since: dict[str, int] = {}  # when positions were opened that are yet to be adopted
        self._last: dict[str, float] = {}  # last price of symbols with a position
        self._floats: dict[str, tuple[float, float]] = {}  # signed quantity and entry
        self.cash = float(balance)
        self.equity = self.cash
        self.gross_notional = 0.0

    def restore(self, opened: Mapping[str, int], last_loss: Mapping[str, int]) -> None:
        """Go on where earlier runs were. opened: when they opened what is held and will be adopted, ms"""
        self._since |= opened
        self.last_loss |= last_loss

    def mark(self, symbol: str, price: float) -> float:
        """A new price of a symbol we hold; returns its P&L, as `pnl` does."""
        self._last[symbol] = price
        self._revalue()
        qty, entry = self._floats[symbol]
        return self._gains.get(symbol, 0.0) + qty * (price - entry)

    def apply_fill(self, fill: OrderFilled) -> Position | None:
        """Book one execution; returns the position that is left, None when flat."""
        old = self.positions.get(fill.symbol)
        held, entry = (old.qty, old.entry) if old else (_ZERO, _ZERO)
        qty, average, closed = fold(held, entry, fill.qty * fill.side.sign, fill.price)
        if held == 0:
            self._before[fill.symbol] = self._realised.get(fill.symbol, _ZERO)
        self._realise(fill.symbol, closed * (fill.price - entry) - fill.fee)
        if closed and held * qty <= 0:
            self._end(fill.symbol, fill.ts)
        if qty == 0:
            self._drop(fill.symbol)
            return None
        if old is None or held * qty < 0:  # another position, which has no stop yet
            position = Position(symbol=fill.symbol, qty=qty, entry=average, opened=fill.ts)
        else:
            position = structs.replace(old, qty=qty, entry=average)
        self._keep(position, float(fill.price))
        return position

    def apply_funding(self, paid: FundingPaid) -> None:
        self._realise(paid.symbol, -paid.amount)
        self.cash = float(self.balance)
        self._revalue()

    @property
    def gained(self) -> Decimal:
        """What our trading has brought since the beginning, unrealised P&L apart."""
        return self.balance - self._brought

    @property
    def realised(self) -> Mapping[str, Decimal]:
        """Of each token since the beginning, after fees and funding; a copy."""
        return dict(self._realised)

    def apply_balance(self, changed: BalanceChanged) -> None:
        for symbol, amount in changed.parts:
            self._realise(symbol, amount)
        if not changed.parts:
            self.balance += changed.amount
            self._brought += changed.amount
            self.ledger = max(self.ledger, changed.until)
        self.cash = float(self.balance)
        self._revalue()

    def apply_stop(self, moved: StopMoved) -> None:
        position = self.positions.get(moved.symbol)
        if position is not None:
            self.positions[moved.symbol] = structs.replace(position, stop=moved.stop_loss)

    def adopt(self, event: PositionAdopted) -> None:
        """Hold what the exchange says; the balance stays, since no execution of ours explains the change.

        A position of unknown age begins now.
        """
        since = self._since.pop(event.symbol, event.ts)
        if event.qty == 0:
            if event.symbol in self.positions:
                self._drop(event.symbol)
            return
        held = self.positions.get(event.symbol)
        if held is not None and held.qty * event.qty > 0:
            since = held.opened
        position = Position(
            symbol=event.symbol, qty=event.qty, entry=event.entry, opened=since, stop=event.stop_loss
        )
        self._keep(position, self._last.get(event.symbol, float(event.entry)))

    def last(self, symbol: str) -> float:
        """The newest price of a symbol that we hold."""
        return self._last[symbol]

    def notionals(self) -> Iterator[tuple[str, float]]:
        """Of each token that we hold, at its newest price, positive when long, quote coin."""
        return ((symbol, qty * self._last[symbol]) for symbol, (qty, _) in self._floats.items())

    def pnl(self, symbol: str) -> float:
        """Of one token since the beginning: realised, unrealised and costs."""
        held = self._floats.get(symbol)
        open_profit = held[0] * (self._last[symbol] - held[1]) if held else 0.0
        return self._gains.get(symbol, 0.0) + open_profit

    def _end(self, symbol: str, ts: int) -> None:
        """A position of `symbol` was closed, or turned over: what follows is another one."""
        if self._realised[symbol] < self._before.get(symbol, _ZERO):
            self.last_loss[symbol] = ts
        self._before[symbol] = self._realised[symbol]

    def _realise(self, symbol: str, amount: Decimal) -> None:
        self.balance += amount
        realised = self._realised[symbol] = self._realised.get(symbol, _ZERO) + amount
        self._gains[symbol] = float(realised)

    def _keep(self, position: Position, price: float) -> None:
        self.positions[position.symbol] = position
        self._floats[position.symbol] = float(position.qty), float(position.entry)
        self._last[position.symbol] = price
        self.cash = float(self.balance)
        self._revalue()

    def _drop(self, symbol: str) -> None:
        del self.positions[symbol], self._floats[symbol], self._last[symbol]
        self.cash = float(self.balance)
        self._revalue()

    def _revalue(self) -> None:
        equity, gross = self.cash, 0.0
        last = self._last
        for symbol, (qty, entry) in self._floats.items():
            price = last[symbol]
            equity += qty * (price - entry)
            gross += abs(qty) * price
        self.equity, self.gross_notional = equity, gross
