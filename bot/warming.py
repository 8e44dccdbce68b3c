"""Compile every kernel of a live run before anything listens.

Numba does it once per machine and version, in up to a minute. Inside a running event loop that would be a
minute without a ping and without a look at the stops.
"""

import threading
from typing import Final

import numpy as np
from rich.console import Console

from bot.core.events import BarClosed
from bot.core.types import MINUTE_MS
from bot.market.book import Book
from strategies.features.pipeline import FeatureBank
from strategies.labels import Labeler
from strategies.learning import shipped
from strategies.learning.inference import Predictor

_PATIENCE: Final = 2.0  # seconds; loading from the cache takes less


def compile_kernels(console: Console, patience: float = _PATIENCE) -> None:
    """Return when they are there; say what the wait is for when it takes longer than `patience` seconds."""
    telling = threading.Timer(patience, console.print, ["Compiling the kernels (once) …"])
    telling.daemon = True  # Ctrl-C ends the process at once here
    telling.start()
    try:
        _use_each()
    finally:
        telling.cancel()


def _use_each() -> None:
    """Numba compiles what is called: one bar through the book, the features, the labels and the network."""
    bar = BarClosed(MINUTE_MS, MINUTE_MS, "BTCUSDT", 0, MINUTE_MS, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    Book(bar.symbol)
    bank = FeatureBank()
    bank.add(bar.symbol, 0)
    bank.update(bar, bar, bar)
    Labeler(1, 1.0).update(bar, None)
    model = shipped.load()
    architecture = model.card.architecture
    Predictor(model.weights, architecture).push(np.zeros(architecture.features, np.float32))
