"""Whole runs through the command line: two commands, one engine, nothing lost."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from bot.storage.database import Database

BOT = [sys.executable, "-m", "bot"]
SMALL = """
[simulation]
days = 8
history_days = 70
[model]
channels = 16
blocks = 4
embedding = 16
epochs = 10
min_source_bars = 500
[adaptation]
first_bars = 96
every_bars = 96
steps = 5
gentle_steps = 5
chain_labels = 10
chain_tail_days = 1
chain_every_days = 1
chain_steps = 5
[gate]
similarity = 0.01
effective_labels = 1
evidence = 1.00001
full_evidence = 1.1
source_accuracy = 0.500001
confidence = 0.501
overconfidence = 1
drift_blocks = 500
probation_blocks = 2
[risk]
min_move_costs = 0
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a finished paper run of a small, credulous bot: it trades on little evidence."""
    directory = tmp_path_factory.mktemp("home")
    (directory / "small.toml").write_text(SMALL)
    done = bot(directory, "paper")
    assert done.returncode == 0, done.stderr
    return directory


def bot(home: Path, *arguments: str, directory: str = "var") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(home, *arguments, directory=directory),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def command(home: Path, *arguments: str, directory: str = "var") -> list[str]:
    config = [] if arguments[0] == "report" else ["--config", str(home / "small.toml")]
    return [*BOT, *arguments, *config, "--directory", str(home / directory)]


def commands_of(home: Path, kind: str, directory: str = "var") -> list[bytes]:
    with Database.open(home / directory / "bot.sqlite", readonly=True) as database:
        run = database.latest(kind)
        assert run is not None
        return database.commands(run.id)


def decisions_of(home: Path, kind: str, directory: str) -> pd.DataFrame:
    with Database.open(home / directory / "bot.sqlite", readonly=True) as database:
        run = database.latest(kind)
        assert run is not None
        return database.frame(run.id, "decisions")


def test_a_paper_run_trades_and_leaves_a_report(home: Path) -> None:
    orders = [body for body in commands_of(home, "paper") if b'"PlaceOrder"' in body]
    assert orders
    assert any(b'"ExtendChain"' in body for body in commands_of(home, "paper"))
    report = (home / "var" / "reports" / "paper-1.html").read_text()
    assert "SIMULATED MARKET" in report
    said = bot(home, "status")
    assert (said.returncode, "paper: finished" in said.stdout) == (0, True)
    assert "https://" not in report.split("<body", 1)[1].split("<script", 1)[0]


def test_backtest_and_paper_give_the_same_commands_byte_for_byte(home: Path) -> None:
    done = bot(home, "backtest")
    assert done.returncode == 0, done.stderr
    assert "kept from an earlier run" in done.stdout
    assert commands_of(home, "backtest") == commands_of(home, "paper")


def test_dropping_the_future_changes_no_decision(home: Path) -> None:
    done = bot(home, "backtest", "--days", "7", directory="shorter")
    assert done.returncode == 0, done.stderr
    short, long = decisions_of(home, "backtest", "shorter"), decisions_of(home, "paper", "var")
    assert len(short) > 300
    pd.testing.assert_frame_equal(short, long.iloc[: len(short)])


def test_a_finished_run_is_shown_and_not_run_again_but_its_lost_report_is_written(home: Path) -> None:
    report = home / "var" / "reports" / "paper-1.html"
    report.unlink()  # as Ctrl-C or a full disk at the end would have it
    done = bot(home, "paper")
    assert done.returncode == 0
    assert "is finished" in done.stdout
    assert "--fresh" in done.stdout
    assert "SIMULATED MARKET" in report.read_text()
    written = report.stat().st_mtime_ns
    bot(home, "paper")
    assert report.stat().st_mtime_ns == written


def test_a_report_can_be_written_again(home: Path) -> None:
    path = home / "again.html"
    done = bot(home, "report", "--output", str(path))
    assert done.returncode == 0, done.stderr
    assert path.stat().st_size > 100_000


def test_other_settings_do_not_continue_a_stored_run(home: Path) -> None:
    environment = {**os.environ, "BOT_RISK__STOP": "0.01"}
    done = subprocess.run(
        command(home, "paper"), capture_output=True, text=True, env=environment, timeout=600, check=False
    )
    assert done.returncode == 2
    assert "run 1 of this market is finished, and was made with other settings" in done.stderr
    assert "risk.stop: 0.015 -> 0.01" in done.stderr
    assert "--fresh (make fresh), or undo the change to see it" in done.stderr
    assert "Traceback" not in done.stderr
    done = bot(home, "paper", "--days", "40")
    assert done.returncode == 2
    days = re.search(r"simulation\.days: (\d+) -> 40", done.stderr)
    assert days is not None
    assert f"type `bot paper --days {days[1]} --directory {home / 'var'}` to see it" in done.stderr


def test_a_damaged_replay_file_is_made_again_from_the_bars(home: Path) -> None:
    """And the same bits come out: what was learnt before stays valid."""
    (path,) = (home / "var" / "models" / "simulated").glob("replay-*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    done = bot(home, "pretrain")
    assert done.returncode == 0, done.stderr
    assert '"method": "supervised"' in done.stdout
    assert "kept from an earlier run" not in done.stdout
    assert path.read_bytes() == whole
    assert "kept from an earlier run" in bot(home, "pretrain").stdout


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        signal.SIGKILL,
    ],
)
def test_a_run_that_was_stopped_or_killed_goes_on_to_the_same_end(home: Path, how: signal.Signals) -> None:
    where = f"stopped-{how.name}"
    keep_the_source_model(home, where)
    process = subprocess.Popen(
        command(home, "paper", directory=where), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_a_candidate(home / where, process)
    asked = time.monotonic()
    process.send_signal(how)
    _, errors = process.communicate(timeout=30)
    assert "Traceback" not in errors
    if how is not signal.SIGKILL:
        assert process.returncode == 130
        assert time.monotonic() - asked < promptly()
    done = bot(home, "paper", directory=where)
    assert done.returncode == 0, done.stderr
    assert "Resuming run 1" in done.stdout
    assert commands_of(home, "paper", where) == commands_of(home, "paper")


@pytest.mark.slow
def test_a_full_disk_is_told_and_no_trade_is_lost(home: Path) -> None:
    keep_the_source_model(home, "full")
    small_files = 'ulimit -f 600; exec "$@"'  # in KiB or half of it, by shell
    done = subprocess.run(
        ["/bin/sh", "-c", small_files, "sh", *command(home, "paper", directory="full")],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "bot.sqlite: the disk" in done.stderr
    assert "Traceback" not in done.stderr
    reports = home / "full" / "reports"
    reports.write_text("no directory")
    done = bot(home, "paper", directory="full")
    assert done.returncode == 4
    assert "the report cannot be written" in done.stderr
    assert "`bot report 1` writes it" in done.stderr
    assert "after fees" in done.stdout
    assert commands_of(home, "paper", "full") == commands_of(home, "paper")
    reports.unlink()
    done = bot(home, "paper", directory="full")
    assert done.returncode == 0, done.stderr
    assert (reports / "paper-1.html").exists()


def keep_the_source_model(home: Path, where: str) -> None:
    models = home / where / "models" / "simulated"
    models.mkdir(parents=True)
    for file in (home / "var" / "models" / "simulated").iterdir():
        if file.name.startswith("replay") or '"pretrained"' in file.with_suffix(".json").read_text():
            (models / file.name).write_bytes(file.read_bytes())


@pytest.mark.parametrize("seconds", [0.0, 0.2, 1.0, 3.0])
def test_ctrl_c_ends_a_run_that_has_not_begun_at_any_moment(
    home: Path, tmp_path: Path, seconds: float
) -> None:
    """While modules are imported, data is read, kernels are compiled (the cache is cold), a child starts."""
    process = subprocess.Popen(
        command(home, "paper", directory=f"early-{seconds}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        start_new_session=True,
    )
    wait_for_its_handlers(process)
    time.sleep(seconds)
    asked = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - asked < promptly()
    assert "Traceback" not in errors
    assert "Stopped" in output + errors


def wait_for_its_handlers(process: subprocess.Popen[str]) -> None:
    """Python itself starts first; what it does with a signal until then is not ours to decide."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        pytest.skip("needs /proc to see when the program has begun")
    caught = 0
    while not caught >> (signal.SIGTERM - 1) & 1:
        assert process.poll() is None, process.communicate()
        caught = int(status.read_text().split("SigCgt:")[1].split()[0], 16)
        time.sleep(0.002)


def promptly() -> float:
    """Seconds in which a stop must end a run: two, where the machine has a core to spare for it."""
    return 2.0 if os.getloadavg()[0] < (os.cpu_count() or 1) else 6.0


def wait_for_a_candidate(directory: Path, process: subprocess.Popen[str]) -> None:
    """Until the run has stored the result of an adaptation, so that something is there to resume."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        path = directory / "bot.sqlite"
        if path.exists():
            try:
                with Database.open(path, readonly=True) as database:
                    if (run := database.latest("paper")) and database.candidates(run.id):
                        return
            except Exception:
                pass
        time.sleep(0.05)
    raise AssertionError("no candidate came")


@pytest.mark.slow
def test_a_person_holds_a_running_bot_from_elsewhere_and_the_killed_run_goes_on_after_resume(
    home: Path,
) -> None:
    where = "held"
    keep_the_source_model(home, where)
    process = subprocess.Popen(
        [*command(home, "paper", directory=where), "--speed", "6000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_a_candidate(home / where, process)
    assert bot(home, "status", directory=where).returncode == 0
    done = bot(home, "flatten", "--reason", "lunch", directory=where)
    assert done.returncode == 0, done.stderr
    assert "flat; no entries before `bot resume`" in done.stdout
    held = bot(home, "status", directory=where)
    assert held.returncode == 1
    assert "held by flatten" in held.stdout
    assert "0 positions" in held.stdout
    assert "entries allowed" in bot(home, "resume", directory=where).stdout
    done = bot(home, "kill", directory=where)
    assert "keep their stops" in done.stdout, done.stdout + done.stderr
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 5, errors
    refused = bot(home, "paper", directory=where)
    hint = f"`bot resume --mode paper --directory {home / where}` lets it start again"
    assert (refused.returncode, hint in refused.stderr) == (5, True)
    assert bot(home, "status", directory=where).returncode == 3
    assert "next start of paper" in bot(home, "resume", directory=where).stdout
    done = bot(home, "paper", directory=where)
    assert done.returncode == 0, done.stderr
    with Database.open(home / where / "bot.sqlite", readonly=True) as database:
        heard = [event.verb for event in database.operator(1)]
        assert heard == ["flatten", "resume", "kill", "resume"]
