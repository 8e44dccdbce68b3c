"""Errors that a person can act on. Each kind has its own exit code; none is shown with a traceback."""


class BotError(Exception):
    """Something a person can mend; the message says what to do."""

    exit_code = 4


class UsageError(BotError):
    """The configuration or the command line is wrong."""

    exit_code = 2


class DataError(BotError):
    """A file (bars, checkpoint, database) is wrong, missing or of another version."""

    exit_code = 3


class TrainingFailed(BotError):
    """These data gave no usable model: training diverged, or the model says the same to everything."""

    exit_code = 4


class RuntimeFault(BotError):
    """The world failed while running: disk full, child process lost, exchange unreachable."""

    exit_code = 4


class Latched(BotError):
    """A person has ended the bot, and no start trades before a person lets it."""

    exit_code = 5
