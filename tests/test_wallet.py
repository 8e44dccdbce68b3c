"""Money that comes or goes without trading: followed when it is explained, and in the way until then."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from bot.core.commands import PlaceOrder
from bot.core.events import BalanceChanged, EntriesAllowed, EntriesBlocked, OrderFilled
from bot.core.types import OrderRequest, OrderType, Side
from bot.engine.portfolio import Portfolio
from bot.exchange.bybit.broker import BrokerSettings, BybitBroker
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.wallet_check import WalletSettings
from bot.exchange.local.account import Entry
from bot.settings import Risk
from risk.breaker import Breaker
from tests.builders import START
from tests.local_exchange import KEY, SECRET, LocalExchange, local_exchange
from tests.test_bybit_broker import DESK, Heard, blocks

QUICKLY = WalletSettings(pauses=(0.0, 0.05, 0.1))


@asynccontextmanager
async def watching(
    exchange: LocalExchange, wallet: WalletSettings | None = None, owners: Ownership | None = None
) -> AsyncIterator[tuple[BybitBroker, Heard]]:
    keys, heard = Credentials(KEY, SECRET), Heard()
    rest = Rest(local(exchange.url), keys)
    await rest.measure_clock()
    broker = BybitBroker(
        local(exchange.url), keys, rest, heard.emit,
        BrokerSettings(desk=DESK, reconcile=60.0, wallet=wallet or QUICKLY), owners=owners,
    )  # fmt: skip
    await broker.start()
    try:
        yield broker, heard
    finally:
        await broker.close()
        rest.close()


def transfer(exchange: LocalExchange, amount: int) -> None:
    account = exchange.account
    now = exchange.venue.world.now
    kind = "TRANSFER_IN" if amount > 0 else "TRANSFER_OUT"
    exchange.do(lambda: account.book(Entry(now, kind, Decimal(amount), account.wallet + amount)))


async def test_a_deposit_and_a_withdrawal_are_followed() -> None:
    with local_exchange() as exchange:
        async with watching(exchange) as (broker, heard):
            transfer(exchange, 500)
            assert (await broker.reconcile()).wallet == ""
            transfer(exchange, -300)
            assert (await broker.reconcile()).wallet == ""
            await broker.reconcile()
            assert [event.amount for event in heard.of(BalanceChanged)] == [500, -300]
            assert "+500.00 USDT without our trading (TRANSFER_IN)" in heard.of(BalanceChanged)[0].reason
            assert heard.of(EntriesBlocked) == []


async def test_what_nothing_explains_keeps_entries_waiting_and_is_told_once() -> None:
    with local_exchange() as exchange:
        async with watching(exchange) as (broker, heard):
            exchange.account.wallet -= 7
            for _ in range(2):
                assert "-7.00 USDT, unexplained" in (await broker.reconcile()).wallet
            assert len(heard.of(EntriesBlocked)) == 1
            assert heard.of(BalanceChanged) == []
            exchange.account.wallet += 7
            await broker.reconcile()
            assert len(heard.of(EntriesAllowed)) == 1


async def test_an_explanation_that_comes_late_heals() -> None:
    """The wallet knew of the money before the ledger did."""
    with local_exchange() as exchange:
        async with watching(exchange) as (broker, heard):
            account, now = exchange.account, exchange.venue.world.now
            account.wallet += 500
            assert "+500.00 USDT, unexplained" in (await broker.reconcile()).wallet
            account.ledger.append(Entry(now, "TRANSFER_IN", Decimal(500), account.wallet))
            assert (await broker.reconcile()).wallet == ""
            assert blocks(heard) == {}
            assert [event.amount for event in heard.of(BalanceChanged)] == [500]


async def test_what_the_exchanges_ledger_booked_otherwise_is_taken_over_once_it_has_settled() -> None:
    """A fee that no execution told. Until it settles an execution may still come."""
    with local_exchange() as exchange:
        async with watching(exchange, WalletSettings(QUICKLY.pauses, settle=0.1)) as (broker, heard):
            account, now = exchange.account, exchange.venue.world.now
            fee = Decimal("1.5")
            exchange.do(lambda: account.book(Entry(now, "TRADE", -fee, account.wallet - fee, fee=fee)))
            assert "-1.50 USDT, unexplained" in (await broker.reconcile()).wallet
            assert (await broker.reconcile()).wallet == ""
            (change,) = heard.of(BalanceChanged)
            assert change.reason == "-1.50 USDT that our books had otherwise (TRADE)"
            assert blocks(heard) == {}
            transfer(exchange, 100)
            assert (await broker.reconcile()).wallet == ""


async def test_what_stays_unexplained_wants_a_person_and_says_so_once() -> None:
    with local_exchange() as exchange:
        async with watching(exchange, WalletSettings(QUICKLY.pauses, 0.0, 0.05, looks=2)) as (broker, heard):
            exchange.account.wallet -= 7
            for lasts in (False, True, False):
                assert (await broker.reconcile()).wallet_lasts == lasts
            assert len(heard.of(EntriesBlocked)) == 2
            exchange.account.wallet += 7
            await broker.reconcile()
            assert blocks(heard).keys() == {"operator"}


@pytest.mark.parametrize("late", [False, True])
async def test_what_somebody_else_trades_is_followed_at_once_however_little_it_moves(late: bool) -> None:
    """Far less than what is taken for rounding; the ledger may know it later than the wallet."""
    owners = Ownership(leave=True)
    with local_exchange() as exchange:
        async with watching(exchange, owners=owners) as (broker, heard):
            account, now = exchange.account, exchange.venue.world.now
            fee = Decimal("0.0055")
            line = Entry(
                now, "TRADE", -fee, account.wallet - fee, fee=fee,
                detail={"symbol": "ETHUSDT", "category": "linear"},
            )  # fmt: skip
            owners.strange += 1  # its execution was seen
            if late:
                account.wallet -= fee
                assert (await broker.reconcile()).wallet == ""
                assert heard.of(BalanceChanged) == []
                account.ledger.append(line)
            else:
                exchange.do(lambda: account.book(line))
            assert (await broker.reconcile()).wallet == ""
            await broker.reconcile()
            (change,) = heard.of(BalanceChanged)
            assert change.amount == -fee
            assert change.reason == "-0.01 USDT without our trading (TRADE)"
            assert heard.of(EntriesBlocked) == []


async def test_what_somebody_else_trades_for_another_coin_is_looked_for_once() -> None:
    owners = Ownership(leave=True)
    with local_exchange() as exchange:
        settings = WalletSettings(QUICKLY.pauses, settle=0.1)
        async with watching(exchange, settings, owners=owners) as (broker, heard):
            owners.strange += 1
            for _ in range(2):
                await broker.reconcile()
            assert broker._reconciler._wallet._strange == owners.strange
            assert heard.of(BalanceChanged) == heard.of(EntriesBlocked) == []


async def test_trades_are_in_our_books() -> None:
    with local_exchange() as exchange:
        exchange.advance(500)
        async with watching(exchange) as (broker, heard):
            for number, side in enumerate((Side.BUY, Side.SELL, Side.SELL)):
                request = OrderRequest(
                    link_id=f"t-{number}", symbol="ETHUSDT", side=side, type=OrderType.MARKET,
                    qty=Decimal("0.5"),
                )  # fmt: skip
                broker.submit(PlaceOrder(exchange.venue.world.now + 60_000, request))
                exchange.advance(200)
                await heard.until(OrderFilled, number + 1)
                exchange.move("ETHUSDT", 1.01)
            assert (await broker.reconcile()).wallet == ""
            assert exchange.account.wallet != 10_000
            assert heard.of(EntriesBlocked) == []


def test_a_transfer_is_no_loss() -> None:
    portfolio, breaker = Portfolio(Decimal(10_000)), Breaker(Risk(), 10_000)
    breaker.mark(START, portfolio.equity)
    change = BalanceChanged(START, START, Decimal(-5_000), "withdrawn")
    portfolio.apply_transfer(change)
    breaker.transfer(float(change.amount))
    assert portfolio.equity == 5_000
    assert breaker.mark(START, portfolio.equity) == []
    assert breaker.mark(START, 4_849) != []
