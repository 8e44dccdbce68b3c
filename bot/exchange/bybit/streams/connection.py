"""One WebSocket from open to closed: requests and their replies, pings, the read deadline."""

import asyncio
import hashlib
import hmac
import itertools
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bot.exchange.bybit import wire
from bot.exchange.bybit.environment import Credentials
from bot.exchange.bybit.streams.raw import RawBook
from bot.exchange.bybit.streams.settings import StreamSettings
from bot.exchange.bybit.wire import Message, Pushed, WireError
from bot.exchange.bybit.wire.control import Reply, Request
from bot.exchange.bybit.wire.private import Position

Dialect = Literal["req_id", "reqId"]  # data streams and order entry name the request id differently
OpenSocket = Callable[[str, StreamSettings], AbstractAsyncContextManager[ClientConnection]]
Decode = Callable[[bytes], Message | RawBook]
Receive = Callable[[Pushed | RawBook], Awaitable[None] | None]  # an awaitable holds up the reading

_LOGIN_VALID_MS: Final = 10_000


class ConnectionLost(Exception):
    """The connection is of no use any more; the text says why."""


class _Silent(ConnectionLost):
    pass


class LoginRefusedError(Exception):
    """The exchange did not accept the key."""


@dataclass(slots=True)
class Traffic:
    """Frames that came in, and what became of those that were not data."""

    frames: int = 0
    bytes: int = 0
    control: int = 0
    invalid: int = 0
    unknown: int = 0  # topics that we do not know
    late: int = 0  # replies that nobody waits for any more (also in `control`)
    pushed: int = 0  # handed to the receiver
    lost: Counter[str] = field(default_factory=Counter)  # connections, by reason


def open_socket(url: str, settings: StreamSettings) -> AbstractAsyncContextManager[ClientConnection]:
    """Without compression: Bybit does not answer permessage-deflate properly."""
    return connect(
        url,
        compression=None,
        open_timeout=settings.open_s,
        ping_interval=settings.ping_s,
        ping_timeout=settings.ping_s,
        close_timeout=settings.close_s,
        max_size=settings.frame_bytes,
        max_queue=256,
        proxy=True if url.startswith("wss://") else None,  # only a local exchange is without TLS
    )


class Connection:
    """Reads for as long as it lives. `run` must run while anything else is used."""

    def __init__(
        self,
        socket: ClientConnection,
        dialect: Dialect,
        receive: Receive,
        on_bad_frame: Callable[[WireError], None],
        settings: StreamSettings,
        traffic: Traffic,
        decode: Decode = wire.decode,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._socket = socket
        self._decode = decode
        self._dialect = dialect
        self._receive = receive
        self._on_bad_frame = on_bad_frame
        self._settings = settings
        self._traffic = traffic
        self._monotonic = monotonic
        self._ids = (f"{secrets.token_hex(4)}-{n}" for n in itertools.count(1))  # never used twice
        self._waiting: dict[str, tuple[str, asyncio.Future[Reply]]] = {}
        self._reading_since: float | None = None

    async def run(self) -> NoReturn:
        """Read until the connection is lost. Raises ConnectionLost."""
        try:
            await first_to_end(self._read(), self._ping(), self._watch())
        except ConnectionClosed as error:
            raise ConnectionLost(f"closed by the exchange ({_close_reason(error)})") from None
        except _Silent:
            self.abort()
            raise
        finally:
            for _, future in self._waiting.values():
                if not future.done():
                    future.set_exception(ConnectionLost("closed before the answer came"))
                    future.exception()  # nobody may be left to look at it
        raise AssertionError("one of the three raises")

    def abort(self) -> None:
        """End it without a handshake, which would wait for somebody who is silent."""
        self._socket.transport.abort()

    async def request(
        self, op: str, args: list[Any], *, answer_s: float | None = None, header: dict[str, Any] | None = None
    ) -> Reply:
        """Send and await the reply, a yes or a no.

        Raises TimeoutError when none comes in time, ConnectionLost when none can come any more.
        """
        name = next(self._ids)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[name] = (op, future)
        try:
            await self._send(
                {"op": op, self._dialect: name, "args": args, **({"header": header} if header else {})}
            )
            async with asyncio.timeout(self._settings.answer_s if answer_s is None else answer_s):
                return await future
        finally:
            self._waiting.pop(name, None)

    async def log_in(self, credentials: Credentials, now_ms: int) -> None:
        """Authenticate and await the answer. Raises LoginRefusedError, TimeoutError, ConnectionLost."""
        expires = now_ms + _LOGIN_VALID_MS
        signature = hmac.new(
            credentials.secret.encode(), f"GET/realtime{expires}".encode(), hashlib.sha256
        ).hexdigest()
        reply = await self.request("auth", [credentials.key, expires, signature])
        if not reply.ok:
            raise LoginRefusedError(f"{reply.text or 'no reason given'} ({reply.code or 'no code'})")

    async def _send(self, frame: dict[str, Any]) -> None:
        try:
            await self._socket.send(msgspec.json.encode(frame), text=True)
        except ConnectionClosed as error:
            raise ConnectionLost(f"closed by the exchange ({_close_reason(error)})") from None

    async def _read(self) -> NoReturn:
        traffic, decode, receive = self._traffic, self._decode, self._receive
        recv, monotonic = self._socket.recv, self._monotonic
        while True:
            self._reading_since = monotonic()
            payload = await recv(decode=False)
            self._reading_since = None  # a consumer that holds us up must not look like a silent exchange
            traffic.frames += 1
            traffic.bytes += len(payload)
            try:
                message = decode(payload)
            except WireError as error:
                traffic.invalid += 1
                self._on_bad_frame(error)
                continue
            if isinstance(message, Reply):
                self._answer(message)
            elif isinstance(message, wire.Other):
                traffic.unknown += 1
            elif isinstance(message, Request | Position):
                traffic.invalid += 1
                self._on_bad_frame(WireError("the exchange sent what only clients send"))
            else:
                traffic.pushed += 1
                held_up = receive(message)
                if held_up is not None:
                    await held_up

    def _answer(self, reply: Reply) -> None:
        self._traffic.control += 1
        if reply.is_pong:
            return
        name = reply.request_id or self._only_one_of(reply.op)
        _, future = self._waiting.get(name, ("", None))
        if future is None or future.done():
            self._traffic.late += 1
        else:
            future.set_result(reply)

    def _only_one_of(self, wanted: str) -> str:
        """The request that an answer without an id belongs to. Of several orders none: to take one's refusal
        for another's would end an order that lives."""
        for name, (op, _) in self._waiting.items():
            if op == (wanted or op) and (self._dialect == "req_id" or op == "auth"):
                return name
        return ""

    async def _ping(self) -> NoReturn:
        while True:
            await asyncio.sleep(self._settings.ping_s)
            await self._send({"op": "ping", self._dialect: next(self._ids)})

    async def _watch(self) -> NoReturn:
        deadline = self._settings.read_deadline_s
        while True:
            await asyncio.sleep(min(self._settings.look_s, deadline / 4))
            if self._reading_since is not None and self._monotonic() - self._reading_since > deadline:
                raise _Silent(f"silent for {deadline:g} s")


async def first_to_end(*coroutines: Awaitable[Any]) -> Any:
    """Run together; the first that returns or raises decides, the others are cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _close_reason(error: ConnectionClosed) -> str:
    if error.rcvd is None:
        return "without a close frame"
    return f"{error.rcvd.code} {error.rcvd.reason}".strip()
