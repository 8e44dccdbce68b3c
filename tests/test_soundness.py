"""What is against trading a token, beside its model: thin trading, bad data, losses, the exchange's word."""

import math

from bot.core.events import FeedRefused, InstrumentStatusChanged, LiquiditySampled, MarketHealthChanged
from bot.core.records import BreakerReleased, BreakerTripped, Latch, StageChanged
from bot.core.types import DAY_MS, Stage, TradingStatus
from bot.settings import Settings
from strategies.soundness import Soundness
from tests.builders import BAR, START, bar
from tests.test_token import KNOWS, Life

NAN = math.nan
A_BAR = 1_000_000 * BAR / DAY_MS  # turnover of a bar at the limit


class Watched:
    """A token of which bars come."""

    def __init__(self) -> None:
        self.sound = Soundness(Settings(), BAR, START)
        self.index = 0

    def bars(self, count: int, turnover: float = 2 * A_BAR) -> None:
        for _ in range(count):
            self.sound.on_bar(bar(self.index, 1.0, volume=turnover))
            self.index += 1

    def sample(self, spread_bps: float = 2.0, depth: float = 1e4, turnover: float = 1e8) -> None:
        ts = START + self.index * BAR
        book = (spread_bps, depth, 2 * depth, 1.0, turnover)
        self.sound.hear(LiquiditySampled(ts, ts, "NEWUSDT", ts - BAR, *book, *(1.0,) * 5, 0))

    def faults(self, *faults: str) -> None:
        ts = START + self.index * BAR
        self.sound.hear(MarketHealthChanged(ts, ts, "NEWUSDT", faults))


def test_turnover_by_the_bars_counts_where_nothing_else_is_known() -> None:
    watched = Watched()
    watched.bars(4, 0.9 * A_BAR)
    assert watched.sound.trouble == ("turnover of 900,000 a day < 1,000,000",)
    watched.bars(96, 1.1 * A_BAR)
    assert watched.sound.trouble == ()
    watched.bars(96, 0.6 * A_BAR)
    assert watched.sound.trouble == (), "who is in may miss the limit by the slack"
    watched.bars(96, 0.4 * A_BAR)
    assert watched.sound.trouble == ("turnover of 400,000 a day < 1,000,000",)
    watched.bars(96, 0.6 * A_BAR)
    assert watched.sound.trouble, "and must keep it whole to come back"


def test_a_market_that_tells_no_turnover_is_no_trouble() -> None:
    watched = Watched()
    watched.bars(50, NAN)
    assert watched.sound.trouble == ()


def test_spread_and_depth_count_as_long_as_they_are_fresh() -> None:
    watched = Watched()
    watched.bars(1)
    watched.sample(spread_bps=150)
    watched.bars(1)
    assert watched.sound.trouble == ("spread 1.500% > 1.000%",)
    watched.sample(depth=100)
    watched.bars(1)
    assert watched.sound.trouble == ("depth 100 < 250",)
    watched.sample(turnover=NAN)
    watched.bars(2)
    assert watched.sound.trouble == ()
    watched.sample(spread_bps=500)
    watched.bars(1)
    assert watched.sound.trouble
    watched.bars(3)
    assert watched.sound.trouble == (), "an old sample says nothing"


def test_calm_counts_the_bars_since_the_last_trouble() -> None:
    watched = Watched()
    watched.bars(3)
    assert watched.sound.calm == 3
    watched.faults("the book is stale")
    assert watched.sound.calm == 0
    watched.bars(2)
    assert watched.sound.calm == 0
    watched.faults()
    watched.bars(2)
    assert watched.sound.calm == 2


def test_a_feed_that_is_refused_and_a_status_are_trouble_and_an_end_suspends() -> None:
    watched = Watched()
    watched.bars(1)
    watched.sound.hear(FeedRefused(START, START, "NEWUSDT", "no topic"))
    watched.sound.hear(InstrumentStatusChanged(START, START, "NEWUSDT", TradingStatus.PRE_LAUNCH))
    assert watched.sound.trouble == ("no topic", "the exchange's status is PreLaunch")
    assert watched.sound.suspended == ""
    for status in (TradingStatus.DELIVERING, TradingStatus.CLOSED):
        watched.sound.hear(InstrumentStatusChanged(START, START, "NEWUSDT", status))
        assert watched.sound.suspended == f"the exchange's status is {status}"


def test_too_many_faults_in_a_day_suspend_until_the_next() -> None:
    watched = Watched()
    watched.bars(1)
    for _ in range(24):
        watched.faults("the book is stale")
        watched.faults("the book is stale", "bars are missing")  # the same episode
        watched.faults()
    assert watched.sound.suspended == ""
    watched.faults("the book is stale")
    watched.faults()
    assert watched.sound.suspended == "more than 24 faults of its market data in a day"
    watched.bars(94)
    assert watched.sound.suspended
    watched.bars(1)
    assert watched.sound.suspended == ""


def test_a_breaker_suspends_until_its_time_or_a_person() -> None:
    watched = Watched()
    watched.bars(1)
    watched.sound.hear(BreakerTripped(START, "lost 0.6%", START + DAY_MS, Latch.TOKEN, "NEWUSDT"))
    watched.sound.hear(BreakerTripped(START, "worse", 0, Latch.TOKEN, "NEWUSDT"))
    assert watched.sound.suspended == "lost 0.6%; worse"
    watched.bars(200)
    assert watched.sound.suspended == "worse"
    watched.sound.hear(BreakerReleased(START, "resume by ann"))
    assert watched.sound.suspended == ""


def test_a_token_that_trades_falls_at_the_news_and_climbs_again_step_by_step() -> None:
    life = Life(gain=KNOWS)
    life.bars(60)
    life.candidate("better", KNOWS)
    life.bars(1_000)
    stages = [change.new for change in life.of(StageChanged)]
    assert stages == [Stage.SHADOW, Stage.SMALL, Stage.FULL]
    ts = START + (life._index + 1) * BAR
    fallen, _ = life.token.hear(MarketHealthChanged(ts, ts, "NEWUSDT", ("the book is stale",)))
    assert (fallen.new, fallen.reasons) == (Stage.SHADOW, ("the book is stale",))
    life.token.hear(MarketHealthChanged(ts, ts, "NEWUSDT", ()))
    again = [one.new for one in life.bars(10) if isinstance(one, StageChanged)]
    assert again == [Stage.SMALL, Stage.FULL]
    ts = START + (life._index + 1) * BAR
    suspended, _ = life.token.hear(BreakerTripped(ts, "lost", ts + 5 * BAR, Latch.TOKEN, "NEWUSDT"))
    assert suspended.new is Stage.SUSPENDED
    after = [one.new for one in life.bars(20) if isinstance(one, StageChanged)]
    assert after == [Stage.OBSERVE, Stage.SHADOW, Stage.SMALL, Stage.FULL]
