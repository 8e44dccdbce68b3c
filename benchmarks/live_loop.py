"""The loop of a live run under load: latency of its events from arrival to processed, with the journal on.

python -m benchmarks.live_loop [--rate N] [--seconds S] [--tokens T] [--directory D]

Open loop: each event has a time at which it arrives, whatever the loop is doing then, and its latency counts
from that time until it is processed: heard by broker and engine, its commands committed (synced to the disk,
as with real money) and handed over. Runner, engine, risk, simulated broker and the SQLite journal are those
of a run. Decision bars have 15 minutes, and `--tokens` of the symbols trade at each of them; the market's
time runs some 130 times faster than an exchange's. Beside it, in turn: the same arrivals in a loop that only
takes them, which is what the machine and asyncio leave of any latency.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bot.care import NoAdaptation
from bot.core.events import BarClosed, Event, InstrumentListed, LiquiditySampled, MicrostructureSampled
from bot.core.types import MINUTE_MS, Instrument
from bot.engine.engine import Engine
from bot.engine.live import follow
from bot.engine.portfolio import Portfolio
from bot.engine.runner import Runner
from bot.exchange.simulated.broker import SimulatedBroker
from bot.execution.orders import Orders
from bot.settings import Costs, Execution, Gate, Risk
from bot.storage.database import Database
from bot.storage.journal import Journal
from risk.breaker import Breaker
from risk.manager import RiskManager
from strategies.exercise import Exercise

START = 1_767_225_600_000
DECISION = 15 * MINUTE_MS
SYMBOLS = 300
GOAL_MS = 5.0
BALANCE = 1_000_000


class Latencies(NamedTuple):
    """Milliseconds."""

    p50: float
    p99: float
    most: float

    def __str__(self) -> str:
        return f"p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms, max {self.most:.1f} ms"


def market(seed: int = 7) -> Iterator[Event]:
    """Minute bars of many symbols, each with what its book and trades were like meanwhile. For ever."""
    rng = np.random.default_rng(seed)
    prices = np.full(SYMBOLS, 100.0)
    start = START
    while True:
        end = start + MINUTE_MS
        opened, prices = prices, prices * np.exp(rng.standard_normal(SYMBOLS) * 1e-4)
        for number in range(SYMBOLS):
            name, o, c = symbol(number), float(opened[number]), float(prices[number])
            yield MicrostructureSampled(end, end, name, start, 1.0, 0.1, 0.1, 0.1, 0.0, 5.0, 0.1, 0.2)
            yield LiquiditySampled(
                end, end, name, start, 1.0, 1e6, 1e6, c, 1e9, c, c, c, 1e6, 0.0001, end + 60 * MINUTE_MS
            )
            yield BarClosed(end, end, name, start, MINUTE_MS, o, max(o, c), min(o, c), c, 1e5, 1e5 * c)
        start = end


def symbol(number: int) -> str:
    return f"S{number}USDT"


class Arrivals:
    """Puts events into an inbox at their times; `done` takes them out of the books one by one."""

    def __init__(self, rate: float, seconds: float) -> None:
        self.inbox: asyncio.Queue[Event] = asyncio.Queue()
        self.stop = asyncio.Event()
        self._gap = 1 / rate
        self._count = int(rate * seconds)
        self._due: deque[float] = deque()
        self._late: list[float] = []

    async def run(self) -> None:
        events, began = market(), time.perf_counter()
        for number in range(self._count):
            due = began + number * self._gap
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self._due.append(due)
            self.inbox.put_nowait(next(events))
            if number % 64 == 0:
                await asyncio.sleep(0)  # behind, it must not keep the loop from the inbox
        await self.stop.wait()

    def done(self) -> None:
        self._late.append(time.perf_counter() - self._due.popleft())
        if len(self._late) == self._count:
            self.stop.set()

    @property
    def latencies(self) -> Latencies:
        late = np.array(self._late) * 1e3
        return Latencies(float(np.percentile(late, 50)), float(np.percentile(late, 99)), float(late.max()))


class Measured(Runner):
    """Notes when a moment of the market has been dealt with."""

    done: Callable[[], None]

    def advance(self, events: Sequence[Event]) -> None:
        super().advance(events)
        if isinstance(events[0], BarClosed | MicrostructureSampled | LiquiditySampled):
            self.done()


def runner_of(journal: Journal, tokens: int) -> Measured:
    risk = Risk(
        max_positions=tokens, entries_per_second=10_000, entries_per_day=10_000_000, cooldown_minutes=0,
        max_exposure=10.0, max_net_exposure=10.0, max_cluster_exposure=10.0, max_leverage=100.0,
        position_share=0.001, daily_drawdown=0.9, rolling_drawdown=0.9, peak_drawdown=0.9,
        token_daily_loss=0.9,
    )  # fmt: skip
    costs, breaker = Costs(), Breaker(risk, BALANCE)
    traded = {symbol(number) for number in range(tokens)}
    sources = [symbol(number) for number in range(SYMBOLS) if symbol(number) not in traded]
    engine = Engine(
        Exercise(sources), RiskManager(risk, Gate(), costs, breaker), breaker, Portfolio(Decimal(BALANCE)),
        Orders(), risk, DECISION, Execution(),
    )  # fmt: skip
    broker = SimulatedBroker(costs, lambda name, start: costs.half_spread, Decimal(BALANCE))
    runner = Measured(engine, broker, NoAdaptation(), journal, 0)
    runner.advance([InstrumentListed(START, START, contract(number)) for number in range(SYMBOLS)])
    return runner


def contract(number: int) -> Instrument:
    return Instrument(
        symbol=symbol(number), tick_size=Decimal("0.0001"), qty_step=Decimal("0.01"), min_qty=Decimal("0.01"),
        max_qty=Decimal(10**6), max_market_qty=Decimal(10**6), min_notional=Decimal(5), launch_time=START,
    )  # fmt: skip


async def through_the_bot(journal: Journal, rate: float, seconds: float, tokens: int) -> Latencies:
    arrivals, runner = Arrivals(rate, seconds), runner_of(journal, tokens)
    runner.done = arrivals.done
    now = [START]

    def tick() -> None:
        now[0] += 1

    following = follow(runner, arrivals.inbox, arrivals.stop, journal.commit, tick, lambda: now[0])
    await asyncio.gather(arrivals.run(), following)
    return arrivals.latencies


async def through_nothing(rate: float, seconds: float) -> Latencies:
    arrivals = Arrivals(rate, seconds)

    async def take() -> None:
        while True:
            await arrivals.inbox.get()
            arrivals.done()

    taking = asyncio.create_task(take())
    await arrivals.run()
    taking.cancel()
    return arrivals.latencies


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=2_000.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--tokens", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="where the journal is written; its disk counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        for number in range(options.rounds):
            nothing = asyncio.run(through_nothing(options.rate, options.seconds))
            with Database.open(Path(directory) / f"{number}.sqlite") as database:
                journal = Journal.start(
                    database, kind="live", title="", simulated=False, config_json="{}", seed=0,
                    started=START, start_ts=START, end_ts=START, durable=True,
                )  # fmt: skip
                cpu = time.process_time()
                bot = asyncio.run(through_the_bot(journal, options.rate, options.seconds, options.tokens))
                cpu = (time.process_time() - cpu) / options.seconds
                journal.finish({})
                commands = len(database.frame(journal.run_id, "commands"))
            print(
                f"{options.rate:,.0f} events/s, {commands} commands in {options.seconds:g} s: {bot} "
                f"({'within' if bot.p99 <= GOAL_MS else 'beyond'} {GOAL_MS:g}), {cpu:.0%} of a core"
            )
            print(f"  an empty loop beside it: {nothing}; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
