"""What a restart must not forget: entries of the day, since when we hold, and what was lost meanwhile."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console

from bot.core.commands import PlaceOrder
from bot.core.events import OrderRejected, PositionAdopted
from bot.core.records import Alarm, BreakerTripped, EquityMarked
from bot.core.types import DAY_MS, HOUR_MS, FillOrigin, OrderRequest, OrderType, Side
from bot.engine.portfolio import Portfolio
from bot.exchange.bybit.account_book import Held
from bot.exchange.bybit.environment import local
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.reconciliation import Opening
from bot.exchange.bybit.requests import NewOrder
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.wire.account import Transaction
from bot.exchange.local.account import Entry
from bot.execution.orders import Orders, tag_of
from bot.live.account import earlier_runs, ownership_of
from bot.live.memory import Memory
from bot.settings import Risk, Settings
from bot.storage.database import Database
from bot.storage.journal import Journal
from risk.breaker import Breaker
from tests.builders import START, fill
from tests.local_exchange import LocalExchange, local_exchange
from tests.test_care import KEYS

SYMBOLS = ("BTCUSDT", "ETHUSDT")


def traded(database: Database, now: int) -> None:
    """An earlier run that entered three times in the last day and once before it."""
    config = json.dumps({"choice": {"account": "1", "environment": "local"}})
    started = now - 2 * DAY_MS
    journal = Journal.start(
        database, kind="testnet", title="", simulated=True, config_json=config, seed=0, started=started,
        start_ts=started, end_ts=started,
    )  # fmt: skip
    for ago, symbol in ((30, "ETHUSDT"), (5, "BTCUSDT"), (3, "ETHUSDT"), (2, "BTCUSDT")):
        ts, link = now - ago * HOUR_MS, f"o{ago}"
        request = OrderRequest(
            link_id=link, symbol=symbol, side=Side.BUY, type=OrderType.MARKET, qty=Decimal(1),
            stop_loss=Decimal(1),
        )  # fmt: skip
        journal.write(PlaceOrder(ts, request))
        journal.write(replace(fill(Side.BUY, "1", "100", symbol=symbol, ts=ts), link_id=link))
    journal.finish({})


async def lose(exchange: LocalExchange, rest: Rest, symbol: str) -> None:
    """Buy, and sell at a lower price."""
    for side, reduces in (("Buy", False), ("Sell", True)):
        order = NewOrder(
            symbol=symbol, side=side, order_type="Market", qty=Decimal("0.1"), reduce_only=reduces or None
        )
        await rest.orders.create(order)
        exchange.move(symbol, 0.99)


async def test_a_restart_counts_entries_ages_and_losses_from_where_the_last_run_was(tmp_path: Path) -> None:
    with local_exchange() as exchange, Database.open(tmp_path / "bot.sqlite") as database:
        exchange.advance(500)
        rest = Rest(local(exchange.url), KEYS)
        await rest.measure_clock()
        await lose(exchange, rest, "BTCUSDT")  # while no bot ran, say
        now = max(rest.clock.now_ms(), exchange.venue.world.now) + 1  # its market was moved on
        traded(database, now)
        risk = Risk(token_daily_loss=0.01)
        breaker, books, orders = Breaker(risk, 10_000), Portfolio(Decimal(10_000)), Orders()
        opening = Opening(now, Decimal(10_000), {"ETHUSDT": Held(Decimal(1)), "BTCUSDT": Held(Decimal(-1))})
        memory = Memory(risk, database, earlier_runs(database, "testnet", "1"), now, Ownership())
        await memory.restore(rest, opening, breaker, books, orders, Console(quiet=True))
        rest.close()
        assert orders.entries_since(now - DAY_MS) == 3
        assert set(books.last_loss) == {"BTCUSDT"}
        assert now - books.last_loss["BTCUSDT"] < HOUR_MS
        for symbol in SYMBOLS:
            books.adopt(
                PositionAdopted(now, now, symbol, opening.positions[symbol].qty, Decimal(1), None, "held")
            )
        assert books.positions["ETHUSDT"].opened == now - 3 * HOUR_MS
        assert books.positions["BTCUSDT"].opened == now  # it is short, and we had bought
        lost = float(10_000 - exchange.account.wallet)
        assert lost > 10
        almost = 100 - lost + 1e-6  # of the 100 that a token may lose on a day
        assert breaker.mark_token(now, "BTCUSDT", 0.01 - almost, 10_000) == []
        assert breaker.mark_token(now, "BTCUSDT", -almost, 10_000) != []
        assert breaker.mark_token(now, "ETHUSDT", -almost, 10_000) == []


@pytest.mark.parametrize("unrealised", [0.0, 5_000.0])
async def test_a_token_that_lost_too_much_of_the_equity_while_no_bot_ran_is_halted_at_the_start(
    tmp_path: Path, unrealised: float
) -> None:
    with local_exchange() as exchange, Database.open(tmp_path / "bot.sqlite") as database:
        exchange.advance(500)
        rest = Rest(local(exchange.url), KEYS)
        await rest.measure_clock()
        await lose(exchange, rest, "BTCUSDT")
        now = max(rest.clock.now_ms(), exchange.venue.world.now) + 1
        breaker, opening = Breaker(Risk(), 10_000), Opening(now, Decimal(9_900), {}, unrealised=unrealised)
        memory = Memory(Risk(), database, [], now, Ownership())
        told = await memory.restore(
            rest, opening, breaker, Portfolio(Decimal(9_900)), Orders(), Console(quiet=True)
        )
        rest.close()
        if unrealised:
            assert told == []
            return
        (tripped,) = told
        assert isinstance(tripped, BreakerTripped)
        assert tripped.symbol == "BTCUSDT"
        assert breaker.token_reason("BTCUSDT") == tripped.reason
        assert not breaker.halted


@pytest.mark.parametrize("late", [0, 1, 9_000])
async def test_what_a_person_lost_counts_from_where_a_mark_had_not_heard_of_it(
    tmp_path: Path, late: int
) -> None:
    """It was stamped before the mark or with it, and booked after it. late: ms by which the mark is later."""
    with local_exchange() as exchange, Database.open(tmp_path / "bot.sqlite") as database:
        rest = Rest(local(exchange.url), KEYS)
        await rest.measure_clock()
        account, now = exchange.account, exchange.venue.world.now
        marked, started = now - HOUR_MS, now
        day = {"symbol": "ETHUSDT", "category": "linear"}

        def moved() -> None:
            account.ledger.clear()  # what it began with
            for ts, amount in ((marked - late - 1, 100), (marked - late, -1_000), (marked + 5, -500)):
                account.book(Entry(ts, "TRADE", Decimal(amount), account.wallet + amount, detail=day))

        exchange.do(moved)
        journal, _ = begun(database, marked - HOUR_MS)
        equity = 10_100.0  # with the first of them, without the others
        journal.write(EquityMarked(marked, equity, equity, equity, 0.0, 0.0, 0.0, marked - late - 1))
        journal.commit()
        journal.interrupt()
        owners = Ownership(leave=True)
        breaker, books = Breaker(Risk(), 8_600), Portfolio(Decimal(8_600))
        opening = Opening(now, Decimal(8_600), {}, ledger=now)
        memory = Memory(Risk(), database, earlier_runs(database, "testnet", "1"), started, owners)
        await memory.restore(rest, opening, breaker, books, Orders(), Console(quiet=True))
        rest.close()
        assert breaker.mark(started, 8_600.0) == []
        record = breaker.record(started, 8_600.0, 8_600.0, 0.0)
        assert record.peak == pytest.approx(8_600)
        assert record.day_drawdown == 0
        assert breaker.mark(started, 8_600 * (1 - Risk().daily_drawdown)) != []


def begun(database: Database, ts: int) -> tuple[Journal, Orders]:
    """A run, and its ids."""
    config = json.dumps({"choice": {"account": "1", "environment": "local"}})
    journal = Journal.start(
        database, kind="testnet", title="", simulated=True, config_json=config, seed=ts % 7, started=ts,
        start_ts=ts, end_ts=ts,
    )  # fmt: skip
    return journal, Orders(tag_of(ts, ts % 7))


def entry(ids: Orders, ts: int) -> PlaceOrder:
    link = ids.next_id("NEWUSDT")
    return PlaceOrder(
        ts,
        OrderRequest(link_id=link, symbol="NEWUSDT", side=Side.BUY, type=OrderType.MARKET, qty=Decimal(20)),
    )


def of_the_ledger(ts: int, link: str = "", size: int | None = None) -> Transaction:
    return Transaction(
        id=f"{ts}", symbol="NEWUSDT", type="TRADE", category="linear", currency="USDT", order_link_id=link,
        transaction_time=ts, change=Decimal(-4), size=None if size is None else Decimal(size),
    )  # fmt: skip


def test_an_entry_that_was_filled_before_it_was_given_up_is_ours_to_its_end(tmp_path: Path) -> None:
    """No list had told of it. What is on record of other entries begins nothing."""
    with Database.open(tmp_path / "bot.sqlite") as database:
        journal, ids = begun(database, START)
        lost, booked = entry(ids, START + 1), entry(ids, START + 60_000)
        journal.write(lost)
        journal.write(OrderRejected(START + 7_000, START + 7_000, lost.order.link_id, "never received"))
        journal.write(booked)
        for side, link, ts in (("Buy", booked.order.link_id, 60_100), ("Sell", "", 61_000)):
            made = fill(Side(side), "20", "10", symbol="NEWUSDT", ts=START + ts)
            journal.write(replace(made, link_id=link))
        journal.finish({})
        owners = ownership_of(Settings(), database, earlier_runs(database, "testnet", "1"), START + HOUR_MS)
        stopped = of_the_ledger(START + 40_000, "", 0)
        lines = [
            of_the_ledger(START + 20, lost.order.link_id, 20), stopped,
            of_the_ledger(START + 60_100, booked.order.link_id, 20), of_the_ledger(START + 61_005),
        ]  # fmt: skip
        assert not owners.books(stopped)
        assert owners.recall(lines) == [stopped]
        assert all(map(owners.books, lines))
        assert owners.claims == []
        assert not owners.books(of_the_ledger(START + 56_000))  # a person


def test_a_stop_is_ours_after_any_number_of_restarts_also_where_no_run_saw_the_entry_filled(
    tmp_path: Path,
) -> None:
    with Database.open(tmp_path / "bot.sqlite") as database:

        def owners(ts: int) -> Ownership:
            return ownership_of(Settings(), database, earlier_runs(database, "testnet", "1"), ts)

        journal, ids = begun(database, START)
        sent = entry(ids, START + 1)
        journal.write(sent)
        journal.commit()
        journal.interrupt()  # killed before any answer
        assert owners(START + 1_000).claims == ["NEWUSDT"]
        journal, _ = begun(database, START + 1_000)
        journal.write(
            PositionAdopted(START + 1_001, START + 1_001, "NEWUSDT", Decimal(20), Decimal(10), None, "held")
        )
        stop = fill(Side.SELL, "20", "9.8", symbol="NEWUSDT", ts=START + 2_000)
        journal.write(replace(stop, link_id="", origin=FillOrigin.STOP_LOSS))
        journal.commit()
        journal.interrupt()
        begun(database, START + 9_000)[0].interrupt()
        third = owners(START + 9_000_000)
        assert third.claims == []
        for line in (of_the_ledger(START + 2_000), of_the_ledger(START + 500, sent.order.link_id)):
            assert third.books(line)
        assert third.is_ours("NEWUSDT", "", START + 2_010)  # its profit, as the exchange stamps it
        for ts in (START - 1, START + HOUR_MS):  # a person
            assert not third.books(of_the_ledger(ts))


@pytest.mark.parametrize("booked", [0, 5])
async def test_what_was_given_up_is_recalled_from_when_it_was_sent_on(tmp_path: Path, booked: int) -> None:
    """However long before the day of the start: its stop would pass for somebody else's trade. booked: of 20,
    as far as it was heard of before it was given up."""
    with local_exchange() as exchange, Database.open(tmp_path / "bot.sqlite") as database:
        rest = Rest(local(exchange.url), KEYS)
        await rest.measure_clock()
        account, now = exchange.account, exchange.venue.world.now
        sent = now - 3 * DAY_MS
        journal, ids = begun(database, sent - 1)
        lost = entry(ids, sent)
        journal.write(lost)
        for ts, side, link in ((10, Side.BUY, lost.order.link_id), (50, Side.SELL, "")) if booked else ():
            made = fill(side, str(booked), "10", symbol="NEWUSDT", ts=sent + ts)
            journal.write(replace(made, link_id=link, leaves_qty=Decimal(20 - booked)))
        journal.write(OrderRejected(sent + 7_000, sent + 7_000, lost.order.link_id, "never received"))
        journal.finish({})

        def moved() -> None:
            account.ledger.clear()
            for ts, link, size in ((sent + 60_000, lost.order.link_id, 15), (now - HOUR_MS, "", 0)):
                detail = {
                    "symbol": "NEWUSDT", "category": "linear", "orderLinkId": link, "size": str(size)
                }  # fmt: skip
                account.book(Entry(ts, "TRADE", Decimal(-40), account.wallet - 40, detail=detail))

        exchange.do(moved)
        earlier = earlier_runs(database, "testnet", "1")
        memory = Memory(Risk(), database, earlier, now, ownership_of(Settings(), database, earlier, now))
        opening = Opening(now, Decimal(9_920), {}, ledger=now)
        (told,) = await memory.restore(
            rest, opening, Breaker(Risk(), 9_920), Portfolio(Decimal(9_920)), Orders(), Console(quiet=True)
        )
        rest.close()
        assert isinstance(told, Alarm)
        assert "-80.00 USDT, which is ours" in told.text
