"""The report of a stored run: what was written down and, on the simulated market, what could be known."""

import json
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from bot.exchange.simulated.market import SimulatedMarket
from bot.research.report import write_report
from bot.research.report_data import Achievable, load
from bot.settings import Settings
from bot.storage.database import Database, Run


def write(database: Database, run: Run, path: Path) -> Path:
    """Write the HTML report of `run` to `path`. Raises RuntimeFault when the disk does not take it."""
    return write_report(load(database, run.id, _achievable(database, run)), path)


def _achievable(database: Database, run: Run) -> dict[str, Achievable]:
    """How often a perfect observer of the simulated market would have been right on each token's labels."""
    if not run.simulated:
        return {}
    config = {
        name: keys for name, keys in json.loads(run.config_json).items() if name in Settings.model_fields
    }
    try:
        market = SimulatedMarket.of(Settings.model_validate(config))
    except ValidationError:  # an older version's: its market cannot be made again
        return {}
    found = {}
    for symbol, labels in database.frame(run.id, "labels").groupby("symbol"):
        p_up = market.oracle_p_up(str(symbol), labels["bar_start"].to_numpy(np.int64))
        right = (p_up > 0.5) == (labels["outcome"].to_numpy() > 0)
        accuracy = float(np.average(right, weights=labels["weight"].to_numpy()))
        found[str(symbol)] = Achievable(accuracy, market.mechanism(str(symbol)))
    return found
