"""The market of the local exchange: deterministic, alive, and true to the bars that it was made from."""

import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot.core.errors import DataError
from bot.core.types import DAY_MS, HOUR_MS, MINUTE_MS, Side
from bot.exchange.local import assets
from bot.exchange.local.assets import Asset
from bot.exchange.local.candles import Candles, close_time, open_time, past
from bot.exchange.local.contract import Contract
from bot.exchange.local.faults import Faults
from bot.exchange.local.topics import public_topic
from bot.exchange.local.world import World
from bot.market.bars import BarTable
from bot.storage import barfiles
from tests.local_exchange import two_symbols

NOW = 1_764_000_000_000 + 12_345
SOURCES = ("BTCUSDT", "ETHUSDT")


@pytest.fixture(scope="module")
def drawn() -> list[Asset]:
    return assets.simulated(5, SOURCES, NOW, history_days=2, future_days=1)


def lived(drawn: list[Asset], seconds: int, step: int = 100) -> World:
    world = World(drawn, 5, NOW)
    account = world.engine.add_account(Decimal(100_000), NOW)
    account.watchers = 1
    for number in range(seconds * 1000 // step):
        world.step(NOW + step * (number + 1))
        if number % 40 == 0:
            side = "Buy" if number % 80 else "Sell"
            body = {"symbol": "BTCUSDT", "side": side, "orderType": "Market", "qty": "0.01"}
            world.engine.create(account, body, world.now)
    return world


def story(world: World) -> Any:
    return (
        [(listed.unpublished, listed.market.book.depth(Side.BUY, 50)) for listed in world.listed.values()],
        [(topic, view) for _, topic, view in world.engine.outbox],
        [account.wallet for account in world.engine.accounts],
    )  # fmt: skip


def test_the_same_seed_and_requests_give_the_same_world_to_the_last_id(drawn: list[Asset]) -> None:
    again = assets.simulated(5, SOURCES, NOW, history_days=2, future_days=1)
    assert story(lived(drawn, 20)) == story(lived(again, 20))
    other = assets.simulated(6, SOURCES, NOW, history_days=2, future_days=1)
    assert story(lived(drawn, 1)) != story(lived(other, 1))


def test_the_crowd_quotes_around_the_fair_price_and_never_crosses(drawn: list[Asset]) -> None:
    world = World(drawn, 5, NOW)
    for number in range(600):
        world.step(NOW + 100 * (number + 1))
        for listed in world.listed.values():
            book = listed.market.book
            bid, ask = book.best_price(Side.BUY), book.best_price(Side.SELL)
            if listed.market.is_trading:
                assert bid is not None
                assert ask is not None
                assert bid < listed.market.mark + 1
                assert ask > listed.market.mark - 1
                assert bid < ask
                assert len(book.depth(Side.BUY, 1_000)) > 200
    trading = [listed for listed in world.listed.values() if listed.market.is_trading]
    assert len(trading) == 4
    assert all(listed.unpublished for listed in trading)


def test_what_is_traded_resembles_the_bars_that_it_came_from(drawn: list[Asset]) -> None:
    world = World(drawn, 5, NOW)
    bitcoin = world.listed["BTCUSDT"]
    expected = 0.0
    for number in range(3 * 60 * 5):
        world.step(NOW + 200 * (number + 1))
        expected += bitcoin.asset.path.at(world.now).volume * 200 / float(bitcoin.contract.step)
    for trade in bitcoin.unpublished:
        fair = bitcoin.asset.path.at(trade.ts).price
        price = float(bitcoin.contract.price(trade.price))
        assert abs(price / fair - 1) < 4 * bitcoin.asset.half_spread(trade.ts)
    assert sum(trade.lots for trade in bitcoin.unpublished) == pytest.approx(expected, rel=0.2)


def test_a_token_is_announced_then_launched(drawn: list[Asset]) -> None:
    world = World(drawn, 5, NOW)
    coming = [listed for listed in world.listed.values() if listed.contract.status == "PreLaunch"]
    first = min(coming, key=lambda listed: listed.asset.instrument.launch_time)
    launch = first.asset.instrument.launch_time
    assert launch > NOW
    assert not first.market.book.depth(Side.BUY, 1)
    world.step(launch - 1)
    assert first.contract.status == "PreLaunch"
    world.step(launch)
    assert first.contract.status == "Trading"
    assert first.market.book.depth(Side.BUY, 1)
    assert first.trades.begin == launch // MINUTE_MS * MINUTE_MS


def test_funding_is_paid_at_its_time_and_a_new_rate_is_announced(drawn: list[Asset]) -> None:
    world = World(drawn, 5, NOW)
    account = world.engine.add_account(Decimal(100_000), NOW)
    body = {"symbol": "BTCUSDT", "side": "Buy", "orderType": "Market", "qty": "0.1"}
    world.engine.create(account, body, NOW)
    market = world.listed["BTCUSDT"].market
    due, rate, wallet = market.next_funding, market.funding_rate, account.wallet
    assert due % (8 * HOUR_MS) == 0
    world.step(due - 1)
    assert account.wallet == wallet
    world.step(due)
    paid = Decimal("0.1") * market.contract.price(market.mark) * rate
    assert abs(wallet - account.wallet - paid) < Decimal("1e-7")
    assert world.listed["BTCUSDT"].funding[-1] == (due, rate)
    assert market.next_funding == due + 8 * HOUR_MS


def table(symbol: str, count: int, interval: int, first: int, price: float) -> BarTable:
    rng = np.random.default_rng(1)
    close = np.round(price * np.exp(np.cumsum(rng.standard_normal(count) * 0.001)), 2)
    opened = np.concatenate([[price], close[:-1]])
    high, low = np.maximum(opened, close) + 0.5, np.minimum(opened, close) - 0.5
    start = first + np.arange(count, dtype=np.int64) * interval
    volume = np.full(count, 25.0)
    return BarTable(symbol, interval, start, opened, high, low, close, volume, volume * close)


def test_a_recording_goes_on_from_now_and_ends_as_a_delisting(tmp_path: Path) -> None:
    first = 1_600_000_000_000 // DAY_MS * DAY_MS
    barfiles.write(tmp_path, table("BTCUSDT", 4 * 96, 15 * MINUTE_MS, first, 20_000.0))
    barfiles.write(tmp_path, table("NEWUSDT", 96, 15 * MINUTE_MS, first + 3 * DAY_MS, 50.0))
    listed = assets.recorded(tmp_path, 1, NOW, history_days=2)
    world = World(listed, 1, NOW)
    bitcoin, new = world.listed["BTCUSDT"], world.listed["NEWUSDT"]
    assert (bitcoin.contract.status, new.contract.status) == ("Trading", "PreLaunch")
    assert bitcoin.trades.begin <= NOW - 2 * DAY_MS + 8 * HOUR_MS
    end = bitcoin.contract.delivery_time
    assert NOW < end <= NOW + 2 * DAY_MS + 8 * HOUR_MS
    world.step(new.asset.instrument.launch_time)
    assert new.market.is_trading
    world.step(end)
    assert bitcoin.market.is_closed
    with pytest.raises(DataError, match="shorten exchange"):
        assets.recorded(tmp_path, 1, NOW, history_days=200)
    with pytest.raises(DataError, match="no such directory"):
        assets.recorded(tmp_path / "nowhere", 1, NOW, history_days=2)


def test_candles_are_sums_of_their_minutes(drawn: list[Asset]) -> None:
    history = drawn[0].history
    assert history is not None
    contract = Contract(drawn[0].instrument)
    candles = Candles(past(contract, history), 1, NOW)
    hourly = history.resampled(HOUR_MS)
    for row in candles.select("60", None, NOW - HOUR_MS, 24):
        index = int(np.searchsorted(hourly.start, row.start))
        assert row.open == contract.nearest_ticks(hourly.open[index])
        assert row.high == contract.nearest_ticks(hourly.high[index])
        assert row.close == contract.nearest_ticks(hourly.close[index])
        assert float(contract.quantity(row.volume)) == pytest.approx(hourly.volume[index])


@pytest.mark.parametrize("interval", ["1", "60", "D"])
def test_klines_from_a_bare_start_are_the_oldest_and_with_an_end_the_newest(
    drawn: list[Asset], interval: str
) -> None:
    candles = Candles(past(Contract(drawn[0].instrument), drawn[0].history), 1, NOW)
    rows = candles.select(interval, None, None, 10_000)
    middle = rows[len(rows) // 2].start
    since, until = [row for row in rows if row.start >= middle], [row for row in rows if row.start <= middle]
    assert candles.select(interval, middle, None, 2) == since[-2:]
    assert candles.select(interval, middle - 1, None, 2) == since[-2:]
    assert candles.select(interval, 0, None, 2) == rows[-2:]
    assert candles.select(interval, 0, middle, 2) == until[:2]
    assert candles.select(interval, NOW + DAY_MS, None, 2) == []


@pytest.mark.parametrize("interval", ["1", "15", "240", "D", "W", "M"])
def test_intervals_follow_each_other_without_a_gap(interval: str) -> None:
    start = open_time(interval, NOW)
    assert start <= NOW < close_time(interval, start)
    assert open_time(interval, close_time(interval, start)) == close_time(interval, start)
    assert close_time(interval, open_time(interval, start - 1)) == start


def test_the_command_says_when_it_is_ready_and_ends_when_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bot", "exchange", "--port", "0", "--seed", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("exchange ready on http://127.0.0.1:")
        assert "BTCUSDT, ETHUSDT" in line
        port = line.split(" (")[0].rpartition(":")[2]
        again = [*command[:4], "--port", port]
        taken = subprocess.run(again, capture_output=True, text=True, timeout=60, check=False)
        assert (taken.returncode, f"port {port} cannot be used" in taken.stderr) == (2, True)
        process.terminate()
        assert process.wait(10) == 0


@pytest.mark.parametrize("depth", [1, 50])
def test_whoever_subscribes_later_reads_the_same_book_under_the_same_number(depth: int) -> None:
    world = World(two_symbols(NOW), 1, NOW)
    name = f"orderbook.{depth}.BTCUSDT"
    topic = public_topic(name, world, Faults(1, lambda: 0.0))
    first, told = topic.snapshot(NOW), {}
    assert first is not None
    frames = [first]
    for number in range(1, 30):
        world.move("BTCUSDT", 1.001 if number % 2 else 0.999)
        world.step(NOW + 100 * number)
        late = topic.snapshot(world.now)
        assert late is not None
        changes = list(topic.changes(world.now))
        assert len(changes) == 1  # nothing is kept from those who were there before
        assert changes[0]["data"]["u"] == late["data"]["u"] + 1
        assert changes[0]["data"]["seq"] > late["data"]["seq"]
        after = topic.snapshot(world.now)
        assert after is not None
        assert after["data"]["seq"] == changes[0]["data"]["seq"]
        frames += [late, after] + (changes if depth == 1 else [])
    for frame in frames:
        data = frame["data"]
        assert told.setdefault(data["u"], data) == data
    best = world.listed["BTCUSDT"].market.book.best_price(Side.BUY)
    assert best is not None
    assert frames[-1]["data"]["b"][0][0] == world.listed["BTCUSDT"].contract.price_text(best)
