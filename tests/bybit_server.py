"""Small servers that speak just enough of Bybit, and misbehave on command."""

import asyncio
import hashlib
import hmac
import json
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl

from aiohttp import web
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bot.exchange.bybit.environment import Credentials, Environment, local

CREDENTIALS = Credentials("local-key-1234", "very-secret-words")
NOW = 1_750_000_000_000  # the exchange's time, as far as the servers are concerned


@dataclass(slots=True)
class Seen:
    """One request as it came in."""

    method: str
    path: str
    params: dict[str, Any]
    headers: dict[str, str]
    signed_correctly: bool


@dataclass(slots=True)
class Answer:
    """One answer to give: a body, or whatever `act` does instead."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    act: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None


def envelope(
    result: Any, code: int = 0, text: str = "OK", extra: Any = None, time: int = NOW
) -> dict[str, Any]:
    return {"retCode": code, "retMsg": text, "result": result, "retExtInfo": extra or {}, "time": time}


class RestServer:
    """Answers each path from its queue; the last answer repeats. Checks signatures against the raw bytes."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._answers: dict[str, deque[Answer]] = defaultdict(deque)

    def will(self, path: str, result: Any = None, code: int = 0, *, text: str = "OK", **more: Any) -> None:
        extra = more.pop("extra", None)
        time = more.pop("time", NOW)
        self._answers[path].append(Answer(envelope(result or {}, code, text, extra, time), **more))

    def will_answer(self, path: str, answer: Answer) -> None:
        self._answers[path].append(answer)

    def will_act(self, path: str, act: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self._answers[path].append(Answer(act=act))

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def environment(self) -> Environment:
        return local(f"http://127.0.0.1:{self.port}")

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = (
            (await request.read()).decode() if request.method == "POST" else request.rel_url.raw_query_string
        )
        params = json.loads(raw) if request.method == "POST" else dict(parse_qsl(raw))
        self.seen.append(
            Seen(request.method, request.path, params, dict(request.headers), _signed(request, raw))
        )
        queue = self._answers[request.path]
        answer = (queue.popleft() if len(queue) > 1 else queue[0]) if queue else Answer(envelope({}))
        if answer.act:
            return await answer.act(request)
        body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        return web.Response(
            text=body, status=answer.status, headers=answer.headers, content_type="application/json"
        )


def _signed(request: web.Request, raw: str) -> bool:
    headers = request.headers
    text = (
        "".join(headers.get(f"X-BAPI-{name}", "") for name in ("TIMESTAMP", "API-KEY", "RECV-WINDOW")) + raw
    )
    expected = hmac.new(CREDENTIALS.secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return headers.get("X-BAPI-SIGN") == expected


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("never")


async def drop(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


# --- streams ----------------------------------------------------------------------------------------------


class StreamServer:
    """Speaks auth, subscribe, unsubscribe, ping and order entry; every switch is a way to misbehave."""

    def __init__(self) -> None:
        self.port = 0
        self.unknown_topics: set[str] = set()
        self.names_bad_topics = True
        self.largest_request = 1_000
        self.status: int | None = None  # answer the handshake with this HTTP status
        self.silent_ops: set[str] = set()  # never answered
        self.snapshots = True  # a book topic gets one on every subscribe
        self.order_replies: deque[dict[str, Any] | None] = deque()  # None: no reply
        self.seen: list[dict[str, Any]] = []
        self.sessions: list[ServerConnection] = []
        self.connections = 0
        self.update_ids: dict[str, int] = defaultdict(int)
        self._changed = asyncio.Condition()
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await serve(
            self._session, "127.0.0.1", self.port, process_request=self._handshake, compression=None,
            ping_interval=None, close_timeout=0.1,
        )  # fmt: skip
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """From here on connections are refused."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def environment(self) -> Environment:
        return local(f"http://127.0.0.1:{self.port}")

    @property
    def url(self) -> str:
        return self.environment.public_url()

    def topics(self, op: str = "subscribe") -> list[list[str]]:
        """The arguments of every such request so far."""
        return [frame["args"] for frame in self.seen if frame["op"] == op]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when something has happened that makes this true."""
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(condition)

    async def push(self, document: dict[str, Any] | bytes | str) -> None:
        for session in self.sessions:
            await session.send(document if isinstance(document, bytes | str) else json.dumps(document))

    async def push_book(self, topic: str, kind: str = "delta", *, skip: int = 0) -> None:
        """The next message of this book; `skip` leaves a gap."""
        update = max(1_000, self.update_ids[topic] + 1 + skip)
        self.update_ids[topic] = update
        await self.push(book_frame(topic, kind, update))

    def _handshake(self, connection: ServerConnection, request: Any) -> Any:
        self.connections += 1
        return None if self.status is None else connection.respond(self.status, "no")

    async def _session(self, session: ServerConnection) -> None:
        self.sessions.append(session)
        await self._notify()
        try:
            async for text in session:
                frame = json.loads(text)
                self.seen.append(frame)
                reply = self._reply(frame)
                if frame["op"] not in self.silent_ops and reply is not None:
                    await session.send(json.dumps(reply))
                    await self._greet(frame, reply)
                await self._notify()
        except ConnectionClosed:
            pass
        finally:
            self.sessions.remove(session)
            await self._notify()

    async def _greet(self, frame: dict[str, Any], reply: dict[str, Any]) -> None:
        if frame["op"] == "subscribe" and reply.get("success") and self.snapshots:
            for topic in frame["args"]:
                if topic.startswith("orderbook."):
                    await self.push_book(topic, "snapshot")

    def _reply(self, frame: dict[str, Any]) -> dict[str, Any] | None:
        op = frame["op"]
        if "reqId" in frame:
            return self._trade_reply(frame)
        reply = {"success": True, "ret_msg": "", "conn_id": "c", "req_id": frame.get("req_id", ""), "op": op}
        if op == "ping":
            return {**reply, "ret_msg": "pong"}
        if op == "auth" and not _login_is_right(frame["args"]):
            return {**reply, "success": False, "ret_msg": "Params Error", "retCode": 10003}
        if op == "subscribe":
            return {**reply, **self._refusal(frame["args"])}
        return reply

    def _refusal(self, topics: list[str]) -> dict[str, Any]:
        if len(topics) > self.largest_request:
            return {"success": False, "ret_msg": f"args size >{self.largest_request}"}
        for topic in topics:
            if topic in self.unknown_topics:
                named = f",topic:{topic}" if self.names_bad_topics else ""
                return {"success": False, "ret_msg": f"error:handler not found{named}"}
        return {}

    def _trade_reply(self, frame: dict[str, Any]) -> dict[str, Any] | None:
        reply = {"reqId": frame["reqId"], "retCode": 0, "retMsg": "OK", "op": frame["op"], "connId": "c"}
        if frame["op"] == "auth" and not _login_is_right(frame["args"]):
            return {**reply, "retCode": 10004, "retMsg": "Invalid sign"}
        if frame["op"].startswith("order."):
            scripted = self.order_replies.popleft()
            return None if scripted is None else {**reply, **scripted}
        return reply

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def book_frame(topic: str, kind: str, update: int) -> dict[str, Any]:
    symbol = topic.rpartition(".")[2]
    data = {"s": symbol, "b": [["100", "1"]], "a": [["101", "1"]], "u": update, "seq": update}
    return {"topic": topic, "type": kind, "ts": NOW, "data": data, "cts": NOW}


def trade_frame(symbol: str, number: int) -> dict[str, Any]:
    trade = {"T": NOW, "s": symbol, "S": "Buy", "v": "1", "p": "100", "i": str(number)}
    return {"topic": f"publicTrade.{symbol}", "type": "snapshot", "ts": NOW, "data": [trade]}


def _login_is_right(args: list[Any]) -> bool:
    key, expires, signature = args
    text = f"GET/realtime{expires}".encode()
    expected = hmac.new(CREDENTIALS.secret.encode(), text, hashlib.sha256).hexdigest()
    return bool(key == CREDENTIALS.key and signature == expected)
