"""Entries that take more than one order: post-only with new quotes, or slices over time.

Pure state machines. A `Work` says what its entry needs next; who asks has each part approved by risk before
it leaves. There is at most one order of a work at a time, so its parts can never exceed the whole.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from bot.core.money import to_grid
from bot.core.signal import Signal
from bot.core.types import Instrument, OrderRequest
from bot.settings import Execution

_ZERO = Decimal(0)


class Place(NamedTuple):
    """An order for a part, post-only at `price`, or at the market where that is None."""

    qty: Decimal
    price: Decimal | None


class Amend(NamedTuple):
    link_id: str
    price: Decimal


class Cancel(NamedTuple):
    link_id: str


Intent = Place | Amend | Cancel


@dataclass(slots=True)
class Work:
    """One entry on its way. Times: ms.

    whole: as risk approved it; slices: 1 for a post-only entry, else parts at the market, one each `pause`
    """

    whole: OrderRequest
    signal: Signal
    instrument: Instrument
    rules: Execution
    began: int
    slices: int
    left: Decimal = field(init=False)  # of the whole, not filled yet
    link_id: str = ""  # of the part that is out
    over: bool = False  # nothing more will be sent
    _quote: Decimal | None = None  # of the part that is out
    _out: Decimal = _ZERO  # its quantity that is not filled yet
    _quoted: int = 0  # when it was placed or amended
    _cancelled: bool = False  # a cancel is on its way
    _sent: int = 0  # slices so far
    _crossed: bool = False  # the rest went to the market

    def __post_init__(self) -> None:
        self.left = self.whole.qty

    @property
    def unsent(self) -> Decimal:
        """What may still be ordered, beside the part that is out."""
        return _ZERO if self.over else self.left - self._out

    def next(self, now: int, passive: Decimal) -> Intent | None:
        """What to do now; `passive` is the price at which a post-only order would rest best."""
        if self.link_id:
            return self._look_after(now, passive)
        if self.over:
            return None
        intent = self._slice(now) if self.slices > 1 else self._passive(now, passive)
        if intent is not None and intent.qty < self.instrument.min_qty:
            self.over = True
            return None
        return intent

    def sent(self, link_id: str, part: Place, now: int) -> None:
        """A part has left."""
        self.link_id, self._out, self._quote, self._quoted = link_id, part.qty, part.price, now
        self._cancelled = False
        self._sent += 1
        self._crossed = part.price is None

    def amended(self, price: Decimal, now: int) -> None:
        self._quote, self._quoted = price, now

    def cancelled(self) -> None:
        """A cancel has left."""
        self._cancelled = True

    def filled(self, qty: Decimal, leaves: Decimal) -> None:
        """An execution of the part that is out."""
        self.left -= qty
        self._out -= qty
        if leaves <= 0:
            self.ended()
        if self.left <= 0:
            self.over = True

    def ended(self) -> None:
        """The part that is out is over: filled, rejected or cancelled."""
        self.link_id, self._out, self._quote = "", _ZERO, None
        if self.slices > 1:
            self.over = self.over or self._sent >= self.slices
        elif self._crossed:
            self.over = True

    def stop(self) -> None:
        """Nothing more is wanted; what is out is to be cancelled."""
        self.over = True

    def _look_after(self, now: int, passive: Decimal) -> Intent | None:
        if self._cancelled or (self._quote is None and not self.over):
            return None
        if self.over or now >= self._deadline:
            return Cancel(self.link_id)
        if passive != self._quote and now - self._quoted >= self.rules.requote_seconds * 1_000:
            return Amend(self.link_id, passive)
        return None

    def _passive(self, now: int, passive: Decimal) -> Place | None:
        if now < self._deadline:
            waits = self._sent and now - self._quoted < self.rules.requote_seconds * 1_000
            return None if waits else Place(self.left, passive)
        if self.rules.at_deadline == "give_up":
            self.over = True
            return None
        return Place(self.left, None)

    def _slice(self, now: int) -> Place | None:
        """What an earlier slice did not get is shared by the later ones."""
        pause = self.rules.twap_seconds * 1_000 / self.slices
        if now < self.began + self._sent * pause:
            return None
        share = self.left / (self.slices - self._sent)
        return Place(min(self.left, to_grid(share, self.instrument.qty_step, up=True)), None)

    @property
    def _deadline(self) -> int:
        return self.began + int(self.rules.deadline_seconds * 1_000)


def work_of(
    whole: OrderRequest, signal: Signal, instrument: Instrument, rules: Execution, now: int, least: float
) -> Work | None:
    """How to work an approved entry; None where one market order does it. least: notional of a slice."""
    notional = float(whole.qty) * signal.price
    slices = min(rules.twap_slices, int(notional / least)) if notional > rules.twap_notional else 1
    if slices > 1:
        return Work(whole, signal, instrument, rules, now, slices)
    return Work(whole, signal, instrument, rules, now, 1) if rules.style == "post_only" else None
