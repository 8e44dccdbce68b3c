"""A made-up run with the shape of a real one: five tokens of different kinds, trades, refusals, gates."""

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from bot.core.types import DAY_MS, HOUR_MS, FillOrigin, Side, Stage
from bot.core.verdict import Gain, Verdict
from bot.research.report_data import TABLES, Achievable, ReportData
from bot.settings import Settings
from bot.storage import schema
from tests.builders import BAR, START

KINDS = {  # how much of the market each arm sees, the similarity it ends with, days until SMALL (0 = never)
    "SIMAUSDT": (0.9, 0.4, 0.86, 12),
    "SIMBUSDT": (0.7, 0.2, 0.78, 16),
    "SIMCUSDT": (0.5, 0.45, 0.91, 20),
    "SIMDUSDT": (-0.3, 0.3, 0.74, 0),
    "SIMEUSDT": (0.1, 0.0, 0.52, 0),
}
MECHANISMS = {
    "SIMAUSDT": "momentum as on BTC, seen through a shifted sensor",
    "SIMBUSDT": "momentum as on ETH, three times as volatile",
    "SIMCUSDT": "like BTC, hardly shifted",
    "SIMDUSDT": "reversed: what rises on BTC falls here",
    "SIMEUSDT": "noise",
}
HORIZON = 8
Rows = list[dict[str, Any]]


def empty_frames() -> dict[str, pd.DataFrame]:
    return {
        name: pd.DataFrame(
            columns=[c.name for c in schema.metadata.tables[name].c if c.name not in ("run_id", "seq")]
        )
        for name in TABLES
    }


def report_data(**changes: Any) -> ReportData:
    """A run that has only just begun, with whatever is given."""
    values: dict[str, Any] = {
        "run_id": 1, "kind": "paper", "title": "Five simulated listings", "simulated": True,
        "state": "finished", "seed": 7, "start": START, "end": START + 45 * DAY_MS, "last": START,
        "config": Settings().model_dump(mode="json"), **empty_frames(), **changes,
    }  # fmt: skip
    return ReportData(**values)


def synthetic_run(days: int = 45, seed: int = 3, **changes: Any) -> ReportData:
    rng = np.random.default_rng(seed)
    rows: dict[str, Rows] = {name: [] for name in TABLES}
    for index, symbol in enumerate(list(KINDS)[: max(1, (days - 1) // 2)]):
        _Token(rows, symbol, START + index * 2 * DAY_MS, days * DAY_MS + START, rng).run()
    _account(rows, days)
    frames = {
        name: pd.DataFrame(rows[name], columns=frame.columns).sort_values(
            "ts", ignore_index=True, kind="stable"
        )
        if "ts" in frame and rows[name]
        else pd.DataFrame(rows[name], columns=frame.columns)
        for name, frame in empty_frames().items()
    }
    achievable = {s: Achievable(0.5 + 0.12 * abs(k[0]), MECHANISMS[s]) for s, k in KINDS.items()}
    last = START + days * DAY_MS
    return report_data(**{"last": last, "end": last, "achievable": achievable, **frames, **changes})


class _Token:
    """One token's bars, predictions and trades, written row by row."""

    def __init__(
        self, rows: dict[str, Rows], symbol: str, listed: int, end: int, rng: np.random.Generator
    ) -> None:
        self.rows, self.symbol, self.rng = rows, symbol, rng
        adapted, frozen, self.similarity, self.small_day = KINDS[symbol]
        self.first = listed + 2 * DAY_MS
        self.n = n = (end - self.first) // BAR
        hidden = np.convolve(rng.standard_normal(n + 40), np.full(12, 12**-0.5), "valid")[:n]
        steps = 0.004 * rng.standard_normal(n) + 0.0006 * hidden - 2e-5
        self.price = 10 ** rng.uniform(-3, 2) * np.exp(np.cumsum(steps))
        self.outcome = (rng.random(n) < 1 / (1 + np.exp(-0.9 * hidden + 0.15))).astype(int)
        skills = {"adapted": adapted, "frozen": frozen, "scratch": frozen / 2, "prior": 0.0}
        noise = {arm: 0.5 * rng.standard_normal(n) * (1 - abs(skill)) for arm, skill in skills.items()}
        self.said = {
            arm: 1 / (1 + np.exp(-(0.8 * skill * hidden + noise[arm]))) for arm, skill in skills.items()
        }
        self.age = np.arange(n) * BAR / DAY_MS
        self.seen = self.similarity - 0.4 * np.exp(-self.age / 4) + 0.03 * np.sin(self.age)
        self.stage = Stage.OBSERVE
        self.side, self.quantity, self.exit_at, self.stopped = Side.BUY, 0.0, -1, False

    def run(self) -> None:
        self._climb(self.first, Stage.SHADOW, "features are ready")
        for i in range(self.n):
            ts = self.first + (i + 1) * BAR
            adapted = self.age[i] > 3
            if adapted and i % 192 == 0:
                self._gate(ts, i)
            for day, stage in ((self.small_day, Stage.SMALL), (self.small_day + 7, Stage.FULL)):
                if self.small_day and i == day * 96:
                    self._climb(
                        ts, stage, f"similarity {self.seen[i]:.2f}", "evidence 31.4 against the base rate"
                    )
            self._decide(ts, i, "adapted" if adapted else "frozen")
            if i + HORIZON + 1 < self.n:
                self._label(ts, i, {arm for arm in self.said if adapted or arm != "adapted"})

    def _decide(self, ts: int, i: int, arm: str) -> None:
        p = float(self.said[arm][i] * 0.96 + 0.02)
        verdict, reason = self._act(ts, i, p)
        mmd = 0.6 * np.exp(-self.age[i] / 3) * (1.2 - self.similarity) + 0.01
        self.rows["decisions"].append({
            "ts": ts, "symbol": self.symbol, "bar_start": ts - BAR, "close": self.price[i],
            "stage": self.stage.value, "arm": arm, "model_id": f"m{i // 192}", "p_up": p,
            "confidence": max(p, 1 - p), "similarity": self.seen[i],
            "mmd": mmd + 0.003 * self.rng.standard_normal(), "effective_labels": i / HORIZON, "side": None,
            "verdict": verdict, "reason": reason,
        })  # fmt: skip

    def _act(self, ts: int, i: int, p: float) -> tuple[str, str]:
        """Hold to the horizon or the stop, then leave; enter when confident and allowed."""
        if i == self.exit_at:
            origin = FillOrigin.STOP_LOSS if self.stopped else FillOrigin.ORDER
            self._fill(ts, self.side.opposite, i, origin)
            return "exited", "the horizon has passed"
        if self.exit_at > i:
            self._pay_funding(ts, i)
            return "held", "in position"
        confidence = max(p, 1 - p)
        if confidence < 0.65:
            return "quiet", "confidence below the threshold"
        if refusal := _refusal(self.stage, self.seen[i], confidence):
            self.rows["alarms"].append(
                {"ts": ts, "kind": "Refused", "symbol": self.symbol, "text": refusal, "until": None}
            )
            return "refused", refusal
        self.side = Side.BUY if p > 0.5 else Side.SELL
        self.quantity = (200.0 if self.stage is Stage.FULL else 50.0) / self.price[i]
        self.stopped = self.rng.random() < 0.25
        self.exit_at = i + (3 if self.stopped else HORIZON)
        self._fill(ts, self.side, i, FillOrigin.ORDER)
        return "entered", f"confidence {confidence:.2f}"

    def _climb(self, ts: int, stage: Stage, *reasons: str) -> None:
        change = {"ts": ts, "symbol": self.symbol, "old": self.stage.value, "new": stage.value}
        self.rows["stages"].append({**change, "reasons": list(reasons)})
        self.stage = stage

    def _gate(self, ts: int, i: int) -> None:
        discarded = self.rng.random() < 0.2
        self.rows["gates"].append({
            "ts": ts, "symbol": self.symbol, "model_id": f"m{i // 192}", "arm": "adapted",
            "verdict": "discarded" if discarded else "shadow",
            "reasons": ["source accuracy fell by 0.041 > 0.03" if discarded else "accepted"],
            "similarity": self.seen[i], "mmd_before": 0.31, "mmd_after": 0.03,
            "effective_labels": i / HORIZON,
        })  # fmt: skip
        self._verdict(ts, i)

    def _verdict(self, ts: int, i: int) -> None:
        gain = Gain("adapted", "base rate", 0.012, 0.004, 0.02, math.nan, i / HORIZON, 31.0)
        verdict = Verdict("adapted", ("evidence 31 that its log loss is below the frozen model's",), (gain,))
        self.rows["verdicts"].append({"ts": ts, "symbol": self.symbol, **msgspec.to_builtins(verdict)})

    def _label(self, ts: int, i: int, arms: set[str]) -> None:
        self.rows["labels"].append({
            "ts": ts + HORIZON * BAR, "symbol": self.symbol, "bar_start": ts - BAR, "t_entry": ts,
            "outcome": int(self.outcome[i]), "ret": 0.0, "weight": 1 / HORIZON,
            "p_up": {arm: float(self.said[arm][i]) for arm in arms},
        })  # fmt: skip

    def _pay_funding(self, ts: int, i: int) -> None:
        if ts % (8 * HOUR_MS) == 0:
            amount = self.side.sign * self.quantity * self.price[i] * 1e-4
            paid = {"ts": ts, "received": ts, "exec_id": f"f{ts}", "symbol": self.symbol}
            self.rows["funding"].append({**paid, "amount": amount, "rate": 1e-4})

    def _fill(self, ts: int, side: Side, i: int, origin: FillOrigin) -> None:
        """Two basis points worse than the close."""
        price, qty = self.price[i] * (1 + side.sign * 2e-4), self.quantity
        link_id = f"{self.symbol}-{ts}" if origin is FillOrigin.ORDER else ""
        self.rows["fills"].append({
            "ts": ts, "received": ts, "exec_id": f"e{self.symbol}{ts}", "link_id": link_id,
            "symbol": self.symbol, "side": side.value, "price": price, "qty": qty,
            "fee": 0.00055 * price * qty, "leaves_qty": 0.0, "is_maker": False, "origin": origin.value,
        })  # fmt: skip
        if link_id:
            self.rows["orders"].append({
                "link_id": link_id, "order_id": "o", "symbol": self.symbol, "side": side.value,
                "type": "Market", "qty": qty, "price": None, "stop_loss": None,
                "take_profit": None, "reduce_only": False,
                "status": "Filled", "created": ts, "updated": ts, "reason": "", "filled_qty": qty,
                "avg_price": price,
            })  # fmt: skip


def _refusal(stage: Stage, similarity: float, confidence: float) -> str:
    if stage is Stage.SHADOW:
        return "stage SHADOW: not yet trusted"
    if similarity < 0.7:
        return f"similarity {similarity:.2f} < 0.7"
    return "expected move 0.31% < 0.45%, 3 x costs" if confidence < 0.68 else ""


def _account(rows: dict[str, Rows], days: int) -> None:
    """Equity from the fills, marked at each decision bar's close."""
    closes: dict[int, dict[str, float]] = {}
    for row in rows["decisions"]:
        closes.setdefault(row["ts"], {})[row["symbol"]] = row["close"]
    facts = sorted(_cash(rows))
    held: dict[str, float] = {}
    last: dict[str, float] = {}
    cash = peak = day_equity = 10_000.0
    for ts in range(START + BAR, START + days * DAY_MS + 1, BAR):
        while facts and facts[0][0] <= ts:
            _, symbol, qty, amount = facts.pop(0)
            held[symbol] = held.get(symbol, 0.0) + qty
            cash += amount
        last.update(closes.get(ts, {}))
        worth = {symbol: qty * last.get(symbol, 0.0) for symbol, qty in held.items()}
        equity = cash + sum(worth.values())
        peak = max(peak, equity)
        if (ts - BAR) % DAY_MS == 0:
            day_equity = equity
        rows["equity"].append({
            "ts": ts, "equity": equity, "balance": cash, "peak": peak, "drawdown": 1 - equity / peak,
            "day_drawdown": max(0.0, 1 - equity / day_equity),
            "exposure": sum(abs(value) for value in worth.values()) / equity,
        })  # fmt: skip


def _cash(rows: dict[str, Rows]) -> Iterator[tuple[int, str, float, float]]:
    for fill in rows["fills"]:
        signed = Side(fill["side"]).sign * fill["qty"]
        yield fill["ts"], fill["symbol"], signed, -signed * fill["price"] - fill["fee"]
    for paid in rows["funding"]:
        yield paid["ts"], paid["symbol"], 0.0, -paid["amount"]
