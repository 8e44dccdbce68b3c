"""Resident memory of a paper run and of its adaptation child, while it trades.

python -m benchmarks.memory [--days N]

A run on the simulated market in a process of its own, sampled ten times a second. The report that ends a run
is left out: it loads tables and charts when nothing trades any more.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

LIMIT_MB = 400  # of the live process
CHILD_LIMIT_MB = 900
SAMPLE_SECONDS = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=12)
    days = parser.parse_args().days
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "bot", "paper", "--days", str(days), "--directory", directory]
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        own, child = _peaks(run, Path(directory) / "reports")
        if run.poll() is None:
            os.kill(run.pid, signal.SIGINT)
        run.wait(60)
    print(f"live process: {own:.0f} MB at most (limit {LIMIT_MB}); its child: {child:.0f} ({CHILD_LIMIT_MB})")


def _peaks(run: "subprocess.Popen[bytes]", reports: Path) -> tuple[float, float]:
    """MB of the process and of its largest child until the trading ends: then a report is begun."""
    process, own, child = psutil.Process(run.pid), 0.0, 0.0
    while run.poll() is None and not reports.exists():
        try:
            if any(
                "_libs/lib.cpython" in mapped.path for mapped in process.memory_maps()
            ):  # pandas: it ended
                break
            own = max(own, process.memory_info().rss / 1e6)
            child = max([child, *(one.memory_info().rss / 1e6 for one in process.children())])
        except psutil.NoSuchProcess:
            continue
        time.sleep(SAMPLE_SECONDS)
    return own, child


if __name__ == "__main__":
    main()
