"""An account on a scripted exchange: REST and private stream on real sockets, faults on command."""

import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Self

from aiohttp import web

from bot.exchange.bybit.environment import Environment
from tests.bybit_server import RestServer, StreamServer, envelope

PRICE = Decimal(100)
FEE = Decimal("0.00055")


@dataclass
class Kept:
    """An order as the exchange keeps it."""

    link: str
    symbol: str
    side: str
    qty: Decimal
    status: str = "New"
    filled: Decimal = Decimal(0)
    stop: str = ""
    reduce_only: bool = False
    reason: str = "EC_NoError"
    number: int = 0


@dataclass
class AccountServer:
    """`creates`: what happens to the next orders; "ok" when empty. `muted`: topics that are not pushed."""

    creates: deque[str] = field(default_factory=deque)
    muted: set[str] = field(default_factory=set)
    fills: bool = True  # an order is filled as soon as it is accepted
    orders: dict[str, Kept] = field(default_factory=dict)
    executions: list[dict[str, Any]] = field(default_factory=list)
    positions: dict[str, Decimal] = field(default_factory=dict)  # signed
    stops: dict[str, str] = field(default_factory=dict)
    balance: Decimal = Decimal(10_000)
    sent: list[str] = field(default_factory=list)  # link ids of every create that came in
    stop_answers: deque[tuple[int, str]] = field(default_factory=deque)
    shown_after: dict[str, float] = field(default_factory=dict)  # link id: monotonic time before it is listed

    async def __aenter__(self) -> Self:
        self.rest, self.streams = RestServer(), StreamServer()
        await self.rest.__aenter__()
        await self.streams.start()
        self._ids = itertools.count(1)
        for path, act in (
            ("/v5/market/time", self._time),
            ("/v5/order/create", self._create),
            ("/v5/order/cancel", self._cancel),
            ("/v5/order/realtime", self._open),
            ("/v5/order/history", self._history),
            ("/v5/execution/list", self._executions),
            ("/v5/position/list", self._positions),
            ("/v5/position/trading-stop", self._stop),
            ("/v5/account/wallet-balance", self._wallet),
            ("/v5/account/transaction-log", self._ledger),
        ):
            self.rest.will_act(path, act)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.streams.stop()
        await self.rest.__aexit__()

    @property
    def environment(self) -> Environment:
        return replace(
            self.rest.environment,
            public_streams=f"ws://127.0.0.1:{self.streams.port}",
            private_streams=f"ws://127.0.0.1:{self.streams.port}",
        )

    # --- what happens at the exchange -----------------------------------------------------------------------

    async def fill(
        self, link: str, qty: Decimal | None = None, *, symbol: str = "NEWUSDT", side: str = "Buy"
    ) -> None:
        """An execution of an order, or (without a known order) of one that somebody else made."""
        kept = self.orders.get(link)
        if kept is not None:
            symbol, side = kept.symbol, kept.side
            qty = kept.qty - kept.filled if qty is None else qty
            kept.filled += qty
            kept.status = "Filled" if kept.filled == kept.qty else "PartiallyFilled"
            if kept.stop:
                self.stops[symbol] = kept.stop
        assert qty is not None
        leaves = kept.qty - kept.filled if kept else Decimal(0)
        execution = {
            "category": "linear", "symbol": symbol, "execId": f"e-{next(self._ids)}", "execPrice": str(PRICE),
            "execQty": str(qty), "side": side, "execFee": str(qty * PRICE * FEE), "feeRate": str(FEE),
            "execType": "Trade", "leavesQty": str(leaves), "orderId": f"o-{link}", "orderLinkId": link,
            "execTime": str(_now()), "isMaker": False, "feeCurrency": "USDT",
        }  # fmt: skip
        self.executions.append(execution)
        self.balance -= qty * PRICE * FEE
        held = self.positions.get(symbol, Decimal(0)) + (qty if side == "Buy" else -qty)
        self.positions[symbol] = held
        if not held:
            self.stops.pop(symbol, None)
        await self.push("execution", execution)
        await self.push("position", self.position(symbol))
        if kept is not None:
            await self.push("order", order_of(kept))

    async def end(self, link: str, status: str, reason: str) -> None:
        kept = self.orders[link]
        kept.status, kept.reason = status, reason
        await self.push("order", order_of(kept))

    async def push(self, topic: str, item: dict[str, Any]) -> None:
        if topic not in self.muted:
            await self.streams.push({"topic": topic, "id": "x", "creationTime": _now(), "data": [item]})

    def position(self, symbol: str) -> dict[str, Any]:
        held = self.positions.get(symbol, Decimal(0))
        return {
            "category": "linear", "symbol": symbol, "positionIdx": 0, "size": str(abs(held)),
            "side": "" if not held else "Buy" if held > 0 else "Sell", "avgPrice": str(PRICE),
            "entryPrice": str(PRICE), "stopLoss": self.stops.get(symbol, ""), "updatedTime": str(_now()),
        }  # fmt: skip

    # --- REST -----------------------------------------------------------------------------------------------

    async def _time(self, _: web.Request) -> web.StreamResponse:
        now = time.time_ns()
        return _answer({"timeSecond": str(now // 10**9), "timeNano": str(now)})

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        link = body["orderLinkId"]
        self.sent.append(link)
        fate = self.creates.popleft() if self.creates else "ok"
        if fate.isdigit():
            return _answer({}, int(fate), "refused")
        if fate == "lost":
            return _drop(request)
        if link in self.orders:
            return _answer({}, 110072, "OrderLinkedID is duplicate")
        self.orders[link] = Kept(
            link, body["symbol"], body["side"], Decimal(body["qty"]), stop=body.get("stopLoss", ""),
            reduce_only=body.get("reduceOnly", False), number=len(self.orders),
        )  # fmt: skip
        if fate.startswith("hidden"):
            self.shown_after[link] = time.monotonic() + float(fate.split()[1])
        await self.push("order", order_of(self.orders[link]))
        if self.fills:
            await self.fill(link)
        if fate.endswith("ack lost") or fate == "hidden 1.5":
            return _drop(request)
        return _answer({"orderId": f"o-{link}", "orderLinkId": link})

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        link = (await request.json())["orderLinkId"]
        kept = self.orders.get(link)
        if kept is None or kept.status not in ("New", "PartiallyFilled"):
            return _answer({}, 110001, "order not exists or too late to cancel")
        await self.end(link, "Cancelled", "EC_PerCancelRequest")
        return _answer({"orderId": f"o-{link}", "orderLinkId": link})

    async def _open(self, request: web.Request) -> web.StreamResponse:
        link = request.query.get("orderLinkId")
        found = [
            order_of(kept)
            for kept in self.orders.values()
            if (kept.link == link if link else kept.status in ("New", "PartiallyFilled"))
            and time.monotonic() >= self.shown_after.get(kept.link, 0)
        ]
        return _answer({"category": "linear", "list": found, "nextPageCursor": ""})

    async def _history(self, request: web.Request) -> web.StreamResponse:
        return await self._open(request)

    async def _executions(self, request: web.Request) -> web.StreamResponse:
        link, start = request.query.get("orderLinkId"), int(request.query.get("startTime", 0))
        found = [
            item
            for item in reversed(self.executions)
            if (not link or item["orderLinkId"] == link)
            and int(item["execTime"]) >= start
            and time.monotonic() >= self.shown_after.get(item["orderLinkId"], 0)
        ]
        return _answer({"category": "linear", "list": found, "nextPageCursor": ""})

    async def _positions(self, request: web.Request) -> web.StreamResponse:
        symbol = request.query.get("symbol")
        symbols = [symbol] if symbol else [name for name, held in self.positions.items() if held]
        found = [self.position(name) for name in symbols]
        return _answer({"category": "linear", "list": found, "nextPageCursor": ""})

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        code, text = self.stop_answers.popleft() if self.stop_answers else (0, "OK")
        if code == 0:
            body = await request.json()
            self.stops[body["symbol"]] = body["stopLoss"]
            await self.push("position", self.position(body["symbol"]))
        return _answer({}, code, text)

    async def _ledger(self, _: web.Request) -> web.StreamResponse:
        return _answer({"list": [], "nextPageCursor": ""})

    async def _wallet(self, _: web.Request) -> web.StreamResponse:
        coin = {"coin": "USDT", "walletBalance": str(self.balance), "equity": str(self.balance)}
        return _answer({"list": [{"accountType": "UNIFIED", "coin": [coin]}]})


def order_of(kept: Kept) -> dict[str, Any]:
    return {
        "category": "linear", "orderId": f"o-{kept.link}", "orderLinkId": kept.link, "symbol": kept.symbol,
        "side": kept.side, "orderType": "Market", "orderStatus": kept.status, "qty": str(kept.qty),
        "cumExecQty": str(kept.filled), "rejectReason": kept.reason, "updatedTime": str(_now()),
        "createdTime": str(_now()),
    }  # fmt: skip


def _answer(result: dict[str, Any], code: int = 0, text: str = "OK") -> web.Response:
    return web.json_response(envelope(result, code, text, time=_now()))


def _drop(request: web.Request) -> web.StreamResponse:
    """The connection breaks without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _now() -> int:
    return int(time.time() * 1_000)


Act = Callable[[web.Request], Awaitable[web.StreamResponse]]
