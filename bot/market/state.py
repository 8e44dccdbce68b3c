"""What is known of the market, symbol by symbol: books, trades, tickers, and their health.

Pure: fed with facts and raw book frames, asked on a timer what should reach the engine and what to request.

    for event in market.on_event(bar): ...          # to the engine; bars come in order (bot.market.sequencer)
    market.on_book(frame.topic, frame.payload, received)
    events, commands = market.tick(now)             # once a second
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from bot.core.commands import Command
from bot.core.events import (
    BarClosed,
    Event,
    FeedChanged,
    InstrumentStatusChanged,
    LiquiditySampled,
    MarketHealthChanged,
    MarketHealthMeasured,
    MicrostructureSampled,
    TickerChanged,
    Traded,
)
from bot.core.types import MINUTE_MS, Feed, TradingStatus
from bot.market.bar_gaps import BarGaps
from bot.market.book import Audit, Book, Outcome, State
from bot.market.book_care import BookCare
from bot.market.book_messages import RestBook
from bot.market.book_samples import SAMPLE_MS, BookSamples
from bot.market.freshness import DEADLINES, LATE_MS, Freshness
from bot.market.tickers import Ticker
from bot.market.trades import Trades

AHEAD_MS: Final = MINUTE_MS  # ticker and book newer than a bar by more are of its future: it was told late


class Tick(NamedTuple):
    """events for the engine, commands for the exchange's side."""

    events: list[Event]
    commands: list[Command]


class SymbolState:
    """Everything of one symbol, in fixed memory. interval: of a decision bar, ms"""

    def __init__(
        self,
        symbol: str,
        interval: int,
        depth: int = 50,
        deadlines: Mapping[Feed, int] = DEADLINES,
    ) -> None:
        self.symbol = symbol
        self.interval = interval
        self.status = TradingStatus.TRADING
        self.book = Book(symbol, depth)
        self.samples = BookSamples(self.book, interval)
        self.care = BookCare(self.book)
        self.trades = Trades(interval)
        self.ticker = Ticker()
        self.freshness = Freshness(deadlines)
        self.gaps = BarGaps(interval)
        self._ticker_ts = self._ticker_lag = 0  # of the newest ticker, ms
        self._book_ts = 0  # when the book last changed, ms
        self.bars_corrected = 0  # that came again with other values
        self.bars_late = 0  # that came after they had been given up
        self.refused = 0  # messages beside those of the book that were not understood

    def on_book(self, frame: bytes, received: int) -> Outcome:
        outcome = self.book.update(frame, received)
        if outcome is Outcome.REJECTED:
            self.book.distrust()
        if outcome in (Outcome.LOST, Outcome.REJECTED):
            self.samples.lost()
        elif outcome in (Outcome.APPLIED, Outcome.REPLACED):
            self.freshness.heard(Feed.BOOK, received)
            self._book_ts = received
            if self.care.catch_up(received) is Audit.FAILED:
                self.samples.lost()
        return outcome

    def on_rest_book(self, rest: RestBook, now: int) -> Audit | None:
        """The answer to a FetchBook; None while it waits for the stream to reach its moment."""
        verdict = self.care.answer(rest, now)
        if verdict is Audit.FAILED:
            self.samples.lost()
        return verdict

    def on_bar(self, bar: BarClosed) -> list[Event]:
        """The bar, a decision bar's last one behind what book, ticker and trades did meanwhile."""
        self.freshness.heard(Feed.BARS, bar.received)
        self.gaps.on_bar(bar)
        if bar.ts % self.interval:
            return [bar]
        start = bar.ts - self.interval
        if bar.received - bar.ts < SAMPLE_MS:  # nothing has been sampled behind the end yet
            self.samples.sample(bar.received)
        return [self.liquidity(start), self.microstructure(start), bar]

    def on_trade(self, trade: Traded) -> None:
        self.trades.add(trade)
        self.freshness.heard(Feed.TRADES, trade.received)

    def on_ticker(self, event: TickerChanged) -> None:
        self.ticker.update(event)
        self._ticker_ts, self._ticker_lag = event.ts, event.received - event.ts
        self.freshness.heard(Feed.TICKER, event.received)

    def on_feed(self, event: FeedChanged) -> None:
        if event.alive:
            self.freshness.heard(event.feed, event.received)
        else:
            self.freshness.lost(event.feed)
        if event.feed is Feed.TRADES:
            self.trades.feed(event.ts, alive=event.alive)
        elif event.feed is Feed.BOOK:
            self.care.renewed(event.received)
            self.samples.lost()

    def tick(self, now: int) -> list[Command]:
        """What to ask the exchange for."""
        self.samples.sample(now)
        return [*self.care.commands(now)]

    def microstructure(self, start: int) -> MicrostructureSampled:
        """Of the decision bar that opened at `start` (ms)."""
        end = start + self.interval
        flow, means = self.trades.flow(start), self.samples.means(start)
        imbalance, large = (flow.imbalance, flow.large_share) if flow else (float("nan"), float("nan"))
        return MicrostructureSampled(
            end,
            end,
            self.symbol,
            start,
            means.spread_bps,
            means.imbalance_5,
            means.imbalance_10,
            means.imbalance_50,
            means.microprice_bps,
            means.ofi,
            imbalance,
            large,
        )

    def liquidity(self, start: int) -> LiquiditySampled:
        """Of the decision bar that opened at `start` (ms), without a ticker or mid that is of its future."""
        end, means = start + self.interval, self.samples.means(start)
        ticker = self.ticker if self._ticker_ts - end <= AHEAD_MS else Ticker()
        return LiquiditySampled(
            end,
            end,
            self.symbol,
            start,
            means.spread_bps,
            means.bid_depth,
            means.ask_depth,
            self.book.mid if self._book_ts - end <= AHEAD_MS else float("nan"),
            ticker.turnover_24h,
            ticker.last_price,
            ticker.mark_price,
            ticker.index_price,
            ticker.open_interest,
            ticker.funding_rate,
            ticker.next_funding_time,
        )

    @property
    def lags(self) -> dict[Feed, int]:
        """How long the newest message of a feed was on its way, ms. Silence is no lag: see the deadlines."""
        return {Feed.BOOK: self.book.lag, Feed.TICKER: self._ticker_lag}

    def faults(self, now: int) -> tuple[str, ...]:
        """Why no position may be opened, for people; they stay the same words while they last."""
        found = []
        if self.status is not TradingStatus.TRADING:
            found.append(f"the exchange's status is {self.status}")
        if self.book.state is not State.LIVE:
            found.append(f"the book is {self.book.state}: {self.book.health(now).reason}")
        if self.gaps.is_open:
            found.append("bars are missing")
        found += [f"{feed}: nothing heard within the deadline" for feed in self.freshness.stale(now)]
        found += [
            f"{feed}: news comes more than {LATE_MS // 1_000} s late"
            for feed, lag in self.lags.items()
            if lag > LATE_MS
        ]
        found += self.ticker.doubts(self.book.mid)
        return tuple(found)

    def measure(self, now: int) -> MarketHealthMeasured:
        book = self.book.health(now)
        return MarketHealthMeasured(
            now,
            now,
            self.symbol,
            book.state,
            {feed: self.freshness.age(feed, now) for feed in Feed},
            book_losses=book.gaps + book.crossings + book.overfull + book.disorders,
            resyncs=self.care.renewals,
            audits_passed=book.audits_passed,
            audits_failed=book.audits_failed,
            audits_skipped=book.audits_skipped,
            refused=book.rejected + self.refused,
            bars_lost=self.gaps.lost,
            trades_lost=self.trades.late + self.trades.bad,
            lags=self.lags,
            bars_corrected=self.bars_corrected,
            bars_late=self.bars_late,
        )


class MarketState:
    """All symbols. Events of symbols that were not added are passed over."""

    def __init__(self, interval: int, depth: int = 50, deadlines: Mapping[Feed, int] = DEADLINES) -> None:
        self._interval = interval
        self._depth = depth
        self._deadlines = deadlines
        self._symbols: dict[str, SymbolState] = {}
        self._topics: dict[str, SymbolState] = {}
        self._faults: dict[str, tuple[str, ...]] = {}
        self._measured = 0  # when, ms

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._symbols

    def __getitem__(self, symbol: str) -> SymbolState:
        return self._symbols[symbol]

    def add(self, symbol: str) -> None:
        """Follow a symbol from now on; again does nothing."""
        if symbol not in self._symbols:
            state = SymbolState(symbol, self._interval, self._depth, self._deadlines)
            self._symbols[symbol] = self._topics[state.book.topic] = state

    def remove(self, symbol: str) -> None:
        state = self._symbols.pop(symbol, None)
        if state is not None:
            del self._topics[state.book.topic]
            self._faults.pop(symbol, None)

    def on_book(self, topic: str, frame: bytes, received: int) -> Outcome:
        """A raw frame of an order book topic, received at `received` (ms UTC)."""
        state = self._topics.get(topic)
        return Outcome.IGNORED if state is None else state.on_book(frame, received)

    def take_odd_frames(self) -> list[bytes]:
        """The newest order book frame of each symbol that was not written as usual, each once."""
        books = [state.book for state in self._symbols.values() if state.book.odd_frame]
        frames = [book.odd_frame for book in books]
        for book in books:
            book.odd_frame = b""
        return frames

    def on_rest_book(self, rest: RestBook, now: int) -> Audit | None:
        state = self._symbols.get(rest.s)
        return None if state is None else state.on_rest_book(rest, now)

    def on_event(self, event: Event) -> list[Event]:
        """Take a fact; what of it should reach the engine, in order."""
        state = self._symbols.get(getattr(event, "symbol", ""))
        if state is None:
            return []
        match event:
            case BarClosed():
                return state.on_bar(event)
            case Traded():
                state.on_trade(event)
            case TickerChanged():
                state.on_ticker(event)
            case FeedChanged():
                state.on_feed(event)
            case InstrumentStatusChanged():
                state.status = event.status
        return []

    def tick(self, now: int) -> Tick:
        """Once a second: sample the books, tell of changed health; once a minute what is counted."""
        events: list[Event] = []
        commands: list[Command] = []
        for symbol, state in self._symbols.items():
            commands += state.tick(now)
            faults = state.faults(now)
            if self._faults.get(symbol) != faults:
                self._faults[symbol] = faults
                events.append(MarketHealthChanged(now, now, symbol, faults))
        if now - self._measured >= MINUTE_MS:
            self._measured = now
            events += [state.measure(now) for state in self._symbols.values()]
        return Tick(events, commands)
