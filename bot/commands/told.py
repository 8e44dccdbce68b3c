"""How every command ends: done, or with a message and an exit code; never with a traceback."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console

from bot.core.errors import BotError
from bot.core.interrupt import STOPPED

P = ParamSpec("P")
R = TypeVar("R")

EPILOG = (
    "Exit codes: 0 done, 2 wrong usage or configuration, 3 bad data, 4 failure while running, 5 killed by "
    "`bot kill`, 130 stopped."
)


def told(function: Callable[P, R]) -> Callable[P, R]:
    """A mistake that a person can mend ends with its message and exit code, never with a traceback."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except BotError as error:
            Console(stderr=True, highlight=False).print(
                f"error: {error}", style="red", markup=False, soft_wrap=True
            )
            raise typer.Exit(error.exit_code) from None
        except OSError as error:  # a full disk, say, wherever it was noticed
            Console(stderr=True, highlight=False).print(
                f"error: the operating system refuses: {error}", style="red", markup=False, soft_wrap=True
            )
            raise typer.Exit(BotError.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(STOPPED) from None

    return wrapper
