"""Downloads: every bar once, whatever happens on the way, in files that are checked."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from bot.core.errors import DataError, UsageError
from bot.core.types import DAY_MS, HOUR_MS, MINUTE_MS
from bot.exchange import recorded_instruments
from bot.exchange.bybit.download import BarDownload, FundingDownload, contracts, missing_ranges
from bot.exchange.bybit.errors import ExchangeError
from bot.exchange.bybit.rest import Rest
from bot.storage import barfiles
from bot.storage.survey import survey
from tests.bybit_server import RestServer, envelope

BAR = 15 * MINUTE_MS
LAUNCH = 1_735_689_600_000  # 2025-01-01
SYMBOL = "NEWUSDT"
BARS = 3_300  # of history: four pages of klines
NOW = LAUNCH + BARS * BAR + 1  # the exchange's time: the bar after the last is open
KLINE, FUNDING = "/v5/market/kline", "/v5/market/funding/history"


class History:
    """A server's past; `fail_after` pages it answers with an error, `holes` were never traded."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, int]] = []
        self.fail_after: int | None = None
        self.holes: set[int] = set()
        self.slow = 0.0
        self.third_request = asyncio.Event()

    async def klines(self, request: web.Request) -> web.StreamResponse:
        start, end, limit = (int(request.query[name]) for name in ("start", "end", "limit"))
        if self.fail_after is not None and len(self.requests) >= self.fail_after:
            return web.json_response(envelope({}, 10010, "Unmatched IP", time=NOW))
        self.requests.append((start, end))
        if len(self.requests) == 3:
            self.third_request.set()
        await asyncio.sleep(self.slow)
        first = max(start + -start % BAR, LAUNCH)
        opens = [ts for ts in range(first, min(end, NOW) + 1, BAR) if ts not in self.holes]
        rows = [kline(ts) for ts in reversed(opens[-limit:])]
        return web.json_response(envelope({"symbol": SYMBOL, "list": rows}, time=NOW))

    async def funding(self, request: web.Request) -> web.StreamResponse:
        start, end = int(request.query["startTime"]), int(request.query["endTime"])
        self.requests.append((start, end))
        times = [ts for ts in range(LAUNCH, NOW, 8 * HOUR_MS) if start <= ts <= end]
        rates = [
            {"symbol": SYMBOL, "fundingRate": "0.0001", "fundingRateTimestamp": str(ts)}
            for ts in reversed(times[-200:])
        ]
        return web.json_response(envelope({"list": rates}, time=NOW))


def kline(ts: int) -> list[str]:
    price = 100 + (ts - LAUNCH) // BAR % 7
    return [str(ts), str(price), str(price + 1), str(price - 1), str(price + 0.5), "10", "1000"]


def contract(symbol: str = SYMBOL) -> dict[str, Any]:
    return {
        "symbol": symbol, "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": "NEW",
        "quoteCoin": "USDT", "settleCoin": "USDT", "launchTime": str(LAUNCH), "fundingInterval": 480,
        "priceFilter": {"tickSize": "0.0000001", "minPrice": "0.01", "maxPrice": "1000"},
        "lotSizeFilter": {"qtyStep": "0.1", "minOrderQty": "0.1", "maxOrderQty": "1000",
                          "maxMktOrderQty": "500", "minNotionalValue": "5"},
    }  # fmt: skip


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
async def server(history: History) -> AsyncIterator[RestServer]:
    async with RestServer() as running:
        running.will_act(KLINE, history.klines)
        running.will_act(FUNDING, history.funding)
        running.will("/v5/market/time", {"timeSecond": str(NOW // 1_000), "timeNano": f"{NOW}000000"})
        running.will("/v5/market/instruments-info", {"category": "linear", "list": [contract()]})
        running.will(
            "/v5/market/tickers",
            {"category": "linear", "list": [{"symbol": SYMBOL, "lastPrice": "1", "turnover24h": "1234567"}]},
        )
        yield running


@pytest.fixture
async def rest(server: RestServer) -> AsyncIterator[Rest]:
    client = Rest(server.environment)
    yield client
    client.close()


def nothing(_: int) -> None:
    pass


def bars(rest: Rest, directory: Path, since: int = LAUNCH, until: int = NOW) -> BarDownload:
    return BarDownload(rest.market, directory, SYMBOL, BAR, since, until)


async def test_every_closed_bar_is_written_once_and_no_open_one(rest: Rest, tmp_path: Path) -> None:
    covered = 0

    def advanced(span: int) -> None:
        nonlocal covered
        covered += span

    download = bars(rest, tmp_path)
    table = await download.run(advanced)
    assert table is not None
    assert table.start.tolist() == [LAUNCH + n * BAR for n in range(BARS)]
    assert table.close[3] == 103.5
    assert covered == download.span
    assert barfiles.read(tmp_path / SYMBOL / "15m.parquet").start.tolist() == table.start.tolist()


async def test_a_failed_download_keeps_what_came_and_the_next_asks_only_for_the_rest(
    rest: Rest, history: History, tmp_path: Path
) -> None:
    history.fail_after = 2
    with pytest.raises(ExchangeError):
        await bars(rest, tmp_path).run(nothing)
    assert len(barfiles.read(tmp_path / SYMBOL / "15m.parquet")) == 2_000
    history.fail_after = None
    history.requests.clear()
    table = await bars(rest, tmp_path).run(nothing)
    assert table is not None
    assert len(table) == BARS
    assert history.requests[0][0] == LAUNCH + 2_000 * BAR
    history.requests.clear()
    await bars(rest, tmp_path, until=NOW - 1).run(nothing)
    assert history.requests == []


async def test_older_bars_and_holes_are_asked_for_again(rest: Rest, history: History, tmp_path: Path) -> None:
    hole = LAUNCH + 2_500 * BAR
    history.holes = {hole}
    await bars(rest, tmp_path, since=LAUNCH + 1_000 * BAR).run(nothing)
    history.holes = set()
    table = await bars(rest, tmp_path).run(nothing)
    assert table is not None
    assert len(table) == BARS
    assert (hole, hole + BAR - 1) in history.requests


def test_missing_ranges_are_what_the_file_lacks() -> None:
    starts = np.array([20, 30, 60], np.int64)
    assert missing_ranges(starts, 10, 0, 100) == [(0, 20), (40, 60), (70, 100)]
    assert missing_ranges(starts, 10, 15, 70) == [(40, 60)]
    assert missing_ranges(starts[:0], 10, 5, 30) == [(10, 30)]
    assert missing_ranges(starts, 10, 200, 200) == []


async def test_a_broken_file_is_refused_and_left_as_it_is(rest: Rest, tmp_path: Path) -> None:
    path = tmp_path / SYMBOL / "15m.parquet"
    path.parent.mkdir()
    path.write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"not a readable Parquet file \(.*\); delete it and download"):
        bars(rest, tmp_path)
    assert path.read_bytes() == b"not parquet"


async def test_a_bar_that_cannot_be_is_left_out_as_a_gap_and_counted(
    rest: Rest, history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = LAUNCH + 1_500 * BAR
    monkeypatch.setitem(globals(), "kline", lambda ts: _bad(ts) if ts == bad else _good(ts))
    download = bars(rest, tmp_path)
    await download.run(nothing)
    assert download.refused == 1
    table = barfiles.read(tmp_path / SYMBOL / "15m.parquet")
    assert set(range(LAUNCH, NOW // BAR * BAR, BAR)) - set(table.start.tolist()) == {bad}


def _good(ts: int) -> list[str]:
    return [str(ts), "100", "101", "99", "100", "1", "100"]


def _bad(ts: int) -> list[str]:
    return [str(ts), "100", "99", "98", "100", "1", "100"]


async def test_funding_rates_are_complete_and_resumed(rest: Rest, history: History, tmp_path: Path) -> None:
    def funding(until: int) -> FundingDownload:
        return FundingDownload(rest.market, tmp_path, SYMBOL, LAUNCH, until, 8 * HOUR_MS)

    half = await funding(LAUNCH + 10 * DAY_MS).run(nothing)
    assert half is not None
    assert len(half) == 30
    history.requests.clear()
    whole = await funding(NOW).run(nothing)
    assert whole is not None
    assert whole.ts.tolist() == list(range(LAUNCH, NOW, 8 * HOUR_MS))
    assert history.requests[0][0] == half.ts[-1] + 1


async def test_an_unknown_symbol_is_told_with_the_nearest(rest: Rest) -> None:
    with pytest.raises(UsageError, match="does not list NEVUSDT; did you mean NEWUSDT"):
        await contracts(rest.market, ["NEVUSDT"])


# --- the commands -----------------------------------------------------------------------------------------


async def bot(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_download_then_check_then_instruments(server: RestServer, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.port}"
    code, out, err = await bot(
        "data", "download", "newusdt", "--since", "2024-12-30", "--data", str(tmp_path), "--url", url
    )
    assert (code, err) == (0, "")
    assert f"NEWUSDT 15m: {BARS:,} rows, 2025-01-01 00:00" in out
    code, out, err = await bot("data", "check", str(tmp_path))
    assert code == 0
    assert "2 files, all good" in out
    code, out, err = await bot("instruments", "--write", str(tmp_path), "--url", url)
    assert code == 0
    row = next(cells for line in out.splitlines() if (cells := line.split("\t"))[0] == SYMBOL)
    assert (row[3], row[-1]) == ("0.0000001", "1,234,567")
    code, out, err = await bot("instruments", SYMBOL, "NOPEUSDT", "--url", url)
    assert (code, SYMBOL in out) == (2, True)
    assert "does not list NOPEUSDT" in err
    assert recorded_instruments.load(tmp_path)[SYMBOL].qty_step == recorded_instruments.Decimal("0.1")


async def test_ctrl_c_loses_nothing(server: RestServer, history: History, tmp_path: Path) -> None:
    history.slow = 0.4
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "data", "download", SYMBOL, "--since", "2025-01-01",
        "--data", str(tmp_path), "--url", f"http://127.0.0.1:{server.port}",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(20):
        await history.third_request.wait()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")
    assert len(barfiles.read(tmp_path / SYMBOL / "15m.parquet")) >= 2_000


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["X", "--interval", "7m"], "take one of 1m"),
        (["X", "--since", "yesterday"], "write YYYY-MM-DD"),
        (["X", "--environment", "mars"], "no environment 'mars'"),
        (["X", "--url", "http://example.com"], "a local exchange is http://127.0.0.1:PORT"),
    ],
)
async def test_mistakes_are_told_with_what_to_do(arguments: list[str], hint: str) -> None:
    code, _, err = await bot("data", "download", *arguments)
    assert code == 2
    assert hint in err
    assert "Traceback" not in err


async def test_a_file_that_breaks_a_rule_is_named_and_ends_with_code_3(rest: Rest, tmp_path: Path) -> None:
    await bars(rest, tmp_path).run(nothing)
    (tmp_path / "OLDUSDT").mkdir()
    (tmp_path / "OLDUSDT" / "15m.parquet").write_bytes(b"x")
    (tmp_path / "instruments.json").write_text(json.dumps({"NEWUSDT": {"tick_size": "0"}}))
    code, out, err = await bot("data", "check", str(tmp_path))
    assert code == 3
    assert "OLDUSDT/15m.parquet" in err.replace("\n", "")
    assert "instruments.json" in err
    assert "good" in out


def test_an_empty_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no <SYMBOL>"):
        list(survey(tmp_path))


async def test_a_survey_counts_gaps(rest: Rest, history: History, tmp_path: Path) -> None:
    history.holes = {LAUNCH + n * BAR for n in (10, 11, 50)}
    await bars(rest, tmp_path).run(nothing)
    (finding,) = survey(tmp_path)
    assert (finding.rows, finding.gaps, finding.missing) == (BARS - 3, 2, 3)
    assert finding.longest_gap == 2 * BAR
    code, out, _ = await bot("data", "check", str(tmp_path))
    assert code == 0
    assert "has gaps" in out
    assert "1 with gaps, across which nothing is learnt" in out
