"""Mutated real messages: a value or a WireError, never another exception, never a book of nonsense."""

import json
import math
import random
from collections.abc import Callable

import pytest

from bot.exchange.bybit import wire
from bot.exchange.bybit.wire import WireError, public
from tests.bybit_fixtures import Sample, needs_fixtures, samples

TOKENS = [
    b"null", b"true", b"{}", b"[]", b'""', b'"nan"', b'"-1"', b"1e999", b"-0", b"1e18", b'"1e99"', b"9" * 400,
    b'"\\ud800"', b"\xff", b"\x00", b'"orderbook.50.BTCUSDT"', b'"snapshot"', b"[" * 3_000, b'{"a":' * 3_000,
    b'"topic":"order",', b'"u":1,', b'"' + b"x" * 5_000 + b'"',
]  # fmt: skip


def mutated(payload: bytes, other: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 3)):
        payload = rng.choice(MUTATIONS)(payload, other, rng)
    return payload


def flip(payload: bytes, other: bytes, rng: random.Random) -> bytes:
    if not payload:
        return payload
    at = rng.randrange(len(payload))
    return payload[:at] + bytes([rng.randrange(256)]) + payload[at + 1 :]


def truncate(payload: bytes, other: bytes, rng: random.Random) -> bytes:
    return payload[: rng.randint(0, len(payload))]


def cut(payload: bytes, other: bytes, rng: random.Random) -> bytes:
    start = rng.randint(0, len(payload))
    return payload[:start] + payload[start + rng.randint(1, 40) :]


def insert(payload: bytes, other: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(payload))
    return payload[:at] + rng.choice(TOKENS) + payload[at:]


def splice(payload: bytes, other: bytes, rng: random.Random) -> bytes:
    return payload[: rng.randint(0, len(payload))] + other[rng.randint(0, len(other)) :]


def replace_value(payload: bytes, other: bytes, rng: random.Random) -> bytes:
    """Replace one JSON value and keep the document well-formed: the mutation that reaches deepest."""
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return payload
    slots = list(_slots(document))
    if not slots:
        return payload
    container, key = rng.choice(slots)
    if rng.random() < 0.3:
        del container[key]
    else:
        container[key] = rng.choice([None, "", "x", -1, 1e300, "NaN", [], {}, True, "0", 2**70, [["1", "2"]]])
    return json.dumps(document).encode()


def _slots(node: object, depth: int = 0) -> list[tuple[dict | list, str | int]]:  # type: ignore[type-arg]
    if depth > 8 or not isinstance(node, dict | list):
        return []
    keys = list(node) if isinstance(node, dict) else list(range(min(len(node), 5)))
    found = [(node, key) for key in keys]
    for key in keys:
        found += _slots(node[key], depth + 1)  # type: ignore[index]
    return found


MUTATIONS: list[Callable[[bytes, bytes, random.Random], bytes]] = [
    flip, truncate, cut, insert, splice, replace_value, replace_value, replace_value,
]  # fmt: skip


def check(message: Sample, payload: bytes) -> bool:
    """True if it decoded."""
    try:
        if message.path:
            wire.decode_response(message.path, payload)
            return True
        decoded = wire.decode(payload)
    except WireError:
        return False
    if isinstance(decoded, public.Book):
        for price, size in decoded.data.bids + decoded.data.asks:
            assert math.isfinite(price)
            assert price > 0
            assert math.isfinite(size)
            assert size >= 0
    return True


def fuzz(count: int, seed: int) -> float:
    rng = random.Random(seed)
    corpus = [message for message in samples() if len(message.payload) < 40_000]
    decoded = 0
    for _ in range(count):
        message, other = rng.choice(corpus), rng.choice(corpus)
        decoded += check(message, mutated(message.payload, other.payload, rng))
    wire.unknown.clear()
    return decoded / count


@needs_fixtures
def test_five_thousand_mutated_messages_decode_or_raise_a_wire_error() -> None:
    assert 0.02 < fuzz(5_000, seed=1) < 0.9  # both outcomes are exercised


@needs_fixtures
@pytest.mark.slow
def test_a_hundred_thousand_mutated_messages_decode_or_raise_a_wire_error() -> None:
    assert 0.02 < fuzz(100_000, seed=2) < 0.9
