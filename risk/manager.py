"""The only place that makes an order legal. Entries pass every check in order; exits are never refused."""

from dataclasses import dataclass
from decimal import Decimal

from bot.core.signal import Signal
from bot.core.types import Instrument, OrderRequest, OrderType, Side
from bot.settings import Costs, Gate, Risk
from risk.breaker import Breaker
from risk.checks import LASTING, objection
from risk.context import AccountState, Context

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


class RiskManager:
    """Stateless but for the breaker: the same signal and account give the same answer.

    live: see Context
    """

    def __init__(self, risk: Risk, gate: Gate, costs: Costs, breaker: Breaker, *, live: bool = False) -> None:
        self._risk = risk
        self._gate = gate
        self._costs = costs
        self._breaker = breaker
        self._live = live

    @property
    def half_spread(self) -> float:
        """Fraction of the price, where no quote is known."""
        return self._costs.half_spread

    def review(
        self, signal: Signal, instrument: Instrument | None, account: AccountState, link_id: str
    ) -> Approved | Denied:
        """Judge the entry that `signal` wishes. The stop loss travels inside the order."""
        if instrument is None or signal.side is None:
            return Denied(f"{signal.symbol}: instrument unknown or delisted")
        context = self._context(signal, signal.side, instrument, account)
        reason = objection(context)
        return Denied(reason) if reason else Approved(context.order(link_id), _SEAL)

    def review_part(
        self, whole: OrderRequest, part: OrderRequest, signal: Signal, instrument: Instrument,
        account: AccountState, price: float,
    ) -> Approved | Denied:  # fmt: skip
        """A part of an entry that was approved as `whole`: smaller, else the same; `signal` wished it.

        price: of the market now
        """
        same = (part.symbol, part.side, part.stop_loss) == (whole.symbol, whole.side, whole.stop_loss)
        if not same or part.reduce_only or not 0 < part.qty <= whole.qty:
            return Denied("not a part of what was approved")
        if whole.stop_loss is not None and (price - float(whole.stop_loss)) * whole.side.sign <= 0:
            return Denied("the price has passed its stop")
        moved = abs(price / signal.price - 1)
        if not moved <= self._risk.collar:
            return Denied(f"the price has moved by {moved:.2%} since the decision")
        most = self._risk.position_share * account.equity * (1 + self._risk.collar)
        if not float(whole.qty) * price <= most:
            return Denied(
                f"the position would be worth {float(whole.qty) * price:.2f}, the limit is {most:.2f}"
            )
        reason = objection(self._context(signal, whole.side, instrument, account), LASTING)
        return Denied(reason) if reason else Approved(part, _SEAL)

    def _context(self, signal: Signal, side: Side, instrument: Instrument, account: AccountState) -> Context:
        return Context(
            signal, side, instrument, account, self._breaker, self._risk, self._gate, self._costs, self._live
        )

    def approve_exit(self, symbol: str, side: Side, qty: Decimal, link_id: str) -> Approved:
        """A reduce-only market order of `side` that closes `qty`: always legal."""
        order = OrderRequest(
            link_id=link_id, symbol=symbol, side=side, type=OrderType.MARKET, qty=qty, reduce_only=True
        )
        return Approved(order, _SEAL)
