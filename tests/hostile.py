"""Everything that market, exchange and strategy can do to the engine, in any order, and what must hold then.

`Hostile` is both sides: it invents facts, answers the commands as badly as it is told to, keeps books of its
own, and looks at every message that comes out.
"""

import math
import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from bot.core.commands import AmendOrder, CancelOrder, Command, MoveStop, PlaceOrder
from bot.core.events import (
    BalanceChanged,
    BarClosed,
    EntriesAllowed,
    EntriesBlocked,
    Event,
    FundingPaid,
    InstrumentDelisted,
    MarketHealthChanged,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OthersHold,
    PositionAdopted,
    StopMoved,
    TimePassed,
)
from bot.core.records import BreakerReleased, BreakerTripped, DecisionMade, Latch, Record
from bot.core.signal import Action
from bot.core.types import DAY_MS, FillOrigin, OrderRequest, Position, Side
from bot.engine.engine import Engine
from bot.engine.portfolio import Portfolio
from bot.execution.orders import Orders
from bot.settings import Costs, Execution, Gate, Risk
from risk.breaker import Breaker
from risk.manager import RiskManager
from strategies.base import Advice, News
from tests.builders import BAR, START, enter, listed

SYMBOLS: Final = ("AUSDT", "BUSDT", "CUSDT", "DUSDT")
RISK: Final = Risk(
    max_positions=3, max_exposure=0.05, max_net_exposure=0.045, max_cluster_exposure=0.04, entries_per_day=40,
    entries_per_second=2, cooldown_minutes=1, trailing_stops=1.0, break_even_stops=1.0, max_holding_bars=20,
    token_daily_loss=0.0005, daily_drawdown=0.001, rolling_drawdown=0.0015, peak_drawdown=0.002,
)  # fmt: skip
STYLES: Final = (
    Execution(),
    Execution(style="post_only", requote_seconds=1, deadline_seconds=60),
    Execution(style="post_only", requote_seconds=1, deadline_seconds=60, at_deadline="give_up"),
    Execution(twap_notional=20, twap_slices=4, twap_seconds=60),
)
LONGEST_PAUSE_MS: Final = 300_000  # between attempts to leave
_ROUNDING: Final = Decimal("1e-18")  # of average prices, times quantities
_EPSILON: Final = 1 + 1e-6


class Hostile:
    """Each public method is something that may happen."""

    def __init__(self, execution: Execution) -> None:
        breaker = Breaker(RISK, 10_000)
        self.engine = Engine(
            self, RiskManager(RISK, Gate(), Costs(), breaker), breaker, Portfolio(Decimal(10_000)), Orders(),
            RISK, BAR, execution,
        )  # fmt: skip
        self.breaker = breaker
        self.now = START
        self.steps = 0
        self.entries = 0
        self.prices = dict.fromkeys(SYMBOLS, 100.0)
        self.decided: dict[str, int] = {}  # close of the newest bar, ms
        self.wish: tuple[Advice, ...] = ()
        self.open: dict[str, tuple[OrderRequest, Decimal]] = {}  # at the exchange: what is left of each
        self.stops: dict[str, Decimal] = {}  # asked for and not answered
        self.seen: set[str] = set()  # link ids
        self.sent: list[int] = []  # when entries were
        self.blocked: set[str] = set()
        self.faulty: set[str] = set()
        self.theirs: set[str] = set()  # where somebody else is
        self.halts: dict[tuple[Latch, str], int] = {}
        self.listed: set[str] = set()
        self.foreign: set[str] = set()  # positions that are, in part, not of our making
        self.failed: dict[str, int] = {}  # when the exchange last did not carry out an exit
        self.naked: dict[str, float] = {}  # for how many seconds of ticks a position has had no stop
        self.cash = Decimal(10_000)  # balance less what the open positions cost
        for symbol in SYMBOLS:
            self.list(symbol)

    # --- the strategy (strategies.base.Strategy) ------------------------------------------------------------

    def on_bar(self, bar: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
        return self.wish

    def on_event(self, event: News) -> Sequence[Advice]:
        return ()

    # --- the market -----------------------------------------------------------------------------------------

    def bar(self, symbol: str, move: float, wish: str, doubt: float) -> None:
        """A decision bar closes. wish: "buy", "sell", "exit", "nan" or ""; doubt: 0 to 1."""
        start = self.now // BAR * BAR
        self.now = start + BAR
        before, price = self.prices[symbol], round(max(1.0, self.prices[symbol] * (1 + move)), 2)
        self.prices[symbol] = price
        self.wish = self._signals(symbol, wish, doubt)
        high, low = max(before, price), min(before, price)
        self.hear(BarClosed(self.now, self.now, symbol, start, BAR, before, high, low, price, 1e4, 1e6))
        is_news = start >= self.decided.get(symbol, 0)  # else the clock was set back: it decides nothing
        self.decided[symbol] = max(self.now, self.decided.get(symbol, 0))
        self.wish = ()
        if wish == "exit" and is_news:
            self._is_leaving(symbol)

    def _signals(self, symbol: str, wish: str, doubt: float) -> tuple[Advice, ...]:
        if not wish:
            return ()
        signal = enter(
            side=Side.SELL if wish == "sell" else Side.BUY, price=self.prices[symbol], symbol=symbol,
            ts=self.now, bar_start=self.now - BAR, confidence=1 - doubt / 2,
            sigma=math.nan if wish == "nan" else 0.001 + 0.01 * doubt,
            action=Action.EXIT if wish == "exit" else Action.ENTER,
        )  # fmt: skip
        return (signal,)

    def broken_price(self, symbol: str) -> None:
        """It must not be, and the borders refuse it; should it come all the same, trading halts."""
        start = self.now // BAR * BAR
        self.now = start + BAR
        nan = math.nan
        held = symbol in self.engine.portfolio.positions and start >= self.decided.get(symbol, 0)
        self.hear(BarClosed(self.now, self.now, symbol, start, BAR, nan, nan, nan, nan, nan, nan))
        self.decided[symbol] = max(self.now, self.decided.get(symbol, 0))
        assert self.breaker.halted or not held
        self.hear(
            BarClosed(
                self.now + BAR, self.now + BAR, symbol, self.now, BAR, *[self.prices[symbol]] * 4, 1e4, 1e6
            )
        )
        self.now += BAR

    def tick(self, seconds: float) -> None:
        """Time passes, or jumps back."""
        self.now = max(START, self.now + int(seconds * 1_000))
        self.hear(TimePassed(self.now, self.now))
        self._protection_holds(min(max(seconds, 0.0), 5.0))

    def list(self, symbol: str) -> None:
        self.listed.add(symbol)
        event = listed(symbol)
        self.hear(type(event)(self.now, self.now, event.instrument))

    def delist(self, symbol: str) -> None:
        self.listed.discard(symbol)
        self.hear(InstrumentDelisted(self.now, self.now, symbol))
        self._is_leaving(symbol)

    def trouble(self, cause: str, *, over: bool) -> None:
        if over:
            self.blocked.discard(cause)
            self.hear(EntriesAllowed(self.now, self.now, cause))
        else:
            self.blocked.add(cause)
            self.hear(EntriesBlocked(self.now, self.now, cause, f"{cause} is wrong"))

    def fault(self, symbol: str, *, over: bool) -> None:
        (self.faulty.discard if over else self.faulty.add)(symbol)
        self.hear(MarketHealthChanged(self.now, self.now, symbol, () if over else ("gap",)))

    def somebody_else(self, symbol: str, tenths: int, orders: int) -> None:
        (self.theirs.add if tenths or orders else self.theirs.discard)(symbol)
        self.hear(OthersHold(self.now, self.now, symbol, Decimal(tenths) / 10, orders))

    # --- the exchange ---------------------------------------------------------------------------------------

    def accept(self, pick: int) -> None:
        if (link_id := self._pick(pick)) is not None:
            self.hear(OrderAccepted(self.now, self.now, link_id, f"x{link_id}"))

    def fill(self, pick: int, share: float, slip: float) -> None:
        """A part of an order, or all of it; a reduce-only one never turns the position over."""
        if (link_id := self._pick(pick)) is None:
            return
        order, left = self.open[link_id]
        qty = min(left, max(Decimal("0.1"), (left * Decimal(repr(share))).quantize(Decimal("0.1"))))
        if order.reduce_only:
            qty = min(qty, self._opposed(order))
            if not qty:
                self.end(pick, rejected=False)
                return
        self.open[link_id] = order, left - qty
        if left == qty:
            del self.open[link_id]
        self._fill(order.symbol, order.side, qty, slip, link_id, left - qty, FillOrigin.ORDER)
        self._told_stop(order)

    def end(self, pick: int, *, rejected: bool) -> None:
        """An order is rejected or cancelled, also without having been asked to."""
        if (link_id := self._pick(pick)) is not None:
            order, _ = self.open.pop(link_id)
            if order.reduce_only:
                self.failed[order.symbol] = self.now
            kind = OrderRejected if rejected else OrderCancelled
            self.hear(kind(self.now, self.now, link_id, "no reason"))

    def stop_out(self, symbol: str, share: float) -> None:
        """The exchange's stop fires, in parts perhaps."""
        position = self.engine.portfolio.positions.get(symbol)
        if position is None or position.stop is None:
            return
        held = abs(position.qty)
        qty = min(held, max(Decimal("0.1"), (held * Decimal(repr(share))).quantize(Decimal("0.1"))))
        self._fill(symbol, position.side.opposite, qty, 0.001, "", held - qty, FillOrigin.STOP_LOSS)

    def answer_stop(self, symbol: str, *, granted: bool) -> None:
        """To a MoveStop, or of its own accord: the stop is gone."""
        wanted = self.stops.pop(symbol, None)
        if symbol in self.engine.portfolio.positions:
            self.hear(StopMoved(self.now, self.now, symbol, wanted if granted else None))

    def adopt(self, symbol: str, tenths: int) -> None:
        """A reconciliation finds that we hold something else."""
        qty, entry = Decimal(tenths) / 10, Decimal(repr(self.prices[symbol]))
        self.foreign.add(symbol)
        before = self.engine.portfolio.positions.get(symbol)
        self.cash += (before.qty * before.entry if before else 0) - qty * entry
        self.hear(PositionAdopted(self.now, self.now, symbol, qty, entry, None, "found"))

    def pay_funding(self, symbol: str, cents: int) -> None:
        amount = Decimal(cents) / 100
        self.cash -= amount
        self.hear(FundingPaid(self.now, self.now, f"f{self.steps}", symbol, amount, 0.0001))

    def transfer(self, amount: int) -> None:
        if self.engine.portfolio.balance + amount > 1_000:
            self.cash += amount
            self.hear(BalanceChanged(self.now, self.now, Decimal(amount), "moved"))

    def release(self) -> None:
        """A person."""
        self.breaker.release(self.now, "a person")
        self.halts.clear()

    # --- what comes out -------------------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        self.steps += 1
        before = {name: position.opened for name, position in self.engine.portfolio.positions.items()}
        for message in self.engine.step(event):
            self._look_at(message, event)
        self._books_balance()
        for name, opened in before.items():
            position = self.engine.portfolio.positions.get(name)
            if position is None or position.opened != opened or position.stop is not None:
                self.naked.pop(name, None)
            if position is None:
                self.foreign.discard(name)

    def _look_at(self, message: Command | Record, cause: Event) -> None:
        if isinstance(message, PlaceOrder):
            self._order(message)
        elif isinstance(message, CancelOrder | AmendOrder):
            assert message.link_id in self.seen
        elif isinstance(message, MoveStop):
            self._stop(message)
        elif isinstance(message, BreakerTripped):
            self.halts[message.latch, message.symbol] = message.until
        elif isinstance(message, BreakerReleased):
            assert message.latch is not None  # by itself only what ends with the day
            until = self.halts.pop((message.latch, message.symbol))
            assert 0 < until <= cause.ts
        elif isinstance(message, DecisionMade):
            assert message.verdict in ("entered", "refused", "exited")

    def _order(self, command: PlaceOrder) -> None:
        order = command.order
        assert order.link_id not in self.seen
        self.seen.add(order.link_id)
        self.open[order.link_id] = order, order.qty
        assert order.qty > 0
        if order.reduce_only:
            assert self._under_way(order) <= self._opposed(order)  # the others that leave counted
            return
        self.entries += 1
        account, equity = self.engine.account, self.engine.account.equity
        assert not self.halts.keys() & {(latch, "") for latch in Latch}
        assert (Latch.TOKEN, order.symbol) not in self.halts
        assert not self.blocked
        assert order.symbol not in self.faulty
        assert order.symbol not in self.theirs
        assert order.symbol in self.listed
        price = self.prices[order.symbol]
        if order.symbol not in self.foreign:
            position = self.engine.portfolio.positions.get(order.symbol)
            held = max(Decimal(0), position.qty * order.side.sign) if position else Decimal(0)
            notional = float(held + self._under_way(order)) * price
            assert notional <= RISK.position_share * equity * (1 + RISK.collar) * _EPSILON
        assert account.gross_notional <= RISK.max_exposure * equity * _EPSILON
        assert account.open_positions <= RISK.max_positions
        self.sent.append(command.ts)
        assert sum(sent > command.ts - DAY_MS for sent in self.sent) <= RISK.entries_per_day * 5  # in parts
        assert order.stop_loss is not None
        assert (price - float(order.stop_loss)) * order.side.sign > 0

    def _stop(self, command: MoveStop) -> None:
        position = self.engine.portfolio.positions[command.symbol]
        sign = position.side.sign
        assert position.stop is None or (command.stop_loss - position.stop) * sign > 0
        assert (self.engine.portfolio.last(command.symbol) - float(command.stop_loss)) * sign > 0
        assert (position.entry - command.stop_loss) * sign <= position.entry * Decimal(repr(RISK.stop))
        self.stops[command.symbol] = command.stop_loss

    def _is_leaving(self, symbol: str) -> None:
        """An exit is never refused: what is held is on its way out, or tried again soon after a failure."""
        position = self.engine.portfolio.positions.get(symbol)
        failed = self.failed.get(symbol)
        if position is not None and (failed is None or not 0 <= self.now - failed < LONGEST_PAUSE_MS):
            assert self.engine.orders.leaving(symbol) >= abs(position.qty)

    def _books_balance(self) -> None:
        portfolio = self.engine.portfolio
        assert abs(self._cash() - self.cash) <= _ROUNDING * (1 + self.steps)
        if math.isfinite(portfolio.equity):
            open_profit = sum(
                float(position.qty) * (portfolio.last(name) - float(position.entry))
                for name, position in portfolio.positions.items()
            )
            assert math.isclose(portfolio.equity, float(portfolio.balance) + open_profit, abs_tol=1e-6)

    def _protection_holds(self, seconds: float) -> None:
        """Without a stop for too long, as ticks tell it: it is on its way out."""
        for name, position in self.engine.portfolio.positions.items():
            if position.stop is not None:
                continue
            if self.naked.setdefault(name, 0.0) > RISK.naked_seconds + 15:  # ticks are up to 5 s apart
                self._is_leaving(name)
            self.naked[name] += seconds

    # --- parts ----------------------------------------------------------------------------------------------

    def _fill(
        self, symbol: str, side: Side, qty: Decimal, slip: float, link_id: str, left: Decimal,
        origin: FillOrigin,
    ) -> None:  # fmt: skip
        price = Decimal(repr(round(self.prices[symbol] * (1 + slip * side.sign), 2)))
        fee = (qty * price * Decimal("0.00055")).quantize(Decimal("1e-8"))
        self.cash -= side.sign * qty * price + fee
        self.hear(
            OrderFilled(
                self.now,
                self.now,
                f"e{self.steps}",
                link_id,
                symbol,
                side,
                price,
                qty,
                fee,
                left,
                False,
                origin,
            )
        )

    def _told_stop(self, order: OrderRequest) -> None:
        """The stop inside an entry is live with its first fill, where the price has not passed it."""
        position = self.engine.portfolio.positions.get(order.symbol)
        if order.reduce_only or position is None or position.side is not order.side:
            return
        if position.stop is None and self.steps % 3:  # else the exchange is late, or has lost it
            self.hear(StopMoved(self.now, self.now, order.symbol, order.stop_loss))

    def _under_way(self, order: OrderRequest) -> Decimal:
        """Of all open orders of this kind in this symbol."""
        kind = (order.symbol, order.side, order.reduce_only)
        return sum(
            (left for o, left in self.open.values() if (o.symbol, o.side, o.reduce_only) == kind), Decimal(0)
        )

    def quiet(self, seconds: int) -> None:
        """Nothing but time."""
        for _ in range(seconds):
            self.tick(1)

    def _opposed(self, order: OrderRequest) -> Decimal:
        position = self.engine.portfolio.positions.get(order.symbol)
        return max(Decimal(0), -position.qty * order.side.sign) if position else Decimal(0)

    def _cash(self) -> Decimal:
        portfolio = self.engine.portfolio
        cost = sum((p.qty * p.entry for p in portfolio.positions.values()), Decimal(0))
        return portfolio.balance - cost

    def _pick(self, pick: int) -> str | None:
        return list(self.open)[pick % len(self.open)] if self.open else None


def wander(world: Hostile, random: random.Random, steps: int) -> None:
    """Random acts, the usual ones more often, until the engine has heard so many facts."""
    acts = (
        (30, lambda: world.bar(
            random.choice(SYMBOLS), random.gauss(0, 0.004),
            random.choice(("buy", "sell", "buy", "sell", "exit", "nan", "")), random.random() ** 2,
        )),
        (10, lambda: world.tick(random.expovariate(0.2))),
        (12, lambda: world.fill(random.randrange(99), random.choice((1.0, 1.0, random.random())), 0.0005)),
        (4, lambda: world.accept(random.randrange(99))),
        (3, lambda: world.end(random.randrange(99), rejected=random.random() < 0.5)),
        (3, lambda: world.stop_out(random.choice(SYMBOLS), random.choice((1.0, random.random())))),
        (6, lambda: world.answer_stop(random.choice(SYMBOLS), granted=random.random() < 0.8)),
        (1, lambda: world.adopt(random.choice(SYMBOLS), random.randint(-15, 15))),
        (1, lambda: world.trouble(random.choice(("feed", "account")), over=random.random() < 0.8)),
        (1, lambda: world.fault(random.choice(SYMBOLS), over=random.random() < 0.8)),
        (1, lambda: world.somebody_else(
            random.choice(SYMBOLS), random.choice((*[0] * 8, 5, -5)), random.choice((*[0] * 7, 1)),
        )),
        (1, lambda: world.pay_funding(random.choice(SYMBOLS), random.randint(-50, 50))),
        (0.5, lambda: world.transfer(random.randint(-500, 500))),
        (0.5, lambda: world.delist(random.choice(SYMBOLS))),
        (2, lambda: world.list(random.choice(SYMBOLS))),
        (0.5, lambda: world.tick(-random.expovariate(0.01))),
        (0.3, lambda: world.tick(random.expovariate(1e-5))),
        (0.1, lambda: world.broken_price(random.choice(SYMBOLS))),
        (0.2, world.release),
        (1, lambda: world.quiet(45)),
    )  # fmt: skip
    weights, choices = zip(*acts, strict=True)
    while world.steps < steps:
        for act in random.choices(choices, weights, k=100):
            act()
