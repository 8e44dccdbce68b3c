"""What risk is told of market and account: correlations, liquidity, funding times, exposure by cluster."""

import math
from decimal import Decimal

import numpy as np
import pytest
from msgspec.structs import replace

from bot.core.events import (
    FeedRefused,
    FundingRatePublished,
    InstrumentDelisted,
    InstrumentStatusChanged,
    LiquiditySampled,
    MarketHealthChanged,
)
from bot.core.types import DAY_MS, HOUR_MS, Side, TradingStatus
from bot.engine.account_view import AccountView
from bot.engine.market_view import MarketView
from bot.engine.portfolio import Portfolio
from bot.execution.orders import Orders
from bot.market.comovement import Comovement
from bot.settings import Costs, Gate, Risk
from risk.breaker import Breaker
from risk.manager import Approved, RiskManager
from tests.builders import BAR, START, bar, enter, fill, instrument, listed

NAN = math.nan


def walk(*symbols: tuple[str, float], bars: int = 400, seed: int = 1) -> list[tuple[str, list[float]]]:
    """Prices of tokens whose returns share a factor: (symbol, its loading between -1 and 1)."""
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal(bars)
    out = []
    for symbol, loading in symbols:
        noise = rng.standard_normal(bars) * math.sqrt(1 - loading**2)
        out.append((symbol, list(100 * np.exp(np.cumsum(0.005 * (loading * factor + noise))))))
    return out


def fed(comovement: Comovement, prices: list[tuple[str, list[float]]], first: int = 0) -> Comovement:
    for index in range(len(prices[0][1])):
        for symbol, path in prices:
            comovement.update(bar(first + index, path[index], symbol))
    return comovement


def test_correlations_are_those_of_the_returns() -> None:
    prices = walk(("A", 0.95), ("B", 0.95), ("C", -0.95), ("D", 0.0), bars=3_000)
    found = fed(Comovement(500.0, 48), prices)
    assert found.correlation("A", "B") == pytest.approx(0.9, abs=0.06)
    assert found.correlation("A", "C") == pytest.approx(-0.9, abs=0.06)
    assert abs(found.correlation("A", "D")) < 0.15
    assert found.correlation("B", "A") == found.correlation("A", "B")


def test_an_unweighted_correlation_equals_the_textbook_one_about_zero() -> None:
    prices = walk(("A", 0.6), ("B", 0.6), bars=200)
    found = fed(Comovement(1e9, 48), prices)
    a, b = (np.diff(np.log(path))[:-1] for _, path in prices)  # the newest moment is still being gathered
    assert found.correlation("A", "B") == pytest.approx(a @ b / math.sqrt((a @ a) * (b @ b)), rel=1e-6)


def test_a_correlation_is_unknown_until_enough_bars_are_common() -> None:
    found = Comovement(100.0, 48)
    assert math.isnan(found.correlation("A", "B"))
    fed(found, walk(("A", 0.9), ("B", 0.9), bars=49))
    assert math.isnan(found.correlation("A", "B"))
    fed(found, walk(("A", 0.9), ("B", 0.9), bars=52), first=49)
    assert found.correlation("A", "B") > 0.5
    found.drop("A")
    assert math.isnan(found.correlation("A", "B"))


def test_a_gap_gives_no_return() -> None:
    found = Comovement(100.0, 2)
    for index in (0, 2, 4, 6, 8):
        for symbol in ("A", "B"):
            found.update(bar(index, 100 + index, symbol))
    assert math.isnan(found.correlation("A", "B"))


# --- the market --------------------------------------------------------------------------------------------


def view() -> MarketView:
    market = MarketView(Risk(), BAR)
    market.hear(listed())
    return market


def sample(ts: int, spread_bps: float, funding: float = NAN, due: int = 0) -> LiquiditySampled:
    return LiquiditySampled(
        ts, ts, "NEWUSDT", ts - BAR, spread_bps, 900.0, 700.0, 100.2, 1e6, 100.0, 100.5, 100.0, NAN, funding,
        due,
    )  # fmt: skip


def test_facts_are_the_newest_that_are_known() -> None:
    market = view()
    unknown = market.facts("NEWUSDT", START)
    assert math.isnan(unknown.spread)
    assert math.isnan(unknown.turnover)
    market.hear(sample(START, 12.0))
    market.hear(FundingRatePublished(START, START, "NEWUSDT", 0.0007))
    market.hear(MarketHealthChanged(START, START, "NEWUSDT", ("gap",)))
    market.hear(InstrumentStatusChanged(START, START, "NEWUSDT", TradingStatus.DELIVERING))
    market.on_decision_bar(bar(0, 100, volume=5))
    market.on_decision_bar(bar(1, 100, volume=21))
    facts = market.facts("NEWUSDT", START + HOUR_MS)
    newest = market.facts("NEWUSDT", START + BAR)
    assert (newest.spread, newest.depth) == (pytest.approx(0.0012), 700.0)
    assert (newest.mid, newest.mark) == (100.2, 100.5)
    old = market.facts("NEWUSDT", START + 3 * BAR)
    assert math.isnan(old.spread + old.mid + old.mark)
    assert (facts.faults, facts.status) == (("gap",), TradingStatus.DELIVERING)
    assert facts.turnover == pytest.approx(500 + 1_600 / 16)
    assert facts.funding_rate == 0.0007
    assert facts.next_funding == START + 8 * HOUR_MS
    market.hear(sample(START + HOUR_MS, 12.0, funding=-0.003, due=START + 4 * HOUR_MS))
    facts = market.facts("NEWUSDT", START + HOUR_MS)
    assert (facts.funding_rate, facts.next_funding) == (-0.003, START + 4 * HOUR_MS)


@pytest.mark.parametrize(
    ("mean", "age", "expected"),
    [
        (NAN, 2 * DAY_MS, 96e4 / 96),  # a quarter of an hour's share of a day
        (NAN, 6 * HOUR_MS, 96e4 / 24),  # of the six hours since the launch
        (NAN, 0, 96e4),
        (5e3, 2 * DAY_MS, 5e3),
        (5e4, 2 * DAY_MS, 1e4),  # the recent bars were a burst
    ],
)
def test_turnover_is_the_recent_mean_or_that_of_a_day_if_it_is_less(
    mean: float, age: int, expected: float
) -> None:
    market, now = view(), START + age
    if not math.isnan(mean):
        market.on_decision_bar(bar(0, 100, volume=mean / 100))
    market.hear(replace(sample(now, 12.0), turnover_24h=96e4, open_interest=30.0))
    facts = market.facts("NEWUSDT", now)
    assert facts.turnover == pytest.approx(expected)
    assert facts.open_interest == pytest.approx(30 * 100.5)


def test_what_is_delisted_is_forgotten() -> None:
    market = view()
    market.hear(FundingRatePublished(START, START, "NEWUSDT", 0.0007))
    market.hear(InstrumentDelisted(START, START, "NEWUSDT"))
    assert market.instruments == {}
    market.hear(FundingRatePublished(START, START, "NEWUSDT", 0.0007))  # was under way
    assert math.isnan(market.facts("NEWUSDT", START).funding_rate)
    assert math.isnan(market.price("NEWUSDT"))
    assert market._symbols == {}


def test_a_fault_outlives_a_delisting_until_something_else_is_told() -> None:
    market = view()
    market.hear(MarketHealthChanged(START, START, "NEWUSDT", ("gap",)))
    market.hear(InstrumentDelisted(START, START, "NEWUSDT"))
    market.hear(listed())
    assert market.facts("NEWUSDT", START).faults == ("gap",)
    market.hear(InstrumentDelisted(START, START, "NEWUSDT"))
    market.hear(MarketHealthChanged(START, START, "NEWUSDT", ()))
    assert market._symbols == {}


def test_a_feed_that_is_refused_at_every_reconnect_is_one_fault() -> None:
    market = view()
    for topic in ("tickers", "publicTrade", "tickers"):
        market.hear(FeedRefused(START, START, "NEWUSDT", f"refuses {topic}"))
    assert market.faults == {"NEWUSDT": ("refuses tickers", "refuses publicTrade")}


# --- the account -------------------------------------------------------------------------------------------


def account(market: MarketView) -> AccountView:
    portfolio = Portfolio(Decimal(10_000))
    for symbol, side, qty in (("A", Side.BUY, "1"), ("B", Side.SELL, "2"), ("D", Side.BUY, "3")):
        portfolio.apply_fill(fill(side, qty, "100", symbol=symbol))
    return AccountView(portfolio, Orders(), market)


def test_tokens_that_move_together_count_together_in_their_direction() -> None:
    market = MarketView(Risk(), BAR)
    prices = walk(("A", 0.97), ("B", -0.97), ("D", 0.0), ("E", 0.97))
    for index in range(400):
        for symbol, path in prices:
            market.on_decision_bar(bar(index, path[index], symbol))
    held = account(market)
    assert held.exposure("E", Side.BUY).cluster == pytest.approx(300)  # A, and B which is short of a mirror
    assert held.exposure("E", Side.SELL).cluster == 0
    assert held.exposure("NEWUSDT", Side.BUY).cluster == pytest.approx(400)  # unknown: as if together
    assert held.exposure("NEWUSDT", Side.SELL).cluster == pytest.approx(200)


def test_pending_entries_count_as_if_they_were_filled() -> None:
    held = account(MarketView(Risk(), BAR))
    assert (held.exposure("NEWUSDT", Side.BUY), held.open_positions) == ((600, 200, 400), 3)
    approved = RiskManager(Risk(), Gate(), Costs(), Breaker(Risk(), 10_000)).review(
        enter(side=Side.SELL), instrument(), held, "id"
    )
    assert isinstance(approved, Approved)
    held.orders.place(approved, START, 100.0)
    pending = float(approved.order.qty) * 100
    assert approved.order.stop_loss is not None
    assert held.gross_notional == pytest.approx(600 + pending)
    gross, net, together = held.exposure("OTHERUSDT", Side.SELL)
    assert (gross, net) == (held.gross_notional, pytest.approx(200 - pending))
    assert together == pytest.approx(200 + pending)
    assert held.open_risk == pytest.approx(float(approved.order.qty * (approved.order.stop_loss - 100)))
    assert held.open_positions == 4
    assert held.is_exposed("NEWUSDT", Side.BUY)
    assert held.entries_since(START - 1) == 1
    assert held.entries_since(START) == 0


def test_a_losing_position_is_remembered_and_a_winning_one_is_not() -> None:
    portfolio = Portfolio(Decimal(1_000))
    portfolio.apply_fill(fill(Side.BUY, "1", "100", fee="0.1"))
    portfolio.apply_fill(fill(Side.SELL, "1", "100.15", fee="0.1", ts=START + 5))
    assert portfolio.last_loss == {"NEWUSDT": START + 5}  # the fees ate it
    assert portfolio.pnl("NEWUSDT") == pytest.approx(-0.05)
    portfolio.apply_fill(fill(Side.SELL, "1", "100", ts=START + 6))
    portfolio.apply_fill(fill(Side.BUY, "2", "99", ts=START + 7))  # turned over, with a gain
    assert portfolio.last_loss == {"NEWUSDT": START + 5}
    portfolio.apply_fill(fill(Side.SELL, "1", "98", ts=START + 8))
    assert portfolio.last_loss == {"NEWUSDT": START + 8}


def test_exits_carry_no_exposure() -> None:
    held = account(MarketView(Risk(), BAR))
    manager = RiskManager(Risk(), Gate(), Costs(), Breaker(Risk(), 10_000))
    held.orders.place(manager.approve_exit("A", Side.SELL, Decimal(1), "out"), START, 0.0)
    assert held.gross_notional == 600
    assert not held.is_exposed("A", Side.SELL)
    assert held.is_exposed("A", Side.BUY)  # the exit may fail, and then there would be two
    assert held.entries_since(START - 1) == 0
