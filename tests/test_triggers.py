"""When a model is adapted again: the schedule, and alarms that keep their level and see what has changed."""

import numpy as np
import pytest
import torch
from river.drift import PageHinkley as Oracle

from bot.settings import Adaptation
from strategies.learning.two_sample import permutation_p_value
from strategies.memory import TokenMemory
from strategies.triggers import (
    BLOCK,
    NEWEST,
    THIN,
    WARM,
    Cause,
    Due,
    PageHinkley,
    Triggers,
    block_permutation_p,
)

PLAN = Adaptation(first_bars=192, every_bars=288, drift_bars=48, drift_check_bars=96)
FEATURES = 6
HORIZON = 8  # rows


def slow(rng: np.random.Generator, n: int, memory: float = 0.9) -> np.ndarray:
    """(n, F) rows of autoregressive features of variance one."""
    x = np.empty((n, FEATURES), np.float32)
    x[0] = rng.standard_normal(FEATURES)
    for i in range(1, n):
        x[i] = memory * x[i - 1] + np.sqrt(1 - memory**2) * rng.standard_normal(FEATURES)
    return x


class Life:
    """A token whose rows and losses are given bar by bar."""

    def __init__(self, plan: Adaptation = PLAN, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.triggers = Triggers(plan, block=HORIZON)
        self.memory = TokenMemory(FEATURES, 2_000)
        self.count = 0
        self.asked: list[tuple[int, Due]] = []

    def bars(self, rows: np.ndarray, loss: float = 0.69) -> list[tuple[int, Due]]:
        """What asked for an adaptation, each of which begins at once, and after how many bars."""
        before = len(self.asked)
        for row in rows:
            said = loss + 0.2 * float(self.rng.standard_normal())
            self.triggers.score(self.count, said, 1 / HORIZON)
            self.memory.add(self.count, row)
            self.count += 1
            due = self.triggers.due(self.memory, seed=self.count)
            if due is not None:
                self.triggers.begun()
                self.asked.append((self.count, due))
        return self.asked[before:]


# --- Page's test -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_test_on_losses_is_that_of_page_and_hinkley(seed):
    rng = np.random.default_rng(seed)
    ours = PageHinkley(0.02, 2.0)
    oracle = Oracle(min_instances=WARM, delta=0.02, threshold=2.0, alpha=1.0, mode="up")
    stream = np.concatenate([rng.normal(0.6, 0.2, 300), rng.normal(0.9, 0.2, 100), rng.normal(0.5, 0.2, 200)])
    alarms = []
    for x in stream:
        oracle.update(x)
        alarms.append(ours.rises(x))
        assert alarms[-1] == oracle.drift_detected
    assert any(alarms[300:330])


def test_with_the_shipped_numbers_steady_losses_raise_an_alarm_less_than_once_in_two_months():
    """Blocks of two hours whose means scatter as those of a model that knows little."""
    plan, alarms, days = Adaptation(), 0, 0
    for seed in range(20):
        test = PageHinkley(plan.drift_allowance, plan.drift_threshold)
        alarms += sum(test.rises(x) for x in np.random.default_rng(seed).normal(0.69, 0.12, 12 * 60))
        days += 60
    assert alarms / days < 1 / 60


# --- the features ------------------------------------------------------------------------------------------


def test_the_p_value_without_torch_is_that_of_the_one_with_it():
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.25, 0.4, 1.0):
        x, y = slow(rng, 240)[::THIN], (slow(rng, 96) + shift).astype(np.float32)[::THIN]
        ours = np.mean([block_permutation_p(x, y, 4, seed) for seed in range(20)])
        generator = torch.Generator().manual_seed(0)
        theirs = permutation_p_value(
            torch.from_numpy(x), torch.from_numpy(y), block=4, permutations=3999, generator=generator
        )
        assert ours == pytest.approx(theirs, abs=0.03), shift


def test_serial_dependence_is_no_change_of_the_features():
    rng = np.random.default_rng(2)
    p = [
        block_permutation_p(x[:-NEWEST:THIN], x[-NEWEST::THIN], BLOCK // THIN, seed=i)
        for i, x in enumerate(slow(rng, 192 * 5) for _ in range(100))
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.11
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.2)


def test_too_few_blocks_say_nothing():
    few, many = np.zeros((4, 2), np.float32), np.ones((90, 2), np.float32)
    assert block_permutation_p(few, many, 3, seed=0) == 1.0
    assert block_permutation_p(many, few, 3, seed=0) == 1.0
    assert block_permutation_p(many, few * 0, 2, seed=0) < 0.1


# --- one token ---------------------------------------------------------------------------------------------


def test_the_first_adaptation_waits_for_rows_and_the_others_for_the_schedule():
    life = Life(PLAN.model_copy(update={"drift_level": 0.0}))
    life.bars(slow(life.rng, 1_000))
    assert [(bar, due.cause) for bar, due in life.asked] == [
        (192, Cause.FIRST), (480, Cause.SCHEDULE), (768, Cause.SCHEDULE),
    ]  # fmt: skip


def test_losses_that_rise_ask_for_an_adaptation_but_not_twice_in_a_row():
    life = Life(PLAN.model_copy(update={"every_bars": 10_000, "drift_level": 0.0}))
    life.bars(slow(life.rng, 800))
    [(bar, due)] = life.bars(slow(life.rng, 300), loss=1.2)
    assert bar - 800 < 10 * HORIZON
    assert due.cause is Cause.LOSS
    assert "nats" in due.reason


def test_an_alarm_waits_until_the_last_adaptation_is_long_enough_ago():
    plan = PLAN.model_copy(update={"every_bars": 300, "drift_bars": 290, "drift_level": 0.0})
    life = Life(plan)
    life.bars(slow(life.rng, 500), loss=0.6)
    [(bar, due), *_] = life.bars(slow(life.rng, 300), loss=1.6)
    assert (bar, due.cause) == (492 + 290, Cause.LOSS)


def test_features_that_are_others_than_those_learnt_from_ask_for_an_adaptation():
    life = Life()
    life.bars(slow(life.rng, 192 + 288))
    assert [due.cause for _, due in life.asked] == [Cause.FIRST, Cause.SCHEDULE]
    [(bar, due)] = life.bars(slow(life.rng, 100) + 3)
    assert (bar, due.cause) == (480 + PLAN.drift_check_bars, Cause.FEATURES)
    assert "MMD p 0.0" in due.reason


def test_the_same_life_asks_at_the_same_bars():
    def lived() -> list[tuple[int, Due]]:
        life = Life(seed=4)
        life.bars(slow(life.rng, 600))
        life.bars(slow(life.rng, 600) + 2, loss=1.2)
        return life.asked

    assert lived() == lived()


def test_an_alarm_is_urgent_and_the_schedule_is_not():
    assert [cause for cause in Cause if cause.is_alarm] == [Cause.LOSS, Cause.FEATURES]
