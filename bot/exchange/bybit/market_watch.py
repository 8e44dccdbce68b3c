"""Books, trades and tickers of the symbols that are followed, between the streams and the market state.

What of it concerns the engine (health, microstructure) is told; the bars go through it; what the state wants
of the exchange (a new snapshot, a book to compare with) is asked for.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NoReturn

from bot.core.commands import FetchBook, RenewBook
from bot.core.events import (
    BarClosed,
    Event,
    FeedChanged,
    FeedRefused,
    FramesUnreadable,
    InstrumentStatusChanged,
)
from bot.core.types import Feed
from bot.exchange.bybit import wire
from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.errors import ExchangeError
from bot.exchange.bybit.rest.market import MarketRest
from bot.exchange.bybit.streams import (
    BadFrames,
    BookLost,
    Delivery,
    Disconnected,
    RawBook,
    Stream,
    TopicRejected,
)
from bot.exchange.bybit.translate import rest_book, ticker, trades
from bot.exchange.bybit.wire import WireError
from bot.exchange.bybit.wire.public import Ticker, Trades
from bot.market.state import MarketState

_DEPTH: Final = 50
_AUDITS: Final = 4  # at once: missing bars are asked for through the same lane
_LOST: Final = (Feed.BOOK, Feed.TRADES, Feed.TICKER)


class MarketWatch:
    """`hear` takes what the stream brings; `run` looks after it once a second."""

    def __init__(
        self,
        stream: Stream,
        market: MarketRest,
        clock: ExchangeClock,
        emit: Callable[[Event], None],
        decision_interval: int,
    ) -> None:
        self._stream = stream
        self._market = market
        self._clock = clock
        self._emit = emit
        self._state = MarketState(decision_interval, _DEPTH)
        self._audited: set[str] = set()  # symbols whose book is being asked for by REST
        self._auditors = asyncio.Semaphore(_AUDITS)
        self._heard: dict[str, bool] = {}  # symbol: whether its ticker has come since it was subscribed

    def follow(self, symbol: str) -> None:
        self._state.add(symbol)
        self._heard.setdefault(symbol, False)
        self._stream.subscribe(*_topics(symbol))

    def leave(self, symbol: str) -> None:
        self._state.remove(symbol)
        self._heard.pop(symbol, None)
        self._stream.unsubscribe(*_topics(symbol))

    def on_bar(self, bar: BarClosed) -> None:
        """Tell a bar, behind what book and trades did during its decision bar."""
        self._tell(self._state.on_event(bar))

    def lose_bars(self, symbol: str, first: int, end: int, interval: int) -> None:
        """The exchange has no bars of `interval` that open within [first, end), ms."""
        if symbol in self._state:
            self._state[symbol].gaps.lose(first, end, interval)

    def doubt_bar(self, symbol: str, *, late: bool) -> None:
        """A bar came again with other values, or late: after it was given up."""
        if symbol in self._state:
            self._state[symbol].bars_late += late
            self._state[symbol].bars_corrected += not late

    def refuse(self, symbol: str) -> None:
        """A message about a symbol was not understood."""
        if symbol in self._state:
            self._state[symbol].refused += 1

    def on_status(self, event: InstrumentStatusChanged) -> None:
        self._state.on_event(event)
        self._emit(event)

    def hear(self, delivery: Delivery) -> None:
        message, received = delivery.message, delivery.received
        if isinstance(message, RawBook):
            self._state.on_book(message.topic, message.payload, received)
        elif isinstance(message, Trades):
            try:
                found = trades(message, received)
            except WireError:  # true ones may be lost with it
                symbol = message.topic.rpartition(".")[2]
                self.refuse(symbol)
                for alive in (False, True):
                    self._change([symbol], [Feed.TRADES], received, alive=alive)
                return
            for trade in found:
                self._state.on_event(trade)
        elif isinstance(message, Ticker):
            self._begin(message.data.symbol, received)
            self._state.on_event(ticker(message, received))
        elif isinstance(message, BookLost):
            self._change([message.topic.rpartition(".")[2]], [Feed.BOOK], received, alive=False)
        elif isinstance(message, Disconnected):
            self._change(self._heard, _LOST, received, alive=False)
            self._heard = dict.fromkeys(self._heard, False)
        elif isinstance(message, TopicRejected):
            reason = f"the exchange refuses {message.topic}: {message.reason}"
            self._emit(FeedRefused(received, received, message.topic.rpartition(".")[2], reason))
        elif isinstance(message, BadFrames):
            self._doubt_trades(message, received)

    async def run(self) -> NoReturn:
        """Until cancelled. A slow answer to a question must not hold up the next look."""
        async with asyncio.TaskGroup() as audits:
            while True:
                events, commands = self._state.tick(self._clock.now_ms())
                self._tell(events)
                for frame in self._state.take_odd_frames():
                    with suppress(WireError):
                        wire.decode(frame)  # what we do not know of it is counted
                for command in commands:
                    if isinstance(command, RenewBook):
                        self._stream.renew(command.topic, command.reason)
                    elif isinstance(command, FetchBook) and command.symbol not in self._audited:
                        self._audited.add(command.symbol)
                        audits.create_task(self._audit(command))
                await asyncio.sleep(1.0)

    async def _audit(self, command: FetchBook) -> None:
        try:
            async with self._auditors:
                snapshot = await self._market.order_book(command.symbol, command.levels)
        except (ExchangeError, WireError):
            return  # it will be asked for again
        finally:
            self._audited.discard(command.symbol)
        self._state.on_rest_book(rest_book(snapshot), self._clock.now_ms())

    def _doubt_trades(self, message: BadFrames, received: int) -> None:
        """A trade may be lost, anybody's; books and tickers find out by themselves."""
        self._emit(FramesUnreadable(received, received, message.count, message.reason))
        heard = [symbol for symbol, begun in self._heard.items() if begun]
        for alive in (False, True):
            self._change(heard, [Feed.TRADES], received, alive=alive)

    def _begin(self, symbol: str, received: int) -> None:
        """The ticker's snapshot comes after its subscription, and the trades were in the same request."""
        if self._heard.get(symbol) is False:
            self._heard[symbol] = True
            self._change([symbol], [Feed.TRADES, Feed.TICKER], received, alive=True)

    def _change(self, symbols: Iterable[str], feeds: Iterable[Feed], ts: int, *, alive: bool) -> None:
        for symbol in symbols:
            for feed in feeds:
                self._state.on_event(FeedChanged(ts, ts, symbol, feed, alive))

    def _tell(self, events: Iterable[Event]) -> None:
        for event in events:
            self._emit(event)


def _topics(symbol: str) -> tuple[str, ...]:
    return f"orderbook.{_DEPTH}.{symbol}", f"publicTrade.{symbol}", f"tickers.{symbol}"
