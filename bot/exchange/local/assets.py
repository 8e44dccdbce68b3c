"""Where the symbols of the local exchange come from: the simulated market, a recording, or plain numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path as FilePath
from typing import Final

from bot.core.errors import DataError
from bot.core.money import exact
from bot.core.types import DAY_MS, HOUR_MS, MINUTE_MS, Instrument
from bot.exchange import recorded_instruments
from bot.exchange.local.paths import BarPath, FlatPath, Path
from bot.exchange.simulated import listings
from bot.exchange.simulated.process import Factor, streams_of
from bot.exchange.simulated.symbols import SimulatedSymbol
from bot.market.bars import BarTable
from bot.storage import barfiles

INTERVAL: Final = MINUTE_MS
AGE_DAYS: Final = 3.0  # of the simulated run when the exchange opens: three tokens are listed, two will be
RECORDED_SPREAD: Final = 2e-4
USUAL_FUNDING: Final = Decimal("0.0001")


@dataclass(frozen=True)
class Asset:
    """One symbol, its past and its future. Times are ms UTC of the exchange's own clock.

    half_spread: fraction of the price at a moment · turnover: quote coin per day, sizes the quotes
    """

    instrument: Instrument
    path: Path
    half_spread: Callable[[int], float]
    turnover: float
    history: BarTable | None = None
    funding: Sequence[tuple[int, Decimal]] = ()  # (time, rate), oldest first
    delivery_time: int = 0  # 0: no end is known

    @property
    def symbol(self) -> str:
        return self.instrument.symbol

    def rate_at(self, ts: int) -> Decimal:
        """The rate that is paid at the first settlement at or after `ts`."""
        return next((rate for time, rate in self.funding if time >= ts), USUAL_FUNDING)


def simulated(
    seed: int, sources: Sequence[str], now: int, *, history_days: int, future_days: int
) -> list[Asset]:
    """The market of `bot paper`, on the clock of today, in bars of one minute.

    The sources have `history_days` of past before the run; prices stand still `future_days` from now.
    """
    start = (now - int(AGE_DAYS * DAY_MS)) // HOUR_MS * HOUR_MS
    end = (now + future_days * DAY_MS) // INTERVAL * INTERVAL
    origin = start - history_days * DAY_MS
    bar_hours = INTERVAL / HOUR_MS
    factor = Factor.draw(streams_of(seed, "factor"), (end - origin) // INTERVAL, bar_hours)
    listed = [listings.source(symbol, number, origin) for number, symbol in enumerate(sources)]
    listed += listings.tokens(streams_of(seed, "listings"), start, end)
    return [
        _simulated_asset(
            seed,
            SimulatedSymbol.draw(
                listing,
                streams_of(seed, listing.symbol),
                factor.since((listing.launch_time - origin) // INTERVAL),
                end,
                INTERVAL,
            ),
            now,
        )
        for listing in listed
    ]


def _simulated_asset(seed: int, drawn: SimulatedSymbol, now: int) -> Asset:
    listing, bars = drawn.listing, drawn.bars
    last = len(drawn.half_spread) - 1

    def half_spread(ts: int) -> float:
        index = (ts - listing.launch_time) // INTERVAL
        return float(drawn.half_spread[min(max(index, 0), last)])

    return Asset(
        instrument=listing.instrument(),
        path=BarPath(bars, f"{seed}/{listing.symbol}"),
        half_spread=half_spread,
        turnover=listing.daily_turnover,
        history=bars.between(int(bars.start[0]), now) if listing.launch_time < now else None,
        funding=[(event.ts, exact(event.rate)) for event in drawn.funding],
    )


def recorded(directory: FilePath, seed: int, now: int, *, history_days: int) -> list[Asset]:
    """Bars from files (README, "Your own data"), the finest of each symbol, moved so that they go on now.

    `history_days` of the symbol that begins first lie in the past; a symbol whose bars end is delisted.
    Raises DataError.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory of bar files")
    tables = {}
    for folder in sorted(directory.iterdir()):
        if names := barfiles.intervals(folder):
            finest = min(names, key=lambda name: barfiles.INTERVALS[name])
            tables[folder.name] = barfiles.read(folder / f"{finest}.parquet")
    if not tables:
        raise DataError(f"{directory}: no bar files; they are named SYMBOL/1m.parquet and so on")
    first = min(int(table.start[0]) for table in tables.values())
    shift = (now - first - history_days * DAY_MS) // (8 * HOUR_MS) * (8 * HOUR_MS)
    filters = recorded_instruments.load(directory)
    assets = []
    for symbol, table in tables.items():
        moved = replace(table, start=table.start + shift)
        launch = int(moved.start[0])
        found = filters.get(symbol) or recorded_instruments.infer(float(table.close[0]))
        end = int(moved.start[-1]) + moved.interval
        if end <= now:
            continue
        assets.append(
            Asset(
                instrument=found.instrument(symbol, launch, 8 * HOUR_MS),
                path=BarPath(moved, f"{seed}/{symbol}"),
                half_spread=lambda _: RECORDED_SPREAD,
                turnover=float((table.close * table.volume).sum())
                / max(1, len(table))
                * DAY_MS
                / table.interval,
                history=moved.between(launch, now) if launch < now else None,
                delivery_time=end,
            )
        )
    if not assets:
        raise DataError(f"{directory}: less than {history_days} days of bars; shorten exchange.history_days")
    return assets


def plain(
    symbol: str,
    price: float,
    launch_time: int,
    *,
    turnover: float = 1e8,
    volume: float = 0.0,
    spread: float = 2e-4,
) -> Asset:
    """A symbol whose fair price stands still until somebody moves it. `volume`: base coin per ms."""
    grid = listings.grid_for(price)
    instrument = Instrument(
        symbol=symbol,
        tick_size=grid.tick,
        qty_step=grid.step,
        min_qty=grid.step,
        max_qty=grid.step * 1_000_000,
        max_market_qty=grid.step * 200_000,
        min_notional=Decimal(5),
        launch_time=launch_time,
        simulated=True,
    )
    return Asset(instrument, FlatPath(price, volume), lambda _: spread, turnover)
