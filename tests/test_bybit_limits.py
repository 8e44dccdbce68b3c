"""Groups wait for themselves: never for each other, never on the loop."""

import asyncio
import time

import pytest

from bot.exchange.bybit.errors import ExchangeError, Kind
from bot.exchange.bybit.limits import Limits

NOW = 1_750_000_000_000


class Time:
    """A monotonic clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


def limits(clock: Time, **rates: int) -> Limits:
    return Limits(rates or {"create": 100, "cancel": 100}, monotonic=clock.monotonic, sleep=clock.sleep)


def headers(remaining: int, reset: int = NOW, limit: int = 10) -> dict[str, object]:
    return {
        "X-Bapi-Limit": str(limit),
        "X-Bapi-Limit-Status": str(remaining),
        "X-Bapi-Limit-Reset-Timestamp": str(reset),
    }


async def test_a_group_without_trouble_does_not_wait() -> None:
    clock = Time()
    await limits(clock).enter("create")
    assert clock.slept == []


async def test_a_group_that_was_too_fast_waits_until_the_reset_and_the_others_do_not() -> None:
    clock = Time()
    shared = limits(clock)
    assert shared.exceeded("create", headers(0, NOW + 2_500), NOW) == 2.5
    await shared.enter("cancel")
    assert clock.slept == []
    await shared.enter("create")
    assert clock.slept == [2.5]


@pytest.mark.parametrize(("reset", "wait"), [(NOW - 60_000, 1.0), (NOW, 1.0), (NOW + 3_600_000, 5.0)])
async def test_a_reset_time_in_the_past_or_far_away_is_not_believed(reset: int, wait: float) -> None:
    assert limits(Time()).exceeded("create", headers(0, reset), NOW) == wait


async def test_a_reset_header_that_is_missing_or_nonsense_means_one_second() -> None:
    shared = limits(Time())
    assert shared.exceeded("create", {}, NOW) == 1.0
    assert shared.exceeded("create", {"X-Bapi-Limit-Reset-Timestamp": "soon"}, NOW) == 1.0


async def test_when_nothing_is_left_the_group_pauses_before_it_is_told_to() -> None:
    clock = Time()
    shared = limits(clock)
    shared.note("create", headers(0, NOW + 700), NOW)
    await shared.enter("create")
    assert clock.slept == [pytest.approx(0.7)]


async def test_a_ban_stops_every_group_and_a_caller_is_told_at_once_how_long() -> None:
    clock = Time()
    shared = limits(clock)
    shared.banned()
    for group in ("create", "cancel"):
        with pytest.raises(ExchangeError) as caught:
            await shared.enter(group)
        assert (caught.value.kind, caught.value.retry_after) == (Kind.RETRY, 600.0)
    assert clock.slept == []
    await shared.enter("cancel", by_address=False)  # on a connection that is open already
    assert clock.slept == []
    clock.seconds += 601
    await shared.enter("create")
    assert shared.banned_for == 0


async def test_a_403_is_believed_for_a_minute_and_then_somebody_has_to_ask() -> None:
    clock = Time()
    shared = limits(clock)
    assert (shared.suspected(), shared.is_doubtful) == (60.0, False)
    clock.seconds += 60
    assert (shared.is_doubtful, shared.banned()) == (True, 600.0)
    assert shared.suspected() == 600.0  # one that was on its way changes nothing
    clock.seconds += 600
    assert (shared.is_doubtful, shared.suspected()) == (False, 60.0)
    clock.seconds += 60
    shared.served()
    assert not shared.is_doubtful


async def test_the_loop_goes_on_while_a_group_waits() -> None:
    released = asyncio.Event()

    async def wait_for_release(_: float) -> None:
        await released.wait()
        clock.seconds += 10

    clock = Time()
    shared = Limits({"create": 10, "cancel": 10}, monotonic=clock.monotonic, sleep=wait_for_release)
    shared.exceeded("create", {}, NOW)
    waiting = asyncio.create_task(shared.enter("create"))
    await shared.enter("cancel")  # returns although the other one sleeps
    assert not waiting.done()
    released.set()
    await waiting


async def test_a_batch_costs_as_much_as_it_holds_orders() -> None:
    shared = limits(Time(), create=10)
    throttle = shared.groups["create"].throttle
    await shared.enter("create", cost=8)  # 10 per second, of which we take 8
    assert len(throttle._task_logs) == 8
    waiting = asyncio.create_task(shared.enter("create"))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_the_throttle_lets_no_more_than_its_share_through_in_a_second() -> None:
    shared = Limits({"create": 5})
    starts: list[float] = []

    async def one() -> None:
        await shared.enter("create")
        starts.append(time.monotonic())

    await asyncio.gather(*(one() for _ in range(6)))
    assert sum(start - starts[0] < 0.9 for start in starts) == 4


async def test_a_better_limit_of_the_account_is_used() -> None:
    shared = limits(Time())
    shared.note("create", headers(55, limit=60), NOW)
    assert shared.groups["create"].throttle.rate_limit == 48
