"""Risk: entries pass every check in order, exits always pass, halts hold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.records import BreakerReleased, BreakerTripped, Latch
from bot.core.types import DAY_MS, HOUR_MS, MINUTE_MS, Side, Stage, TradingStatus
from bot.settings import Costs, Gate, Risk
from risk.breaker import Breaker
from risk.checks import CHECKS
from risk.context import Exposure, MarketFacts
from risk.manager import Approved, Denied, RiskManager
from risk.sizing import position_notional
from risk.stops import stop_distance, stop_price
from tests.builders import START, enter, instrument

LIMITS = Risk()
NOW = enter().ts


@dataclass
class Account:
    equity: float = 10_000.0
    balance: float = 10_000.0
    gross_notional: float = 0.0
    net_notional: float = 0.0
    cluster: float = 0.0
    open_risk: float = 0.0
    blocked: str = ""
    open_positions: int = 0
    exposed: bool = False
    entries: tuple[int, ...] = ()
    lost: int = 0
    others: str = ""
    facts: MarketFacts = field(default_factory=MarketFacts)

    def is_exposed(self, symbol: str, side: Side) -> bool:
        return self.exposed

    def somebody_else(self, symbol: str) -> str:
        return self.others

    def exposure(self, symbol: str, side: Side) -> Exposure:
        return Exposure(self.gross_notional, self.net_notional, self.cluster)

    def entries_since(self, ts: int) -> int:
        return sum(1 for sent in self.entries if sent > ts)

    def last_loss(self, symbol: str) -> int:
        return self.lost

    def market(self, symbol: str, now: int) -> MarketFacts:
        return self.facts


def facts(**known: object) -> Account:
    return Account(facts=MarketFacts(**known))  # type: ignore[arg-type]


def manager(breaker: Breaker | None = None, *, live: bool = False, **limits: object) -> RiskManager:
    risk = Risk(**limits)  # type: ignore[arg-type]
    return RiskManager(risk, Gate(), Costs(), breaker or Breaker(LIMITS, 10_000), live=live)


def verdict(
    account: Account | None = None, breaker: Breaker | None = None, *, live: bool = False, **changes: object
) -> Approved | Denied:
    return manager(breaker, live=live).review(enter(**changes), instrument(), account or Account(), "id")


def test_a_good_signal_becomes_an_order_with_its_stop_attached() -> None:
    approved = verdict()
    assert isinstance(approved, Approved)
    order = approved.order
    assert order.side is Side.BUY
    assert order.stop_loss is not None
    assert order.take_profit is not None
    assert Decimal("98.5") <= order.stop_loss < 100 < order.take_profit


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"confidence": 0.649}, "confidence 0.649 < 0.65"),
        ({"similarity": 0.69}, "similarity 0.69 < 0.7"),
        ({"expected_move": 0.001}, "x costs"),
        ({"stage": Stage.SHADOW}, "stage SHADOW"),
        ({"stage": Stage.SUSPENDED}, "stage SUSPENDED"),
        ({"confidence": math.nan}, "not known yet: confidence"),
        ({"price": math.inf}, "not known yet: price"),
        ({"price": -1.0}, "the price is -1"),
        ({"sigma": math.nan}, "not known yet: volatility"),
        ({"model_age": 121 * DAY_MS}, "121.0 days old, the limit is 120"),
    ],
)
def test_each_doubt_about_the_signal_is_refused_with_its_reason(
    changes: dict[str, object], reason: str
) -> None:
    denied = verdict(**changes)
    assert isinstance(denied, Denied)
    assert reason in denied.reason


@pytest.mark.parametrize(
    ("account", "reason"),
    [
        (Account(blocked="the feed is silent"), "the feed is silent"),
        (Account(others="a position of +5"), "somebody else has a position of +5 there, which is left alone"),
        (Account(equity=math.nan), "equity is nan"),
        (Account(equity=-5.0), "equity is -5.0"),
        (facts(faults=("the book is stale: gap",)), "cannot be trusted: the book is stale: gap"),
        (facts(status=TradingStatus.SETTLING), "the exchange's status is Settling"),
        (Account(exposed=True), "already in the market"),
        (Account(equity=100.0), "the limit of one position leaves 2.00, the smallest order is 5"),
        (Account(gross_notional=1_999.0), "gross exposure leaves 1.00, the smallest order is 5"),
        (Account(net_notional=1_996.0), "net exposure leaves 4.00"),
        (Account(cluster=999.0), "exposure to tokens that move together leaves 1.00"),
        (Account(balance=1_000.0, gross_notional=999.0), "leverage leaves 1.00"),
        (facts(turnover=400.0), "the share of the market's turnover leaves 4.00"),
        (facts(open_interest=300.0), "the share of the open interest leaves 3.00"),
        (facts(mid=103.0), "the price 100 is 2.91% off the mid 103, the limit is 2.00%"),
        (facts(mark=97.0), "3.09% off the mark 97"),
        (facts(spread=0.004), "the spread is 0.400%, the limit is 0.300%"),
        (facts(depth=40.0), "the share of the book's depth leaves 4.00"),
        (Account(entries=(NOW,) * 10), "10 entries within a second"),
        (Account(entries=(NOW - HOUR_MS,) * 500), "500 entries within a day"),
        (Account(lost=NOW - 29 * MINUTE_MS), "lost money less than 30 minutes ago"),
        (Account(open_positions=10), "10 positions are open"),
        (Account(open_risk=299.0), "stops would lose 301.26, the drawdown limits leave 300.00"),
        (
            facts(funding_rate=0.002, next_funding=NOW + 10 * MINUTE_MS),
            "funding of 0.200% is due in 10 minutes",
        ),
    ],
)
def test_each_limit_of_account_and_market_is_refused_with_its_reason(account: Account, reason: str) -> None:
    denied = verdict(account)
    assert isinstance(denied, Denied)
    assert reason in denied.reason


@pytest.mark.parametrize(
    "account",
    [
        Account(net_notional=-1_996.0),  # the other way
        Account(lost=NOW - 30 * MINUTE_MS),
        Account(entries=(NOW - 1_000,) * 10 + (NOW - DAY_MS,) * 490),
        facts(funding_rate=-0.002, next_funding=NOW + 10 * MINUTE_MS),  # it is paid to us
        facts(funding_rate=0.002, next_funding=NOW + 31 * MINUTE_MS),
        facts(mid=101.0, mark=99.0, spread=0.002, depth=1e6, turnover=1e7),
    ],
)
def test_what_is_within_the_limits_passes(account: Account) -> None:
    assert isinstance(verdict(account), Approved)


def test_a_token_of_which_the_exchange_takes_no_order_that_far_from_the_mark_is_refused() -> None:
    contract = msgspec.structs.replace(instrument(), price_band=Decimal("0.01"))
    denied = manager().review(enter(), contract, facts(mark=101.0), "id")
    assert isinstance(denied, Denied)
    assert denied.reason == "0.99% from the mark, 0.80% of the exchange's band may be used"


def test_arms_that_are_not_named_may_not_trade() -> None:
    named = manager(arms=("adapted",))
    assert isinstance(named.review(enter(arm="adapted"), instrument(), Account(), "id"), Approved)
    denied = named.review(enter(arm="frozen"), instrument(), Account(), "id")
    assert isinstance(denied, Denied)
    assert denied.reason == "models of the arm 'frozen' may not trade"


def test_live_what_is_unknown_of_the_market_forbids_an_entry_and_in_a_simulation_it_does_not() -> None:
    assert isinstance(verdict(), Approved)
    known: dict[str, object] = {}
    for reason, value in (("turnover", 1e7), ("mid", 100.0), ("mark", 100.0), ("spread", 0.001)):
        denied = verdict(facts(**known), live=True)
        assert isinstance(denied, Denied)
        assert f"the {reason} is not known yet" in denied.reason
        known[reason] = value
    assert isinstance(verdict(facts(**known), live=True), Approved)


def test_a_wide_spread_raises_what_the_move_must_exceed() -> None:
    assert isinstance(verdict(expected_move=0.005), Approved)
    denied = verdict(facts(spread=0.0025), expected_move=0.005)
    assert isinstance(denied, Denied)
    assert denied.reason == "expected move 0.50% < 1.08%, 3 x costs"


@pytest.mark.parametrize(
    ("account", "most"),
    [
        (Account(gross_notional=1_950.0), 50.0),
        (Account(cluster=970.0), 30.0),
        (facts(turnover=4_000.0), 40.0),
        (facts(open_interest=3_000.0), 30.0),
        (facts(depth=600.0), 60.0),
    ],
)
def test_an_order_shrinks_to_the_room_that_is_left(account: Account, most: float) -> None:
    approved = verdict(account)
    assert isinstance(approved, Approved)
    assert most - 10 < float(approved.order.qty) * 100 <= most


def test_an_ageing_model_trades_less() -> None:
    sizes = [
        position_notional(enter(model_age=days * DAY_MS), 10_000, LIMITS, Gate()) for days in (0, 60, 90, 119)
    ]
    assert sizes == pytest.approx([200.0, 200.0, 100.0, 20.0])


def test_the_checks_stand_in_the_order_of_the_documentation() -> None:
    names = [check.__name__ for check in CHECKS]
    assert len(set(names)) == len(names) == 28
    landmarks = [
        "mode_and_latches", "market_data", "model_arm", "ladder", "instrument_status", "position",
        "gross_exposure", "leverage", "order_notional", "collar", "spread", "expected_move", "order_rate",
        "cooldown", "position_count", "drawdown_room", "funding", "price_band",
    ]  # fmt: skip
    assert sorted(landmarks, key=names.index) == landmarks


def test_an_unknown_instrument_is_refused() -> None:
    assert isinstance(manager().review(enter(), None, Account(), "id"), Denied)


def test_an_exit_is_legal_even_while_halted() -> None:
    breaker = Breaker(LIMITS, 10_000)
    breaker.mark(START, math.nan)
    order = manager(breaker).approve_exit("NEWUSDT", Side.SELL, Decimal(3), "id").order
    assert order.reduce_only
    assert isinstance(verdict(breaker=breaker), Denied)


def test_nobody_else_can_approve_an_order() -> None:
    order = manager().approve_exit("NEWUSDT", Side.SELL, Decimal(3), "id").order
    with pytest.raises(TypeError, match=r"risk\.manager only"):
        Approved(order, object())


@given(
    equity=st.floats(10, 1e7), price=st.floats(0.0001, 1e5), confidence=st.floats(0.5, 1),
    similarity=st.floats(0, 1), sigma=st.floats(0, 0.2), side=st.sampled_from(Side),
    stage=st.sampled_from([Stage.SMALL, Stage.FULL]), gross=st.floats(0, 1e6),
)  # fmt: skip
def test_no_approved_order_exceeds_a_limit(
    equity: float,
    price: float,
    confidence: float,
    similarity: float,
    sigma: float,
    stage: Stage,
    side: Side,
    gross: float,
) -> None:
    contract = instrument(tick_size="0.0000001", qty_step="0.00001")
    signal = enter(
        price=price, confidence=confidence, similarity=similarity, sigma=sigma, stage=stage, side=side
    )
    account = Account(equity=equity, balance=equity, gross_notional=gross)
    outcome = manager(Breaker(LIMITS, equity)).review(signal, contract, account, "id")
    if isinstance(outcome, Denied):
        return
    order = outcome.order
    notional = float(order.qty) * price
    cap = 0.02 * equity * (0.25 if stage is Stage.SMALL else 1.0)
    assert 5 <= notional <= cap * (1 + 1e-9)
    assert gross + notional <= 0.2 * equity * (1 + 1e-9)
    assert order.stop_loss is not None
    distance = (Decimal(repr(price)) - order.stop_loss) * side.sign / Decimal(repr(price))
    assert 0 <= distance <= Decimal("0.015")


@given(entry=st.floats(0.001, 1e5), sigma=st.floats(0, 1), side=st.sampled_from(Side))
def test_a_stop_is_never_wider_than_the_limit(entry: float, sigma: float, side: Side) -> None:
    distance = stop_distance(sigma, 8, Risk())
    assert 0 < distance <= 0.015
    stop = stop_price(entry, side, distance, instrument(tick_size="0.0000001"))
    assert (Decimal(str(entry)) - stop) * side.sign <= Decimal("0.015") * Decimal(str(entry))


# --- the breakers ----------------------------------------------------------------------------------------


def latches(messages: Sequence[BreakerTripped | BreakerReleased]) -> list[Latch | None]:
    return [message.latch for message in messages]


def test_three_percent_in_a_day_halts_until_the_next_utc_day() -> None:
    breaker = Breaker(LIMITS, 10_000)
    assert breaker.mark(START + 1, 10_100) == []  # the day began here
    assert breaker.mark(START + 2, 9_798) == []
    (tripped,) = breaker.mark(START + 3, 9_797)
    assert isinstance(tripped, BreakerTripped)
    assert (tripped.latch, tripped.until) == (Latch.DAY, START + DAY_MS)
    assert breaker.mark(START + DAY_MS - 1, 10_500) == []
    assert breaker.halted
    (released,) = breaker.mark(START + DAY_MS, 9_800)
    assert isinstance(released, BreakerReleased)
    assert not breaker.halted


def test_the_day_after_counts_from_its_own_first_equity() -> None:
    breaker = Breaker(LIMITS, 10_000)
    breaker.mark(START, 10_000)
    assert breaker.mark(START + DAY_MS, 9_750) == []
    assert breaker.mark(START + DAY_MS + 1, 9_500) == []
    assert latches(breaker.mark(START + DAY_MS + 2, 9_457)) == [Latch.DAY]


def test_slow_losses_trip_the_rolling_breaker_until_a_person_clears_it() -> None:
    breaker = Breaker(LIMITS, 10_000)
    equity = 10_000.0
    for day in range(4):
        assert breaker.mark(START + day * DAY_MS, equity) == []
        equity *= 0.98
    (tripped,) = breaker.mark(START + 4 * DAY_MS, equity * 0.99)
    assert isinstance(tripped, BreakerTripped)
    assert (tripped.latch, tripped.until) == (Latch.ROLLING, 0)
    assert breaker.mark(START + 40 * DAY_MS, 11_000) == []
    assert breaker.halted
    breaker.mark(START + 40 * DAY_MS, 9_000)
    assert breaker.release(START + 40 * DAY_MS, "a person") == BreakerReleased(
        START + 40 * DAY_MS, "a person"
    )
    assert breaker.release(START + 40 * DAY_MS, "a person") is None
    assert not breaker.halted
    assert breaker.mark(START + 40 * DAY_MS + 1, 8_900) == []  # counted from the release


def test_what_is_older_than_the_window_trips_the_peak_breaker_only() -> None:
    breaker = Breaker(LIMITS, 10_000)
    for week, equity in enumerate((10_000, 9_300, 8_700)):
        assert breaker.mark(START + 8 * week * DAY_MS, equity) == []
    assert latches(breaker.mark(START + 25 * DAY_MS, 8_499)) == [Latch.PEAK]


def test_one_token_that_loses_too_much_is_halted_alone_until_the_next_day() -> None:
    breaker = Breaker(LIMITS, 10_000)
    breaker.mark(START, 10_000)
    assert breaker.mark_token(START, "NEWUSDT", -200.0, 10_000) == []  # lost before this day
    assert breaker.mark_token(START + 1, "NEWUSDT", -249.0, 9_951) == []
    (tripped,) = breaker.mark_token(START + 2, "NEWUSDT", -250.0, 9_950)
    assert (tripped.latch, tripped.symbol) == (Latch.TOKEN, "NEWUSDT")
    assert breaker.token_reason("NEWUSDT")
    assert not breaker.token_reason("OTHERUSDT")
    assert not breaker.halted
    assert latches(breaker.mark(START + DAY_MS, 9_950)) == [Latch.TOKEN]
    assert not breaker.token_reason("NEWUSDT")


@pytest.mark.parametrize("equity", [math.nan, math.inf, 0.0, -1.0])
def test_an_account_that_cannot_be_valued_halts_until_a_person_clears_it(equity: float) -> None:
    breaker = Breaker(LIMITS, 10_000)
    (tripped,) = breaker.mark(START, equity)
    assert isinstance(tripped, BreakerTripped)
    assert (tripped.latch, tripped.until) == (Latch.EQUITY, 0)
    assert breaker.mark(START + 3 * DAY_MS, 10_000) == []
    assert breaker.halted


def test_a_broken_account_outlasts_a_halt_for_the_day() -> None:
    breaker = Breaker(LIMITS, 10_000)
    breaker.mark(START, 10_000)
    breaker.mark(START + 1, 9_650)
    assert latches(breaker.mark(START + 2, math.nan)) == [Latch.EQUITY]
    assert latches(breaker.mark(START + 2 * DAY_MS, 10_000)) == [Latch.DAY]
    assert breaker.halted


def test_a_transfer_moves_every_reference() -> None:
    breaker = Breaker(LIMITS, 10_000)
    breaker.mark(START, 10_000)
    breaker.transfer(-5_000)
    assert breaker.mark(START, 5_000) == []
    assert breaker.mark(START, 4_851) == []
    assert latches(breaker.mark(START, 4_850)) == [Latch.DAY]


def test_blocking_breakers_do_not_flatten() -> None:
    breaker = Breaker(Risk(on_breaker="block"), 10_000)
    breaker.mark(START, 10_000)
    breaker.mark(START + 1, 9_000)
    assert breaker.halted
    assert not breaker.flattens("NEWUSDT")


def test_a_restart_goes_on_with_opening_highs_peak_and_halts() -> None:
    again = Breaker(LIMITS, 9_800)  # what is left, after a morning that opened with 10,000
    again.restore(START, 10_000)
    assert again.mark(START - 5 * DAY_MS, 9_800) == []  # history is no new day
    assert latches(again.mark(START, 9_700)) == [Latch.DAY]

    today = START // DAY_MS
    rolling = Breaker(LIMITS, 9_300)
    rolling.restore(START, 9_300, {today - 6: 10_000.0, today - 7: 20_000.0})
    assert latches(rolling.mark(START, 9_200)) == [Latch.ROLLING]

    high = Breaker(LIMITS, 9_300)
    high.restore(START, 9_300, {}, 10_900.0)
    assert latches(high.mark(START, 9_265)) == [Latch.PEAK]


def test_a_restart_makes_good_no_loss_of_a_token() -> None:
    breaker = Breaker(LIMITS, 9_960)
    breaker.restore(START + 1, 10_000, lost={"NEWUSDT": 40.0, "OTHERUSDT": -40.0})
    assert breaker.mark_token(START + 2, "NEWUSDT", -9.0, 9_951) == []
    assert latches(breaker.mark_token(START + 3, "NEWUSDT", -10.0, 9_950)) == [Latch.TOKEN]
    assert breaker.mark_token(START + 3, "OTHERUSDT", -80.0, 9_950) == []  # it had gained
    assert breaker.mark_token(START + DAY_MS, "OTHERUSDT", -100.0, 9_950) == []


def test_a_restart_clears_no_halt() -> None:
    day = BreakerTripped(START, "lost", START + DAY_MS, Latch.DAY)
    peak = BreakerTripped(START, "lost more", 0, Latch.PEAK)
    token = BreakerTripped(START, "it lost", START + DAY_MS, Latch.TOKEN, "NEWUSDT")
    breaker = Breaker(LIMITS, 9_700)
    breaker.restore(START + 1, 10_000, halts=[day, peak, token])
    assert breaker.halted
    assert breaker.token_reason("NEWUSDT") == "it lost"
    assert latches(breaker.mark(START + DAY_MS, 9_900)) == [Latch.DAY, Latch.TOKEN]
    assert breaker.reason == "lost more"

    over = Breaker(LIMITS, 9_700)
    over.restore(START + DAY_MS, None, halts=[day, token])
    assert not over.halted
    assert not over.token_reason("NEWUSDT")


def test_drawdown_is_measured_from_the_peak_and_from_midnight() -> None:
    breaker = Breaker(LIMITS, 10_000)
    breaker.mark(START, 12_000)
    breaker.mark(START + DAY_MS, 11_880)
    marked = breaker.record(START + DAY_MS, 11_700, 11_700, 1_170)
    assert marked.drawdown == pytest.approx(0.025)
    assert marked.day_drawdown == pytest.approx(1 - 11_700 / 11_880)
    assert marked.exposure == pytest.approx(0.1)
