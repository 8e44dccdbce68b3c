"""Care for the account while the past and the model of a run are prepared, which takes minutes.

The rules are those of the run itself: an engine without a strategy hears what the broker tells. So a position
that was found without a stop gets one, or is closed, before anything slow happens, and stays watched. Then
the run's engine takes the account over (`Engine.take_over`).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NoReturn

from bot.core.commands import AdaptModel, ExtendChain
from bot.core.events import AdaptationFailed, BarClosed, CandidateArrived, Event, InstrumentListed
from bot.core.types import Instrument, Position
from bot.ending import Ending
from bot.engine.engine import Engine
from bot.engine.live import follow
from bot.engine.runner import Broker, Journal, Observer, Runner
from bot.exchange.bybit.audit import RunLog
from bot.exchange.bybit.broker import BybitBroker
from bot.exchange.bybit.rest import Rest
from strategies.base import Advice, News

_LOOK_SECONDS: Final = 0.05


class NoStrategy:
    """Looks after what is held and wishes nothing."""

    def on_bar(self, bar: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
        return ()

    def on_event(self, event: News) -> Sequence[Advice]:
        return ()


class NoAdaptation:
    """Where nothing has a model."""

    def submit(self, job: AdaptModel | ExtendChain) -> None:
        raise AssertionError("nothing here has a model to adapt")

    def poll(self) -> None:
        return

    def take(self, symbol: str, cut: int, due: int) -> CandidateArrived | AdaptationFailed | None:
        return None


class Care:
    """`begin`, then `run` until cancelled; what is told later stays in the inbox, for the run's own loop."""

    def __init__(
        self, engine: Engine, broker: Broker, inbox: "asyncio.Queue[Event]", journal: Journal,
        observers: Iterable[Observer], now: Callable[[], int],
    ) -> None:  # fmt: skip
        self.engine = engine
        self.log = RunLog()
        self._inbox = inbox
        self._journal = journal
        self._now = now
        self._runner = Runner(engine, broker, NoAdaptation(), journal, 0, (*observers, self.log.apply))

    def begin(self, tradable: Iterable[Instrument]) -> None:
        """The held instruments that can still be traded: what else is held will be closed."""
        now = self._now()
        self._runner.advance([InstrumentListed(now, now, item) for item in tradable])

    async def run(self) -> NoReturn:
        await follow(
            self._runner, self._inbox, asyncio.Event(), self._journal.commit, lambda: None, self._now
        )
        raise AssertionError("nobody stops it but by cancelling")

    def ending(self, rest: Rest, broker: BybitBroker) -> Ending:
        """For a run that is stopped before it trades, when `run` has ended."""
        return Ending(rest, broker, self._inbox, self.engine, self._runner, self._journal, self.log)

    async def guarded(self, patience: float) -> list[str]:
        """Wait until every position has a stop or is on its way out; those that have neither in
        `patience` seconds.

        The account is written down then: the day has begun, whatever happens to this process.
        """
        for _ in range(round(patience / _LOOK_SECONDS)):
            if self._inbox.empty() and not self._unguarded():
                break
            await asyncio.sleep(_LOOK_SECONDS)
        self._runner.appraise(self._now())
        self._journal.commit()
        return self._unguarded()

    def _unguarded(self) -> list[str]:
        held, orders = self.engine.portfolio.positions, self.engine.orders
        return [
            name
            for name, position in held.items()
            if position.stop is None and orders.leaving(name) < abs(position.qty)
        ]
