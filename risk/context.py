"""What an entry is judged by: the wish, the account, the market, and the order that would come of it."""

import math
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple, Protocol

from bot.core.money import quantity
from bot.core.signal import Signal
from bot.core.types import Instrument, OrderRequest, OrderType, Side, TradingStatus, Trigger
from bot.settings import Costs, Gate, Risk
from risk.breaker import Breaker
from risk.sizing import position_notional
from risk.stops import stop_distance, stop_price, take_profit_price


class MarketFacts(NamedTuple):
    """What is known of one symbol's market; NaN (0 for the time) = unknown.

    spread: (ask - bid) / mid; depth: quote coin near the touch, the thinner side; turnover: quote coin per
    decision bar, the recent mean or that of a day if it is less; open_interest: quote coin; funding_rate: the
    newest known, paid by longs at `next_funding` (ms)
    """

    status: TradingStatus = TradingStatus.TRADING
    faults: tuple[str, ...] = ()
    spread: float = math.nan
    depth: float = math.nan
    mid: float = math.nan
    mark: float = math.nan
    turnover: float = math.nan
    open_interest: float = math.nan
    funding_rate: float = math.nan
    next_funding: int = 0


class Exposure(NamedTuple):
    """Notionals of what is held, quote coin. cluster: in the direction of a position of `side` in `symbol`,
    in tokens that move with it."""

    gross: float
    net: float
    cluster: float


class AccountState(Protocol):
    """What risk needs to know of the account; pending entries count as if they were filled.

    Notionals and `open_risk` (what is lost if every stop is hit) are in quote coin.
    """

    @property
    def blocked(self) -> str:
        """Why no position may be opened now, "" when it may."""

    @property
    def equity(self) -> float: ...
    @property
    def balance(self) -> float: ...
    @property
    def gross_notional(self) -> float: ...
    @property
    def open_risk(self) -> float: ...
    @property
    def open_positions(self) -> int: ...
    def is_exposed(self, symbol: str, side: Side) -> bool:
        """Whether an entry of `side` would add to what is held or ordered."""

    def somebody_else(self, symbol: str) -> str:
        """What others have in the symbol and is left alone, "" for nothing."""

    def exposure(self, symbol: str, side: Side) -> Exposure: ...

    def entries_since(self, ts: int) -> int: ...
    def last_loss(self, symbol: str) -> int:
        """When the newest losing position of the token ended, ms; 0 = never."""

    def market(self, symbol: str, now: int) -> MarketFacts: ...


class Rooms(NamedTuple):
    """How much each limit leaves for an order, quote coin; infinite where what it is a share of is not known.

    leverage: gains that are not realised lend nothing
    """

    position: float
    gross: float
    net: float
    cluster: float
    leverage: float
    order: float
    turnover: float
    interest: float
    depth: float


@dataclass(frozen=True)
class Context:
    """live: the market is a real one as it happens; there, what is not known of it forbids an entry."""

    signal: Signal
    side: Side
    instrument: Instrument
    account: AccountState
    breaker: Breaker
    risk: Risk
    gate: Gate
    costs: Costs
    live: bool

    @cached_property
    def market(self) -> MarketFacts:
        return self.account.market(self.signal.symbol, self.signal.ts)

    @cached_property
    def rooms(self) -> Rooms:
        account, risk, market = self.account, self.risk, self.market
        equity, held = account.equity, account.exposure(self.signal.symbol, self.side)
        return Rooms(
            position=risk.position_share * equity,
            gross=risk.max_exposure * equity - held.gross,
            net=risk.max_net_exposure * equity - held.net * self.side.sign,
            cluster=risk.max_cluster_exposure * equity - held.cluster,
            leverage=risk.max_leverage * min(equity, account.balance) - held.gross,
            order=risk.max_notional,
            turnover=_share(risk.turnover_share, market.turnover),
            interest=_share(risk.interest_share, market.open_interest),
            depth=_share(risk.depth_share, market.depth),
        )

    # --- the order ------------------------------------------------------------------------------------------

    @cached_property
    def least(self) -> float:
        """Notional of the smallest order, quote coin."""
        return max(self.risk.min_notional, float(self.instrument.min_notional))

    @cached_property
    def qty(self) -> Decimal:
        """What sizing wants, within every room and the grid. The numbers of the signal must be finite."""
        wanted = position_notional(self.signal, self.account.equity, self.risk, self.gate)
        notional = max(0.0, min(wanted, *self.rooms))
        return min(quantity(notional / self.signal.price, self.instrument), self.instrument.max_market_qty)

    @property
    def notional(self) -> float:
        return float(self.qty) * self.signal.price

    @cached_property
    def stop_distance(self) -> float:
        return stop_distance(self.signal.sigma, self.signal.horizon_bars, self.risk)

    @cached_property
    def stop(self) -> Decimal:
        return stop_price(self.signal.price, self.side, self.stop_distance, self.instrument)

    @cached_property
    def target(self) -> Decimal | None:
        """Beyond the expected move, and never nearer than the stop."""
        if not self.risk.take_profit_moves:
            return None
        distance = max(self.risk.take_profit_moves * self.signal.expected_move, self.stop_distance)
        price = take_profit_price(self.signal.price, self.side, distance, self.instrument)
        return price if price > 0 else None

    def order(self, link_id: str) -> OrderRequest:
        return OrderRequest(
            link_id=link_id,
            symbol=self.signal.symbol,
            side=self.side,
            type=OrderType.MARKET,
            qty=self.qty,
            stop_loss=self.stop,
            take_profit=self.target,
            trigger_by=Trigger(self.risk.trigger_by),
        )


def _share(share: float, whole: float) -> float:
    return share * whole if whole >= 0 else math.inf
