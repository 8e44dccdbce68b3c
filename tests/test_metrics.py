"""Performance and prediction statistics: equal to independent references, honest where data are few."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bot.core.types import DAY_MS, HOUR_MS, FillOrigin, Side
from bot.research import metrics, predictions, selection
from bot.research.bootstrap import ClusterBootstrap, percentile_interval
from bot.research.trades import RoundTrip, round_trips
from tests.builders import START

ORACLES = Path(__file__).parent / "oracles"


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(ORACLES / "performance.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def expected() -> dict[str, float]:
    return json.loads((ORACLES / "performance.json").read_text())


def test_ratios_of_a_daily_series_equal_the_reference(arrays, expected):
    equity = arrays["equity"]
    returns = metrics.simple_returns(equity)

    np.testing.assert_allclose(returns, arrays["returns"], rtol=1e-9)
    assert metrics.sharpe(returns) == pytest.approx(expected["sharpe_annual_ddof1"], rel=1e-9)
    assert metrics.sharpe(returns, ddof=0) == pytest.approx(expected["sharpe_annual_ddof0"], rel=1e-9)
    assert metrics.sharpe(returns, periods=1) == pytest.approx(expected["sharpe_per_period_ddof1"], rel=1e-9)
    assert metrics.sortino(returns) == pytest.approx(expected["sortino_annual"], rel=1e-9)
    assert metrics.volatility(returns) == pytest.approx(expected["vol_annual_ddof1"], rel=1e-9)
    assert metrics.total_return(equity) == pytest.approx(expected["total_return"], rel=1e-9)
    assert metrics.cagr(equity) == pytest.approx(expected["cagr"], rel=1e-9)
    assert metrics.calmar(equity) == pytest.approx(expected["calmar"], rel=1e-9)


def test_deepest_drawdown_equals_the_reference_and_names_peak_and_trough(arrays, expected):
    fall = metrics.max_drawdown(arrays["equity"])

    assert fall.depth == pytest.approx(expected["max_drawdown"], rel=1e-9)
    assert (fall.peak, fall.trough) == (
        expected["max_drawdown_peak_index"],
        expected["max_drawdown_trough_index"],
    )


def test_a_fall_from_the_starting_equity_counts_as_drawdown():
    assert metrics.max_drawdown(np.array([100.0, 90.0, 95.0])).depth == pytest.approx(-0.1)


def test_trade_statistics_equal_the_reference(arrays, expected):
    found, wanted = metrics.trade_statistics(arrays["trade_pnl"]), expected["trades"]

    assert found.n == wanted["n"]
    assert found.win_rate == pytest.approx(wanted["win_rate_all_trades"])
    assert found.win_rate_decided == pytest.approx(wanted["win_rate_excluding_zero"])
    assert found.profit_factor == pytest.approx(wanted["profit_factor"], rel=1e-9)
    assert found.expectancy == pytest.approx(wanted["expectancy"], rel=1e-9)
    assert found.gross_profit == pytest.approx(wanted["gross_profit"], rel=1e-9)
    assert found.gross_loss == pytest.approx(wanted["gross_loss"], rel=1e-9)


def test_deflated_sharpe_ratio_equals_the_reference(arrays, expected):
    returns, wanted = arrays["returns"], expected["deflated_sharpe"]
    trials, variance = wanted["n_trials"], wanted["var_of_trial_sharpes"]

    assert metrics.probabilistic_sharpe(returns) == pytest.approx(wanted["psr_vs_0"], rel=1e-9)
    assert metrics.expected_max_sharpe(trials, variance) == pytest.approx(
        wanted["expected_max_sharpe"], rel=1e-9
    )
    assert metrics.deflated_sharpe(returns, trials, variance) == pytest.approx(wanted["dsr"], rel=1e-9)
    assert metrics.min_track_record(returns) == pytest.approx(
        expected["min_track_record_length_95"], rel=1e-9
    )


def test_expected_best_of_100_lucky_trials_is_that_of_the_papers_example(expected):
    wanted = expected["deflated_sharpe_paper_example"]["expected_max_sharpe_daily"]

    assert metrics.expected_max_sharpe(100, 0.5 / 250) == pytest.approx(wanted, rel=1e-9)


def test_a_single_trial_deflates_nothing(arrays):
    returns = arrays["returns"]

    assert metrics.deflated_sharpe(returns, 1, 1.0) == metrics.probabilistic_sharpe(returns)


def test_paired_gain_has_the_reference_interval_for_the_reference_resamples(arrays, expected):
    n = len(arrays["correct_transfer"])
    counts = np.stack([np.bincount(index, minlength=n) for index in arrays["boot_idx"]]).astype(float)

    gain = selection.paired_gain(
        arrays["correct_transfer"], arrays["correct_scratch"], ClusterBootstrap(np.arange(n), counts)
    )

    wanted = expected["transfer_gain_bootstrap"]
    assert gain.value == pytest.approx(wanted["gain"])
    assert (gain.low, gain.high) == pytest.approx(tuple(wanted["ci95_percentile"]))


def test_mcnemar_and_overfitting_probability_equal_the_reference(arrays, expected):
    found = selection.mcnemar(arrays["correct_transfer"] > 0, arrays["correct_scratch"] > 0)
    wanted = expected["transfer_gain_mcnemar_exact"]

    assert (found.only_first, found.only_second) == (wanted["transfer_only"], wanted["scratch_only"])
    assert found.p_value == pytest.approx(wanted["p_two_sided"], rel=1e-9)
    assert selection.overfitting_probability(arrays["cscv_returns"]) == expected["pbo_cscv"]["pbo"]


def test_calibration_statistics_equal_the_reference_before_and_after_temperature():
    wanted = json.loads((ORACLES / "calibration.json").read_text())
    with np.load(ORACLES / "calibration.npz") as file:
        logits, y = file["logits"], file["y"].astype(float)
    for when, temperature in (("before", 1.0), ("after", wanted["temperature"])):
        p = 1 / (1 + np.exp((logits[:, 0] - logits[:, 1]) / temperature))
        assert predictions.ece(p, y) == pytest.approx(wanted[f"ece10_{when}"], rel=1e-6)
        assert predictions.brier_scores(p, y).mean() == pytest.approx(wanted[f"brier_{when}"], rel=1e-6)
        assert predictions.log_losses(p, y).mean() == pytest.approx(wanted[f"nll_{when}"], rel=1e-6)


def test_daily_closes_start_with_the_initial_equity_and_midnight_closes_the_day_before():
    ts = np.array([START + HOUR_MS, START + DAY_MS, START + DAY_MS + HOUR_MS])

    closes = metrics.daily_closes(ts, np.array([101.0, 102.0, 103.0]), 100.0)

    assert closes.tolist() == [100.0, 102.0, 103.0]


def test_statistics_of_nothing_are_unknown_not_zero():
    empty = np.empty(0)
    figures = metrics.performance(np.array([100.0]))

    assert math.isnan(metrics.sharpe(empty))
    assert math.isnan(metrics.trade_statistics(empty).win_rate)
    assert math.isnan(metrics.trade_statistics(np.array([1.0])).profit_factor)
    assert math.isnan(figures.sharpe.value)
    assert math.isnan(figures.total_return.low)


def test_performance_intervals_are_the_same_every_time_and_hold_the_value(arrays):
    figures = metrics.performance(arrays["equity"])

    assert figures == metrics.performance(arrays["equity"])
    assert figures.sharpe.low < figures.sharpe.value < figures.sharpe.high


# --- predictions -------------------------------------------------------------------------------------------


def days_of_labels(days: int, per_day: int = 96) -> np.ndarray:
    return START + np.arange(days * per_day) * (DAY_MS // per_day)


def test_auc_counts_ordered_pairs_and_half_of_the_ties():
    p = np.array([0.1, 0.5, 0.5, 0.9])
    outcome = np.array([0.0, 0.0, 1.0, 1.0])

    assert predictions.auc(p, outcome) == pytest.approx((2 + 1.5) / 4)
    assert math.isnan(predictions.auc(p, np.ones(4)))


def test_auc_by_clusters_is_the_plain_auc_and_its_replicates_those_of_explicit_resampling():
    rng = np.random.default_rng(1)
    ts = days_of_labels(5, 20)
    outcome = (rng.random(len(ts)) < 0.5).astype(float)
    p = np.round(0.3 * outcome + rng.random(len(ts)), 1)
    bootstrap = ClusterBootstrap.by_day(ts, draws=40)
    replicates = []
    for counts in bootstrap.counts:
        rows = np.repeat(np.arange(len(ts)), counts[bootstrap.cluster].astype(int))
        replicates.append(predictions.auc(p[rows], outcome[rows]))

    found = predictions.auc_estimate(p, outcome, bootstrap)

    wanted = percentile_interval(predictions.auc(p, outcome), np.array(replicates))
    assert found == pytest.approx(wanted)


def test_balanced_accuracy_of_a_constant_answer_is_one_half_however_skewed_the_outcomes():
    ts = days_of_labels(10)
    outcome = (np.arange(len(ts)) % 4 == 0).astype(float)

    found = predictions.prediction_statistics(
        np.full(len(ts), 0.2), outcome, np.ones(len(ts)), np.full(len(ts), 0.5), ClusterBootstrap.by_day(ts)
    )

    assert found.balanced_accuracy.value == 0.5
    assert found.accuracy.value == found.always_short.value == 0.75
    assert found.always_long.value == 0.25
    assert found.auc.value == 0.5


def test_the_base_rate_uses_only_labels_that_were_known_at_the_decision():
    decision = np.array([0, 10, 20, 30]) * HOUR_MS
    known = decision + 15 * HOUR_MS
    outcome, weight = np.array([1.0, 1.0, 0.0, 1.0]), np.full(4, 0.5)

    rate = predictions.expanding_base_rate(outcome, weight, known, decision)

    assert rate == pytest.approx([0.5, 0.5, 1.5 / 2.5, 2.0 / 3.0])


def test_skill_is_zero_for_the_base_rate_itself_and_negative_for_noise():
    rng = np.random.default_rng(0)
    ts = days_of_labels(20)
    outcome = (rng.random(len(ts)) < 0.5).astype(float)
    base = np.full(len(ts), 0.5)
    bootstrap = ClusterBootstrap.by_day(ts)

    assert predictions.skill(base, outcome, base, bootstrap) == pytest.approx((0.0, 0.0, 0.0))
    assert predictions.skill(rng.random(len(ts)), outcome, base, bootstrap).high < 0


def test_days_that_move_together_widen_the_interval():
    rng = np.random.default_rng(0)
    ts = days_of_labels(60)
    by_day = np.repeat((rng.random(60) < 0.5).astype(float), 96)
    shuffled = rng.permutation(by_day)
    bootstrap = ClusterBootstrap.by_day(ts)

    clustered, independent = bootstrap.mean(by_day), bootstrap.mean(shuffled)

    assert clustered.high - clustered.low > 5 * (independent.high - independent.low)


def test_two_days_give_no_interval():
    estimate = ClusterBootstrap.by_day(days_of_labels(2)).mean(np.ones(2 * 96))

    assert estimate.value == 1.0
    assert math.isnan(estimate.low)


def test_effective_labels_are_the_sum_of_their_uniqueness():
    ts = days_of_labels(3)
    outcome = np.arange(len(ts)) % 2.0

    found = predictions.prediction_statistics(
        np.full(len(ts), 0.7), outcome, np.full(len(ts), 1 / 8), np.full(len(ts), 0.5),
        ClusterBootstrap.by_day(ts),
    )  # fmt: skip

    assert (found.n, found.effective_n, found.days) == (288, 36.0, 3)
    assert found.confident_n == 288
    assert found.confident_accuracy.value == 0.5


def test_an_undecided_forecast_is_half_right():
    assert predictions.correctness(np.array([0.5, 0.6]), np.array([1.0, 0.0])).tolist() == [0.5, 0.0]


def test_reliability_bins_hold_forecast_and_frequency_and_are_empty_where_nothing_was_forecast():
    ts = days_of_labels(4)
    p = np.where(np.arange(len(ts)) % 2 == 0, 0.25, 0.75)
    outcome = (np.arange(len(ts)) % 4 == 1).astype(float)

    found = predictions.reliability(p, outcome, ClusterBootstrap.by_day(ts))

    assert found.n.tolist() == [0, 0, 192, 0, 0, 0, 0, 192, 0, 0]
    assert found.frequency[[2, 7]].tolist() == [0.0, 0.5]
    assert found.forecast[[2, 7]] == pytest.approx([0.25, 0.75])
    assert np.isnan(found.frequency[0])


# --- round trips -------------------------------------------------------------------------------------------


def fills(*rows: tuple[int, str, Side, float, float, float]) -> pd.DataFrame:
    columns = ["ts", "symbol", "side", "price", "qty", "fee"]
    return pd.DataFrame([(*row, FillOrigin.ORDER.value) for row in rows], columns=[*columns, "origin"])


def funding(*rows: tuple[int, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["ts", "symbol", "amount"])


def test_a_round_trip_runs_from_flat_to_flat_and_pays_fees_and_funding():
    (trip,) = round_trips(
        fills(
            (1, "A", Side.BUY, 10.0, 2.0, 0.1),
            (2, "A", Side.BUY, 13.0, 1.0, 0.1),
            (4, "A", Side.SELL, 12.0, 1.5, 0.2),
            (5, "A", Side.SELL, 14.0, 1.5, 0.2),
        ),
        funding((3, "A", 0.05), (3, "B", 9.0), (6, "A", 9.0)),
    )

    assert (trip.opened, trip.closed, trip.qty) == (1, 5, 3.0)
    assert trip.entry == pytest.approx(11.0)
    assert trip.exit == pytest.approx(13.0)
    assert trip.net == pytest.approx(3 * (13 - 11) - 0.6 - 0.05)


def test_a_fill_that_turns_the_position_over_ends_one_trip_and_begins_the_next():
    first, second = round_trips(
        fills((1, "A", Side.SELL, 10.0, 1.0, 0.1), (2, "A", Side.BUY, 8.0, 3.0, 0.3)), funding()
    )

    assert (first.side, first.closed, first.gross) == (Side.SELL, 2, pytest.approx(2.0))
    assert first.fees == pytest.approx(0.2)
    assert (second.side, second.closed, second.qty) == (Side.BUY, 0, pytest.approx(2.0))
    assert second.fees == pytest.approx(0.2)


def test_quantities_that_floats_cannot_hold_exactly_still_close():
    trips = round_trips(
        fills(*((i, "A", Side.BUY, 1.0, 0.1, 0.0) for i in range(3)), (9, "A", Side.SELL, 1.0, 0.3, 0.0)),
        funding(),
    )

    assert [trip.closed for trip in trips] == [9]


def test_what_a_trip_earned_adds_up_to_the_cash_that_moved():
    rng = np.random.default_rng(5)
    rows = [
        (i, "A", Side.BUY if rng.random() < 0.5 else Side.SELL, float(price), float(rng.integers(1, 9)), 0.01)
        for i, price in enumerate(100 + rng.standard_normal(200).cumsum())
    ]
    held = sum(side.sign * qty for _, _, side, _, qty, _ in rows)
    rows.append((999, "A", Side.SELL if held > 0 else Side.BUY, 100.0, abs(held), 0.01))
    cash = sum(-side.sign * qty * price - fee for _, _, side, price, qty, fee in rows)

    trips: list[RoundTrip] = round_trips(fills(*rows), funding())

    assert all(trip.closed for trip in trips)
    assert sum(trip.net for trip in trips) == pytest.approx(cash)
