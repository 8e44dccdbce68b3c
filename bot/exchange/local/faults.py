"""The switchboard of everything that goes wrong between a client and an exchange.

A fault is armed with a kind and, where it makes sense, a target (a path of REST, an op of order entry, or a
topic; `*` is a wildcard), how often it strikes, how likely, and how long. What it does:

    refuse            connections and requests are cut before anything is looked at
    drop              a request is cut or unheard before it is executed; a frame of a stream is not sent
    delay             an answer or a frame comes `ms` later
    duplicate         a frame of a stream comes twice
    reorder           a frame of a stream changes places with the next one; if none comes, it is `ms` late
    half_open         a connection stays up, but nothing is read or sent any more
    slow_reader       a connection is read once in `ms` only
    gap               an order book delta is left out, so that `u` jumps
    crossed_book      an order book delta crosses the book
    bad_gateway       HTTP 502 with an HTML body, nothing executed
    too_many_visits   10006, nothing executed
    server_error      10016 although the request *was* executed, as a timeout inside the exchange would
    bad_timestamp     10002, nothing executed
    ack_lost          executed, then the connection is cut without an answer
    hidden            executed and answered, but for `ms` the new orders and their executions are in no list
                      and in no message (positions and the wallet are)
    fill_before_ack   executed, the streams tell it first, the answer comes `ms` later
    clock_skew        the exchange's clock runs `ms` ahead (negative: behind)
    maintenance       orders are refused with 10016, announced by system status
    restart           every connection is cut, nothing accepted for `ms`, order books begin with u = 1
"""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from random import Random
from typing import Final

from bot.core.errors import UsageError

KINDS: Final = (
    "refuse", "drop", "delay", "duplicate", "reorder", "half_open", "slow_reader", "gap", "crossed_book",
    "bad_gateway", "too_many_visits", "server_error", "bad_timestamp", "ack_lost", "hidden",
    "fill_before_ack", "clock_skew", "maintenance", "restart",
)  # fmt: skip


@dataclass(slots=True)
class Fault:
    """`count`: how often it strikes before it is over; None: until it is cleared or `lasts_ms` are over."""

    kind: str
    target: str = "*"
    count: int | None = None
    probability: float = 1.0
    ms: int = 500
    lasts_ms: int | None = None
    since: float = 0.0
    until: float = float("inf")
    struck: int = 0


class Faults:
    """Deterministic by seed. `strike` asks, counts and spends; `holds` counts; `current` only looks.

    now: ms
    """

    def __init__(self, seed: int, now: Callable[[], float]) -> None:
        self._rng = Random(f"faults/{seed}")
        self.armed: list[Fault] = []
        self.struck: dict[str, int] = dict.fromkeys(KINDS, 0)
        self._now = now

    def arm(
        self,
        kind: str,
        target: str = "*",
        *,
        count: int | None = None,
        probability: float = 1.0,
        ms: int = 500,
        lasts_ms: int | None = None,
    ) -> Fault:
        """Raises UsageError for a kind that there is not."""
        if kind not in KINDS:
            raise UsageError(f"no fault {kind!r}; there are {', '.join(KINDS)}")
        now = self._now()
        until = float("inf") if lasts_ms is None else now + lasts_ms
        fault = Fault(kind, target, count, probability, ms, lasts_ms, now, until)
        self.armed.append(fault)
        return fault

    def clear(self, kind: str | None = None) -> None:
        self.armed = [fault for fault in self.armed if kind is not None and fault.kind != kind]

    def current(self, kind: str, target: str = "") -> Fault | None:
        if not self.armed:
            return None
        now = self._now()
        self.armed = [fault for fault in self.armed if fault.until > now]
        for fault in self.armed:
            if fault.kind == kind and fnmatchcase(target, fault.target):
                return fault
        return None

    def holds(self, kind: str, target: str = "") -> Fault | None:
        """As `current`, of a state that somebody meets here: counted, but never spent."""
        fault = self.current(kind, target)
        if fault is not None:
            fault.struck += 1
            self.struck[kind] += 1
        return fault

    def strike(self, kind: str, target: str = "") -> Fault | None:
        fault = self.current(kind, target)
        if fault is None or (fault.probability < 1 and self._rng.random() >= fault.probability):
            return None
        fault.struck += 1
        self.struck[kind] += 1
        if fault.count is not None and fault.struck >= fault.count:
            self.armed.remove(fault)
        return fault
