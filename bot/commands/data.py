"""`bot data`: bars and funding rates from the exchange into files, and files looked over."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from bot.commands.options import day
from bot.commands.plain_table import print_table
from bot.commands.told import EPILOG, told
from bot.commands.venue import EnvironmentOption, UrlOption, interruptible, public_rest
from bot.core.errors import DataError, UsageError
from bot.core.types import DAY_MS, HOUR_MS, MINUTE_MS
from bot.exchange import recorded_instruments
from bot.exchange.bybit.download import BarDownload, FundingDownload, contracts
from bot.exchange.bybit.rest import MarketRest
from bot.exchange.bybit.wire.instruments import InstrumentInfo
from bot.market.bars import BarTable
from bot.storage import barfiles
from bot.storage.survey import FUNDING_FOLDER, Finding, survey

app = typer.Typer(help="Download bars and funding rates, and check what is there.", no_args_is_help=True)

DirectoryArgument = Annotated[Path, typer.Argument(help="Folder of bars, as `bot backtest --data` takes it.")]


@app.command(epilog=EPILOG)
@told
def download(
    symbols: Annotated[list[str], typer.Argument(help="BTCUSDT ETHUSDT and tokens, USDT perpetuals.")],
    interval: Annotated[str, typer.Option("--interval", "-i", help="1m, 3m, 5m, 15m, 30m or 1h.")] = "15m",
    since: Annotated[
        str | None, typer.Option("--since", help="First day, YYYY-MM-DD (UTC). Default: two years ago.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Bars before this day only. Default: until now.")
    ] = None,
    data: Annotated[Path, typer.Option("--data", help="Where to.")] = Path("data"),
    funding: Annotated[
        bool, typer.Option("--funding/--no-funding", help="Also funding rates, into DATA/funding.")
    ] = True,
    environment: EnvironmentOption = None,
    url: UrlOption = None,
) -> None:
    """Download closed bars (and funding rates) into Parquet files that backtests read.

    Run it again to go on: only what a file lacks is asked for, and Ctrl-C loses nothing. Every file is
    read back and checked.

    Example: bot data download BTCUSDT ETHUSDT NEWUSDT --interval 15m --since 2024-01-01
    """
    if interval not in barfiles.INTERVALS:
        raise UsageError(f"--interval {interval!r}: take one of {', '.join(barfiles.INTERVALS)}")
    names = list(dict.fromkeys(symbol.upper() for symbol in symbols))
    first, end = day(since), day(until)
    console = Console()

    async def body() -> None:
        async with public_rest(environment, url) as rest:
            now = rest.clock.now_ms()
            low, high = first if first is not None else now - 730 * DAY_MS, min(end or now, now)
            if low >= high:
                raise UsageError(f"nothing to download: {_day(low)} is not before {_day(high)}")
            for contract in await contracts(rest.market, names):
                await _download(
                    console, rest.market, data, contract, barfiles.INTERVALS[interval], low, high,
                    funding=funding,
                )  # fmt: skip

    interruptible(body)


@app.command(epilog=EPILOG)
@told
def check(directory: DirectoryArgument) -> None:
    """Read every file and say what it holds: rows, range, gaps, faults. Exit code 3 if one breaks a rule."""
    console = Console()
    findings = list(survey(directory))
    print_table(console, _COLUMNS, _rows(directory, findings))
    faults = [finding.fault for finding in findings if finding.fault]
    try:
        filters = recorded_instruments.load(directory)
        console.print(f"Filters of {len(filters)} instruments" if filters else "No instruments.json")
    except DataError as error:
        faults.append(str(error))
    if faults:
        raise DataError("\n".join([f"{len(faults)} of the files cannot be used", *faults]))
    holes = sum(finding.gaps > 0 for finding in findings)
    told = f"all usable; {holes} with gaps, across which nothing is learnt" if holes else "all good"
    console.print(f"{len(findings)} files, {told}", highlight=False)


async def _download(
    console: Console, market: MarketRest, data: Path, contract: InstrumentInfo, interval: int,
    since: int, until: int, *, funding: bool,
) -> None:  # fmt: skip
    """The bars and the funding rates of one symbol, with a progress bar for each."""
    symbol = contract.symbol
    since = max(since, contract.launch_time)
    if since >= until:
        console.print(f"{symbol}: not launched before {_day(until)}; nothing to download", highlight=False)
        return
    downloads: list[BarDownload | FundingDownload] = [
        BarDownload(market, data, symbol, interval, since, until)
    ]
    if funding and contract.funding_interval:
        step = contract.funding_interval * MINUTE_MS
        downloads.append(FundingDownload(market, data / FUNDING_FOLDER, symbol, since, until, step))
    for download in downloads:
        name = f"{symbol} {download.path.stem if isinstance(download, BarDownload) else 'funding'}"
        with _progress(console) as progress:
            task = progress.add_task(name, total=download.span / DAY_MS)
            table = await download.run(lambda span: progress.advance(task, span / DAY_MS))  # noqa: B023
        times = None if table is None else table.start if isinstance(table, BarTable) else table.ts
        if times is None:
            console.print(f"{name}: the exchange has nothing since {_day(since)}", highlight=False)
        else:
            extent = f"{_time(int(times[0]))} to {_time(int(times[-1]))}"
            missing = f", {barfiles.missing_bars(table)} missing" if isinstance(table, BarTable) else ""
            if isinstance(download, BarDownload) and download.refused:
                missing += f", {download.refused} that cannot be left out"
            console.print(f"{name}: {len(times):,} rows, {extent}{missing}  {download.path}", highlight=False)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} days"), TimeRemainingColumn(compact=True),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip


_COLUMNS: Final = ("file", "rows", "first (UTC)", "last (UTC)", "gaps", "missing", "longest gap", "verdict")


def _rows(directory: Path, findings: list[Finding]) -> Iterator[list[str]]:
    for finding in findings:
        name = str(finding.path.relative_to(directory))
        if finding.fault:
            yield [name, *[""] * 6, "broken"]
            continue
        yield [
            name,
            f"{finding.rows:,}",
            _time(finding.first),
            _time(finding.last),
            str(finding.gaps),
            str(finding.missing),
            f"{finding.longest_gap / HOUR_MS:.1f} h" if finding.gaps else "",
            "has gaps" if finding.gaps else "good",
        ]


def _day(ts: int) -> str:
    return f"{datetime.fromtimestamp(ts / 1000, UTC):%Y-%m-%d}"


def _time(ts: int) -> str:
    return f"{datetime.fromtimestamp(ts / 1000, UTC):%Y-%m-%d %H:%M}"
