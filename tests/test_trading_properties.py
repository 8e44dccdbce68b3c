"""Whatever happens, in whatever order: no limit is exceeded, no exit refused, books balance, latches hold.

tests/hostile.py says what can happen and what must hold.
"""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.hostile import STYLES, SYMBOLS, Hostile, wander

SYMBOL = st.sampled_from(SYMBOLS)
SHARE = st.floats(0.01, 1)
PICK = st.integers(0, 9)


class AnythingGoes(RuleBasedStateMachine):
    """The same acts as `wander`, so that hypothesis can look for the shortest way to break something."""

    @initialize(style=st.sampled_from(STYLES))
    def begin(self, style: object) -> None:
        self.world = Hostile(style)  # type: ignore[arg-type]

    @rule(
        symbol=SYMBOL, move=st.floats(-0.05, 0.05), wish=st.sampled_from(["buy", "sell", "exit", "nan", ""]),
        doubt=st.floats(0, 1),
    )  # fmt: skip
    def bar(self, symbol: str, move: float, wish: str, doubt: float) -> None:
        self.world.bar(symbol, move, wish, doubt)

    @rule(seconds=st.floats(-1_000, 100_000))
    def tick(self, seconds: float) -> None:
        self.world.tick(seconds)

    @rule(seconds=st.sampled_from([1, 5, 31]))
    def short_tick(self, seconds: float) -> None:
        self.world.tick(seconds)

    @rule(pick=PICK, share=SHARE, slip=st.floats(0, 0.02))
    def fill(self, pick: int, share: float, slip: float) -> None:
        self.world.fill(pick, share, slip)

    @rule(pick=PICK)
    def accept(self, pick: int) -> None:
        self.world.accept(pick)

    @rule(pick=PICK, rejected=st.booleans())
    def end(self, pick: int, rejected: bool) -> None:
        self.world.end(pick, rejected=rejected)

    @rule(symbol=SYMBOL, share=SHARE)
    def stop_out(self, symbol: str, share: float) -> None:
        self.world.stop_out(symbol, share)

    @rule(symbol=SYMBOL, granted=st.booleans())
    def answer_stop(self, symbol: str, granted: bool) -> None:
        self.world.answer_stop(symbol, granted=granted)

    @rule(symbol=SYMBOL, tenths=st.integers(-20, 20))
    def adopt(self, symbol: str, tenths: int) -> None:
        self.world.adopt(symbol, tenths)

    @rule(cause=st.sampled_from(["feed", "account"]), over=st.booleans())
    def trouble(self, cause: str, over: bool) -> None:
        self.world.trouble(cause, over=over)

    @rule(symbol=SYMBOL, over=st.booleans())
    def fault(self, symbol: str, over: bool) -> None:
        self.world.fault(symbol, over=over)

    @rule(symbol=SYMBOL, tenths=st.sampled_from([0, 0, 5]), orders=st.sampled_from([0, 0, 1]))
    def somebody_else(self, symbol: str, tenths: int, orders: int) -> None:
        self.world.somebody_else(symbol, tenths, orders)

    @rule(symbol=SYMBOL, cents=st.integers(-100, 100))
    def funding(self, symbol: str, cents: int) -> None:
        self.world.pay_funding(symbol, cents)

    @rule(amount=st.integers(-5_000, 5_000))
    def transfer(self, amount: int) -> None:
        self.world.transfer(amount)

    @rule(symbol=SYMBOL)
    def delist(self, symbol: str) -> None:
        self.world.delist(symbol)

    @rule(symbol=SYMBOL)
    def list_again(self, symbol: str) -> None:
        self.world.list(symbol)

    @rule(symbol=SYMBOL)
    def broken_price(self, symbol: str) -> None:
        self.world.broken_price(symbol)

    @rule()
    def release(self) -> None:
        self.world.release()


AnythingGoes.TestCase.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)
TestAnythingGoes = AnythingGoes.TestCase


def walks(seeds: range, steps: int) -> int:
    """Steps that were made. Each walk must have traded: else it would prove nothing."""
    total = 0
    for seed in seeds:
        world = Hostile(STYLES[seed % len(STYLES)])
        wander(world, random.Random(seed), steps)
        assert world.entries > steps / 500, seed
        total += world.steps
    return total


def test_a_few_thousand_random_steps() -> None:
    assert walks(range(8), 1_000) >= 8_000


@pytest.mark.slow
def test_a_hundred_thousand_random_steps() -> None:
    assert walks(range(100, 140), 2_500) >= 100_000


@pytest.mark.campaign
def test_two_million_random_steps() -> None:
    assert walks(range(1_000, 1_200), 10_000) >= 2_000_000
