"""What was before the run: downloaded, then opened as a market that can be replayed."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from bot.app import earlier_listings
from bot.core.errors import DataError
from bot.core.types import DAY_MS, MINUTE_MS, Instrument
from bot.exchange.bybit.download import BarDownload, FundingDownload
from bot.exchange.bybit.rest import Rest
from bot.exchange.recorded import RecordedMarket
from bot.live.parts import warn
from bot.market.bars import BarTable
from bot.settings import Settings
from bot.storage import barfiles
from bot.storage.survey import FUNDING_FOLDER
from strategies.learning.dataset import LabelledSeries
from strategies.learning.registry import Model

_TERM: Final = 7 * DAY_MS  # the source model stays for so long: its bars end on a grid of this
_SETTLED: Final = 30_000  # ms after which the exchange certainly has a closed bar


@dataclass(frozen=True, slots=True)
class Past:
    """What was before: the sources' bars for pretraining, and the tokens' as a market; None without any."""

    sources: list[BarTable]
    market: RecordedMarket | None
    ends: Mapping[str, int]  # close of the last bar, ms

    @classmethod
    def of(cls, data: Path, symbols: Sequence[str], start: int, settings: Settings) -> "Past":
        interval, sources = settings.market.decision_minutes * MINUTE_MS, settings.market.sources
        tables = {}
        for symbol in symbols:
            with suppress(DataError):  # too young to have a bar
                tables[symbol] = barfiles.read(barfiles.find(data, symbol, interval))
        if missing := [name for name in sources if name not in tables]:
            raise DataError(f"the exchange has no bars of {', '.join(missing)}, which market.sources names")
        tokens = [name for name in tables if name not in sources]
        market = None
        if tokens:
            market = RecordedMarket(
                data, sources, tokens, decision_interval_ms=interval, costs=settings.costs, start=start,
                funding_directory=data / FUNDING_FOLDER, warmup_days=0,
            )  # fmt: skip
        until = start if market is None else market.start
        return cls(
            [tables[name].between(int(tables[name].start[0]), until) for name in sources],
            market,
            {name: int(table.start[-1]) + interval for name, table in tables.items()},
        )

    def earlier(self, settings: Settings, pretrained: Model) -> Iterable[LabelledSeries]:
        """What is on disk of tokens that are followed no more: the chain goes on learning from them."""
        return earlier_listings(settings, self.market, self.sources, pretrained) if self.market else ()

    def end_of(self, item: Instrument) -> int:
        return self.ends.get(item.symbol, item.launch_time)


async def download_past(
    settings: Settings, rest: Rest, data: Path, followed: Sequence[Instrument], console: Console
) -> Past:
    """Fetch what `data` lacks of the past of the followed instruments and open it.

    A token whose past cannot be had begins without one: the live market brings its bars from its launch on.
    Raises DataError for a source's.
    """
    bybit, sources = settings.bybit, settings.market.sources
    interval = settings.market.decision_minutes * MINUTE_MS
    now = rest.clock.now_ms()
    until = (now - _SETTLED) // interval * interval
    start = (now - bybit.newest_days * DAY_MS) // _TERM * _TERM
    for item in followed:
        since = start - bybit.history_days * DAY_MS if item.symbol in sources else start
        since = max(since, item.launch_time)
        if since + interval > until:
            continue
        try:
            bars = BarDownload(rest.market, data, item.symbol, interval, since, until)
            table = await bars.run(lambda _: None)
            await FundingDownload(
                rest.market, data / FUNDING_FOLDER, item.symbol, since, until, item.funding_interval_ms
            ).run(lambda _: None)
        except DataError as error:
            if item.symbol in sources:
                raise
            warn(console, [f"{item.symbol} begins without a past: {error}"])
            continue
        refused = f", {bars.refused} that cannot be left out" if bars.refused else ""
        console.print(f"{item.symbol}: {len(table or ()):,} bars of history{refused}", highlight=False)
    return Past.of(data, [item.symbol for item in followed], start, settings)
