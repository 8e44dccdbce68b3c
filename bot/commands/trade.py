"""`bot trade`: testnet, demo or real money on Bybit."""

import os
from typing import Annotated, Literal

import typer

from bot.commands.options import ConfigOption, DirectoryOption, names_of, settings_of
from bot.commands.venue import UrlOption, venue
from bot.core.errors import UsageError
from bot.exchange.bybit.environment import Environment, credentials, require_confirmation

Mode = Literal["testnet", "demo", "live"]

RegionOption = Annotated[
    str | None, typer.Option("--region", help="Regional host for live: eu, nl, tr, kz, ae, id, jp, ge.")
]
TokensOption = Annotated[
    str | None,
    typer.Option("--tokens", help="Comma-separated tokens. Default: the newest listings."),
]


def trade(
    mode: Annotated[
        Mode,
        typer.Option("--mode", help="testnet: play money, thin books. demo: play money on mainnet's market."),
    ],
    tokens: TokensOption = None,
    region: RegionOption = None,
    accept: Annotated[
        bool, typer.Option("--i-accept-real-money", help="The second yes that live needs.")
    ] = False,
    url: UrlOption = None,
    config: ConfigOption = None,
    directory: DirectoryOption = None,
) -> None:
    """Trade on Bybit until stopped: the same engine as in a backtest, with orders that leave.

    Keys: BOT_TESTNET_API_KEY and BOT_TESTNET_API_SECRET; BOT_DEMO_..., BOT_LIVE_... for the others. A live
    key that may withdraw is refused. Positions and their stops stay at the exchange when the bot stops; the
    next start takes them over. `bot status`, `pause`, `resume`, `flatten` and `kill` reach it from elsewhere.
    """
    environment = environment_of(mode, region, url)
    settings = settings_of(config, directory)
    require_confirmation(
        environment, flag=accept, configured=settings.bybit.accept_real_money, variables=os.environ
    )
    keys = credentials(environment, os.environ)
    from bot.live.parts import Choice  # here, not above: help and mistakes answer at once
    from bot.live.session import run_live

    run_live(settings, Choice(mode, environment, keys, names_of(tokens)))


def environment_of(mode: str, region: str | None, url: str | None) -> Environment:
    """Raises UsageError for a choice that contradicts itself."""
    if mode == "live":
        if url is not None:
            raise UsageError("--url is a local exchange: take --mode testnet with it")
        return venue(f"mainnet-{region}" if region else "mainnet", None)
    if region is not None:
        raise UsageError(f"--region is for --mode live; {mode} has one host")
    return venue(None if url else mode, url)
