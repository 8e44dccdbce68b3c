"""`bot study` on a small folder of bars with a planted momentum: causal, resumable, deterministic, judged."""

import json
import re
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from bot.commands.study_run import _arms, _remarks
from bot.core.errors import DataError, UsageError
from bot.core.types import DAY_MS
from bot.market.bars import COLUMNS, BarTable
from bot.research import (
    study,
    study_comparisons,
    study_data,
    study_explained,
    study_predictions,
    study_table,
)
from bot.research.bootstrap import ClusterBootstrap, between
from bot.research.study_case import Case
from bot.research.study_data import Market, Study, cuts
from bot.research.study_files import Scores
from bot.research.study_pooled import earlier_listings, shuffled, source_series
from bot.settings import Model
from bot.storage import barfiles
from bot.storage.barfiles import FundingTable
from strategies.learning.calibration import negative_log_likelihood
from strategies.learning.dataset import LabelledSeries
from strategies.learning.few_shot import mixture
from strategies.learning.prior import PSEUDO_LABELS, intercepts
from strategies.learning.skill import weighted_auc
from tests.test_foundation import tiny_bolt

STEP = 15 * 60_000
BEGIN = 1_735_689_600_000  # 2025-01-01
SOURCES = ("BTCUSDT", "ETHUSDT")
LISTED = {"OLDUSDT": 20, "AAAUSDT": 37, "BBBUSDT": 40}  # day of the first bar
DAYS = 55
SINCE = BEGIN + 36 * DAY_MS
ARMS = (
    "base_rate", "lgbm_pooled", "frozen", "chain_head", "prototypes", "lgbm_token", "full", "selected",
    "scratch", "mmd", "class_mmd",
)  # fmt: skip
SMALL = Model(epochs=2, channels=8, blocks=2, pool_bars=4, embedding=8, min_source_bars=500)


def bars(symbol: str, first_day: int, seed: int) -> BarTable:
    """Prices that drift one way for a day or so: the last 96 bars tell the next 16."""
    rng = np.random.default_rng(seed)
    n = (DAYS - first_day) * 96
    direction = np.where(np.cumsum(rng.random(n) < 1 / 120) % 2, 1.0, -1.0)
    returns = 0.004 * (0.3 * direction + rng.standard_normal(n))
    close = 100.0 * np.exp(np.cumsum(returns))
    opened = np.concatenate(([100.0], close[:-1]))
    wick = 0.001 * rng.random((2, n))
    volume = np.exp(rng.normal(8.0, 0.3, n))
    return BarTable(
        symbol,
        STEP,
        BEGIN + first_day * DAY_MS + STEP * np.arange(n),
        opened,
        np.maximum(opened, close) * (1 + wick[0]),
        np.minimum(opened, close) * (1 - wick[1]),
        close,
        volume,
        np.full(n, np.nan),
    )


def folder(path: Path) -> Path:
    for seed, (symbol, day) in enumerate({**dict.fromkeys(SOURCES, 0), **LISTED}.items()):
        barfiles.write(path, bars(symbol, day, seed))
    return path


def planned(data: Path, output: Path, **changes) -> Study:
    return study_data.plan(
        data, output, SOURCES, **{"since": SINCE, "days": (3, 8), "model": SMALL} | changes
    )


class Told:
    """Counts what was told."""

    def __init__(self) -> None:
        self.wanted = self.finished = 0.0

    def total(self, seconds: float) -> None:
        self.wanted = seconds

    def done(self, seconds: float, what: str) -> None:
        self.finished += seconds


def predicted(one: Study, processes: int, *, twins: int) -> pd.DataFrame:
    told = Told()
    study.run(one, ARMS, processes, told, twins)
    assert told.finished == pytest.approx(told.wanted)
    path = one.output / "predictions.parquet"
    study_predictions.write(
        path, (p for token in one.tokens for p in study_predictions.of_token(one, token, ARMS))
    )
    return pd.read_parquet(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("bars"))


@pytest.fixture(scope="module")
def prepared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Its rows are there, and nothing else."""
    one = planned(data, tmp_path_factory.mktemp("prepared"))
    for symbol in (*SOURCES, *LISTED):
        study_data.prepare(one, symbol)
    return one


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, pd.DataFrame]:
    one = planned(data, tmp_path_factory.mktemp("study"))
    return one, predicted(one, 2, twins=1)


def test_tokens_are_those_first_seen_in_the_range(data, tmp_path):
    assert planned(data, tmp_path).tokens == ("AAAUSDT", "BBBUSDT")
    assert planned(data, tmp_path, since=BEGIN + 39 * DAY_MS).tokens == ("BBBUSDT",)
    assert [symbol for symbol, _ in planned(data, tmp_path).listings] == list(LISTED)


def test_every_decision_of_the_evaluated_days_is_there_for_every_arm(done):
    one, predictions = done
    arms = set(predictions["arm"].unique())
    for arm in set(ARMS) - {"base_rate"}:
        assert {arm, f"{arm}+prior", f"{arm}~shuffled", f"{arm}+prior~shuffled"} <= arms
    assert {"base_rate", "pooled_rate", "always_short", "ensemble", "ensemble~shuffled"} <= arms
    for symbol in one.tokens:
        first = BEGIN + LISTED[symbol] * DAY_MS
        wanted = first + 3 * DAY_MS + STEP * np.arange(6 * 96)
        for _, rows in predictions[predictions["token"] == symbol].groupby("arm", observed=True):
            np.testing.assert_array_equal(rows["t"], wanted)


def test_columns_mean_what_they_say(done):
    _, predictions = done
    assert list(predictions.columns) == [
        "token", "t", "arm", "p_up", "confidence", "similarity", "known_until",
    ]  # fmt: skip
    assert predictions["p_up"].between(0, 1, inclusive="neither").all()
    np.testing.assert_array_equal(
        predictions["confidence"], np.maximum(predictions["p_up"], 1 - predictions["p_up"])
    )
    assert (predictions["known_until"] <= predictions["t"]).all()
    assert (predictions[predictions["arm"] == "always_short"]["p_up"] < 0.5).all()


def test_a_label_is_the_sign_of_the_return_from_the_next_open_to_the_last_close(done):
    one, _ = done
    table = barfiles.read(one.data / "AAAUSDT" / "15m.parquet")
    market = Market.load(one, "AAAUSDT")
    row = 500
    at = int(np.searchsorted(table.start, market.series.starts[row]))
    expected = table.close[at + 16] / table.open[at + 1] - 1
    assert market.ret[row] == pytest.approx(expected)
    assert market.series.y[row] == (expected > 0)
    assert market.series.t_known[row] == table.start[at] + 17 * STEP
    assert market.series.weight[row] == pytest.approx(1 / 16)


def rewritten(table: BarTable, moment: int, seed: int) -> BarTable:
    """From the moment on, prices times ten, on another course."""
    late = table.start >= moment
    course = np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.02, len(table)) * late))
    factor = np.where(late, 10.0 * course, 1.0)
    changed = {name: getattr(table, name) * factor for name in ("open", "high", "low", "close")}
    return replace(table, **changed)


def cut_off(table: BarTable, moment: int, seed: int) -> BarTable:
    return table.between(int(table.start[0]), moment)


@pytest.mark.parametrize("happens", [rewritten, cut_off])
def test_nothing_that_happens_later_changes_a_prediction(done, data, tmp_path, happens):
    """All that was said before must be the same, bit for bit, by another number of processes."""
    one, before = done
    moment = BEGIN + 45 * DAY_MS
    for number, symbol in enumerate((*SOURCES, *LISTED)):
        table = barfiles.read(data / symbol / "15m.parquet")
        barfiles.write(tmp_path / "bars", happens(table, moment, number))
    after = predicted(planned(tmp_path / "bars", tmp_path / "study", until=one.until), 1, twins=0)
    keys = ["token", "arm", "t"]
    early = before[before["t"] + STEP <= moment].astype({"token": str, "arm": str})
    both = early.merge(after.astype({"token": str, "arm": str}), on=keys, suffixes=("", "_after"))
    assert len(both) == len(early[~early["arm"].str.contains("~")]) > 5_000
    np.testing.assert_array_equal(both["p_up"], both["p_up_after"])
    late = before[before["t"] > moment + DAY_MS].astype({"token": str, "arm": str})
    other = late.merge(after.astype({"token": str, "arm": str}), on=keys, suffixes=("", "_after"))
    if happens is cut_off:
        assert other.empty
    else:
        assert (
            other["p_up"] != other["p_up_after"]
        ).mean() > 0.8  # always short says the same whatever comes


def test_a_finished_study_is_not_done_again(done):
    one, before = done
    times = {path: path.stat().st_mtime_ns for path in (one.output / "scores").rglob("*.npz")}
    again = predicted(one, 1, twins=1)
    pd.testing.assert_frame_equal(before, again)
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_the_planted_momentum_is_found_and_its_shuffled_twin_finds_nothing(done):
    one, _ = done
    facts = study_table.outcomes(one)
    said = study_table.predicted(one, one.output / "predictions.parquet", facts)
    rows = {row.arm: row for row in study_table.table(one, facts, said) if row.age == "all"}
    pairs = {
        (pair.arm, pair.rival): pair
        for pair in study_comparisons.comparisons(one.days, facts, said)
        if pair.age == "all"
    }
    over_twin = pairs["lgbm_pooled", "lgbm_pooled~shuffled"]
    assert rows["lgbm_pooled"].auc.value > 0.58
    assert over_twin.auc.value > 0
    assert over_twin.auc.value == pytest.approx(
        rows["lgbm_pooled"].auc.value - rows["lgbm_pooled~shuffled"].auc.value
    )
    assert over_twin.skill.low > 0
    assert "predicts better" in over_twin.finding
    assert ("ensemble", "lgbm_pooled+prior") in pairs
    assert rows["base_rate"].skill.value == 0
    assert rows["always_short"].accuracy.value == pytest.approx(rows["always_short"].always_short)
    assert rows["lgbm_pooled"].tokens == 2
    for text, count in (
        (study_table.lines(list(rows.values())), len(rows)),
        (study_comparisons.lines(list(pairs.values())), len(pairs)),
    ):
        assert len(text) == count + 2
        assert len({line.count("|") for line in text}) == 1


def test_a_dozen_twins_of_the_trees_lie_around_a_half(done, tmp_path):
    """One of them may order two tokens' few days by luck."""
    one = replace(done[0], output=tmp_path)
    shutil.copytree(done[0].output / "rows", tmp_path / "rows")
    arms = ("base_rate", "lgbm_pooled")
    study.run(one, arms, 1, Told(), 12)
    path = tmp_path / "predictions.parquet"
    study_predictions.write(
        path, (p for token in one.tokens for p in study_predictions.of_token(one, token, arms))
    )
    facts = study_table.outcomes(one)
    said = study_table.predicted(one, path, facts)
    rows = {row.arm: row for row in study_table.table(one, facts, said) if row.age == "all"}
    twins = rows["lgbm_pooled~shuffled"]
    assert twins.twins == 12
    for estimate in (twins.auc, twins.within):
        assert estimate.low < 0.5 < estimate.high
        assert rows["lgbm_pooled"].auc.value > estimate.high


def test_several_twins_are_one_row_with_the_interval_between_them(done):
    one, _ = done
    facts = study_table.outcomes(one)
    said = study_table.predicted(one, one.output / "predictions.parquet", facts)
    said = {arm: said[arm] for arm in ("base_rate", "lgbm_pooled", "lgbm_pooled~shuffled")}
    rng = np.random.default_rng(0)
    said["lgbm_pooled~shuffled2"] = rng.uniform(0.4, 0.6, len(facts.y))
    by_twin = [
        weighted_auc(said[name], facts.y, np.ones(len(facts.y)))
        for name in ("lgbm_pooled~shuffled", "lgbm_pooled~shuffled2")
    ]

    rows = {row.arm: row for row in study_table.table(one, facts, said) if row.age == "all"}
    twins = rows["lgbm_pooled~shuffled"]
    assert set(rows) == {"base_rate", "lgbm_pooled", "lgbm_pooled~shuffled"}
    assert (rows["lgbm_pooled"].twins, twins.twins) == (0, 2)
    assert twins.auc == between(by_twin)
    assert "lgbm_pooled~shuffled x2" in study_table.lines([twins])[-1]

    (pair,) = (
        pair
        for pair in study_comparisons.comparisons(one.days, facts, said)
        if pair.age == "all" and pair.rival == "lgbm_pooled~shuffled"
    )
    assert pair.auc.value == pytest.approx(rows["lgbm_pooled"].auc.value - np.mean(by_twin))
    assert "0 of 2 twins order as well" in pair.finding


def test_a_twins_ensemble_does_not_choose_by_the_true_labels(done):
    """One member knows every outcome, the other is always wrong: only the true labels tell which."""
    one, _ = done
    token = study_predictions._token(one, "AAAUSDT")
    token = token._replace(y=np.random.default_rng(0).permutation(np.arange(len(token.y)) % 2.0))
    oracle = np.where(token.y > 0.5, 0.9, 0.1)
    members = np.stack([oracle, 1 - oracle])
    half = members.shape[1] // 2

    def likeness(twin: int) -> float:
        mixed = study_predictions._mixed(token, members, twin)
        return float(np.corrcoef(mixed[half:], oracle[half:])[0, 1])

    assert likeness(0) > 0.95
    assert abs(np.mean([likeness(twin) for twin in range(1, 41)])) < 0.25
    assert likeness(1) == likeness(1) != likeness(2)


def test_the_page_shows_every_feature_and_every_domain(done):
    one, _ = done
    page = study_explained.explained(one)
    assert "Permutation importance" in page
    assert "volatility_ratio" in page
    assert all(symbol in page for symbol in (*SOURCES, *one.tokens))
    assert "Embeddings, PCA" in page
    assert "Embeddings, t-SNE" in page
    assert "MMDAgg" in page
    assert page.count("<tr><td>") == 1 + len(one.tokens)  # the other source, and every token


def test_every_configuration_that_was_judged_is_counted(tmp_path):
    """Two runs into one folder: the second one's best is the best of both."""
    rows = [SimpleNamespace(arm=arm) for arm in ("frozen", "frozen+prior", "chain")]
    assert _remarks(tmp_path, rows[:2])[0].startswith("2 configurations judged, 2 in this folder")
    assert _remarks(tmp_path, rows[2:])[0].startswith("1 configurations judged, 3 in this folder")


def test_pooled_models_are_fitted_at_the_beginning_and_then_every_month(data, tmp_path):
    moments = cuts(planned(data, tmp_path))
    assert [pd.Timestamp(cut, unit="ms").strftime("%m-%d") for cut in moments] == ["02-06", "03-01"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"since": BEGIN}, "after the first bars of the sources"),
        ({"since": BEGIN + 50 * DAY_MS}, "no token"),
        ({"tokens": ("NOPEUSDT",)}, "NOPEUSDT: no bars"),
        ({"tokens": ("AAAUSDT", "BTCUSDT")}, "BTCUSDT is a source"),
        ({"interval": 5 * 60_000, "tokens": ("AAAUSDT",)}, "no bars that make up decision bars of 5 minutes"),
    ],
)
def test_a_range_that_leaves_nothing_is_refused(data, tmp_path, changes, message):
    with pytest.raises((UsageError, DataError), match=message):
        planned(data, tmp_path, **changes)


def test_a_token_of_coarse_bars_only_is_named_with_what_it_has(data, tmp_path):
    shutil.copytree(data, tmp_path / "bars")
    hourly = bars("HOURUSDT", 37, 9).resampled(4 * STEP)
    barfiles.write(tmp_path / "bars", hourly)
    why = "HOURUSDT: its bars (1h) make up no decision bar; choose another --interval"
    one = planned(tmp_path / "bars", tmp_path / "study")
    assert study_data.left_out(one, ()) == [why]
    with pytest.raises(UsageError, match=re.escape(why)):
        planned(tmp_path / "bars", tmp_path / "study", tokens=("AAAUSDT", "HOURUSDT"))


def test_a_token_that_was_asked_for_and_lies_outside_the_range_is_named(data, tmp_path):
    one = planned(data, tmp_path, tokens=("OLDUSDT", "AAAUSDT"))
    assert one.tokens == ("AAAUSDT",)
    (note,) = study_data.left_out(one, ("OLDUSDT", "AAAUSDT"))
    assert note.startswith("OLDUSDT: its first bar is not in the range")


def test_a_token_begins_with_its_first_whole_decision_bar(data, tmp_path):
    """Its first five-minute bar lies in January, its first decision bar in February: one cut, one chain."""
    shutil.copytree(data, tmp_path / "bars")
    february = BEGIN + 31 * DAY_MS
    quarter = bars("FINEUSDT", 31, 9)
    columns = {name: np.repeat(getattr(quarter, name), 3) for name in COLUMNS}
    starts = february - 2 * STEP // 3 + STEP // 3 * np.arange(3 * len(quarter))
    barfiles.write(tmp_path / "bars", BarTable("FINEUSDT", STEP // 3, starts, **columns))
    one = planned(
        tmp_path / "bars", tmp_path / "study", since=BEGIN + 29 * DAY_MS, tokens=("FINEUSDT",), days=(3, 4)
    )
    assert dict(one.listings)["FINEUSDT"] == february
    jobs = [job for stage in study._stages(one, ("base_rate", "chain"), 0) for job in stage]
    assert [job.cut for job in jobs if job.stage == "chain"] == [february]
    assert study_data.bars_of(one, "FINEUSDT").start[0] == february


# --- files, rows, labels -----------------------------------------------------------------------------------


def test_a_folder_holds_one_study(data, tmp_path):
    study.claim(planned(data, tmp_path))
    study.claim(planned(data, tmp_path, tokens=("AAAUSDT",)))  # more tokens may be added
    with pytest.raises(UsageError, match="another study, by its horizon; choose another --output"):
        study.claim(planned(data, tmp_path, horizon=8))


def test_a_study_whose_bars_have_changed_is_refused(data, tmp_path):
    """Bars that are added to a token leave range and listings what they were."""
    shutil.copytree(data, tmp_path / "bars")
    one = planned(tmp_path / "bars", tmp_path / "study")
    study.claim(one)
    path = tmp_path / "bars" / "BBBUSDT" / "15m.parquet"
    path.write_bytes(path.read_bytes())
    study.claim(one)  # the same bytes, written later
    table = barfiles.read(path)
    barfiles.write(tmp_path / "bars", table.between(int(table.start[0]), int(table.start[-1])))
    with pytest.raises(UsageError, match=r"by its files; .*\n  BBBUSDT/15m.parquet is not what it was$"):
        study.claim(planned(tmp_path / "bars", tmp_path / "study"))


def test_a_study_whose_funding_rates_have_changed_is_refused(data, tmp_path):
    rates = FundingTable("AAAUSDT", BEGIN + 8 * 3_600_000 * np.arange(9), np.full(9, 1e-4))
    barfiles.write_funding(tmp_path / "funding", rates)
    one = planned(data, tmp_path / "study", funding=tmp_path / "funding")
    study.claim(one)
    barfiles.write_funding(tmp_path / "funding", replace(rates, rate=-rates.rate))
    with pytest.raises(UsageError, match=r"funding AAAUSDT.parquet is not what it was"):
        study.claim(one)


def test_scores_of_an_earlier_version_are_not_mixed_with_those_of_this_one(data, tmp_path):
    one = planned(data, tmp_path)
    study.claim(one)
    told = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps(told | {"scoring": told["scoring"] - 1}))
    with pytest.raises(UsageError, match="holds another study, by its scoring; choose another --output"):
        study.claim(one)


def test_labels_that_matured_less_than_an_embargo_before_a_cut_are_not_learnt(prepared):
    cut, token = BEGIN + 44 * DAY_MS, Market.load(prepared, "AAAUSDT")
    case = Case(prepared, token, token.series, 0)
    learnt = [
        case.learnt(cut),
        *source_series(prepared, cut, np.arange(token.series.x.shape[1]), 0),
        *earlier_listings(prepared, cut),
    ]
    assert len(learnt) == 6
    assert prepared.embargo == 4 * STEP
    for series in learnt:
        assert series.t_known[series.y >= 0].max() == cut - 4 * STEP


def test_tokens_without_a_bar_to_judge_are_named_and_nothing_to_judge_is_an_error(prepared):
    facts = study_table.outcomes(prepared)
    assert study_table.not_judged(prepared, facts) == []
    late = replace(prepared, days=(16, 17))
    assert study_table.not_judged(late, study_table.outcomes(late)) == ["BBBUSDT"]
    with pytest.raises(DataError, match="no bar of any token can be judged"):
        study_table.outcomes(replace(prepared, days=(30, 40)))


# --- calibration -------------------------------------------------------------------------------------------


def taught(seed: int, scale: float, truth: float) -> tuple[study_predictions._Token, Scores]:
    """A token of 40 days and an arm: its scores vary by `scale`, the true log odds are `truth` times them."""
    rng = np.random.default_rng(seed)
    n = 40 * 96
    said = scale * rng.standard_normal(n)
    y = (rng.random(n) < expit(truth * said)).astype(float)
    starts, weight, nothing = STEP * np.arange(n), np.full(n, 1 / 4), np.zeros(n, np.float32)
    series = LabelledSeries(
        "AAAUSDT", STEP, starts, np.zeros((n, 1), np.float32), y.astype(np.int8), weight, nothing, starts
    )
    market = Market(series, np.zeros(n), 0, starts)
    known = np.maximum(np.arange(n) - 16, 0)
    token = study_predictions._Token(SimpleNamespace(seed=1), "AAAUSDT", market, y, weight, known)
    return token, Scores(said, np.full(n, 0.5), np.full(n, np.nan), starts)


def loss(score: np.ndarray, y: np.ndarray) -> float:
    return negative_log_likelihood(score[288:], y[288:])


@pytest.mark.parametrize("scale", [0.5, 1.5, 3.0])
def test_an_arm_that_is_too_sure_costs_no_more_than_saying_nothing(scale):
    token, scores = taught(1, scale, 0.0)
    calibrated = study_predictions._calibrated(token, scores, 0)
    assert loss(scores.raw, token.y) > np.log(2) + 0.02
    assert loss(calibrated, token.y) < np.log(2) + 0.01


@pytest.mark.parametrize("scale", [0.1, 0.4, 1.0])
def test_an_arm_that_means_what_it_says_is_left_alone(scale):
    token, scores = taught(2, scale, 1.0)
    calibrated = study_predictions._calibrated(token, scores, 0)
    assert loss(calibrated, token.y) == pytest.approx(loss(scores.raw, token.y), abs=0.001)


def test_an_arm_that_is_too_timid_is_not_sharpened():
    token, scores = taught(5, 0.5, 3.0)
    calibrated = study_predictions._calibrated(token, scores, 0)
    np.testing.assert_allclose(calibrated[960:], scores.raw[960:])


def test_an_arm_is_calibrated_about_the_share_of_its_training():
    token, scores = taught(3, 3.0, 0.0)
    calibrated = study_predictions._calibrated(
        token, scores._replace(raw=scores.raw + logit(0.3), share=np.full(len(token.y), 0.3)), 0
    )
    assert expit(calibrated[-960:]).mean() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("twin", [0, 1])
@pytest.mark.parametrize("cut", [500, 1_000, 1_900])
def test_a_later_label_changes_no_slope(twin, cut):
    token, scores = taught(4, 1.0, 0.5)
    poisoned = token._replace(y=np.where(np.arange(len(token.y)) < cut, token.y, 1 - token.y))
    before = study_predictions._calibrated(token, scores, twin)
    after = study_predictions._calibrated(poisoned, scores, twin)
    np.testing.assert_array_equal(before[: cut + 17], after[: cut + 17])
    assert (before[cut + 113 :] != after[cut + 113 :]).all()


def test_a_twins_slope_learns_nothing():
    """Half the tokens' scores are right and half are reversed: true labels tell which, a twin's do not."""
    arms = [taught(seed, 0.5, 1.0 if seed % 2 else -1.0) for seed in range(12)]

    def auc(twin: int) -> float:
        said = [study_predictions._calibrated(token, scores, twin)[960:] for token, scores in arms]
        y = np.concatenate([token.y[960:] for token, _ in arms])
        return weighted_auc(np.concatenate(said), y, np.ones(len(y)))

    assert auc(0) > 0.53
    assert np.mean([auc(twin) for twin in range(1, 9)]) == pytest.approx(0.5, abs=0.01)


# --- the prior and the ensemble ----------------------------------------------------------------------------


def test_the_intercept_finds_a_tokens_own_share_of_ups():
    rng = np.random.default_rng(1)
    y = (rng.random(4_000) < 0.3).astype(float)
    known = np.maximum(np.arange(4_000) - 16, 0)
    b = intercepts(np.zeros(4_000), y, np.ones(4_000), known, np.zeros(4_000))
    assert b[:16].tolist() == [0.0] * 16
    assert 1 / (1 + np.exp(-b[-1])) == pytest.approx(0.3, abs=0.03)


def test_overlapping_labels_move_the_intercept_by_their_uniqueness_only():
    y, known, nothing = np.zeros(320), np.maximum(np.arange(320) - 16, 0), np.zeros(320)
    whole = intercepts(nothing, y, np.ones(320), known, nothing)
    thin = intercepts(nothing, y, np.full(320, 1 / 16), known, nothing)
    assert whole[-1] < thin[-1] < 0
    assert 1 / (1 + np.exp(-thin[-1])) == pytest.approx(PSEUDO_LABELS / (PSEUDO_LABELS + 19) / 2, abs=0.01)


@given(st.integers(0, 2**32 - 1), st.integers(40, 200))
def test_labels_that_are_not_known_yet_change_nothing(seed: int, cut: int):
    rng = np.random.default_rng(seed)
    n = 240
    score, y, weight = rng.normal(size=n), (rng.random(n) < 0.5).astype(float), rng.random(n)
    known = np.maximum(np.arange(n) - 16, 0)
    poisoned = np.where(np.arange(n) < cut, y, 1 - y)
    a = intercepts(score, y, weight, known, np.zeros(n))
    b = intercepts(score, poisoned, weight, known, np.zeros(n))
    np.testing.assert_array_equal(a[: cut + 17], b[: cut + 17])
    p = rng.random((3, n))
    mixed, other = mixture(p, y, weight, known), mixture(p, poisoned, weight, known)
    np.testing.assert_array_equal(mixed[: cut + 17], other[: cut + 17])
    assert ((mixed >= p.min(axis=0) - 1e-12) & (mixed <= p.max(axis=0) + 1e-12)).all()


def test_the_mixture_believes_the_arm_that_was_right():
    y = np.tile([0.0, 1.0], 200)
    p = np.stack([0.1 + 0.8 * y, 0.9 - 0.8 * y])
    mixed = mixture(p, y, np.ones(400), np.maximum(np.arange(400) - 16, 0))
    assert mixed[:16] == pytest.approx(0.5)
    assert np.abs(mixed[-16:] - p[0, -16:]).max() < 1e-6


def test_a_twins_labels_change_places_and_nothing_else():
    n = 200
    y = np.where(np.arange(n) % 5 == 0, -1, np.arange(n) % 2).astype(np.int8)
    series = LabelledSeries(
        "AAAUSDT", STEP, STEP * np.arange(n), np.zeros((n, 2), np.float32), y, np.ones(n, np.float32),
        np.zeros(n, np.float32), STEP * np.arange(n),
    )  # fmt: skip
    (twin,) = shuffled([series], 3)
    np.testing.assert_array_equal(twin.y < 0, y < 0)
    assert twin.y.sum() == y.sum()
    assert (twin.y != y).mean() > 0.2
    np.testing.assert_array_equal(twin.y, shuffled([series], 3)[0].y)


def test_among_several_series_a_twin_keeps_no_drift_of_any():
    n = 1_000
    falls, rises = (
        LabelledSeries(
            "AAAUSDT", STEP, STEP * np.arange(n), np.zeros((n, 2), np.float32), y.astype(np.int8),
            np.ones(n, np.float32), np.zeros(n, np.float32), STEP * np.arange(n),
        )
        for y in (np.arange(n) < 100, np.arange(n) < 900)
    )  # fmt: skip
    twins = shuffled([falls, rises], 3)
    assert [len(one) for one in twins] == [n, n]
    assert sum(int(one.y.sum()) for one in twins) == 1_000
    assert all(one.y.mean() == pytest.approx(0.5, abs=0.05) for one in twins)


# --- the table ---------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_the_auc_is_exact_and_its_resamples_are_near_the_exact_ones(seed: int):
    rng = np.random.default_rng(seed)
    n = 600
    y = (rng.random(n) < 0.45).astype(float)
    p = np.round(rng.random(n) + 0.2 * y, 2)  # ties
    bootstrap = ClusterBootstrap.by_day(DAY_MS * rng.integers(0, 12, n), 8)
    estimate, draws = study_table.auc_draws(p, y, bootstrap)
    assert estimate.value == pytest.approx(weighted_auc(p, y, np.ones(n)))
    exact = [weighted_auc(p, y, counts[bootstrap.cluster]) for counts in bootstrap.counts]
    np.testing.assert_allclose(draws, exact, atol=2e-3)


@given(st.integers(0, 2**32 - 1))
def test_within_tokens_the_auc_is_the_mean_over_their_pairs_and_knows_no_level(seed: int):
    rng = np.random.default_rng(seed)
    token = np.repeat([3, 7, 9], [200, 300, 100])
    share = np.repeat([0.3, 0.5, 0.8], [200, 300, 100])
    y = (rng.random(600) < share).astype(float)
    p = share + 0.1 * rng.random(600)  # knows the tokens and nothing of their bars
    bootstrap = ClusterBootstrap.by_day(DAY_MS * rng.integers(0, 12, 600), 8)
    pooled, _ = study_table.auc_draws(p, y, bootstrap)
    within, draws = study_table.auc_draws(p, y, bootstrap, token)

    def exact(weight: np.ndarray) -> float:
        won = pairs = 0.0
        for one in np.unique(token):
            rows = token == one
            count = (weight[rows] @ y[rows]) * (weight[rows] @ (1 - y[rows]))
            won += weighted_auc(p[rows], y[rows], weight[rows]) * count
            pairs += count
        return won / pairs

    assert within.value == pytest.approx(exact(np.ones(600)))
    np.testing.assert_allclose(draws, [exact(c[bootstrap.cluster]) for c in bootstrap.counts], atol=2e-3)
    assert within.value < pooled.value - 0.05


KLINES = Path(__file__).parents[2] / "shared" / "data" / "klines" / "binance-usdm"


@pytest.mark.campaign
@pytest.mark.skipif(not KLINES.exists(), reason=f"recorded market data is not at {KLINES}")
def test_a_real_listing_is_judged_from_its_third_day_on(tmp_path):
    data = tmp_path / "bars"
    for symbol in (*SOURCES, "CGPTUSDT", "SONICUSDT", "VINEUSDT"):
        shutil.copytree(KLINES / symbol, data / symbol)
    one = study_data.plan(
        data, tmp_path / "study", SOURCES, since=1_736_121_600_000, days=(3, 14), model=SMALL
    )
    assert one.tokens
    predictions = predicted(one, 2, twins=0)
    assert (predictions["known_until"] <= predictions["t"]).all()
    facts = study_table.outcomes(one)
    said = study_table.predicted(one, one.output / "predictions.parquet", facts)
    rows = {row.arm: row for row in study_table.table(one, facts, said) if row.age == "all"}
    assert all(0.35 < row.auc.value < 0.65 for row in rows.values())
    assert rows["lgbm_pooled+prior"].skill.value < 0.05, "nobody knows that much of a new token"


def test_an_arm_is_put_beside_rivals_of_its_own_form_and_its_twin():
    arms = ["chain", "chain+prior", "chain+prior~shuffled", "lgbm_pooled", "lgbm_pooled+prior", "scratch"]
    assert study_comparisons.rivals_of("chain", arms) == ["lgbm_pooled", "scratch"]
    assert study_comparisons.rivals_of("chain+prior", arms) == ["chain+prior~shuffled", "lgbm_pooled+prior"]
    assert study_comparisons.rivals_of("lgbm_pooled", arms) == ["scratch"]
    assert study_comparisons.rivals_of("chain+prior~shuffled", arms) == []


def test_an_arm_must_be_known_and_a_forecaster_needs_its_place():
    assert "chronos" not in _arms(None, "")
    assert _arms("chronos,frozen", "chronos=/models/bolt") == ("base_rate", "frozen", "chronos")
    with pytest.raises(UsageError, match="no arm chronos"):
        _arms("chronos", "")
    with pytest.raises(UsageError, match="write the forecaster and its place"):
        _arms(None, "chronos")


@pytest.mark.skipif(find_spec("chronos") is None, reason="chronos-forecasting is not installed")
def test_a_pretrained_forecaster_is_an_arm_without_a_twin(data, tmp_path):
    place = tiny_bolt(tmp_path / "bolt")
    one = planned(data, tmp_path / "study", tokens=("BBBUSDT",), foundation=f"chronos={place}")
    study.run(one, ("base_rate", "chronos"), 1, Told(), 1)
    said = list(study_predictions.of_token(one, "BBBUSDT", ("base_rate", "chronos")))
    arms = {p.arm: p for p in said}
    assert {"chronos", "chronos+prior"} <= set(arms)
    assert "chronos~shuffled" not in arms
    assert np.ptp(arms["chronos"].p_up) > 0
    assert (arms["chronos"].known_until <= arms["chronos"].t).all()
