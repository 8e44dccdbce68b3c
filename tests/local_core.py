"""A small world for the matching core: one market, some customers, and short words for what they do."""

from decimal import Decimal
from typing import Any

from bot.core.types import Instrument, Side
from bot.exchange.local.account import Account
from bot.exchange.local.clearing import Clearing
from bot.exchange.local.contract import Contract
from bot.exchange.local.engine import Engine
from bot.exchange.local.orders import Order, Refused

SYMBOL = "TESTUSDT"
INSTRUMENT = Instrument(
    symbol=SYMBOL, tick_size=Decimal("0.5"), qty_step=Decimal("0.01"), min_qty=Decimal("0.01"),
    max_qty=Decimal(1000), max_market_qty=Decimal(500), min_notional=Decimal(5), launch_time=0,
)  # fmt: skip


class World:
    """Prices start at 100. `now` grows by a millisecond with each command."""

    def __init__(self, *balances: int, price: str = "100") -> None:
        self.engine = Engine("test")
        self.market = self.engine.add_market(Contract(INSTRUMENT), Decimal(price))
        self.clearing = Clearing(self.engine)
        self.accounts = [self.engine.add_account(Decimal(balance), 0) for balance in balances or (10_000,)]
        self.now = 0
        for account in self.accounts:
            account.watchers = 1
        self.mark(price)

    @property
    def book(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Bids and asks as (price, quantity), best first."""
        contract = self.market.contract
        bids, asks = (
            [(contract.price_text(p), contract.quantity_text(q)) for p, q in self.market.book.depth(side, 50)]
            for side in (Side.BUY, Side.SELL)
        )
        return bids, asks

    def place(self, side: str, qty: str, price: str | None = None, *, by: int = 0, **more: Any) -> Order:
        self.now += 1
        body = {"category": "linear", "symbol": SYMBOL, "side": side, "qty": qty, **more}
        body |= {"orderType": "Market"} if price is None else {"orderType": "Limit", "price": price}
        return self.engine.create(self.accounts[by], body, self.now)

    def amend(self, order: Order, **changes: Any) -> Order:
        self.now += 1
        return self.engine.amend(order.account, {"symbol": SYMBOL, "orderId": order.id, **changes}, self.now)

    def cancel(self, order: Order) -> Order:
        self.now += 1
        return self.engine.cancel(order.account, {"symbol": SYMBOL, "orderId": order.id}, self.now)

    def mark(self, price: str) -> None:
        """Index and mark price move; liquidations follow."""
        self.now += 1
        ticks = self.market.contract.ticks(Decimal(price))
        assert ticks is not None
        self.engine.set_mark(self.market, ticks, ticks, self.now)
        self.clearing.liquidate(self.now)

    def stop(self, by: int = 0, **body: Any) -> None:
        self.now += 1
        self.engine.triggers.trading_stop(self.accounts[by], {"symbol": SYMBOL, **body}, self.now)

    def qty(self, by: int = 0, index: int = 0) -> Decimal:
        holding = self.accounts[by].holdings.get((SYMBOL, index))
        return Decimal(0) if holding is None else holding.qty

    def told(self, topic: str, by: int = 0) -> list[dict[str, Any]]:
        """What the private stream of this customer has said since the last look."""
        mine = [item for item in self.engine.outbox if item[0] is self.accounts[by]]
        self.engine.outbox = [item for item in self.engine.outbox if item not in mine]
        return [view for _, kind, view in mine if kind == topic]


def refused(call: Any, *args: Any, **kwargs: Any) -> tuple[int, str]:
    try:
        call(*args, **kwargs)
    except Refused as error:
        return error.code, error.text
    raise AssertionError("was not refused")


def wallets(accounts: list[Account]) -> Decimal:
    return sum((account.wallet for account in accounts), Decimal(0))
