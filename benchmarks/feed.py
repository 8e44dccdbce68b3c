"""An exchange that only sends order books: one connection at a time on loopback, in a process of its own.

Written on blocking sockets with frames made in advance, so that it is never slower than the client that is
measured. Frames repeat the same movements of the books with continuous `u` and `seq`; `cts` holds the time of
sending (microseconds of the monotonic clock, behind `STAMP`), from which the receiver has its latency.
"""

import multiprocessing
import os
import random
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from benchmarks.book import DEPTH, Simulated

STAMP: Final = 10**15  # keeps every stamp, and so every frame, at one length
_FIRST_U, _FIRST_SEQ = 10**9, 10**15
_AT_ONCE: Final = 200  # frames in a write at saturation
_PAUSE_S: Final = 0.5  # between the snapshots and what is sent at a rate


class Plan(NamedTuple):
    """What the next client gets: so many frames, the snapshots first; `rate` per second, 0: all at once."""

    frames: int
    rate: float = 0.0


def symbols(count: int) -> list[str]:
    return [f"T{number}USDT" for number in range(count)]


def topics(count: int) -> list[str]:
    return [f"orderbook.{DEPTH}.{symbol}" for symbol in symbols(count)]


def now_us() -> int:
    return time.monotonic_ns() // 1_000


def age_us(frame: bytes) -> int:
    """Microseconds since this frame was sent."""
    return now_us() + STAMP - int(frame[-17:-1])


class Frames:
    """`payload` and `framed` make the k-th frame: symbols in turn, first the snapshot of each."""

    def __init__(self, books: int, per_book: int) -> None:
        self._books = books
        simulated = [Simulated(name, seed) for seed, name in enumerate(symbols(books))]
        pool = [simulated[k % books].frame() for k in range(books * per_book)]
        self._beginnings = [frame[: frame.rindex(b'"u":')] for frame in pool]
        self._framed = [self._with_header(k) for k in range(len(pool))]

    def payload(self, k: int, stamp: int = 0) -> bytes:
        return self._beginnings[k % len(self._beginnings)] + self._end(k, stamp)

    def framed(self, k: int, stamp: int = 0) -> bytes:
        """As it goes over a WebSocket."""
        return self._framed[k % len(self._framed)] + self._end(k, stamp)

    def _end(self, k: int, stamp: int) -> bytes:
        update, seq = _FIRST_U + k // self._books, _FIRST_SEQ + k
        return b'"u":%d,"seq":%d},"cts":%d}' % (update, seq, STAMP + stamp)

    def _with_header(self, k: int) -> bytes:
        whole = Frame(Opcode.TEXT, self.payload(k)).serialize(mask=False)
        return whole[: -len(self._end(k, 0))]


def certificate(folder: Path) -> ssl.SSLContext:
    """A new self-signed one for 127.0.0.1: `folder`/certificate.pem. Needs the program openssl."""
    key, cert = str(folder / "key.pem"), str(folder / "certificate.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
               "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def _serve(pipe: Connection, books: int, per_book: int, folder: Path | None, cpu: int | None) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    tls = None if folder is None else certificate(folder)
    frames = Frames(books, per_book)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        with suppress(EOFError):  # the other end has gone
            while True:
                plan = pipe.recv()
                accepted, _ = listener.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client = accepted if tls is None else tls.wrap_socket(accepted, server_side=True)
                with client, suppress(OSError):  # a client that has enough hangs up
                    _attend(client, frames, books, plan)


def _attend(client: socket.socket, frames: Frames, books: int, plan: Plan) -> None:
    protocol = ServerProtocol()
    subscribed = 0
    while subscribed < books:
        subscribed += _answer(client, protocol)
    if plan.rate:
        _send_at_rate(client, frames, books, plan)
    else:
        for first in range(0, plan.frames, _AT_ONCE):
            until = min(first + _AT_ONCE, plan.frames)
            client.sendall(b"".join(frames.framed(k) for k in range(first, until)))
    while not protocol.close_expected():
        _answer(client, protocol)


def _answer(client: socket.socket, protocol: ServerProtocol) -> int:
    """Read once and answer; the number of topics that were subscribed."""
    data = client.recv(65_536)
    if not data:
        raise ConnectionResetError
    protocol.receive_data(data)
    subscribed = 0
    for event in protocol.events_received():
        if isinstance(event, Request):
            protocol.send_response(protocol.accept(event))
        elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
            asked = msgspec.json.decode(event.data)
            answer = {"success": True, "ret_msg": "", "conn_id": "1", "op": asked["op"]}
            protocol.send_text(msgspec.json.encode({**answer, "req_id": asked.get("req_id", "")}))
            subscribed += len(asked["args"]) if asked["op"] == "subscribe" else 0
    for reply in protocol.data_to_send():
        client.sendall(reply)
    return subscribed


def _send_at_rate(client: socket.socket, frames: Frames, books: int, plan: Plan) -> None:
    """Poisson arrivals, each frame in a write of its own."""
    client.sendall(b"".join(frames.framed(k) for k in range(books)))
    rng = random.Random(5)
    due = time.monotonic() + _PAUSE_S
    for k in range(books, plan.frames):
        due += rng.expovariate(plan.rate)
        while (early := due - time.monotonic()) > 0:
            time.sleep(early)
        client.sendall(frames.framed(k, now_us()))


@contextmanager
def feeding(
    books: int, per_book: int, *, tls: Path | None = None, cpu: int | None = None
) -> Iterator[tuple[int, Connection]]:
    """The port, and where to send a Plan before each connection. `tls`: a folder for the certificate."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, books, per_book, tls, cpu), daemon=True
    )
    process.start()
    theirs.close()
    try:
        yield ours.recv(), ours
    finally:
        ours.close()
        process.terminate()
        process.join()
