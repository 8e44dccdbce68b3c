"""How a live run ends, and what the supervisor hears of it: real client, real streams, the local exchange."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from bot.care import NoAdaptation
from bot.control import Control, commanded
from bot.core.events import Event
from bot.core.types import MINUTE_MS, Verb
from bot.dashboard.lines import LineView
from bot.engine.portfolio import Portfolio
from bot.exchange.bybit.audit import Line
from bot.exchange.bybit.broker import BybitBroker
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.bybit.live_market import LiveMarket, MarketSettings
from bot.exchange.bybit.requests import NewOrder
from bot.exchange.bybit.rest import Rest
from bot.execution.orders import Orders, tag_of
from bot.live.parts import engine_of
from bot.ops.systemd import Notifier
from bot.rehearsal import EVERYTHING
from bot.settings import Settings
from bot.storage.database import Database
from bot.storage.journal import Journal
from bot.storage.mailbox import Mailbox
from bot.wiring import Wiring
from risk.breaker import Breaker
from tests.local_exchange import KEY, SECRET, LocalExchange, local_exchange
from tests.test_database import RUN
from tests.test_engine import Scripted, nothing


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    with local_exchange(manual=False) as running:
        yield running


class Supervisor:
    """What systemd is to a service: a socket, and a period after which silence is death."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(directory / "notify"))
        self._socket.setblocking(False)
        self.variables = {"NOTIFY_SOCKET": str(directory / "notify"), "WATCHDOG_USEC": "900000"}

    def heard(self) -> list[str]:
        heard = []
        while True:
            try:
                heard.append(self._socket.recv(100).decode())
            except BlockingIOError:
                return heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    running = Supervisor(tmp_path)
    yield running
    running.close()


async def run(
    exchange: LocalExchange,
    database: Database,
    supervisor: Supervisor,
    *,
    on_stop: str = "keep",
    ask: Verb | None = None,
    settings: Settings | None = None,
    last: Callable[[], None] = lambda: None,
) -> list[Line]:
    """A run that finds a position, until it is stopped (or until a person has asked); its last audit.

    last: between the end of trading and the audit
    """
    environment, keys = local(exchange.url), Credentials(KEY, SECRET)
    rest, settings = Rest(environment, keys), settings or Settings()
    await rest.measure_clock()
    bought = NewOrder(
        symbol="ETHUSDT", side="Buy", order_type="Market", qty=Decimal(1), stop_loss=Decimal(2_400)
    )
    await rest.orders.create(bought)
    inbox: asyncio.Queue[Event] = asyncio.Queue()
    broker = BybitBroker(environment, keys, rest, inbox.put_nowait)
    market = LiveMarket(
        environment, rest, ("BTCUSDT",), EVERYTHING, inbox.put_nowait,
        MarketSettings(interval=MINUTE_MS, decision_interval=MINUTE_MS),
    )  # fmt: skip
    stop, started = asyncio.Event(), rest.clock.now_ms()
    control = Control(database, "testnet", look_seconds=0.05, end=stop.set)
    control.begin()
    person = Mailbox(database, "testnet")
    assert control.opening() == []
    async with control.serving(lambda request: inbox.put_nowait(commanded(request, started))):
        try:
            for item in await market.open():  # first: what is held of others is closed
                market.follow(item, started // MINUTE_MS * MINUTE_MS)
            opening = await broker.start()
            wiring = Wiring(
                rest, inbox, market, broker,
                engine_of(settings, Scripted(nothing), Breaker(settings.risk, float(opening.balance)),
                          Portfolio(opening.balance), Orders(tag_of(started, 1)), MINUTE_MS),
                Journal.start(database, **RUN), LineView(0.0, Console(quiet=True)), NoAdaptation(), 0,
                opened=opening.ts,
                control=control, flatten_at_stop=on_stop == "flatten",
                notifier=Notifier(supervisor.variables),
            )  # fmt: skip
            living = asyncio.create_task(wiring.live(stop))
            await until(lambda: bool(wiring.engine.portfolio.positions))
            await asyncio.sleep(0.6)  # of a healthy loop
            if ask is None:
                stop.set()
            else:
                request = person.post(ask, "ann", "", 1)
                await until(lambda: bool(person.request(request.number).done))
                stop.set()
            await living
            last()
            lines = await wiring.close()
            wiring.journal.finish({})
            return lines
        finally:
            await broker.close()
            rest.close()


async def until(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.02)


def held(exchange: LocalExchange) -> dict[str, tuple[Decimal, bool]]:
    """Quantity, and whether a stop lies at the exchange, by symbol."""
    return exchange.do(
        lambda: {
            item.contract.symbol: (item.qty, item.stop_loss is not None) for item in exchange.account.held()
        }
    )


@pytest.mark.parametrize("on_stop", ["keep", "flatten"])
async def test_a_stop_leaves_protected_positions_or_none(
    exchange: LocalExchange, tmp_path: Path, supervisor: Supervisor, on_stop: str
) -> None:
    with Database.open(tmp_path / "bot.sqlite") as database:
        await run(exchange, database, supervisor, on_stop=on_stop)
        heard = [event.verb for event in database.operator(1)]
    if on_stop == "keep":
        assert held(exchange) == {"ETHUSDT": (Decimal(1), True)}
        assert heard == []
    else:
        assert held(exchange) == {}
        assert heard == [Verb.FLATTEN]
        with Database.open(tmp_path / "bot.sqlite") as database:
            assert Mailbox(database, "testnet").in_force() == []  # the next start trades
    said = supervisor.heard()
    assert said[0] == "READY=1"
    assert said.count("STOPPING=1") == 1
    assert said.count("WATCHDOG=1") >= 2


async def test_a_person_flattens_a_live_run(
    exchange: LocalExchange, tmp_path: Path, supervisor: Supervisor
) -> None:
    with Database.open(tmp_path / "bot.sqlite") as database:
        await run(exchange, database, supervisor, on_stop="keep", ask=Verb.FLATTEN)
        (request,) = Mailbox(database, "testnet").in_force()
    assert held(exchange) == {}
    assert request.answer == "flat; no entries before `bot resume`"


async def test_a_kill_leaves_positions_and_their_stops_even_where_a_stop_would_flatten(
    exchange: LocalExchange, tmp_path: Path, supervisor: Supervisor
) -> None:
    with Database.open(tmp_path / "bot.sqlite") as database:
        await run(exchange, database, supervisor, on_stop="flatten", ask=Verb.KILL)
        killed = Mailbox(database, "testnet").killed()
    assert held(exchange) == {"ETHUSDT": (Decimal(1), True)}
    assert killed is not None
    assert killed.answer == "stopped; 1 positions keep their stops"


async def test_an_exit_of_the_last_moment_is_booked(
    exchange: LocalExchange, tmp_path: Path, supervisor: Supervisor
) -> None:
    """The price at which the account is looked at for the last time trips the limit of the day."""
    settings = Settings()
    settings = settings.model_copy(
        update={"risk": settings.risk.model_copy(update={"daily_drawdown": 0.001})}
    )
    with Database.open(tmp_path / "bot.sqlite") as database:
        lines = await run(
            exchange, database, supervisor, settings=settings, last=lambda: exchange.move("ETHUSDT", 0.99)
        )
        fills = database.frame(1, "fills", ["symbol", "side", "qty", "leaves_qty"])
    assert held(exchange) == {}
    assert fills.values.tolist() == [["ETHUSDT", "Sell", Decimal(1), Decimal(0)]]
    assert [line for line in lines if not line.equal] == []


def test_the_watchdog_is_told_no_more_often_than_it_needs_and_never_by_silence(
    supervisor: Supervisor,
) -> None:
    now = 0.0
    notifier = Notifier(supervisor.variables, lambda: now)
    for _ in range(300):
        notifier.alive()
        now += 0.01
    assert len(supervisor.heard()) == 10  # thrice in 0.9 s, for three seconds
    now += 60.0  # the loop hangs: nobody says anything for it
    assert supervisor.heard() == []


def test_without_systemd_nothing_is_said() -> None:
    notifier = Notifier({})
    notifier.ready()
    notifier.alive()
    notifier.stopping()
