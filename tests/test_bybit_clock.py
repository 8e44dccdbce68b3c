"""The exchange's time: measured against the monotonic clock, doubted when the machine slept."""

import asyncio

import pytest

from bot.exchange.bybit.clock import ExchangeClock, Health, keep_measured


class Machine:
    """Both clocks of a machine whose wall clock is wrong by `skew` seconds."""

    def __init__(self, skew: float = 0.0) -> None:
        self.true = 1_750_000_000.0
        self.skew = skew
        self.asleep = 0.0
        self.trips: list[tuple[float, float]] = []  # seconds to the exchange and back

    def monotonic(self) -> float:
        return self.true - 1_749_000_000.0 - self.asleep

    def wall(self) -> float:
        return self.true + self.skew

    def sleep(self, seconds: float) -> None:
        self.true += seconds
        self.asleep += seconds

    def clock(self) -> ExchangeClock:
        return ExchangeClock(monotonic=self.monotonic, wall=self.wall)

    async def fetch(self) -> float:
        out, back = self.trips.pop(0) if self.trips else (0.01, 0.01)
        self.true += out
        exchange = self.true * 1_000
        self.true += back
        return exchange


async def test_a_wrong_wall_clock_is_corrected() -> None:
    machine = Machine(skew=-42.0)
    clock = machine.clock()
    assert clock.now_ms() == pytest.approx(machine.true * 1_000 - 42_000, abs=2)
    health = await clock.measure(machine.fetch)
    assert clock.now_ms() == pytest.approx(machine.true * 1_000, abs=2)
    assert health.offset_ms == pytest.approx(42_000, abs=2)
    assert health.ok


async def test_the_shortest_round_trip_decides() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.trips = [(0.4, 0.0), (0.003, 0.001), (0.0, 0.9)]
    health = await clock.measure(machine.fetch, rounds=3)
    assert health.uncertainty_ms == pytest.approx(2.0, abs=0.2)
    assert abs(clock.now_ms() - machine.true * 1_000) <= 3


async def test_before_the_first_measurement_nothing_is_known() -> None:
    health = Machine().clock().health()
    assert not health.ok
    assert "unknown" in health.reason


async def test_a_slow_line_leaves_too_much_doubt_for_entries() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.trips = [(0.6, 0.6)] * 5
    health = await clock.measure(machine.fetch)
    assert not health.ok
    assert health.reason == "the exchange's time is known to 600 ms only; no entries"


async def test_doubt_grows_with_the_age_of_the_measurement() -> None:
    machine = Machine()
    clock = machine.clock()
    await clock.measure(machine.fetch)
    young = clock.uncertainty_ms
    machine.true += 3_600
    assert clock.uncertainty_ms == pytest.approx(young + 360, abs=1)


async def test_a_lost_round_trip_is_left_out_and_only_a_total_loss_is_an_error() -> None:
    machine = Machine()
    clock = machine.clock()
    failures = 3

    async def flaky() -> float:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise ConnectionError("lost")
        return await machine.fetch()

    assert (await clock.measure(flaky)).ok
    failures = 100
    with pytest.raises(ConnectionError):
        await clock.measure(flaky)


async def test_a_sleep_of_the_machine_is_noticed_and_the_offset_is_unknown_until_measured() -> None:
    machine = Machine()
    clock = machine.clock()
    await clock.measure(machine.fetch)
    machine.true += 30
    assert clock.slept() == 0
    machine.sleep(300)
    assert clock.slept() == pytest.approx(300)
    assert not clock.health().ok
    assert clock.slept() == 0  # told once
    await clock.measure(machine.fetch)
    assert clock.health().ok
    assert clock.sleeps == 1


async def test_somebody_who_sets_the_wall_clock_does_not_move_the_exchanges_time() -> None:
    machine = Machine()
    clock = machine.clock()
    await clock.measure(machine.fetch)
    machine.skew = 7_200
    assert clock.now_ms() == pytest.approx(machine.true * 1_000, abs=2)
    assert clock.slept() == pytest.approx(7_200)


async def test_the_keeper_measures_again_after_a_sleep_and_tells_only_changes() -> None:
    machine = Machine()
    clock = machine.clock()
    told: list[Health] = []
    looks = 0

    async def look(seconds: float) -> None:
        nonlocal looks
        looks += 1
        machine.true += seconds
        if looks == 3:
            machine.sleep(600)
        if looks == 4:
            machine.trips = [(2.0, 2.0)] * 5
            machine.sleep(600)
        if looks == 6:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keep_measured(clock, machine.fetch, told.append, sleep=look)
    assert [health.ok for health in told] == [True, False]
    assert clock.sleeps == 2
