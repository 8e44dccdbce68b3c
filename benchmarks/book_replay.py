"""Messages per CPU second of replaying one symbol's recorded frames through the live book, from raw JSON.

python -m benchmarks.book_replay [--frames N] [--loops L] [--rounds R] [--peer NAME=PYTHON ...]

After each message Python reads one feature, as a strategy would. A peer (hftbacktest, nautilus) replays the
same frames by the script of ../shared/bench, from memory in its own format, run with the Python of the
environment in which it is installed, in turn with ours.
"""

import argparse
import gc
import json
import statistics
import subprocess
from time import process_time

from benchmarks.book import DEPTH, SHARED, frames, symbol_of
from bot.market.book import Book, Outcome
from bot.market.book_kernel import IMBALANCE_10


def ours(messages: list[bytes], loops: int) -> float:
    book = Book(symbol_of(messages[0]), DEPTH)
    features = book.live_features
    used = 0
    total = 0.0
    gc.collect()
    began = process_time()
    for _ in range(loops):
        book.reset()
        for frame in messages:
            used += book.update(frame, 0) <= Outcome.REPLACED
            total += features[IMBALANCE_10]
    spent = process_time() - began
    if used != loops * len(messages) or total != total:
        raise SystemExit(f"a message was not used: {book.health(0)}")
    return used / spent


def peer(name: str, python: str, count: int, loops: int) -> float:
    command = [python, str(SHARED / "bench_l2_replay.py"), "--engine", name]
    command += ["--msgs", str(count), "--loops", str(loops)]
    result = subprocess.run(command, cwd=SHARED, capture_output=True, text=True, check=True)
    return float(json.loads(result.stdout.splitlines()[-1])["msg_per_s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--loops", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    options = parser.parse_args()
    messages, origin = frames(options.frames, symbols=1)
    ours(messages, 1)
    rates: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        rates.setdefault("ours", []).append(ours(messages, options.loops))
        for name, python in (entry.split("=", 1) for entry in options.peer):
            rates.setdefault(name, []).append(peer(name, python, len(messages), options.loops))
    print(f"{len(messages)} frames from {origin}, {options.loops} times; messages per CPU second")
    best = max(rates["ours"])
    for name, rate in rates.items():
        print(
            f"{name:12s} max {max(rate):12,.0f}  median {statistics.median(rate):12,.0f}"
            f"  ours / this {best / max(rate):6.2f}"
        )


if __name__ == "__main__":
    main()
