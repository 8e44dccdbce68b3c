"""`bot status | pause | resume | kill`: from another terminal, with or without a running bot."""

import getpass
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich.console import Console

from bot.commands.options import ConfigOption, DirectoryOption, emergency_settings_of, settings_of
from bot.core.errors import DataError, RuntimeFault, UsageError
from bot.core.types import Verb
from bot.settings import Settings
from bot.storage.database import Database
from bot.storage.mailbox import Heartbeat, Mailbox, Request, heartbeats, wall_ms

Mode = Literal["paper", "testnet", "demo", "live"]
ModeOption = Annotated[
    Mode | None, typer.Option("--mode", help="Which bot. Default: the one that runs, or ran last.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Kept, and told by `bot status`.")]

_ANSWER_SECONDS: Final = 15.0
FLAT_SECONDS: Final = 60.0
_KILL_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.1


def pause(
    mode: ModeOption = None,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    directory: DirectoryOption = None,
) -> None:
    """Open no more positions; those that are open are looked after, and their exits go on.

    Holds until `bot resume`, through restarts. Without a running bot it holds for the next start.
    """
    _ask(Verb.PAUSE, mode, reason, emergency_settings_of(config, directory))


def resume(
    mode: ModeOption = None,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    directory: DirectoryOption = None,
) -> None:
    """End a pause, a flattening, a kill, a halt of the drawdown breaker, and what waits for you to see to it.

    The last is what `bot status` calls "operator": a key that was refused, an execution that could not be
    booked, money or a position that nothing explains. Only a person does this. Entries still wait for
    whatever else stands in their way: the answer names it. What lasts holds them again when it is met again.
    """
    _ask(Verb.RESUME, mode, reason, settings_of(config, directory))


def kill(
    mode: ModeOption = None,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    directory: DirectoryOption = None,
) -> None:
    """Cancel entries and end the process at once. Positions keep their stops at the exchange.

    No start trades before `bot resume`, whatever a supervisor does. A process that does not answer within
    five seconds is killed, if it runs on this machine.
    """
    settings = emergency_settings_of(config, directory)
    _ask(Verb.KILL, mode, reason, settings, late=_kill_process, seconds=_KILL_SECONDS)


def status(mode: ModeOption = None, config: ConfigOption = None, directory: DirectoryOption = None) -> None:
    """Print how the bot stands: alive or not, equity, positions with their stops, open orders, what holds it.

    Exit codes: 0 alive and free to trade, or a paper run that came to its end; 1 held, or still starting;
    3 stopped, dead or never started; 2 wrong usage or configuration.
    """
    from bot.dashboard.status import lines, verdict

    settings = settings_of(config, directory)
    with database_of(settings) as database:
        beat = _choose(database, mode)
        if beat is None:
            raise DataError("no bot has run here yet")
        requests = Mailbox(database, beat.mode).in_force()
    now = wall_ms()
    for line in lines(beat, requests, now):
        say(line)
    if code := verdict(beat, requests, now):
        raise typer.Exit(code)


# --- asking ------------------------------------------------------------------------------------------------


def _ask(
    verb: Verb,
    mode: str | None,
    reason: str,
    settings: Settings,
    late: Callable[[Heartbeat], None] | None = None,
    seconds: float = _ANSWER_SECONDS,
) -> None:
    """`late`: what to do with a bot that is alive and has not answered in `seconds`."""
    chosen, beat = find(mode, settings)
    request = post(verb, chosen, reason, settings)
    if beat is None:
        say(f"Written down for the next start of {chosen}: no bot of it runs now.")
        return
    try:
        wait(settings, request, seconds, lambda now: now.taken is not None)
    except RuntimeFault:
        if late is None:
            raise
        late(beat)


def find(mode: str | None, settings: Settings) -> tuple[str, Heartbeat | None]:
    """The mode that is meant, and the heartbeat of its bot if that is alive. Raises UsageError, DataError."""
    with database_of(settings, upgrade=True) as database:
        beat = _choose(database, mode)
        chosen = mode or (beat.mode if beat else None)
        if chosen is None:
            raise UsageError("no bot has run here yet: name one with --mode")
        return chosen, beat if beat is not None and beat.is_alive(wall_ms()) else None


def post(verb: Verb, mode: str, reason: str, settings: Settings) -> Request:
    """Write it down."""
    with database_of(settings) as database:
        by = f"{getpass.getuser()}@{socket.gethostname()}"
        return Mailbox(database, mode).post(verb, by, reason, wall_ms())


def wait(settings: Settings, request: Request, seconds: float, enough: Callable[[Request], bool]) -> None:
    """Print each new answer until it is enough. Raises RuntimeFault when that takes too long."""
    told, end = "", time.monotonic() + seconds
    with database_of(settings) as database:
        mailbox = Mailbox(database, request.mode)
        while True:
            now = mailbox.request(request.number)
            if now.answer != told:
                told = now.answer
                say(told)
            if enough(now):
                return
            if time.monotonic() > end:
                hint = "; --direct acts from here" if request.verb is Verb.FLATTEN else ""
                raise RuntimeFault(
                    f"written down, but the bot has not done it in {seconds:g} s; see `bot status`{hint}"
                )
            time.sleep(_LOOK_SECONDS)


def _choose(database: Database, mode: str | None) -> Heartbeat | None:
    """The bot of this mode; without one the one that is alive, or was last."""
    found = [beat for beat in heartbeats(database.engine) if mode in (None, beat.mode)]
    now = wall_ms()
    return max(found, key=lambda beat: (beat.is_alive(now), beat.beat), default=None)


def _kill_process(beat: Heartbeat) -> None:
    if beat.host != socket.gethostname():
        raise RuntimeFault(f"it does not answer, and runs on {beat.host}: kill process {beat.pid} there")
    if beat.is_alive(wall_ms()):
        os.kill(beat.pid, signal.SIGKILL)
    say(f"It did not answer: process {beat.pid} was killed. Positions keep their stops.")


def database_of(settings: Settings, *, upgrade: bool = False) -> Database:
    """Beside the bot that holds the lock: for requests and looks only.

    upgrade: bring one of an earlier version up to date. Raises UsageError where no bot has ever run.
    """
    target: str | Path = settings.storage.target
    if upgrade and not Database.exists(target):
        where = "storage.database" if settings.storage.database else str(settings.storage.directory)
        raise UsageError(
            f"no bot has ever run in {where}: name the folder of the one you mean by --directory"
        )
    try:
        return Database.open(target, readonly=True)
    except DataError:
        if not upgrade:
            raise
        Database.open(target).close()
        return Database.open(target, readonly=True)


def say(text: str) -> None:
    Console(highlight=False).print(text, markup=False, soft_wrap=True)
