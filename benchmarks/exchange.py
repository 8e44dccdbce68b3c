"""Orders per second of the local exchange: the matching core alone, by order entry stream, and by REST
(one and many a request).

python -m benchmarks.exchange [--orders N] [--rounds R]

The core runs in this process and is timed by its CPU. The server runs in a process of its own, and its CPU is
what counts (orders per second per core), since the client beside it costs as much; the wall-clock rate of one
pipelined connection is told too. The yardstick is an aiohttp application that answers the same requests and
does nothing: how much of what is possible is left after the exchange's own work.
"""

import argparse
import asyncio
import hashlib
import hmac
import multiprocessing
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from multiprocessing.connection import Connection
from time import process_time
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from bot.core.types import DAY_MS
from bot.exchange.local import assets
from bot.exchange.local.account import Account
from bot.exchange.local.server import Server
from bot.exchange.local.venue import Venue
from bot.exchange.local.world import World

KEY, SECRET, SYMBOL = "local", "local-secret", "BTCUSDT"
WINDOW = 200  # requests on the way at once
BATCH = 20
encode = msgspec.json.encode


def order(number: int) -> dict[str, Any]:
    """Resting orders, orders that trade, and the other side of them, in turn."""
    side, price = [("Buy", "59000"), ("Sell", "61000"), ("Buy", "60500"), ("Sell", "59500")][number % 4]
    return {
        "category": "linear", "symbol": SYMBOL, "side": side, "orderType": "Limit", "qty": "0.001",
        "price": price, "orderLinkId": f"b{number}", "timeInForce": "GTC" if number % 4 > 1 else "IOC",
    }  # fmt: skip


def venue() -> tuple[Venue, Account]:
    now = int(time.time() * 1000)
    world = World([assets.plain(SYMBOL, 60_000.0, now - DAY_MS, turnover=8e9)], 1, now)
    built = Venue(world, rate_limit_scale=0)
    return built, built.open_account(KEY, SECRET, Decimal(1_000_000))


def core(orders: int) -> float:
    """Orders per CPU second of create alone."""
    built, account = venue()
    bodies = [order(number) for number in range(orders)]
    before = process_time()
    for body in bodies:
        built.world.engine.create(account, body, built.world.now)
    return orders / (process_time() - before)


# --- servers, each in a process of its own ----------------------------------------------------------------


def serve_exchange(pipe: Connection) -> None:
    async def main() -> None:
        built, _ = venue()
        async with Server(built) as server:
            await told(pipe, server.port)

    asyncio.run(main())


def serve_nothing(pipe: Connection) -> None:
    """The yardstick: the same transport, a fixed answer."""
    answer = encode({"retCode": 0, "retMsg": "OK", "result": {"orderId": "1" * 36}, "time": 1})

    async def rest(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=answer, content_type="application/json")

    async def stream(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for _ in socket:
            await socket.send_frame(answer, aiohttp.WSMsgType.TEXT)
        return socket

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/v5/trade", stream)
        app.router.add_post("/v5/order/{path}", rest)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await told(pipe, runner.addresses[0][1])
        await runner.cleanup()

    asyncio.run(main())


async def told(pipe: Connection, port: int) -> None:
    """Say the port, then the CPU seconds so far whenever asked, until the other end hangs up."""
    pipe.send(port)
    while True:
        if pipe.poll():
            try:
                pipe.recv()
            except EOFError:
                return
            pipe.send(process_time())
        await asyncio.sleep(0.02)


@asynccontextmanager
async def running(serve: Callable[[Connection], None]) -> AsyncIterator[tuple[str, Callable[[], float]]]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{ours.recv()}"

    def cpu() -> float:
        ours.send(None)
        return float(ours.recv())

    try:
        yield url, cpu
    finally:
        ours.close()
        process.terminate()
        process.join()


async def by_stream(url: str, orders: int) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/v5/trade") as socket:
        expires = str(int(time.time() * 1000) + 10_000)
        sign = hmac.new(SECRET.encode(), f"GET/realtime{expires}".encode(), hashlib.sha256).hexdigest()
        await socket.send_json({"op": "auth", "args": [KEY, expires, sign]})
        assert (await socket.receive_json())["retCode"] == 0
        room = asyncio.Semaphore(WINDOW)

        async def send() -> None:
            for number in range(orders):
                await room.acquire()
                header = {"X-BAPI-TIMESTAMP": str(int(time.time() * 1000))}
                frame = {
                    "reqId": str(number),
                    "header": header,
                    "op": "order.create",
                    "args": [order(number)],
                }
                await socket.send_frame(encode(frame), aiohttp.WSMsgType.TEXT)

        sending = asyncio.create_task(send())
        for _ in range(orders):
            reply = msgspec.json.decode((await socket.receive()).data)
            assert reply["retCode"] == 0, reply
            room.release()
        await sending


async def by_rest(url: str, orders: int) -> None:
    await posted(url, "/v5/order/create", [encode(order(number)) for number in range(orders)])


async def by_batch(url: str, orders: int) -> None:
    bodies = []
    for first in range(0, orders, BATCH):
        items = [order(number) for number in range(first, first + BATCH)]
        bodies.append(encode({"category": "linear", "request": items}))
    await posted(url, "/v5/order/create-batch", bodies)


async def posted(url: str, path: str, bodies: list[bytes]) -> None:
    """Each signed when it leaves; 16 connections."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=16)) as session:
        waiting = iter(bodies)

        async def send() -> None:
            for body in waiting:
                stamp = str(int(time.time() * 1000))
                origin = f"{stamp}{KEY}5000".encode() + body
                headers = {
                    "X-BAPI-API-KEY": KEY, "X-BAPI-TIMESTAMP": stamp, "X-BAPI-RECV-WINDOW": "5000",
                    "X-BAPI-SIGN": hmac.new(SECRET.encode(), origin, hashlib.sha256).hexdigest(),
                }  # fmt: skip
                async with session.post(url + path, data=body, headers=headers) as answer:
                    reply = msgspec.json.decode(await answer.read())
                    assert reply["retCode"] == 0, reply

        await asyncio.gather(*(send() for _ in range(16)))


async def measured(
    serve: Callable[[Connection], None], drive: Callable[[str, int], Any], orders: int
) -> tuple[float, float]:
    """Orders per second: of the server's CPU, of wall time."""
    async with running(serve) as (url, cpu):
        before, start = cpu(), time.perf_counter()
        await drive(url, orders)
        elapsed = time.perf_counter() - start
        return orders / (cpu() - before), orders / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rates = [core(options.orders) for _ in range(options.rounds)]
    print(f"{'matching core':<22}{statistics.median(rates):>10,.0f} orders per CPU second")
    for name, drive in (
        ("order entry stream", by_stream), ("REST", by_rest), (f"REST, {BATCH} a request", by_batch),
    ):  # fmt: skip
        rows = []
        for _ in range(options.rounds):
            ours = asyncio.run(measured(serve_exchange, drive, options.orders))
            idle = asyncio.run(measured(serve_nothing, drive, options.orders))
            rows.append((*ours, idle[0], ours[0] / idle[0]))
        cpu, wall, _, ratio = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"{name:<22}{cpu:>10,.0f} orders per CPU second of the server ({wall:,.0f} by the wall clock), "
            f"{ratio:.0%} of an idle aiohttp server"
        )


if __name__ == "__main__":
    main()
