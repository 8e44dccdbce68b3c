"""Bar features: ours in one pass against TA-Lib and numpy computing the same columns, and one live decision.

python -m benchmarks.features [rows]

Ratios of processor time from rounds that take turns, so that a busy machine slows both sides alike. The run
ends with an error if the two disagree, or if a live feature differs from the batch in a single bit.
"""

import ctypes
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import talib
from numpy.typing import NDArray

from bot.core.events import MicrostructureSampled
from bot.market.bars import BarTable
from strategies.features.pipeline import FeatureBank, batch, raw_batch
from strategies.features.spec import COUNT, NAMES

Result = tuple[str, float, str]
Columns = list[NDArray[np.float64]]

STEP = 900_000
TOKENS = 600
HISTORY = 960  # bars of a live token: its normalisation window is full
RECOMPUTED = 1000  # bars that a bot without incremental state goes through at every close
ROUNDS = 5


def market(symbol: str, rows: int, seed: int) -> BarTable:
    """A geometric random walk with changing volatility and volume that follows the moves."""
    rng = np.random.default_rng(seed)
    move = 0.003 * np.exp(0.3 * np.sin(np.arange(rows) / 5000)) * rng.standard_normal(rows)
    close = 100 * np.exp(np.cumsum(move - move.mean()))
    opened = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(opened, close) * (1 + np.abs(rng.normal(0, 0.001, rows)))
    low = np.minimum(opened, close) * (1 - np.abs(rng.normal(0, 0.001, rows)))
    volume = rng.gamma(2, 20, rows) * (1 + 100 * np.abs(move))
    price = low + rng.random(rows) * (high - low)
    start = (np.arange(rows, dtype=np.int64) + 1_500_000) * STEP
    return BarTable(symbol, STEP, start, opened, high, low, close, volume, volume * price)


def shifted(values: NDArray[np.float64], bars: int) -> NDArray[np.float64]:
    """Change over `bars`, NaN where there is no past."""
    result = np.full(len(values), np.nan)
    result[bars:] = values[bars:] - values[:-bars]
    return result


def deviation(r: NDArray[np.float64], bars: int) -> NDArray[np.float64]:
    return talib.STDDEV(r, bars) * math.sqrt(bars / (bars - 1))


def book(rows: int, seed: int = 7) -> NDArray[np.float64]:
    """Book and trades of each bar, (rows, 8), in the order of MicrostructureSampled."""
    rng = np.random.default_rng(seed)
    shares = rng.uniform(-1, 1, (rows, 5))
    spread, offset, flow = rng.gamma(4, 0.5, rows), rng.normal(0, 0.2, rows), rng.normal(0, 30, rows)
    return np.column_stack([spread, shares[:, :3], offset, flow, shares[:, 3], np.abs(shares[:, 4])])


def by_talib(
    t: BarTable,
    first: BarTable,
    second: BarTable,
    funding: NDArray[np.float64],
    micro: NDArray[np.float64],
) -> Columns:
    """The features of `strategies.features.spec`, in its order, with whole-array calls."""
    log, log_first, log_second = np.log(t.close), np.log(first.close), np.log(second.close)
    r, q, p = (np.diff(x, prepend=x[0]) for x in (log, log_first, log_second))
    sigma, sigma_first, sigma_second = deviation(r, 96), deviation(q, 96), deviation(p, 96)
    day_sigma, short_sigma, step = sigma * math.sqrt(96), sigma * 4, sigma * t.close
    reach = t.high - t.low
    vwap = np.clip(t.turnover / t.volume, t.low, t.high)
    day, recent = talib.SUM(t.volume, 96), talib.SUM(t.volume, 16)
    _, _, histogram = talib.MACD(t.close, 12, 26, 9)
    upper, middle, lower = talib.BBANDS(t.close, 20, 2, 2)
    hours, days = shifted(log, 16), shifted(log, 96)
    correlation, second_correlation = talib.CORREL(r, q, 96), talib.CORREL(r, p, 96)
    beta, second_beta = correlation * sigma / sigma_first, second_correlation * sigma / sigma_second
    first_return, second_return = q / sigma_first, p / sigma_second
    strength = (hours - shifted(log_first, 16)) / short_sigma
    second_strength = (hours - shifted(log_second, 16)) / short_sigma
    flow = micro[:, 5]
    closed = t.start + t.interval
    phase = 2 * np.pi / 86_400_000 * (closed % 86_400_000)
    rate = funding / 5e-4
    none = np.zeros(len(t))
    return [
        r / sigma,
        shifted(log, 4) / (2 * sigma),
        hours / short_sigma,
        days / day_sigma,
        np.expm1(hours) / short_sigma,
        np.expm1(days) / day_sigma,
        np.log(sigma),
        np.log(deviation(r, 16) / sigma),
        reach / step,
        (2 * t.close - t.high - t.low) / reach,
        (t.close - t.open) / reach,
        np.log(t.volume / talib.EMA(t.volume, 95)),
        np.log(6 * recent / day),
        (t.close - vwap) / reach,
        (t.close / (talib.SUM(vwap * t.volume, 96) / day) - 1) / day_sigma,
        shifted(talib.OBV(t.close, t.volume), 16) / recent,
        talib.RSI(t.close, 14) / 50 - 1,
        histogram / step,
        (t.close - middle) / ((upper - lower) / 2),
        talib.ATR(t.high, t.low, t.close, 14) / step,
        first_return,
        correlation,
        beta,
        (r - beta * q) / sigma,
        strength,
        second_return,
        second_correlation,
        second_beta,
        second_strength,
        np.log(micro[:, 0]),
        micro[:, 1].copy(),
        micro[:, 2].copy(),
        micro[:, 3].copy(),
        micro[:, 4] / (1e4 * sigma),
        flow / (np.abs(flow) + t.volume),
        micro[:, 6].copy(),
        micro[:, 7].copy(),
        rate / (1 + np.abs(rate)),
        np.log1p(np.minimum(closed / 86_400_000, 365)) / math.log(366),
        np.sin(phase),
        np.cos(phase),
        *[none] * 5,  # missing bits, which come with the normalisation
    ]


def keep_freed_memory() -> None:
    """Time arithmetic: fresh pages for 240 MB of results can cost either side several times as much."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc
    if mallopt is not None:
        mmap_max, trim_threshold = -4, -1
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def cpu_seconds(work: Callable[[], object]) -> float:
    gc.collect()
    gc.disable()
    begin = time.process_time()
    work()
    spent = time.process_time() - begin
    gc.enable()
    return spent


def in_turns(works: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """CPU seconds of each work, one after the other in every round; the first round only warms up."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            seconds = cpu_seconds(work)
            if turn:
                spent[name].append(seconds)
    return spent


def check_agreement(rows: int = 3000) -> None:
    t, first, second = (market(name, rows, seed) for seed, name in enumerate("TFS"))
    funding, micro = np.full(rows, 1e-4), book(rows)
    ours = raw_batch(t, first, second, funding, micro=micro).values
    theirs = by_talib(t, first, second, funding, micro)
    for name, mine, other in zip(NAMES, ours.T, theirs, strict=True):
        np.testing.assert_allclose(mine[1000:], other[1000:], rtol=1e-6, atol=1e-7, err_msg=name)


def samples(t: BarTable, micro: NDArray[np.float64]) -> list[MicrostructureSampled]:
    return [
        MicrostructureSampled(start + STEP, start + STEP, t.symbol, start, *row)
        for start, row in zip(t.start.tolist(), micro.tolist(), strict=True)
    ]


def check_bits(rows: int = 1500) -> None:
    t, first, second = (market(name, rows, seed) for seed, name in enumerate("TFS"))
    bank, micro = FeatureBank(), book(rows)
    bank.add("T", 0)
    bars = zip(t.events(), first.events(), second.events(), samples(t, micro), strict=True)
    live = np.stack([bank.update(bar, one, two, 1e-4, seen).x for bar, one, two, seen in bars])
    table = batch(t, first, second, np.full(rows, 1e-4), micro=micro)
    np.testing.assert_array_equal(live, table.x)
    if not table.ready[-1]:
        raise AssertionError("the features are not ready")


def batch_results(rows: int) -> list[Result]:
    t, first, second = (market(name, rows, seed) for seed, name in enumerate("TFS"))
    funding, micro = np.full(rows, 1e-4), book(rows)
    spent = in_turns(
        {
            "ours": lambda: raw_batch(t, first, second, funding, micro=micro),
            "talib": lambda: by_talib(t, first, second, funding, micro),
            "normalised": lambda: batch(t, first, second, funding, micro=micro),
        }
    )
    best, usual = ({name: pick(times) for name, times in spent.items()} for pick in (min, statistics.median))
    what = f"{COUNT} raw features, {rows} rows"
    return [
        (f"{what}: ours / TA-Lib + numpy, median", usual["ours"] / usual["talib"], "x"),
        (f"{what}: ours / TA-Lib + numpy, min", best["ours"] / best["talib"], "x"),
        (f"{what}: ours, median", usual["ours"] / rows * 1e9, "ns per row"),
        (f"{what}: TA-Lib + numpy, median", usual["talib"] / rows * 1e9, "ns per row"),
        ("the same, normalised: ours, median", usual["normalised"] / rows * 1e9, "ns per row"),
    ]


def live_results(closes: int = 60) -> list[Result]:
    """Latency of one bar close for all tokens, every bar with its normalisation.

    The events of a close are made right before it, as the decoder makes them.
    """
    first = market("F", HISTORY + closes, 1)
    tables = [market(f"T{i}", HISTORY + closes, 10 + i) for i in range(TOKENS)]
    bank = FeatureBank()
    micro = book(HISTORY + closes)
    for t in tables:
        bank.add(t.symbol, 0)
        bank.replay(t.rows(slice(0, HISTORY)), first, first, None, micro[:HISTORY])
    rest = slice(HISTORY, None)
    references = list(first.rows(rest).events())
    old, rates, books_of_old = market("T", RECOMPUTED, 5), np.full(RECOMPUTED, 1e-4), book(RECOMPUTED)
    ours, theirs = [], []
    for close, reference in enumerate(references):
        row = slice(HISTORY + close, HISTORY + close + 1)
        newest = [t.rows(row) for t in tables]
        bars = [bar for t in newest for bar in t.events()]
        books = [book for t in newest for book in samples(t, micro[row])]
        close_all = partial(bank.update_many, bars, reference, reference, [1e-4] * TOKENS, books)
        ours.append(cpu_seconds(close_all))
        theirs.append(TOKENS * cpu_seconds(lambda: by_talib(old, old, old, rates, books_of_old)))
    alone, single = FeatureBank(), list(tables[0].rows(rest).events())
    alone.add(tables[0].symbol, 0)
    one = cpu_seconds(lambda: [alone.update(bar, None, None, 0.0) for bar in single]) / closes
    usual = statistics.median(ours)
    return [
        (f"one close, {TOKENS} tokens, one call: median", usual * 1e3, "ms"),
        (f"one close, {TOKENS} tokens, one call: slowest of {closes}", max(ours) * 1e3, "ms"),
        (
            f"the same / TA-Lib over the last {RECOMPUTED} bars",
            usual / statistics.median(theirs),
            "x",
        ),
        ("one close, one token, one call", one * 1e6, "us"),
    ]


def run(rows: int = 1_000_000) -> list[Result]:
    """(what, value, unit) of every measurement. Raises AssertionError when results differ."""
    keep_freed_memory()
    check_agreement()
    check_bits()
    return [*batch_results(rows), *live_results()]


def main() -> None:
    for what, value, unit in run(*(int(argument) for argument in sys.argv[1:2])):
        print(f"{what:<70} {value:10.3f} {unit}")


if __name__ == "__main__":
    main()
