"""The matching core as the simulated broker owns it: it tells events, and its crowd is that of a bar."""

from decimal import Decimal
from typing import Final

from bot.core.events import Event, FundingPaid, OrderCancelled, OrderFilled, StopMoved
from bot.core.types import FillOrigin, OrderRequest
from bot.exchange.local.account import Holding
from bot.exchange.local.engine import Engine
from bot.exchange.local.market import Market
from bot.exchange.local.orders import CANCELLED, FILLED, MARKET, NO_ERROR, UNTRIGGERED, Execution, Order
from bot.exchange.simulated.bar_market import FUNDING_INTERVAL, BarMarket
from bot.exchange.simulated.walk import Walk

ORIGINS: Final = {"StopLoss": FillOrigin.STOP_LOSS, "TakeProfit": FillOrigin.TAKE_PROFIT}


class BarEngine(Engine):
    """`walk` is the bar that is being played."""

    def __init__(self) -> None:
        super().__init__("simulated")
        self.walk: Walk | None = None
        self.requests: dict[str, OrderRequest] = {}  # of open orders, by our id
        self.facts: list[Event] = []
        self._executions = 0

    def new_id(self) -> str:
        return str(self.next_number())

    def publish(self, fact: Event) -> None:
        self.facts.append(fact)

    def collect(self) -> list[Event]:
        facts, self.facts = self.facts, []
        return facts

    def price(self, order: Order, market: Market) -> None:
        """A market order on its way reserves what it costs now; its bound comes with the open."""
        if self.walk is None and order.type == MARKET:
            order.price = market.mark
        else:
            super().price(order, market)

    def attract(self, order: Order, market: Market) -> None:
        order.smp = "CancelMaker"  # our own orders are no market: they would fill each other without a trade
        if self.walk is not None:
            self.walk.offer(order)

    def leave_over(self, order: Order) -> None:
        """What the volume could not take of a stop loss or take profit goes on at the next open."""
        market = self.markets[order.symbol]
        if order.stop_type in ORIGINS and isinstance(market, BarMarket):
            market.rests.append(order)
        else:
            super().leave_over(order)

    def tell(self, order: Order) -> None:
        now = self.now
        if order.stop_type == "StopLoss" and order.status == UNTRIGGERED:
            self.publish(StopMoved(now, now, order.symbol, order.contract.price(order.trigger_price)))
        elif order.link_id and order.status in (CANCELLED, FILLED):
            del self.requests[order.link_id]
            if order.status == CANCELLED:
                reason = order.cancel_type if order.reject_reason == NO_ERROR else order.reject_reason
                self.publish(OrderCancelled(now, now, order.link_id, reason))

    def record(self, execution: Execution, market: Market) -> None:
        order, trade, contract = execution.order, execution.trade, execution.order.contract
        qty = contract.quantity(trade.lots)
        self.publish(
            OrderFilled(
                self.now, self.now, self._execution_id(), order.link_id, order.symbol, order.side,
                contract.price(trade.price), qty, execution.fee, contract.quantity(order.leaves),
                execution.is_maker, ORIGINS.get(order.stop_type, FillOrigin.ORDER),
            )
        )  # fmt: skip
        assert isinstance(market, BarMarket)
        if qty > execution.closed:
            market.has_opened = True
            if not execution.entry and market.bar is not None:
                # counted from the bar's open: a fill inside the bar that ends at the mark has to pay
                market.next_funding = (market.bar.start // FUNDING_INTERVAL + 1) * FUNDING_INTERVAL

    def record_funding(self, holding: Holding, market: Market, amount: Decimal, rate: Decimal) -> None:
        self.publish(
            FundingPaid(self.now, self.now, self._execution_id(), market.symbol, amount, float(rate))
        )

    def _execution_id(self) -> str:
        """Unique over restarts too, because the counter alone would begin again."""
        self._executions += 1
        return f"sim-{self.now}-{self._executions}"
