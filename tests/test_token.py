"""One token from its first bar on: who predicts, who is scored, who trades, and what new weights must show.

The price is a seeded random path. One feature is a hint: the direction of the next bars, right nine times in
ten, or wrong nine times in ten where a test says so. The models pass it through: logit = gain x hint + bias.
Another one is hazy: the hint, but wrong in one case of seven.
"""

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import TypeVar

import numpy as np
import pytest

from bot.core.commands import AdaptModel
from bot.core.events import AdaptationReport, CandidateArrived
from bot.core.records import GateDecided, LabelMatured, StageChanged
from bot.core.signal import Action, Signal
from bot.core.types import Position, Side, Stage
from bot.core.verdict import ADAPTED, ENSEMBLE, FROZEN, SCRATCH
from bot.settings import Settings
from strategies.base import Advice
from strategies.chain import Chain
from strategies.contest.roster import CHAINED, CHALLENGER
from strategies.features.pipeline import FeatureRow
from strategies.features.spec import COUNT, NAMES, VERSION
from strategies.learning.architecture import Architecture
from strategies.learning.registry import Model, ModelCard
from strategies.learning.skill import Estimate
from strategies.token import Token
from tests.builders import BAR, START, bar

SHAPE = Architecture(features=4, channels=2, blocks=1, pool_bars=1, embedding=2)
HORIZON = 2
HINT = 1  # the feature that knows
HAZY = 2  # the one that knows less
T = TypeVar("T")
GOOD = AdaptationReport(
    mmd_before=0.3, mmd_after=0.01, similarity_before=0.8, similarity_after=0.95, source_accuracy_before=0.6,
    source_accuracy_after=0.6, target_labels=50.0, steps=10, seconds=0.1,
)  # fmt: skip
KNOWS = 2.0  # a gain that makes the most of the hint
SURE = 2.0  # a bias that gives 88 %
LENGTH = 2_000


def settings(**gate: float) -> Settings:
    return Settings(
        label={"horizon_bars": HORIZON},
        adaptation={"first_bars": 10, "every_bars": 20, "window_bars": 50},
        gate={"effective_labels": 5, "drift_blocks": 40, "probation_blocks": 6, **gate},
    )


def model(name: str, gain: float = 0.0, bias: float = 0.0, kind: str = "adapted", sees: int = HINT) -> Model:
    weights = {part: np.zeros(shape, np.float32) for part, shape in SHAPE.shapes().items()}
    # the blocks have no taps, so they add nothing to what passes by
    weights["input.weight"][0, sees] = weights["project.weight"][0, 0] = 1.0
    weights["direction.weight"][0, 0] = gain
    weights["direction.bias"][:] = bias
    card = ModelCard(
        kind=kind, architecture=SHAPE, features=VERSION, columns=NAMES[:4], location=(0.0,) * COUNT,
        scale=(1.0,) * COUNT,
        symbols=("BTCUSDT",), since=0, until=START, temperature=1.0,
        parent="" if kind == "pretrained" else "pretrained",
        metrics={"accuracy_confident": Estimate(0.7, 0.65, 0.75, 300.0)},
    )  # fmt: skip
    return Model(name, weights, card)


class Life:
    """A token that lives bar after bar; what it advised is kept.

    gain, bias: of its frozen model; chained: gain of the chain's model at its listing, None without a chain
    """

    def __init__(
        self, gain: float = 0.0, bias: float = 0.0, config: Settings | None = None,
        chained: float | None = None,
    ) -> None:  # fmt: skip
        config, source = config or settings(), model("pretrained", gain, bias, "pretrained")
        self.chain = Chain(config, source)
        if chained is not None:
            self.chain.base = model("chained", chained, kind="chain")
        self.token = Token("NEWUSDT", config, source, self.chain)
        self.advice: list[Advice] = []
        rng = np.random.default_rng(5)
        self._price = 100 * np.exp(np.cumsum(rng.choice([-0.001, 0.001], LENGTH)))
        ahead = np.sign(self._price[HORIZON:] - self._price[:-HORIZON])
        self._hint = ahead * rng.choice([1, -1], len(ahead), p=[0.9, 0.1])
        self._haze = self._hint * rng.choice([1, -1], len(ahead), p=[0.85, 0.15])
        self._index = 0

    def bars(
        self, count: int, truth: int = 1, *, ready: bool = True, late: bool = False,
        position: Position | None = None,
    ) -> list[Advice]:  # fmt: skip
        """`count` bars; truth = -1 where the hint points the wrong way."""
        since = len(self.advice)
        for _ in range(count):
            self._index += 1
            opened, price = self._price[self._index - 1 : self._index + 1]
            x = np.full(COUNT, self._index, np.float32)
            x[HINT], x[HAZY] = truth * self._hint[self._index], truth * self._haze[self._index]
            closed = bar(self._index, float(price), opened=float(opened))
            row = FeatureRow(x, 0.002, ready, self._index, 10, closed.start)
            self.advice += self.token.on_row(closed, row, position, late=late)
        return self.advice[since:]

    def skip(self, bars: int) -> None:
        self._index += bars

    def candidate(
        self, name: str, gain: float, report: AdaptationReport = GOOD, scratch: float | None = None,
        sees: int = HINT,
    ) -> list[Advice]:  # fmt: skip
        """gain: of the new weights, which see the feature `sees`; scratch: gain of the rival beside them"""
        ts = START + (self._index + 1) * BAR
        event = CandidateArrived(ts, ts, "NEWUSDT", name, ts - BAR, report)
        rival = None if scratch is None else model(f"{name}'s scratch", scratch, kind="scratch")
        found = list(self.token.on_candidate(event, model(name, gain, sees=sees), rival))
        self.advice += found
        return found

    def crowned(self) -> "Life":
        """The adapted model has become champion: it knows what to make of the hint."""
        self.bars(12)
        self.candidate("first", KNOWS)
        self.bars(400)
        assert self.champion == "first"
        return self

    def extend_chain(self, name: str, gain: float) -> None:
        self.token.on_chain(model(name, gain, kind="chain"))

    @property
    def champion(self) -> str:
        return self.last(Signal).model_id

    @property
    def verdicts(self) -> list[tuple[str, str, str]]:
        return [(one.model_id, one.arm, one.verdict) for one in self.of(GateDecided)]

    def of(self, kind: type[T]) -> list[T]:
        return [one for one in self.advice if isinstance(one, kind)]

    def last(self, kind: type[T]) -> T:
        return self.of(kind)[-1]


def held(side: Side, bars_ago: int, now: int) -> Position:
    opened = START + (now + 1 - bars_ago) * BAR
    return Position(symbol="NEWUSDT", qty=Decimal(side.sign), entry=Decimal(100), opened=opened)


# --- predicting and being scored ---------------------------------------------------------------------------


def test_a_token_says_nothing_before_its_features_are_ready() -> None:
    life = Life()
    (told,) = life.bars(5, ready=False)
    assert str(told) == "NEWUSDT OBSERVE, no trade (frozen): features warm up"
    assert life.token.stage is Stage.OBSERVE
    life.bars(1)
    assert (life.last(StageChanged).old, life.last(StageChanged).new) == (Stage.OBSERVE, Stage.SHADOW)
    assert life.last(Signal).arm == FROZEN


def test_a_label_scores_what_was_said_at_its_bar_and_comes_when_its_horizon_is_over() -> None:
    life = Life(gain=0.4)
    life.bars(10)
    said = {signal.bar_start: signal.p_up for signal in life.of(Signal)}
    labels = life.of(LabelMatured)
    assert [label.bar_start for label in labels] == list(said)[: 10 - HORIZON]
    for label in labels:
        assert label.ts == label.bar_start + (HORIZON + 1) * BAR
        assert label.p_up[FROZEN] == said[label.bar_start]
        assert set(label.p_up) == {FROZEN, "base"}


def test_a_prediction_does_not_know_the_label_that_it_will_be_scored_on() -> None:
    """The same past with two futures: what was said before they part is the same."""
    one, other = Life(gain=0.4), Life(gain=0.4)
    for life, truth in ((one, 1), (other, -1)):
        life.bars(40)
        life.bars(20, truth)
    said = [[signal.p_up for signal in life.of(Signal)] for life in (one, other)]
    assert said[0][:40] == said[1][:40]
    assert said[0] != said[1]


def test_a_gap_ends_labels_and_what_the_network_remembers() -> None:
    life = Life()
    life.bars(10)
    life.skip(3)
    life.bars(10)
    starts = {label.bar_start for label in life.of(LabelMatured)}
    assert {START + i * BAR for i in (9, 10)}.isdisjoint(starts)
    assert START + 14 * BAR in starts


# --- adaptation --------------------------------------------------------------------------------------------


def test_a_snapshot_ends_at_its_cut_and_knows_matured_labels_only() -> None:
    life = Life()
    life.bars(30)
    jobs = life.of(AdaptModel)
    assert [len(job.rows) for job in jobs] == [10, 30]
    for job in jobs:
        assert job.cut == job.starts[-1] + BAR
        assert (job.labels[-HORIZON:] == -1).all()
        assert (job.labels[:-HORIZON] >= 0).all()
        np.testing.assert_array_equal(job.rows[:, 0], (job.starts - START) // BAR)
        assert job.base_model == "pretrained"
    assert jobs[0].seed != jobs[1].seed
    assert [job.reason.split(":")[0] for job in jobs] == ["first", "schedule"]
    assert not any(job.urgent for job in jobs)


def test_losses_that_rise_ask_for_an_adaptation_before_the_schedule_does() -> None:
    plan = {"first_bars": 10, "every_bars": 1_000, "window_bars": 50, "drift_bars": 10, "drift_level": 0}
    life = Life(gain=KNOWS, config=Settings(label={"horizon_bars": HORIZON}, adaptation=plan))
    life.bars(300)
    first = life.of(AdaptModel)
    life.bars(60, truth=-1)
    asked = life.of(AdaptModel)[len(first) :]
    assert [job.reason.split(":")[0] for job in asked[:1]] == ["loss drift"]
    assert asked[0].urgent
    assert asked[0].until == life.last(Signal).ts - life.last(Signal).model_age


def test_a_candidate_is_watched_in_shadow_and_does_not_speak_for_the_token() -> None:
    life = Life(gain=0.4)
    life.bars(12)
    life.candidate("first", KNOWS)
    life.bars(6)
    assert life.champion == "pretrained"
    assert life.last(LabelMatured).p_up.keys() == {FROZEN, ADAPTED, "base"}
    assert life.verdicts == [("first", ADAPTED, "shadow")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mmd_after": math.nan}, "not finite"),
        ({"similarity_after": math.inf}, "not finite"),
        ({"source_accuracy_after": 0.5}, "forgetting"),
    ],
)
def test_a_candidate_that_forgot_or_was_not_measured_is_discarded(
    changes: dict[str, float], reason: str
) -> None:
    life = Life()
    life.bars(12)
    report = AdaptationReport(
        **{name: getattr(GOOD, name) for name in GOOD.__struct_fields__} | changes  # type: ignore[arg-type]
    )
    (verdict,) = life.candidate("first", KNOWS, report)
    assert isinstance(verdict, GateDecided)
    assert verdict.verdict == "discarded"
    assert reason in verdict.reasons[0]
    life.bars(6)
    assert ADAPTED not in life.last(LabelMatured).p_up


def test_the_adapted_model_becomes_champion_by_evidence_and_earns_the_ladder_anew() -> None:
    life = Life().crowned()
    assert ("first", ADAPTED, "promoted") in life.verdicts
    promoted = next(one for one in life.of(GateDecided) if one.verdict == "promoted")
    assert "evidence" in promoted.reasons[0]
    later = [change for change in life.of(StageChanged) if change.ts > promoted.ts]
    assert [change.new for change in later] == [Stage.SMALL, Stage.FULL]


def test_new_weights_of_a_champion_do_not_trade_before_their_probation_is_over() -> None:
    life = Life().crowned()
    assert life.candidate("second", KNOWS + 0.2)[0].arm == CHALLENGER  # type: ignore[union-attr]
    probation = life.bars(6 * HORIZON)
    assert {one.model_id for one in probation if isinstance(one, Signal)} == {"first"}
    life.bars(4 * HORIZON)
    assert life.champion == "second"
    assert life.verdicts[-2:] == [("second", CHALLENGER, "shadow"), ("second", CHALLENGER, "promoted")]
    assert Stage.SHADOW not in {signal.stage for signal in life.of(Signal)[-10 * HORIZON :]}


def test_new_weights_that_are_worse_than_the_champion_never_trade() -> None:
    life = Life().crowned()
    life.candidate("second", -KNOWS)
    life.bars(12 * HORIZON)
    assert life.champion == "first"
    assert life.verdicts[-1] == ("second", CHALLENGER, "discarded")
    assert CHALLENGER not in life.last(LabelMatured).p_up


def test_the_evidence_of_older_weights_does_not_make_new_ones_champion() -> None:
    """New weights, which point the wrong way, come just before the procedure has its evidence."""
    promoted = Life(gain=0.8, config=settings(probation_blocks=10))
    promoted.bars(12)
    promoted.candidate("first", KNOWS)
    while ("first", ADAPTED, "promoted") not in promoted.verdicts:
        promoted.bars(1)
    bars = len(promoted.of(Signal))

    life = Life(gain=0.8, config=settings(probation_blocks=10))
    life.bars(12)
    life.candidate("first", KNOWS)
    life.bars(bars - 12 - 1)
    life.candidate("reversed", -KNOWS)
    life.bars(100)
    assert {signal.model_id for signal in life.of(Signal)} == {"pretrained"}


def test_weights_that_are_about_to_be_judged_are_not_replaced() -> None:
    life = Life(config=settings(probation_blocks=40))
    life.bars(12)
    life.candidate("first", KNOWS)
    life.bars(12)
    life.candidate("second", KNOWS)
    judging = False
    for _ in range(300):
        advice = life.bars(1)
        judging = life.token._promotion.is_near
        assert not (judging and [one for one in advice if isinstance(one, AdaptModel)])
        if ("second", ADAPTED, "promoted") in life.verdicts:
            break
    assert life.champion == "second"


def test_there_is_one_challenger_at_a_time() -> None:
    life = Life(config=settings(probation_blocks=40)).crowned()
    life.candidate("second", KNOWS)
    on_probation = life.bars(60)
    assert not [one for one in on_probation if isinstance(one, AdaptModel)]
    afterwards = life.bars(60)
    assert [one for one in afterwards if isinstance(one, AdaptModel)]


def test_a_champion_that_falls_behind_the_frozen_model_is_rolled_back_and_the_token_to_shadow() -> None:
    life = Life().crowned()
    life.bars(160, -1)
    assert ("first", ADAPTED, "rolled_back") in life.verdicts
    assert life.champion == "pretrained"
    assert life.token.stage is Stage.SHADOW


def test_a_challenger_whose_champion_was_rolled_back_is_watched_on_and_can_earn_its_place() -> None:
    life = Life(config=settings(probation_blocks=100)).crowned()
    life.candidate("second", -KNOWS)
    reversed_world = life.bars(360, -1)
    champions = [signal.model_id for signal in reversed_world if isinstance(signal, Signal)]
    assert list(dict.fromkeys(champions)) == ["first", "pretrained", "second"]
    assert life.last(LabelMatured).p_up.keys() == {FROZEN, ADAPTED, "base"}


# --- the chain ---------------------------------------------------------------------------------------------


def test_a_token_starts_from_the_newest_model_of_the_chain_and_adapts_from_there() -> None:
    life = Life(chained=KNOWS)
    life.bars(12)
    assert (life.last(Signal).arm, life.champion) == (CHAINED, "chained")
    assert life.last(LabelMatured).p_up.keys() == {FROZEN, CHAINED, "base"}
    assert life.last(AdaptModel).base_model == "chained"


def test_a_chain_that_comes_while_the_token_is_watched_is_its_base_from_then_on() -> None:
    life = Life()
    life.bars(12)
    life.extend_chain("chained", KNOWS)
    life.bars(20)
    assert life.champion == "chained"
    assert life.last(AdaptModel).base_model == "chained"


def test_a_chain_does_not_replace_a_champion_that_trades_but_by_evidence() -> None:
    life = Life(gain=0.8)
    life.bars(2)
    life.token._roster.champion.similarity = 0.9  # as an adaptation would have measured
    life.bars(300)
    assert life.token.stage in (Stage.SMALL, Stage.FULL)
    life.extend_chain("chained", -KNOWS)
    life.bars(10)
    assert life.champion == "pretrained"
    life.bars(300, -1)
    assert ("chained", CHAINED, "promoted") in life.verdicts
    assert life.champion == "chained"


def test_a_token_whose_labels_speak_against_the_chain_goes_back_to_the_frozen_model() -> None:
    life = Life(gain=KNOWS, chained=-KNOWS)
    life.bars(200)
    assert life.champion == "pretrained"
    assert ("pretrained", FROZEN, "promoted") in life.verdicts
    assert life.last(AdaptModel).base_model == "pretrained"


def test_the_adapted_arm_must_beat_the_chain_and_not_the_frozen_model_alone() -> None:
    life = Life(gain=-KNOWS, chained=KNOWS)
    life.bars(12)
    life.candidate("first", 0.4)
    life.bars(400)
    assert life.champion == "chained"


def test_a_rolled_back_champion_falls_to_the_chain() -> None:
    life = Life(chained=0.0)
    life.crowned()
    life.bars(160, -1)
    assert ("first", ADAPTED, "rolled_back") in life.verdicts
    assert life.champion == "chained"


# --- scratch and the ensemble ------------------------------------------------------------------------------


def test_scratch_and_the_ensemble_are_scored_beside_what_is_transferred() -> None:
    life = Life(gain=0.4)
    life.bars(12)
    life.candidate("first", 1.0, scratch=0.0)
    life.bars(200)
    said = life.last(LabelMatured).p_up
    assert said.keys() == {FROZEN, ADAPTED, SCRATCH, ENSEMBLE, "base"}
    apart = [abs(one.p_up[ENSEMBLE] - one.p_up[ADAPTED]) for one in life.of(LabelMatured)[-50:]]
    assert np.mean(apart) < 0.05, "the one that knows leads"


def test_where_transfer_does_harm_scratch_shows_it_and_the_ensemble_leads() -> None:
    """The adapted model is better than the frozen one, which is worthless; scratch is far better."""
    life = Life(gain=-0.5)
    life.bars(12)
    life.candidate("first", 0.8, scratch=KNOWS, sees=HAZY)
    life.bars(400)
    assert life.last(Signal).arm == ENSEMBLE
    assert [arm for _, arm, verdict in life.verdicts if verdict == "promoted"] == [ENSEMBLE]
    assert "below the frozen model's" in life.last(GateDecided).reasons[0]


def test_an_adapted_champion_that_scratch_beats_gives_the_lead_to_the_ensemble() -> None:
    life = Life()
    life.bars(12)
    life.candidate("first", 0.8, sees=HAZY)
    life.bars(500)
    assert life.last(Signal).arm == ADAPTED
    life.candidate("second", 0.8, scratch=KNOWS, sees=HAZY)
    life.bars(700)
    assert "below the adapted model's, 100% of it scratch" in life.last(GateDecided).reasons[0]
    assert life.token.stage is not Stage.OBSERVE
    assert life.last(StageChanged).ts >= life.last(GateDecided).ts, "it must earn its own steps"
    assert life.last(Signal).arm == ENSEMBLE


def test_an_ensemble_that_falls_behind_the_base_gives_the_lead_back() -> None:
    life = Life(gain=-0.5)
    life.bars(12)
    life.candidate("first", 0.8, scratch=KNOWS, sees=HAZY)
    life.bars(400)
    assert life.last(Signal).arm == ENSEMBLE
    life.bars(200, truth=-1)
    assert life.last(Signal).arm == FROZEN
    assert (ENSEMBLE, "rolled_back") in {(arm, verdict) for _, arm, verdict in life.verdicts}


def test_weights_that_trade_in_the_ensemble_are_not_replaced_by_untried_ones() -> None:
    life = Life(gain=-0.5)
    life.bars(12)
    life.candidate("first", 0.8, scratch=KNOWS, sees=HAZY)
    life.bars(400)
    life.candidate("second", -5.0, scratch=-5.0)
    said = life.bars(30)
    assert [one.arm for one in said if isinstance(one, Signal)] == [ENSEMBLE] * 30
    assert {one.model_id for one in said if isinstance(one, Signal)} == {"first"}
    assert ("second", CHALLENGER, "shadow") in life.verdicts


def test_an_adaptation_leads_the_scratch_rival_on_from_its_newest_weights() -> None:
    life = Life()
    life.bars(12)
    life.candidate("first", 1.0, scratch=0.1)
    life.bars(100)
    life.candidate("second", 1.0)  # too few labels were new to it
    life.bars(100)
    life.candidate("third", 1.0, scratch=0.2)
    life.bars(100)
    jobs = life.of(AdaptModel)
    assert jobs[0].scratch == ""
    assert {job.scratch for job in jobs[1:]} == {"first's scratch", "third's scratch"}
    assert jobs[-1].scratch == "third's scratch"


def test_rows_and_labels_of_a_token_join_the_listings_once_they_are_known() -> None:
    life = Life()
    life.bars(30)
    kept = life.chain.listings.snapshot()
    assert kept.listings == (("NEWUSDT", 30),)
    np.testing.assert_array_equal(kept.rows[:, 0], (kept.starts - START) // BAR)
    assert (kept.labels[-HORIZON:] == -1).all()
    assert (kept.labels[:-HORIZON] >= 0).all()
    assert np.isfinite(kept.log_vol[:-HORIZON]).all()
    assert np.isnan(kept.log_vol[-HORIZON:]).all()


# --- what it wishes ----------------------------------------------------------------------------------------


def test_confidence_opens_and_doubt_does_not() -> None:
    sure, unsure = Life(bias=SURE), Life(bias=0.1)
    for life in (sure, unsure):
        life.bars(1)
    assert (sure.last(Signal).action, sure.last(Signal).side) == (Action.ENTER, Side.BUY)
    assert unsure.last(Signal).action is Action.NONE
    assert unsure.last(Signal).reason.startswith("confidence 0.525 < 0.65")


def test_the_conformal_veto_forbids_and_never_suggests() -> None:
    """It is as sure as before; but nothing that it has seen rules the other direction out."""
    unproven = Life(bias=SURE, config=settings(conformal=True))
    unproven.bars(1)
    assert unproven.last(Signal).confidence > 0.65
    assert unproven.last(Signal).action is Action.NONE
    assert "conformal set" in unproven.last(Signal).reason
    proven = Life(gain=KNOWS, config=settings(conformal=True))
    proven.bars(100)
    entered = [signal.action for signal in proven.of(Signal)].index(Action.ENTER)
    assert entered > HORIZON, "after labels had shown that it is right when it is sure"


def test_a_bar_that_was_decided_late_opens_nothing_and_still_closes() -> None:
    life = Life(bias=SURE)
    life.bars(1, late=True)
    assert life.last(Signal).action is Action.NONE
    assert "late" in life.last(Signal).reason
    life.bars(1, late=True, position=held(Side.SELL, 1, 2))
    assert life.last(Signal).action is Action.EXIT


def exits() -> Iterator[tuple[Side, int, bool, Action]]:
    yield Side.SELL, 1, True, Action.EXIT  # the model turned
    yield Side.BUY, 1, True, Action.HOLD
    yield Side.BUY, HORIZON, True, Action.EXIT  # its time is over, and SHADOW does not prolong
    yield Side.BUY, 1, False, Action.HOLD  # blind: the stop guards it
    yield Side.BUY, HORIZON, False, Action.EXIT


@pytest.mark.parametrize(("side", "age", "ready", "action"), list(exits()))
def test_a_position_ends_when_the_model_turns_or_its_time_is_over(
    side: Side, age: int, ready: bool, action: Action
) -> None:
    life = Life(bias=SURE)
    life.bars(5)
    advice = life.bars(1, ready=ready, position=held(side, age, 6))
    signals = [one for one in advice if isinstance(one, Signal)]
    assert (signals[-1].action if signals else Action.HOLD) is action


def test_a_position_is_kept_beyond_its_time_only_where_the_token_is_trusted_and_the_model_sure() -> None:
    life = Life().crowned()
    assert life.token.stage in (Stage.SMALL, Stage.FULL)
    for index in range(413, 433):
        life.bars(1, position=held(life.last(Signal).side or Side.BUY, HORIZON, index))
    over = [signal for signal in life.of(Signal)[-20:] if "turned" not in signal.reason]
    assert {signal.action for signal in over} == {Action.HOLD}


def test_a_suspended_token_stays_suspended() -> None:
    life = Life(bias=SURE)
    life.bars(5)
    change, _ = life.token.suspend(START, "delisted")
    assert isinstance(change, StageChanged)
    life.bars(5)
    assert life.last(Signal).stage is Stage.SUSPENDED
