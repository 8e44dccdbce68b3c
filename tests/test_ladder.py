"""The listing ladder: one step up at a time, by evidence; down at once."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.types import Stage
from bot.settings import Gate
from strategies.ladder import Evidence, climb

GATE = Gate()


def evidence(**changes: Any) -> Evidence:
    values: dict[str, Any] = {
        "ready": True, "similarity": 0.9, "effective_labels": 150.0, "e_value": 25.0, "recent_skill": 0.01,
        "source_accuracy": 0.66, "overconfidence": 0.0, "reversal": 0.0, "calm": 4,
    }  # fmt: skip
    return Evidence(**{**values, **changes})


def test_a_token_is_only_observed_until_its_features_are_ready() -> None:
    assert climb(Stage.OBSERVE, evidence(ready=False), GATE)[0] is Stage.OBSERVE
    thin = evidence(trouble=("turnover of 5 a day < 1,000,000",))
    assert climb(Stage.OBSERVE, thin, GATE) == (Stage.OBSERVE, thin.trouble)
    assert climb(Stage.OBSERVE, evidence(), GATE)[0] is Stage.SHADOW


def test_no_step_is_skipped_however_strong_the_evidence() -> None:
    strong = evidence(e_value=1e9, effective_labels=1e4)
    stages = [Stage.OBSERVE]
    for _ in range(3):
        stages.append(climb(stages[-1], strong, GATE)[0])
    assert stages == [Stage.OBSERVE, Stage.SHADOW, Stage.SMALL, Stage.FULL]


@pytest.mark.parametrize(
    ("lack", "reason"),
    [
        ({"similarity": 0.69}, "similarity 0.69 < 0.7"),
        ({"similarity": math.nan}, "similarity not measured yet"),
        ({"effective_labels": 99.0}, "99 of 100 effective labels"),
        ({"e_value": 19.9}, "evidence 19.9 < 20"),
        ({"e_value": math.nan}, "evidence nan < 20"),
        ({"source_accuracy": 0.59}, "source accuracy 0.590 < 0.6"),
        ({"overconfidence": 0.06}, "overconfident by 0.060 > 0.05"),
        ({"overconfidence": math.nan}, "overconfident by nan > 0.05"),
        ({"calm": 3}, "3 of 4 bars without trouble"),
        ({"trouble": ("depth 3 < 250",)}, "depth 3 < 250"),
        ({"ready": False}, "the features are not ready"),
        ({"recent_skill": -0.001}, "recent log-loss skill -0.0010 < 0"),
    ],
)
def test_each_lack_keeps_a_token_in_shadow_and_is_told(lack: dict[str, Any], reason: str) -> None:
    stage, reasons = climb(Stage.SHADOW, evidence(**lack), GATE)
    assert stage is Stage.SHADOW
    assert any(reason in text for text in reasons)


@pytest.mark.parametrize("stage", [Stage.SMALL, Stage.FULL])
@pytest.mark.parametrize(
    "fault",
    [
        {"similarity": 0.5}, {"recent_skill": -0.01}, {"similarity": math.nan}, {"reversal": 20.0},
        {"trouble": ("spread 0.900% > 0.500%",)}, {"ready": False},
    ],
)  # fmt: skip
def test_a_fault_throws_back_to_shadow_at_once(stage: Stage, fault: dict[str, Any]) -> None:
    assert climb(stage, evidence(e_value=1e9, **fault), GATE)[0] is Stage.SHADOW


def test_the_whole_size_needs_more_evidence_and_skill_that_lasts() -> None:
    assert climb(Stage.SMALL, evidence(e_value=399), GATE)[0] is Stage.SMALL
    assert climb(Stage.SMALL, evidence(e_value=401, recent_skill=math.nan), GATE)[0] is Stage.SMALL
    assert climb(Stage.SMALL, evidence(e_value=401), GATE)[0] is Stage.FULL


@pytest.mark.parametrize("stage", Stage)
def test_a_suspension_is_at_once_and_ends_at_the_bottom(stage: Stage) -> None:
    assert climb(stage, evidence(e_value=1e9, suspended="delisted"), GATE) == (Stage.SUSPENDED, ("delisted",))
    assert climb(Stage.SUSPENDED, evidence(e_value=1e9), GATE)[0] is Stage.OBSERVE


ORDER = (Stage.SUSPENDED, Stage.OBSERVE, Stage.SHADOW, Stage.SMALL, Stage.FULL)
NUMBERS = st.one_of(st.just(math.nan), st.floats(0, 1))
EVIDENCE = st.builds(
    Evidence,
    ready=st.booleans(),
    similarity=NUMBERS,
    effective_labels=st.floats(0, 1e3),
    e_value=st.one_of(st.just(math.nan), st.floats(0, 1e3)),
    recent_skill=st.one_of(st.just(math.nan), st.floats(-0.1, 0.1)),
    overconfidence=st.one_of(st.just(math.nan), st.floats(0, 0.1)),
    source_accuracy=st.floats(0.5, 0.7),
    reversal=st.floats(0, 30),
    calm=st.integers(0, 10),
    trouble=st.sampled_from([(), ("depth 3 < 250",), ("the book is stale", "bars are missing")]),
    suspended=st.sampled_from(["", "", "", "delisting announced"]),
)
CONVINCING = st.builds(
    evidence,
    e_value=st.floats(400, 1e6),
    effective_labels=st.floats(100, 1e4),
    calm=st.integers(3, 9),
    trouble=st.sampled_from([(), (), ("spread",)]),
    suspended=st.sampled_from(["", "", "", "breaker"]),
)


def is_sound(seen: Evidence) -> bool:
    """What a token that trades must have at every bar, spelled out once more."""
    return (
        not seen.suspended
        and not seen.trouble
        and seen.ready
        and seen.similarity >= GATE.similarity
        and seen.reversal < GATE.evidence
        and not seen.recent_skill < 0
    )


@given(st.lists(st.one_of(EVIDENCE, CONVINCING), max_size=60))
def test_whatever_comes_it_never_skips_a_step_upwards_and_falls_at_once(life: list[Evidence]) -> None:
    stage = Stage.OBSERVE
    for seen in life:
        before, (stage, reasons) = stage, climb(stage, seen, GATE)
        assert ORDER.index(stage) <= ORDER.index(before) + 1
        if stage is not before:
            assert all(reasons), "every transition says why"
            assert reasons
        if seen.suspended:
            assert stage is Stage.SUSPENDED
        elif before in (Stage.SMALL, Stage.FULL) and not is_sound(seen):
            assert stage is Stage.SHADOW
        if stage in (Stage.SMALL, Stage.FULL):
            assert is_sound(seen)
        if ORDER.index(stage) > ORDER.index(before) > ORDER.index(Stage.OBSERVE):
            assert seen.effective_labels >= GATE.effective_labels
            assert seen.e_value >= (GATE.evidence if stage is Stage.SMALL else GATE.full_evidence)
            assert seen.source_accuracy >= GATE.source_accuracy
            assert seen.overconfidence <= GATE.overconfidence
            assert seen.calm >= GATE.calm_bars


@given(st.lists(CONVINCING, min_size=5, max_size=30))
def test_who_stays_convincing_and_undisturbed_arrives_at_the_top(life: list[Evidence]) -> None:
    """So the property above is not true for want of a way up."""
    stage = Stage.SUSPENDED
    quiet = [replace(seen, trouble=(), suspended="", calm=9) for seen in life]
    for seen in quiet:
        stage, _ = climb(stage, seen, GATE)
    assert stage is Stage.FULL
