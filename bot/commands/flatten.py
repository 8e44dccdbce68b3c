"""`bot flatten`: by the bot that runs, or from here where none does."""

import os
from collections.abc import Callable
from typing import Annotated

import typer

from bot.commands.control import (
    FLAT_SECONDS,
    ModeOption,
    ReasonOption,
    database_of,
    find,
    post,
    say,
    wait,
)
from bot.commands.options import ConfigOption, DirectoryOption, emergency_settings_of
from bot.commands.trade import RegionOption, environment_of
from bot.commands.venue import UrlOption, interruptible
from bot.core.errors import BotError, UsageError
from bot.core.types import Verb
from bot.exchange.bybit.environment import Credentials, Environment, credentials
from bot.exchange.bybit.ownership import Ownership
from bot.settings import Settings
from bot.storage.mailbox import Mailbox, Request, wall_ms


def flatten(
    mode: ModeOption = None,
    reason: ReasonOption = "",
    direct: Annotated[
        bool, typer.Option("--direct", help="Do not ask the running bot: act on the exchange from here.")
    ] = False,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Close what others hold on the account, too; from here, as --direct."),
    ] = False,
    region: RegionOption = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    directory: DirectoryOption = None,
) -> None:
    """Close every position at the market, cancel entries, and open nothing before `bot resume`.

    A running bot does it. When none runs (or hangs, or still starts) it is done from here with the key of
    --mode testnet, demo or live; without a key by the bot, where one starts. Positions of others are left
    alone and named, unless --all is given or `bybit.foreign_positions` is "adopt"; without a database ours
    are those that an order of this program opened within seven days. Waits until all is closed; exit code 4
    when it is not.
    """
    chosen: str | None = mode
    settings, beat, owners = None, None, None
    try:
        settings = emergency_settings_of(config, directory)
        chosen, beat = find(mode, settings)
        owners = _owners(settings, chosen)
    except BotError as error:  # a broken file or database must not keep anybody from closing positions
        if mode in (None, "paper"):
            raise
        _warn(error)
    assert chosen is not None
    trading = beat is not None and beat.phase == "trading"
    asks = settings is not None and not direct and not everything  # the bot that runs
    environment, keys = None, None
    if chosen != "paper" and not (trading and asks):
        environment = environment_of(chosen, region, url)
        try:
            keys = credentials(environment, os.environ)
        except UsageError:
            if beat is None or not asks:  # nobody hears it: nothing is done nor written down
                raise
    if settings is not None and keys is None:
        request = post(Verb.FLATTEN, chosen, reason, settings)
        if beat is not None:
            wait(settings, request, FLAT_SECONDS, lambda now: now.done is not None)
        else:
            say("Written down; paper positions are closed when the run goes on.")
        return
    assert environment is not None
    assert keys is not None
    why = "Without the bot" if trading else f"No bot that trades answers for {chosen}"
    say(f"{why}: closing on {environment.name} from here.")
    blind = owners is None
    found = Ownership(leave=not everything) if owners is None or everything else owners

    def close() -> str:
        return interruptible(lambda: _close(environment, keys, found, blind=blind))

    if settings is None or blind:
        say(close())
    else:
        _on_record(settings, chosen, reason, close)


def _on_record(settings: Settings, mode: str, reason: str, close: Callable[[], str]) -> None:
    """The request stands while it is tried and says what came of it; a next start goes on where it failed."""
    request: Request | None = None
    try:
        request = post(Verb.FLATTEN, mode, reason, settings)
    except BotError as error:
        _warn(error)
    try:
        text = close()
    except BotError as error:
        if request is not None:
            with database_of(settings) as database:
                Mailbox(database, mode).note(request.number, f"not done from here: {error}")
        raise
    if request is not None:
        with database_of(settings) as database:
            Mailbox(database, mode).settle(request.number, wall_ms(), text)
    say(text)


def _owners(settings: Settings, mode: str) -> Ownership:
    """By what all runs of this mode left on record."""
    from bot.live.account import ownership_of  # here, not above: help and mistakes answer at once

    with database_of(settings) as database:
        runs = [run for run in database.runs() if run.kind == mode]
        return ownership_of(settings, database, runs, wall_ms())


async def _close(environment: Environment, keys: Credentials, owners: Ownership, *, blind: bool) -> str:
    from bot.exchange.bybit.closing import Closing
    from bot.exchange.bybit.rest import Rest

    rest = Rest(environment, keys)
    try:
        await rest.measure_clock()
        closed = await Closing(rest, say, owners, blind=blind).run()
    finally:
        rest.close()
    text = f"flat: {len(closed.positions)} positions closed, {len(closed.cancelled)} entries cancelled"
    if closed.others:
        text += f"; positions of others are left: {', '.join(closed.others)} (--all closes them, too)"
    if closed.left:
        text += f"; open orders of others are left: {', '.join(closed.left)}"
    return text


def _warn(error: BotError) -> None:
    say(f"Warning: {error}. Nothing holds the next start back: `bot pause` when this is mended.")
