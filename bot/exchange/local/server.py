"""REST, every WebSocket path and the switchboard on one loopback port."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from bot.core.errors import UsageError
from bot.core.types import DAY_MS
from bot.exchange.local import assets, switches
from bot.exchange.local.api import Answer, Asked
from bot.exchange.local.endpoints import ENDPOINTS, Endpoint
from bot.exchange.local.gate import Quota
from bot.exchange.local.market_api import MARKET
from bot.exchange.local.orders import Refused
from bot.exchange.local.statistics_api import STATISTICS
from bot.exchange.local.streams import TooFast, admit, socket_handler
from bot.exchange.local.venue import Venue
from bot.exchange.local.world import Listed

LOOPBACK: Final = "127.0.0.1"
SYSTEM_STATUS: Final = "/v5/system/status"
TIME: Final = "/v5/market/time"
TURNOVER: Final = 1e8  # USDT per day, of a symbol listed by hand
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode
_Json = dict[str, Any]


class Server:
    """`async with Server(venue, port)` serves; port 0 takes a free one."""

    def __init__(self, venue: Venue, port: int = 0) -> None:
        self.venue = venue
        self.port = port
        self._runner: web.AppRunner | None = None
        self._clock: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    async def __aenter__(self) -> "Server":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Raises UsageError when the port is taken."""
        logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, self.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError(f"port {self.port} cannot be used ({error.strerror}); choose another") from None
        self.port = int(self._runner.addresses[0][1])
        if not self.venue.manual:
            self._clock = asyncio.create_task(self.venue.run(), name="clock")

    async def failure(self) -> None:
        """Raises what stopped the market's clock; it never returns while the clock is alive."""
        if self._clock is None:
            await asyncio.Event().wait()
        else:
            await asyncio.shield(self._clock)

    async def stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self.venue.hub.restart()
        if self._runner is not None:
            await self._runner.cleanup()

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._door])
        sockets = (
            ("/v5/public/misc/status", "status"), ("/v5/public/{category}", "public"),
            ("/v5/private", "private"), ("/v5/trade", "trade"),
        )  # fmt: skip
        for path, kind in sockets:
            app.router.add_get(path, socket_handler(self.venue, kind))  # type: ignore[arg-type]
        app.router.add_route("*", "/v5/{path:.*}", self._rest)
        app.router.add_route("*", "/admin/{what}", self._admin)
        return app

    @web.middleware
    async def _door(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refusals that come before anything is looked at."""
        venue, path = self.venue, request.path
        if not path.startswith("/admin/"):
            now = venue.clock_ms()
            if now < venue.refusing_until or venue.faults.strike("refuse", path):
                return _cut(request)
            if venue.faults.strike("bad_gateway", path):
                return web.Response(status=502, text="<html>502 Bad Gateway</html>", content_type="text/html")
        return await handler(request)

    # --- REST ---------------------------------------------------------------------------------------------

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        venue, path = self.venue, request.path
        faults = venue.faults
        if not venue.limits.admit_address():
            return web.Response(status=403, text="access too frequent")
        if request.method == "GET" and request.can_read_body:  # not even an empty JSON object
            return web.Response(status=403, text="403 Forbidden")
        raw = await request.read() if request.method == "POST" else request.rel_url.raw_query_string.encode()
        if faults.strike("drop", path):
            return _cut(request)
        code, told, answer, quota = self._decide(request, raw)
        if request.method == "POST":
            venue.poke()
            if code == 0 and (fault := faults.strike("hidden", path)):
                venue.hide(fault, answer.result)
            if code == 0 and faults.strike("ack_lost", path):
                venue.flush()
                return _cut(request)
            if code == 0 and (fault := faults.strike("fill_before_ack", path)):
                venue.flush()
                await asyncio.sleep(fault.ms / 1000)
        if code == 0 and faults.strike("server_error", path):
            code, told, answer = 10016, "Internal server error", Answer({})
        if fault := faults.strike("delay", path):
            await asyncio.sleep(fault.ms / 1000)
        if code == 10017:
            return web.Response(status=404, text="404 page not found")
        body = {"retCode": code, "retMsg": told, "result": answer.result, "retExtInfo": answer.extra or {}}
        body["time"] = venue.clock_ms()
        return web.Response(
            body=_encode(body),
            status=401 if code == 10003 and "X-BAPI-API-KEY" not in request.headers else 200,
            headers=quota.headers() if quota else None,
            content_type="application/json",
        )

    def _decide(self, request: web.Request, raw: bytes) -> tuple[int, str, Answer, Quota | None]:
        """retCode, retMsg, result, and what is left of the endpoint's limit, of which a refusal takes too."""
        path, quota = request.path, None
        try:
            payload = _text(raw)
            public = self._public(request.method, path, payload)
            if public is not None:
                return 0, "OK", public, None
            endpoint = ENDPOINTS.get(path)
            if endpoint is None or endpoint.method != request.method:
                raise Refused(10017, "Path not found")
            asked, quota = self._admit(endpoint, request.headers, payload, path)
            answer = endpoint.handler(asked)
        except TooFast as error:
            return error.code, error.text, Answer({}), error.quota
        except Refused as error:
            return error.code, error.text, Answer({}), quota
        return 0, "OK", answer, quota

    def _public(self, method: str, path: str, raw: str) -> Answer | None:
        """None for a path that needs a signature."""
        if method != "GET":
            return None
        if path == TIME:
            nano = self.venue.clock_ms() * 1_000_000
            return Answer({"timeSecond": str(nano // 10**9), "timeNano": str(nano)})
        if path == SYSTEM_STATUS:
            return Answer({"list": self._maintenance()})
        handler = MARKET.get(path) or STATISTICS.get(path)
        return None if handler is None else Answer(handler(self.venue.world, _query(raw)))

    def _admit(
        self, endpoint: Endpoint, headers: Mapping[str, str], raw: str, path: str
    ) -> tuple[Asked, Quota]:
        venue = self.venue
        if venue.faults.strike("bad_timestamp", path):
            raise Refused(10002, "invalid request, please check your server timestamp or recv_window param")
        if venue.faults.strike("too_many_visits", path):
            raise TooFast(Quota(endpoint.limit, 0, venue.clock_ms() + 1_000))
        key = venue.keys.of_request(headers, raw, venue.clock_ms())
        params = _query(raw) if endpoint.method == "GET" else _body(raw)
        admitted, quota = admit(venue, endpoint, key, params)
        return Asked(venue.world, key, params, venue.market_ms, admitted, venue.hidden()), quota

    def _maintenance(self) -> list[_Json]:
        fault = self.venue.faults.current("maintenance")
        if fault is None:
            return []
        begin = int(fault.since)
        return [{
            "id": "local-maintenance", "title": "maintenance", "state": "ongoing", "begin": str(begin),
            "end": str(begin + (fault.lasts_ms or 600_000)), "href": "", "serviceTypes": [1, 2, 3, 4, 5],
            "product": [1], "uidSuffix": [], "maintainType": 1, "env": 1,
        }]  # fmt: skip

    # --- the switchboard ----------------------------------------------------------------------------------

    async def _admin(self, request: web.Request) -> web.StreamResponse:
        """POST /admin/faults, /admin/list, /admin/delist, /admin/move, /admin/advance; GET, DELETE faults."""
        what = request.match_info["what"]
        try:
            body = _body(_text(await request.read())) if request.method == "POST" else {}
            result = self.admin(request.method, what, body)
        except (UsageError, Refused) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(result)

    def admin(self, method: str, what: str, body: _Json) -> _Json:
        """The same in-process. Raises UsageError."""
        venue = self.venue
        world = venue.world
        if what == "faults" and method == "DELETE":
            venue.faults.clear()
        elif what == "faults" and method == "POST":
            self.arm(**msgspec.structs.asdict(switches.read(switches.Arm, body)))
        elif what == "list" and method == "POST":
            self._list(switches.read(switches.List, body))
        elif what == "delist" and method == "POST":
            ending = switches.read(switches.Delist, body)
            world.delist(self._listed(ending.symbol).symbol, world.now + ending.in_ms)
        elif what == "move" and method == "POST":
            move = switches.read(switches.Move, body)
            listed = self._listed(move.symbol)
            switches.in_range("factor", listed.shock * move.factor)
            world.move(listed.symbol, move.factor)
        elif what == "advance" and method == "POST" and venue.manual:
            venue.advance(switches.read(switches.Advance, body).ms)
        elif method != "GET" or what != "faults":
            raise UsageError(f"{method} /admin/{what}: there is no such switch")
        return {
            "now": world.now,
            "armed": [msgspec.to_builtins(fault) | {"until": None} for fault in venue.faults.armed],
            "struck": {kind: count for kind, count in venue.faults.struck.items() if count},
        }

    def _list(self, asked: switches.List) -> None:
        """A symbol that trades around a price that stands still until it is moved."""
        world, symbol, price = self.venue.world, asked.symbol, switches.in_range("price", asked.price)
        if symbol in world.listed:
            raise UsageError(f"{symbol} is listed already; choose another name")
        launch, volume = world.now + asked.in_ms, TURNOVER / price / DAY_MS
        world.list(assets.plain(symbol, price, launch, turnover=TURNOVER, volume=volume))

    def _listed(self, symbol: str) -> Listed:
        try:
            return self.venue.world.listed[symbol]
        except KeyError:
            raise UsageError(f"{symbol} is not listed; {', '.join(self.venue.world.listed)} are") from None

    def arm(self, kind: str, target: str = "*", **options: Any) -> None:
        """Arm a fault; a restart happens at once."""
        venue = self.venue
        now = venue.clock_ms()
        fault = venue.faults.arm(kind, target, **options)
        if kind == "restart":
            venue.refusing_until = now + fault.ms
            venue.world.restarted = venue.world.now
            venue.faults.strike("restart")
            venue.faults.clear("restart")
            venue.hub.restart()
        elif kind == "maintenance":
            frame = {"topic": "system.status", "ts": now, "data": self._maintenance()}
            venue.hub.announce("system.status", frame)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Refused(10001, "params error: the body is not UTF-8") from None


def _query(raw: str) -> _Json:
    return dict(parse_qsl(raw, keep_blank_values=True))


def _body(raw: str) -> _Json:
    try:
        body = _decode(raw) if raw else {}
    except (msgspec.MsgspecError, RecursionError):
        raise Refused(10001, "params error: the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refused(10001, "params error: the body is not a JSON object")
    return body


def _cut(request: web.Request) -> web.StreamResponse:
    """End the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
