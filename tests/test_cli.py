"""The command line: what it refuses, and in what words."""

import errno
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bot.cli import app
from bot.storage.survey import FUNDING_FOLDER


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.mark.parametrize("command", [[], ["paper"], ["backtest"], ["pretrain"], ["report"], ["study"]])
def test_help_tells_the_exit_codes(command: list[str]) -> None:
    told = invoke(*command, "--help")
    assert told.exit_code == 0
    assert "2 wrong usage or configuration" in told.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paper", "--data", "bars"], "need a recorded market"),
        (["backtest", "--tokens", "NEWUSDT"], "need a recorded market"),
        (["paper", "--market", "recorded"], "needs --data FOLDER"),
        (["backtest", "--data", "bars", "--seed", "3"], "recorded bars have none"),
        (["backtest", "--data", "bars", "--tokens", " ,"], "names none"),
        (["pretrain", "--data", "bars", "--seed", "3"], "with --data there is none"),
        (["backtest", "--data", "bars", "--start", "2025-13-01"], "write YYYY-MM-DD"),
        (["paper", "--days", "0"], "--days"),
        (["study"], "--data"),
        (["study", "--data", "bars", "--days", "60"], "such as 3-60"),
        (["study", "--data", "bars", "--days", "9-3"], "such as 3-60"),
        (["study", "--data", "bars", "--arms", "oracle"], "no arm oracle"),
        (["study", "--data", "bars", "--interval", "7m"], "choose from 1m"),
        (["study", "--data", "bars", "--foundation", "foo=x"], "no forecaster 'foo'"),
        (["study", "--data", "bars", "--foundation", "frozen=x"], "no forecaster 'frozen'"),
        (["study", "--data", "bars", "--foundation", "lag_llama=x"], "checkpoints are pickles"),
        (["report", "0"], "run"),
        (["paper", "--url", "http://127.0.0.1:8899"], "give --market bybit"),
        (["paper", "--environment", "testnet"], "give --market bybit"),
        (["instruments", "--url", "http://127.0.0.1:8899", "-e", "testnet"], "leave --environment away"),
        (["paper", "--market", "bybit", "--data", "bars", "--seed", "3"], "which is live: --data, --seed"),
        (["paper", "--config", "nowhere.toml"], "no such configuration file"),
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(arguments: list[str], message: str) -> None:
    told = invoke(*arguments)
    assert told.exit_code == 2
    assert message in told.output


def test_a_folder_without_bars_is_named_with_what_belongs_there(tmp_path: Path) -> None:
    told = invoke("backtest", "--data", str(tmp_path))
    assert told.exit_code == 2
    assert str(tmp_path) in told.output
    assert "SYMBOL/15m.parquet" in told.output


@pytest.mark.parametrize("command", [["backtest"], ["paper", "--market", "recorded"]])
def test_funding_rates_are_found_where_a_download_puts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(f"bot.app.run_{command[0]}", lambda _, recorded, **__: asked.append(recorded))
    arguments = [*command, "--data", str(tmp_path)]
    invoke(*arguments)
    (tmp_path / FUNDING_FOLDER).mkdir()
    invoke(*arguments)
    invoke(*arguments, "--funding", "elsewhere")
    assert [one["funding"] for one in asked] == [None, tmp_path / "funding", Path("elsewhere")]


def test_a_misspelt_variable_is_told_before_anything_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_RIKS__STOP", "0.01")
    told = invoke("paper")
    assert told.exit_code == 2
    assert "did you mean BOT_RISK__STOP?" in told.output


def test_an_operating_system_that_refuses_is_a_failure_while_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bot.app.run_report", full)
    told = invoke("report")
    assert told.exit_code == 4
    assert "No space left on device" in told.output
