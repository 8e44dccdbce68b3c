"""Order-book streams over loopback: messages per second against pybit, latency with TLS, memory.

python -m benchmarks.streams [--frames N] [--rounds R] [--seconds S] [--messages M] [--realtime]

The feed runs in a process of its own; the client is bound to one core. Ours is the whole way of the bot:
socket, stream, checks, book, features. pybit is measured twice: its whole way (its own socket, JSON, its
book), and its handler alone, offline, without any socket. Both get the same frames in turn within each round;
CPU time of the process, and the wall clock, from the first frame to the last. The latency runs from before
the feed's write to the applied book, at random (Poisson) arrivals.
"""

import argparse
import asyncio
import importlib
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.book import DEPTH, pybit
from benchmarks.feed import Frames, Plan, age_us, feeding, symbols, topics
from bot.core.types import MINUTE_MS
from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.streams import BookLost, Disconnected, RawBook, Stream, StreamSettings
from bot.market.book import Outcome
from bot.market.state import MarketState

BOOKS, PER_BOOK = 10, 600
WIDE, WIDE_PER_BOOK, WIDE_RATE = 600, 20, 20.0  # symbols; frames in the pool and per second, of each
GOAL, GOAL_MS = 5.0, 5.0
QUIET = StreamSettings(ping_s=600.0, read_deadline_s=600.0)  # the feed answers nothing while it sends
USED = (Outcome.APPLIED, Outcome.REPLACED)


class Spent(NamedTuple):
    """Seconds from the first frame to the last."""

    cpu: float
    wall: float


class Clock:
    """Starts at the first frame, so that connecting costs nothing."""

    def start(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self) -> Spent:
        return Spent(time.process_time() - self._cpu, time.perf_counter() - self._wall)


class Ingest:
    """The bot's own way of order books: a stream, and the market state that its frames go to."""

    def __init__(self, url: str, books: int) -> None:
        self.stream = Stream(url, topics(books), clock=ExchangeClock(), settings=QUIET, raw_books=True)
        self._market = MarketState(15 * MINUTE_MS, DEPTH)
        for symbol in symbols(books):
            self._market.add(symbol)
        self.used = 0
        self.behind = 0  # frames between socket and consumer, at the worst moment

    async def run(self, count: int, after: Callable[[bytes], object] | None = None) -> Spent:
        """Take so many frames. Exits when a book or the connection is lost: that is no result."""
        clock = Clock()
        running = asyncio.create_task(self.stream.run())
        try:
            while self.used < count:
                self._take(await self.stream.take(), clock, after)
            return clock.read()
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    def _take(self, taken: list[Any], clock: Clock, after: Callable[[bytes], object] | None) -> None:
        self.behind = max(self.behind, len(taken) + self.stream.inbox.waiting)
        for received, message in taken:
            if isinstance(message, RawBook):
                if not self.used:
                    clock.start()
                outcome = self._market.on_book(message.topic, message.payload, received)
                if outcome not in USED:
                    sys.exit(f"{message.topic}: a frame was {outcome.name.lower()}")
                self.used += 1
                if after is not None:
                    after(message.payload)
            elif isinstance(message, BookLost | Disconnected):
                sys.exit(f"after {self.used:,} frames: {message}")


def pybit_stream(port: int, count: int) -> Spent:
    """pybit unmodified apart from the URL; the callback only counts."""
    client = importlib.import_module("pybit.unified_trading").WebSocket
    clock, done, seen = Clock(), threading.Event(), 0

    class Redirected(client):  # type: ignore[misc, valid-type]
        def _connect(self, url: str) -> None:
            super()._connect(f"ws://127.0.0.1:{port}" + url[url.index("/v5/") :])

    def on_book(_: object) -> None:
        nonlocal seen
        if not seen:
            clock.start()
        seen += 1
        if seen == count:
            done.set()

    socket = Redirected(testnet=False, channel_type="linear")
    socket.orderbook_stream(DEPTH, symbols(BOOKS), on_book)
    if not done.wait(120):
        sys.exit(f"pybit took {seen:,} of {count:,} frames within two minutes")
    spent = clock.read()
    socket.exit()
    return spent


def pybit_handler(frames: list[bytes]) -> Spent:
    run, clock = pybit(frames), Clock()
    clock.start()
    run()
    return clock.read()


def saturated(port: int, plans: Connection, frames: int, rounds: int) -> None:
    """Ours against pybit, in turn. pybit gets a fifth of the frames: it is slow enough for that."""
    few = frames // 5
    made = Frames(BOOKS, PER_BOOK)
    offline = [made.payload(k) for k in range(few)]
    ours, theirs, handler = "ours, socket to features", "pybit, socket to book", "pybit's handler alone"
    spent: dict[str, list[Spent]] = {ours: [], theirs: [], handler: []}
    for round_ in range(rounds + 1):
        plans.send(Plan(frames))
        first = asyncio.run(Ingest(f"ws://127.0.0.1:{port}", BOOKS).run(frames))
        plans.send(Plan(few))
        second, third = pybit_stream(port, few), pybit_handler(offline)
        if round_:  # the first one warms up
            for name, took, count in ((ours, first, frames), (theirs, second, few), (handler, third, few)):
                spent[name].append(Spent(took.cpu / count * 1e6, took.wall / count * 1e6))
    print(f"orderbook.{DEPTH} at saturation, {BOOKS} books; medians of {rounds} rounds")
    for name, rows in spent.items():
        cpu, wall = (statistics.median(column) for column in zip(*rows, strict=True))
        ratios = [row.cpu / own.cpu for row, own in zip(rows, spent[ours], strict=True)]
        told = f"x{statistics.median(ratios):.1f} of ours (rounds {min(ratios):.1f} to {max(ratios):.1f})"
        print(f"  {name:26s}{cpu:8.1f} us of CPU  {1e6 / cpu:8,.0f}/s a core  {1e6 / wall:8,.0f}/s  {told}")
    print(f"  goal: pybit at least x{GOAL:g} of ours")


def latency(seconds: float, cpu: int | None) -> None:
    """600 symbols with TLS at their rate on one core."""
    rate = WIDE * WIDE_RATE
    count = WIDE + int(rate * seconds)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with feeding(WIDE, WIDE_PER_BOOK, tls=Path(folder), cpu=cpu) as (port, plans):
                os.environ |= {"SSL_CERT_FILE": f"{folder}/certificate.pem", "NO_PROXY": "127.0.0.1"}
                plans.send(Plan(count, rate))
                ingest, ages = Ingest(f"wss://127.0.0.1:{port}", WIDE), np.zeros(count, np.int64)
                spent = asyncio.run(ingest.run(count, lambda frame: ages.put(ingest.used - 1, age_us(frame))))
        except EOFError:
            print("latency with TLS: left out (no certificate: is openssl installed?)")
            return
    p50, p99, p999 = np.percentile(ages[WIDE:], (50, 99, 99.9)) / 1e3
    came, known = ingest.stream.counts()
    print(
        f"{WIDE} symbols at {WIDE_RATE:g}/s each for {seconds:g} s with TLS on one core: p50 {p50:.2f} ms, "
        f"p99 {p99:.2f} ms, p99.9 {p999:.2f} ms (goal p99 {GOAL_MS:g} ms on an idle machine)\n"
        f"  sent {count:,}, used {ingest.used:,}, frames in {came:,} = accounted for {known:,}; at worst "
        f"{ingest.behind:,} behind; {spent.cpu / spent.wall:.0%} of the core; load average of the machine "
        f"{os.getloadavg()[0]:.1f}"
    )
    if came != known or ingest.used != count:
        sys.exit("frames were lost without a word")


def memory(port: int, plans: Connection, messages: int) -> None:
    """Resident memory after the first tenth, at the middle and at the end."""
    told: list[int] = []
    at = {messages // 10, messages // 2, messages}
    plans.send(Plan(messages))
    ingest = Ingest(f"ws://127.0.0.1:{port}", BOOKS)
    spent = asyncio.run(
        ingest.run(messages, lambda _: told.append(resident()) if ingest.used in at else None)
    )
    began, middle, end = (size / 2**20 for size in told)
    print(
        f"{messages:,} messages: {began:.1f} MiB resident after a tenth, {middle:.1f} at the half, "
        f"{end:.1f} at the end ({end - began:+.2f}); {messages / spent.wall:,.0f}/s"
    )


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument(
        "--realtime", action="store_true",
        help="measure the latency under SCHED_FIFO (needs the right to): what an idle machine would give",
    )  # fmt: skip
    options = parser.parse_args()
    if min(options.frames // 50, options.rounds, options.seconds, options.messages // 100) <= 0:
        parser.error("at least 50 frames, one round, some time and 100 messages")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    other = cores[-1] if len(cores) > 1 else None
    if other is not None:
        os.sched_setaffinity(0, {cores[0]})
    with feeding(BOOKS, PER_BOOK, cpu=other) as (port, plans):
        saturated(port, plans, options.frames, options.rounds)
        memory(port, plans, options.messages)
    if options.realtime:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except (AttributeError, PermissionError):
            sys.exit("--realtime: this user or system may not use SCHED_FIFO; leave it out")
    latency(options.seconds, other)


if __name__ == "__main__":
    main()
