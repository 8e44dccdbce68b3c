"""An engine that trades through the real client: the loop of a live run with a strategy that tests script."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from bot.core.events import Event, InstrumentListed
from bot.core.types import Instrument
from bot.engine.engine import Engine
from bot.engine.live import follow
from bot.engine.portfolio import Portfolio
from bot.engine.runner import Runner
from bot.exchange.bybit.audit import RunLog
from bot.exchange.bybit.broker import BrokerSettings, BybitBroker
from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.environment import Credentials, Environment
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.streams import StreamSettings
from bot.execution.orders import Orders, tag_of
from bot.settings import Costs, Execution, Gate, Risk
from risk.breaker import Breaker
from risk.manager import RiskManager
from tests.test_engine import NoModels, Recorder, Scripted, Wish

RISK = Risk(
    position_share=0.02, max_exposure=1.0, daily_drawdown=0.9, rolling_drawdown=0.9, peak_drawdown=0.9,
    token_daily_loss=0.9, turnover_share=1.0, interest_share=1.0, cooldown_minutes=0,
)  # fmt: skip


class LiveDesk:
    """Feed it with `tell`; what it did is in `journal` and `engine`."""

    def __init__(self, rest: Rest, broker: BybitBroker, inbox: "asyncio.Queue[Event]") -> None:
        self.rest, self.broker, self.inbox = rest, broker, inbox
        self.journal = Recorder()
        self.log = RunLog()
        self.stop = asyncio.Event()
        self.opened = 0  # when the account was read, ms
        self.engine: Engine
        self.runner: Runner

    def build(self, wish: Wish, balance: Decimal, interval: int) -> None:
        breaker = Breaker(RISK, float(balance))
        self.engine = Engine(
            Scripted(wish), RiskManager(RISK, Gate(), Costs(), breaker), breaker, Portfolio(balance),
            Orders(tag_of(self.rest.clock.now_ms(), 1)), RISK, interval, Execution(),
        )  # fmt: skip
        self.runner = Runner(self.engine, self.broker, NoModels(), self.journal, 0, (self.log.apply,))

    def tell(self, *events: Event) -> None:
        for event in events:
            self.inbox.put_nowait(event)

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0, what: str = "") -> None:
        """Wait for any state of the engine; AssertionError with `what` when it does not come in time."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
            await asyncio.sleep(0.01)


@asynccontextmanager
async def live_desk(
    environment: Environment, credentials: Credentials, wish: Wish, interval: int, *,
    settings: BrokerSettings, streams: StreamSettings, clock: ExchangeClock | None = None,
    recv_window_ms: int = 2_000, instruments: Sequence[Instrument] = (), **more: Any,
) -> AsyncIterator[LiveDesk]:  # fmt: skip
    """instruments: known before the account is, as a run knows those that are held."""
    rest = Rest(environment, credentials, clock=clock, timeout=2.0, recv_window_ms=recv_window_ms)
    await rest.measure_clock()
    inbox: asyncio.Queue[Event] = asyncio.Queue()
    now = rest.clock.now_ms()
    for item in instruments:
        inbox.put_nowait(InstrumentListed(now, now, item))
    broker = BybitBroker(
        environment, credentials, rest, inbox.put_nowait, settings, stream_settings=streams,
        **more,
    )  # fmt: skip
    desk = LiveDesk(rest, broker, inbox)
    try:
        opening = await broker.start()
        desk.opened = opening.ts
        desk.build(wish, opening.balance, interval)
        loop = asyncio.create_task(
            follow(desk.runner, inbox, desk.stop, desk.journal.commit, lambda: None, rest.clock.now_ms)
        )
        try:
            yield desk
        finally:
            desk.stop.set()
            await loop
    finally:
        await broker.close()
        rest.close()
