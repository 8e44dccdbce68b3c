"""`bot trade`, `bot paper --market bybit` and `bot rehearse`, whole, against the local exchange."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bot.cli import app
from bot.storage.database import Database
from tests.local_exchange import local_exchange
from tests.test_paper import SMALL

SETTINGS = f"""{SMALL}
[bybit]
newest_days = 4
history_days = 20
"""
BOT = [sys.executable, "-m", "bot"]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--mode", "live"], "confirm with --i-accept-real-money"),
        (["--mode", "live", "--i-accept-real-money"], "set BOT_LIVE_API_KEY and BOT_LIVE_API_SECRET"),
        (["--mode", "testnet"], "set BOT_TESTNET_API_KEY and BOT_TESTNET_API_SECRET"),
        (["--mode", "demo", "--region", "eu"], "--region is for --mode live"),
        (["--mode", "live", "--url", "http://127.0.0.1:1"], "take --mode testnet with it"),
        (["--mode", "live", "--region", "mars", "--i-accept-real-money"], "no environment 'mainnet-mars'"),
        (["--mode", "testnet", "--url", "https://example.com"], "a local exchange is"),
    ],
)
def test_mistakes_are_told_before_anything_is_sent(arguments: list[str], hint: str) -> None:
    result = CliRunner().invoke(app, ["trade", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert hint in result.output


def test_an_exchange_that_is_not_there_is_told(tmp_path: Path) -> None:
    arguments = ["trade", "--mode", "testnet", "--url", "http://127.0.0.1:9", "--directory", str(tmp_path)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    assert result.exit_code == 4
    assert "Traceback" not in result.output
    assert "local, http://127.0.0.1:9: is `bot exchange` running there?" in result.output


def test_a_key_that_the_exchange_does_not_know_ends_with_the_exit_code_that_no_restart_follows(
    tmp_path: Path,
) -> None:
    with local_exchange(manual=False) as running:
        arguments = ["trade", "--mode", "testnet", "--url", running.url, "--directory", str(tmp_path)]
        keys = {"BOT_LOCAL_API_KEY": "nobody", "BOT_LOCAL_API_SECRET": "knows"}
        result = CliRunner().invoke(app, arguments, env={**keys, "COLUMNS": "200"})
    assert result.exit_code == 2
    assert "[[exchange.accounts]]" in result.output


@pytest.fixture(scope="module")
def exchange() -> Iterator[str]:
    process = subprocess.Popen([*BOT, "exchange", "--port", "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    assert found is not None
    yield found.group()
    process.terminate()
    process.wait(10)


def run_until(text: str, *arguments: str, home: Path, seconds: float = 400.0) -> tuple[int, str]:
    """Run a command, stop it with Ctrl-C when it has said `text`; exit code and output."""
    process = subprocess.Popen(
        [*BOT, *arguments, "--config", str(home / "small.toml"), "--directory", str(home / "var")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip
    assert process.stdout is not None
    lines, end = [], time.monotonic() + seconds
    for line in process.stdout:
        lines.append(line)
        if text in line:
            process.send_signal(signal.SIGINT)
            break
        assert time.monotonic() < end, "".join(lines)
    lines += process.stdout.readlines()
    return process.wait(30), "".join(lines)


@pytest.mark.campaign
def test_the_daemon_trades_on_the_local_exchange_and_its_second_start_knows_the_first(
    exchange: str, tmp_path: Path
) -> None:
    (tmp_path / "small.toml").write_text(SETTINGS)
    caught_up = "entries no longer wait for: feed"
    code, out = run_until(caught_up, "trade", "--mode", "testnet", "--url", exchange, home=tmp_path)
    assert code == 0, out
    assert "Replaying" in out
    assert "Our books equal the exchange's" in out
    code, out = run_until(caught_up, "paper", "--market", "bybit", "--url", exchange, home=tmp_path)
    assert code == 0, out
    assert "has seen BTCUSDT and ETHUSDT until" in out, "it begins with the model of the first start"
    with Database.open(tmp_path / "var" / "bot.sqlite", readonly=True) as database:
        assert [(run.kind, run.state) for run in database.runs()] == [
            ("testnet", "finished"),
            ("paper", "finished"),
        ]


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param([], marks=pytest.mark.campaign, id="rest"),
        pytest.param(["--websocket"], marks=pytest.mark.slow, id="websocket"),  # it waits more than it works
    ],
)
def test_a_rehearsal_through_a_restart_ends_with_equal_books(tmp_path: Path, entry: list[str]) -> None:
    done = subprocess.run(
        [*BOT, "rehearse", "--minutes", "2.2", "--restarts", "1", "--directory", str(tmp_path), *entry],
        capture_output=True, text=True, timeout=200, check=False, env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The exchange restarts (1 of 1)" in done.stdout
    streams = ["market", "private", *(["order entry"] if entry else [])]
    assert [name for name in streams if f"frames of the {name} stream" not in done.stdout] == []
    assert "Our books equal the exchange's" in done.stdout
    with Database.open(tmp_path / "rehearsal.sqlite", readonly=True) as database:
        (run,) = database.runs()
        assert run.state == "finished"
        assert len(database.frame(run.id, "fills"))


@pytest.mark.campaign
def test_a_person_holds_the_daemon_and_its_next_start_and_kills_it(exchange: str, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SETTINGS)
    home = ["--config", str(tmp_path / "small.toml"), "--directory", str(tmp_path / "var")]
    caught_up = "entries no longer wait for: feed"

    def person(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [*BOT, *arguments, *home], capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "COLUMNS": "160"},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def until_caught_up() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [*BOT, "trade", "--mode", "testnet", "--url", exchange, *home],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "COLUMNS": "160"},
        )  # fmt: skip
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if caught_up in line:
                break
        return process, "".join(lines)

    process, out = until_caught_up()
    assert process.poll() is None, out
    assert person("status")[0] == 0
    assert "paused: no entries" in person("pause", "--reason", "lunch")[1]
    code, out = person("status")
    assert (code, "testnet: alive, trading" in out, "lunch" in out) == (1, True, True), out
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(12) == 0
    assert time.monotonic() - asked < 10
    assert person("status")[0] == 3
    process, out = until_caught_up()
    assert "pause by " in out, out
    assert "entries allowed" in person("resume")[1]
    assert "stopped; 0 positions keep their stops" in person("kill")[1]
    assert process.wait(12) == 5
    code, out = person("trade", "--mode", "testnet", "--url", exchange)
    hint = f"`bot resume --mode testnet --directory {tmp_path / 'var'}` lets it start again"
    assert (code, hint in out) == (5, True), out
    code, out = person("flatten", "--mode", "testnet", "--url", exchange)
    assert (code, "flat: 0 positions closed" in out) == (0, True), out
