"""Where a person's commands and a running bot find each other: requests one way, heartbeats the other.

Both are rows of the database, so that neither side needs the other to be alive. What a person asked for holds
until `resume`, whoever dies meanwhile: a latch is nothing but a request that no later `resume` has ended.
"""

import os
import socket
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from bot.core.types import Verb
from bot.storage import schema
from bot.storage.connection import faults
from bot.storage.database import Database

STALE_MS: Final = 10_000  # a bot that has not said for so long that it lives is taken for dead
STOPPED: Final = "stopped"
FINISHED: Final = "finished"  # the run came to its end, and nobody stopped it
ENDED: Final = (STOPPED, FINISHED)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `requests`. `taken`: a run has it in its journal; `done`: it is as was asked. ms UTC."""

    number: int
    mode: str
    verb: Verb
    by: str
    reason: str
    asked: int
    taken: int | None
    done: int | None
    answer: str

    def __str__(self) -> str:
        return f"{self.verb} by {self.by}{f': {self.reason}' if self.reason else ''}"


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `heartbeats`. Times are wall time, ms UTC; `standing` is JSON, None before the first one."""

    mode: str
    host: str
    pid: int
    born: str
    phase: str  # starting | trading | stopped | finished
    since: int
    beat: int
    standing: str | None

    def is_alive(self, now: int) -> bool:
        """On this host also by the process itself, so that a death shows at once."""
        here = self.host == socket.gethostname()
        if self.phase in ENDED or (here and born(self.pid) != self.born):
            return False
        return now - self.beat < STALE_MS


class Mailbox:
    """Of one mode. Both sides may use it at the same time, each with a database that it opened itself."""

    def __init__(self, database: Database, mode: str) -> None:
        self._engine = database.engine
        self.mode = mode

    # --- the person's side ----------------------------------------------------------------------------------

    def post(self, verb: Verb, by: str, reason: str, now: int) -> Request:
        """Ask; `now` is wall time, ms UTC."""
        table = schema.requests
        row = {
            "mode": self.mode, "verb": verb.value, "by": by, "reason": reason, "asked": now, "taken": None,
            "done": None, "answer": "",
        }  # fmt: skip
        with faults(self._engine), self._engine.begin() as connection:
            number = connection.execute(table.insert().values(row).returning(table.c.number)).scalar_one()
        return _request({"number": number, **row})

    def request(self, number: int) -> Request:
        (found,) = self._requests(schema.requests.c.number == number)
        return found

    def heartbeat(self) -> Heartbeat | None:
        return next((beat for beat in heartbeats(self._engine) if beat.mode == self.mode), None)

    # --- both -----------------------------------------------------------------------------------------------

    def in_force(self) -> list[Request]:
        """What was asked for after the last `resume` that a run has taken, in order; that one comes first
        when none has taken it yet."""
        requests = self._requests(schema.requests.c.mode == self.mode)
        last = max((item.number for item in requests if item.verb is Verb.RESUME and item.taken), default=0)
        return [item for item in requests if item.number > last]

    def killed(self) -> Request | None:
        """The kill that no resume has ended."""
        last: Request | None = None
        for item in self.in_force():
            if item.verb is Verb.KILL:
                last = item
            elif item.verb is Verb.RESUME:
                last = None
        return last

    def settle(self, number: int, now: int, answer: str, *, done: bool = True) -> None:
        """Taken, and done as well unless the answer is a first one."""
        table = schema.requests
        values: dict[str, Any] = {"taken": sa.func.coalesce(table.c.taken, now), "answer": answer}
        if done:
            values["done"] = now
        with faults(self._engine), self._engine.begin() as connection:
            connection.execute(table.update().where(table.c.number == number).values(values))

    def note(self, number: int, answer: str) -> None:
        """What came of an attempt that failed: the request waits still, for whoever runs next."""
        table = schema.requests
        with faults(self._engine), self._engine.begin() as connection:
            connection.execute(table.update().where(table.c.number == number).values(answer=answer))

    # --- the bot's side -------------------------------------------------------------------------------------

    def waiting(self) -> list[Request]:
        """What no run has taken yet, in order."""
        table = schema.requests
        return self._requests(table.c.mode == self.mode, table.c.taken.is_(None))

    def beat(self, heartbeat: Heartbeat) -> None:
        table, row = schema.heartbeats, msgspec.structs.asdict(heartbeat)
        with faults(self._engine), self._engine.begin() as connection:
            same = table.c.mode == heartbeat.mode
            if not connection.execute(table.update().where(same).values(row)).rowcount:
                connection.execute(table.insert().values(row))

    def _requests(self, *conditions: sa.ColumnElement[bool]) -> list[Request]:
        table = schema.requests
        query = sa.select(table).where(*conditions).order_by(table.c.number)
        with faults(self._engine), self._engine.connect() as connection:
            return [_request(dict(row)) for row in connection.execute(query).mappings()]


def heartbeats(engine: sa.Engine) -> list[Heartbeat]:
    """Of every mode, the newest last."""
    query = sa.select(schema.heartbeats).order_by(schema.heartbeats.c.beat)
    with faults(engine), engine.connect() as connection:
        return [Heartbeat(**dict(row)) for row in connection.execute(query).mappings()]


def born(pid: int) -> str:
    """What tells a process of this host from another one that had or will have its number; "" when there is
    none. Without /proc its being there must do."""
    if Path("/proc/self").exists():
        try:
            state, *more = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if state in "ZX" else more[18]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:  # somebody else's, hence there
        pass
    return "there"


def _request(row: dict[str, Any]) -> Request:
    return Request(**{**row, "verb": Verb(row["verb"])})


def wall_ms() -> int:
    """The time of requests and heartbeats, ms UTC: no exchange is asked."""
    return int(time.time() * 1_000)
