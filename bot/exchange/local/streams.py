"""The WebSocket paths: public, private, order entry, system status."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec
from aiohttp import WSMsgType, web

from bot.exchange.local.api import Asked
from bot.exchange.local.endpoints import ENDPOINTS, Endpoint
from bot.exchange.local.gate import Key, Quota, check_time
from bot.exchange.local.hub import Session
from bot.exchange.local.orders import Refused
from bot.exchange.local.orders_api import batch_items
from bot.exchange.local.terms import text
from bot.exchange.local.venue import Venue

Kind = Literal["public", "private", "trade", "status"]
IDLE_S: Final = 600.0
CATEGORIES: Final = ("linear", "inverse", "spot", "option", "spread")
ARGS_LIMIT: Final = 21_000  # characters of the topics of one connection
SPOT_ARGS: Final = 10
REMEMBERED: Final = 10_000  # ids of requests that a connection may not use again
NOT_SUPPORTED: Final = "op is not found or category is not correct/supported"
MAINTENANCE: Final = "server is under maintenance"
_OPS: Final[Mapping[str, Endpoint]] = {item.op: item for item in ENDPOINTS.values() if item.op}
_decode: Final = msgspec.json.Decoder().decode


class Verdict(NamedTuple):
    """What order entry answers to one request."""

    code: int
    told: str
    data: Any = None
    extra: Any = None
    quota: Quota | None = None


class Connection:
    """One client's socket: reads requests, answers them, and lets its session send."""

    def __init__(
        self, venue: Venue, request: web.Request, socket: web.WebSocketResponse, kind: Kind, category: str
    ) -> None:
        self._venue = venue
        self._request = request
        self._socket = socket
        self._kind: Kind = kind
        self._category = category
        self._session = Session(venue.hub, venue.world.engine.new_id())
        self._idle_s = IDLE_S if kind == "public" else active_time(request.query.get("max_active_time", ""))
        self._key: Key | None = None
        self._requests: dict[str, None] = {}  # the last ids seen on order entry, oldest first

    async def run(self) -> None:
        venue, session = self._venue, self._session
        venue.hub.enter(session)
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
        finally:
            venue.hub.leave(session)
            session.cut()
            writer.cancel()

    async def _read(self) -> None:
        faults = self._venue.faults
        while not self._session.is_cut:
            try:
                message = await self._socket.receive(timeout=self._idle_s)
            except TimeoutError:
                if time.monotonic() - self._session.put_at < self._idle_s:
                    continue  # a listener may be silent
                return
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            if fault := faults.holds("slow_reader", self._kind):
                await asyncio.sleep(fault.ms / 1000)
            if faults.holds("half_open", self._kind):
                continue
            await self._handle(message.data)

    async def _write(self) -> None:
        """Frames leave in order; whoever is cut gets no close frame."""
        session, faults = self._session, self._venue.faults
        with contextlib.suppress(ConnectionError):  # the client has gone
            while (frame := await session.outgoing.get()) is not None:
                if not faults.holds("half_open", self._kind):
                    await self._socket.send_frame(frame, WSMsgType.TEXT)
        session.is_cut = True
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _handle(self, data: str | bytes) -> None:
        try:
            request = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            request = None
        if not isinstance(request, dict):
            self._answer({}, success=False, told="Failed to decode incoming data: not a JSON object")
            return
        op = str(request.get("op", ""))
        if self._kind == "trade":
            await self._handle_trade(op, request)
        elif op == "ping":
            self._pong(request)
        elif op == "auth" and self._kind == "private":
            self._login(request)
        elif op in ("subscribe", "unsubscribe"):
            await asyncio.sleep(self._venue.latency_ms / 1000)
            self._subscribe(op, request)
        else:
            self._answer(request, success=False, told="error:invalid op")

    # --- data streams -------------------------------------------------------------------------------------

    def _answer(self, request: Mapping[str, Any], *, success: bool, told: str = "") -> None:
        reply = {"success": success, "ret_msg": told, "conn_id": self._session.identity}
        if "req_id" in request:
            reply["req_id"] = request["req_id"]
        self._session.send({**reply, "op": str(request.get("op", ""))})

    def _pong(self, request: Mapping[str, Any]) -> None:
        if self._kind == "public" and self._category not in ("option", "spread"):
            self._answer(request, success=True, told="pong")
            return
        reply = {"op": "pong", "args": [str(self._venue.clock_ms())], "conn_id": self._session.identity}
        self._session.send({"req_id": request.get("req_id", ""), **reply})

    def _login(self, request: Mapping[str, Any]) -> None:
        try:
            self._key = self._venue.keys.of_login(request.get("args"), self._venue.clock_ms())
        except Refused as error:
            self._answer(request, success=False, told=error.text)
            return
        self._session.account = self._key.account
        self._answer(request, success=True)

    def _subscribe(self, op: str, request: Mapping[str, Any]) -> None:
        args = request.get("args")
        names = [str(name) for name in args] if isinstance(args, list) else []
        venue, session = self._venue, self._session
        frames: list[bytes] = []
        try:
            if self._category == "spot" and len(names) > SPOT_ARGS:
                raise Refused(10001, "args size >10")
            if sum(map(len, names)) + sum(map(len, session.topics)) > ARGS_LIMIT:
                raise Refused(10001, "args size too large")
            if op == "unsubscribe":
                venue.hub.unsubscribe(session, names)
            elif self._kind == "private":
                venue.hub.subscribe_private(session, names)
            else:
                frames = self._subscribe_public(names)
        except Refused as error:
            self._answer(request, success=False, told=error.text)
            return
        self._answer(request, success=True, told="subscribe" if self._category == "spot" else "")
        for frame in frames:
            session.push(frame, "")

    def _subscribe_public(self, names: list[str]) -> list[bytes]:
        hub = self._venue.hub
        if self._kind == "status":
            for name in names:
                if name != "system.status":
                    raise Refused(10001, f"error:handler not found,topic:{name}")
                hub.listen(self._session, name)
            return []
        if names and self._category != "linear":
            raise Refused(10001, f"error:handler not found,topic:{names[0]}")
        return hub.subscribe_public(self._session, names, self._venue.market_ms)

    # --- order entry --------------------------------------------------------------------------------------

    async def _handle_trade(self, op: str, request: Mapping[str, Any]) -> None:
        identity = {"connId": self._session.identity}
        if "reqId" in request:
            identity["reqId"] = request["reqId"]
        if op == "ping":
            stamp = [str(self._venue.clock_ms())]
            self._session.send({"retCode": 0, "retMsg": "OK", "op": "pong", "data": stamp, **identity})
        elif op == "auth":
            self._session.send({**self._login_trade(request), "op": "auth", **identity})
        else:
            await self._order(op, request, identity)

    def _login_trade(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._key is not None:
            return {"retCode": 20001, "retMsg": "Repeat auth"}
        try:
            self._key = self._venue.keys.of_login(request.get("args"), self._venue.clock_ms())
        except Refused as error:
            return {"retCode": error.code, "retMsg": error.text}
        return {"retCode": 0, "retMsg": "OK"}

    async def _order(self, op: str, request: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        venue = self._venue
        if venue.faults.strike("drop", op):
            return
        verdict = self._decide(op, request)
        venue.poke()
        if verdict.code == 0 and op in _OPS:
            if fault := venue.faults.strike("hidden", op):
                venue.hide(fault, verdict.data)
            if venue.faults.strike("ack_lost", op):
                venue.flush()
                self._session.cut()
                return
            if fault := venue.faults.strike("fill_before_ack", op):
                venue.flush()
                await asyncio.sleep(fault.ms / 1000)
            if venue.faults.strike("server_error", op):
                verdict = Verdict(10016, "Internal server error")
        now = str(venue.clock_ms())
        quota = verdict.quota.headers() if verdict.quota else {}
        reply = {
            "retCode": verdict.code, "retMsg": verdict.told, "op": op,
            "data": verdict.data if verdict.data is not None else {}, "retExtInfo": verdict.extra or {},
            "header": {**quota, "Traceid": self._session.identity, "Timenow": now}, **identity,
        }  # fmt: skip
        late_ms = venue.latency_ms
        if fault := venue.faults.strike("delay", op):
            late_ms += fault.ms
        if late_ms:
            asyncio.get_running_loop().call_later(late_ms / 1000, self._session.send, reply)
        else:
            self._session.send(reply)

    def _decide(self, op: str, request: Mapping[str, Any]) -> Verdict:
        venue = self._venue
        endpoint, key = _OPS.get(op), self._key
        quota: Quota | None = None
        try:
            if endpoint is None:
                raise Refused(10404, NOT_SUPPORTED)
            if key is None:
                raise Refused(10001, "Request not authorized")
            self._check_request(op, request)
            args = request.get("args")
            params = args[0] if isinstance(args, list) and len(args) == 1 else None
            if not isinstance(params, dict):
                raise Refused(10001, "Params Error: one argument is expected")
            if text(params, "category") != "linear":
                raise Refused(10404, NOT_SUPPORTED)
            verdict_of = admit(venue, endpoint, key, params)
            quota = verdict_of.quota
            answer = endpoint.handler(Asked(venue.world, key, params, venue.market_ms, verdict_of.admitted))
        except Refused as error:
            return Verdict(error.code, error.text, quota=quota)
        return Verdict(0, "OK", answer.result, answer.extra, quota)

    def _check_request(self, op: str, request: Mapping[str, Any]) -> None:
        venue = self._venue
        header = request.get("header")
        header = header if isinstance(header, dict) else {}
        if venue.faults.strike("bad_timestamp", op):
            raise Refused(10002, "invalid request, please check your server timestamp or recv_window param")
        check_time(header.get("X-BAPI-TIMESTAMP"), header.get("X-BAPI-RECV-WINDOW"), venue.clock_ms())
        identity = text(request, "reqId")
        if identity:
            if len(identity) > 36:
                raise Refused(10001, "reqId is too long")
            if identity in self._requests:
                raise Refused(20006, "Duplicate reqId")
            self._requests[identity] = None
            if len(self._requests) > REMEMBERED:
                del self._requests[next(iter(self._requests))]


def active_time(wanted: str) -> float:
    """Seconds without a word from either side after which a connection ends: "30s" to "600s", or "1m"."""
    number, unit = wanted[:-1], wanted[-1:]
    if not number.isdecimal() or unit not in ("s", "m"):
        return IDLE_S
    return min(max(30.0, int(number) * (60.0 if unit == "m" else 1.0)), IDLE_S)


class Admission(NamedTuple):
    admitted: int
    quota: Quota


def admit(venue: Venue, endpoint: Endpoint, key: Key, params: Mapping[str, Any]) -> Admission:
    """The gate after the signature: permissions, maintenance, speed. Raises Refused."""
    faults, name = venue.faults, endpoint.op or endpoint.handler.__name__
    if key.read_only and endpoint.method == "POST":
        raise Refused(10005, "Permission denied, please check your API key permissions.")
    if endpoint.method == "POST" and faults.holds("maintenance"):
        raise Refused(10016, MAINTENANCE)
    count = len(batch_items(params)) if endpoint.is_batch else 1
    admitted, quota = venue.limits.take(key.account.uid, name, endpoint.limit, count, venue.clock_ms())
    if admitted == 0 or faults.strike("too_many_visits", name):
        raise TooFast(quota._replace(remaining=0))
    return Admission(admitted, quota)


class TooFast(Refused):
    """10006, with what the headers say."""

    def __init__(self, quota: Quota) -> None:
        super().__init__(10006, "Too many visits!")
        self.quota = quota


def socket_handler(venue: Venue, kind: Kind) -> Callable[[web.Request], Any]:
    async def handler(request: web.Request) -> web.StreamResponse:
        category = request.match_info.get("category", "")
        if kind == "public" and category not in CATEGORIES:
            raise web.HTTPNotFound
        socket = web.WebSocketResponse(compress=False, max_msg_size=2**20, heartbeat=None)
        await socket.prepare(request)
        await Connection(venue, request, socket, kind, category).run()
        return socket

    return handler
