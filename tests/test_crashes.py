"""kill -9 at every point of an order's life: nothing lost, nothing doubled, no position without its stop.

One exchange outlives many bots. Each bot is killed at its point; the next one must find the account as it is,
from the exchange and the database that the dead one left.
"""

import multiprocessing
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bot.core.types import DAY_MS
from bot.exchange.local import assets
from bot.exchange.local.assets import Asset
from bot.execution.orders import run_tag
from bot.storage.database import Database
from tests.crash_child import POINTS, Books, Death, Life, live
from tests.local_exchange import LocalExchange, local_exchange
from tests.naked import NakedWatch

PRICES = {"AAAUSDT": 100.0, "BBBUSDT": 50.0, "CCCUSDT": 200.0}
THEIRS = "DDDUSDT"  # where a person trades by hand, and the bot would like to
NAKED_SECONDS = 1.0  # T: so long may a position be without a stop
SETTLED_SECONDS = 5.0  # after a start, until the dead bot's last request is done or void (recv_window: 2 s)
PATIENCE = 60.0
CHILD = multiprocessing.get_context("forkserver")
CHILD.set_forkserver_preload(["tests.crash_child"])  # a birth costs a fork, not seconds of imports


def symbols(now: int) -> list[Asset]:
    launch = now - 30 * DAY_MS
    return [
        assets.plain(name, price, launch, turnover=8e8, volume=1.0 / price)
        for name, price in {**PRICES, THEIRS: 10.0}.items()
    ]


class Person:
    """Buys one more at each occasion, with a stop of their own."""

    def __init__(self, exchange: LocalExchange) -> None:
        self.exchange = exchange
        self.bought = 0

    def buy(self) -> None:
        body = {
            "category": "linear", "symbol": THEIRS, "side": "Buy", "qty": "1", "orderType": "Market",
            "stopLoss": "5",
        }  # fmt: skip
        venue, account = self.exchange.venue, self.exchange.account
        self.exchange.do(lambda: venue.world.engine.create(account, body, venue.world.now))
        self.bought += 1

    def meddling(self) -> list[str]:
        """What anybody else did to their position."""
        account = self.exchange.account
        found = self.exchange.do(
            lambda: [
                (item.qty, item.contract.price(item.stop_loss.trigger_price) if item.stop_loss else None)
                for item in account.held()
                if item.contract.symbol == THEIRS
            ]
        )
        ours = [
            order.link_id for order in account.orders.values() if order.symbol == THEIRS and order.link_id
        ]
        return [*ours, *([] if found == [(self.bought, 5)] else [f"{self.bought} bought: {found}"])]


class Witness:
    """What the exchange sees: what is held, for how long without a stop, and every execution."""

    def __init__(self, exchange: LocalExchange) -> None:
        self.exchange = exchange
        self.naked = exchange.do(lambda: NakedWatch(exchange.venue, exchange.account))

    def books(self) -> Books:
        def look() -> Books:
            held = {
                item.contract.symbol: (
                    item.qty,
                    None if item.stop_loss is None else item.contract.price(item.stop_loss.trigger_price),
                )
                for item in self.exchange.account.held()
                if item.contract.symbol in PRICES
            }
            return held, self.exchange.account.wallet

        return self.exchange.do(look)

    def orders(self) -> list[Any]:
        return self.exchange.do(lambda: list(self.exchange.account.orders.values()))

    def resting(self) -> list[str]:
        """Entries of ours that are open."""
        return [
            order.link_id
            for order in self.orders()
            if order.is_open and run_tag(order.link_id) and not order.reduce_only
        ]

    def doubled(self) -> list[str]:
        """Symbols that ever held more than one entry's quantity, by the executions in their order."""
        executions = self.exchange.do(lambda: list(self.exchange.account.executions))
        largest: dict[str, Decimal] = {}
        for order in self.orders():
            if run_tag(order.link_id) and not order.reduce_only:
                qty = order.contract.quantity(order.qty)
                largest[order.symbol] = max(largest.get(order.symbol, Decimal(0)), qty)
        held: Counter[str] = Counter()
        found = []
        for execution in executions:
            if execution["symbol"] == THEIRS:
                continue
            sign = 1 if execution["side"] == "Buy" else -1
            held[execution["symbol"]] += sign * Decimal(execution["execQty"])  # type: ignore[assignment]
            if abs(held[execution["symbol"]]) > largest.get(execution["symbol"], Decimal(0)):
                found.append(execution["symbol"])
        return found


def born(life: Life) -> tuple[Any, Any]:
    ours, theirs = CHILD.Pipe()
    process = CHILD.Process(target=live, args=(life, theirs))
    process.start()
    theirs.close()
    return process, ours


def said(pipe: Any) -> Any:
    """What a bot reports; None when it died before."""
    try:
        return pipe.recv() if pipe.poll(PATIENCE) else pytest.fail("a bot neither spoke nor died")
    except (EOFError, ConnectionResetError):  # it died with a word unread
        return None


def tell(pipe: Any, word: str) -> None:
    """A bot that died meanwhile does not hear it."""
    with suppress(BrokenPipeError):
        pipe.send(word)


def equal(ours: Books, theirs: Books) -> bool:
    return ours[0] == theirs[0] and abs(ours[1] - theirs[1]) < Decimal("0.01")


def campaign(deaths: Sequence[Death], directory: Path, *, beside: bool = False) -> dict[str, Any]:
    """One bot after the other, each to its death; the last one lives, trades, and compares everything.

    beside: a person who trades by hand is left alone
    """
    path = str(directory / "bot.sqlite")
    fates: Counter[str] = Counter()
    differing: list[str] = []
    with local_exchange(symbols, manual=False, balance=100_000) as exchange:
        witness, person = Witness(exchange), Person(exchange)
        prices = {**PRICES, THEIRS: 10.0} if beside else PRICES
        market = [
            (exchange.venue.world.listed[name].contract.instrument, price) for name, price in prices.items()
        ]
        if beside:
            person.buy()
        for death in [*deaths, Death()]:
            seconds = 8.0 if death.point else 1.5
            life = Life(exchange.url, path, market, death, seconds, leave=beside)
            process, pipe = born(life)
            end = 0.0
            while (found := said(pipe)) is not None:
                end = end or time.monotonic() + SETTLED_SECONDS
                orphans, theirs = witness.resting(), witness.books()
                if equal(found, theirs) and not orphans:
                    fates["traded"] += 1
                    break
                fates["looked again"] += 1
                if time.monotonic() > end:
                    differing.append(f"before {death}: {found} but {theirs}, open: {orphans}")
                    break
                tell(pipe, "again")
            if found is not None:
                tell(pipe, "go")
                if beside:
                    person.buy()
            ending = said(pipe)
            process.join(PATIENCE)
            fates["killed" if process.exitcode == -signal.SIGKILL else f"ended {process.exitcode}"] += 1
            if ending is not None:
                books, lines = ending
                if not equal(books, witness.books()) or lines:
                    differing.append(f"{death}: {books} but {witness.books()}; {lines}")
        sent = {order.link_id for order in witness.orders() if run_tag(order.link_id)}
        with Database.open(path) as database:
            written = {
                link
                for run in database.runs()
                for link in database.frame(run.id, "orders", ["link_id"])["link_id"]
            }
        return {
            "fates": dict(fates), "differing": differing, "orders": len(sent), "unwritten": sent - written,
            "doubled": witness.doubled(), "naked": witness.naked.longest, "held": witness.books()[0],
            "meddling": person.meddling() if beside else [],
        }  # fmt: skip


def deaths(count: int, seed: int) -> list[Death]:
    """Every point in turn, at one of the first times that a life comes to it."""
    rng = random.Random(seed)
    points = (POINTS[number % len(POINTS)] for number in range(count))
    return [Death(point, 1 if point.startswith("opening") else rng.randint(1, 4)) for point in points]


def survived(result: dict[str, Any], count: int) -> None:
    assert result["differing"] == [], result
    assert result["unwritten"] == set(), result
    assert result["doubled"] == [], result
    assert result["meddling"] == [], result
    assert result["naked"] < NAKED_SECONDS, result
    assert result["fates"]["killed"] >= 0.9 * count, result  # a point may not come up in a life
    assert result["orders"] > count, result


@pytest.mark.slow
def test_forty_deaths_are_survived(tmp_path: Path) -> None:
    survived(campaign(deaths(40, 1), tmp_path), 40)


@pytest.mark.slow
def test_deaths_beside_a_person_who_trades_are_survived_and_the_person_is_left_alone(tmp_path: Path) -> None:
    survived(campaign(deaths(len(POINTS), 12), tmp_path, beside=True), len(POINTS))


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(2, 12))
def test_fifty_more_deaths_are_survived(tmp_path: Path, seed: int) -> None:
    survived(campaign(deaths(50, seed), tmp_path), 50)
