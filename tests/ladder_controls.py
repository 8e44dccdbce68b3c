"""The ladder's controls: markets whose right answer is known, through the engine as it is shipped.

One run per seed: a token with the sources' mechanism, one with the reverse of it, a random walk, and one that
turns from the first to the second in the middle of its life. The source model is kept between runs.

    python -m tests.ladder_controls DIRECTORY SEED [SEED ...]

keeps what became of a seed's tokens in DIRECTORY/SEED.json, does those that are not there, and sums them up.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from bot.core.commands import AdaptModel, Command, ExtendChain
from bot.core.errors import BotError
from bot.core.events import AdaptationFailed, CandidateArrived, Event, OrderFilled
from bot.core.records import DecisionMade, Record, StageChanged
from bot.core.types import DAY_MS, MINUTE_MS, Side, Stage
from bot.engine.candidates import Candidates
from bot.engine.driver import drive
from bot.engine.engine import Engine
from bot.engine.portfolio import Portfolio
from bot.engine.runner import Runner
from bot.exchange.simulated.broker import SimulatedBroker
from bot.exchange.simulated.listings import Plan
from bot.exchange.simulated.market import SimulatedMarket
from bot.execution.orders import Orders
from bot.settings import Adaptation, Model, Settings, Simulation
from risk.breaker import Breaker
from risk.manager import RiskManager
from strategies.learning.adaptation_job import Adapting
from strategies.learning.files import write_atomically
from strategies.learning.pretraining_job import Pretraining
from strategies.learning.registry import Registry
from strategies.transfer import TransferStrategy

DAYS: Final = 60
TURN: Final = 30.0  # age in days
AFTERMATH: Final = 7.0  # days from the turn; who begins to trade later has seen the new mechanism
BALANCE: Final = Settings().account.initial_balance
# A smaller network on a shorter history, adapted every two weeks: for speed. The gate is as shipped.
HISTORY: Final = 90  # days of the sources
MODEL: Final = Model(channels=16, blocks=4, embedding=16, epochs=12)
ADAPTATION: Final = Adaptation(every_bars=1344)
SHARED, REVERSED, WALK, TURNING = "SHAREDUSDT", "REVERSEDUSDT", "WALKUSDT", "TURNINGUSDT"
PLANS: Final = (
    Plan(SHARED, 1.0, "shared", 0.0065, 0.65),
    Plan(REVERSED, 1.0, "reversed", 0.0070, 0.60),
    Plan(WALK, 1.0, "none", 0.0080, 0.60),
    Plan(TURNING, 1.0, "turning", 0.0065, 0.65, turns_after=TURN),
)


@dataclass
class Life:
    """What became of one token. Times are its age in days, money is quote coin."""

    first: dict[str, float] = field(default_factory=dict)  # stage: age at which it was first reached
    changes: list[tuple[float, str, str, str]] = field(default_factory=list)  # age, old, new, why
    trades: int = 0
    profit: float = 0.0  # after fees, positions at the last price
    deceived: bool = False  # it traded in the aftermath of the turn
    back: float | None = None  # age at which it traded no more after the turn
    profit_after_turn: float = 0.0  # from the turn until then, and until what was held is sold


class Chronicle:
    """An observer and a journal at once: keeps what the controls are judged by."""

    def __init__(self, market: SimulatedMarket) -> None:
        self.lives = {name: Life() for name in market.symbols[2:]}
        self._births = {name: market.launched(name) for name in self.lives}
        self._cash = dict.fromkeys(self.lives, 0.0)
        self._held = dict.fromkeys(self.lives, 0.0)
        self._price = dict.fromkeys(self.lives, 0.0)
        self._at_turn: dict[str, float] = {}
        self._settled: set[str] = set()  # back from the turn, the aftermath over, and nothing held

    def write(self, message: Event | Command | Record) -> None:
        if isinstance(message, OrderFilled):
            signed = float(message.qty) * (1 if message.side is Side.BUY else -1)
            self._cash[message.symbol] -= signed * float(message.price) + float(message.fee)
            self._held[message.symbol] += signed
            self.lives[message.symbol].trades += abs(self._held[message.symbol]) < 1e-9
        elif isinstance(message, DecisionMade):
            self._price[message.symbol] = message.close
            self._look(message)
        elif isinstance(message, StageChanged):
            self._climb(message)

    def commit(self) -> None:
        """Nothing is kept on a disk."""

    def _age(self, symbol: str, ts: int) -> float:
        return (ts - self._births[symbol]) / DAY_MS

    def _worth(self, symbol: str) -> float:
        return self._cash[symbol] + self._held[symbol] * self._price[symbol]

    def _look(self, decision: DecisionMade) -> None:
        symbol = decision.symbol
        life = self.lives[symbol]
        life.profit = self._worth(symbol)
        age = self._age(symbol, decision.ts)
        if age < TURN or symbol in self._settled:
            return
        life.profit_after_turn = life.profit - self._at_turn.setdefault(symbol, life.profit)
        if decision.stage in (Stage.SMALL, Stage.FULL):
            life.deceived, life.back = True, None
        elif life.back is None:
            life.back = age
        if age >= TURN + AFTERMATH and life.back is not None and abs(self._held[symbol]) < 1e-9:
            self._settled.add(symbol)

    def _climb(self, change: StageChanged) -> None:
        life, age = self.lives[change.symbol], self._age(change.symbol, change.ts)
        life.first.setdefault(change.new.value, age)
        life.changes.append((age, change.old.value, change.new.value, "; ".join(change.reasons)))


class AtOnce:
    """The adaptation of the child process without the process: what it answers, it answers at once."""

    def __init__(self, home: Path, base_model: str, replay: Path, settings: Adaptation) -> None:
        self._adapting = Adapting(home, base_model, replay, settings)
        self._answers: dict[tuple[str, int], CandidateArrived | AdaptationFailed] = {}

    def submit(self, job: AdaptModel | ExtendChain) -> None:
        answer: CandidateArrived | AdaptationFailed
        try:
            model_id, report = self._adapting.run(job)
            answer = CandidateArrived(0, 0, job.symbol, model_id, job.cut, report)
        except BotError as error:
            answer = AdaptationFailed(0, 0, job.symbol, job.cut, str(error))
        self._answers[job.symbol, job.cut] = answer

    def poll(self) -> None:
        """Nothing is under way."""

    def take(self, symbol: str, cut: int, due: int) -> CandidateArrived | AdaptationFailed:
        return msgspec.structs.replace(self._answers.pop((symbol, cut)), ts=due, received=due)


def run(seed: int, home: Path, plans: Sequence[Plan] = PLANS, days: int = DAYS) -> dict[str, Life]:
    """The lives of the tokens of one seed; `home` keeps models."""
    settings = Settings(
        simulation=Simulation(seed=seed, days=days, history_days=HISTORY, bar_minutes=15),
        model=MODEL,
        adaptation=ADAPTATION,
    )
    interval = settings.market.decision_minutes * MINUTE_MS
    market = SimulatedMarket(
        settings.simulation, settings.market.sources, interval, settings.label.horizon_bars, plans
    )
    return asyncio.run(_run(settings, market, home / str(seed), interval))


async def _run(settings: Settings, market: SimulatedMarket, home: Path, interval: int) -> dict[str, Life]:
    tables = [market.history(name).resampled(interval) for name in settings.market.sources]
    pretraining = Pretraining(tables, settings, home)
    stop = asyncio.Event()
    pretrained = pretraining.find() or await pretraining.run(stop, lambda *_: None)
    assert pretrained is not None
    models = {pretrained.model_id: pretrained}
    worker = AtOnce(home, pretrained.model_id, pretraining.replay_path, settings.adaptation)
    breaker = Breaker(settings.risk, BALANCE)
    engine = Engine(
        TransferStrategy(settings, pretrained, models),
        RiskManager(settings.risk, settings.gate, settings.costs, breaker),
        breaker,
        Portfolio(Decimal(BALANCE)),
        Orders(),
        settings.risk,
        interval,
        settings.execution,
    )
    chronicle = Chronicle(market)
    runner = Runner(
        engine,
        SimulatedBroker(settings.costs, market.half_spread, Decimal(BALANCE)),
        Candidates(worker, Registry(home), models, ()),  # type: ignore[arg-type]
        chronicle,
        settings.adaptation.delay_bars * interval,
    )
    await drive(runner, market.events(), stop, chronicle.commit, lambda _: None)
    return chronicle.lives


def kept(seed: int, home: Path) -> dict[str, Life]:
    """As `run`, once for ever: delete `home` after a change."""
    path = home / f"{seed}.json"
    if not path.exists():
        write_atomically(path, msgspec.json.encode(run(seed, home)))
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Life])


def ages(lives: Sequence[Mapping[str, Life]], symbol: str, stage: Stage) -> list[float]:
    """Ages in days at which the token first was at the stage, of the seeds in which it was."""
    return sorted(life[symbol].first[stage.value] for life in lives if stage.value in life[symbol].first)


def deceived(lives: Sequence[Mapping[str, Life]]) -> list[Life]:
    """Of the turning token, where it traded on what it had learnt before."""
    return [life[TURNING] for life in lives if life[TURNING].deceived]


def summary(lives: Sequence[Mapping[str, Life]]) -> list[str]:
    """Lines for people. Money is a share of the account."""
    out = []
    for symbol in lives[0]:
        steps = []
        for stage in (Stage.SMALL, Stage.FULL):
            at = ages(lives, symbol, stage)
            when = f" (median day {median(at):.1f}, last {at[-1]:.1f})" if at else ""
            steps.append(f"{stage.value} in {len(at)}{when}")
        profit = median(life[symbol].profit for life in lives) / BALANCE
        out.append(f"{symbol} of {len(lives)} seeds: {', '.join(steps)}; median profit {profit:+.2%}")
    delays = [life.back - TURN for life in deceived(lives) if life.back is not None]
    losses = [life.profit_after_turn / BALANCE for life in deceived(lives)]
    if losses:
        out.append(
            f"after the turn it still traded in {len(losses)} seeds, no more in {len(delays)} of them after "
            f"{median(delays):.1f} days (median), {max(delays):.1f} at most; from the turn until flat "
            f"{median(losses):+.2%} (median), {min(losses):+.2%} at worst"
        )
    return out


if __name__ == "__main__":
    lives = [kept(int(number), Path(sys.argv[1])) for number in sys.argv[2:]]
    sys.stdout.write("\n".join(summary(lives)) + "\n")
