"""Order entry by WebSocket (`/v5/trade`): the requests and answers of REST on one connection.

An answer is an acknowledgement only. One that does not come leaves the outcome unknown, as with REST.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, NoReturn

from bot.exchange.bybit import endpoints
from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.endpoints import Endpoint
from bot.exchange.bybit.environment import Credentials, Environment
from bot.exchange.bybit.errors import ExchangeError
from bot.exchange.bybit.judge import Judge
from bot.exchange.bybit.limits import Limits
from bot.exchange.bybit.order_entry import OrderEntry
from bot.exchange.bybit.requests import Params
from bot.exchange.bybit.streams.backoff import Backoff, ConnectionBudget
from bot.exchange.bybit.streams.connection import Connection, ConnectionLost, OpenSocket, Traffic, open_socket
from bot.exchange.bybit.streams.link import Link
from bot.exchange.bybit.streams.notices import BadFrames, Connected, Notice
from bot.exchange.bybit.streams.raw import RawBook
from bot.exchange.bybit.streams.settings import StreamSettings
from bot.exchange.bybit.wire import Pushed, Response, WireError, response_of_reply

_OPS: Final = {
    endpoint: endpoint.path.removeprefix("/v5/").replace("/", ".")
    for endpoint in (
        endpoints.CREATE,
        endpoints.AMEND,
        endpoints.CANCEL,
        endpoints.CREATE_BATCH,
        endpoints.AMEND_BATCH,
        endpoints.CANCEL_BATCH,
    )
}


class TradeStream(OrderEntry):
    """`run` keeps the connection alive. Order methods raise ExchangeError, whose kind says what is known."""

    def __init__(
        self,
        environment: Environment,
        credentials: Credentials,
        *,
        clock: ExchangeClock,
        limits: Limits,
        on_notice: Callable[[Notice], None],
        timeout: float = 5.0,
        recv_window_ms: int = 5_000,
        budget: ConnectionBudget | None = None,
        backoff: Backoff | None = None,
        settings: StreamSettings | None = None,
        opener: OpenSocket = open_socket,
        resync: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """resync: measures the clock, after a 10002.

        Raises UsageError where the environment has no order entry by WebSocket.
        """
        self._resync = resync
        self._clock = clock
        self._limits = limits
        self._judge = Judge(environment, limits, clock)
        self._timeout = timeout
        self._recv_window = str(recv_window_ms)
        self._on_notice = on_notice
        self._link = Link(
            environment.trade_url, self._session, dialect="reqId", receive=self._ignore, tell=on_notice,
            on_bad_frame=self._on_bad_frame, clock=clock, credentials=credentials,
            budget=budget or ConnectionBudget(), backoff=backoff or Backoff(),
            settings=settings or StreamSettings(), opener=opener,
        )  # fmt: skip

    async def run(self) -> NoReturn:
        """Until cancelled."""
        await self._link.run()

    @property
    def connected(self) -> bool:
        return self._link.connection is not None

    @property
    def traffic(self) -> Traffic:
        return self._link.traffic

    def counts(self) -> tuple[int, int]:
        """Frames that came in, and frames that were answers: anything else has no business here."""
        return self.traffic.frames, self.traffic.control

    async def _call(self, endpoint: Endpoint, parameters: Params, cost: int = 1) -> Response[Any]:
        await self._limits.enter(endpoint.group, cost, by_address=False)
        connection = self._link.connection
        if connection is None:
            raise self._judge.of_not_sent(endpoint, "the order entry stream is down")
        header = {"X-BAPI-TIMESTAMP": str(self._clock.now_ms()), "X-BAPI-RECV-WINDOW": self._recv_window}
        try:
            reply = await connection.request(
                _OPS[endpoint], [parameters], answer_s=self._timeout, header=header
            )
        except TimeoutError:
            connection.abort()  # it may be half open, and the next order, an exit perhaps, must not wait too
            if self._link.connection is connection:
                self._link.connection = None
            raise self._judge.of_silence(endpoint, f"none within {self._timeout:g} s") from None
        except ConnectionLost as error:
            raise self._judge.of_silence(endpoint, str(error)) from None
        self._judge.note(endpoint, reply.header)
        if reply.code == 10002 and self._resync:
            with suppress(ExchangeError):  # the error at hand says more
                await self._resync()
        if reply.code:
            raise self._judge.of_code(endpoint, reply.code, reply.text, reply.header)
        try:
            response = response_of_reply(reply)
        except WireError as error:
            raise self._judge.of_nonsense(endpoint, str(error)) from None
        self._judge.note_items(endpoint, response, reply.header)
        return response

    async def _session(self, _: Connection) -> NoReturn:
        self._on_notice(Connected(self._link.connections))
        await asyncio.Event().wait()
        raise AssertionError("an event that nobody sets")

    def _ignore(self, _: Pushed | RawBook) -> None:
        """Nothing is pushed to this stream."""

    def _on_bad_frame(self, error: WireError) -> None:
        self._on_notice(BadFrames(1, str(error)))
