"""From top to bottom, each told with its reason: promoted, frozen, ensemble with scratch, no trade."""

from bot.core.records import RungChanged, TransferJudged
from bot.core.types import DAY_MS, Rung, Stage
from bot.core.verdict import ADAPTED, BASE_RATE, ENSEMBLE, FROZEN, NONE, Gain, Verdict
from strategies.rungs import Rungs
from tests.test_token import HAZY, KNOWS, Life, settings


def rungs(life: Life) -> list[tuple[Stage, Rung, str]]:
    """Without those that differ in nothing but the reason."""
    found: list[tuple[Stage, Rung, str]] = []
    for one in life.of(RungChanged):
        if not found or found[-1] != (one.stage, one.rung, one.arm):
            found.append((one.stage, one.rung, one.arm))
    return found


def test_a_token_of_which_the_source_knows_enough_is_traded_by_the_frozen_model() -> None:
    life = Life(gain=KNOWS)
    life.bars(60)
    life.candidate("useless", 0.0)  # brings the similarity
    life.bars(700)
    assert rungs(life) == [
        (Stage.SHADOW, Rung.NONE, FROZEN),
        (Stage.SMALL, Rung.FROZEN, FROZEN),
        (Stage.FULL, Rung.FROZEN, FROZEN),
    ]
    _, waits, *_, last = life.of(RungChanged)
    assert "similarity not measured yet" in waits.reason
    assert last.reason == "no adapted model has proven better"


def test_an_adapted_model_is_promoted_when_it_proves_better_and_no_trade_is_left_when_that_ends() -> None:
    life = Life().crowned()
    life.bars(200)
    assert rungs(life)[-1] == (Stage.FULL, Rung.PROMOTED, ADAPTED)
    assert "below the frozen model's" in life.last(RungChanged).reason
    life.bars(300, truth=-1)
    assert rungs(life)[-1] == (Stage.SHADOW, Rung.NONE, FROZEN)
    assert "evidence" in life.last(RungChanged).reason


def test_where_transfer_does_harm_the_ensemble_trades() -> None:
    life = Life(gain=-0.5)
    life.bars(12)
    life.candidate("first", 0.8, scratch=KNOWS, sees=HAZY)
    life.bars(900)
    told = [one for one in life.of(RungChanged) if one.arm == ENSEMBLE]
    assert {one.rung for one in told} <= {Rung.ENSEMBLE, Rung.NONE}
    assert told
    assert (told[-1].rung is Rung.ENSEMBLE) == (life.token.stage in (Stage.SMALL, Stage.FULL))


def test_the_rung_of_the_ensemble_and_of_what_does_not_trade() -> None:
    told = Rungs("NEWUSDT")
    verdict = Verdict(ENSEMBLE, ("scratch is better",), ())
    (one,) = told.look(1, Stage.SMALL, ENSEMBLE, verdict, "")
    assert (one.rung, one.reason) == (Rung.ENSEMBLE, "scratch is better")
    (one,) = told.look(2, Stage.SUSPENDED, ENSEMBLE, verdict, "delisted")
    assert (one.rung, one.reason) == (Rung.NONE, "delisted")


def test_a_reason_that_differs_in_its_numbers_is_told_once() -> None:
    told = Rungs("NEWUSDT")
    nothing = Verdict(NONE, ("nothing yet",), ())
    assert told.look(1, Stage.SHADOW, FROZEN, nothing, "4 of 100 effective labels")
    assert not told.look(2, Stage.SHADOW, FROZEN, nothing, "5 of 100 effective labels")
    assert told.look(3, Stage.SHADOW, FROZEN, nothing, "evidence 2 < 20")


def test_a_verdict_is_told_when_its_answer_changes_and_its_figures_once_a_day() -> None:
    told = Rungs("NEWUSDT")

    def verdict(evidence: float, chosen: str = FROZEN) -> Verdict:
        return Verdict(chosen, (f"evidence {evidence:g}",), (Gain("a", "b", 0, 0, 0, 0, 9, evidence),))

    assert told.judge(1, verdict(2.0))
    assert not told.judge(2, verdict(3.0))
    (one,) = told.judge(3, verdict(4.0, ADAPTED))
    assert one.verdict.chosen == ADAPTED
    (one,) = told.judge(DAY_MS, verdict(5.0, ADAPTED))
    assert one.verdict.gains[0].e_value == 5.0


def test_what_trades_is_what_the_verdict_chose_and_every_comparison_is_in_it() -> None:
    """The gate acts on the verdict: an arm that trades has beaten the base rate in it."""
    life = Life().crowned()
    life.bars(200)
    told = [one for one in life.of(TransferJudged) if one.verdict.chosen == ADAPTED]
    rung = life.last(RungChanged)
    assert rung.rung is Rung.PROMOTED
    assert told[0].verdict.reasons[0] == rung.reason
    gains = {(one.arm, one.rival): one for one in told[-1].verdict.gains}
    assert gains[ADAPTED, BASE_RATE].low > 0
    assert gains[ADAPTED, FROZEN].e_value >= settings().gate.evidence
    assert gains[ADAPTED, FROZEN].low <= gains[ADAPTED, FROZEN].value <= gains[ADAPTED, FROZEN].high
    assert told[-1].verdict.backward_transfer == 0.0
    life.bars(300, truth=-1)
    assert life.last(TransferJudged).verdict.chosen == NONE


def test_until_something_has_beaten_the_base_rate_the_verdict_is_none() -> None:
    life = Life(gain=0.0)
    life.bars(300)
    assert {one.verdict.chosen for one in life.of(TransferJudged)} == {NONE}
    assert "nothing has beaten the base rate" in life.last(TransferJudged).verdict.reasons[0]


def test_harm_is_a_reason_of_the_verdict() -> None:
    life = Life(gain=-KNOWS)
    life.bars(600)
    verdict = life.last(TransferJudged).verdict
    assert verdict.chosen == NONE
    assert any("works against this token" in reason for reason in verdict.reasons)
