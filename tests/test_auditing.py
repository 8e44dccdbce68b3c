"""At each day's end: our books equal the exchange's to the cent, or entries stop."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from bot.auditing import DailyAudit
from bot.core.events import OPERATOR, BalanceChanged, BarClosed, EntriesBlocked, Event, InstrumentListed
from bot.core.types import DAY_MS
from bot.exchange.bybit.audit import Line, frames_line
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.requests import NewOrder
from bot.exchange.bybit.rest import Rest
from tests.crash_child import BAR, BROKER, STREAMS
from tests.live_desk import LiveDesk, live_desk
from tests.local_exchange import KEY, SECRET, LocalExchange, local_exchange
from tests.test_live_loop import in_and_out
from tests.test_wallet import moved

SYMBOL, PRICE = "ETHUSDT", 2_500.0


async def at_once(_: float) -> None:
    return


async def trade(desk: LiveDesk, exchange: LocalExchange) -> None:
    """In and out, three times."""
    now = desk.rest.clock.now_ms()
    desk.tell(InstrumentListed(now, now, exchange.venue.world.listed[SYMBOL].contract.instrument))
    for number in range(6):
        end = desk.rest.clock.now_ms() // BAR * BAR
        desk.tell(BarClosed(end, end, SYMBOL, end - BAR, BAR, PRICE, PRICE, PRICE, PRICE, 1.0, PRICE))
        held = number % 2 == 0
        await desk.until(lambda held=held: bool(desk.engine.portfolio.positions) is held, what="a fill")
        await asyncio.sleep(2 * BAR / 1_000)  # the next bar is another one
    await desk.broker.settled()
    await desk.until(desk.inbox.empty, what="quiet")


async def test_the_change_of_a_day_equals_the_wallets_and_a_difference_holds_entries() -> None:
    told: list[Sequence[Line]] = []
    with local_exchange(manual=False) as exchange:
        async with live_desk(
            local(exchange.url), Credentials(KEY, SECRET), in_and_out, BAR, settings=BROKER,
            streams=STREAMS,
        ) as desk:  # fmt: skip
            daily = DailyAudit(
                desk.rest,
                desk.broker.owners,
                desk.engine,
                desk.log,
                desk.inbox.put_nowait,
                told.append,
                desk.opened,
                at_once,
            )
            await trade(desk, exchange)
            await daily.look()
            assert [line for line in told[0] if not line.equal] == []
            assert told[0][-1].what == "change of the balance"
            assert float(told[0][-1].ours) < -0.1  # fees
            assert daily.since > desk.opened
            desk.engine.portfolio.balance += Decimal("0.02")  # our books go wrong
            await daily.look()
            await desk.until(lambda: OPERATOR in desk.engine.blocks, what="a block")
            assert "change of the balance: +0.0200, the exchange: +0.0000" in desk.engine.blocks[OPERATOR]


async def test_what_others_move_all_the_time_is_no_difference_and_a_loss_of_ours_is() -> None:
    """Somebody trades between any two looks; our books follow a little later."""
    told: list[Sequence[Line]] = []
    blocked: list[Event] = []
    with local_exchange(manual=False) as exchange:
        async with live_desk(
            local(exchange.url), Credentials(KEY, SECRET), in_and_out, BAR, settings=BROKER,
            streams=STREAMS, owners=Ownership(leave=True),
        ) as desk:  # fmt: skip
            daily = DailyAudit(
                desk.rest, desk.broker.owners, desk.engine, desk.log, blocked.append, told.append,
                desk.opened, at_once,
            )  # fmt: skip
            await trade(desk, exchange)
            person = asyncio.create_task(trade_for_ever(exchange))
            try:
                for number in range(3):
                    await desk.until(lambda n=number: len(desk.journal.of(BalanceChanged)) > n, 20.0, "it")
                    await daily.look()
                assert [line for lines in told for line in lines if not line.equal] == []
                assert not any(change.parts for change in desk.journal.of(BalanceChanged))
                assert float(told[0][-1].ours) < -0.1  # our fees
                assert desk.journal.of(EntriesBlocked) == blocked == []
                desk.engine.portfolio.balance += Decimal("0.02")
                await daily.look()
                assert "change of the balance: +0.0200, the exchange: +0.0000" in str(blocked)
            finally:
                person.cancel()


async def test_what_others_have_moved_is_no_difference_before_our_books_have_followed() -> None:
    told: list[Sequence[Line]] = []
    with local_exchange() as exchange:
        async with live_desk(
            local(exchange.url), Credentials(KEY, SECRET), in_and_out, BAR,
            settings=replace(BROKER, reconcile=60.0), streams=STREAMS, owners=Ownership(leave=True),
        ) as desk:  # fmt: skip
            daily = DailyAudit(
                desk.rest, desk.broker.owners, desk.engine, desk.log, desk.inbox.put_nowait, told.append,
                desk.opened, at_once,
            )  # fmt: skip
            exchange.account.ledger.clear()  # what it began with
            exchange.account.wallet -= 1  # that is nobody's
            await daily.look()
            assert [line.what for line in told[0] if not line.equal] == ["balance"]
            exchange.account.wallet += 1
            for amount in (-500, 300):
                moved(exchange, "BTCUSDT", amount)
            await daily.look()
            assert desk.engine.portfolio.balance == 10_000
            assert [line for line in told[1] if not line.equal] == []


async def trade_for_ever(exchange: LocalExchange) -> None:
    """By hand, elsewhere."""
    person = Rest(local(exchange.url), Credentials(KEY, SECRET))
    try:
        for side in itertools.cycle(("Buy", "Sell")):
            order = NewOrder(symbol="BTCUSDT", side=side, order_type="Market", qty=Decimal("0.1"))
            await person.orders.create(order)
            await asyncio.sleep(0.2)
    finally:
        person.close()


async def test_a_day_that_was_looked_at_is_forgotten_but_for_what_has_not_ended() -> None:
    with local_exchange(manual=False) as exchange:
        async with live_desk(
            local(exchange.url), Credentials(KEY, SECRET), in_and_out, BAR, settings=BROKER,
            streams=STREAMS,
        ) as desk:  # fmt: skip
            await trade(desk, exchange)
            later = desk.rest.clock.now_ms() + DAY_MS
            assert len(desk.log.sent) == 6
            desk.log.sent["under way"] = 0
            desk.log.forget(later)
            assert list(desk.log.sent) == ["under way"]
            assert desk.log.executions == []
            assert not desk.log.existed


def test_a_frame_that_nobody_accounts_for_is_a_difference() -> None:
    assert frames_line("market", (1_200, 1_200)).equal
    assert frames_line("market", (1_200, 1_199)) == Line(
        "frames of the market stream", "1,199", "1,200", False
    )
