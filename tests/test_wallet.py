"""Money that comes or goes without trading: followed when it is explained, and in the way until then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from bot.core.commands import PlaceOrder
from bot.core.events import BalanceChanged, EntriesAllowed, EntriesBlocked, OrderFilled
from bot.core.records import Alarm, EquityMarked
from bot.core.types import OrderRequest, OrderType, Side
from bot.exchange.bybit.broker import BrokerSettings, BybitBroker
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.wallet_check import WalletSettings
from bot.exchange.local.account import Entry
from tests.builders import BAR, START
from tests.local_exchange import KEY, SECRET, LocalExchange, local_exchange
from tests.test_bybit_broker import DESK, Heard, blocks
from tests.test_engine import Desk, nothing

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


def moved(exchange: LocalExchange, symbol: str, amount: int) -> None:
    """By a trade."""
    account, now = exchange.account, exchange.venue.world.now
    detail = {"symbol": symbol, "category": "linear"}
    exchange.do(
        lambda: account.book(Entry(now, "TRADE", Decimal(amount), account.wallet + amount, detail=detail))
    )


def wallet_of(exchange: LocalExchange) -> Decimal:
    return exchange.do(lambda: exchange.account.wallet)


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
            assert change.parts == (("", Decimal("-1.5")),)
            assert blocks(heard) == {}
            transfer(exchange, 100)
            assert (await broker.reconcile()).wallet == ""


async def test_what_others_moved_meanwhile_is_told_apart_from_what_our_books_had_otherwise() -> None:
    """One is a transfer, the other a loss."""
    with local_exchange() as exchange:
        settings, owners = WalletSettings(QUICKLY.pauses, settle=0.1), Ownership(leave=True)
        owners.enter("ETHUSDT", 0)
        async with watching(exchange, settings, owners) as (broker, heard):
            moved(exchange, "ETHUSDT", -500)
            moved(exchange, "BTCUSDT", 30)
            assert "-470.00 USDT, unexplained" in (await broker.reconcile()).wallet
            assert (await broker.reconcile()).wallet == ""
            changes = {change.amount: change for change in heard.of(BalanceChanged)}
            assert changes.keys() == {-500, 30}
            assert changes[Decimal(-500)].reason == "-500.00 USDT that our books had otherwise (TRADE)"
            assert changes[Decimal(-500)].parts == (("ETHUSDT", Decimal(-500)),)
            assert changes[Decimal(30)].parts == ()
            assert changes[Decimal(30)].until == exchange.account.ledger[-1].ts


@pytest.mark.parametrize("sign", [1, -1])
async def test_what_our_books_had_otherwise_is_told_of_each_token(sign: int) -> None:
    """At once. One that our books have as the exchange has it is none of them."""
    with local_exchange(manual=False) as exchange:
        settings = WalletSettings(QUICKLY.pauses, settle=0.1)
        async with watching(exchange, settings) as (broker, heard):
            request = OrderRequest(
                link_id="t-1", symbol="ETHUSDT", side=Side.BUY, type=OrderType.MARKET, qty=Decimal("0.5")
            )
            broker.submit(PlaceOrder(exchange.venue.world.now, request))
            await heard.until(OrderFilled, 1)
            for symbol, amount in (("BTCUSDT", -40), ("BTCUSDT", 5), ("NEWUSDT", 30)):
                moved(exchange, symbol, amount * sign)
            assert f"{-5 * sign:+.2f} USDT, unexplained" in (await broker.reconcile()).wallet
            assert (await broker.reconcile()).wallet == ""
            (change,) = heard.of(BalanceChanged)
            assert change.parts == (("BTCUSDT", -35 * sign), ("NEWUSDT", 30 * sign))
            assert change.amount == -5 * sign
            assert change.reason == (
                f"{-5 * sign:+.2f} USDT that our books had otherwise (TRADE): "
                f"BTCUSDT {-35 * sign:+.2f}, NEWUSDT {30 * sign:+.2f}"
            )


class Busy:
    """Somebody who trades whenever we look: `sleep` of a broker's wallet check."""

    def __init__(self, exchange: LocalExchange) -> None:
        self.exchange = exchange
        self.count = 0

    async def __call__(self, _: float) -> None:
        self.count += 1
        moved(self.exchange, "BTCUSDT", self.count)


async def test_what_others_trade_all_the_time_is_followed_all_the_time() -> None:
    owners = Ownership(leave=True)
    with local_exchange() as exchange:
        async with watching(exchange, owners=owners) as (broker, heard):
            broker._reconciler._wallet._sleep = Busy(exchange)
            for number in range(1, 4):
                owners.strange += 3
                assert (await broker.reconcile()).wallet == ""
                assert len(heard.of(BalanceChanged)) == number
            assert 10_000 + sum(change.amount for change in heard.of(BalanceChanged)) == wallet_of(exchange)
            assert heard.of(EntriesBlocked) == []


async def test_a_loss_of_ours_is_found_while_others_trade_all_the_time() -> None:
    owners = Ownership(leave=True)
    owners.enter("ETHUSDT", 0)
    with local_exchange() as exchange:
        settings = WalletSettings(QUICKLY.pauses, settle=0.1)
        async with watching(exchange, settings, owners) as (broker, heard):
            broker._reconciler._wallet._sleep = Busy(exchange)
            moved(exchange, "ETHUSDT", -500)
            assert (await broker.reconcile()).wallet == ""  # an execution may still come
            await asyncio.sleep(0.15)
            await broker.reconcile()
            assert [change.amount for change in heard.of(BalanceChanged) if change.parts] == [-500]
            total = sum(change.amount for change in heard.of(BalanceChanged))
            assert 10_000 + total == wallet_of(exchange)


async def test_what_cannot_be_compared_for_long_holds_entries_until_it_can() -> None:
    """The wallet moves all the time, and the ledger says nothing of it."""
    with local_exchange() as exchange:
        async with watching(exchange, WalletSettings(QUICKLY.pauses, settle=0.2)) as (broker, heard):

            async def moving(_: float) -> None:
                exchange.account.wallet += 1

            check = broker._reconciler._wallet
            quiet, check._sleep = check._sleep, moving
            assert (await broker.reconcile()).wallet == ""
            await asyncio.sleep(0.2)
            text = "for more than 0.2 s the wallet could not be compared with our books: both move"
            for _ in range(2):
                assert (await broker.reconcile()).wallet == text
            assert blocks(heard) == {"account": text}
            check._sleep = quiet
            exchange.account.wallet = Decimal(10_000)
            assert (await broker.reconcile()).wallet == ""
            assert blocks(heard) == {}


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


@pytest.mark.parametrize("ours", [False, True])
def test_a_transfer_is_no_loss_and_what_our_books_had_otherwise_is(ours: bool) -> None:
    desk = Desk(nothing)
    desk.engine.appraise(START)
    parts = (("", Decimal(-500)),) if ours else ()
    lost = BalanceChanged(START + BAR, START + BAR, Decimal(-500), "moved", parts, START + 7)
    desk.runner.advance([lost])
    assert desk.breaker.halted is ours
    assert desk.engine.portfolio.equity == 9_500
    assert desk.engine.portfolio.gained == (-500 if ours else 0)
    (marked,) = desk.engine.appraise(START + BAR)
    assert isinstance(marked, EquityMarked)
    assert marked.ledger == (0 if ours else START + 7)
    assert marked.day_drawdown == (pytest.approx(0.05) if ours else 0)


def corrected(**parts: int) -> BalanceChanged:
    """What our books had otherwise, by token."""
    of_each = tuple((symbol, Decimal(amount)) for symbol, amount in parts.items())
    return BalanceChanged(START + BAR, START + BAR, Decimal(sum(parts.values())), "moved", of_each)


def test_what_our_books_had_otherwise_counts_for_the_limit_of_its_token() -> None:
    desk = Desk(nothing)
    desk.runner.advance([corrected(NEWUSDT=-60)])
    assert "NEWUSDT lost 0.60% of equity" in desk.breaker.token_reason("NEWUSDT")
    assert not desk.breaker.halted
    assert desk.engine.portfolio.equity == 9_940
    (alarm,) = desk.journal.of(Alarm)
    assert (alarm.symbol, alarm.text) == ("NEWUSDT", "moved")


@pytest.mark.parametrize("order", [1, -1])
def test_what_one_token_gained_and_another_lost_at_once_moves_the_account_by_the_sum(order: int) -> None:
    desk = Desk(nothing)
    parts = [("AAAUSDT", 800), ("NEWUSDT", -800)][::order]
    desk.runner.advance([corrected(**dict(parts))])
    assert "NEWUSDT lost 8.00% of equity" in desk.breaker.token_reason("NEWUSDT")
    assert desk.breaker.token_reason("AAAUSDT") == ""
    assert not desk.breaker.halted
    assert desk.breaker.peak == desk.engine.portfolio.equity == 10_000
    assert desk.engine.portfolio.realised == dict(parts)
    (alarm,) = desk.journal.of(Alarm)
    assert (alarm.symbol, alarm.text) == ("", "moved")
