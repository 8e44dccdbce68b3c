"""Open orders that a run finds: entries of our earlier runs are cancelled, everything else is left alone."""

from decimal import Decimal

from bot.exchange.bybit.broker import BrokerSettings, BybitBroker
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.bybit.requests import NewOrder
from bot.exchange.bybit.rest import Rest
from bot.execution.orders import Orders, run_tag, tag_of
from tests.builders import START
from tests.local_exchange import KEY, SECRET, local_exchange
from tests.test_bybit_broker import DESK, Heard


def test_our_orders_are_known_by_their_id() -> None:
    orders = Orders(tag_of(START))
    assert run_tag(orders.next_id("NEWUSDT", START)) == tag_of(START)
    assert run_tag(orders.next_id("1000000BABYDOGEUSDT", START)) == tag_of(START)
    for other in ("", "t-1", "my-order", "tabcdef-lower-1-1", "12345678-1234-1234-1234-123456789012"):
        assert run_tag(other) == ""


async def test_entries_of_an_earlier_run_are_cancelled_and_nothing_else() -> None:
    keys, ids = Credentials(KEY, SECRET), Orders(tag_of(START))
    entry, exit_, foreign = ids.next_id("ETHUSDT", START), ids.next_id("ETHUSDT", START), "by-hand"
    another = Orders(tag_of(START + 1_000)).next_id("ETHUSDT", START)  # a bot with a database of its own
    with local_exchange() as exchange:
        exchange.advance(500)
        rest = Rest(local(exchange.url), keys)
        await rest.measure_clock()
        bought = NewOrder(
            symbol="ETHUSDT", side="Buy", order_type="Market", qty=Decimal(1), stop_loss=Decimal(2_400)
        )
        await rest.orders.create(bought)
        for link, side, price, closing in (
            (entry, "Buy", 2_000, False), (exit_, "Sell", 2_600, True), (foreign, "Buy", 2_001, False),
            (another, "Buy", 2_002, False),
        ):  # fmt: skip
            await rest.orders.create(
                NewOrder(
                    symbol="ETHUSDT",
                    side=side,
                    order_type="Limit",
                    qty=Decimal("0.5"),
                    price=Decimal(price),
                    order_link_id=link,
                    reduce_only=closing,
                )
            )
        broker = BybitBroker(
            local(exchange.url),
            keys,
            rest,
            Heard().emit,
            BrokerSettings(desk=DESK, reconcile=60.0),
            earlier=[tag_of(START)],
        )
        try:
            opening = await broker.start()
            assert opening.cancelled == [entry]
            assert sorted(opening.leftovers) == sorted(
                f"ETHUSDT {link}" for link in (exit_, foreign, another)
            )
            left = {item.order_link_id for item in await rest.orders.open_orders(settle_coin="USDT")}
            assert left >= {exit_, foreign, another}
            assert entry not in left
            assert opening.positions["ETHUSDT"].stop == 2_400
        finally:
            await broker.close()
            rest.close()
