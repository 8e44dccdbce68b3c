"""How a running engine stands, in a form that another process can read."""

import math
from decimal import Decimal

import msgspec

from bot.core.records import RungChanged
from bot.engine.engine import Engine


class Holding(msgspec.Struct, frozen=True):
    """A position; `qty` is signed."""

    symbol: str
    qty: Decimal
    entry: Decimal
    stop: Decimal | None


class Pending(msgspec.Struct, frozen=True):
    """An order that has not ended. `leaves` is what is not filled of it."""

    link_id: str
    symbol: str
    side: str
    leaves: Decimal
    status: str
    reduce_only: bool


class Standing(msgspec.Struct, frozen=True):
    """`blocks`: why no position may be opened, by cause. `faults`: of market data, by symbol.
    `left_out`: new tokens that are not followed, and why. `rungs`: what each token is traded by, and why.
    `verdicts`: whether the transfer helps it, in words. `others`: what somebody else has and is left alone,
    by symbol."""

    equity: float | None  # None when it cannot be valued
    balance: float
    decided: int  # close of the newest decision bar, ms UTC; 0 before the first
    blocks: dict[str, str]
    faults: dict[str, tuple[str, ...]]
    positions: tuple[Holding, ...]
    orders: tuple[Pending, ...]
    left_out: dict[str, str] = {}
    heard: int = 0  # the run's clock: when its newest fact was received, ms UTC
    rungs: tuple[RungChanged, ...] = ()
    verdicts: dict[str, str] = {}
    others: dict[str, str] = {}

    @property
    def is_flat(self) -> bool:
        """Nothing is held, and nothing that could still be is on its way."""
        return not self.positions and all(order.reduce_only for order in self.orders)


def standing(engine: Engine) -> Standing:
    portfolio = engine.portfolio
    return Standing(
        equity=portfolio.equity if math.isfinite(portfolio.equity) else None,
        balance=float(portfolio.balance),
        decided=engine.decided,
        blocks=engine.blocks,
        faults=engine.faults,
        positions=tuple(
            Holding(item.symbol, item.qty, item.entry, item.stop)
            for item in sorted(portfolio.positions.values(), key=lambda held: held.symbol)
        ),
        orders=tuple(
            Pending(
                live.request.link_id, live.request.symbol, live.request.side.value, live.leaves,
                live.status.value, live.request.reduce_only,
            )
            for live in engine.orders.open
        ),
        left_out=dict(engine.left_out),
        heard=engine.heard,
        rungs=tuple(engine.rungs[symbol] for symbol in sorted(engine.rungs)),
        verdicts={symbol: str(judged) for symbol, judged in engine.verdicts.items()},
        others=dict(engine.others),
    )  # fmt: skip
