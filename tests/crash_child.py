"""A bot that dies at a given point of an order's life: real client, journal and engine, in its own process.

Its entries rest in the book, are amended as the price moves, and cross to the market when their time is over;
stops follow the price. The points are put around the real parts from outside; the parts themselves know
nothing of them.
"""

import asyncio
import http.client
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import wraps
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from bot.core.commands import AmendOrder, CancelOrder, MoveStop, PlaceOrder
from bot.core.events import BarClosed, Event, InstrumentListed, OperatorCommanded, OrderFilled
from bot.core.signal import Action
from bot.core.types import Instrument, Position, Verb
from bot.engine.engine import Engine
from bot.engine.live import follow
from bot.engine.portfolio import Portfolio
from bot.engine.runner import Runner
from bot.exchange.bybit.audit import Line, RunLog, audit
from bot.exchange.bybit.broker import BrokerSettings, BybitBroker
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.bybit.order_desk import DeskSettings, OrderDesk
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.reconciliation import Reconciler
from bot.exchange.bybit.rest import Rest, lane
from bot.exchange.bybit.streams import Backoff, ConnectionBudget, StreamSettings
from bot.execution.orders import SALTS, Orders, tag_of
from bot.live.account import ownership_of
from bot.settings import Bybit, Costs, Execution, Gate, Risk, Settings
from bot.storage.database import Database
from bot.storage.journal import Journal
from risk.breaker import Breaker
from risk.manager import RiskManager
from strategies.base import Advice
from tests.builders import enter
from tests.test_engine import NoModels, Scripted

BAR = 50  # ms
HOLD = 6  # bars
RISK = Risk(
    position_share=0.02, max_exposure=1.0, daily_drawdown=0.9, rolling_drawdown=0.9, peak_drawdown=0.9,
    token_daily_loss=0.9, turnover_share=1.0, interest_share=1.0, cooldown_minutes=0, trailing_stops=1.0,
    entries_per_second=1_000, entries_per_day=1_000_000,
)  # fmt: skip
EXECUTION = Execution(style="post_only").model_copy(update={"requote_seconds": 0.1, "deadline_seconds": 0.4})
NEWS = (1.0, 1.00012, 1.0002, 1.00012, 1.0004)  # x the price that stands still; a quote takes at the last
KEY = Credentials("local", "local-secret")
BROKER = BrokerSettings(
    desk=DeskSettings(
        entry_valid=3.0, exit_valid=5.0, confirm=0.3, margin=0.5, shortest_wait=0.05,
        longest_wait=0.5,
    ),
    reconcile=1.0,
    look=0.2,
    patience=30.0,
)  # fmt: skip
STREAMS = StreamSettings(open_s=2.0, answer_s=2.0, close_s=0.05, look_s=0.05, renew_pause_s=0.1)
PATHS = {
    "/v5/order/create": "create", "/v5/order/create-batch": "create",
    "/v5/order/amend": "amend", "/v5/order/amend-batch": "amend",
    "/v5/order/cancel": "cancel", "/v5/order/cancel-batch": "cancel",
    "/v5/position/trading-stop": "stop",
}  # fmt: skip
WRITTEN = {
    PlaceOrder: "order", AmendOrder: "amendment", CancelOrder: "cancel", MoveStop: "stop",
    OrderFilled: "fill",
}  # fmt: skip
POINTS = (
    *(f"commit of {what}: {when}" for what in WRITTEN.values() for when in ("before", "after")),
    *(f"request {name}: {when}" for name in dict.fromkeys(PATHS.values())
      for when in ("before", "sent", "answered")),
    *(f"message of {what}: {when}" for what in ("order", "execution", "position")
      for when in ("before", "after")),
    "write of fill: before", "write of fill: after", "opening: before", "opening: after",
    "reconciliation: before", "reconciliation: after",
)  # fmt: skip


class Death(NamedTuple):
    """At the `nth` time that `point` is reached; never for ""."""

    point: str = ""
    nth: int = 1


class Life(NamedTuple):
    """What a bot is born with."""

    url: str
    database: str
    market: Sequence[tuple[Instrument, float]]  # and its price, which stands still
    death: Death
    seconds: float = 20.0  # of trading, where no death comes
    leave: bool = False  # positions of others


class _Reaper:
    def __init__(self, death: Death) -> None:
        self._death = death
        self._left = death.nth
        self._lock = threading.Lock()

    def at(self, point: str) -> None:
        if point == self._death.point:
            with self._lock:
                self._left -= 1
                if not self._left:
                    os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str, point: str) -> None:
        """Two points: before and after a method, a coroutine or not."""
        real = getattr(owner, name)
        if asyncio.iscoroutinefunction(real):

            @wraps(real)
            async def watched_later(*arguments: Any, **more: Any) -> Any:
                self.at(f"{point}: before")
                result = await real(*arguments, **more)
                self.at(f"{point}: after")
                return result

            setattr(owner, name, watched_later)
            return

        @wraps(real)
        def watched(*arguments: Any, **more: Any) -> Any:
            self.at(f"{point}: before")
            result = real(*arguments, **more)
            self.at(f"{point}: after")
            return result

        setattr(owner, name, watched)


def _arm(reaper: _Reaper) -> None:
    for method, what in (
        ("take_order", "order"),
        ("take_execution", "execution"),
        ("take_position", "position"),
    ):
        reaper.around(OrderDesk, method, f"message of {what}")
    reaper.around(Reconciler, "open", "opening")
    reaper.around(Reconciler, "reconcile", "reconciliation")
    _arm_journal(reaper)
    _arm_requests(reaper)


def _arm_journal(reaper: _Reaper) -> None:
    write, commit = Journal.write, Journal.commit
    waiting: set[str] = set()

    def watched_write(journal: Journal, message: Any) -> None:
        if (kind := WRITTEN.get(type(message))) is not None:
            waiting.add(kind)
        is_fill = isinstance(message, OrderFilled)
        if is_fill:
            reaper.at("write of fill: before")
        write(journal, message)
        if is_fill:
            reaper.at("write of fill: after")

    def watched_commit(journal: Journal) -> None:
        kinds = sorted(waiting)
        waiting.clear()
        for kind in kinds:
            reaper.at(f"commit of {kind}: before")
        commit(journal)
        for kind in kinds:
            reaper.at(f"commit of {kind}: after")

    Journal.write, Journal.commit = watched_write, watched_commit  # type: ignore[method-assign]


def _arm_requests(reaper: _Reaper) -> None:
    """`sent`: every byte of the request has left, none of the answer has been read."""
    send, read = lane._send, http.client.HTTPConnection.getresponse
    current = threading.local()

    def watched_send(endpoint: Any, params: dict[str, Any]) -> Any:
        name = current.name = PATHS.get(endpoint.path, "")
        reaper.at(f"request {name}: before")
        outcome = send(endpoint, params)
        reaper.at(f"request {name}: answered")
        return outcome

    def watched_read(connection: Any, *arguments: Any, **more: Any) -> Any:
        reaper.at(f"request {getattr(current, 'name', '')}: sent")
        return read(connection, *arguments, **more)

    lane._send = watched_send
    http.client.HTTPConnection.getresponse = watched_read  # type: ignore[method-assign]


# --- the bot ------------------------------------------------------------------------------------------------


def live(life: Life, report: Connection) -> None:
    """The process. Reports its books before it trades, waits for a word, and reports again at its end."""
    _arm(_Reaper(life.death))
    with Database.open(life.database) as database:
        asyncio.run(_live(life, database, report))


def _in_and_out(closed: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
    """Enter when flat, leave after some bars: by then the stop has been tightened to the fill."""
    held = positions.get(closed.symbol)
    if held is not None and closed.ts - held.opened < HOLD * BAR:
        return ()
    action = Action.ENTER if held is None else Action.EXIT
    return (enter(action=action, price=closed.close, ts=closed.ts, symbol=closed.symbol, sigma=0.02),)


async def _live(life: Life, database: Database, report: Connection) -> None:
    rest = Rest(local(life.url), KEY, timeout=2.0, recv_window_ms=2_000)
    await rest.measure_clock()
    inbox: asyncio.Queue[Event] = asyncio.Queue()
    now = rest.clock.now_ms()
    for listed, _ in life.market:  # known before the account is
        inbox.put_nowait(InstrumentListed(now, now, listed))
    broker = BybitBroker(
        local(life.url), KEY, rest, inbox.put_nowait, BROKER, stream_settings=STREAMS,
        budget=ConnectionBudget(1_000_000), backoff=lambda: Backoff(0.05, 0.5),
        owners=_owners(life, database),
    )  # fmt: skip
    try:
        opening = await broker.start()
        started, salt = rest.clock.now_ms(), random.randrange(SALTS)
        journal = Journal.start(
            database, kind="testnet", title="crash", simulated=True, config_json="{}", seed=salt,
            started=started, start_ts=started, end_ts=started,
        )  # fmt: skip
        breaker, log = Breaker(RISK, float(opening.balance)), RunLog()
        orders = Orders(tag_of(started, salt))
        engine = Engine(
            Scripted(_in_and_out), RiskManager(RISK, Gate(), Costs(), breaker), breaker,
            Portfolio(opening.balance), orders, RISK, BAR, EXECUTION,
        )  # fmt: skip
        runner = Runner(engine, broker, NoModels(), journal, 0, (log.apply,))
        word = ""
        while word != "go":  # else the exchange had not yet carried out what the dead one's last words were
            await broker.reconcile()
            while not inbox.empty():
                runner.advance([inbox.get_nowait()])
            report.send(_books(engine))
            word = await asyncio.to_thread(report.recv)
        await _trade(life, rest, inbox, runner, engine, journal)
        while True:  # the last look's prices may move a stop or end a position: look again without them
            submitted = broker.submitted
            await broker.settled()
            for _ in range(2):
                await broker.reconcile()
            while not inbox.empty():
                runner.advance([inbox.get_nowait()])
            books = engine.portfolio
            lines = await audit(
                rest, broker.owners, log, list(books.positions.values()), books.balance, opening.ts
            )
            if broker.submitted == submitted and not engine.orders.open:
                break
        journal.finish({})
        report.send((_books(engine), [line for line in lines if not line.equal]))
    finally:
        await broker.close()
        rest.close()


async def _trade(
    life: Life, rest: Rest, inbox: "asyncio.Queue[Event]", runner: Runner, engine: Engine, journal: Journal
) -> None:
    """Bars around the price that stands still, until time is over and no order is open any more."""
    over, stop = asyncio.Event(), asyncio.Event()
    clock: Callable[[], int] = rest.clock.now_ms

    async def feed() -> None:
        end = clock() + life.seconds * 1_000
        while clock() < end:
            now = clock() // BAR * BAR
            for listed, still in life.market:
                price = still * NEWS[now // BAR // 3 % len(NEWS)]
                inbox.put_nowait(
                    BarClosed(now, now, listed.symbol, now - BAR, BAR, price, price, price, price, 1.0, price)
                )
            await asyncio.sleep(BAR / 1_000)
        inbox.put_nowait(OperatorCommanded(clock(), clock(), 1, Verb.PAUSE, "the test", ""))
        over.set()

    def look() -> None:
        if over.is_set() and inbox.empty() and not engine.orders.open:
            stop.set()

    feeding = asyncio.create_task(feed())
    await follow(runner, inbox, stop, journal.commit, look, clock)
    feeding.cancel()
    with suppress(asyncio.CancelledError):
        await feeding


def _owners(life: Life, database: Database) -> Ownership:
    """As a start of the bot makes it."""
    settings = Settings(bybit=Bybit(foreign_positions="leave" if life.leave else "adopt"))
    return ownership_of(settings, database, database.runs(), int(time.time() * 1_000))


Books = tuple[dict[str, tuple[Decimal, Decimal | None]], Decimal]


def _books(engine: Engine) -> Books:
    """Quantity and stop by symbol, and the balance."""
    held = engine.portfolio.positions
    return {name: (item.qty, item.stop) for name, item in held.items()}, engine.portfolio.balance


Ending = tuple[Books, list[Line]]
