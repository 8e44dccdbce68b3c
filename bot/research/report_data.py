"""What a report is made of: one run, read from the database."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import pandas as pd

from bot.core.errors import UsageError
from bot.core.types import MINUTE_MS
from bot.storage.database import Database


class Achievable(NamedTuple):
    """The accuracy that a simulated market lets a perfect learner reach, and what the market does."""

    accuracy: float
    mechanism: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """One run. The frames have the columns of the tables of the same name in bot.storage.schema.

    Times are ms UTC. `config` is the whole configuration as nested dicts. `trials` counts the runs that
    were tried and could have been shown instead of this one, itself included.
    """

    run_id: int
    kind: str
    title: str
    simulated: bool
    state: str
    seed: int
    start: int
    end: int
    last: int  # of the last message
    config: Mapping[str, Any]
    equity: pd.DataFrame
    decisions: pd.DataFrame
    labels: pd.DataFrame
    gates: pd.DataFrame
    stages: pd.DataFrame
    verdicts: pd.DataFrame
    fills: pd.DataFrame
    funding: pd.DataFrame
    orders: pd.DataFrame
    alarms: pd.DataFrame
    achievable: Mapping[str, Achievable] = field(default_factory=dict)
    trials: int = 1

    @property
    def initial_balance(self) -> float:
        return float(self.config["account"]["initial_balance"])

    @property
    def notes(self) -> list[str]:
        """What was inferred, missing or left out of a recorded market."""
        return list(self.config.get("recorded", {}).get("notes", ()))

    @property
    def decision_ms(self) -> int:
        return int(self.config["market"]["decision_minutes"]) * MINUTE_MS

    @property
    def symbols(self) -> list[str]:
        """Tokens in the order in which they were first heard of."""
        first = pd.concat([self.stages[["ts", "symbol"]], self.decisions[["ts", "symbol"]]])
        if first.empty:
            return []
        heard = first.groupby("symbol")["ts"].min().reset_index()
        return [str(symbol) for symbol in heard.sort_values(["ts", "symbol"])["symbol"]]


TABLES = (
    "equity", "decisions", "labels", "gates", "stages", "verdicts", "fills", "funding", "orders", "alarms",
)  # fmt: skip


def load(database: Database, run_id: int, achievable: Mapping[str, Achievable] | None = None) -> ReportData:
    """Read a run. Raises UsageError when the database has no such run."""
    runs = database.runs()
    run = next((run for run in runs if run.id == run_id), None)
    if run is None:
        known = ", ".join(str(run.id) for run in runs) or "none"
        raise UsageError(f"there is no run {run_id} in this database; runs here: {known}")
    frames = {table: database.frame(run_id, table) for table in TABLES}
    # while the features warm up on bars from before the run, the account is marked as well
    frames["equity"] = frames["equity"][frames["equity"]["ts"] > run.start_ts].reset_index(drop=True)
    return ReportData(
        run_id=run.id,
        kind=run.kind,
        title=run.title,
        simulated=run.simulated,
        state=run.state,
        seed=run.seed,
        start=run.start_ts,
        end=run.end_ts,
        last=run.last_ts,
        config=msgspec.json.decode(run.config_json),
        achievable=achievable or {},
        trials=sum(other.state == "finished" and other.title == run.title for other in runs) or 1,
        **frames,
    )
