"""`bot study`: every way to transfer, judged on real listings."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bot.commands.options import (
    ConfigOption,
    DirectoryOption,
    FundingOption,
    day,
    funding_of,
    names_of,
    settings_of,
)


def study(
    data: Annotated[
        Path, typer.Option("--data", help="Folder of bars: SYMBOL/15m.parquet (README, 'Your own data').")
    ],
    funding: FundingOption = None,
    tokens: Annotated[
        str | None, typer.Option("--tokens", help="Comma-separated tokens. Default: all listed in the range.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            help="Tokens with their first bar from this day on, YYYY-MM-DD (UTC); models may learn from what "
            "came before. Default: after 60 % of the sources' history.",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Tokens with their first bar before this day.")
    ] = None,
    days: Annotated[
        str, typer.Option("--days", help="Days after a token's first bar that are evaluated.")
    ] = "3-60",
    horizon: Annotated[
        int, typer.Option("--horizon", min=2, max=96, help="Decision bars from entry to exit.")
    ] = 16,
    interval: Annotated[str, typer.Option("--interval", help="Decision bar.")] = "15m",
    arms: Annotated[str | None, typer.Option("--arms", help="Comma-separated arms. Default: all.")] = None,
    foundation: Annotated[
        str,
        typer.Option(
            "--foundation",
            help="A pretrained forecaster as one more arm: chronos=FOLDER or chronos=NAME-ON-THE-HUB.",
        ),
    ] = "",
    twins: Annotated[
        int,
        typer.Option(
            "--twins",
            min=0,
            help="Each arm that many times more, with shuffled labels. A dozen of a cheap arm tell how far "
            "chance alone goes (--arms frozen --twins 12).",
        ),
    ] = 1,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Processes. Default: one per core.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything that is drawn.")] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the results. Default: study/ in var.")
    ] = None,
    config: ConfigOption = None,
    directory: DirectoryOption = None,
) -> None:
    """Judge every way to transfer on real listings: walk forward, out of sample, in calendar order.

    For every token with its first bar in the range, each arm says at each decision bar how probable a gain is
    from the next open to the close HORIZON bars later. Predictions go to predictions.parquet, the table to
    table.md. Interrupted, it goes on where it was.

    Example: bot study --data ~/bars --since 2025-04-01 --arms lgbm_pooled,frozen,chain_head
    """
    from bot.commands.study_run import run_study

    names = names_of(tokens) or None
    options = {
        "funding": funding_of(data, funding), "tokens": names, "since": day(since), "until": day(until),
        "horizon": horizon, "seed": seed, "foundation": foundation,
    }  # fmt: skip
    run_study(
        settings_of(config, directory),
        data,
        output,
        arms=arms,
        jobs=jobs or os.cpu_count() or 1,
        twins=twins,
        days=days,
        interval=interval,
        options=options,
    )
