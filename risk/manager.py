"""The only place that makes an order legal. Entries pass every check in order; exits are never refused."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from bot.core.money import exact, quantity
from bot.core.signal import Signal
from bot.core.types import Instrument, OrderRequest, OrderType, Side, Stage
from bot.settings import Costs, Gate, Risk
from risk.breaker import Breaker
from risk.sizing import position_notional
from risk.stops import stop_distance, stop_price, take_profit_price

_SEAL = object()


@dataclass(frozen=True, slots=True)
class Approved:
    """An order that passed every check. It can be made here only; execution accepts nothing else."""

    order: OrderRequest
    seal: object

    def __post_init__(self) -> None:
        if self.seal is not _SEAL:
            raise TypeError("orders are approved by risk.manager only")


@dataclass(frozen=True, slots=True)
class Denied:
    """Not approved, with the first check that failed."""

    reason: str


class AccountState(Protocol):
    """What risk needs to know of the account; pending entries count as if they were filled.

    `blocked` says why no position may be opened now, "" when it may.
    """

    @property
    def blocked(self) -> str: ...
    @property
    def equity(self) -> float: ...
    @property
    def gross_notional(self) -> float: ...
    @property
    def open_positions(self) -> int: ...
    def is_exposed(self, symbol: str) -> bool: ...
    def market_faults(self, symbol: str) -> tuple[str, ...]: ...


class RiskManager:
    """Stateless but for the breaker: the same signal and account give the same answer."""

    def __init__(self, risk: Risk, gate: Gate, costs: Costs, breaker: Breaker) -> None:
        self._risk = risk
        self._gate = gate
        self._breaker = breaker
        self._round_trip = 2 * (costs.taker_fee + costs.half_spread)
        self._checks: tuple[Callable[[Signal, AccountState], str | None], ...] = (
            self._halt,
            self._market,
            self._ladder,
            self._numbers,
            self._one_position,
            self._confidence,
            self._similarity,
            self._expected_move,
            self._position_count,
        )

    def review(
        self, signal: Signal, instrument: Instrument | None, account: AccountState, link_id: str
    ) -> Approved | Denied:
        """Judge the entry that `signal` wishes. The stop loss travels inside the order."""
        if instrument is None or signal.side is None:
            return Denied(f"{signal.symbol}: instrument unknown or delisted")
        for check in self._checks:
            reason = check(signal, account)
            if reason is not None:
                return Denied(reason)
        return self._sized(signal, signal.side, instrument, account, link_id)

    def approve_exit(self, symbol: str, side: Side, qty: Decimal, link_id: str) -> Approved:
        """A reduce-only market order of `side` that closes `qty`: always legal."""
        order = OrderRequest(
            link_id=link_id, symbol=symbol, side=side, type=OrderType.MARKET, qty=qty, reduce_only=True
        )
        return Approved(order, _SEAL)

    # --- the checks, in order ------------------------------------------------------------------------------

    def _halt(self, signal: Signal, account: AccountState) -> str | None:
        reason = self._breaker.reason or self._breaker.token_reason(signal.symbol)
        return f"halted: {reason}" if reason else account.blocked or None

    def _market(self, signal: Signal, account: AccountState) -> str | None:
        faults = account.market_faults(signal.symbol)
        return f"the market data cannot be trusted: {'; '.join(faults)}" if faults else None

    def _numbers(self, signal: Signal, account: AccountState) -> str | None:
        numbers = (signal.price, signal.confidence, signal.similarity, signal.sigma, signal.expected_move)
        if not all(math.isfinite(x) for x in numbers) or signal.price <= 0:
            return "the signal has a number that is not finite"
        if not math.isfinite(account.equity) or account.equity <= 0:
            return f"equity is {account.equity}"
        return None

    def _ladder(self, signal: Signal, _: AccountState) -> str | None:
        if signal.stage in (Stage.SMALL, Stage.FULL):
            return None
        return f"stage {signal.stage}: {signal.waits_for or 'not yet trusted'}"

    def _one_position(self, signal: Signal, account: AccountState) -> str | None:
        return "already in the market" if account.is_exposed(signal.symbol) else None

    def _confidence(self, signal: Signal, _: AccountState) -> str | None:
        least = self._gate.confidence
        return f"confidence {signal.confidence:.3f} < {least:g}" if signal.confidence < least else None

    def _similarity(self, signal: Signal, _: AccountState) -> str | None:
        least = self._gate.similarity
        return f"similarity {signal.similarity:.2f} < {least:g}" if signal.similarity < least else None

    def _expected_move(self, signal: Signal, _: AccountState) -> str | None:
        least = self._risk.min_move_costs * self._round_trip
        if signal.expected_move < least:
            times = self._risk.min_move_costs
            return f"expected move {signal.expected_move:.2%} < {least:.2%}, {times:g} x costs"
        return None

    def _position_count(self, _: Signal, account: AccountState) -> str | None:
        most = self._risk.max_positions
        return f"{most} positions are open" if account.open_positions >= most else None

    # --- size ----------------------------------------------------------------------------------------------

    def _sized(
        self, signal: Signal, side: Side, instrument: Instrument, account: AccountState, link_id: str
    ) -> Approved | Denied:
        wanted = position_notional(signal, account.equity, self._risk, self._gate)
        room = account.equity * self._risk.max_exposure - account.gross_notional
        notional = min(wanted, room)
        qty = min(quantity(max(notional, 0.0) / signal.price, instrument), instrument.max_market_qty)
        value = float(qty) * signal.price
        least = max(self._risk.min_notional, float(instrument.min_notional))
        if qty < instrument.min_qty or value < least:
            limit = "exposure limit leaves" if room < wanted else "sizing gives"
            return Denied(f"{limit} {max(notional, 0.0):.2f}, the smallest order is {least:g}")
        distance = stop_distance(signal.sigma, signal.horizon_bars, self._risk)
        stop = stop_price(signal.price, side, distance, instrument)
        if (exact(signal.price) - stop) * side.sign <= 0:
            return Denied(f"a stop of {distance:.2%} is less than one tick ({instrument.tick_size}) away")
        target = take_profit_price(signal.price, side, max(signal.expected_move, distance), instrument)
        order = OrderRequest(
            link_id=link_id,
            symbol=signal.symbol,
            side=side,
            type=OrderType.MARKET,
            qty=qty,
            stop_loss=stop,
            take_profit=target if target > 0 else None,
        )
        return Approved(order, _SEAL)
