"""Before orders leave: modes, leverage and fees are what the configuration says, or it is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from bot.core.errors import UsageError
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.bybit.errors import ExchangeError, Kind
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.preparation import Preparation
from bot.exchange.bybit.requests import Cancellation, NewOrder
from bot.exchange.bybit.rest import Rest
from tests.local_exchange import KEY, SECRET, LocalExchange, local_exchange


@asynccontextmanager
async def preparing(exchange: LocalExchange, **changes: Any) -> AsyncIterator[Preparation]:
    rest = Rest(local(exchange.url), Credentials(KEY, SECRET))
    await rest.measure_clock()
    values = {
        "probe": "BTCUSDT", "leverage": Decimal(2), "margin_mode": "cross", "taker_fee": 0.00055,
        "may_switch": False, **changes,
    }  # fmt: skip
    try:
        yield Preparation(rest, **values)
    finally:
        rest.close()


async def test_an_account_as_it_should_be_is_left_alone_and_leverage_is_set_once_a_symbol() -> None:
    with local_exchange() as exchange:
        async with preparing(exchange) as preparation:
            assert await preparation.account() == []
            assert await preparation.symbols(["BTCUSDT", "ETHUSDT"]) == []
            assert exchange.account.leverage_of("ETHUSDT", 0) == 2
        async with preparing(exchange) as preparation:  # the next run: nothing to set
            await preparation.symbol("ETHUSDT")
            await preparation.rest.account.set_leverage("ETHUSDT", Decimal(2))  # 110043 is a success


async def test_hedge_mode_is_refused_and_says_what_to_change() -> None:
    with local_exchange() as exchange:
        exchange.account.hedged |= {"BTCUSDT", "ETHUSDT"}
        async with preparing(exchange) as preparation:
            with pytest.raises(UsageError, match=r"BTCUSDT in hedge mode: switch the account to one-way"):
                await preparation.account()
            with pytest.raises(UsageError, match=r"ETHUSDT in hedge mode"):
                await preparation.symbol("ETHUSDT")
        assert exchange.account.hedged == {"BTCUSDT", "ETHUSDT"}


async def test_modes_are_switched_where_that_is_allowed_and_nothing_is_held() -> None:
    with local_exchange() as exchange:
        exchange.account.hedged |= {"BTCUSDT", "ETHUSDT"}
        exchange.account.margin_mode = "ISOLATED_MARGIN"
        async with preparing(exchange, may_switch=True) as preparation:
            margin, position = await preparation.account()
            assert "was ISOLATED_MARGIN and is REGULAR_MARGIN now" in margin
            assert "is one-way now" in position
        assert exchange.account.hedged == set()
        assert exchange.account.margin_mode == "REGULAR_MARGIN"


async def test_modes_are_not_switched_under_a_position_or_an_order() -> None:
    with local_exchange() as exchange:
        exchange.advance(500)
        async with preparing(exchange, margin_mode="isolated", may_switch=True) as preparation:
            await preparation.rest.orders.create(
                NewOrder(symbol="ETHUSDT", side="Buy", order_type="Market", qty=Decimal("0.1"))
            )
            with pytest.raises(UsageError, match=r"cannot be changed before ETHUSDT is flat"):
                await preparation.account()
        assert exchange.account.margin_mode == "REGULAR_MARGIN"


async def test_what_somebody_else_holds_keeps_its_leverage_and_is_told() -> None:
    with local_exchange() as exchange:
        exchange.advance(500)
        async with preparing(exchange, owners=Ownership(leave=True), leverage=Decimal(3)) as preparation:
            account = preparation.rest.account
            await account.set_leverage("ETHUSDT", Decimal(7))
            order = NewOrder(symbol="ETHUSDT", side="Buy", order_type="Market", qty=Decimal("0.1"))
            await preparation.rest.orders.create(order)
            (told,) = await preparation.symbols(["ETHUSDT", "BTCUSDT"])
            assert "ETHUSDT is not ready for entries" in told
            assert "somebody else is there: its leverage is left as it is" in told
            assert exchange.account.leverage_of("ETHUSDT", 0) == 7
            assert exchange.account.leverage_of("BTCUSDT", 0) == 3
            closing = NewOrder(
                symbol="ETHUSDT", side="Sell", order_type="Market", qty=Decimal("0.1"), reduce_only=True
            )
            await preparation.rest.orders.create(closing)
            resting = NewOrder(
                symbol="ETHUSDT", side="Buy", order_type="Limit", qty=Decimal("0.1"), price=Decimal(1_000)
            )
            ids = await preparation.rest.orders.create(resting)
            (told,) = await preparation.symbols(["ETHUSDT"])
            assert "somebody else is there" in told
            await preparation.rest.orders.cancel(Cancellation(symbol="ETHUSDT", order_id=ids.order_id))
            await preparation.symbol("ETHUSDT")  # before an entry, when it is free
            assert exchange.account.leverage_of("ETHUSDT", 0) == 3


async def test_another_margin_mode_is_refused() -> None:
    with local_exchange() as exchange:
        async with preparing(exchange, margin_mode="isolated") as preparation:
            with pytest.raises(UsageError, match=r"margin mode is REGULAR_MARGIN, not ISOLATED.*may_switch"):
                await preparation.account()


async def test_the_fees_that_the_account_pays_are_found_and_a_difference_is_told() -> None:
    with local_exchange() as exchange:
        async with preparing(exchange, taker_fee=0.0003) as preparation:
            (told,) = await preparation.account()
            assert "taker fee is 0.0550%, not 0.0300% as `costs.taker_fee` says" in told
            assert preparation.fees == (0.00055, 0.0002)


async def test_leverage_that_the_exchange_refuses_keeps_only_that_symbol_back() -> None:
    with local_exchange() as exchange:
        async with preparing(exchange, leverage=Decimal(5_000)) as preparation:
            (told,) = await preparation.symbols(["BTCUSDT"])
            assert "BTCUSDT is not ready for entries" in told
            with pytest.raises(ExchangeError) as caught:
                await preparation.symbol("BTCUSDT")
            assert caught.value.kind is Kind.REFUSED
