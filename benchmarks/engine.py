"""Bars per CPU second of the live engine (orders, fees, risk, stops) on a moving-average cross.

python -m benchmarks.engine [--bars N] [--rounds R] [--peer NAME=PYTHON ...]

A peer is run by the scripts of ../shared/bench where they are present, with the Python of the environment
in which that peer is installed, in turn with ours; the ratio of each round is what counts.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from bot.core.events import AdaptationFailed, CandidateArrived, Event, InstrumentListed
from bot.core.types import MINUTE_MS, Instrument
from bot.engine.engine import Engine
from bot.engine.portfolio import Portfolio
from bot.engine.runner import Runner
from bot.exchange.simulated.broker import SimulatedBroker
from bot.execution.orders import Orders
from bot.market.bars import BarTable
from bot.settings import Costs, Execution, Gate, Risk
from risk.breaker import Breaker
from risk.manager import RiskManager
from strategies.baselines import MovingAverageCross

PEERS = Path(__file__).parents[2] / "shared" / "bench" / "bench_backtest.py"
START = 1_640_995_200_000


def bars(count: int, seed: int = 11) -> BarTable:
    """Seeded one-minute bars of the kind that the peers' script makes."""
    rng = np.random.default_rng(seed)
    vol = 0.0006 * np.exp(0.3 * np.sin(np.arange(count) / 5000.0))
    returns = rng.standard_normal(count) * vol
    close = np.maximum(30_000 * np.exp(np.cumsum(returns - returns.mean())), 100.0)
    opened = np.concatenate([[30_000.0], close[:-1]])
    wick = np.abs(rng.standard_normal((2, count))) * vol * 0.5
    high = np.maximum(opened, close) * (1 + wick[0])
    low = np.minimum(opened, close) * (1 - wick[1])
    volume = rng.gamma(2.0, 20.0, count) * (1 + 300 * np.abs(returns))
    start = START + np.arange(count, dtype=np.int64) * MINUTE_MS
    o, h, lo, c = (np.round(x, 1) for x in (opened, high, low, close))
    return BarTable("BTCUSDT", MINUTE_MS, start, o, h, lo, c, np.round(volume, 3), volume * c)


class Memory:
    """A journal that keeps nothing: the peers keep none either."""

    def __init__(self) -> None:
        self.messages = 0

    def write(self, message: object) -> None:
        self.messages += 1

    def commit(self) -> None:
        pass


class NoModels:
    def submit(self, job: object) -> None:
        pass

    def poll(self) -> None:
        pass

    def take(self, symbol: str, cut: int, due: int) -> CandidateArrived | AdaptationFailed | None:
        return None


class Broker(SimulatedBroker):
    """Counts what was filled."""

    fills = 0

    def on_market(self, events: Sequence[Event]) -> list[Event]:
        facts = super().on_market(events)
        self.fills += len(facts)
        return facts


def run(table: BarTable) -> tuple[float, int]:
    """CPU seconds of one backtest, bars included as events, and the facts that the broker told."""
    risk = Risk(cooldown_minutes=0, max_holding_bars=10**9, token_daily_loss=0.9)  # as the peers: none of it
    gate, costs = Gate(), Costs()
    breaker = Breaker(risk, 1e6)
    engine = Engine(
        MovingAverageCross(), RiskManager(risk, gate, costs, breaker), breaker, Portfolio(Decimal(1_000_000)),
        Orders(), risk, MINUTE_MS, Execution(twap_notional=1e9),
    )  # fmt: skip
    broker = Broker(costs, lambda symbol, start: 0.0001, Decimal(1_000_000))
    runner = Runner(engine, broker, NoModels(), Memory(), MINUTE_MS)
    contract = Instrument(
        symbol="BTCUSDT", tick_size=Decimal("0.1"), qty_step=Decimal("0.001"), min_qty=Decimal("0.001"),
        max_qty=Decimal(1000), max_market_qty=Decimal(1000), min_notional=Decimal(5), launch_time=START,
    )  # fmt: skip
    began = process_time()
    runner.advance([InstrumentListed(START, START, contract)])
    for bar in table.events():
        runner.advance([bar])
    return process_time() - began, broker.fills


def peer(python: str, engine: str, count: int) -> dict[str, Any]:
    command = [python, str(PEERS), "--engine", engine, "--bars", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PEERS.parent)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bars", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    options = parser.parse_args(arguments)
    table = bars(options.bars)
    run(table.rows(slice(0, 5_000)))
    peers = dict(item.split("=", 1) for item in options.peer)
    if peers and not PEERS.exists():
        sys.exit(f"the peers' script is not at {PEERS}; run without --peer")
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in peers}
    facts = 0
    for _ in range(options.rounds):
        seconds, facts = run(table)
        ours.append(options.bars / seconds)
        for name, python in peers.items():
            theirs[name].append(float(peer(python, name, options.bars)["bars_per_cpu_s"]))
    print(f"engine: {statistics.median(ours):,.0f} bars per CPU second (max {max(ours):,.0f}), {facts} facts")
    for name, figures in theirs.items():
        ratios = [a / b for a, b in zip(ours, figures, strict=True)]
        print(
            f"  / {name}: x{statistics.median(ratios):.2f} (min x{min(ratios):.2f}; "
            f"{name} {statistics.median(figures):,.0f} bars per CPU second)"
        )


if __name__ == "__main__":
    main()
