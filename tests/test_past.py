"""The past of a live run: what one token lacks keeps nobody from trading, and the bot from guarding."""

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bot.core.errors import DataError
from bot.core.types import MINUTE_MS
from bot.exchange.bybit.environment import local
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.translate import instrument
from bot.live.past import Past, download_past
from bot.market.bars import BarTable
from bot.settings import Settings
from bot.storage import barfiles
from tests.local_exchange import local_exchange
from tests.test_care import with_a_token

BAR = 15 * MINUTE_MS
NAMES = ("BTCUSDT", "ETHUSDT", "NEWUSDT")


def bars(symbol: str, launch: int, now: int) -> BarTable:
    start = np.arange(launch + -launch % BAR, now - BAR, BAR, dtype=np.int64)
    one = np.ones(len(start))
    return BarTable(symbol, BAR, start, one, one, one, one, one, one)


def past_of(directory: Path, damaged: str) -> tuple[Past, str]:
    out = io.StringIO()

    async def download() -> Past:
        rest = Rest(local(exchange.url))
        await rest.measure_clock()
        followed = [instrument(info) for info in await rest.market.instruments()]
        try:
            return await download_past(Settings(), rest, directory, followed, Console(file=out, width=300))
        finally:
            rest.close()

    with local_exchange(with_a_token) as exchange:
        now = exchange.venue.world.now
        for name in NAMES:
            launch = exchange.venue.world.listed[name].contract.instrument.launch_time
            barfiles.write(directory, bars(name, launch, now))
        barfiles.path_of(directory, damaged, BAR).write_bytes(b"not parquet")
        return asyncio.run(download()), out.getvalue()


def test_a_token_whose_past_is_damaged_begins_without_one_and_the_others_do_not_wait(tmp_path: Path) -> None:
    past, told = past_of(tmp_path, "NEWUSDT")
    assert past.ends.keys() == {"BTCUSDT", "ETHUSDT"}
    assert "NEWUSDT begins without a past" in told
    assert "delete" in told


def test_without_the_past_of_a_source_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ETHUSDT"):
        past_of(tmp_path, "ETHUSDT")
