"""Every benchmark in turn, each in a process of its own, as ratios against something run beside it."""

import subprocess
import sys

for name in ("features", "start", "engine", "book"):
    print(f"\n== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
