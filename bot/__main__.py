"""`bot` and `python -m bot`. Ctrl-C has its meaning before anything is imported that takes time."""

import signal

from bot.core.interrupt import end_at_once


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_at_once)
    from bot.cli import app

    app(prog_name="bot")


if __name__ == "__main__":
    main()
