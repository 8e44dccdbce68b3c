"""Whose a symbol is, where the positions of others (a person's, another bot's) are left alone. Pure.

In one-way mode the exchange nets all that happens in a symbol into one position, so it is ours or somebody
else's as a whole. It is ours from our first order there on, until the exchange has it flat and nothing of
ours can come any more; what both have traded into stays ours. A doubt is decided for ours: that is looked
after.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final, NamedTuple

from bot.core.events import OthersHold
from bot.core.types import DAY_MS
from bot.exchange.bybit.wire.account import Transaction
from bot.exchange.bybit.wire.private import Execution, Position
from bot.execution.orders import run_tag

_REMEMBERED: Final = 8 * DAY_MS  # longer than the exchange is asked about the past
_LATE: Final = 15_000  # ms by which the exchange may stamp what an ended position of earlier runs brought
_EXECUTED: Final = frozenset(
    {"TRADE", "SETTLEMENT", "LIQUIDATION", "ADL", "DELIVERY"}
)  # types of the ledger that come as executions


@dataclass(slots=True)
class _Span:
    """Time in which a symbol is ours, ms. Our clock may be wrong: executions of our orders correct it.

    made: when we claimed it, by our clock. last: the time of our newest execution, or of an adoption.
    """

    since: int
    made: int = 0
    last: int = 0
    until: float = math.inf


class Other(NamedTuple):
    """What somebody else has in a symbol: a signed quantity, and how many open orders that may add to it."""

    qty: Decimal = Decimal(0)
    orders: int = 0


class Ownership:
    """leave: positions of others are left alone; if not, whatever the account has is ours.

    earlier: tags of this installation's earlier runs. past: when symbols were theirs, oldest first (ms, from
    and to; without an end where they may still have something). unfilled: their entries of which less than
    all is on record as filled: id and when it was created, ms. started: of the run that asks, ms.
    """

    def __init__(
        self, *, leave: bool = False, earlier: Collection[str] = (),
        past: Mapping[str, Sequence[tuple[int, float]]] = MappingProxyType({}),
        unfilled: Mapping[str, int] = MappingProxyType({}), started: int = 0,
    ) -> None:  # fmt: skip
        self.leave = leave
        self.unfilled = unfilled
        self.earlier = frozenset(earlier)
        self.others: dict[str, Other] = {}  # as told
        self.strange = 0  # executions of others so far
        self.inherited = {name for name, spans in past.items() if spans[-1][1] == math.inf}  # not looked at
        self.relatives: set[str] = set()  # held by others, opened by an unknown run of this program
        self._tags = set(self.earlier)
        self._started = started
        self._record = past
        self._spans = {symbol: [self._past(*span) for span in spans] for symbol, spans in past.items()}
        self._theirs: dict[str, int] = {}  # the exchange's time of the newest that others did, ms
        self._heard: dict[str, int] = {}  # when the stream last spoke of their position, by our clock, ms

    # --- whose ----------------------------------------------------------------------------------------------

    def is_ours(self, symbol: str, link_id: str, ts: int) -> bool:
        """What happened in a symbol at `ts` (ms). Stops and funding have no id: they are the position's."""
        spans = self._spans.get(symbol, ())
        return not self.leave or self._is_tagged(link_id) or any(x.since <= ts <= x.until for x in spans)

    def holds(self, symbol: str) -> bool:
        """Whether what is held there now is ours."""
        return not self.leave or self._is_claimed(symbol)

    def books(self, line: Transaction) -> bool:
        """Whether a line of the ledger comes to our books as an execution."""
        return _is_execution(line) and self.is_ours(line.symbol, line.order_link_id, line.transaction_time)

    @property
    def claims(self) -> list[str]:
        """Symbols that are ours now by what is known of our orders."""
        return [symbol for symbol in self._spans if self._is_claimed(symbol)]

    # --- what we do -----------------------------------------------------------------------------------------

    def know(self, link_id: str) -> None:
        """An order of ours; the others of its run are ours as well."""
        if tag := run_tag(link_id):
            self._tags.add(tag)

    def enter(self, symbol: str, now: int) -> bool:
        """Just before an entry leaves: from now on the symbol is ours. False where somebody else is."""
        if self.leave and symbol in self.others:
            return False
        if self.leave:
            self._claim(symbol, max(now, self._theirs.get(symbol, 0) + 1), now)
        return True

    def release(self, symbol: str, asked: int) -> bool:
        """Nothing of ours was there after `asked` (ms), nor can come. False where that is too old."""
        span = self._spans[symbol][-1]
        if span.made >= asked:
            return False
        span.until = max(span.last, span.since)
        kept = [item for item in self._spans[symbol] if item is span or item.until > asked - _REMEMBERED]
        self._spans[symbol] = kept
        self.inherited.discard(symbol)
        return True

    def adopt(self, symbol: str, now: int) -> None:
        """What led to the position that was found there is ours, should it still be told."""
        if self._is_claimed(symbol):
            self._spans[symbol][-1].last = max(now, self._spans[symbol][-1].last)

    # --- what the exchange says -----------------------------------------------------------------------------

    def takes(self, execution: Execution) -> bool:
        """Whether an execution is ours; one of our orders makes the symbol ours."""
        symbol, ts = execution.symbol, execution.exec_time
        if self.leave and self._is_tagged(execution.order_link_id):
            self._claim(symbol, ts)
            self._spans[symbol][-1].since = min(ts, self._spans[symbol][-1].since)
        ours = self.is_ours(symbol, execution.order_link_id, ts)
        if not ours:
            self.strange += 1
            self._theirs[symbol] = max(ts, self._theirs.get(symbol, 0))
        elif self._is_claimed(symbol):
            self._spans[symbol][-1].last = max(ts, self._spans[symbol][-1].last)
        return ours

    def trace(self, position: Position, executions: Iterable[Execution]) -> None:
        """A position that the database does not know is ours if an order of ours is among what opened it."""
        links = opened_by(position, executions)
        if any(map(self._is_tagged, links)):
            self._claim(position.symbol, 0)
        elif any(map(run_tag, links)):
            self.relatives.add(position.symbol)

    def recall(self, lines: Iterable[Transaction]) -> list[Transaction]:
        """What entries of earlier runs brought about that is not on record: they had been given up, and were
        carried out after all, or had been before and no list had told.

        lines: the ledger, oldest first. From such an entry on the symbol was ours until it was flat.
        """
        since: dict[str, int] = {}
        found = []
        for line in filter(_is_execution, lines):
            symbol, ts = line.symbol, line.transaction_time
            if line.order_link_id in self.unfilled:
                since.setdefault(symbol, ts)
            if symbol in since:
                if not self._is_on_record(symbol, ts):
                    found.append(line)
                if line.size == 0:
                    self._spans.setdefault(symbol, []).insert(0, self._past(since.pop(symbol), ts))
        for symbol in since.keys() - set(self.claims):
            self._spans.setdefault(symbol, []).append(self._past(since[symbol], math.inf))
        return found

    def hear(self, position: Position, received: int) -> list[OthersHold]:
        """The stream on a position that is not ours; told when it begins, turns or ends."""
        symbol, was = position.symbol, self.others.get(position.symbol, Other())
        self._heard[symbol] = received
        self._theirs[symbol] = max(position.updated_time, self._theirs.get(symbol, 0))
        qty = position.signed_size
        if (was.qty > 0, was.qty < 0) == (qty > 0, qty < 0):
            return []
        return [self._tell(symbol, was._replace(qty=qty), received)]

    def look(
        self, held: Mapping[str, Decimal], orders: Mapping[str, int], asked: int, now: int
    ) -> list[OthersHold]:
        """All that is held (signed), and others' open orders by symbol, as they were after `asked` (ms)."""
        if not self.leave:
            return []
        told = []
        for symbol in sorted({*self.others, *held, *orders}):
            if self._heard.get(symbol, 0) >= asked:
                continue  # the stream knows better
            qty = Decimal(0) if self.holds(symbol) else held.get(symbol, Decimal(0))
            other = Other(qty, orders.get(symbol, 0))
            if other != self.others.get(symbol, Other()):
                told.append(self._tell(symbol, other, now))
        return told

    def is_another(self, link_id: str) -> bool:
        """An order that no run of this installation sent."""
        return not self._is_tagged(link_id)

    # --- parts ----------------------------------------------------------------------------------------------

    def _is_tagged(self, link_id: str) -> bool:
        return run_tag(link_id) in self._tags

    def _past(self, since: int, until: float) -> _Span:
        """Of earlier runs."""
        return _Span(since, last=self._started, until=max(until, min(until + _LATE, self._started)))

    def _is_on_record(self, symbol: str, ts: int) -> bool:
        return any(since <= ts <= until for since, until in self._record.get(symbol, ()))

    def _is_claimed(self, symbol: str) -> bool:
        spans = self._spans.get(symbol)
        return bool(spans) and spans[-1].until == math.inf  # type: ignore[index]

    def _claim(self, symbol: str, since: int, made: int = 0) -> None:
        if not self._is_claimed(symbol):
            self._spans.setdefault(symbol, []).append(_Span(since, made))

    def _tell(self, symbol: str, other: Other, now: int) -> OthersHold:
        self.others.pop(symbol, None)
        if other != Other():
            self.others[symbol] = other
        return OthersHold(now, now, symbol, other.qty, other.orders)


def _is_execution(line: Transaction) -> bool:
    """Of a contract: a person's spot trades move our coin, too."""
    return line.type in _EXECUTED and line.category in ("", "linear")


def opened_by(position: Position, executions: Iterable[Execution]) -> set[str]:
    """Link ids of what made the position since its symbol was last flat, as far back as is known."""
    links: set[str] = set()
    held = position.signed_size
    for item in sorted(executions, key=lambda found: (found.exec_time, found.seq), reverse=True):
        if held * position.signed_size <= 0:
            break
        if item.exec_type != "Funding":
            links.add(item.order_link_id)
            held -= item.exec_qty * item.side.sign
    return links
