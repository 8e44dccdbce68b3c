"""From the settings to a run on Bybit: its key checked, its clock measured, the account to itself."""

import asyncio
from typing import Final

from rich.console import Console

from bot.app import with_stop
from bot.control import Control
from bot.exchange.bybit.environment import check_key
from bot.exchange.bybit.rest import Rest
from bot.live.account import account_lock
from bot.live.parts import Choice, warn
from bot.live.run import LiveRun
from bot.settings import Settings
from bot.storage.database import Database
from bot.warming import compile_kernels

_STOP_SECONDS: Final = 9.5  # from SIGTERM to the end, whatever happens


def run_live(settings: Settings, choice: Choice) -> None:
    """Trade until stopped. Raises BotError."""
    console = Console()
    compile_kernels(console)
    with Database.open(settings.storage.target) as database:
        control = Control(database, choice.kind, option=settings.storage.option)
        control.begin()
        asyncio.run(
            with_stop(
                lambda stop: _session(settings, choice, database, console, control, stop), _STOP_SECONDS
            )
        )
        control.require_alive()


async def _session(
    settings: Settings, choice: Choice, database: Database, console: Console, control: Control,
    stop: asyncio.Event,
) -> None:  # fmt: skip
    rest = Rest(choice.environment, choice.credentials)
    try:
        await rest.measure_clock()
        if choice.credentials is None:
            await LiveRun(settings, choice, "", rest, database, console, control).run(stop)
            return
        key = await rest.account.key()
        warn(console, check_key(key, choice.environment, allowed=settings.bybit.allowed_permissions))
        account = str(key.user_id)
        with account_lock(choice.environment, account):
            await LiveRun(settings, choice, account, rest, database, console, control).run(stop)
    finally:
        rest.close()
