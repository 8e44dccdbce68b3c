"""`bot rehearse`: a dress rehearsal of trading, without a key and without the internet."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bot.commands.options import ConfigOption, settings_of


def rehearse(
    minutes: Annotated[
        float, typer.Option("--minutes", min=1, help="How long; bars close each minute.")
    ] = 5.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the local exchange.")] = 7,
    restarts: Annotated[
        int, typer.Option("--restarts", min=0, help="Restarts of the exchange on the way.")
    ] = 2,
    websocket: Annotated[
        bool, typer.Option("--websocket", help="Order entry by WebSocket instead of REST; or as configured.")
    ] = False,
    config: ConfigOption = None,
    directory: Annotated[
        Path | None, typer.Option("--directory", help="Where the journal is kept. Default: ./var")
    ] = None,
) -> None:
    """Trade against the local exchange in real time, with the client of live trading, through its restarts.

    Ends with a reconciliation: orders, executions, positions, stops and balance, ours beside the exchange's.
    Exit code 4 when they differ.
    """
    from bot.rehearsal import Plan, run_rehearsal
    from bot.warming import compile_kernels

    settings = settings_of(config, directory)
    plan = Plan(minutes, seed, restarts, orders_by_websocket=websocket or settings.bybit.orders_by_websocket)
    compile_kernels(Console())
    run_rehearsal(settings, plan, settings.storage.directory)
