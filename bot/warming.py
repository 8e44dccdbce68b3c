"""Compile the order book's kernels before anything listens.

Numba does it once per machine and version, in up to half a minute. Inside a running event loop that would be
half a minute without a ping, and the exchange hangs up.
"""

import threading
from typing import Final

from rich.console import Console

from bot.market.book import Book

_PATIENCE: Final = 2.0  # seconds; loading from the cache takes less


def compile_kernels(console: Console, patience: float = _PATIENCE) -> None:
    """Return when they are there; say what the wait is for when it takes longer than `patience` seconds."""
    telling = threading.Timer(patience, console.print, ["Compiling the order book's kernels (once) …"])
    telling.daemon = True  # Ctrl-C ends the process at once here
    telling.start()
    try:
        Book("BTCUSDT")
    finally:
        telling.cancel()
