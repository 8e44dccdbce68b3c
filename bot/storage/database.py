"""The database of runs: opened, migrated and locked here, written by `bot.storage.journal`, read by reports.

SQLite by default, PostgreSQL by its URL. SQLite runs in WAL mode with `synchronous=NORMAL`: a commit
survives the death of the process; a power cut may lose the last commits, never half of one. A commit that
carries commands is synced to the disk as well, because a command must be on record before it leaves
(see `Journal`). PostgreSQL syncs every commit by itself.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from bot.core.errors import DataError
from bot.core.events import (
    OPERATOR,
    AdaptationFailed,
    AdaptationReport,
    CandidateArrived,
    EntriesBlocked,
    OperatorCommanded,
)
from bot.core.records import BreakerReleased, BreakerTripped, Latch
from bot.core.types import DAY_MS, OrderStatus, Side, Verb
from bot.storage import schema
from bot.storage.connection import RESTORE, check_file, display_name, faults, is_file, make_engine, parse_url
from bot.storage.holding import Life, Sent, Span, spans_of
from bot.storage.lock import FileLock, ServerLock

if TYPE_CHECKING:
    import pandas as pd

_CHUNK = 50_000  # rows that a frame holds as Python objects at a time
_VERSIONS = "alembic_version"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `runs`: a paper session or a backtest. Times are ms UTC."""

    id: int
    kind: str
    title: str
    simulated: bool
    config_hash: str
    config_json: str
    seed: int
    started: int  # wall time
    start_ts: int
    end_ts: int
    last_ts: int  # of the last committed message
    state: str  # running | interrupted | finished
    summary_json: dict[str, Any] | None


class Mark(NamedTuple):
    """What an account was worth, quote coin, with all that the exchange's ledger says until `ts` (ms UTC) to
    have come and gone without trading."""

    ts: int
    equity: float


def config_hash(config_json: str) -> str:
    """A short name for one configuration: two runs with the same hash had the same settings."""
    return hashlib.sha256(config_json.encode()).hexdigest()[:16]


class Database:
    """An open database. `engine` is for the journal; everybody else calls the readers."""

    def __init__(self, engine: sa.Engine, lock: FileLock | ServerLock | None) -> None:
        self.engine = engine
        self._lock = lock

    @classmethod
    def open(cls, target: str | Path, *, readonly: bool = False, lock: Path | None = None) -> Self:
        """Open a path or a URL; create or migrate it and lock it, unless `readonly`.

        lock: the lock file; default: `<path>.lock` for a SQLite file; a server has locks of its own. The
        holder marks runs that a killed process left "running" as "interrupted".

        Raises UsageError for a URL that means nothing, DataError for a file that is damaged, foreign or of
        another version, RuntimeFault when it is locked, unwritable or out of reach.
        """
        url = parse_url(target)
        path = Path(str(url.database)) if is_file(url) else None
        if path is not None:
            check_file(path, readonly=readonly)
            lock = lock or path.with_name(path.name + ".lock")
        engine = make_engine(url)
        database = cls(engine, FileLock(lock) if lock is not None and not readonly else None)
        try:
            with faults(engine):
                if path is None and not readonly and url.get_backend_name() == "postgresql":
                    database._lock = ServerLock(engine)
                _check_version(engine, readonly=readonly)
                if not readonly:
                    _migrate(engine)
                    _interrupt_lost_runs(engine)
        except BaseException:
            database.close()
            raise
        return database

    @staticmethod
    def exists(target: str | Path) -> bool:
        """Whether a run has ever been written down there. Raises as `open` does."""
        url = parse_url(target)
        if is_file(url):
            path = Path(str(url.database))
            if not path.exists():
                return False
            check_file(path, readonly=True)
        engine = make_engine(url)
        try:
            with faults(engine), engine.connect() as connection:
                return schema.runs.name in sa.inspect(connection).get_table_names()
        finally:
            engine.dispose()

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def migrations(connection: sa.Connection | None = None) -> Config:
        """Alembic's configuration, for an open connection."""
        config = Config()
        config.set_main_option("script_location", "bot.storage:migrations")
        config.set_main_option("path_separator", "os")
        config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
        config.attributes["connection"] = connection
        return config

    # --- reading ------------------------------------------------------------------------------------------

    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        query = sa.select(schema.runs).order_by(schema.runs.c.id)
        return [Run(**row._mapping) for row in self._rows(query)]

    def latest(self, kind: str, title: str | None = None) -> Run | None:
        """The newest run of a kind, with a title if one is given."""
        query = sa.select(schema.runs).where(schema.runs.c.kind == kind).order_by(schema.runs.c.id.desc())
        if title is not None:
            query = query.where(schema.runs.c.title == title)
        rows = self._rows(query.limit(1))
        return Run(**rows[0]._mapping) if rows else None

    def commands(self, run_id: int) -> list[bytes]:
        """Every command of a run in order, as canonical JSON: equal runs have equal lists."""
        table = schema.commands
        query = sa.select(table.c.body).where(table.c.run_id == run_id).order_by(table.c.seq)
        return [row.body.encode() for row in self._rows(query)]

    def candidates(self, run_id: int) -> list[CandidateArrived | AdaptationFailed]:
        """What the adaptations of a run came to, as the very events: a replay need not adapt again."""
        table = schema.candidates
        query = sa.select(table).where(table.c.run_id == run_id).order_by(table.c.seq)
        return [_candidate(row) for row in self._rows(query)]

    def operator(self, run_id: int) -> list[OperatorCommanded]:
        """What a person told a run, as the very events, in their order."""
        table = schema.operator
        query = sa.select(table).where(table.c.run_id == run_id).order_by(table.c.seq)
        return [
            OperatorCommanded(row.ts, row.received, row.number, Verb(row.verb), row.by, row.reason)
            for row in self._rows(query)
        ]

    def opening_equity(self, run_ids: Sequence[int], since: int) -> Mark | None:
        """The equity that the day of these runs opened with at `since` (ms UTC), with the transfers that its
        first mark contains. None when none had begun.

        Until a loss has been seen it is the first equity of the day: at most a bar's gain too high.
        """
        table = schema.equity
        query = sa.select(table).where(table.c.run_id.in_(run_ids), table.c.ts >= since)
        rows = self._rows(query.order_by(table.c.run_id, table.c.seq).limit(1))
        return Mark(_contained(rows[0]), rows[0].equity / (1 - rows[0].day_drawdown)) if rows else None

    def halts(self, run_ids: Sequence[int]) -> list[BreakerTripped]:
        """The halts of these runs that nobody and nothing has released, as the very records."""
        table = schema.alarms
        kinds = (BreakerTripped.__name__, BreakerReleased.__name__)
        query = sa.select(table).where(table.c.run_id.in_(run_ids), table.c.kind.in_(kinds))
        held: dict[tuple[Latch, str], BreakerTripped] = {}
        for row in self._rows(query.order_by(table.c.run_id, table.c.seq)):
            latch = Latch(row.latch) if row.latch else None
            if row.kind == kinds[0]:
                known = latch or Latch.DAY  # written before breakers had names
                held[known, row.symbol] = BreakerTripped(row.ts, row.text, row.until, known, row.symbol)
            elif latch:
                held.pop((latch, row.symbol), None)
            else:
                held.clear()
        return list(held.values())

    def unseen(self, run_ids: Sequence[int]) -> str:
        """What these runs wanted a person to see to, in the words of the newest; "" after a `resume`."""
        alarms, told = schema.alarms, schema.operator
        blocks = sa.select(alarms).where(
            alarms.c.run_id.in_(run_ids),
            alarms.c.kind == EntriesBlocked.__name__,
            alarms.c.latch == OPERATOR,
        )
        resumed = sa.select(told).where(told.c.run_id.in_(run_ids), told.c.verb == Verb.RESUME.value)
        block = self._rows(blocks.order_by(alarms.c.run_id.desc(), alarms.c.seq.desc()).limit(1))
        end = self._rows(resumed.order_by(told.c.run_id.desc(), told.c.seq.desc()).limit(1))
        if not block or (end and (end[0].run_id, end[0].ts) > (block[0].run_id, block[0].ts)):
            return ""
        return str(block[0].text).removeprefix(f"no entries ({OPERATOR}): ")

    def highs(self, run_ids: Sequence[int], since: int) -> dict[int, Mark]:
        """Highest equity of these runs by day since the epoch, from `since` (ms UTC) on."""
        table = schema.equity
        query = sa.select(table.c.ts, table.c.equity, table.c.ledger).where(
            table.c.run_id.in_(run_ids), table.c.ts >= since, table.c.equity.is_not(None)
        )
        highs: dict[int, Mark] = {}
        for row in self._rows(query.order_by(table.c.ts)):
            day = row.ts // DAY_MS
            if day not in highs or row.equity > highs[day].equity:
                highs[day] = Mark(_contained(row), row.equity)
        return highs

    def entries(self, run_ids: Sequence[int], since: int) -> list[int]:
        """When these runs sent entries, after `since` (ms UTC), oldest first."""
        table = schema.orders
        query = sa.select(table.c.created).where(
            table.c.run_id.in_(run_ids), table.c.created > since, sa.not_(table.c.reduce_only)
        )
        return [row.created for row in self._rows(query.order_by(table.c.created))]

    def last_entries(self, run_ids: Sequence[int]) -> dict[tuple[str, Side], int]:
        """When these runs last sent an entry that was filled at least in part, by symbol and side; ms UTC."""
        table = schema.orders
        query = sa.select(table.c.symbol, table.c.side, sa.func.max(table.c.created).label("ts")).where(
            table.c.run_id.in_(run_ids), sa.not_(table.c.reduce_only), table.c.avg_price.is_not(None)
        )
        rows = self._rows(query.group_by(table.c.symbol, table.c.side))
        return {(row.symbol, Side(row.side)): row.ts for row in rows}

    def unfilled(self, run_ids: Sequence[int]) -> dict[str, int]:
        """When the entries of these runs were created of which less than all is on record as filled; ms UTC,
        by id."""
        table = schema.orders
        query = sa.select(table).where(table.c.run_id.in_(run_ids), sa.not_(table.c.reduce_only))
        return {row.link_id: row.created for row in self._rows(query) if row.filled_qty < row.qty}

    def spans(self, run_ids: Sequence[int]) -> dict[str, list[Span]]:
        """When each symbol was theirs by what these runs have on record, oldest first."""
        orders, fills, positions = schema.orders, schema.fills, schema.positions
        started = {run.id: run.started for run in self.runs()}
        lives: dict[str, dict[int, Life]] = {}

        def life(row: Any) -> Life:
            return lives.setdefault(row.symbol, {}).setdefault(row.run_id, Life(started[row.run_id]))

        columns = (orders.c.run_id, orders.c.symbol, orders.c.created, orders.c.updated, orders.c.status)
        sent = sa.select(*columns).where(orders.c.run_id.in_(run_ids), sa.not_(orders.c.reduce_only))
        for row in self._rows(sent):
            ended = None if OrderStatus(row.status).is_open else row.updated
            life(row).entries.append(Sent(row.created, ended))
        for row in self._rows(sa.select(fills).where(fills.c.run_id.in_(run_ids))):
            life(row).fills.append((row.ts, row.qty * Side(row.side).sign))
        for row in self._rows(sa.select(positions).where(positions.c.run_id.in_(run_ids))):
            life(row).held, life(row).known = row.qty, row.updated
        return {
            symbol: spans
            for symbol, runs in lives.items()
            if (spans := spans_of(runs[k] for k in sorted(runs)))
        }

    def cleared(self, run_ids: Sequence[int]) -> int:
        """When a person last ended every halt of these runs, ms UTC; losses before it count no more."""
        table = schema.alarms
        query = sa.select(sa.func.max(table.c.ts).label("ts")).where(
            table.c.run_id.in_(run_ids), table.c.kind == BreakerReleased.__name__, table.c.latch == ""
        )
        return self._rows(query)[0].ts or 0

    def peak(self, run_ids: Sequence[int], since: int) -> Mark | None:
        """The highest equity ever as these runs saw it last, from `since` (ms UTC) on."""
        table = schema.equity
        query = sa.select(table).where(table.c.run_id.in_(run_ids), table.c.ts >= since)
        rows = self._rows(query.order_by(table.c.run_id.desc(), table.c.seq.desc()).limit(1))
        return Mark(_contained(rows[0]), rows[0].peak) if rows else None

    def frame(self, run_id: int, table: str, columns: Sequence[str] | None = None) -> "pd.DataFrame":
        """One table of a run (a name of `schema.metadata`), oldest first, or some of its columns.

        Decimals become floats, absent numbers and texts NaN; about 100,000 rows per second.
        """
        source = schema.metadata.tables[table]
        order = source.c.seq if "seq" in source.c else list(source.primary_key)[-1]
        names = columns or [column.name for column in source.c if column.name not in ("run_id", "seq")]
        chosen = [source.c[name] for name in names]
        query = sa.select(*chosen).where(source.c.run_id == run_id).order_by(order)
        import pandas as pd  # here: a process that trades has no use for 70 MB of it

        with faults(self.engine), self.engine.connect() as connection:
            result = connection.execution_options(yield_per=_CHUNK).execute(query)
            chunks = [_frame(chosen, rows) for rows in result.partitions()]
        return pd.concat(chunks, ignore_index=True) if chunks else _frame(chosen, [])

    def forget(self, run_id: int) -> None:
        """Remove a run and everything it wrote."""
        with faults(self.engine), self.engine.begin() as connection:
            for table in reversed(schema.metadata.sorted_tables):
                if table is schema.runs or "run_id" in table.c:
                    key = table.c.id if table is schema.runs else table.c.run_id
                    connection.execute(table.delete().where(key == run_id))

    def _rows(self, query: sa.Select[Any]) -> list[Any]:
        with faults(self.engine), self.engine.connect() as connection:
            return list(connection.execute(query).all())


def _check_version(engine: sa.Engine, *, readonly: bool) -> None:
    """Raises DataError unless the database is empty, or ours and not newer than this program."""
    name = display_name(engine.url)
    with engine.connect() as connection:
        tables = set(sa.inspect(connection).get_table_names())
        if not tables and not readonly:
            return
        if not {_VERSIONS, schema.runs.name} <= tables:
            raise DataError(f"{name}: the database of another program, or none yet; choose another name")
        version = connection.exec_driver_sql(f"SELECT version_num FROM {_VERSIONS}").scalar_one()  # noqa: S608
    scripts = ScriptDirectory.from_config(Database.migrations())
    if version not in {script.revision for script in scripts.walk_revisions()}:
        raise DataError(
            f"{name}: made by a newer version of the bot ({version}, this one knows "
            f"{scripts.get_current_head()}); upgrade the bot or use another directory"
        )
    if readonly and version != scripts.get_current_head():
        raise DataError(f"{name}: made by an older version of the bot; `bot paper` brings it up to date")


def _migrate(engine: sa.Engine) -> None:
    if engine.url.get_backend_name() == "sqlite":
        with contextlib.closing(engine.raw_connection()) as raw:
            raw.cursor().execute("PRAGMA journal_mode = WAL")
            damage = raw.cursor().execute("PRAGMA quick_check(1)").fetchone()[0]  # about 1 s for 500 MB
        if damage != "ok":
            raise DataError(f"{display_name(engine.url)}: the database is damaged ({damage}); {RESTORE}")
    with engine.begin() as connection:
        command.upgrade(Database.migrations(connection), "head")


def _interrupt_lost_runs(engine: sa.Engine) -> None:
    """Whoever holds the lock is the only writer: a run still "running" was killed."""
    runs = schema.runs
    with engine.begin() as connection:
        connection.execute(runs.update().where(runs.c.state == "running").values(state="interrupted"))


def _frame(columns: Sequence[sa.Column[Any]], rows: Sequence[sa.Row[Any]]) -> "pd.DataFrame":
    import pandas as pd

    values = list(zip(*rows, strict=True)) or [()] * len(columns)
    return pd.DataFrame(
        {
            column.name: pd.Series(data, dtype=_dtype(column))
            for column, data in zip(columns, values, strict=True)
        }
    )


def _dtype(column: sa.Column[Any]) -> Any:
    kind = column.type
    if isinstance(kind, schema.Real | schema.DecimalText) or (
        isinstance(kind, sa.Integer) and column.nullable
    ):
        return float
    for known, dtype in ((sa.Integer, "int64"), (sa.Boolean, bool), (sa.String, "str")):
        if isinstance(kind, known):
            return dtype
    return object


def _contained(row: Any) -> int:
    """Until when an equity contains what came and went; a day before it everything is taken to be known, for
    a run may last for months. Of old rows their own time is the best guess."""
    return max(row.ledger, row.ts - DAY_MS) if row.ledger else row.ts  # type: ignore[no-any-return]


def _candidate(row: Any) -> CandidateArrived | AdaptationFailed:
    if row.report is None:
        return AdaptationFailed(row.ts, row.received, row.symbol, row.cut, row.reason)
    report = AdaptationReport(**row.report)
    return CandidateArrived(row.ts, row.received, row.symbol, row.model_id, row.cut, report)
