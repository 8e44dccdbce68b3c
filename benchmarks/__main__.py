"""Every benchmark in turn, each in a process of its own, as ratios against something run beside it."""

import subprocess
import sys

for name in ("features", "engine", "book", "exchange"):
    print(f"\n== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
