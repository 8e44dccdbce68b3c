"""`bot flatten`: by the bot that runs, or from here where none does."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, NamedTuple

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
from bot.core.errors import BotError, RuntimeFault, UsageError
from bot.core.types import Verb
from bot.exchange.bybit.environment import Credentials, Environment, credentials
from bot.exchange.bybit.ownership import Ownership
from bot.settings import Settings
from bot.storage.mailbox import Heartbeat, Mailbox, Request, wall_ms

_PAUSES: Final = (0.5, 1.0, 1.5, 2.0)  # seconds after which the exchange is asked again which account it is
_IN_DOUBT: Final = (
    "In doubt ours is what any run of this mode on record held, and what an order of this program has opened "
    "within seven days"
)


def flatten(
    mode: ModeOption = None,
    reason: ReasonOption = "",
    direct: Annotated[
        bool, typer.Option("--direct", help="Do not ask the running bot: act on the exchange from here.")
    ] = False,
    everything: Annotated[
        bool,
        typer.Option("--all", help="What others hold and have ordered, too; from here, as --direct."),
    ] = False,
    region: RegionOption = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    directory: DirectoryOption = None,
) -> None:
    """Close every position at the market, cancel entries, and open nothing before `bot resume`.

    A running bot does it. When none runs (or hangs, or still starts) it is done from here with the key of
    --mode testnet, demo or live; without a key by the bot, where one starts. What others hold and have
    ordered is left alone and named. --all closes and cancels that as well: every position, and every order
    that could open one. `bybit.foreign_positions = "adopt"` closes their positions and leaves their orders.
    Without a database ours is what an order of this program opened within seven days. Waits until all is
    closed; exit code 4 when it is not, or when nobody could say for certain whose everything is.
    """
    settings, chosen, beat = _bot(mode, config, directory)
    trading = beat is not None and beat.phase == "trading"
    asks = not direct and not everything  # the bot that runs
    if settings is not None and (chosen == "paper" or (trading and asks)):
        _ask(settings, chosen, reason, beat)
        return
    environment = environment_of(chosen, region, url)
    try:
        keys = credentials(environment, os.environ)
    except UsageError:
        if settings is None or beat is None or not asks:  # nobody hears it: nothing is done nor written down
            raise
        _ask(settings, chosen, reason, beat)
        return
    why = "Without the bot" if trading else f"No bot that trades answers for {chosen}"
    say(f"{why}: closing on {environment.name} from here.")
    whose = None if everything else _whose(environment, keys, settings, chosen)  # before it is written down

    def close() -> str:
        return interruptible(lambda: _close(environment, keys, whose))

    if settings is None:
        say(close())
    else:
        _on_record(settings, chosen, reason, close)


def _bot(
    mode: str | None, config: Path | None, directory: Path | None
) -> tuple[Settings | None, str, Heartbeat | None]:
    """Which one is meant, and its heartbeat if it is alive. A broken file or database must not keep anybody
    from closing positions: then there are no settings."""
    try:
        settings = emergency_settings_of(config, directory)
        return settings, *find(mode, settings)
    except BotError as error:
        if mode is None or mode == "paper":
            raise
        _warn(error)
        return None, mode, None


def _ask(settings: Settings, mode: str, reason: str, beat: Heartbeat | None) -> None:
    """The bot, where one is alive: it is written down for a next start otherwise."""
    request = post(Verb.FLATTEN, mode, reason, settings)
    if beat is None:
        say("Written down; paper positions are closed when the run goes on.")
    else:
        wait(settings, request, FLAT_SECONDS, lambda now: now.done is not None)


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


class _Whose(NamedTuple):
    """What is ours; doubt: why that is not certain, "" when it is."""

    owners: Ownership
    doubt: str = ""


def _whose(environment: Environment, keys: Credentials, settings: Settings | None, mode: str) -> _Whose:
    """By what the runs on this very account left on record; where the exchange does not say which account it
    is, by that of all runs of the mode.

    Raises UsageError where they were all on other accounts: what the bot holds cannot be closed by this key.
    """
    from bot.live.account import earlier_runs, ownership_of

    if settings is None:
        return _Whose(Ownership(leave=True), "no database could be read")
    account, doubt = "", ""
    try:
        account = interruptible(lambda: _account(environment, keys))
    except BotError as error:
        doubt = str(error)
    try:
        with database_of(settings) as database:
            runs = [run for run in database.runs() if run.kind == mode]
            earlier = earlier_runs(database, mode, account) if account else runs
            owners = ownership_of(settings, database, earlier, wall_ms())
    except BotError as error:
        return _Whose(Ownership(leave=True), str(error))
    if runs and not earlier:
        raise UsageError(
            f"the key is one of account {account}, on which no run of {mode} on record has been: nothing is "
            "done. Take the key of the bot, or --all to close everything on that account"
        )
    return _Whose(owners, doubt)


async def _account(environment: Environment, keys: Credentials) -> str:
    """Its id. It is asked for again, but not for long: positions wait for it. Raises ExchangeError."""
    from bot.exchange.bybit.errors import ExchangeError
    from bot.exchange.bybit.rest import Rest

    rest, pauses = Rest(environment, keys), iter(_PAUSES)
    try:
        while True:
            try:
                await rest.measure_clock()
                return str((await rest.account.key()).user_id)
            except ExchangeError as error:
                pause = next(pauses, None)
                if pause is None or not error.may_pass:
                    raise
            await asyncio.sleep(pause)
    finally:
        rest.close()


async def _close(environment: Environment, keys: Credentials, whose: _Whose | None) -> str:
    """What was done. whose: None for everything, whosever it is.

    Raises RuntimeFault where that may not be all that is ours.
    """
    from bot.exchange.bybit.closing import Closing  # here, not above: help and mistakes answer at once
    from bot.exchange.bybit.rest import Rest

    owners, doubt = whose or (None, "")
    if doubt:
        say(f"Warning: {doubt}. {_IN_DOUBT}.")
    rest = Rest(environment, keys)
    try:
        await rest.measure_clock()
        closed = await Closing(rest, say, owners, blind=bool(doubt)).run()
    finally:
        rest.close()
    text = f"flat: {len(closed.positions)} positions closed, {len(closed.cancelled)} entries cancelled"
    if closed.others:
        text += f"; positions of others are left: {', '.join(closed.others)} (--all closes them, too)"
    if closed.left:
        text += f"; open orders of others are left: {', '.join(closed.left)} (--all cancels them, too)"
    if doubt:
        raise RuntimeFault(f"{text}. That may not be all that is ours: {doubt}")
    return text


def _warn(error: BotError) -> None:
    say(f"Warning: {error}. Nothing holds the next start back: `bot pause` when this is mended.")
