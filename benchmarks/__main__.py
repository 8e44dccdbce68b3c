"""Every benchmark in turn, each in a process of its own, as ratios against something run beside it.

python -m benchmarks [--peer NAME=PYTHON ...]

A peer is another project, by the name that its script in ../shared/bench has for it, and the Python of the
environment in which it is installed: --peer nautilus=/path/to/venv/bin/python. Those that are not given are
named and left out.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.engine import PEERS

ENGINES = ("nautilus", "basana", "backtrader", "backtesting", "jesse", "freqtrade", "vectorbt")
REPLAYERS = ("hftbacktest", "nautilus")
BENCHMARKS = {
    "features": (), "start": (), "adaptation": (), "worker": (), "engine": ENGINES, "order": (),
    "live_loop": (), "book": (), "book_replay": REPLAYERS, "exchange": (), "memory": (), "streams": (),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    given = dict(map(_peer, parser.parse_args().peer))
    if unknown := sorted(given.keys() - {*ENGINES, *REPLAYERS}):
        parser.error(
            f"no script for {', '.join(unknown)}; known: {', '.join(sorted({*ENGINES, *REPLAYERS}))}"
        )
    for benchmark, known in BENCHMARKS.items():
        print(f"\n== {benchmark}", flush=True)
        peers = [f"--peer={name}={given[name]}" for name in known if name in given]
        if peers and not PEERS.parent.exists():
            print(f"  the scripts of the peers are not at {PEERS.parent}: all are left out", flush=True)
            peers = []
        subprocess.run([sys.executable, "-m", f"benchmarks.{benchmark}", *peers], check=True)
        if left_out := [name for name in known if name not in given]:
            print(f"  not compared: {', '.join(left_out)} (--peer NAME=PYTHON)", flush=True)


def _peer(text: str) -> tuple[str, str]:
    name, _, python = text.partition("=")
    if not Path(python).is_file():
        sys.exit(f"--peer {text}: write NAME=PYTHON with the Python of the environment that has it")
    return name, python


if __name__ == "__main__":
    main()
