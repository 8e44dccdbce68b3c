"""Bybit's REST interface, through pybit in threads of its own."""

from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.environment import Credentials, Environment
from bot.exchange.bybit.limits import Limits
from bot.exchange.bybit.order_entry import BatchResult
from bot.exchange.bybit.rest.account import AccountRest
from bot.exchange.bybit.rest.market import MarketRest
from bot.exchange.bybit.rest.orders import OrdersRest
from bot.exchange.bybit.rest.transport import Transport
from bot.exchange.bybit.streams.backoff import ConnectionBudget

__all__ = ["AccountRest", "BatchResult", "MarketRest", "OrdersRest", "Rest", "Transport"]


class Rest:
    """All of it for one account: `market`, `account`, `orders`, with one clock and one set of limits.

    connections: what the streams beside it may use together
    """

    def __init__(
        self,
        environment: Environment,
        credentials: Credentials | None = None,
        *,
        clock: ExchangeClock | None = None,
        limits: Limits | None = None,
        timeout: float = 5.0,
        recv_window_ms: int = 5_000,
    ) -> None:
        """Without credentials only `market` works. recv_window_ms: until a signed request is void."""
        self.recv_window_ms = recv_window_ms
        self.clock = clock or ExchangeClock()
        self.limits = limits or Limits()
        self.connections = ConnectionBudget()
        self.transport = Transport(
            environment, credentials, self.clock, self.limits, timeout=timeout, recv_window_ms=recv_window_ms
        )
        self.transport.resync = self.measure_clock
        self.market = MarketRest(self.transport)
        self.account = AccountRest(self.transport)
        self.orders = OrdersRest(self.transport)

    async def measure_clock(self) -> None:
        """Measure the exchange's time. Raises the last error if no round trip succeeds."""
        await self.clock.measure(self.market.time_ms)

    def close(self) -> None:
        self.transport.close()
