"""`bot instruments`: what trades, with its filters and turnover."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from bot.commands.plain_table import print_table
from bot.commands.venue import EnvironmentOption, UrlOption, interruptible, public_rest
from bot.core.errors import UsageError
from bot.core.types import DAY_MS, Instrument
from bot.exchange import recorded_instruments
from bot.exchange.bybit.translate import instrument
from bot.exchange.bybit.wire import WireError
from bot.exchange.bybit.wire.instruments import InstrumentInfo
from bot.exchange.recorded_instruments import Filters

_PERPETUAL: Final = "LinearPerpetual"


def instruments(
    symbols: Annotated[list[str] | None, typer.Argument(help="Only these. Default: all.")] = None,
    newest: Annotated[
        int | None, typer.Option("--newest", min=1, help="Only those launched in the last so many days.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option("--write", help="Also write the filters to FOLDER/instruments.json, for backtests."),
    ] = None,
    environment: EnvironmentOption = None,
    url: UrlOption = None,
) -> None:
    """List the USDT perpetuals: status, launch time, filters and turnover, newest first.

    Example: bot instruments --newest 30 --write data
    """
    wanted = {symbol.upper() for symbol in symbols or ()}
    console = Console()

    async def fetch() -> tuple[list[InstrumentInfo], dict[str, float], int]:
        async with public_rest(environment, url) as rest:
            turnover = {ticker.symbol: ticker.turnover_24h or 0.0 for ticker in await rest.market.tickers()}
            return await rest.market.instruments(), turnover, rest.clock.now_ms()

    listed, turnover, now = interruptible(fetch)
    shown = [
        info
        for info in sorted(listed, key=lambda info: (-info.launch_time, info.symbol))
        if info.contract_type == _PERPETUAL
        and info.settle_coin == "USDT"
        and (not wanted or info.symbol in wanted)
        and (newest is None or info.launch_time >= now - newest * DAY_MS)
    ]
    known, odd = _translated(shown)
    print_table(console, _COLUMNS, _rows(shown, known, turnover))
    for line in odd:
        console.print(line, style="yellow", highlight=False)
    if write is not None:
        path = recorded_instruments.save(write, {name: Filters.of(item) for name, item in known.items()})
        console.print(f"Filters of {len(known)} instruments written to {path}", highlight=False)
    if missing := sorted(wanted - {info.symbol for info in listed}):
        raise UsageError(f"the exchange does not list {', '.join(missing)}; `bot instruments` lists all")


def _translated(listed: list[InstrumentInfo]) -> tuple[dict[str, Instrument], list[str]]:
    """Those that can be traded, and a line for each that cannot."""
    known, odd = {}, []
    for info in listed:
        try:
            known[info.symbol] = instrument(info)
        except WireError as error:
            odd.append(f"left out: {error}")
    return known, odd


_COLUMNS: Final = (
    "symbol", "status", "launched (UTC)", "tick", "step", "min qty", "max market", "min value",
    "24 h turnover",
)  # fmt: skip


def _rows(
    listed: list[InstrumentInfo], known: dict[str, Instrument], turnover: dict[str, float]
) -> Iterator[list[str]]:
    for info in listed:
        item = known.get(info.symbol)
        filters = (
            [item.tick_size, item.qty_step, item.min_qty, item.max_market_qty, item.min_notional]
            if item
            else None
        )
        launched = datetime.fromtimestamp(info.launch_time / 1000, UTC)
        traded = turnover.get(info.symbol)
        yield [
            info.symbol,
            info.status,
            f"{launched:%Y-%m-%d %H:%M}",
            *(["" if value is None else f"{value:f}" for value in filters] if filters else [""] * 5),
            "" if traded is None else f"{traded:,.0f}",
        ]
