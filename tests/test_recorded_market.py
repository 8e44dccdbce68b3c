"""A market from bar files: who is listed when, what comes in which order, and what it may know."""

import json
from collections.abc import Iterable
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bot.core.errors import DataError, UsageError
from bot.core.events import BarClosed, Event, FundingRatePublished, InstrumentDelisted, InstrumentListed
from bot.core.types import DAY_MS, HOUR_MS, MINUTE_MS
from bot.exchange import recorded_instruments
from bot.exchange.market import HistoricalMarket
from bot.exchange.recorded import MAX_HALF_SPREAD, RecordedMarket, discover
from bot.market.bars import BarTable
from bot.settings import Costs, Label
from bot.storage import barfiles
from strategies.features.pipeline import FeatureBank
from strategies.learning import sources

BEGIN = 1_735_689_600_000  # 2025-01-01 00:00 UTC
STEP = 15 * MINUTE_MS
RECORDED = Path(__file__).parents[2] / "shared" / "data"


def record(
    directory: Path,
    symbol: str,
    first: int,
    last: int,
    *,
    interval: int = STEP,
    skip: Iterable[int] = (),
    seed: int = 0,
) -> BarTable:
    """Bars from `first` to `last`, in days after BEGIN, without the bar numbers in `skip`."""
    start = np.arange(BEGIN + first * DAY_MS, BEGIN + last * DAY_MS, interval)
    rng = np.random.default_rng(list(symbol.encode()))
    close = np.exp(0.003 * rng.standard_normal(len(start)).cumsum())
    opened = np.concatenate(([1.0], close[:-1]))
    high = np.maximum(opened, close) * (1 + 0.002 * rng.random(len(start)))
    low = np.minimum(opened, close) * (1 - 0.002 * rng.random(len(start)))
    volume = rng.random(len(start))
    table = BarTable(symbol, interval, start, opened, high, low, close, volume, volume * close)
    table = table.rows(~np.isin(np.arange(len(start)), list(skip)))
    barfiles.write(directory, table)
    return table


def record_funding(directory: Path, symbol: str, ts: Any) -> None:
    directory.mkdir(exist_ok=True)
    table = pa.table({"ts": np.asarray(ts), "rate": np.full(len(ts), 1e-4)})
    pq.write_table(table, directory / f"{symbol}.parquet")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two sources over 40 days; OLD trades all the time, NEW from day 20 to 35, MID from day 22 to 40."""
    path = tmp_path / "bars"
    record(path, "BTCUSDT", 0, 40)
    record(path, "ETHUSDT", 0, 40, interval=5 * MINUTE_MS)
    record(path, "OLDUSDT", 0, 40)
    record(path, "NEWUSDT", 20, 35, skip=[50, 51, 52])
    record(path, "MIDUSDT", 22, 40, interval=5 * MINUTE_MS)
    return path


def market(directory: Path, *tokens: str, **options: Any) -> RecordedMarket:
    options = {"decision_interval_ms": STEP, "costs": Costs(), **options}
    return RecordedMarket(directory, ("BTCUSDT", "ETHUSDT"), tokens, **options)


def of(events: Iterable[Event], kind: type[Event], symbol: str = "") -> list[Any]:
    return [
        event
        for event in events
        if isinstance(event, kind) and symbol in ("", getattr(event, "symbol", symbol))
    ]


def test_it_is_a_historical_market_and_says_that_it_is_real(directory: Path) -> None:
    run: HistoricalMarket = market(directory, "NEWUSDT")
    assert run.simulated is False
    assert "1 recorded tokens, 2025-01-21 00:00 to 2025-02-05 00:00" in run.title


def test_without_a_start_the_run_spans_the_bars_of_the_tokens(directory: Path) -> None:
    run = market(directory, "MIDUSDT", "NEWUSDT")
    assert run.start == BEGIN + 20 * DAY_MS
    assert run.end == BEGIN + 40 * DAY_MS


def test_the_start_lies_on_the_decision_grid(directory: Path) -> None:
    run = market(directory, "OLDUSDT", start=BEGIN + 20 * DAY_MS + 7 * MINUTE_MS)
    assert run.start == BEGIN + 20 * DAY_MS


def test_every_bar_of_the_run_comes_once_and_unchanged(directory: Path) -> None:
    events = list(market(directory, "NEWUSDT", "MIDUSDT").events())
    for symbol in ("NEWUSDT", "MIDUSDT"):
        path = barfiles.find(directory, symbol, STEP)
        assert of(events, BarClosed, symbol) == list(barfiles.read(path).events())


def test_sources_begin_warm_up_days_before_the_run_and_tokens_do_not(directory: Path) -> None:
    events = list(market(directory, "OLDUSDT", start=BEGIN + 20 * DAY_MS, warmup_days=8).events())
    for source in ("BTCUSDT", "ETHUSDT"):
        assert of(events, BarClosed, source)[0].start == BEGIN + 12 * DAY_MS
    assert of(events, BarClosed, "OLDUSDT")[0].start == BEGIN + 20 * DAY_MS


def test_history_ends_where_the_run_begins(directory: Path) -> None:
    run = market(directory, "NEWUSDT")
    past = run.history("ETHUSDT")
    assert past.start[0] == BEGIN
    assert past.start[-1] + past.interval == run.start


def test_tokens_of_before_are_known_up_to_the_start_and_are_no_part_of_the_run(directory: Path) -> None:
    """The newest first to be kept, the oldest first in order, each from its first bar on."""
    run = market(directory, "MIDUSDT", start=BEGIN + 30 * DAY_MS)
    old, new = run.earlier(5, 60)
    assert (old.symbol, new.symbol) == ("OLDUSDT", "NEWUSDT")
    for table, first in ((old, 0), (new, 20)):
        assert table.start[0] == BEGIN + first * DAY_MS
        assert table.start[-1] + table.interval == run.start
    assert [table.symbol for table in run.earlier(1, 60)] == ["NEWUSDT"]
    assert [len(table) for table in run.earlier(1, 4)] == [4 * 96 - 3]
    assert market(directory, "OLDUSDT").earlier(5, 60) == []


def test_what_the_chain_is_given_of_them_is_what_the_live_path_would_have_computed(directory: Path) -> None:
    record(directory, "BTCUSDT", 0, 60)
    record(directory, "ETHUSDT", 0, 60)
    record(directory, "PASTUSDT", 5, 30)
    run = market(directory, "MIDUSDT", start=BEGIN + 30 * DAY_MS)
    references = [run.history(name) for name in ("BTCUSDT", "ETHUSDT")]
    built = sources.build(references, Label())
    tables = [table for table in run.earlier(5, 60) if table.symbol == "PASTUSDT"]
    (series,) = sources.listings(tables, references, built.statistics, built.columns, Label())

    bank, rows = FeatureBank(built.statistics), {}
    bank.add("PASTUSDT", BEGIN + 5 * DAY_MS)
    tables += [one.between(BEGIN + 5 * DAY_MS, run.start) for one in references]
    for bar, first, second in zip(*(table.events() for table in tables), strict=True):
        row = bank.update(bar, first, second)
        if row.ready:
            rows[bar.start] = row.x[sources.column_indices(built.columns)]
    assert series.starts.tolist() == list(rows)
    np.testing.assert_array_equal(series.x, np.array(list(rows.values())))
    assert (series.t_known[series.y >= 0] <= run.start).all()
    assert (series.y[-Label().horizon_bars :] == -1).all()


def test_a_source_without_history_is_an_error(directory: Path) -> None:
    with pytest.raises(DataError, match="BTCUSDT: no bars before the run begins"):
        market(directory, "OLDUSDT").history("BTCUSDT")


def test_a_token_lists_itself_at_the_open_of_its_first_bar(directory: Path) -> None:
    listings = of(market(directory, "NEWUSDT", "MIDUSDT").events(), InstrumentListed)
    assert [(event.ts, event.instrument.symbol) for event in listings] == [
        (BEGIN + 20 * DAY_MS, "NEWUSDT"),
        (BEGIN + 22 * DAY_MS, "MIDUSDT"),
    ]
    assert not any(event.instrument.simulated for event in listings)


def test_a_token_older_than_the_run_lists_itself_at_the_start_with_its_true_age(directory: Path) -> None:
    run = market(directory, "OLDUSDT", start=BEGIN + 20 * DAY_MS)
    (listing,) = of(run.events(), InstrumentListed)
    assert listing.ts == run.start
    assert listing.instrument.launch_time == BEGIN


def test_a_token_whose_bars_end_early_is_delisted_after_its_last_bar(directory: Path) -> None:
    events = list(market(directory, "NEWUSDT", "MIDUSDT").events())
    (delisting,) = of(events, InstrumentDelisted)
    assert (delisting.symbol, delisting.ts) == ("NEWUSDT", BEGIN + 35 * DAY_MS)
    assert delisting.reason == "its recorded bars end", "no exchange has delisted it"
    last_bar = of(events, BarClosed, "NEWUSDT")[-1]
    assert events.index(delisting) > events.index(last_bar)
    assert last_bar.ts == delisting.ts


def test_days_per_token_ends_the_recorded_window_of_each(directory: Path) -> None:
    events = list(market(directory, "NEWUSDT", "MIDUSDT", days_per_token=5).events())
    assert {event.symbol: event.ts for event in of(events, InstrumentDelisted)} == {
        "NEWUSDT": BEGIN + 25 * DAY_MS
    }  # the run ends with MID, so nothing has to close it
    assert events[-1].ts == BEGIN + 27 * DAY_MS
    assert of(events, BarClosed, "NEWUSDT")[-1].ts == BEGIN + 25 * DAY_MS


def test_equal_times_are_ordered_listings_sources_tokens_funding_delistings(
    directory: Path, tmp_path: Path
) -> None:
    record(directory, "ZZZUSDT", 25, 40)
    funding = tmp_path / "funding"
    for symbol in ("BTCUSDT", "MIDUSDT", "NEWUSDT"):
        record_funding(funding, symbol, BEGIN + np.arange(0, 40 * 24, 8) * HOUR_MS)
    run = market(
        directory, "MIDUSDT", "NEWUSDT", "ZZZUSDT",
        end=BEGIN + 36 * DAY_MS, days_per_token=13, funding_directory=funding,
    )  # fmt: skip
    events = list(run.events())
    sources, tokens = ["BTCUSDT", "ETHUSDT"], ["MIDUSDT", "NEWUSDT", "ZZZUSDT"]
    kinds = [InstrumentListed, BarClosed, FundingRatePublished, InstrumentDelisted]

    def key(event: Any) -> tuple[int, int, int]:
        symbol = event.instrument.symbol if isinstance(event, InstrumentListed) else event.symbol
        return event.ts, kinds.index(type(event)), (sources + tokens).index(symbol)

    keys = [key(event) for event in events]
    assert all(one < other for one, other in pairwise(keys))
    busy = [type(event) for event in events if event.ts == BEGIN + 33 * DAY_MS]  # NEW's 13 days are over
    assert {FundingRatePublished, BarClosed, InstrumentDelisted} == set(busy)


def test_events_can_be_read_again(directory: Path) -> None:
    run = market(directory, "NEWUSDT", end=BEGIN + 22 * DAY_MS)
    assert list(run.events()) == list(run.events())


def test_funding_is_published_while_the_token_is_listed_and_sets_its_interval(
    directory: Path, tmp_path: Path
) -> None:
    record_funding(tmp_path / "funding", "NEWUSDT", BEGIN + np.arange(0, 40 * 24, 4) * HOUR_MS)
    events = list(market(directory, "NEWUSDT", funding_directory=tmp_path / "funding").events())
    times = [event.ts for event in of(events, FundingRatePublished)]
    assert times[0] == BEGIN + 20 * DAY_MS + 4 * HOUR_MS
    assert times[-1] == BEGIN + 35 * DAY_MS
    assert of(events, InstrumentListed)[0].instrument.funding_interval_ms == 4 * HOUR_MS


def test_where_funding_rates_come_from_is_told_and_which_tokens_have_none(
    directory: Path, tmp_path: Path
) -> None:
    rates = tmp_path / "funding"
    record_funding(rates, "NEWUSDT", BEGIN + np.arange(0, 40 * 24, 8) * HOUR_MS)
    lacking = "no funding rates for 1 token: costs.default_funding is charged"
    notes = market(directory, "NEWUSDT", "OLDUSDT", funding_directory=rates).notes
    assert [note for note in notes if "funding" in note] == [f"funding rates from {rates}", lacking]
    assert [note for note in market(directory, "NEWUSDT").notes if "funding" in note] == [lacking]


def test_a_funding_directory_that_does_not_exist_is_an_error(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory of funding rates"):
        market(directory, "NEWUSDT", funding_directory=tmp_path / "nowhere")


def test_the_run_ends_with_the_sources(directory: Path) -> None:
    record(directory, "ETHUSDT", 0, 30)
    (directory / "ETHUSDT" / "5m.parquet").unlink()
    run = market(directory, "MIDUSDT")
    assert run.end == BEGIN + 30 * DAY_MS
    assert "the run ends 2025-01-31 00:00, with the sources" in run.notes


def test_sources_that_end_before_the_first_token_begins_are_an_error(directory: Path) -> None:
    record(directory, "BTCUSDT", 0, 10)
    with pytest.raises(DataError, match="BTCUSDT: the bars of the source end 2025-01-11 00:00, before"):
        market(directory, "NEWUSDT")


def test_a_run_without_any_bar_says_where_the_bars_are(directory: Path) -> None:
    with pytest.raises(UsageError, match="lie between 2025-01-21 00:00 and 2025-02-05 00:00"):
        market(directory, "NEWUSDT", start=BEGIN + 36 * DAY_MS)


def test_a_token_without_bars_in_the_run_is_left_out_and_noted(directory: Path) -> None:
    run = market(directory, "NEWUSDT", "OLDUSDT", start=BEGIN + 36 * DAY_MS)
    assert "no bars in the run: NEWUSDT" in run.notes
    assert {event.symbol for event in of(run.events(), BarClosed)} == {"BTCUSDT", "ETHUSDT", "OLDUSDT"}


def test_gaps_are_counted_in_the_notes(directory: Path) -> None:
    assert "missing bars: NEWUSDT 3" in market(directory, "NEWUSDT").notes


def test_a_source_cannot_be_a_token_and_nothing_cannot_be_traded(directory: Path) -> None:
    with pytest.raises(UsageError, match="BTCUSDT: a source cannot be a token"):
        market(directory, "BTCUSDT")
    with pytest.raises(UsageError, match="a run needs one of each"):
        market(directory)


def test_the_half_spread_widens_with_the_bar_before_and_knows_nothing_later(directory: Path) -> None:
    run = market(directory, "NEWUSDT")
    table = barfiles.read(directory / "NEWUSDT" / "15m.parquet")
    ranges = 0.05 * (table.high - table.low) / table.open
    for index in range(1, 200):
        expected = max(Costs().half_spread, ranges[index - 1])
        assert run.half_spread("NEWUSDT", int(table.start[index])) == expected
    assert run.half_spread("NEWUSDT", int(table.start[0])) == Costs().half_spread
    assert run.half_spread("NEWUSDT", int(table.start[0]) - DAY_MS) == Costs().half_spread
    inside_gap = int(table.start[49]) + 2 * STEP
    assert run.half_spread("NEWUSDT", inside_gap) == max(Costs().half_spread, ranges[49])
    assert run.half_spread("NEWUSDT", int(table.start[-1]) + DAY_MS) == max(Costs().half_spread, ranges[-1])


def test_the_half_spread_has_a_ceiling(directory: Path) -> None:
    ones = np.ones(2)
    table = BarTable(
        "WILDUSDT", STEP, BEGIN + 20 * DAY_MS + STEP * np.arange(2), ones, 90 * ones, ones, ones, ones, ones
    )
    barfiles.write(directory, table)
    assert market(directory, "WILDUSDT").half_spread("WILDUSDT", int(table.start[1])) == MAX_HALF_SPREAD


@pytest.mark.parametrize(
    ("price", "tick", "step"),
    [
        (61_234.5, "1", "0.00001"),
        (1.0, "0.0001", "1"),
        (0.5, "0.00001", "1"),
        (0.0123, "0.000001", "10"),
        (0.00000345, "0.0000000001", "100000"),
    ],
)
def test_inferred_filters_follow_the_price(price: float, tick: str, step: str) -> None:
    filters = recorded_instruments.infer(price)
    assert filters.tick_size == Decimal(tick)
    assert filters.qty_step == filters.min_qty == Decimal(step)
    assert Decimal("0.1") <= filters.qty_step * Decimal(repr(price)) <= 1
    assert filters.min_notional == 5
    assert "E+" not in str(filters.qty_step)


def test_stated_filters_replace_inferred_ones(directory: Path) -> None:
    filters = {
        "tick_size": "0.01", "qty_step": 0.5, "min_qty": "0.5",
        "max_qty": "100", "max_market_qty": "50", "min_notional": 7,
    }  # fmt: skip
    (directory / "instruments.json").write_text(json.dumps({"NEWUSDT": filters}))
    run = market(directory, "NEWUSDT", "MIDUSDT")
    listings = {event.instrument.symbol: event.instrument for event in of(run.events(), InstrumentListed)}
    assert listings["NEWUSDT"].qty_step == Decimal("0.5")
    assert listings["NEWUSDT"].max_market_qty == 50
    assert listings["MIDUSDT"].min_notional == 5
    assert "instrument filters inferred for 1 token" in run.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "truncated"),
        ('{"NEWUSDT": {"tick_size": "0.1"}}', "missing required field"),
        ('{"NEWUSDT": 3}', "Expected `object`"),
        (
            '{"NEWUSDT": {"tick_size": "0", "qty_step": "1", "min_qty": "1", "max_qty": "1", '
            '"max_market_qty": "1", "min_notional": "1"}}',
            "tick_size must be a number above zero",
        ),
    ],
)
def test_wrong_filters_are_refused_with_the_file(directory: Path, text: str, message: str) -> None:
    (directory / "instruments.json").write_text(text)
    with pytest.raises(DataError, match=rf"instruments\.json: .*{message}"):
        market(directory, "NEWUSDT")


def test_discover_lists_the_tokens_by_their_first_bar(directory: Path) -> None:
    (directory / "EMPTYUSDT").mkdir()
    record(directory, "HOURUSDT", 0, 1, interval=HOUR_MS)
    found = discover(directory, ("BTCUSDT", "ETHUSDT"), STEP)
    assert [(item.symbol, item.interval) for item in found] == [
        ("OLDUSDT", "15m"),
        ("NEWUSDT", "15m"),
        ("MIDUSDT", "5m"),
    ]
    assert found[1].rows == 15 * 96 - 3
    assert found[1].first == BEGIN + 20 * DAY_MS
    with pytest.raises(DataError, match="no such directory"):
        discover(directory / "nowhere")


@pytest.mark.skipif(not RECORDED.is_dir(), reason=f"no recorded market data in {RECORDED}")
def test_real_recordings_run_in_order() -> None:
    run = market(RECORDED / "klines" / "binance-usdm", "ACTUSDT", "PNUTUSDT", days_per_token=10)
    times = [event.ts for event in run.events()]
    assert times == sorted(times)
    warm_up, token, later = 8 * 96, 10 * 96, 1  # bars; PNUT lists one bar after ACT
    listings, delistings = 2, 1
    assert len(times) == 2 * (warm_up + token + later) + 2 * token + listings + delistings
