"""From nothing to the first valid feature: a new process with warm caches, against importing numba alone.

python -m benchmarks.start [rounds]

The process imports the bot's market and features, takes an order book message and 200 bars of a new token,
and ends when its row is ready. It is an error if a kernel had to be compiled.
"""

import statistics
import subprocess
import sys
import time

CHILD = """
import sys
import numpy as np
from bot.market.bars import BarTable
from bot.market.book import Book
from strategies.features import kernel, normaliser
from strategies.features.pipeline import FeatureBank
Book("NEWUSDT").update(b"{}", 0)
close = 100 * np.exp(np.cumsum(0.003 * np.random.default_rng(1).standard_normal(200)))
start, volume = (np.arange(200) + 1_500_000) * 900_000, 50 + close % 7
table = BarTable(
    "NEWUSDT", 900_000, start, close, close * 1.001, close * 0.999, close, volume, volume * close
)
bank = FeatureBank()
bank.add("NEWUSDT", 0)
rows = [bank.update(bar, bar, bar) for bar in table.events()]
assert rows[-1].ready
heavy = {"pandas", "talib", "torch"} & set(sys.modules)
assert not heavy, f"imported for nothing: {heavy}"
compiled = [f.__name__ for f in (kernel.advance, normaliser.normalise) if f.stats.cache_misses]
assert not compiled, f"compiled anew: {compiled}"
"""


def seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    subprocess.run([sys.executable, "-c", CHILD.partition("compiled =")[0]], check=True)  # fills the cache
    spent = [(seconds(CHILD), seconds("import numba")) for _ in range(rounds)]
    ours, bare = zip(*spent, strict=True)
    print(f"{'start to first valid feature, warm cache: median':<70} {statistics.median(ours):10.3f} s")
    print(f"{'the same: slowest of ' + str(rounds):<70} {max(ours):10.3f} s")
    print(f"{'the same / import numba':<70} {min(ours) / min(bare):10.3f} x")


if __name__ == "__main__":
    main()
