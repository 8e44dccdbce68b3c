"""`bot study`: from options to a study, its predictions and its table."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from bot.core.errors import UsageError
from bot.dashboard.progress import WorkProgress
from bot.settings import Settings
from bot.storage.barfiles import INTERVALS

ARMS: Final = (
    "base_rate", "lgbm_pooled", "frozen", "chain", "chain_head", "prototypes", "head", "lgbm_token", "full",
    "selected", "scratch", "mmd", "class_mmd", "coral", "adversarial", "combined", "unaligned",
)  # fmt: skip
"""Most valuable first. Always-short, the pooled rate and the ensemble come with them at no cost."""


def run_study(
    settings: Settings,
    data: Path,
    output: Path | None,
    *,
    arms: str | None,
    jobs: int,
    twins: int,
    days: str,
    interval: str,
    options: dict[str, Any],
) -> None:
    """Run, or go on with, a study; write its predictions, table and page, and print the table.

    options: of `bot.research.study_data.plan`. Raises UsageError and DataError.
    """
    from bot.research import (
        study,
        study_arms,
        study_comparisons,
        study_data,
        study_explained,
        study_predictions,
        study_table,
    )
    from strategies.learning import foundation

    chosen = _arms(arms, options["foundation"])
    if name := options["foundation"].partition("=")[0]:
        foundation.require(name)
    planned = study_data.plan(
        data,
        output or settings.storage.directory / "study",
        settings.market.sources,
        days=_days(days),
        interval=_interval(interval),
        taker_fee=settings.costs.taker_fee,
        model=settings.model,
        **options,
    )
    console = Console()
    console.print(
        f"{len(planned.tokens)} tokens first seen {_date(planned.since)} to {_date(planned.until)}, days "
        f"{planned.days[0]}-{planned.days[1]}, horizon {planned.horizon} bars, {len(chosen)} arms, "
        f"in {planned.output}; "
        + (f"funding rates from {planned.funding}" if planned.funding else "no funding rates"),
        highlight=False,
        soft_wrap=True,
    )
    for note in study_data.left_out(planned, options["tokens"] or ()):
        console.print(note, highlight=False, soft_wrap=True)
    study.claim(planned)
    with WorkProgress("study", console=console) as progress:
        study.run(planned, chosen, jobs, progress, twins)
    facts = study_table.outcomes(planned)
    path = planned.output / "predictions.parquet"
    study_predictions.write(
        path, (one for token in planned.tokens for one in study_predictions.of_token(planned, token, chosen))
    )
    said = study_table.predicted(planned, path, facts)
    rows = list(study_table.table(planned, facts, said))
    pairs = list(study_comparisons.comparisons(planned.days, facts, said))
    remarks = _remarks(planned.output, rows)
    if silent := study_table.not_judged(planned, facts):
        remarks.append(f"No bar to judge: {', '.join(silent)}.")
    text = "\n".join([*study_table.lines(rows), "", *study_comparisons.lines(pairs), "", *remarks])
    (planned.output / "table.md").write_text(text + "\n", encoding="utf-8")
    if study_arms.needs(chosen)[1]:
        page = study_explained.explained(planned)
        (planned.output / "explained.html").write_text(page, encoding="utf-8")
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Predictions {path}", highlight=False, soft_wrap=True)


def _remarks(output: Path, rows: list[Any]) -> list[str]:
    """What the table does not say of itself."""
    tried = len({row.arm for row in rows})
    path = output / "tried.json"
    before = json.loads(path.read_text()) if path.exists() else []
    every = sorted({*before, *(row.arm for row in rows)})
    path.write_text(json.dumps(every, indent=1), encoding="utf-8")
    return [
        f"{tried} configurations judged, {len(every)} in this folder so far; the best is partly luck.",
        "Skill is over the token's expanding base rate, shrunk to that of earlier listings (arm base_rate).",
        *_warning(rows),
        "AUC: over all tokens, so that knowing which fall more counts; within: bars of one token only, where "
        "a share of ups so far (+prior, base_rate) orders the wrong way by itself.",
        "Intervals: 95 %, of resampled UTC days, each for itself: of twenty, one is wrong. One twin's says "
        "nothing of other twins; that of several (x n) is between them.",
        "Net: after both taker fees; no spread, slippage, funding.",
    ]


def _warning(rows: list[Any]) -> list[str]:
    if not {row.arm for row in rows} & {"chronos", "moirai"}:
        return []
    return ["A pretrained forecaster may have learnt from these very days: only later ones count."]


def _arms(text: str | None, foundation: str) -> tuple[str, ...]:
    """foundation: "name=place"; its name is an arm then."""
    name, _, place = foundation.partition("=")
    if foundation and not (name and place):
        raise UsageError(f"--foundation {foundation!r}: write the forecaster and its place: chronos=FOLDER")
    known = (*ARMS, name) if foundation else ARMS
    if text is None:
        return known
    names = [one.strip() for one in text.split(",") if one.strip()]
    if unknown := sorted(set(names) - set(known)):
        raise UsageError(f"no arm {', '.join(unknown)}; choose from {', '.join(known)}")
    return tuple(one for one in known if one in {*names, "base_rate"})


def _days(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise UsageError(f"--days {text!r}: write the first and the last day, such as 3-60")
    return int(first), int(last)


def _interval(text: str) -> int:
    if text not in INTERVALS:
        raise UsageError(f"--interval {text!r}: choose from {', '.join(INTERVALS)}")
    return INTERVALS[text]


def _date(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")
