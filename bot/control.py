"""A running bot's side of the mailbox: it says that it lives, and hears what a person wants.

The database work is done in a thread; everything else in the loop, so that one that hangs does not pass for
alive. A request counts as taken only when the journal has it: what a dying process had not written down, the
next one takes up.
"""

import asyncio
import os
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from bot.core.commands import Command
from bot.core.errors import Latched, RuntimeFault
from bot.core.events import Event, OperatorCommanded
from bot.core.interrupt import end_with
from bot.core.records import Record
from bot.core.types import Verb
from bot.engine.engine import Engine
from bot.engine.standing import Standing, standing
from bot.storage.database import Database
from bot.storage.mailbox import FINISHED, STOPPED, Heartbeat, Mailbox, Request, born, wall_ms

LOOK_SECONDS: Final = 0.5  # between looks at the mailbox
_BEAT_SECONDS: Final = 1.0
_UNHEARD: Final = "stopped while it was starting or busy; entries under way were not cancelled"
_LAST_SECONDS: Final = 1.0  # for the look that is under way at the end


class Control:
    """`begin`, then `serving` for as long as the process trades.

    option: of the command line, by which this database is found.
    end: how the process is ended; by default as SIGTERM ends it, so that a hanging start ends as well.
    """

    def __init__(
        self,
        database: Database,
        mode: str,
        *,
        option: str = "",
        look_seconds: float = LOOK_SECONDS,
        end: Callable[[], None] = lambda: signal.raise_signal(signal.SIGTERM),
    ) -> None:
        self.killed: Request | None = None
        self._mailbox = Mailbox(database, mode)
        self._hint = f"`bot resume --mode {mode}{option}` lets it start again"
        self._look_seconds = look_seconds
        self._end = end
        self._engine: Engine | None = None
        self._delivered: dict[int, Request] = {}
        self._over: set[int] = set()  # kills that a resume had ended before the start
        self._is_open = False  # `opening` has been asked for
        self._heard: list[OperatorCommanded] = []
        self._to_be_flat: set[int] = set()  # requests whose positions are being closed
        self._unsent: list[tuple[int, str, bool]] = []  # answers that the database has not got yet
        self._work: asyncio.Future[list[Request]] | None = None
        self._fault = ""  # why the mailbox cannot be read
        self._last_phase = STOPPED
        now, pid = wall_ms(), os.getpid()
        self._heartbeat = Heartbeat(
            mode=mode, host=socket.gethostname(), pid=pid, born=born(pid), phase="starting", since=now,
            beat=now, standing=None,
        )  # fmt: skip

    # --- at the start ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Say that we are starting. Raises Latched when a person has killed the bot of this mode."""
        killed = self._mailbox.killed()
        if killed is not None:
            if not killed.taken:
                self._mailbox.settle(killed.number, wall_ms(), "it was not running, and does not start")
            raise Latched(f"{killed}; {self._hint}")
        self._mailbox.beat(self._heartbeat)

    def opening(self, known: Collection[int] = ()) -> list[Request]:
        """What a new run has to hear first: what is in force, but for requests that are `known` to it.

        A flattening that came to its end goes on as the pause that it left.
        """
        self._is_open = True
        requests, in_force = [], self._mailbox.in_force()
        resumed = max((item.number for item in in_force if item.verb is Verb.RESUME), default=0)
        for request in in_force:
            if request.verb is Verb.KILL:
                if request.number < resumed:
                    self._over.add(request.number)
                    self._mailbox.settle(request.number, wall_ms(), "ended by a later resume")
                continue  # a new one is met while we serve
            if request.number not in known and request.number not in self._delivered:
                over = request.verb is Verb.FLATTEN and request.done is not None
                requests.append(msgspec.structs.replace(request, verb=Verb.PAUSE) if over else request)
            self._delivered[request.number] = request
        return requests

    def require_alive(self) -> None:
        """At the end. Raises Latched when it was a kill."""
        if self.killed is not None:
            raise Latched(f"ended: {self.killed}; {self._hint}")

    def watch(self, engine: Engine) -> None:
        """From now on the engine hears what is delivered."""
        self._engine = engine
        self._heartbeat = msgspec.structs.replace(self._heartbeat, phase="trading", beat=0)  # due at once

    def finish(self) -> None:
        """The run came to its end: nobody stopped it."""
        self._last_phase = FINISHED

    # --- while it runs --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def serving(
        self, deliver: Callable[[Request], None], on_fault: Callable[[str], None] = lambda _: None
    ) -> AsyncIterator[None]:
        """Deliver each request once, answer those that were heard, and beat.

        on_fault: told why the mailbox does not work, and "" when it works again.
        """
        task = asyncio.create_task(self._serve(deliver, on_fault))
        task.add_done_callback(self._ended)
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            if self._work is not None:  # a thread goes on, and must not write after us
                await asyncio.wait({self._work}, timeout=_LAST_SECONDS)
            with suppress(RuntimeFault):
                self._exchange(self._unsent + self._answers(), self._beat(self._last_phase))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """By a kill, or by what should not happen: nobody could stop the bot any more."""
        if not task.cancelled():
            if self.killed is not None:
                end_with(Latched.exit_code)
            self._end()

    def apply(self, message: Event | Command | Record) -> None:
        """An observer of the run."""
        if isinstance(message, OperatorCommanded):
            self._heard.append(message)

    async def _serve(self, deliver: Callable[[Request], None], on_fault: Callable[[str], None]) -> None:
        while True:
            self._unsent += self._answers()
            try:
                self._work = asyncio.ensure_future(
                    asyncio.to_thread(self._exchange, self._unsent, self._beat())
                )
                waiting = await asyncio.shield(self._work)
            except RuntimeFault as error:
                self._tell_fault(str(error), on_fault)
            else:
                self._unsent = []
                self._tell_fault("", on_fault)
                for request in waiting:
                    if request.number not in self._delivered and self._is_due(request, waiting):
                        self._delivered[request.number] = request
                        deliver(request)
                if self.killed is not None:
                    return
            await asyncio.sleep(self._look_seconds)

    def _is_due(self, request: Request, waiting: Sequence[Request]) -> bool:
        """Before its opening a run hears nothing but a kill that no resume has ended: the rest is told then,
        in its order."""
        if self._is_open:
            return request.number not in self._over
        later = (other for other in waiting if other.number > request.number)
        return request.verb is Verb.KILL and all(other.verb is not Verb.RESUME for other in later)

    def _tell_fault(self, fault: str, on_fault: Callable[[str], None]) -> None:
        if fault != self._fault:
            self._fault = fault
            on_fault(fault)

    # --- answers --------------------------------------------------------------------------------------------

    def _answers(self) -> list[tuple[int, str, bool]]:
        """What became of the requests that have been heard: number, words, whether that is all."""
        answers = []
        heard = list(self._heard)
        if self._engine is not None:  # before it trades, what was heard is answered later
            self._heard.clear()
            now = standing(self._engine)
            for event in heard:
                request = self._delivered.get(event.number)
                if request is not None and request.taken is None:
                    answers.append((event.number, _answer(event.verb, now), event.verb is not Verb.FLATTEN))
                if request is not None and request.done is None and event.verb is Verb.FLATTEN:
                    self._to_be_flat.add(event.number)
            answers += self._flat(now)
        return answers + self._end_of_kill({event.number for event in heard})

    def _flat(self, now: Standing) -> list[tuple[int, str, bool]]:
        if not self._to_be_flat or not now.is_flat:
            return []
        done, self._to_be_flat = self._to_be_flat, set()
        text = f"flat{_left_alone(now)}; no entries before `bot resume`"
        return [(number, text, True) for number in sorted(done)]

    def _end_of_kill(self, heard: set[int]) -> list[tuple[int, str, bool]]:
        """A kill does not wait for an engine that does not hear: it may be replaying the past for minutes."""
        kills = [item for item in self._delivered.values() if item.verb is Verb.KILL and item.taken is None]
        if not kills or self.killed is not None:
            return []
        self.killed = kills[-1]
        return [(item.number, _UNHEARD, True) for item in kills if item.number not in heard]

    def _exchange(self, answers: list[tuple[int, str, bool]], beat: Heartbeat | None) -> list[Request]:
        """All that goes to the database at one look; what has come."""
        for number, text, done in answers:
            self._mailbox.settle(number, wall_ms(), text, done=done)
        if beat is not None:
            self._mailbox.beat(beat)
        return self._mailbox.waiting()

    def _beat(self, phase: str = "") -> Heartbeat | None:
        """The next heartbeat, when it is time for one or something was answered."""
        now = wall_ms()
        if not phase and not self._unsent and now - self._heartbeat.beat < _BEAT_SECONDS * 1_000:
            return None
        self._heartbeat = msgspec.structs.replace(
            self._heartbeat,
            phase=phase or self._heartbeat.phase,
            beat=now,
            standing=msgspec.json.encode(standing(self._engine)).decode() if self._engine else None,
        )
        return self._heartbeat


def commanded(request: Request, now: int) -> OperatorCommanded:
    """As an event at `now`, ms UTC of the market's clock."""
    return OperatorCommanded(now, now, request.number, request.verb, request.by, request.reason)


class Wishes:
    """What a person wants of a run over a past market, at the moments at which the run hears it.

    A resumed run hears again what it heard before, and where; what is new waits until it has caught up.
    control: None for a run that hears nobody.
    """

    def __init__(self, control: Control | None) -> None:
        self._control = control
        self._new: deque[Request] = deque()
        self._stored: deque[OperatorCommanded] = deque()
        self._replaying: Callable[[], bool] = lambda: False

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        if self._control is None:
            yield
            return
        async with self._control.serving(self._new.append):
            yield

    def begin(
        self, engine: Engine, stored: Sequence[OperatorCommanded], replaying: Callable[[], bool]
    ) -> tuple[Callable[[Event | Command | Record], None], ...]:
        """`stored`: what the run heard before it was interrupted. Gives the observers that the run needs."""
        self._stored.extend(stored)
        self._replaying = replaying
        if self._control is None:
            return ()
        self._new.extendleft(reversed(self._control.opening({event.number for event in stored})))
        self._control.watch(engine)
        return (self._control.apply,)

    def finish(self) -> None:
        """The market is over."""
        if self._control is not None:
            self._control.finish()

    def at(self, ts: int) -> list[OperatorCommanded]:
        """After the moment at `ts`, ms UTC."""
        wishes = []
        while self._stored and self._stored[0].ts <= ts:
            wishes.append(self._stored.popleft())
        while self._new and not self._stored and not self._replaying():
            wishes.append(commanded(self._new.popleft(), ts))
        return wishes


def _answer(verb: Verb, now: Standing) -> str:
    count = f"{len(now.positions)} positions"
    if verb is Verb.PAUSE:
        return f"paused: no entries; {count} are looked after"
    if verb is Verb.FLATTEN:
        return f"closing {count}{_left_alone(now)}"
    if verb is Verb.KILL:
        naked = ", ".join(item.symbol for item in now.positions if item.stop is None)
        return f"stopped; {count} keep their stops{f', but {naked} has none' if naked else ''}"
    if now.blocks:
        return "entries still wait: " + "; ".join(f"{cause}: {text}" for cause, text in now.blocks.items())
    return "entries allowed"


def _left_alone(now: Standing) -> str:
    left = ", ".join(f"{symbol} ({found})" for symbol, found in sorted(now.others.items()))
    return f"; left alone, somebody else has it: {left}" if left else ""
