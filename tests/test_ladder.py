"""The listing ladder: one step up at a time, by evidence; down at once."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.types import Stage
from bot.settings import Gate
from strategies.ladder import Evidence, climb

GATE = Gate()


def evidence(**changes: float) -> Evidence:
    values: dict[str, float] = {
        "ready": True, "similarity": 0.9, "effective_labels": 150.0, "e_value": 25.0, "recent_skill": 0.01,
        "source_accuracy": 0.66,
    }  # fmt: skip
    return Evidence(**{**values, **changes})  # type: ignore[arg-type]


def test_a_token_is_only_observed_until_its_features_are_ready() -> None:
    assert climb(Stage.OBSERVE, evidence(ready=False), GATE)[0] is Stage.OBSERVE
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
        ({"recent_skill": -0.001}, "recent log-loss skill -0.0010 < 0"),
    ],
)
def test_each_lack_keeps_a_token_in_shadow_and_is_told(lack: dict[str, float], reason: str) -> None:
    stage, reasons = climb(Stage.SHADOW, evidence(**lack), GATE)
    assert stage is Stage.SHADOW
    assert any(reason in text for text in reasons)


@pytest.mark.parametrize("stage", [Stage.SMALL, Stage.FULL])
@pytest.mark.parametrize("fault", [{"similarity": 0.5}, {"recent_skill": -0.01}, {"similarity": math.nan}])
def test_a_fault_throws_back_to_shadow_at_once(stage: Stage, fault: dict[str, float]) -> None:
    assert climb(stage, evidence(e_value=1e9, **fault), GATE)[0] is Stage.SHADOW


def test_the_whole_size_needs_more_evidence_and_skill_that_lasts() -> None:
    assert climb(Stage.SMALL, evidence(e_value=399), GATE)[0] is Stage.SMALL
    assert climb(Stage.SMALL, evidence(e_value=401, recent_skill=math.nan), GATE)[0] is Stage.SMALL
    assert climb(Stage.SMALL, evidence(e_value=401), GATE)[0] is Stage.FULL


@given(
    stage=st.sampled_from(Stage), similarity=st.floats(0, 1), labels=st.floats(0, 1e4),
    e_value=st.floats(0, 1e6), recent=st.floats(-1, 1), source=st.floats(0.4, 0.9), ready=st.booleans(),
)  # fmt: skip
def test_no_token_trades_while_a_condition_fails(
    stage: Stage, similarity: float, labels: float, e_value: float, recent: float, source: float, ready: bool
) -> None:
    seen = Evidence(ready, similarity, labels, e_value, recent, source)
    after, reasons = climb(stage, seen, GATE)
    if after in (Stage.SMALL, Stage.FULL):
        assert similarity >= GATE.similarity
        assert recent >= 0
    if after is Stage.SMALL and stage is Stage.SHADOW:
        assert labels >= GATE.effective_labels
        assert e_value >= GATE.evidence
        assert source >= GATE.source_accuracy
    if after is not stage:
        assert reasons
    assert climb(Stage.SUSPENDED, seen, GATE)[0] is Stage.SUSPENDED
