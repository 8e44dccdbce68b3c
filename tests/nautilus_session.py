"""A trading session of nautilus_trader 1.221, run by the Python of its own environment.

    python nautilus_session.py http://127.0.0.1:PORT KEY SECRET

Unmodified but for the URLs: its public streams have no setting for one, so the client is made here. Prints
one line of JSON for everything that happened.
"""

import json
import sys
from decimal import Decimal
from typing import Any

from nautilus_trader.adapters.bybit import factories
from nautilus_trader.adapters.bybit.common.enums import BybitProductType
from nautilus_trader.adapters.bybit.config import BybitDataClientConfig, BybitExecClientConfig
from nautilus_trader.adapters.bybit.data import BybitDataClient
from nautilus_trader.config import (
    InstrumentProviderConfig,
    LiveExecEngineConfig,
    LoggingConfig,
    TradingNodeConfig,
)
from nautilus_trader.live.factories import LiveDataClientFactory
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.enums import BookType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, TraderId
from nautilus_trader.trading.strategy import Strategy

HTTP, KEY, SECRET = sys.argv[1:4]
STREAMS = HTTP.replace("http", "ws", 1)
LINEAR = BybitProductType.LINEAR
SYMBOL = InstrumentId.from_str("BTCUSDT-LINEAR.BYBIT")


def tell(what: str, **more: Any) -> None:
    print(json.dumps({"what": what, **more}), flush=True)  # noqa: T201


class DataFactory(LiveDataClientFactory):
    @staticmethod
    def create(loop, name, config, msgbus, cache, clock):  # type: ignore[no-untyped-def]
        client = factories.get_bybit_http_client(
            clock=clock, key=KEY, secret=SECRET, base_url=HTTP, is_demo=False, is_testnet=False,
            recv_window_ms=config.recv_window_ms,
        )  # fmt: skip
        provider = factories.get_bybit_instrument_provider(
            client=client, clock=clock, product_types=frozenset([LINEAR]), config=config.instrument_provider
        )
        return BybitDataClient(
            loop=loop, client=client, msgbus=msgbus, cache=cache, clock=clock, instrument_provider=provider,
            product_types=[LINEAR], ws_base_urls={LINEAR: f"{STREAMS}/v5/public/linear"}, config=config,
            name=name,
        )  # fmt: skip


class Session(Strategy):
    """A resting order, amended and cancelled; a market order, and the way out of its position."""

    def on_start(self) -> None:
        self.books = 0
        self.instrument = self.cache.instrument(SYMBOL)
        tell("instrument", tick=str(self.instrument.price_increment), lot=str(self.instrument.size_increment))
        self.subscribe_order_book_deltas(SYMBOL, BookType.L2_MBP, depth=50)
        self.subscribe_trade_ticks(SYMBOL)

    def on_order_book_deltas(self, deltas) -> None:  # type: ignore[no-untyped-def]
        self.books += 1
        if self.books == 3:
            book = self.cache.order_book(SYMBOL)
            tell("book", bid=str(book.best_bid_price()), ask=str(book.best_ask_price()))
            account = self.cache.account_for_venue(SYMBOL.venue)
            tell("balance", total=str(account.balance_total(USDT).as_decimal()))
            make = self.instrument.make_price
            self.resting = self.order_factory.limit(
                SYMBOL, OrderSide.BUY, self.quantity("0.010"), make(book.best_bid_price() * Decimal("0.9"))
            )
            self.submit_order(self.resting)

    def quantity(self, text: str):  # type: ignore[no-untyped-def]
        return self.instrument.make_qty(Decimal(text))

    def on_trade_tick(self, tick) -> None:  # type: ignore[no-untyped-def]
        tell("trade", price=str(tick.price))

    def market(self, side: OrderSide, *, reduce_only: bool) -> None:
        quantity = self.quantity("0.020")
        self.submit_order(self.order_factory.market(SYMBOL, side, quantity, reduce_only=reduce_only))

    def on_order_event(self, event) -> None:  # type: ignore[no-untyped-def]
        tell(type(event).__name__, text=str(event))

    def on_order_accepted(self, event) -> None:  # type: ignore[no-untyped-def]
        if event.client_order_id == self.resting.client_order_id:
            self.modify_order(self.resting, self.quantity("0.015"))

    def on_order_updated(self, event) -> None:  # type: ignore[no-untyped-def]
        self.cancel_order(self.resting)

    def on_order_canceled(self, event) -> None:  # type: ignore[no-untyped-def]
        self.market(OrderSide.BUY, reduce_only=False)

    def on_position_opened(self, event) -> None:  # type: ignore[no-untyped-def]
        tell("opened", quantity=str(event.quantity))

    def on_order_filled(self, event) -> None:  # type: ignore[no-untyped-def]
        if event.order_side is OrderSide.BUY and self.cache.order(event.client_order_id).is_closed:
            self.market(OrderSide.SELL, reduce_only=True)

    def on_stop(self) -> None:
        tell("stopped")

    def on_position_closed(self, event) -> None:  # type: ignore[no-untyped-def]
        tell("closed", pnl=str(event.realized_pnl))
        self.clock.set_time_alert_ns("end", self.clock.timestamp_ns() + 10**9, lambda _: node.stop())


provider = InstrumentProviderConfig(load_all=True)
node = TradingNode(
    TradingNodeConfig(
        trader_id=TraderId("SESSION-001"),
        logging=LoggingConfig(log_level="WARNING", use_pyo3=False),
        exec_engine=LiveExecEngineConfig(reconciliation=True),
        data_clients={"BYBIT": BybitDataClientConfig(
            api_key=KEY, api_secret=SECRET, base_url_http=HTTP, instrument_provider=provider,
            product_types=[LINEAR], update_instruments_interval_mins=None,
        )},
        exec_clients={"BYBIT": BybitExecClientConfig(
            api_key=KEY, api_secret=SECRET, base_url_http=HTTP, instrument_provider=provider,
            product_types=[LINEAR], base_url_ws_private=f"{STREAMS}/v5/private",
            base_url_ws_trade=f"{STREAMS}/v5/trade", use_ws_trade_api="--trade-stream" in sys.argv,
        )},
        timeout_disconnection=3.0, timeout_post_stop=1.0,
    )
)  # fmt: skip
node.trader.add_strategy(Session())
node.add_data_client_factory("BYBIT", DataFactory)
node.add_exec_client_factory("BYBIT", factories.BybitLiveExecClientFactory)
node.build()
try:
    node.run()
finally:
    node.dispose()
