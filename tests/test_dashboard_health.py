"""Both views show the health of the market's data and what blocks entries."""

import io
from collections import Counter
from typing import Any

from rich.console import Console

from bot.core.events import (
    EntriesAllowed,
    EntriesBlocked,
    InstrumentDelisted,
    InstrumentStatusChanged,
    MarketHealthChanged,
    MarketHealthMeasured,
)
from bot.core.records import Readiness
from bot.core.types import DAY_MS, Feed, TradingStatus
from bot.dashboard.lines import UNWELL, LineView
from bot.dashboard.terminal import TerminalView
from tests.builders import START, listed

FAULT = "the book is stale: gap: update 9 came after 7"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def health(*faults: str, symbol: str = "NEWUSDT") -> MarketHealthChanged:
    return MarketHealthChanged(START, START, symbol, faults)


def measured(**counts: int) -> MarketHealthMeasured:
    none = dict.fromkeys(
        (
            "book_losses", "resyncs", "audits_passed", "audits_failed", "audits_skipped", "refused",
            "bars_lost", "trades_lost",
        ),
        0,
    )  # fmt: skip
    ages: dict[Feed, int | None] = {Feed.BOOK: 12_000, Feed.TRADES: None}
    return MarketHealthMeasured(START, START, "NEWUSDT", "stale", ages, **{**none, **counts})


def terminal(*messages: Any, width: int = 160) -> str:
    out = Console(width=width, height=40, file=io.StringIO(), record=True)
    view = TerminalView(
        "Live", simulated=False, start=START, end=START + DAY_MS, balance=1.0, console=out, wall_clock=Clock()
    )
    for message in (listed(), *messages):
        view.apply(message)
    out.print(view.render())
    return out.export_text()


def lines(*messages: Any) -> list[str]:
    """What is printed, with a line of state at the end."""
    out, clock = io.StringIO(), Clock()
    view = LineView(1.0, Console(width=300, file=out, color_system=None), clock)
    for message in (listed(), *messages):
        view.apply(message)
    view.tick(START)
    return [line.partition("  ")[2] for line in out.getvalue().splitlines()]


def test_lines_tell_which_tokens_lack_bars_and_how_many() -> None:
    many = [Readiness(START, f"T{index}", 1, 2) for index in range(UNWELL)]
    assert lines(Readiness(START, "XPLUSDT", 312, 480, 1), Readiness(START, "B", 480, 480))[-1] == (
        "warming up: XPLUSDT: 312 of 480 bars, 1 refused"
    )
    gone = InstrumentDelisted(START, START, "XPLUSDT")
    assert "warming up" not in " ".join(lines(Readiness(START, "XPLUSDT", 312, 480), gone))
    assert lines(*many, Readiness(START, "XPLUSDT", 312, 480))[-1].endswith("T9: 1 of 2 bars; and 1 more")


def test_a_market_that_does_not_judge_itself_has_no_column_of_data() -> None:
    shown = terminal()
    assert "data" not in shown
    assert "entries" not in shown


def test_the_table_shows_whether_a_symbol_is_well_how_old_its_book_is_and_what_was_lost() -> None:
    assert "well 12 s" in terminal(health(), measured())
    assert "well 12 s −3" in terminal(health(), measured(book_losses=1, bars_lost=2), width=80)
    assert "2 faults 12 s" in terminal(health("a", "b"), measured())


def test_both_views_name_the_faults_of_a_symbol_with_its_counters() -> None:
    events = (health(), health(FAULT), measured(book_losses=3, resyncs=2, audits_passed=5, audits_failed=1))
    counted = "NEWUSDT: book stale, 12 s old; 3 lost, 2 resyncs; audits 5 passed, 1 failed; "
    counted += "0 bars lost, 0 late, 0 corrected; 0 messages refused; " + FAULT
    assert counted in lines(*events)
    assert counted[:140] in terminal(*events)
    assert "allowed, but not in 1 of 1 symbols" in terminal(*events)
    assert "entries allowed, but not in 1 of 1 symbols" in lines(*events)[-2]


def test_both_views_say_what_blocks_entries() -> None:
    block = EntriesBlocked(START, START, "feed", "bars of BTCUSDT are 30 s late")
    assert "entries blocked by feed: bars of BTCUSDT are 30 s late" in terminal(block, width=200)
    shown = lines(block, block)
    assert shown[1] == "no entries (feed): bars of BTCUSDT are 30 s late"
    assert shown[-1].endswith("entries blocked by feed: bars of BTCUSDT are 30 s late")
    shown = lines(block, EntriesAllowed(START, START, "feed"))
    assert shown[-2:] == ["entries no longer wait for: feed", shown[-1]]
    assert shown[-1].endswith("entries allowed")


def test_a_fault_is_news_only_for_a_symbol_that_has_been_well() -> None:
    assert lines(health("nothing heard"))[1:-2] == []
    shown = lines(health("nothing heard"), health(), health(FAULT), health())
    assert shown[1:-1] == [f"NEWUSDT: {FAULT}", "NEWUSDT: its data is whole again"]


def test_a_dead_stream_is_one_line_that_counts_its_symbols_and_names_the_first() -> None:
    names = [f"T{number}USDT" for number in range(300)]
    well = [health(symbol=name) for name in names]
    dead = [health(f"the book is stale: gap after {n}", symbol=name) for n, name in enumerate(names)]
    first = f"{', '.join(names[:8])} and 292 more"
    shown = lines(*well, *dead)
    assert [line for line in shown if "gap after …" in line] == [f"{first}: the book is stale: gap after …"]
    shown = lines(*well, *dead, *well)
    assert [line for line in shown if "whole again" in line] == [f"{first}: its data is whole again"]


def test_a_line_carries_the_second_at_which_it_happened() -> None:
    out = io.StringIO()
    view = LineView(1.0, Console(width=200, file=out, color_system=None))
    view.apply(EntriesBlocked(START + 7_000, START + 7_000, "feed", "late"))
    assert out.getvalue().startswith("2025-01-01 00:00:07  no entries (feed): late")


def test_each_field_that_this_version_does_not_know_is_told_once() -> None:
    out, clock, unknown = io.StringIO(), Clock(), Counter({"order.data.newField": 3})
    view = LineView(1.0, Console(width=200, file=out, color_system=None), clock, unknown=unknown)
    for _ in range(2):
        view.tick(START)
        clock.now += 60.0
    unknown["topic insurance"] = 1
    view.tick(START)
    told = [line.partition("know: ")[2] for line in out.getvalue().splitlines() if "does not know" in line]
    assert told == ["order.data.newField (3)", "topic insurance (1)"]


def test_a_status_is_told_and_a_delisted_symbol_is_forgotten() -> None:
    shown = lines(
        InstrumentStatusChanged(START, START, "NEXTUSDT", TradingStatus.PRE_LAUNCH),
        health("nothing heard"),
        InstrumentDelisted(START, START, "NEWUSDT"),
    )
    assert shown[1] == "NEXTUSDT the exchange's status is PreLaunch"
    assert shown[-1].endswith("entries allowed")


def test_no_more_symbols_are_spelt_out_than_fit() -> None:
    shown = lines(*(health(FAULT, symbol=f"T{number}USDT") for number in range(13)))
    assert shown[-1] == "and 3 more that take no entries"
    assert "and 10 more that take no entries" in terminal(
        *(health(FAULT, symbol=f"T{number}USDT") for number in range(13))
    )
