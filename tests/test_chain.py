"""When the chain takes a step, from which snapshot, and which model tokens start from afterwards."""

import math

import numpy as np
import pytest
from msgspec.structs import replace

from bot.core.commands import CHAIN
from bot.core.events import CandidateArrived
from bot.core.types import DAY_MS
from bot.settings import Settings
from strategies.chain import Chain
from strategies.labels import Matured
from tests.builders import BAR, START
from tests.test_token import GOOD, model

SETTINGS = Settings(adaptation={"chain_labels": 50, "chain_tail_days": 1, "chain_every_days": 2})
DAY = DAY_MS // BAR  # bars


class Life:
    """One token that lives on from bar to bar, every label known two bars later and worth a half."""

    def __init__(self, config: Settings = SETTINGS) -> None:
        self.chain = Chain(config, model("pretrained", kind="pretrained"))
        self.steps = []
        self._bars = 0

    def bars(self, count: int) -> None:
        for _ in range(count):
            start = START + self._bars * BAR
            self.chain.listings.add("NEWUSDT", start, np.zeros(4, np.float32))
            if self._bars >= 2:
                old = start - 2 * BAR
                self.chain.listings.label("NEWUSDT", Matured(old, old + BAR, start + BAR, 1, 0.0, 0.5, -5.0))
            self._bars += 1
            step = self.chain.step(start + BAR)
            self.steps += [] if step is None else [step]

    def arrives(self, name: str, **measured: float):
        report = replace(GOOD, gain_labels=100.0, **measured)
        event = CandidateArrived(START, START, CHAIN, name, START, report)
        return self.chain.on_candidate(event, model(name, kind="chain"))


def test_the_first_step_waits_for_enough_labels_that_are_older_than_the_tail() -> None:
    life = Life()
    life.bars(DAY + 99)
    assert life.steps == []
    life.bars(2)
    (step,) = life.steps
    assert step.cut == START + (DAY + 100) * BAR
    assert (step.base_model, step.rival_model) == ("pretrained", "pretrained")
    assert step.listings == (("NEWUSDT", DAY + 100),)
    assert (step.labels[-2:] == -1).all()
    assert (step.labels[:-2] == 1).all()


def test_steps_keep_their_distance_and_each_has_its_own_seed() -> None:
    life = Life()
    life.bars(7 * DAY)
    assert np.diff([step.cut for step in life.steps]).tolist() == [2 * DAY_MS] * 2
    assert len({step.seed for step in life.steps}) == 3


def test_every_step_begins_at_the_source_and_is_judged_against_the_model_before() -> None:
    life = Life()
    life.bars(2 * DAY)
    assert life.arrives("first", gain=0.001).verdict == "promoted"
    assert life.chain.base.model_id == "first"
    life.bars(3 * DAY)
    assert (life.steps[-1].base_model, life.steps[-1].rival_model) == ("pretrained", "first")


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        ({"gain": -0.0001}, "gain -0.0001 ± 0.0000 nats"),
        ({"gain": -0.003, "gain_error": 0.002}, "gain -0.0030 ± 0.0020 nats"),
        ({"gain": math.nan}, "gain +nan ± 0.0000 nats"),
        ({"gain": 0.01, "gain_error": math.nan}, "± nan nats"),
        ({"gain": 0.01, "source_accuracy_after": 0.5}, "forgetting"),
        ({"gain": 0.01, "source_accuracy_after": math.nan}, "not measured"),
    ],
)
def test_a_step_that_is_worse_or_was_not_measured_or_forgot_changes_nothing(
    measured: dict[str, float], reason: str
) -> None:
    life = Life()
    verdict = life.arrives("first", **measured)
    assert verdict.verdict == "discarded"
    assert reason in verdict.reasons[0]
    assert life.chain.base.model_id == "pretrained"


def test_a_step_that_one_week_cannot_tell_from_the_model_before_takes_its_place() -> None:
    life = Life()
    assert life.arrives("first", gain=-0.002, gain_error=0.003).verdict == "promoted"
    assert life.chain.base.model_id == "first"


def test_it_can_be_switched_off() -> None:
    life = Life(Settings(adaptation={"chain_labels": 50, "chain_tail_days": 1, "chain_tokens": 0}))
    life.bars(5 * DAY)
    assert life.steps == []
    assert len(life.chain.listings) == 0
