"""The market as it happens, as the same events that a recorded market gives.

Bars come confirmed from the kline stream; those that do not come are asked for by REST, and a moment is told
when all its bars are there. Listings, delistings, changed filters and states are found by polling the
instruments (a contract before its launch is watched for the moment when it trades), funding rates by asking
after each settlement. Which of the tokens are followed is for `bot.market.universe` to say.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NoReturn

from bot.core.errors import UsageError
from bot.core.events import (
    BarClosed,
    EntriesAllowed,
    EntriesBlocked,
    Event,
    InstrumentDelisted,
    InstrumentListed,
    TokenLeftOut,
)
from bot.core.reasons import kind
from bot.core.types import MINUTE_MS, Instrument, TradingStatus
from bot.exchange.bybit.environment import Environment
from bot.exchange.bybit.errors import ExchangeError, Kind
from bot.exchange.bybit.market_watch import MarketWatch
from bot.exchange.bybit.offers import choose
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.rest.market import ANY_STATUS, interval_name
from bot.exchange.bybit.streams import Backoff, ConnectionBudget, Stream, StreamSettings
from bot.exchange.bybit.streams.connection import first_to_end
from bot.exchange.bybit.translate import (
    bar_from_row,
    bars_from_klines,
    funding_published,
    instrument,
    status_changed,
)
from bot.exchange.bybit.wire import WireError
from bot.exchange.bybit.wire.instruments import InstrumentInfo
from bot.exchange.bybit.wire.public import Klines
from bot.market.sequencer import Arrival, BarSequencer
from bot.market.universe import Universe

_PERPETUAL: Final = "LinearPerpetual"
_LOOKED_FOR: Final = ("Trading", "PreLaunch", "Delivering")


@dataclass(frozen=True, slots=True)
class MarketSettings:
    """Seconds, but for the intervals (ms)."""

    interval: int = MINUTE_MS
    decision_interval: int = 15 * MINUTE_MS
    grace: float = 2.0  # after a close, before a bar is asked for by REST
    patience: float = 5.0  # after a close, before a moment is told without the bars that it lacks
    give_up: float = 15.0  # after a close, before the exchange's word that there is no bar is believed
    late: float = 20.0  # after a close, before a missing bar blocks entries
    look: float = 0.25
    instruments: float = 60.0  # between looks for listings
    failed_looks: int = 5  # one after the other, before they block entries
    funding: float = 20.0  # between looks for rates that are due


class LiveMarket:
    """`open`, then `run`. Tells `emit` one event after the other, in the order of a recorded market.

    sources are always followed; of the other USDT perpetuals those that the universe chooses. `held` says
    what must not be dropped.
    """

    def __init__(
        self,
        environment: Environment,
        rest: Rest,
        sources: Sequence[str],
        universe: Universe,
        emit: Callable[[Event], None],
        settings: MarketSettings | None = None,
        *,
        held: Callable[[], Collection[str]] = frozenset,
        stream_settings: StreamSettings | None = None,
        budget: ConnectionBudget | None = None,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self._settings = settings or MarketSettings()
        self._market = rest.market
        self._clock = rest.clock
        self._sources = tuple(sources)
        self._universe = universe
        self._held = held
        self._emit = emit
        self._sequencer = BarSequencer(self._settings.interval, sources)
        self._instruments: dict[str, Instrument] = {}  # as told
        self._statuses: dict[str, TradingStatus] = {}  # as told; of followed symbols and of announced ones
        self._launches: dict[str, int] = {}  # of announced symbols, ms
        self._left_out: dict[str, str] = {}  # as told
        self._funding: dict[str, int] = {}  # token to the last settlement told, ms
        self._blocked = ""
        self._trouble = ""  # of the last round of repairs
        self._failed_looks = 0  # for listings, one after the other
        self._stream = Stream(
            environment.public_url(), clock=rest.clock, budget=budget or rest.connections,
            settings=stream_settings, backoff=backoff(), raw_books=True,
        )  # fmt: skip
        self._watch = MarketWatch(
            self._stream, rest.market, rest.clock, emit, self._settings.decision_interval,
        )  # fmt: skip

    async def open(self) -> list[Instrument]:
        """The instruments to follow, sources first; entries wait until `run` has caught up with the present.

        Raises ExchangeError, UsageError for unknown sources.
        """
        listed = await self.tradable()
        if missing := [name for name in self._sources if name not in listed]:
            raise UsageError(f"the exchange does not list {', '.join(missing)}, which market.sources names")
        now = self._clock.now_ms()
        self._blocked = "catching up with the present"
        self._emit(EntriesBlocked(now, now, "feed", self._blocked))
        return [listed[name] for name in self._sources] + await self._choose(listed)

    async def _choose(self, listed: Mapping[str, Instrument]) -> list[Instrument]:
        """The tokens to follow; who is left out is told, once for each kind of reason."""
        tokens = {name: item for name, item in listed.items() if name not in self._sources}
        choice = await choose(
            self._market, self._universe, tokens, self._clock.now_ms(),
            followed=self._instruments, held=self._held(),
        )  # fmt: skip
        now = self._clock.now_ms()
        for name in sorted(self._left_out.keys() | choice.left_out.keys()):
            before, reason = self._left_out.get(name, ""), choice.left_out.get(name, "")
            if kind(before) != kind(reason):
                self._emit(TokenLeftOut(now, now, name, reason))
        self._left_out = choice.left_out
        return choice.followed

    def follow(self, item: Instrument, since: int) -> None:
        """Tell a listing and the bars of a symbol that open at or after `since` (ms)."""
        now = self._clock.now_ms()
        self._instruments[item.symbol] = item
        self._funding.setdefault(item.symbol, now)
        since += -since % self._settings.interval
        self._sequencer.follow(item.symbol, since)
        self._stream.subscribe(f"kline.{interval_name(self._settings.interval)}.{item.symbol}")
        self._emit(InstrumentListed(now, now, item))
        self._watch.follow(item.symbol)

    def frames(self) -> tuple[int, int]:
        """See `Stream.counts`."""
        return self._stream.counts()

    async def run(self) -> NoReturn:
        """Until cancelled."""
        await first_to_end(
            self._stream.run(), self._listen(), self._watch.run(), self._keep_whole(),
            self._keep_judging(), self._look_for_listings(), self._look_for_funding(),
        )  # fmt: skip
        raise AssertionError("none of them ends")

    # --- bars -----------------------------------------------------------------------------------------------

    async def _listen(self) -> NoReturn:
        while True:
            for delivery in await self._stream.take():
                if isinstance(delivery.message, Klines):
                    try:
                        for bar in bars_from_klines(delivery.message, delivery.received):
                            self._offer(bar)
                    except WireError:  # REST has the bar, or says what is wrong
                        self._watch.refuse(delivery.message.symbol)
                else:
                    self._watch.hear(delivery)
            self._tell_bars()

    def _offer(self, bar: BarClosed) -> None:
        arrival = self._sequencer.offer(bar)
        if arrival in (Arrival.CORRECTED, Arrival.LATE):
            self._watch.doubt_bar(bar.symbol, late=arrival is Arrival.LATE)

    async def _keep_whole(self) -> NoReturn:
        """Ask for bars that are overdue."""
        while True:
            now = self._clock.now_ms()
            closed = int(now - self._settings.grace * 1_000)
            lacking = self._sequencer.lacking(closed // self._settings.interval * self._settings.interval)
            trouble = ""
            for symbol, first, end in lacking:
                trouble = await self._repair(symbol, first, end) or trouble
                self._tell_bars()
            self._trouble = trouble
            await asyncio.sleep(self._settings.look)

    async def _keep_judging(self) -> NoReturn:
        """Say when the feed is not to be trusted, however long a repair takes."""
        while True:
            self._judge(self._trouble)
            await asyncio.sleep(self._settings.look)

    async def _repair(self, symbol: str, first: int, end: int) -> str:
        """Bars by REST; what is wrong if that fails. A row that cannot be is a bar that there is not."""
        interval = self._settings.interval
        try:
            async for rows in self._market.closed_klines(symbol, interval, first, end):
                for row in rows:
                    try:
                        self._offer(bar_from_row(symbol, interval, row, self._clock.now_ms()))
                    except WireError:
                        self._watch.refuse(symbol)
                self._tell_bars()
        except ExchangeError as error:
            if error.kind is not Kind.REFUSED:
                return str(error)
        except WireError as error:
            return str(error)
        if self._clock.now_ms() - end > self._settings.give_up * 1_000:
            for _, gap, gap_end in (item for item in self._sequencer.lacking(end) if item[0] == symbol):
                self._sequencer.skip(symbol, gap, gap_end)
                self._watch.lose_bars(symbol, gap, gap_end, interval)
        return ""

    def _tell_bars(self) -> None:
        overdue = int(self._clock.now_ms() - self._settings.patience * 1_000)
        for bar in self._sequencer.ready(overdue):
            self._watch.on_bar(bar)

    def _judge(self, trouble: str) -> None:
        symbol, late = self._sequencer.behind(self._clock.now_ms())
        reason = ""
        if late > self._settings.late * 1_000:
            reason = f"bars of {symbol} are {late / 1_000:.0f} s late" + (f": {trouble}" if trouble else "")
        if kind(reason) == kind(self._blocked):  # the same symbol and trouble, or none
            return
        now = self._clock.now_ms()
        self._blocked = reason
        self._emit(EntriesBlocked(now, now, "feed", reason) if reason else EntriesAllowed(now, now, "feed"))

    # --- listings -------------------------------------------------------------------------------------------

    async def _look_for_listings(self) -> NoReturn:
        while True:
            await asyncio.sleep(self._until_next_look())
            try:
                trouble = await self._compare(await self._market.instruments(statuses=_LOOKED_FOR))
            except ExchangeError as error:
                trouble = str(error)
            self._judge_look(trouble)

    def _judge_look(self, trouble: str) -> None:
        """Who is listed, and with which filters and state, is what entries rely on."""
        now, most = self._clock.now_ms(), self._settings.failed_looks
        if trouble:
            self._failed_looks += 1
            if self._failed_looks == most:
                reason = f"the last {most} looks at what the exchange lists have failed: {trouble}"
                self._emit(EntriesBlocked(now, now, "listings", reason))
            return
        if self._failed_looks >= most:
            self._emit(EntriesAllowed(now, now, "listings"))
        self._failed_looks = 0

    def _until_next_look(self) -> float:
        """Seconds; a launch is not waited for longer than it takes."""
        now = self._clock.now_ms()
        waits = [(launch - now) / 1_000 for launch in self._launches.values() if launch > now]
        return min([self._settings.instruments, *waits])

    async def _compare(self, infos: Sequence[InstrumentInfo]) -> str:
        """Tell what has changed; what is wrong. An answer without any source is not believed.

        A source that does not trade is no reason to leave it, nor to look at nothing else.
        """
        listed = _tradable(infos)
        found = {info.symbol: info for info in infos}
        if not found.keys() & set(self._sources):
            return f"none of {', '.join(self._sources)} is in the answer"
        idle = [name for name in self._sources if name not in listed]
        trouble = f"{', '.join(idle)} of market.sources cannot be traded" if idle else ""
        now = self._clock.now_ms()
        for symbol, known in list(self._instruments.items()):
            if symbol in idle:
                continue
            if symbol not in found:
                trouble = await self._leave_if_over(symbol) or trouble
            elif _is_over(found[symbol]):
                self._compare_status(found[symbol], now)
                self._leave(symbol, _end_of(found[symbol]))
            elif listed.get(symbol, known) != known:
                self._instruments[symbol] = listed[symbol]
                self._emit(InstrumentListed(now, now, listed[symbol]))
        announced = _usdt_perpetuals(infos, TradingStatus.PRE_LAUNCH)
        self._launches = {
            name: item.launch_time for name, item in announced.items() if self._universe.wants(item, now)
        }
        for info in infos:
            if info.symbol in self._instruments or info.symbol in self._launches:
                self._compare_status(info, now)
        await self._renew(listed)
        return trouble

    async def _renew(self, listed: Mapping[str, Instrument]) -> None:
        """Who gives a place up goes before who takes it. What no list names is not judged by it."""
        chosen = {item.symbol: item for item in await self._choose(listed)}
        for symbol in self._instruments.keys() & listed.keys() - chosen.keys() - set(self._sources):
            self._leave(symbol, "its place goes to a newer token")
        for symbol, item in chosen.items():
            if symbol not in self._instruments:
                self.follow(item, item.launch_time)

    def _compare_status(self, info: InstrumentInfo, now: int) -> None:
        """A symbol that is followed trades, as far as anybody has said."""
        known = TradingStatus.TRADING if info.symbol in self._instruments else None
        try:
            event = status_changed(info, now)
        except WireError:  # of a later Bybit: that no bars come is the fault then
            return
        if event.status is not self._statuses.get(info.symbol, known):
            self._statuses[info.symbol] = event.status
            self._watch.on_status(event)

    async def _leave_if_over(self, symbol: str) -> str:
        """Positions of what is left are closed, so a list that lacks it is not enough: ask for it by name.
        Why that could not be found out."""
        found: list[InstrumentInfo] = []
        try:
            found = await self._market.instruments(symbol=symbol, statuses=ANY_STATUS)
        except ExchangeError as error:
            if error.kind is not Kind.REFUSED:  # that means that there is no such symbol
                return f"{symbol}: {error}"
        now = self._clock.now_ms()
        infos = [info for info in found if info.symbol == symbol]
        for info in infos:
            self._compare_status(info, now)
        if all(map(_is_over, infos)):
            self._leave(symbol, _end_of(infos[0]) if infos else "the exchange does not know it any more")
        return ""

    def _leave(self, symbol: str, reason: str) -> None:
        now = self._clock.now_ms()
        del self._instruments[symbol]
        self._statuses.pop(symbol, None)
        self._funding.pop(symbol, None)
        self._sequencer.drop(symbol)
        self._watch.leave(symbol)
        self._stream.unsubscribe(f"kline.{interval_name(self._settings.interval)}.{symbol}")
        self._emit(InstrumentDelisted(now, now, symbol, reason))
        self._tell_bars()  # the others need not wait for it any more

    async def tradable(self) -> dict[str, Instrument]:
        """USDT perpetuals that trade and are not about to end, by symbol. Raises ExchangeError."""
        return _tradable(await self._market.instruments())

    # --- funding --------------------------------------------------------------------------------------------

    async def _look_for_funding(self) -> NoReturn:
        while True:
            await asyncio.sleep(self._settings.funding)
            for symbol, last in list(self._funding.items()):
                known = self._instruments.get(symbol)
                now = self._clock.now_ms()
                if known is None or now // known.funding_interval_ms * known.funding_interval_ms <= last:
                    continue
                with suppress(ExchangeError):
                    for rate in await self._market.funding_rates(symbol, last + 1, now):
                        self._funding[symbol] = rate.ts
                        self._emit(funding_published(rate, now))


def _tradable(infos: Sequence[InstrumentInfo]) -> dict[str, Instrument]:
    """USDT perpetuals that trade and are not about to end, by symbol."""
    return _usdt_perpetuals(infos, TradingStatus.TRADING)


def _usdt_perpetuals(infos: Sequence[InstrumentInfo], status: TradingStatus) -> dict[str, Instrument]:
    found = {}
    for info in infos:
        linear = info.contract_type == _PERPETUAL and info.settle_coin == "USDT"
        if linear and info.status == status and not _is_over(info):
            with suppress(WireError):  # without filters it cannot be traded
                found[info.symbol] = instrument(info)
    return found


def _is_over(info: InstrumentInfo) -> bool:
    """A positive delivery time announces the end of a perpetual."""
    return info.delivery_time > 0 or info.status in (TradingStatus.DELIVERING, TradingStatus.CLOSED)


def _end_of(info: InstrumentInfo) -> str:
    if info.delivery_time <= 0:
        return f"delisted: the exchange's status is {info.status}"
    end = datetime.fromtimestamp(info.delivery_time / 1_000, UTC)
    return f"delisting announced for {end:%Y-%m-%d %H:%M} UTC"
