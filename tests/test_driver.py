"""The loop of a run: moment after moment, until the market ends or somebody asks to stop."""

import asyncio
import os
import signal

import pytest

from bot.core.events import BarClosed, Event
from bot.engine.driver import at_speed, drive, stopped_by_signals
from bot.engine.live import follow
from tests.builders import BAR, START, bar


class Played:
    """A runner that writes down what it is given; each moment it waits `lateness` times for a candidate."""

    def __init__(self, lateness: int = 0) -> None:
        self.moments: list[list[Event]] = []
        self.finished = False
        self._lateness = self._left = lateness

    def is_waiting(self, ts: int) -> bool:
        self._left -= 1
        if self._left >= 0:
            return True
        self._left = self._lateness
        return False

    def advance(self, events: list[Event]) -> None:
        self.moments.append(events)

    def finish(self) -> None:
        self.finished = True


def run(runner: Played, count: int = 70, stop_at: int | None = None, **options: object) -> bool:
    """Two symbols, `count` moments. stop_at: the moment in which somebody asks to stop."""

    async def session() -> bool:
        stop = asyncio.Event()

        def events():
            for index in range(count):
                if index == stop_at:
                    stop.set()
                yield bar(index, 100, "AAA")
                yield bar(index, 100, "BBB")

        return await drive(runner, events(), stop, lambda: None, lambda ts: None, **options)  # type: ignore[arg-type]

    return asyncio.run(session())


def test_events_of_equal_time_are_one_moment_and_the_end_is_told():
    runner = Played()
    assert run(runner)
    assert [[event.ts for event in moment] for moment in runner.moments] == [
        [START + (i + 1) * BAR] * 2 for i in range(70)
    ]
    assert runner.finished


def test_nothing_is_played_after_a_stop():
    runner = Played()
    assert not run(runner, stop_at=40)
    assert len(runner.moments) <= 40
    assert not runner.finished


def test_a_candidate_that_is_due_is_waited_for():
    runner = Played(lateness=3)
    assert run(runner, count=5)
    assert len(runner.moments) == 5


def test_a_stop_ends_the_wait_for_a_candidate():
    runner = Played(lateness=10**9)
    assert not run(runner, stop_at=0)
    assert runner.moments == []


def test_live_nobody_waits_for_a_candidate_that_is_late():
    runner, stop = Played(lateness=10**9), asyncio.Event()
    inbox: asyncio.Queue[Event] = asyncio.Queue()
    for index in range(5):
        inbox.put_nowait(bar(index, 100, "AAA"))

    def look() -> None:
        if len(runner.moments) >= 5:
            stop.set()

    asyncio.run(follow(runner, inbox, stop, lambda: None, look, lambda: START))  # type: ignore[arg-type]
    assert [event.symbol for (event,) in runner.moments[:5] if isinstance(event, BarClosed)] == ["AAA"] * 5


def test_a_stop_ends_the_wait_for_the_clock():
    async def session() -> bool:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, stop.set)
        return await drive(
            Played(),
            [bar(0, 100)],
            stop,
            lambda: None,
            lambda ts: None,
            lambda ts: 3600.0,  # type: ignore[arg-type]
        )

    assert asyncio.run(asyncio.wait_for(session(), 20)) is False


def test_signals_ask_to_stop_and_mean_what_they_meant_afterwards():
    async def session() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            stop = asyncio.Event()
            with stopped_by_signals(stop):
                os.kill(os.getpid(), number)
                await asyncio.wait_for(stop.wait(), 20)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    asyncio.run(session())
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_replay_is_not_paced_and_what_is_new_is_paced_from_its_first_moment() -> None:
    now, replaying = 100.0, True
    pace = at_speed(900.0, lambda: replaying, lambda: now)
    assert pace(0) == pace(86_400_000) == 0.0
    now, replaying = 250.0, False
    assert pace(172_800_000) == 0.0
    now = 250.4
    assert pace(172_800_000 + 900_000) == pytest.approx(0.6)
    assert pace(172_800_000 + 90_000) < 0.0  # late: no waiting


def test_without_a_speed_there_is_no_pace() -> None:
    assert at_speed(0.0, lambda: False)(10**12) == 0.0
