"""`bot study`: walk forward in calendar order over a folder of listings, every arm on every token.

Stages: every symbol's rows; the source network; the models that tokens share, at each cut; every arm on every
token. A job is a pure function of the study and its name, and leaves one file: what is there is not done
again, so an interrupted study goes on where it was, and any number of processes gives the same bits.
"""

import json
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final, NamedTuple, Protocol

from bot.core.errors import RuntimeFault, UsageError
from bot.core.interrupt import interrupts_held_back
from bot.core.types import DAY_MS
from bot.research.study_data import Study, cut_before, cuts, fingerprints, is_prepared, prepare
from bot.research.study_files import chain_key, registry, scores_path, source_key, trees_path
from strategies.features.spec import VERSION
from strategies.learning.files import write_atomically

NICE: Final = 10


class Job(NamedTuple):
    """stage: "rows", "source", "chain", "trees" or "scores"; cost: rough seconds, for the bar only."""

    stage: str
    cost: float
    twin: int
    cut: int = 0
    arm: str = ""
    symbol: str = ""


class Progress(Protocol):
    """Told what is to be done and what is done, in rough seconds."""

    def total(self, seconds: float) -> None: ...

    def done(self, seconds: float, what: str) -> None: ...


COSTS: Final = {
    "base_rate": 0.1, "frozen": 0.4, "lgbm_pooled": 0.5, "lgbm_token": 4.0, "chain": 0.4, "chain_head": 1.0,
    "prototypes": 1.5, "head": 1.0, "selected": 7.0, "scratch": 9.0, "full": 5.0, "mmd": 8.0,
    "class_mmd": 8.0, "coral": 7.0, "adversarial": 7.0, "combined": 9.0, "unaligned": 7.0, "chronos": 60.0,
    "moirai": 120.0,
}  # fmt: skip
"""Rough seconds per token."""
UNTAUGHT: Final = ("base_rate", "chronos", "moirai")  # no label trains them: they need no twin


SCORING: Final = 2
"""Of how arms come to their scores; another one's are not compared with these."""


def claim(study: Study) -> None:
    """Write down what the folder is the study of, or check that it is the same one.

    Raises UsageError when it holds another study, or one of files that have changed since.
    """
    path = study.output / "study.json"
    settings = {**asdict(study), "model": study.model.model_dump(), "features": VERSION, "scoring": SCORING}
    for moved in ("output", "tokens"):  # more tokens may be added to a study
        settings.pop(moved)
    if not study.foundation:
        settings.pop("foundation")
    text = json.dumps({**settings, "files": fingerprints(study)}, default=str, indent=1, sort_keys=True)
    if not path.exists():
        write_atomically(path, text.encode())
        return
    told, stored = json.loads(text), json.loads(path.read_text())
    if changed := sorted(key for key in told if stored.get(key) != told[key]):
        raise UsageError(
            f"{study.output} holds another study, by its {', '.join(changed)}; choose another --output"
            + "".join(f"\n  {name} is not what it was" for name in _differing(told, stored))
        )


def _differing(told: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    """Names of files; none where the folder knows of no files, for it is an earlier version's."""
    if "files" not in stored:
        return []
    return sorted({name for name, _ in told["files"].items() ^ stored["files"].items()})


def run(study: Study, arms: tuple[str, ...], processes: int, progress: Progress, twins: int) -> None:
    """Do every job that is not done, in a folder that `claim` let pass. twins: how many each arm has."""
    stages = [[job for job in stage if not _is_done(study, job)] for stage in _stages(study, arms, twins)]
    progress.total(sum(job.cost for stage in stages for job in stage))
    if not any(stages):
        return
    with interrupts_held_back():
        executor = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin)
        for _ in range(processes):  # each starts a process, which inherits what is held back
            executor.submit(_nothing)
    try:
        for stage in stages:
            futures = {executor.submit(_do, study, job): job for job in stage}
            for future in as_completed(futures):
                job = futures[future]
                future.result()
                progress.done(job.cost, " ".join(part for part in (job.stage, job.arm, job.symbol) if part))
    except BrokenProcessPool:
        raise RuntimeFault(
            "a process of the study ended unexpectedly (out of memory?); start again with fewer --jobs"
        ) from None
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _stages(study: Study, arms: tuple[str, ...], twins: int) -> list[list[Job]]:
    """Jobs of a stage need only those of the stages before; within it, the most valuable come first."""
    from bot.research.study_arms import needs

    kinds = range(twins + 1)
    source, chain, trees = needs(arms)
    rows = [Job("rows", 1.0, 0, symbol=name) for name in (*study.sources, *dict(study.listings))]
    first = [Job("source", 60.0, twin) for twin in kinds if source]
    firsts = [first for name, first in study.listings if name in study.tokens]
    listed = sorted({cut_before(study, first) for first in firsts})
    end = max(firsts) + (study.days[1] + 1) * DAY_MS  # later trees would judge nobody
    second = [Job("chain", 15.0, twin, cut) for cut in listed for twin in kinds if chain]
    second += [Job("trees", 15.0, twin, cut) for cut in cuts(study) if cut < end for twin in kinds if trees]
    third = [
        Job("scores", COSTS[arm], twin, 0, arm, symbol)
        for twin in kinds
        for arm in arms
        for symbol in study.tokens
        if not (twin and arm in UNTAUGHT)
    ]
    return [stage for stage in (rows, first, second, third) if stage]


def _begin() -> None:
    """In each worker: one thread, out of the way of everything else."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(OSError):
        os.nice(max(0, NICE - os.nice(0)))
    from threadpoolctl import threadpool_limits

    from bot.research import study_arms  # noqa: F401 - loads the libraries whose threads are limited
    from strategies.learning.listing_training import use_one_thread

    threadpool_limits(1)
    use_one_thread()


def _nothing() -> None:
    """The first job of a process."""


def _do(study: Study, job: Job) -> None:
    from bot.research import study_arms, study_pooled

    if job.stage == "rows":
        prepare(study, job.symbol)
    elif job.stage == "source":
        study_pooled.fit_source(study, job.twin)
    elif job.stage == "chain":
        study_pooled.fit_chain(study, job.cut, job.twin)
    elif job.stage == "trees":
        study_pooled.fit_trees(study, job.cut, job.twin)
    else:
        path = scores_path(study, job.arm, job.symbol, job.twin)
        study_arms.scores(study, job.arm, job.symbol, job.twin).save(path)


def _is_done(study: Study, job: Job) -> bool:
    if job.stage == "rows":
        return is_prepared(study, job.symbol)
    if job.stage == "source":
        return registry(study).find_pretrained(source_key(job.twin)) is not None
    if job.stage == "chain":
        return registry(study).find_pretrained(chain_key(job.cut, job.twin)) is not None
    if job.stage == "trees":
        return trees_path(study, job.cut, job.twin).exists()
    return scores_path(study, job.arm, job.symbol, job.twin).exists()
