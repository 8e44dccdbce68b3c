"""What the exchange knows of a customer: wallet, positions, modes, orders, and the ledger behind them."""

from collections import Counter, deque
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from bot.core.types import Side
from bot.exchange.local.contract import Contract, Tier
from bot.exchange.local.orders import Order
from bot.exchange.local.position import ZERO, Position

CROSS: Final = "REGULAR_MARGIN"
ISOLATED: Final = "ISOLATED_MARGIN"
DEFAULT_LEVERAGE: Final = Decimal(10)
KEPT: Final = 50_000


class Holding:
    """The position of one account in one contract and positionIdx, and its share of the open orders.

    Margins follow the help centre: at the mark price, with the fee to close at the bankruptcy price.
    """

    def __init__(self, account: "Account", contract: Contract, index: int) -> None:
        self.account = account
        self.contract = contract
        self.index = index
        self.position = Position()
        self.leverage = DEFAULT_LEVERAGE
        self.mark = ZERO
        self.session_realised = ZERO  # of the position that is open
        self.opening_fees = ZERO  # paid for what is held
        self.added = ZERO  # margin beyond the initial one, of an isolated position
        self.adds_margin = False  # by itself, from the wallet, before it is liquidated
        self.realised = ZERO  # ever, fees and funding included
        self.created = 0
        self.opened = 0
        self.updated = 0
        self.seq = -1
        self.take_profit: Order | None = None  # of the whole position
        self.stop_loss: Order | None = None
        self.trailing: Order | None = None
        self.open_lots = {Side.BUY: 0, Side.SELL: 0}  # of orders that may open
        self.open_value = {Side.BUY: 0, Side.SELL: 0}  # ticks x lots
        self.closers: dict[str, Order] = {}  # reduce-only orders in the book, by id
        self.partial_stops: dict[str, Order] = {}  # of a part of the position, by id

    @property
    def qty(self) -> Decimal:
        """Signed, base coin."""
        return self.position.qty

    @property
    def side(self) -> Side | None:
        if not self.qty:
            return None
        return Side.BUY if self.qty > 0 else Side.SELL

    @property
    def lots(self) -> int:
        return int(abs(self.qty) / self.contract.step)

    @property
    def value(self) -> Decimal:
        """At the mark price, quote coin."""
        return abs(self.qty) * self.mark

    @property
    def entry(self) -> Decimal:
        return self.position.average_price

    @property
    def unrealised(self) -> Decimal:
        return self.position.unrealised(self.mark)

    @property
    def tier(self) -> Tier:
        return self.contract.tier(self.value)

    @property
    def bankruptcy_price(self) -> Decimal:
        sign = 1 if self.qty > 0 else -1
        added = self.added / abs(self.qty) if self.added else ZERO
        return self.entry * (1 - sign / self.leverage) - sign * added

    @property
    def fee_to_close(self) -> Decimal:
        return abs(self.qty) * self.bankruptcy_price * self.contract.taker_fee

    @property
    def initial_margin(self) -> Decimal:
        return self.value / self.leverage + self.fee_to_close + self.added if self.qty else ZERO

    def share_fee(
        self, fee: Decimal, qty: Decimal, closed: Decimal, held: Decimal
    ) -> tuple[Decimal, Decimal]:
        """What the closed part of a fill has paid: when it was opened, and now. `held`: size before the fill.

        Added margin goes back with the last of the position.
        """
        if closed == held:
            self.added = ZERO
        now = fee * closed / qty
        then = self.opening_fees * closed / held if closed else ZERO
        self.opening_fees += fee - now - then
        return then, now

    @property
    def maintenance_margin(self) -> Decimal:
        if not self.qty:
            return ZERO
        tier = self.tier
        return self.value * tier.maintenance - tier.deduction + self.fee_to_close

    @property
    def order_margin(self) -> Decimal:
        """Of the part of the open orders that would open: what closes the position needs none."""
        if not any(self.open_lots.values()):
            return ZERO
        total = ZERO
        held = self.lots if self.qty >= 0 else -self.lots
        for side in (Side.BUY, Side.SELL):
            lots = self.open_lots[side]
            opening = lots - max(0, -held * side.sign)
            if opening > 0:
                total += self.open_value[side] * self.contract.unit * opening / lots
        return total * (1 / self.leverage + 2 * self.contract.taker_fee)

    def isolated_liquidation_price(self) -> Decimal:
        """(size x entry -/+ (size x entry / leverage + added + deduction)) / (size x (1 -/+ MMR))."""
        size, sign, tier = abs(self.qty), (1 if self.qty > 0 else -1), self.tier
        balance = size * self.entry * (1 - sign / self.leverage) - sign * (self.added + tier.deduction)
        return max(ZERO, balance / (size * (1 - sign * tier.maintenance)))

    def stops(self) -> list[Order]:
        """Every order that the exchange keeps to protect this position."""
        whole = (self.take_profit, self.stop_loss, self.trailing)
        return [order for order in whole if order is not None] + list(self.partial_stops.values())

    def forget(self, order: Order) -> None:
        """An order is over."""
        self.closers.pop(order.id, None)
        if order is self.stop_loss:
            self.stop_loss = None
        elif order is self.take_profit:
            self.take_profit = None
        elif order is self.trailing:
            self.trailing = None
        elif order.stop_type:
            self.partial_stops.pop(order.id, None)

    def reserve(self, order: Order, lots: int, price: int) -> None:
        """Count `lots` more (fewer, if negative) of an open order at `price` ticks."""
        self.open_lots[order.side] += lots
        self.open_value[order.side] += lots * price


@dataclass(slots=True, frozen=True)
class Entry:
    """One line of the ledger: the wallet after it is the wallet before it plus `change`."""

    ts: int
    kind: str  # TRADE, SETTLEMENT (funding), LIQUIDATION, TRANSFER_IN, BONUS
    change: Decimal
    balance: Decimal
    cash_flow: Decimal = ZERO  # realised profit or loss
    fee: Decimal = ZERO
    funding: Decimal = ZERO
    detail: dict[str, Any] = field(default_factory=dict)


class Account:
    """`watchers` counts the private streams: nobody renders what nobody reads.

    Of the past it keeps `kept` orders, executions and lines of the ledger.
    """

    def __init__(self, uid: int, balance: Decimal, now: int, kept: int = KEPT) -> None:
        self.uid = uid
        self._kept = kept
        self.wallet = ZERO
        self.realised = ZERO
        self.margin_mode = CROSS
        self.holdings: dict[tuple[str, int], Holding] = {}
        self.hedged: set[str] = set()  # symbols in hedge mode
        self.leverage: dict[str, tuple[Decimal, Decimal]] = {}
        self.open_orders: dict[str, Order] = {}  # by id, oldest first
        self.orders: dict[str, Order] = {}  # by id, finished ones too
        self.by_link: dict[str, Order] = {}  # by our id, likewise
        self.link_ids: set[str] = set()  # that were ever taken; about 100 bytes each
        self.counts: Counter[tuple[str, str]] = Counter()  # open orders by symbol and stop type
        self.finished: deque[Order] = deque()
        self.executions: deque[dict[str, Any]] = deque(maxlen=kept)
        self.closed: deque[dict[str, Any]] = deque(maxlen=kept)  # closed P&L
        self.ledger: deque[Entry] = deque(maxlen=kept)
        self.watchers = 0
        self.touched: dict[tuple[str, int], Holding] = {}  # since the streams were last told
        self.is_wallet_touched = False
        self.updated = now
        self.book(Entry(now, "TRANSFER_IN", balance, balance, cash_flow=balance))

    def book(self, entry: Entry) -> None:
        self.wallet += entry.change
        self.ledger.append(entry)
        self.is_wallet_touched = True

    def holding(self, contract: Contract, index: int) -> Holding:
        key = (contract.symbol, index)
        found = self.holdings.get(key)
        if found is None:
            found = self.holdings[key] = Holding(self, contract, index)
            found.leverage = self.leverage_of(contract.symbol, index)
        return found

    def leverage_of(self, symbol: str, index: int) -> Decimal:
        pair = self.leverage.get(symbol, (DEFAULT_LEVERAGE, DEFAULT_LEVERAGE))
        return pair[1] if index == 2 else pair[0]

    def held(self) -> list[Holding]:
        return [holding for holding in self.holdings.values() if holding.qty]

    def touch(self, holding: Holding) -> None:
        self.touched[holding.contract.symbol, holding.index] = holding
        self.is_wallet_touched = True

    # --- margin -------------------------------------------------------------------------------------------

    @property
    def unrealised(self) -> Decimal:
        return sum((holding.unrealised for holding in self.holdings.values()), ZERO)

    @property
    def equity(self) -> Decimal:
        return self.wallet + self.unrealised

    @property
    def position_margin(self) -> Decimal:
        return sum((holding.initial_margin for holding in self.holdings.values()), ZERO)

    @property
    def order_margin(self) -> Decimal:
        return sum((holding.order_margin for holding in self.holdings.values()), ZERO)

    @property
    def maintenance_margin(self) -> Decimal:
        return sum((holding.maintenance_margin for holding in self.holdings.values()), ZERO)

    @property
    def available(self) -> Decimal:
        """What new orders may reserve. Isolated positions lend no profit and borrow no loss."""
        base = self.wallet if self.margin_mode == ISOLATED else self.equity
        return base - self.position_margin - self.order_margin

    # --- orders -------------------------------------------------------------------------------------------

    def admit(self, order: Order) -> None:
        self.open_orders[order.id] = order
        self.counts[order.symbol, order.stop_type] += 1
        self.orders[order.id] = order
        if order.link_id:
            self.by_link[order.link_id] = order
            self.link_ids.add(order.link_id)

    def finish(self, order: Order) -> None:
        if self.open_orders.pop(order.id, None) is None:
            return
        self.counts[order.symbol, order.stop_type] -= 1
        self.finished.append(order)
        if len(self.finished) > self._kept:
            oldest = self.finished.popleft()
            self.orders.pop(oldest.id, None)
            self.by_link.pop(oldest.link_id, None)
