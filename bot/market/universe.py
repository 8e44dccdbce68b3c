"""Which tokens are followed: those that are held or named, then the newest that trade well enough.

The order in which tokens get a place, the same for the same facts:

1. what is held, whatever the limits say, and what `universe.always` names, as far as it is listed
2. tokens that are followed already, as long as they are young and liquid enough: nobody is driven out
3. new ones that keep the limits
4. followed ones that are too old or too thin by now: they stay until somebody wants their place

and within each: later launch first, then greater turnover, then name. `universe.never` is held or not there.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bot.core.types import DAY_MS, Instrument
from bot.market.liquidity import Liquidity
from bot.settings import Universe as Limits


class Choice(NamedTuple):
    """followed: sources are no part of it; left_out: why, by symbol, of those that are young enough."""

    followed: list[Instrument]
    left_out: dict[str, str]


@dataclass(frozen=True, slots=True)
class Universe:
    """days: age up to which a token is new; most: places; only: if any, nothing else is wanted, but held."""

    limits: Limits
    days: float
    most: int
    only: frozenset[str] = frozenset()

    def wants(self, item: Instrument, now: int) -> bool:
        """By name and age alone."""
        if item.symbol in self.limits.never:
            return False
        if item.symbol in self.limits.always or item.symbol in self.only:
            return True
        return not self.only and item.launch_time > now - self.days * DAY_MS

    def choose(
        self,
        listed: Mapping[str, Instrument],
        liquidity: Mapping[str, Liquidity],
        now: int,
        *,
        followed: Collection[str] = (),
        held: Collection[str] = (),
    ) -> Choice:
        """listed: what trades and is no source; liquidity: as far as it is known; now: ms UTC."""
        ranked: list[tuple[tuple[int, int, float, str], Instrument]] = []
        left_out: dict[str, str] = {}
        for item in listed.values():
            rank, reason = self._rank(item, liquidity.get(item.symbol), now, followed, held)
            if reason:
                left_out[item.symbol] = reason
            if rank:
                turnover = liquidity.get(item.symbol, Liquidity()).turnover
                known = 0.0 if math.isnan(turnover) else turnover
                ranked.append(((rank, -item.launch_time, -known, item.symbol), item))
        ranked.sort(key=lambda pair: pair[0])
        places = max(self.most, sum(item.symbol in held for _, item in ranked))
        for (rank, *_), item in ranked[places:]:
            if rank < _FADING:
                left_out[item.symbol] = f"all {places} places are taken"
        return Choice([item for _, item in ranked[:places]], left_out)

    def _rank(
        self,
        item: Instrument,
        liquidity: Liquidity | None,
        now: int,
        followed: Collection[str],
        held: Collection[str],
    ) -> tuple[int, str]:
        """0 = not to be followed; and why not, where a person may ask."""
        symbol = item.symbol
        if symbol in held:
            return _HELD, ""
        if symbol in self.limits.never:
            return 0, "universe.never names it"
        if symbol in self.limits.always or symbol in self.only:
            return _NAMED, ""
        inside, wanted = symbol in followed, self.wants(item, now)
        lacks = (liquidity or Liquidity()).lacks(self.limits, inside=inside)
        if inside:
            return (_KEPT if wanted and not lacks else _FADING), ""
        if not wanted:
            return 0, ""
        if lacks:
            return 0, "; ".join(lacks)
        if self.limits.min_turnover and (liquidity is None or math.isnan(liquidity.turnover)):
            return 0, "its turnover is not known yet"
        return _NEW, ""


_HELD, _NAMED, _KEPT, _NEW, _FADING = range(1, 6)
