"""The commands. Thin: options in, one call, exit code out."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bot.commands import control
from bot.commands import data as data_commands
from bot.commands import models as model_commands
from bot.commands.flatten import flatten
from bot.commands.instruments import instruments
from bot.commands.options import (
    ConfigOption,
    DataOption,
    DirectoryOption,
    FundingOption,
    day,
    funding_of,
    names_of,
    settings_of,
)
from bot.commands.rehearse import rehearse
from bot.commands.study import study
from bot.commands.told import EPILOG as _EPILOG
from bot.commands.told import told as _told
from bot.commands.trade import trade
from bot.commands.venue import EnvironmentOption, UrlOption, venue
from bot.core.errors import UsageError

app = typer.Typer(
    name="bot",
    help="A crypto trading bot for Bybit whose model, pretrained on BTC and ETH, adapts to each newly listed "
    "token while it trades, and that knows when this transfer hurts.\n\n"
    "Start with **bot paper**: it needs no key, no server and no internet.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data_commands.app, name="data")
app.command(epilog=_EPILOG)(_told(instruments))
app.command(epilog=_EPILOG)(_told(trade))
app.command()(_told(control.status))  # which has exit codes of its own
for command in (control.pause, control.resume, flatten, control.kill):
    app.command(epilog=_EPILOG)(_told(command))
app.command(epilog=_EPILOG)(_told(rehearse))
app.command(epilog=_EPILOG)(_told(study))
app.add_typer(model_commands.app, name="models")

TokensOption = Annotated[
    str | None,
    typer.Option(
        "--tokens",
        help="Comma-separated tokens to trade. Default: every one of the folder, or the newest of Bybit.",
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option(
        "--start",
        help="Recorded market: first day of the run, YYYY-MM-DD (UTC). Default: the first token's first bar.",
    ),
]
DaysOption = Annotated[
    int | None,
    typer.Option(
        "--days",
        min=1,
        help="Simulated market: days of the run, by default simulation.days. Recorded market: days of each "
        "token from its first bar in the run, by default all.",
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of the simulated market.")]
FreshOption = Annotated[
    bool,
    typer.Option(
        "--fresh", help="Begin a new run instead of going on with the stored one, which stays stored."
    ),
]


@app.command(epilog=_EPILOG)
@_told
def paper(
    market: Annotated[
        Literal["simulated", "recorded", "bybit"],
        typer.Option(
            "--market",
            help="simulated: made up by seed. recorded: bars from --data. bybit: the live market, no key.",
        ),
    ] = "simulated",
    data: DataOption = None,
    funding: FundingOption = None,
    tokens: TokensOption = None,
    start: StartOption = None,
    days: DaysOption = None,
    seed: SeedOption = None,
    speed: Annotated[
        float,
        typer.Option("--speed", min=0, help="Seconds of the market per second; 0 = as fast as it goes."),
    ] = 0.0,
    fresh: FreshOption = False,
    environment: EnvironmentOption = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    directory: DirectoryOption = None,
) -> None:
    """Trade with paper money, on the embedded simulated market, on recorded bars or on Bybit's market.

    Pretrains the model on BTC and ETH (kept for the next run), then trades every token that is listed while
    it adapts to it, in a live view, and ends with a summary and an HTML report. Ctrl-C stops within two
    seconds and loses nothing: the next start goes on where this one stopped, and --fresh begins a new run.

    With --market bybit it prints lines and trades until it is stopped; each start is a run of its own, with
    the model that comes along or the champion of `bot models`.
    """
    if market != "bybit" and (url is not None or environment is not None):
        raise UsageError("--environment and --url say which exchange's market: give --market bybit with them")
    from bot.app import run_paper  # here, not above: help and mistakes answer at once

    settings = settings_of(config, directory, {"seed": seed, "days": days if market == "simulated" else None})
    if market == "bybit":
        given = {"--data": data, "--funding": funding, "--start": start, "--days": days, "--seed": seed,
                 "--speed": speed or None, "--fresh": fresh or None}  # fmt: skip
        if foreign := [name for name, value in given.items() if value is not None]:
            raise UsageError(f"not with --market bybit, which is live: {', '.join(foreign)}")
        from bot.live.parts import Choice
        from bot.live.session import run_live

        run_live(settings, Choice("paper", venue(environment, url), None, names_of(tokens)))
        return
    run_paper(settings, _recorded(market, data, funding, tokens, start, days, seed), fresh=fresh, speed=speed)


@app.command(epilog=_EPILOG)
@_told
def backtest(
    data: DataOption = None,
    funding: FundingOption = None,
    tokens: TokensOption = None,
    start: StartOption = None,
    days: DaysOption = None,
    seed: SeedOption = None,
    config: ConfigOption = None,
    directory: DirectoryOption = None,
) -> None:
    """Run the engine of `bot paper` over recorded bars (or the simulated market, without --data) and report.

    The model is pretrained on the bars of BTC and ETH up to the start of the run and adapts to each token as
    in paper trading; the orders are the same, byte for byte. Each backtest is a new run, from the beginning.

    Example: bot backtest --data ~/bars --tokens NEWUSDT,OTHERUSDT --days 60
    """
    from bot.app import run_backtest

    market = "simulated" if data is None else "recorded"
    settings = settings_of(config, directory, {"seed": seed, "days": days if data is None else None})
    run_backtest(settings, _recorded(market, data, funding, tokens, start, days, seed))


@app.command(epilog=_EPILOG)
@_told
def pretrain(
    data: DataOption = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Learn from bars before this day only, YYYY-MM-DD (UTC).")
    ] = None,
    method: Annotated[
        Literal["supervised", "masked", "contrastive", "predictive", "order", "forecast"] | None,
        typer.Option("--method", help="Pretext task that initialises the encoder; supervised: none."),
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="Also write the model's two files into this folder.")
    ] = None,
    seed: SeedOption = None,
    config: ConfigOption = None,
    directory: DirectoryOption = None,
) -> None:
    """Train the source model on BTC and ETH and print its card.

    Without --data it learns from the simulated market's history. Runs find the model again by the data and
    settings that it was made from. Interrupted, it goes on after its last epoch.
    """
    from bot.app import run_pretrain

    if data is not None and seed is not None:
        raise typer.BadParameter("--seed is the simulated market's; with --data there is none")
    settings = settings_of(config, directory, {"seed": seed}, {"method": method})
    run_pretrain(settings, data, day(until), export)


@app.command(epilog=_EPILOG)
@_told
def controls(
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Worlds per kind.")] = 5,
    kinds: Annotated[
        str | None, typer.Option("--kinds", help="Comma-separated kinds of market. Default: all.")
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="How to adapt: mmd, coral, adversarial, ...")
    ] = "mmd",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, one core each.")] = 2,
) -> None:
    """Run the transfer on synthetic markets whose right answer is known, and print the table.

    Shows what adaptation wins back, and that it is refused where the labels say no although every distance
    falls. Ends with exit code 4, and says why, when a verdict is wrong or a mean over the seeds misses its
    bound: 75 % of the covariate loss won back, none of it with the alignment detached, at most 1.5 points
    lost by adapting where nothing has changed and 3 under label shift. About 15 seconds per kind and seed on
    one core.
    """
    from bot.research.controls import run_controls

    names = [name.strip() for name in kinds.split(",") if name.strip()] if kinds else None
    if not run_controls(names, seeds, method, workers):
        raise typer.Exit(4)


@app.command(epilog=_EPILOG)
@_told
def report(
    run: Annotated[
        int | None, typer.Argument(min=1, help="Number of the run; the newest by default.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The HTML file. Default: reports/ in the directory.")
    ] = None,
    listings: Annotated[
        Path | None,
        typer.Option(
            "--listings",
            help="Folder of the bars that the run was made from: print each arm by token age as well, beside "
            "pooled trees that are refitted every month.",
        ),
    ] = None,
    config: ConfigOption = None,
    directory: DirectoryOption = None,
) -> None:
    """Write the HTML report of a stored run again and print its results."""
    from bot.app import run_report

    run_report(settings_of(config, directory, {}), run, output, listings)


@app.command(epilog=_EPILOG)
@_told
def exchange(
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65_535, help="Loopback port; 0 takes a free one.")
    ] = None,
    seed: SeedOption = None,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Serve Bybit's V5 interface on a loopback port: REST, public, private and order entry streams.

    The market is the simulated one, or recorded bars with --data. Keys, balances and limits are in the
    [exchange] section of the configuration; by default the key is `local`, the secret `local-secret`.
    Prints one line when it is ready; Ctrl-C ends it, with exit code 0.
    """
    from bot.exchange.local.launch import serve

    settings = settings_of(config, None, {})
    changes = {key: value for key, value in {"port": port, "seed": seed}.items() if value is not None}
    serve(settings.exchange.model_copy(update=changes), settings.market.sources, data)


def _recorded(
    market: str,
    data: Path | None,
    funding: Path | None,
    tokens: str | None,
    start: str | None,
    days: int | None,
    seed: int | None,
) -> dict[str, Any] | None:
    """Options of a recorded market; None for the simulated one."""
    if market == "simulated":
        if data is not None or tokens is not None or start is not None or funding is not None:
            raise typer.BadParameter("--data, --funding, --tokens and --start need a recorded market")
        return None
    if data is None:
        raise typer.BadParameter("--market recorded needs --data FOLDER")
    if seed is not None:
        raise typer.BadParameter("--seed is for the simulated market; recorded bars have none")
    names = names_of(tokens) or None
    if tokens is not None and names is None:
        raise typer.BadParameter("--tokens names none; leave it out for every symbol but the sources")
    rates = funding_of(data, funding)
    return {"directory": data, "funding": rates, "tokens": names, "start": day(start), "days": days}
