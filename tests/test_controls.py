"""The synthetic controls: deterministic, with the stated laws, and the command that prints the table."""

from collections.abc import Callable

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from bot.cli import app
from bot.core.errors import UsageError
from bot.research.controls import RIGHT, Outcome, faults, run_all, table
from strategies.learning.controls import KINDS, SHARE_UP, World, bayes_accuracy


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_windows_and_another_seed_others(kind):
    first, again, other = (World(seed).task(kind, 200, 100, 40, 60) for seed in (0, 0, 1))

    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.x, same.x)
        np.testing.assert_array_equal(one.y, same.y)
        assert not np.array_equal(one.x, different.x)
        assert one.x.dtype == np.float32
        assert one.y.dtype == np.int64
        assert set(np.unique(one.y)) <= {0, 1}


def test_matured_windows_are_the_newest_of_the_target_and_the_test_comes_after():
    task = World(0).task("drifting", 200, 100, 40, 60)

    np.testing.assert_array_equal(task.matured.x, task.target.x[-40:])
    assert not (task.test.x[0] == task.target.x).all(axis=(1, 2)).any()


def test_the_bayes_rule_reaches_its_accuracy_and_no_more():
    """The rule that knows the directions: the sign of the recent first pressure."""
    world = World(3)
    windows = world.windows("none", 20_000, 9)
    reading = (windows.x @ world._axes.T)[..., 0]
    weight = 0.8 ** np.arange(world.bars - 1, -1, -1)

    accuracy = np.mean((reading @ weight > 0) == windows.y)

    assert accuracy == pytest.approx(bayes_accuracy("none"), abs=0.007)


def test_label_shift_changes_the_share_and_not_what_the_classes_look_like():
    world = World(0)
    shifted, plain = world.windows("label_shift", 8000, 2), world.windows("none", 8000, 3)

    assert shifted.y.mean() == pytest.approx(SHARE_UP, abs=0.02)
    for label in (0, 1):
        difference = shifted.x[shifted.y == label].mean(0) - plain.x[plain.y == label].mean(0)
        assert np.abs(difference).max() < 0.12
    assert bayes_accuracy("label_shift") > bayes_accuracy("none")


def test_reversed_is_covariate_with_every_label_turned():
    world = World(0)

    right, wrong = world.windows("covariate", 300, 2), world.windows("reversed", 300, 2)

    np.testing.assert_array_equal(right.x, wrong.x)
    np.testing.assert_array_equal(right.y, 1 - wrong.y)


def outcome(kind: str, verdict: str, seed: int = 0, **changes: float) -> Outcome:
    return Outcome(kind, seed, 0.65, 0.88, 0.82, 0.66, 0.0, 0.3, 0.001, verdict)._replace(**changes)


def test_the_table_tells_right_from_wrong_verdicts():
    rows = [outcome("covariate", "adapted", 0), outcome("covariate", "adapted", 1)]
    rows.append(outcome("reversed", "adapted", 0))
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115

    console.print(table(rows, "mmd"))

    text = console.export_text()
    assert "adapted 2 (right)" in text
    assert "adapted 1 (1 wrong)" in text
    assert f"{(0.88 - 0.65) / (bayes_accuracy('covariate') - 0.65):.3f} ±0.000" in text


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            outcome("covariate", "adapted", adapted=0.83),
            "covariate: 69.0% of the loss won back, 75% at least",
        ),
        (
            outcome("covariate", "adapted", detached=0.7),
            "covariate: 19.2% won back with the alignment detached",
        ),
        (outcome("none", "frozen", adapted=0.63), "none: adapting loses 2.0%, 1.5% at most"),
        (outcome("label_shift", "frozen", adapted=0.61), "label_shift: adapting loses 4.0%, 3.0% at most"),
        (outcome("label_shift", "frozen", lost_bare=0.2), "label_shift: adapting loses 20.0%, without the"),
        (outcome("drifting", "frozen"), "drifting, seed 0: frozen, where adapted is right"),
    ],
)
def test_a_wrong_verdict_and_a_mean_beyond_its_bound_are_faults(broken: Outcome, message: str):
    sound = {"adapted": 0.88, "detached": 0.66, "lost_bare": 0.0, "verdict": RIGHT[broken.kind][0]}

    assert faults([broken._replace(**sound)]) == []
    (fault,) = faults([broken])
    assert fault.startswith(message)


@pytest.mark.parametrize(("reached", "code"), [(0.88, 0), (0.83, 4)])
def test_the_command_ends_with_4_for_a_fault_and_says_what_its_means_are_of(monkeypatch, reached, code):
    seen = [outcome("covariate", "adapted", seed, adapted=reached) for seed in range(2)]
    monkeypatch.setattr("bot.research.controls.run_all", lambda *_: iter(seen))

    few = CliRunner().invoke(app, ["controls", "--kinds", "covariate", "--seeds", "2"])
    enough = CliRunner().invoke(app, ["controls", "--kinds", "covariate"])

    assert few.exit_code == enough.exit_code == code
    assert ("75% at least are asked for" in few.output) == (code == 4)
    assert "Means of 2 seeds; with 5 they miss their bounds less by chance." in few.output
    assert "Means of" not in enough.output


def test_a_world_of_too_few_sensors_is_a_usage_error():
    with pytest.raises(UsageError, match="5 sensors; a world needs 6"):
        World(0, sensors=5)


def test_an_unknown_kind_is_a_usage_error_that_names_the_others():
    result = CliRunner().invoke(app, ["controls", "--kinds", "sideways"])

    assert result.exit_code == 2
    assert "no kind sideways; choose from covariate" in result.output


@pytest.mark.campaign
def test_five_seeds_of_every_kind_are_judged_right_and_reach_their_figures():
    outcomes = list(run_all(KINDS, 5, "mmd", 2))

    def mean(kind: str, value: Callable[[Outcome], float]) -> float:
        return float(np.mean([value(one) for one in outcomes if one.kind == kind]))

    assert [one for one in outcomes if one.verdict not in RIGHT[one.kind]] == []
    assert mean("covariate", lambda one: one.won_back(one.adapted)) >= 0.75
    assert abs(mean("covariate", lambda one: one.won_back(one.detached))) < 0.1
    assert mean("none", lambda one: one.frozen - one.adapted) <= 0.015
    assert mean("label_shift", lambda one: one.frozen - one.adapted) <= 0.03
    assert mean("label_shift", lambda one: one.lost_bare) <= 0.03
    assert faults(outcomes) == []
