"""Resident memory of a paper run and of its adaptation child, while it trades, and whether it is flat.

python -m benchmarks.memory [--days N]
python -m benchmarks.memory --jobs N

A run on the simulated market in a process of its own, sampled ten times a second. The report that ends a run
is left out: it loads tables and charts when nothing trades any more. With --jobs the child alone: N brief
adaptations of snapshots that grow, a step of the chain over ever more listings after every hundred of them;
it ends with an error when the child is over its limit, or grows by more than 10 MB when they grow no more.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.worker import Bench
from bot.settings import Adaptation

LIMIT_MB = 400  # of the live process
CHILD_LIMIT_MB = 900
MOST_GROWTH_MB = 10
SAMPLE_SECONDS = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=0)
    options = parser.parse_args()
    if options.jobs:
        found = _of_jobs(options.jobs)
        if _show("the child", CHILD_LIMIT_MB, found) > MOST_GROWTH_MB or max(found) > CHILD_LIMIT_MB:
            sys.exit("over a limit")
        return
    days = options.days
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "bot", "paper", "--days", str(days), "--directory", directory]
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        samples = _samples(run, Path(directory) / "reports")
        if run.poll() is None:
            os.kill(run.pid, signal.SIGINT)
        run.wait(60)
    for name, limit, megabytes in (
        ("live process", LIMIT_MB, [own for own, _ in samples]),
        ("its child", CHILD_LIMIT_MB, [child for _, child in samples]),
    ):
        _show(name, limit, megabytes)


def _show(name: str, limit: int, megabytes: list[float]) -> float:
    """The growth that it prints: of the medians of the last two thirds, MB."""
    middle, end = len(megabytes) // 3, 2 * len(megabytes) // 3
    growth = statistics.median(megabytes[end:]) - statistics.median(megabytes[middle:end])
    print(f"{name}: {max(megabytes):.0f} MB at most (limit {limit}); {growth:+.0f} MB in the last third")
    return growth


def _of_jobs(jobs: int) -> list[float]:
    """MB of a child after each job: the first ones on 300 rows, those of the second half on 2,000."""
    found = []
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), Adaptation(steps=2, gentle_steps=2, chain_steps=2))
        try:
            for number in range(jobs):
                rows = min(2_000, 300 + 3_400 * number // jobs)
                bench.submit(bench.base if number % 2 else bench.chain, rows)
                if number % 100 == 99:
                    bench.extend(1 + 39 * number // jobs)
                bench.drain()
                found.append(bench.child_mb)
        finally:
            bench.worker.close()
    return found


def _samples(run: "subprocess.Popen[bytes]", reports: Path) -> list[tuple[float, float]]:
    """MB of the process and of its largest child until the trading ends: then a report is begun."""
    process, found = psutil.Process(run.pid), []
    while run.poll() is None and not reports.exists():
        try:
            if any(
                "_libs/lib.cpython" in mapped.path for mapped in process.memory_maps()
            ):  # pandas: it ended
                break
            children = [one.memory_info().rss / 1e6 for one in process.children()]
            found.append((process.memory_info().rss / 1e6, max([0.0, *children])))
        except psutil.NoSuchProcess:
            continue
        time.sleep(SAMPLE_SECONDS)
    return found


if __name__ == "__main__":
    main()
