"""When a symbol was ours, by what runs have on record: from each entry until nothing is held of it. Pure.

A run that a fill never reached, or that adopted what the exchange held, does not know when that began or
ended: then all of its time there is ours.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

_ZERO: Final = Decimal(0)


class Span(NamedTuple):
    """Time, ms UTC. until: infinite where the end is not on record."""

    since: int
    until: float = math.inf


class Sent(NamedTuple):
    """An entry. ended: None where nobody learnt what became of it."""

    created: int
    ended: int | None


@dataclass(slots=True)
class Life:
    """What one run, begun at `started` (ms), left on record of one symbol."""

    started: int
    entries: list[Sent] = field(default_factory=list)
    fills: list[tuple[int, Decimal]] = field(default_factory=list)  # signed quantities
    held: Decimal | None = None  # in the end; None where the run never knew
    known: int = 0  # when it last changed

    def last(self) -> int:
        ended = [sent.ended or sent.created for sent in self.entries]
        return max([self.known, *ended, *(ts for ts, _ in self.fills)])


def spans_of(lives: Iterable[Life]) -> list[Span]:
    """Of one symbol, from its runs, oldest first."""
    found: list[Span] = []
    since: int | None = None
    entered: int | None = None  # when the newest entry of earlier runs was sent
    held, pending = _ZERO, 0  # entries whose end is not known
    for life in lives:
        if life.held is not None:
            pending = 0  # a later run has looked
        total = held + sum((qty for _, qty in life.fills), _ZERO)
        told = bool(life.fills) or since is not None  # what brought it about
        if life.held is None or (told and life.held == total):
            steps = [(ts, 1, qty, 0) for ts, qty in life.fills]
            for sent in life.entries:
                steps.append((sent.created, 0, _ZERO, 1))
                steps += [] if sent.ended is None else [(sent.ended, 2, _ZERO, -1)]
            for ts, _, qty, out in sorted(steps):
                since = ts if since is None else since
                held, pending = held + qty, pending + out
                if not held and not pending:
                    found.append(Span(since, ts))
                    since = None
        else:  # something was adopted
            if since is None:
                since = life.started if entered is None else entered
            held, pending = life.held, sum(sent.ended is None for sent in life.entries)
        if since is not None and not held and not pending:
            found.append(Span(since, life.last()))
            since = None
        entered = max((sent.created for sent in life.entries), default=entered)
    return [*found, Span(since)] if since is not None else found
