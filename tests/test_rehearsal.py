"""`bot rehearse` and the exchange that it starts."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bot.core.errors import RuntimeFault
from bot.exchange.bybit.environment import credentials, local
from bot.exchange.bybit.rest import Rest
from bot.rehearsal import local_exchange
from bot.settings import Exchange, ExchangeAccount, Market, Settings

BOT = [sys.executable, "-m", "bot"]
SETTINGS = Settings(
    market=Market(sources=("SOLUSDT", "XRPUSDT")),
    exchange=Exchange(accounts=(ExchangeAccount(key="other", secret="other-secret", balance=777.0),)),
)


async def test_the_exchange_is_that_of_the_run_and_not_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_EXCHANGE__RATE_LIMIT_SCALE", "nonsense")
    async with local_exchange(SETTINGS, 7) as exchange:
        environment = local(exchange.url)
        rest = Rest(environment, credentials(environment, {}))
        try:
            await rest.measure_clock()
            listed = {item.symbol for item in await rest.market.instruments()}
            wallet = await rest.account.wallet()
        finally:
            rest.close()
    assert {"SOLUSDT", "XRPUSDT"} <= listed
    assert "BTCUSDT" not in listed
    assert wallet.total_equity == 777


async def test_an_exchange_that_dies_is_told() -> None:
    async with local_exchange(SETTINGS, 7) as exchange:
        exchange.process.kill()
        with pytest.raises(RuntimeFault, match=r"ended on its own \(exit code -9\)"):
            await exchange.until_it_dies()


def test_a_rehearsal_whose_exchange_dies_ends_and_says_so(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*BOT, "rehearse", "--minutes", "5", "--directory", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip
    assert process.stdout is not None
    assert any("LATEUSDT listed" in line for line in process.stdout), "it is under way"
    os.kill(_child_of(process.pid), signal.SIGKILL)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 4, told
    assert "the local exchange ended on its own" in told
    assert "Traceback" not in told


def _child_of(parent: int) -> int:
    (child,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return int(child)
