"""`bot models`: the stored models, where they come from, and which was made champion last."""

from typing import Annotated

import typer

from bot.commands.options import ConfigOption, DirectoryOption, settings_of
from bot.commands.told import EPILOG, told

app = typer.Typer(
    help="The stored models: where they come from, and which was made champion last.",
    epilog=EPILOG,
    no_args_is_help=True,
)


@app.command("list", epilog=EPILOG)
@told
def list_models(config: ConfigOption = None, directory: DirectoryOption = None) -> None:
    """List every model, from real prices or from simulated ones; the champions numbered, the newest 1."""
    from bot.commands.model_tables import list_models

    list_models(settings_of(config, directory).storage)


@app.command(epilog=EPILOG)
@told
def show(
    model: Annotated[str, typer.Argument(help="Id, or its beginning.")],
    config: ConfigOption = None,
    directory: DirectoryOption = None,
) -> None:
    """Check a model and print its card and its ancestors."""
    from bot.commands.model_tables import show_model

    show_model(settings_of(config, directory).storage, model)


@app.command(epilog=EPILOG)
@told
def diff(
    first: Annotated[str, typer.Argument(help="Id, or its beginning.")],
    second: Annotated[str, typer.Argument(help="The other one.")],
    config: ConfigOption = None,
    directory: DirectoryOption = None,
) -> None:
    """Print what differs between two models."""
    from bot.commands.model_tables import diff_models

    diff_models(settings_of(config, directory).storage, first, second)


@app.command(epilog=EPILOG)
@told
def rollback(config: ConfigOption = None, directory: DirectoryOption = None) -> None:
    """Make the champion before the current one current again: the next start on Bybit begins with it."""
    from bot.commands.model_tables import roll_back

    roll_back(settings_of(config, directory).storage)
