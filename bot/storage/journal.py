"""Writes one run down: every command before it leaves, every fact about our account, every decision.

The runner hands all messages to `write` and calls `commit` before a command leaves, and every few bars. One
commit is one transaction over all tables, so a killed process leaves a prefix of the run behind, never a
part of a step. Market data is not stored: a run is resumed by replaying it from the beginning over the same
market. While it replays, the journal skips what it already has and verifies that commands and decisions are
the same.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self

import msgspec
import sqlalchemy as sa
from msgspec.structs import asdict

from bot.core import commands, events, records
from bot.core.errors import DataError
from bot.storage import schema
from bot.storage.connection import faults
from bot.storage.database import Database, config_hash
from bot.storage.ledger import Ledger

Message = events.Event | commands.Command | records.Record

_NOT_SENT = "; nothing was sent since the last commit"
_VERIFIED: Final = ("commands", "decisions")  # by a replay; all else follows from the market and from these
_CHUNK: Final = 1_000  # rows that a replay reads at a time
_FRESH = "start afresh with --fresh, or go back to the code and settings that made it"


def canonical(command: commands.Command) -> bytes:
    """A command as JSON with sorted keys; an adaptation without its arrays."""
    if isinstance(command, commands.AdaptModel | commands.ExtendChain):
        body = {"type": type(command).__name__, "ts": command.ts, **command.summary()}
        return msgspec.json.encode(body, order="sorted")
    return msgspec.json.encode(command, order="sorted")


class _Log:
    """Rows of one growing table: those on disk at the start, and those that wait for the commit."""

    def __init__(self, table: sa.Table, stored: int, expected: Iterator[Mapping[str, Any]] | None) -> None:
        self.table = table
        self.stored = stored
        self.expected = expected  # the stored rows again, where a replay verifies them
        self.count = 0
        self.waiting: list[dict[str, Any]] = []

    @property
    def replaying(self) -> bool:
        return self.count < self.stored


class Journal:
    """The one writer of a run. Not for use from several threads."""

    def __init__(self, database: Database, run_id: int, *, durable: bool) -> None:
        """Use `start` or `resume`."""
        self.run_id = run_id
        self._durable = durable
        self._engine = database.engine
        self._ledger = Ledger()
        with faults(self._engine):
            self._connection = self._engine.connect()
            self._logs = {
                name: _Log(table, self._count(table), self._stored(table) if name in _VERIFIED else None)
                for name, table in schema.LOGS.items()
            }
            self._connection.rollback()
        self._last_ts = 0
        self._synced: tuple[object, bool] | None = None  # the driver's connection, and whether it is FULL

    @classmethod
    def start(
        cls,
        database: Database,
        *,
        kind: str,
        title: str,
        simulated: bool,
        config_json: str,
        seed: int,
        started: int,
        start_ts: int,
        end_ts: int,
        durable: bool = True,
    ) -> Self:
        """Begin a new run. `started` is wall time, the others market time, ms UTC.

        durable: sync each commit that carries commands to the disk. A run whose orders never leave this
        machine may do without: what a power cut takes, the replay makes again.
        """
        row = {
            "kind": kind,
            "title": title,
            "simulated": simulated,
            "config_hash": config_hash(config_json),
            "config_json": config_json,
            "seed": seed,
            "started": started,
            "start_ts": start_ts,
            "end_ts": end_ts,
            "last_ts": start_ts,
            "state": "running",
        }
        insertion = schema.runs.insert().values(row).returning(schema.runs.c.id)
        with faults(database.engine), database.engine.begin() as connection:
            run_id = connection.execute(insertion).scalar_one()
        return cls(database, run_id, durable=durable)

    @classmethod
    def resume(cls, database: Database, run_id: int, *, durable: bool = True) -> Self:
        """Go on with an interrupted run: replay it from the beginning into this journal."""
        if all(run.id != run_id for run in database.runs()):
            raise DataError(
                f"there is no run {run_id} in this database; leave the number out to start a new one"
            )
        journal = cls(database, run_id, durable=durable)
        journal._set_state("running")
        return journal

    @property
    def replaying(self) -> bool:
        """Whether something on disk has not come up again yet."""
        return any(log.replaying for log in self._logs.values())

    def write(self, message: Message) -> None:
        """Take one message into memory, in the order in which things happened; types without a table pass by.

        Raises DataError when a replayed command or decision differs from the stored one.
        """
        self._last_ts = max(self._last_ts, message.ts)
        if (target := LOGGED.get(type(message))) is not None:
            table, encode = target
            log = self._logs[table]
            if not log.replaying:
                log.waiting.append({"run_id": self.run_id, "seq": log.count, **encode(message)})
            elif log.expected is not None:
                self._verify(log, next(log.expected), encode(message))
            log.count += 1
        self._ledger.apply(message)

    def commit(self) -> None:
        """Everything written so far goes to the database in one transaction.

        Raises RuntimeFault when the disk or the server does not take it: no command that was written since
        the last commit may leave then. The rows wait in memory; a later commit tries again.
        """
        if self.replaying:
            return
        orders, positions = self._ledger.changes()
        if not (orders or positions or any(log.waiting for log in self._logs.values())):
            return
        with faults(self._engine, _NOT_SENT):
            self._set_sync(full=self._durable and bool(self._logs["commands"].waiting))
            with self._connection.begin():
                for log in self._logs.values():
                    if log.waiting:
                        self._connection.execute(log.table.insert(), log.waiting)
                self._replace(schema.orders, "link_id", orders)
                self._replace(schema.positions, "symbol", positions)
                self._update_run(last_ts=self._last_ts)
        for log in self._logs.values():
            log.waiting = []
        self._ledger.changes_saved()

    def finish(self, summary: dict[str, Any]) -> None:
        """Commit, and close the run with its results. DataError when a replay fell short of the disk."""
        if self.replaying:
            raise DataError(f"run {self.run_id}: the stored run goes on after this one ended; {_FRESH}")
        self.commit()
        self._set_state("finished", summary_json=summary)
        self._connection.close()

    def interrupt(self) -> None:
        """Leave the run to be resumed; what was not committed is dropped and will be replayed."""
        self._set_state("interrupted")
        self._connection.close()

    def _verify(self, log: _Log, stored: Mapping[str, Any], now: "Row") -> None:
        """Float columns hold NULL for NaN."""
        differing = [
            name for name, value in now.items() if stored[name] != (None if value != value else value)
        ]
        if differing:
            was, is_now = (", ".join(f"{name} {row[name]}" for name in differing) for row in (stored, now))
            raise DataError(
                f"run {self.run_id}: the stored run was made with other code, settings or data: "
                f"{log.table.name.removesuffix('s')} {log.count} was\n  {was}\nand is now\n  {is_now}\n"
                f"{_FRESH}"
            )

    def _stored(self, table: sa.Table) -> Iterator[Mapping[str, Any]]:
        """The rows that a replay will come by, some at a time: a long run would fill the memory."""
        query = sa.select(table).where(table.c.run_id == self.run_id).order_by(table.c.seq).limit(_CHUNK)
        for first in itertools.count(step=_CHUNK):
            with faults(self._engine), self._engine.connect() as connection:
                rows = connection.execute(query.where(table.c.seq >= first)).mappings().all()
            yield from map(dict, rows)

    def _count(self, table: sa.Table) -> int:
        newest = sa.select(sa.func.max(table.c.seq)).where(table.c.run_id == self.run_id)
        seq = self._connection.execute(newest).scalar()
        return 0 if seq is None else seq + 1

    def _replace(self, table: sa.Table, key: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            same = sa.and_(table.c.run_id == self.run_id, table.c[key] == sa.bindparam("changed"))
            self._connection.execute(table.delete().where(same), [{"changed": row[key]} for row in rows])
            self._connection.execute(table.insert(), [{"run_id": self.run_id, **row} for row in rows])

    def _set_state(self, state: str, **values: Any) -> None:
        with faults(self._engine), self._connection.begin():
            self._update_run(state=state, **values)

    def _update_run(self, **values: Any) -> None:
        runs = schema.runs
        self._connection.execute(runs.update().where(runs.c.id == self.run_id).values(values))

    def _set_sync(self, *, full: bool) -> None:
        """SQLite only; has to happen outside a transaction, hence on the driver's own connection."""
        if self._engine.url.get_backend_name() == "sqlite":
            driver = self._connection.connection.driver_connection
            assert driver is not None
            if (driver, full) != self._synced:
                driver.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
                self._synced = driver, full


# --- which message goes into which table, and how -----------------------------------------------------------

Row = dict[str, Any]


def _command(command: commands.Command) -> Row:
    link_id = ""
    if isinstance(command, commands.PlaceOrder):
        link_id = command.order.link_id
    elif isinstance(command, commands.CancelOrder | commands.AmendOrder):
        link_id = command.link_id
    body = canonical(command).decode()
    return {"ts": command.ts, "kind": type(command).__name__, "link_id": link_id, "body": body}


def _alarm(
    message: Any, *, symbol: str = "", text: str, until: int | None = None, latch: str | None = None
) -> Row:
    kind = type(message).__name__
    return {
        "ts": message.ts, "kind": kind, "symbol": symbol, "text": text, "until": until, "latch": latch,
    }  # fmt: skip


def _breaker(message: records.BreakerTripped | records.BreakerReleased) -> Row:
    return _alarm(
        message, symbol=message.symbol, text=message.reason, until=getattr(message, "until", None),
        latch=message.latch.value if message.latch else "",
    )  # fmt: skip


def _candidate(message: events.CandidateArrived | events.AdaptationFailed) -> Row:
    row = {"model_id": "", "report": None, "reason": "", **asdict(message)}
    if isinstance(message, events.CandidateArrived):
        row["report"] = asdict(message.report)
    return row


def _decision(message: records.DecisionMade) -> Row:
    side = None if message.side is None else message.side.value
    return {**asdict(message), "stage": message.stage.value, "side": side}


LOGGED: Final[dict[type[Message], tuple[str, Callable[[Any], Row]]]] = {
    commands.PlaceOrder: ("commands", _command),
    commands.AmendOrder: ("commands", _command),
    commands.CancelOrder: ("commands", _command),
    commands.MoveStop: ("commands", _command),
    commands.AdaptModel: ("commands", _command),
    commands.ExtendChain: ("commands", _command),
    events.OrderFilled: ("fills", lambda m: {**asdict(m), "side": m.side.value, "origin": m.origin.value}),
    events.FundingPaid: ("funding", asdict),
    events.CandidateArrived: ("candidates", _candidate),
    events.AdaptationFailed: ("candidates", _candidate),
    events.OperatorCommanded: ("operator", lambda m: {**asdict(m), "verb": m.verb.value}),
    events.EntriesBlocked: (
        "alarms",
        lambda m: _alarm(m, text=f"no entries ({m.cause}): {m.reason}", latch=m.cause),
    ),
    events.TokenLeftOut: (
        "alarms",
        lambda m: _alarm(
            m, symbol=m.symbol, text=f"left out: {m.reason}" if m.reason else "left out no more"
        ),
    ),
    events.EntriesAllowed: (
        "alarms",
        lambda m: _alarm(m, text=f"entries allowed again ({m.cause})", latch=m.cause),
    ),
    records.EquityMarked: ("equity", asdict),
    records.DecisionMade: ("decisions", _decision),
    records.LabelMatured: ("labels", asdict),
    records.QualityMeasured: ("quality", asdict),
    records.GateDecided: ("gates", asdict),
    records.StageChanged: ("stages", lambda m: {**asdict(m), "old": m.old.value, "new": m.new.value}),
    records.RungChanged: (
        "rungs",
        lambda m: {**asdict(m), "stage": m.stage.value, "rung": m.rung.value},
    ),
    records.TransferJudged: (
        "verdicts",
        lambda m: {"ts": m.ts, "symbol": m.symbol, **msgspec.to_builtins(m.verdict)},
    ),
    records.Refused: ("alarms", lambda m: _alarm(m, symbol=m.symbol, text=m.reason)),
    records.BreakerTripped: ("alarms", _breaker),
    records.BreakerReleased: ("alarms", _breaker),
    records.Alarm: ("alarms", lambda m: _alarm(m, symbol=m.symbol, text=m.text)),
}
