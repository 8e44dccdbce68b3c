"""What every signed endpoint is given and gives back, and what several of them share."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

from bot.core.types import DAY_MS
from bot.exchange.local.account import Account
from bot.exchange.local.clearing import Clearing
from bot.exchange.local.gate import Key
from bot.exchange.local.market_api import is_linear, limit_of
from bot.exchange.local.orders import Refused
from bot.exchange.local.terms import PARAMS, text, whole, wrong
from bot.exchange.local.world import World

Params = Mapping[str, Any]
LONGEST_WINDOW: Final = 7 * DAY_MS


class Asked(NamedTuple):
    """A request that has passed the gate. `admitted`: items of a batch that the rate limit lets through;
    `hidden`: ids of orders that no list shows yet."""

    world: World
    key: Key
    params: Params
    now: int
    admitted: int = 1
    hidden: Collection[str] = ()

    @property
    def account(self) -> Account:
        return self.key.account

    @property
    def clearing(self) -> Clearing:
        return self.world.clearing


class Answer(NamedTuple):
    result: Any
    extra: Any = None


Handler = Callable[[Asked], Answer]


def require_linear(params: Params) -> None:
    if not is_linear(params, ""):
        raise Refused(PARAMS, "params error: only linear contracts are traded here")


def window(params: Params, now: int, usual_days: int = 7) -> tuple[int, int]:
    """From `startTime` to `endTime`, at most seven days; where one is missing, `usual_days`."""
    first, last = whole(params, "startTime"), whole(params, "endTime")
    if first and last and not 0 <= last - first <= LONGEST_WINDOW:
        raise wrong("the time range exceeds 7 days" if last > first else "endTime is before startTime")
    if not last:
        last = first + usual_days * DAY_MS if first else now
    return first or last - usual_days * DAY_MS, last


def cut(rows: list[Any], params: Params, default: int, largest: int) -> tuple[list[Any], str]:
    """One page. The cursor counts from the oldest row, so that new rows do not shift the pages."""
    limit = limit_of(params, default, largest)
    cursor = text(params, "cursor").replace("%3A", ":").removeprefix("left:")
    if cursor and not cursor.isdecimal():
        raise wrong("cursor invalid")
    left = int(cursor) if cursor else len(rows)
    first = max(0, len(rows) - left)
    page = rows[first : first + limit]
    rest = len(rows) - first - len(page)
    return page, f"left%3A{rest}" if rest > 0 else ""
