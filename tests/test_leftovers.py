"""Open orders that a run finds: entries of our earlier runs are cancelled, everything else is left alone."""

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.exchange.bybit.broker import BrokerSettings, BybitBroker
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.requests import NewOrder
from bot.exchange.bybit.rest import Rest
from bot.execution.orders import SALTS, Orders, run_tag, tag_of
from tests.builders import START
from tests.local_exchange import KEY, SECRET, local_exchange
from tests.test_bybit_broker import DESK, Heard


def test_our_orders_are_known_by_their_id() -> None:
    orders = Orders(tag_of(START, 1))
    assert run_tag(orders.next_id("NEWUSDT")) == tag_of(START, 1)
    assert run_tag(orders.next_id("1000000BABYDOGEUSDT")) == tag_of(START, 1)
    for other in ("", "t-1", "my-order", "t0abcdefghij-lower-1", "12345678-1234-1234-1234-123456789012"):
        assert run_tag(other) == ""


@given(
    starts=st.lists(
        st.tuples(st.integers(START, START + 1_000), st.integers(0, SALTS - 1)), min_size=2, unique=True
    ),
    count=st.integers(0, SALTS),
)
def test_two_runs_never_share_an_id_not_even_those_that_begin_within_a_second(
    starts: list[tuple[int, int]], count: int
) -> None:
    ids: set[str] = set()
    for start in starts:
        orders = Orders(tag_of(*start))
        orders._count = count
        ids |= {orders.next_id(symbol) for symbol in ("NEWUSDT", "1000000BABYDOGEUSDT")}
    assert len(ids) == 2 * len(starts)
    assert all(len(link_id) <= 36 and run_tag(link_id) for link_id in ids)


async def test_what_a_dying_run_sent_last_is_cancelled_when_it_comes_after_the_start() -> None:
    keys, late, foreign = Credentials(KEY, SECRET), Orders(tag_of(START, 1)).next_id("ETHUSDT"), "by-hand"
    with local_exchange(manual=False) as exchange:
        rest = Rest(local(exchange.url), keys, recv_window_ms=500)
        await rest.measure_clock()
        settings = BrokerSettings(desk=DESK, reconcile=60.0)
        broker = BybitBroker(
            local(exchange.url),
            keys,
            rest,
            Heard().emit,
            settings,
            owners=Ownership(earlier=[tag_of(START, 1)]),
        )
        try:
            assert (await broker.start()).cancelled == []
            for link in (late, foreign):
                resting = NewOrder(
                    symbol="ETHUSDT", side="Buy", order_type="Limit", qty=Decimal("0.5"),
                    price=Decimal(2_000), order_link_id=link,
                )  # fmt: skip
                await rest.orders.create(resting)
            left = {late, foreign}
            async with asyncio.timeout(10):
                while late in left:  # until nothing that was signed before the start can be accepted any more
                    await broker.reconcile()
                    open_orders = await rest.orders.open_orders(settle_coin="USDT")
                    left = {item.order_link_id for item in open_orders}
            assert left == {foreign}
        finally:
            await broker.close()
            rest.close()


async def test_entries_of_an_earlier_run_are_cancelled_and_nothing_else() -> None:
    keys, ids = Credentials(KEY, SECRET), Orders(tag_of(START, 1))
    entry, exit_, foreign = ids.next_id("ETHUSDT"), ids.next_id("ETHUSDT"), "by-hand"
    another = Orders(tag_of(START, 2)).next_id("ETHUSDT")  # a bot with a database of its own
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
            owners=Ownership(earlier=[tag_of(START, 1)]),
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
            (held,) = await rest.account.positions()
            assert abs(held.unrealised_pnl or 0) > Decimal("0.02")
            assert opening.unrealised == pytest.approx(float(held.unrealised_pnl or 0), abs=0.01)
        finally:
            await broker.close()
            rest.close()
