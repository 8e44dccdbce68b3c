"""A real listing of 2025, from its first bar, with a model that knows nothing of what came after it."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bot.core.types import DAY_MS
from bot.storage.database import Database
from strategies.learning.registry import ModelCard
from tests.test_paper import SMALL

KLINES = Path(__file__).parents[2] / "shared" / "data" / "klines" / "binance-usdm"
TOKEN = "MUSDT"
EARLIER = ("BERAUSDT", "LAYERUSDT")
DAYS = 7


@pytest.mark.skipif(not KLINES.exists(), reason=f"recorded market data is not at {KLINES}")
@pytest.mark.slow
def test_a_token_listed_in_2025_runs_from_its_first_bar(tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text(SMALL.split("[gate]", maxsplit=1)[0])  # the gate as shipped
    folder = tmp_path / "bars"
    folder.mkdir()
    for name in ("BTCUSDT", "ETHUSDT", TOKEN, *EARLIER):
        (folder / name).symlink_to(KLINES / name)
    command = [sys.executable, "-m", "bot", "backtest", "--data", str(folder), "--tokens", TOKEN]
    command += ["--days", str(DAYS), "--config", str(config), "--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr

    with Database.open(tmp_path / "bot.sqlite", readonly=True) as database:
        run = database.latest("backtest")
        assert run is not None
        assert not run.simulated
        decisions = database.frame(run.id, "decisions")
        labels = database.frame(run.id, "labels")
        candidates = database.candidates(run.id)
        fills = database.frame(run.id, "fills")
    assert run.end_ts - run.start_ts == DAYS * DAY_MS
    cards = [
        msgspec.json.decode(path.read_bytes(), type=ModelCard)
        for path in (tmp_path / "models").glob("*.json")
    ]
    pretrained = [card for card in cards if card.kind == "pretrained"]
    assert [card.until for card in pretrained] == [run.start_ts]
    assert candidates
    assert len(decisions) > 300
    assert (labels["ts"] > labels["t_entry"]).all()
    assert labels["outcome"].mean() == pytest.approx(0.5, abs=0.15)
    assert len(fills) == 0, "no model earns the right to trade within a week"
    assert "RECORDED MARKET" in done.stdout
    inferred = "instrument filters inferred for 1 token"
    assert f"Note: {inferred}" in done.stdout
    assert inferred in (tmp_path / "reports" / "backtest-1.html").read_text()

    command = [sys.executable, "-m", "bot", "report", "--listings", str(folder), "--directory", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert told.returncode == 0, told.stderr
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in told.stdout.splitlines() if "|" in line
    ]
    found = {(row[0], row[1]): row for row in rows[2:]}
    for age in ("all", "3-7"):
        for arm in ("frozen", "chain", "adapted", "scratch", "ensemble", "as decided", "pooled trees"):
            assert (arm, age) in found, told.stdout
            assert float(found[arm, age][4].split()[0]) == pytest.approx(50, abs=15)
        assert found["always short", age][5] == ""
    assert "0 entries at" in told.stdout
