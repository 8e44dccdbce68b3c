"""Carries facts to the engine and its commands to the broker and the adaptation child.

One runner for backtest and paper trading. What leaves has been written down before.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple, Protocol, get_args

from bot.core.commands import AdaptModel, BrokerCommand, Command, ExtendChain
from bot.core.events import (
    AdaptationFailed,
    BarClosed,
    CandidateArrived,
    Event,
    PositionMarked,
    TimePassed,
)
from bot.core.records import Record
from bot.engine.engine import Engine


class Broker(Protocol):
    """The exchange's side: it alone knows what was filled."""

    def submit(self, command: BrokerCommand) -> list[Event]: ...
    def on_market(self, events: Sequence[Event]) -> list[Event]: ...


class Adapter(Protocol):
    """Where models are adapted: a child process, or the stored results of an earlier run."""

    def submit(self, job: AdaptModel | ExtendChain) -> None: ...
    def poll(self) -> None:
        """Keep the work going; called at every moment while there are jobs, and must not wait."""
        ...

    def take(self, symbol: str, cut: int, due: int) -> CandidateArrived | AdaptationFailed | None:
        """The result of a job, with `ts` = `due`; None while it is not there yet."""
        ...


class Journal(Protocol):
    def write(self, message: Event | Command | Record) -> None: ...
    def commit(self) -> None: ...


class _Job(NamedTuple):
    due: int
    number: int
    symbol: str
    cut: int


Observer = Callable[[Event | Command | Record], None]
_COMMANDS: Final = frozenset({*get_args(BrokerCommand), AdaptModel, ExtendChain})
_UNTOLD: Final = frozenset({BarClosed, PositionMarked, TimePassed})  # too many, and a market has them


class Runner:
    """Feed it groups of market events with equal time. Not thread safe."""

    def __init__(
        self,
        engine: Engine,
        broker: Broker,
        adapter: Adapter,
        journal: Journal,
        adaptation_delay: int,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._engine = engine
        self._broker = broker
        self._adapter = adapter
        self._journal = journal
        self._delay = adaptation_delay
        self._observers = observers
        self._jobs: deque[_Job] = deque()  # in order of due
        self._asked = 0
        self._arrived: dict[_Job, CandidateArrived | AdaptationFailed] = {}

    def is_waiting(self, ts: int) -> bool:
        """Whether a candidate that takes part from `ts` on has not come yet.

        A candidate becomes a fact a fixed time after its cut, however fast the child was: so a replay is
        deterministic, and nothing is known earlier than it could have been.
        """
        if not self._jobs:
            return False
        self._adapter.poll()
        late: list[_Job] = []
        while self._jobs and self._jobs[0].due <= ts:
            job = self._jobs.popleft()
            result = self._adapter.take(job.symbol, job.cut, job.due)
            if result is None:
                late.append(job)
            else:
                self._arrived[job] = result
        self._jobs.extendleft(reversed(late))
        return bool(late)

    def advance(self, events: Sequence[Event]) -> None:
        """One moment of the market: candidates that are due, then what was filled, then the news."""
        if self._arrived:
            arrived, self._arrived = self._arrived, {}
            for job in sorted(arrived):  # as they were asked for, not as they were ready
                self._feed(arrived[job])
        for fact in self._broker.on_market(events):
            self._feed(fact)
        for event in events:
            self._feed(event)

    def hear(self, event: Event) -> None:
        """A fact between two moments of the market."""
        self._feed(event)

    def finish(self) -> None:
        """The market has ended: the account as it is left."""
        for message in self._engine.mark():
            if not isinstance(message, Command):  # nobody is there any more to carry it out
                self._tell(message)

    def appraise(self, ts: int) -> None:
        """The account as it is at `ts` goes to the journal."""
        for fact in self._deliver(self._engine.appraise(ts)):
            self._feed(fact)

    def _feed(self, event: Event) -> None:
        facts = [event]
        for fact in facts:  # the answers to what it causes are added on the way
            if type(fact) not in _UNTOLD:
                self._tell(fact)
            messages = self._engine.step(fact)
            if messages:
                facts.extend(self._deliver(messages))

    def _deliver(self, messages: Sequence[Command | Record]) -> list[Event]:
        """Tell them and carry out the commands, once all are written down; the facts that come of it."""
        commands = []
        for message in messages:
            self._tell(message)
            if type(message) in _COMMANDS:
                commands.append(message)
        if not commands:
            return []
        self._journal.commit()
        return [fact for command in commands for fact in self._carry_out(command)]

    def _tell(self, message: Event | Command | Record) -> None:
        self._journal.write(message)
        for observer in self._observers:
            observer(message)

    def _carry_out(self, command: Command | Record) -> list[Event]:
        if isinstance(command, AdaptModel | ExtendChain):
            self._asked += 1
            self._jobs.append(_Job(command.cut + self._delay, self._asked, command.symbol, command.cut))
            self._adapter.submit(command)
            return []
        assert isinstance(command, BrokerCommand)
        return self._broker.submit(command)


def moments(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Groups of equal `ts`, from a stream in time order."""
    for _, group in groupby(events, key=attrgetter("ts")):
        yield list(group)
