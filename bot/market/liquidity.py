"""How well a token must trade to be followed, and to be traded: turnover, spread and depth.

The limits have two sides, so that a token at one of them does not come and go: who is out must keep them
whole, who is in may miss them by the factor `universe.slack`. What is unknown (NaN) is no reason against.
"""

from typing import NamedTuple

from bot.core.types import DAY_MS, HOUR_MS
from bot.settings import Universe


class Liquidity(NamedTuple):
    """turnover: quote coin per day; spread: (ask - bid) / mid; depth: quote coin within 10 bps of mid, the
    thinner side. NaN = unknown."""

    turnover: float = float("nan")
    spread: float = float("nan")
    depth: float = float("nan")

    def lacks(self, limits: Universe, *, inside: bool) -> tuple[str, ...]:
        """Which limits it misses; `inside`: those for a token that has kept them so far."""
        slack = limits.slack if inside else 1.0
        least, most, deep = limits.min_turnover * slack, limits.max_spread / slack, limits.min_depth * slack
        found = []
        if self.turnover < least:
            found.append(f"turnover of {self.turnover:,.0f} a day < {least:,.0f}")
        if self.spread > most:
            found.append(f"spread {self.spread:.3%} > {most:.3%}")
        if self.depth < deep:
            found.append(f"depth {self.depth:,.0f} < {deep:,.0f}")
        return tuple(found)


def per_day(turnover_24h: float, age: int) -> float:
    """A day's turnover from that of the last 24 hours, or of the `age` in ms (an hour at least) if less."""
    return turnover_24h * DAY_MS / min(DAY_MS, max(HOUR_MS, age))
