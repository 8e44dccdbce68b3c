"""From top to bottom, each told with its reason: promoted, frozen, ensemble with scratch, no trade."""

from bot.core.records import RungChanged
from bot.core.types import Rung, Stage
from strategies.contest import ADAPTED, ENSEMBLE, FROZEN
from strategies.rungs import Rungs
from tests.test_token import HAZY, KNOWS, Life


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
    (one,) = told.look(1, Stage.SMALL, ENSEMBLE, "scratch is better", "")
    assert (one.rung, one.reason) == (Rung.ENSEMBLE, "scratch is better")
    (one,) = told.look(2, Stage.SUSPENDED, ENSEMBLE, "scratch is better", "delisted")
    assert (one.rung, one.reason) == (Rung.NONE, "delisted")


def test_a_reason_that_differs_in_its_numbers_is_told_once() -> None:
    told = Rungs("NEWUSDT")
    assert told.look(1, Stage.SHADOW, FROZEN, "", "4 of 100 effective labels")
    assert not told.look(2, Stage.SHADOW, FROZEN, "", "5 of 100 effective labels")
    assert told.look(3, Stage.SHADOW, FROZEN, "", "evidence 2 < 20")
