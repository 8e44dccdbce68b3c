"""The live view: what it remembers of the messages and how it looks on terminals of different widths."""

import io
import time
from decimal import Decimal

import numpy as np
import pytest
from rich.console import Console

from bot.core.commands import CHAIN, AdaptModel, PlaceOrder
from bot.core.events import (
    AdaptationReport,
    CandidateArrived,
    FundingPaid,
    OrderAccepted,
    OrderFilled,
    StopMoved,
)
from bot.core.reasons import kind
from bot.core.records import (
    ROLLING,
    BreakerReleased,
    BreakerTripped,
    DecisionMade,
    EquityMarked,
    QualityMeasured,
    Readiness,
    Refused,
    RungChanged,
    StageChanged,
    TransferJudged,
)
from bot.core.types import DAY_MS, FillOrigin, OrderRequest, OrderType, Rung, Side, Stage
from bot.core.verdict import Gain, Verdict
from bot.dashboard.progress import WorkProgress
from bot.dashboard.terminal import TerminalView
from bot.dashboard.wording import money
from tests.builders import BAR, START, listed

NAN = float("nan")


class Clock:
    """Wall time that only moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def console(width: int = 120, *, terminal: bool = True) -> Console:
    return Console(width=width, height=40, force_terminal=terminal, file=io.StringIO(), color_system=None)


def view(on: Console | None = None, clock: Clock | None = None, *, simulated: bool = True) -> TerminalView:
    return TerminalView(
        "Five listings", simulated=simulated, start=START, end=START + 45 * DAY_MS, balance=10_000.0,
        console=on or console(), wall_clock=clock or Clock(),
    )  # fmt: skip


def text(of: TerminalView, width: int = 120) -> str:
    out = Console(width=width, file=io.StringIO(), record=True)
    of._console = out
    out.print(of.render())
    return out.export_text()


def decision(symbol: str = "NEWUSDT", **changes: object) -> DecisionMade:
    values: dict[str, object] = {
        "ts": START + BAR, "symbol": symbol, "bar_start": START, "close": 110.0, "stage": Stage.SMALL,
        "arm": "adapted", "model_id": "m1", "p_up": 0.71, "confidence": 0.71, "similarity": 0.83,
        "mmd": 0.021,
        "effective_labels": 212.0, "side": Side.BUY, "verdict": "held", "reason": "in position",
    }  # fmt: skip
    return DecisionMade(**{**values, **changes})  # type: ignore[arg-type]


def filled(side: Side, qty: str, price: str, origin: FillOrigin = FillOrigin.ORDER) -> OrderFilled:
    return OrderFilled(
        START, START, "e", "l", "NEWUSDT", side, Decimal(price), Decimal(qty), Decimal("0.5"), Decimal(0),
        False, origin,
    )  # fmt: skip


def entry(stop: str) -> PlaceOrder:
    order = OrderRequest(
        link_id="l", symbol="NEWUSDT", side=Side.BUY, type=OrderType.MARKET, qty=Decimal(2),
        stop_loss=Decimal(stop),
    )  # fmt: skip
    return PlaceOrder(START, order)


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_the_label_of_a_simulated_market_is_in_plain_sight_at_every_width(width):
    shown = text(view(), width)

    assert "SIMULATED MARKET" in shown.splitlines()[0]
    assert "not real prices" in shown
    assert all(len(line) <= width for line in shown.splitlines())


def test_a_recorded_market_is_not_called_simulated():
    shown = text(view(simulated=False))

    assert "RECORDED MARKET" in shown
    assert "SIMULATED" not in shown


def test_a_wide_terminal_shows_everything_about_a_token():
    shows = view()
    shows.apply(listed())
    shows.apply(Readiness(START, "NEWUSDT", 184, 184))
    shows.apply(entry("98.5"))
    shows.apply(filled(Side.BUY, "2", "100"))
    shows.apply(decision())
    shows._now = START + 3 * DAY_MS

    (row,) = (line for line in text(shows, 160).splitlines() if "in position" in line)

    for cell in (
        "SMALL",
        "ready",
        "3.0 d",
        "adapted",
        "0.83",
        "0.021",
        "212",
        "0.71 ▲",
        "+2 (+220)",
        "98.5",
        "+20.00",
    ):
        assert cell in row


def test_a_narrow_terminal_keeps_stage_similarity_confidence_and_the_last_decision():
    shows = view()
    shows.apply(decision(p_up=0.3, confidence=0.7, verdict="refused", reason="similarity 0.43 < 0.7"))

    (row,) = (line for line in text(shows, 80).splitlines() if "NEWUSDT" in line)

    for cell in ("SMALL", "0.83", "0.70 ▼", "refused: similarity 0.43 < 0.7"):
        assert cell in row


def test_warm_up_is_told_in_bars_before_the_first_decision():
    shows = view()
    shows.apply(listed())
    shows.apply(Readiness(START, "NEWUSDT", 112, 184))

    assert "112/184 bars" in text(shows, 80)
    assert "112/184 bars" in text(shows, 160)


def test_a_token_that_lacks_bars_after_a_gap_is_not_called_ready():
    shows = view()
    shows.apply(decision())
    assert "ready" in text(shows, 160)
    shows.apply(Readiness(START, "NEWUSDT", 12, 184, 3))

    assert "12/184 bars, 3 refused" in text(shows, 160)
    assert "warming up 12/184 bars, 3 refused" in text(shows, 80)
    assert "ready" not in text(shows, 160)

    shows.apply(decision())
    assert "ready" in text(shows, 160)


def test_numbers_that_are_not_known_yet_are_dashes():
    shows = view()
    shows.apply(
        decision(p_up=NAN, confidence=NAN, similarity=NAN, mmd=NAN, side=None, verdict="quiet", reason="")
    )

    assert "nan" not in text(shows, 160)


def test_a_position_without_a_stop_is_shouted_about():
    shows = view()
    shows.apply(filled(Side.BUY, "2", "100"))
    assert "NONE" in text(shows, 160)

    shows.apply(StopMoved(START, START, "NEWUSDT", Decimal("97.25")))
    assert "97.25" in text(shows, 160)


def test_profit_of_a_closed_position_is_booked_after_fees_and_funding():
    shows = view()
    shows.apply(filled(Side.SELL, "2", "100"))
    shows.apply(FundingPaid(START, START, "f", "NEWUSDT", Decimal("0.25"), 0.0001))
    shows.apply(filled(Side.BUY, "2", "90", FillOrigin.STOP_LOSS))

    token = shows.state.tokens["NEWUSDT"]
    assert token.qty == 0.0
    assert token.trades == 1
    assert token.realised == pytest.approx(20 - 1.0 - 0.25)
    assert "stop loss" in shows.state.notable[-1].text


def test_a_fill_beyond_flat_opens_the_other_side_at_its_price():
    shows = view()
    shows.apply(filled(Side.BUY, "2", "100"))
    shows.apply(filled(Side.SELL, "5", "110"))

    token = shows.state.tokens["NEWUSDT"]
    assert (token.qty, token.entry) == (-3.0, 110.0)


def test_a_refusal_that_repeats_is_counted_but_noted_once():
    shows = view()
    for similarity in (0.43, 0.44, 0.45):
        shows.apply(Refused(START, "NEWUSDT", f"similarity {similarity} < 0.7"))
    shows.apply(Refused(START, "NEWUSDT", "halted by the drawdown breaker"))

    assert shows.state.tokens["NEWUSDT"].refusals == 4
    assert [event.text for event in shows.state.notable] == [
        "refused: similarity 0.43 < 0.7",
        "refused: halted by the drawdown breaker",
    ]


def test_reasons_of_one_kind_differ_in_their_numbers_only():
    assert kind("expected move 0.31% < 0.45%, 3 x costs") == kind("expected move 1.2% < 0.5%, 3 x costs")
    assert kind("evidence 1.5e-05 < 20") == kind("evidence nan < 20") == "evidence … < …"
    assert kind("stage SHADOW: not yet trusted") == "stage SHADOW: not yet trusted"


def test_a_tripped_breaker_is_shown_until_it_is_released():
    shows = view()
    shows.apply(BreakerTripped(START, "down 3.12% since 00:00 UTC", START + DAY_MS))
    assert "TRIPPED until 2025-01-02 00:00 UTC" in text(shows)

    shows.apply(BreakerReleased(START + DAY_MS, "a new UTC day"))
    assert "armed" in text(shows)


def test_stage_changes_and_adaptations_are_followed():
    shows = view()
    cut = np.zeros(0)
    shows.apply(StageChanged(START, "NEWUSDT", Stage.SHADOW, Stage.SMALL, ("118 effective labels",)))
    shows.apply(AdaptModel(START, "NEWUSDT", START, "base", 1, cut, cut, cut, cut, "schedule"))
    assert "↻" in text(shows)
    assert "schedule" not in text(shows)
    shows.apply(AdaptModel(START, "NEWUSDT", START, "base", 1, cut, cut, cut, cut, "loss drift: 0.9", True))
    assert "adapts again, loss drift: 0.9" in text(shows)
    assert "SHADOW → SMALL: 118 effective labels" in text(shows)

    report = AdaptationReport(
        mmd_before=0.3, mmd_after=0.1, similarity_before=0.5, similarity_after=0.8,
        source_accuracy_before=0.6,
        source_accuracy_after=0.6, target_labels=10.0, steps=10, seconds=1.0,
    )  # fmt: skip
    shows.apply(CandidateArrived(START, START, "NEWUSDT", "m2", START, report))
    assert "↻" not in text(shows)
    shows.apply(CandidateArrived(START, START, CHAIN, "m3", START, report))
    assert CHAIN not in shows.state.tokens


def test_tokens_that_do_not_fit_are_counted_and_those_in_the_market_come_first():
    shows = view(console(120))
    for i in range(60):
        shows.apply(decision(f"T{i:02}USDT", verdict="quiet"))
    shows.apply(filled(Side.BUY, "1", "100"))
    shows.apply(decision())

    shown = text(shows)
    rows = [line for line in shown.splitlines() if "USDT" in line]
    assert "NEWUSDT" in rows[0]
    assert "more" in shown


def test_drawing_happens_four_times_a_second_however_often_the_clock_ticks():
    clock, on = Clock(), console()
    with view(on, clock) as shows:
        drawn = []
        shows._draw = lambda: drawn.append(clock.now)  # type: ignore[method-assign]
        for step in range(1000):
            clock.now = step / 1000
            shows.tick(START + step * BAR)

    assert len(drawn) <= 5  # 0.25, 0.5 and 0.75 s, and at the end


def test_speed_is_market_time_by_wall_time():
    clock = Clock()
    shows = view(console(terminal=False), clock)
    clock.now = 10.0
    shows.tick(START + DAY_MS)

    assert "8,640x real time" in shows.line()


def test_without_a_terminal_there_is_a_plain_line_every_few_seconds():
    clock, on = Clock(), console(terminal=False)
    with view(on, clock) as shows:
        shows.apply(decision())
        shows.apply(EquityMarked(START + BAR, 10_034.12, 10_031.0, 10_061.0, 0.0027, 0.0012, 0.0431))
        for second in range(13):
            clock.now = float(second)
            shows.tick(START + second * DAY_MS)

    lines = on.file.getvalue().splitlines()
    assert len(lines) == 3  # after 5 and 10 seconds, and at the end
    assert lines[-1].startswith("SIMULATED MARKET  2025-01-13 00:00 UTC  day 12.0 of 45")
    assert "equity 10,034.12 (+0.34%)" in lines[-1]
    assert "NEWUSDT SMALL" in lines[-1]
    assert lines[-1].isascii()


def test_a_log_is_told_once_that_a_model_is_waited_for():
    clock, on = Clock(), console(terminal=False)
    with view(on, clock) as shows:
        for second in range(60):
            clock.now = float(second)
            shows.tick(START + (DAY_MS if second < 40 else 2 * DAY_MS))

    lines = on.file.getvalue().splitlines()
    assert [line.startswith("waiting") for line in lines] == [False, True, False, True, False]


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_view_says_that_a_model_is_waited_for_while_the_clock_stands(width):
    clock = Clock()
    with view(console(width), clock) as shows:
        shown = []
        for second, day in ((1, 1), (2, 1), (70, 1), (71, 2)):
            clock.now = float(second)
            shows.tick(START + day * DAY_MS)
            with shows._console.capture() as drawn:
                shows._console.print(shows.render())
            shown.append(drawn.get())

    waits = ["waiting for the adaptation of a model" in one for one in shown]
    assert waits == [False, True, True, False]
    assert ["x real time" in one.replace("×", "x") for one in shown] == [not wait for wait in waits]


def test_the_summary_names_market_result_and_report(tmp_path):
    on = console()
    shows = view(on)
    shows.apply(decision(verdict="refused", reason="similarity 0.43 < 0.7"))
    shows.apply(EquityMarked(START, 9_990.0, 9_990.0, 10_000.0, 0.001, 0.001, 0.0))
    shows.summary("interrupted", tmp_path / "report.html")

    shown = on.file.getvalue()
    for part in (
        "SIMULATED MARKET",
        "interrupted",
        "9,990.00",
        "−10.00",
        "similarity 0.43 < 0.7",
        "report.html",
    ):
        assert part in shown


def test_what_rounds_to_nothing_has_no_sign() -> None:
    assert [money(value) for value in (-0.004, -0.006, 1_234.5)] == ["0.00", "-0.01", "1,234.50"]


def test_messages_that_change_nothing_cost_next_to_nothing():
    shows = view()
    message = OrderAccepted(START, START, "l", "o")
    shows.apply(message)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(1000):
            shows.apply(message)
        best = min(best, time.perf_counter() - began)

    assert best / 1000 < 20e-6  # far above what it takes: a loaded machine must not fail the test


def test_progress_prints_plain_lines_without_a_terminal():
    clock, on = Clock(), console(terminal=False)
    with WorkProgress("pretraining", 60, on, clock) as progress:
        for epoch in range(1, 61):
            clock.now = epoch * 1.0
            progress.reached(epoch, f"epoch {epoch}")

    lines = on.file.getvalue().splitlines()
    assert 6 <= len(lines) <= 8
    assert lines[0] == "pretraining: begins"
    assert lines[2] == "pretraining: 18%  epoch 11  about 49 s left"
    assert lines[-1] == "pretraining: 100%  epoch 60"


def test_progress_counts_what_is_done_and_begins_again_with_a_new_total():
    clock, on = Clock(), console(terminal=False)
    with WorkProgress("study", console=on, wall_clock=clock) as progress:
        clock.now = 500.0
        progress.total(400.0)
        clock.now = 600.0
        progress.done(100.0, "frozen AAAUSDT")

    assert on.file.getvalue() == "study: begins\nstudy: 25%  frozen AAAUSDT  about 5 min left\n"


def test_progress_draws_a_bar_in_a_terminal():
    on = console()
    with WorkProgress("pretraining", 30, on) as progress:
        progress.reached(12, "epoch 12 of 30  tail 0.6874")

    assert "40%" in on.file.getvalue()
    assert "tail 0.6874" in on.file.getvalue()


def test_a_wide_terminal_shows_how_good_the_newest_predictions_were() -> None:
    shows = view()
    shows.apply(QualityMeasured(START, "NEWUSDT", "3-7", 50.0, 0.4, -0.2, 0.3))
    assert "acc. skill ECE" in text(shows, 180)
    assert "–0.2" not in text(shows, 180)
    shows.apply(QualityMeasured(START, "NEWUSDT", ROLLING, 90.0, 0.57, 0.012, 0.034))
    assert "57% +0.012 0.03" in text(shows, 180)


def test_a_very_wide_terminal_shows_the_rung_and_what_is_in_the_way_of_the_next() -> None:
    shows = view()
    shows.apply(RungChanged(START, "NEWUSDT", Stage.SHADOW, Rung.NONE, "frozen", "4 of 100 labels"))
    assert "no trade 4 of 100 labels" in text(shows, 240)
    shows.apply(RungChanged(START, "NEWUSDT", Stage.SMALL, Rung.PROMOTED, "adapted", "evidence 31"))
    assert "promoted" in text(shows, 240)


def test_a_very_wide_terminal_shows_whether_the_transfer_helps_and_a_changed_answer_is_noted() -> None:
    shows = view()
    shows.apply(decision(arm="adapted"))
    gain = Gain("adapted", "base rate", 0.012, 0.004, 0.02, NAN, 120.0, 31.0)
    shows.apply(TransferJudged(START, "NEWUSDT", Verdict("none", ("nothing yet",), ())))
    assert not any("transfer" in note.text for note in shows.state.notable)
    shows.apply(TransferJudged(START, "NEWUSDT", Verdict("adapted", ("evidence 31",), (gain,))))
    assert "adapted +0.012 [+0.004, +0.020]" in text(shows, 260)
    assert shows.state.notable[-1].text == "transfer: none → adapted: evidence 31"
