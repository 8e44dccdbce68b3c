"""Options that several commands have, and what becomes of them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bot.core.errors import UsageError
from bot.settings import Settings, load
from bot.storage.survey import FUNDING_FOLDER

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file. Default: ./config.toml if there is one."),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of bars: SYMBOL/15m.parquet and so on (README, 'Your own data')."),
]
FundingOption = Annotated[
    Path | None,
    typer.Option(
        "--funding",
        help="Folder of funding rates, SYMBOL.parquet. Default: funding/ in the folder of bars, if there. A "
        "token without rates pays costs.default_funding, long or short.",
    ),
]
DirectoryOption = Annotated[
    Path | None,
    typer.Option("--directory", help="Where database, models and reports are kept. Default: ./var"),
]


def settings_of(
    config: Path | None,
    directory: Path | None,
    simulation: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
) -> Settings:
    """The settings that the options choose; None leaves a key to file and environment. Raises UsageError."""
    overrides: dict[str, Any] = {
        section: {key: value for key, value in (keys or {}).items() if value is not None}
        for section, keys in (("simulation", simulation), ("model", model))
    }
    if directory is not None:
        overrides["storage"] = {"directory": str(directory)}
    return load(_file(config), overrides)


def emergency_settings_of(config: Path | None, directory: Path | None) -> Settings:
    """For commands that must work whatever is wrong elsewhere: then only [storage] counts, with a warning.

    Raises UsageError where even that cannot be read.
    """
    try:
        return settings_of(config, directory)
    except UsageError as error:
        overrides = {} if directory is None else {"storage": {"directory": str(directory)}}
        settings = load(_file(config), overrides, only="storage")
        Console(stderr=True, highlight=False).print(
            f"Warning: {error}\nGoing on with [storage] alone, which is all that this needs.",
            style="yellow", markup=False, soft_wrap=True,
        )  # fmt: skip
        return settings


def _file(config: Path | None) -> Path | None:
    default = Path("config.toml")
    return config or (default if default.exists() else None)


def funding_of(data: Path | None, funding: Path | None) -> Path | None:
    """The folder of funding rates: as told, else where `bot data download` puts those of `data`, if there."""
    if funding is not None or data is None:
        return funding
    beside = data / FUNDING_FOLDER
    return beside if beside.is_dir() else None


def names_of(tokens: str | None) -> tuple[str, ...]:
    return tuple(name.strip().upper() for name in (tokens or "").split(",") if name.strip())


def day(text: str | None) -> int | None:
    """ms UTC of a day's first moment. Raises UsageError."""
    if text is None:
        return None
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        raise UsageError(f"{text!r} is not a day; write YYYY-MM-DD") from None
