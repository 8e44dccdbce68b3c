"""The report: one file, complete, honest about what it does not know, and safe against hostile texts."""

import re
from decimal import Decimal
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from bot.core.errors import RuntimeFault, UsageError
from bot.core.events import OrderFilled
from bot.core.records import DecisionMade, EquityMarked, LabelMatured, Refused, StageChanged
from bot.core.types import DAY_MS, FillOrigin, Side, Stage
from bot.research import narrative
from bot.research.analysis import AS_DECIDED, analyse, rolling_accuracy
from bot.research.charts import thinned
from bot.research.page import Html, number, table
from bot.research.report import render, write_report
from bot.research.report_data import load
from bot.settings import Settings
from bot.storage.database import Database
from bot.storage.journal import Journal
from tests.builders import BAR, START
from tests.synthetic_run import KINDS, report_data, synthetic_run


@pytest.fixture(scope="module")
def run():
    return synthetic_run(days=24)


@pytest.fixture(scope="module")
def analysis(run):
    return analyse(run)


@pytest.fixture(scope="module")
def page(run) -> str:
    return render(run)


def body(page: str) -> str:
    """Without plotly's own code."""
    return page[page.index("<body>") :]


class Balance(HTMLParser):
    """Fails on an element that is closed without having been opened, or never closed."""

    VOID = ("meta", "br", "link", "img", "html")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_says_that_the_market_is_simulated_before_anything_else(page):
    first = body(page).index("SIMULATED MARKET – not real prices")

    assert first < body(page).index("<h1>")


def test_a_recorded_market_has_no_such_banner():
    assert "SIMULATED" not in body(render(report_data(simulated=False)))


def test_the_file_is_self_contained_and_small(run, tmp_path):
    path = write_report(run, tmp_path / "deep" / "report.html")
    text = path.read_text(encoding="utf-8")

    assert path.stat().st_size < 8e6
    assert text.count("plotly.js v") == 1
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", text)
    assert "default-src 'none'" in text
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_the_markup_is_balanced(page):
    parser = Balance()
    parser.feed(body(page))

    assert parser.open == []


def test_the_same_run_gives_the_same_page(run, page):
    assert render(run) == page


def test_every_token_has_its_section_and_figure(page):
    for symbol in list(KINDS):
        assert f'id="token-{symbol}"' in page
        assert f'id="chart-token-{symbol}"' in page


def test_every_gate_decision_and_stage_change_is_listed_with_its_reasons(run, page):
    discarded = (run.gates["verdict"] == "discarded").sum()

    assert page.count("source accuracy fell by 0.041 &gt; 0.03") == discarded > 0
    assert page.count("features are ready") == len(KINDS)


def test_the_newest_verdict_on_the_transfer_is_shown_with_its_comparisons(page):
    assert page.count("Does the transfer help?") == len(KINDS)
    assert "adapted. evidence 31 that its log loss is below the frozen model" in page
    assert "adapted − base rate" in page
    assert "+0.0120" in page


def test_texts_from_outside_are_escaped(run):
    bad = "<script>alert('x')</script>"
    stages = run.stages.assign(reasons=[[bad]] * len(run.stages))
    alarms = pd.concat([run.alarms, run.alarms.head(1).assign(kind="Alarm", text=bad)])
    decisions = run.decisions.assign(reason=bad)

    page = render(synthetic_run(days=24, title=bad, stages=stages, alarms=alarms, decisions=decisions))

    assert bad not in page
    assert "&lt;script&gt;alert" in page


def test_a_run_that_has_only_begun_has_a_report():
    page = render(report_data(state="interrupted"))

    assert "The run is interrupted" in page
    assert "No label has matured yet" in page
    assert "nan" not in body(page).lower().replace("finance", "")


def test_a_path_that_cannot_be_written_is_a_fault_with_its_name(run, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(RuntimeFault, match="file"):
        write_report(report_data(), tmp_path / "file" / "report.html")


# --- the numbers -------------------------------------------------------------------------------------------


def test_net_result_of_the_trades_is_the_change_of_equity(run, analysis):
    unrealised_and_open = sum(trip.net for trip in analysis.trips if not trip.closed)
    closed = sum(trip.net for trip in analysis.closed_trips)
    change = run.equity["equity"].iloc[-1] - run.initial_balance

    assert len(analysis.closed_trips) > 20
    assert closed == pytest.approx(change, abs=1.0 + abs(unrealised_and_open))


def test_costs_are_what_the_fills_and_the_funding_say(run, analysis):
    assert analysis.costs.taker_fees == pytest.approx(run.fills["fee"].sum())
    assert analysis.costs.funding == pytest.approx(run.funding["amount"].sum())
    # every order is filled 2 bp beyond the close
    ordered = analysis.costs.turnover * analysis.costs.slippage_share
    assert analysis.costs.slippage == pytest.approx(2e-4 * ordered, rel=0.01)


def test_arms_are_compared_on_the_labels_that_both_predicted(analysis):
    by_rival = {gain.rival: gain for gain in analysis.gains}

    assert by_rival.keys() == {"frozen", "scratch", "prior"}
    assert by_rival["frozen"].n == analysis.arms["adapted"].n < analysis.arms["frozen"].n


def test_the_probability_that_decided_is_scored_as_an_arm_of_its_own(run, analysis):
    assert analysis.arms[AS_DECIDED].n == len(run.labels)


def test_rolling_accuracy_looks_back_at_known_labels_only(analysis):
    labels = analysis.labels.of("SIMAUSDT")
    known, accuracy = rolling_accuracy(labels, "adapted", DAY_MS)
    last = known[-1]
    recent = (labels.known > last - DAY_MS) & np.isfinite(labels.p["adapted"])
    right = (labels.p["adapted"][recent] > 0.5) == (labels.outcome[recent] > 0.5)

    assert accuracy[-1] == pytest.approx(right.mean())


def test_refusals_are_counted_by_kind_and_token(run, analysis):
    assert analysis.refusals["times"].sum() == (run.alarms["kind"] == "Refused").sum()
    assert "expected move … < …, … x costs" in set(analysis.refusals["kind"])


def test_the_verdict_names_the_result_its_interval_and_what_was_not_traded(run, analysis):
    text = " ".join(narrative.verdict(run, analysis))

    assert re.search(r"the bot traded 2 of 5 tokens: \d+ round trips", text)
    assert re.search(r"Net result .* the 95% interval \[", text)
    assert "It did not trade SIMEUSDT, which ended in SHADOW: similarity" in text
    assert "always-short was right on" in text


def test_results_that_are_too_good_raise_a_warning_on_real_data_only(run, analysis):
    assert analysis.arms["adapted"].accuracy.value > 0.55
    lucky = synthetic_run(days=24, simulated=False)
    labels = lucky.labels.assign(p_up=[{"adapted": 0.8 if y else 0.2} for y in lucky.labels["outcome"]])
    suspicious = synthetic_run(days=24, simulated=False, labels=labels)

    assert any("look for a leak" in text for text in narrative.warnings(suspicious, analyse(suspicious)))
    assert not any("leak" in text for text in narrative.warnings(run, analysis))


def test_targets_have_an_interval_and_no_verdict(run, analysis):
    rows = {target.name: target for target in narrative.targets(run, analysis)}

    assert len(rows) == 10
    assert rows["transfer gain, points"].note.startswith("accuracy of adapted − scratch")
    assert rows["Sharpe ratio"].interval.startswith("[")
    text = " ".join(" ".join(row) for row in rows.values()).lower()
    assert not re.search(r"pass|fail|✓|✗", text)


# --- pieces ------------------------------------------------------------------------------------------------


def test_a_thinned_line_keeps_its_ends_and_its_extremes():
    values = np.random.default_rng(0).standard_normal(50_000).cumsum()
    kept = thinned(values, 600)

    assert len(kept) <= 601
    assert (kept[0], kept[-1]) == (0, len(values) - 1)
    assert values[kept].max() == values.max()
    assert values[kept].min() == values.min()
    assert (np.diff(kept) > 0).all()


def test_a_run_chosen_among_many_is_told_as_the_best_of_them(run, page):
    """The number of runs that were tried enters the deflated Sharpe ratio."""
    many = synthetic_run(days=24, trials=40)
    assert "as the best of 40 runs" in render(many)
    assert "as the best of" not in page
    assert analyse(many).sharpe_beyond_trials < analyse(run).sharpe_beyond_trials


def test_cells_are_escaped_unless_they_are_markup():
    grid = table(["<a>"], [["<b>"], [Html("<b>x</b>")]])

    assert "&lt;a&gt;" in grid
    assert "&lt;b&gt;" in grid
    assert "<b>x</b>" in grid


def test_numbers_have_real_minus_signs_and_no_signed_zero():
    assert number(-1.5) == "−1.50"
    assert number(-0.001) == number(0.001, "+.2f") == "0.00"
    assert number(float("nan")) == number(float("inf")) == "–"


# --- from the database -------------------------------------------------------------------------------------


def journal_a_little(database: Database) -> int:
    journal = Journal.start(
        database, kind="paper", title="Five listings", simulated=True,
        config_json=Settings().model_dump_json(), seed=7, started=START, start_ts=START,
        end_ts=START + DAY_MS, durable=False,
    )  # fmt: skip
    ts = START + BAR
    decision = DecisionMade(
        ts, "NEWUSDT", START, 100.0, Stage.SHADOW, "adapted", "m1", 0.7, 0.7, 0.8, 0.02, 3.0, Side.BUY,
        "refused", "stage SHADOW: not yet trusted",
    )  # fmt: skip
    fill = OrderFilled(
        ts, ts, "e1", "", "NEWUSDT", Side.BUY, Decimal("100.1"), Decimal("2"), Decimal("0.11"), Decimal(0),
        False, FillOrigin.ORDER,
    )  # fmt: skip
    for message in (
        EquityMarked(START - BAR, 10_000.0, 10_000.0, 10_000.0, 0.0, 0.0, 0.0),
        StageChanged(ts, "NEWUSDT", Stage.OBSERVE, Stage.SHADOW, ("features are ready",)),
        Refused(ts, "NEWUSDT", decision.reason),
        decision,
        fill,
        EquityMarked(ts, 9_999.7, 9_999.9, 10_000.0, 3e-5, 3e-5, 0.02),
        LabelMatured(ts + 8 * BAR, "NEWUSDT", START, ts, 1, 0.01, 0.125, {"adapted": 0.7, "frozen": 0.4}),
    ):
        journal.write(message)
    journal.finish({})
    return journal.run_id


def test_what_was_inferred_or_left_out_of_recorded_data_is_told():
    config = {**Settings().model_dump(mode="json"), "recorded": {"notes": ["missing bars: NEWUSDT 3"]}}
    assert "About the data: missing bars: NEWUSDT 3." in render(report_data(simulated=False, config=config))
    assert "About the data" not in render(report_data())


def test_a_report_that_cannot_be_written_leaves_no_part_and_says_what_to_do(tmp_path):
    (tmp_path / "reports").write_text("no directory")
    with pytest.raises(RuntimeFault, match=r"cannot be written .* `bot report 1` writes it"):
        write_report(report_data(), tmp_path / "reports" / "paper-1.html")
    (tmp_path / "paper-1.html").mkdir()
    with pytest.raises(RuntimeFault):
        write_report(report_data(), tmp_path / "paper-1.html")
    assert {path.name for path in tmp_path.iterdir()} == {"reports", "paper-1.html"}


def test_a_run_is_loaded_from_the_database_and_reported(tmp_path):
    with Database.open(tmp_path / "bot.sqlite") as database:
        run_id = journal_a_little(database)
        data = load(database, run_id)

    assert (data.title, data.simulated, data.state, data.seed) == ("Five listings", True, "finished", 7)
    assert data.symbols == ["NEWUSDT"]
    assert data.initial_balance == 10_000.0
    assert data.equity["ts"].tolist() == [START + BAR]  # not the mark from before the run
    analysis = analyse(data)
    assert [trip.entry for trip in analysis.trips] == [100.1]
    assert analysis.arms["adapted"].accuracy.value == 1.0
    assert analysis.arms["frozen"].accuracy.value == 0.0
    assert "not yet trusted" in render(data)


def test_an_unknown_run_is_refused_with_the_runs_there_are(tmp_path):
    with Database.open(tmp_path / "bot.sqlite") as database:
        journal_a_little(database)

        with pytest.raises(UsageError, match=r"no run 9 .* runs here: 1"):
            load(database, 9)
