"""Order-book frames: bytes -> decode -> checks -> book -> features, against decoding alone and against peers.

python -m benchmarks.book [--frames N] [--rounds R]

CPU time of the process, alternatives in turn within each round; the ratios are the result. Peers (pybit,
cryptofeed, ccxt) are their own handlers of a raw frame, called offline, each without any feature; one that
is not installed beside us is left out, and said so (cryptofeed is no dependency of ours). The frames are
those of ../shared/bench where that is present, else of the generator below: `orderbook.50` deltas of ten
symbols, about 11 levels each.
"""

import argparse
import asyncio
import gc
import importlib
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import msgspec
import numpy as np

from bot.market.book import Book, Outcome, State

SHARED = Path(__file__).parents[2] / "shared" / "bench"
DEPTH = 50
SYMBOLS = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "LINK", "AVAX", "LTC", "SUI")
REFERENCE = "msgspec, floats, decode alone"
Run = Callable[[], object]
Update = Callable[[bytes, int], Outcome]


class Simulated:
    """A book of 50 levels a side on a tick of 0.1 that emits its snapshot, then deltas."""

    def __init__(self, symbol: str, seed: int) -> None:
        self.symbol = symbol
        self.rng = np.random.default_rng(seed)
        self.mid = 100_000 + seed
        self.levels = {self.mid + k: self.size() for k in range(-120, 121) if k}
        self.seen: list[dict[int, int]] = [{}, {}]
        self.u, self.seq, self.ts = 0, 7_961_638_724, 1_700_000_000_000

    def size(self) -> int:
        return int(self.rng.exponential(3000)) + 1

    def frame(self) -> bytes:
        if self.u:
            self.move()
        below = sorted((tick for tick in self.levels if tick < self.mid), reverse=True)[:DEPTH]
        above = sorted(tick for tick in self.levels if tick > self.mid)[:DEPTH]
        bids, asks = ({tick: self.levels[tick] for tick in side} for side in (below, above))
        changes = [
            [[f"{t / 10:.1f}", f"{now[t] / 1000:.3f}"] for t in now if old.get(t) != now[t]]
            + [[f"{t / 10:.1f}", "0"] for t in old if t not in now]
            for old, now in zip(self.seen, (bids, asks), strict=True)
        ]
        self.seen = [bids, asks]
        kind = "delta" if self.u else "snapshot"
        self.u, self.seq, self.ts = self.u + 1, self.seq + int(self.rng.integers(1, 40)), self.ts + 20
        data = {"s": self.symbol, "b": changes[0], "a": changes[1], "u": self.u, "seq": self.seq}
        topic = f"orderbook.{DEPTH}.{self.symbol}"
        return msgspec.json.encode(
            {"topic": topic, "type": kind, "ts": self.ts, "data": data, "cts": self.ts - 2}
        )

    def move(self) -> None:
        """A few sizes near the best prices change; sometimes the price goes a tick."""
        if self.rng.random() < 0.12:
            step = 1 if self.rng.random() < 0.5 else -1
            self.levels[self.mid] = self.size()
            self.mid += step
            self.levels.pop(self.mid, None)
            self.levels[self.mid + step * 120] = self.size()
        for _ in range(int(self.rng.integers(3, 16))):
            side = 1 if self.rng.random() < 0.5 else -1
            tick = self.mid + side * int(min(self.rng.geometric(0.09), 60))
            self.levels[tick] = self.size()


def frames(count: int, symbols: int = len(SYMBOLS)) -> tuple[list[bytes], str]:
    """The frames, symbols in turn, each beginning with its snapshot; and where they come from."""
    if (SHARED / "common.py").exists():
        sys.path.insert(0, str(SHARED))
        return importlib.import_module("common").book_messages(count, symbols), "../shared/bench"
    books = [Simulated(f"{name}USDT", seed) for seed, name in enumerate(SYMBOLS[:symbols])]
    return [books[k % symbols].frame() for k in range(count)], "own generator"


def symbol_of(frame: bytes) -> str:
    return frame[len(f'{{"topic":"orderbook.{DEPTH}.') : frame.index(b'"', 10)].decode()


class Data(msgspec.Struct):
    s: str
    b: list[tuple[float, float]]
    a: list[tuple[float, float]]
    u: int
    seq: int


class Message(msgspec.Struct):
    topic: str
    type: str
    ts: int
    data: Data
    cts: int


def ours(messages: list[bytes]) -> dict[str, Run]:
    """Books as the bot uses them: found by the frame's topic, features computed with every frame."""
    decode = msgspec.json.Decoder(Message, strict=False).decode
    names = sorted({symbol_of(frame) for frame in messages})

    def feed(updates: dict[bytes, Update]) -> None:
        for frame in messages:
            updates[frame[10 : frame.index(34, 10)]](frame, 0)

    def feed_and_read() -> None:
        made = books()
        for frame in messages:
            book = made[frame[10 : frame.index(34, 10)]]
            book.update(frame, 0)
            book.features()

    def books() -> dict[bytes, Book]:
        made = [Book(name, DEPTH) for name in names]
        return {book.topic.encode(): book for book in made}

    def decode_alone() -> None:
        for frame in messages:
            decode(frame)

    return {
        REFERENCE: decode_alone,
        "ours": lambda: feed({topic: book.update for topic, book in books().items()}),
        "ours, features read each time": feed_and_read,
        "ours, general path": lambda: feed(
            {topic: book.update_any_layout for topic, book in books().items()}
        ),
    }


def pybit(messages: list[bytes]) -> Run:
    manager = importlib.import_module("pybit._websocket_stream")._V5WebSocketManager
    texts = [frame.decode() for frame in messages]
    topics = sorted({f"orderbook.{DEPTH}.{symbol_of(frame)}" for frame in messages})

    def run() -> None:
        stream = object.__new__(manager)
        stream.data = {}
        stream.callback_directory = dict.fromkeys(topics, lambda _: None)
        for text in texts:
            stream._handle_incoming_message(json.loads(text))

    return run


def cryptofeed(messages: list[bytes]) -> Run:
    decimal = importlib.import_module("decimal").Decimal
    loads = importlib.import_module("yapic.json").loads
    feed = importlib.import_module("cryptofeed.exchanges.bybit").Bybit
    texts = [frame.decode() for frame in messages]

    async def ignore(*_: object, **__: object) -> None:
        return None

    async def handle() -> None:
        handler = object.__new__(feed)
        handler.id, handler._l2_book, handler.max_depth = "BYBIT", {}, 0
        handler.exchange_symbol_to_std_symbol = str
        handler.book_callback = ignore
        for text in texts:
            await handler._book(loads(text, parse_float=decimal), 0.0, "linear")

    return lambda: asyncio.run(handle())


def ccxt(messages: list[bytes]) -> Run:
    exchange = importlib.import_module("ccxt.pro").bybit
    texts = [frame.decode() for frame in messages]

    class Client:
        url = "wss://example.invalid/v5/public/linear"
        subscriptions: dict[str, Any] = {}  # noqa: RUF012
        futures: dict[str, Any] = {}  # noqa: RUF012

        def resolve(self, result: object, _: str) -> object:
            return result

    def market(name: str) -> dict[str, Any]:
        base = name.removesuffix("USDT")
        coins = {"base": base, "quote": "USDT", "settle": "USDT"}
        coins |= {f"{coin}Id": value for coin, value in coins.items()}
        kinds = dict.fromkeys(("swap", "contract", "linear", "active"), True)
        kinds |= dict.fromkeys(("spot", "future", "option", "inverse"), False)
        shape: dict[str, Any] = {key: {} for key in ("precision", "limits", "info")}
        return {"id": name, "symbol": f"{base}/USDT:USDT", "type": "swap", **coins, **kinds, **shape}

    names = sorted({symbol_of(frame) for frame in messages})

    def run() -> None:
        handler = exchange({"asyncio_loop": asyncio.new_event_loop()})
        handler.set_markets([market(name) for name in names])
        client = Client()
        for text in texts:
            handler.handle_message(client, json.loads(text))

    return run


def measure(runs: dict[str, Run], rounds: int, count: int) -> dict[str, list[float]]:
    """Microseconds of CPU per frame, by round; the first, uncounted one warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            gc.collect()
            gc.disable()
            began = process_time()
            run()
            spent = process_time() - began
            gc.enable()
            if round_:
                times[name].append(spent / count * 1e6)
    return times


def verify(messages: list[bytes]) -> None:
    """Every frame must be used, and each book end as plain dictionaries do."""
    plain: dict[str, dict[str, dict[float, float]]] = {}
    books: dict[str, Book] = {}
    for frame in messages:
        content = json.loads(frame)
        data = content["data"]
        book = books.setdefault(data["s"], Book(data["s"], DEPTH))
        sides = plain.setdefault(data["s"], {"b": {}, "a": {}})
        if book.update(frame, 0) not in (Outcome.APPLIED, Outcome.REPLACED):
            raise SystemExit(f"{data['s']}: {book.health(0).reason}")
        for side, levels in sides.items():
            if content["type"] == "snapshot":
                levels.clear()
            levels |= {float(price): float(size) for price, size in data[side]}
            sides[side] = {price: size for price, size in levels.items() if size}
    for name, book in books.items():
        expected = (sorted(plain[name]["b"].items(), reverse=True), sorted(plain[name]["a"].items()))
        if book.state is not State.LIVE or (book.bids(), book.asks()) != expected:
            raise SystemExit(f"{name}: wrong book")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    messages, origin = frames(options.frames)
    verify(messages)
    runs = ours(messages)
    for peer in (pybit, cryptofeed, ccxt):
        try:
            run = peer(messages)
            run()
        except ImportError as error:
            print(f"{peer.__name__}: left out, not installed here ({error}); pip install {peer.__name__}")
        except Exception as error:
            print(f"{peer.__name__}: left out, its handler has changed ({error!r:.100})")
        else:
            runs[f"{peer.__name__}'s handler"] = run
    times = measure(runs, options.rounds, len(messages))
    size = statistics.mean(map(len, messages))
    print(f"{len(messages)} frames from {origin}, mean {size:.0f} bytes; us of CPU per frame")
    for name, spent in times.items():
        low, median = min(spent), statistics.median(spent)
        to_reference = low / min(times[REFERENCE])
        to_ours = low / min(times["ours"])
        print(
            f"{name:30s} min {low:8.3f}  median {median:8.3f}  {1e6 / low:10,.0f}/s"
            f"  x{to_reference:6.2f} of decoding  x{to_ours:6.2f} of ours"
        )


if __name__ == "__main__":
    main()
