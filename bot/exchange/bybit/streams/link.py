"""A connection that comes back for ever, within the budget and with patience."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from websockets.exceptions import InvalidStatus, WebSocketException

from bot.exchange.bybit import wire
from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.environment import Credentials
from bot.exchange.bybit.streams.backoff import Backoff, ConnectionBudget
from bot.exchange.bybit.streams.connection import (
    Connection,
    ConnectionLost,
    Decode,
    Dialect,
    LoginRefusedError,
    OpenSocket,
    Receive,
    Traffic,
    first_to_end,
    open_socket,
)
from bot.exchange.bybit.streams.notices import Disconnected, LoginRefused, Notice
from bot.exchange.bybit.streams.settings import StreamSettings
from bot.exchange.bybit.wire import WireError

Session = Callable[[Connection], Awaitable[Any]]


class Link:
    """Connects, logs in, runs `session` on the connection, and does it all again when that ends.

    `session` runs beside the reading and should not return while the connection is wanted.
    """

    def __init__(
        self,
        url: str,
        session: Session,
        *,
        dialect: Dialect,
        receive: Receive,
        tell: Callable[[Notice], None],
        on_bad_frame: Callable[[WireError], None],
        clock: ExchangeClock,
        credentials: Credentials | None,
        budget: ConnectionBudget,
        backoff: Backoff,
        settings: StreamSettings,
        decode: Decode = wire.decode,
        opener: OpenSocket = open_socket,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.traffic = Traffic()
        self.connections = 0
        self.connection: Connection | None = None  # logged in and usable
        self._url = url
        self._session = session
        self._dialect = dialect
        self._receive = receive
        self._tell = tell
        self._on_bad_frame = on_bad_frame
        self._clock = clock
        self._credentials = credentials
        self._budget = budget
        self._backoff = backoff
        self._refusals = Backoff(1.0, settings.patience_s)  # of logins; a wrong clock may be mended soon
        self._settings = settings
        self._decode = decode
        self._opener = opener
        self._sleep = sleep

    async def run(self) -> NoReturn:
        """Until cancelled. No failure of the exchange or of a session ends it."""
        while True:
            await self._budget.take()
            self.connections += 1
            started = time.monotonic()
            heard = self.traffic.frames
            reason, delay = await self._live()
            self.traffic.lost[reason.partition(" (")[0]] += 1
            if time.monotonic() - started >= self._settings.steady_s:
                self._backoff.reset()
            if delay is None:
                in_vain = time.monotonic() - started if self.traffic.frames == heard else 0.0
                delay = max(0.0, self._backoff.next() - in_vain)  # waiting for an answer was waiting, too
            self._tell(Disconnected(reason, delay))
            await self._sleep(delay)

    async def _live(self) -> tuple[str, float | None]:
        """One connection from beginning to end: why it ended, and how long to wait if not as usual."""
        try:
            async with self._opener(self._url, self._settings) as socket:
                connection = Connection(
                    socket, self._dialect, self._receive, self._on_bad_frame, self._settings, self.traffic,
                    self._decode,
                )  # fmt: skip
                await first_to_end(connection.run(), self._use(connection))
        except LoginRefusedError as error:
            self._tell(LoginRefused(str(error)))
            return "login refused", self._refusals.next()
        except ConnectionLost as error:
            return str(error), None
        except InvalidStatus as error:
            status = error.response.status_code
            return f"HTTP {status}", self._settings.patience_s if status == 403 else None
        except TimeoutError:
            return "no answer in time", None
        except (OSError, WebSocketException) as error:
            return f"cannot connect: {type(error).__name__}", None
        except Exception as error:  # a bug of ours must not end the stream silently
            return f"failure in the client: {type(error).__name__}: {error}", None
        finally:
            self.connection = None
        return "the session ended", None

    async def _use(self, connection: Connection) -> None:
        if self._credentials is not None:
            await connection.log_in(self._credentials, self._clock.now_ms())
            self._refusals.reset()
        self.connection = connection
        await self._session(connection)
