"""Compiled order book: raw bytes -> parsed -> checked -> applied -> features, in one call.

A book is one row of `STATE`. Both sides are kept best first, sorted by key: the price of an ask, minus the
price of a bid. All compiled code is in this file because numba's cache watches only the file of the function
that it stores: a kernel calling another module's kernel would keep running its old version.

The parser knows exactly one layout, the one that Bybit sends for linear contracts:

    {"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1,"data":{"s":"BTCUSDT",
     "b":[["100.5","2"]],"a":[],"u":7,"seq":9},"cts":1}          (without the line break)

and gives up (OTHER_LAYOUT, nothing changed) at the first byte that differs. It looks at a byte only when all
bytes before it were the expected ones, and no expected byte is NUL, so it can't pass the NUL that CPython
puts behind the content of a `bytes` object.
"""

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

MAX_DEPTH: Final = 1000
CAPACITY: Final = 2048  # levels a side within one message: inserts may come before the deletes
PAST: Final = 64  # remembered best levels, for audits against an older REST book

# What became of a message.
APPLIED, REPLACED, IGNORED, LOST, REJECTED, OTHER_LAYOUT = range(6)
# Where a book is.
EMPTY, LIVE, STALE = range(3)
# Why it was lost.
NOTHING, GAP, CROSSED, OVERFULL, DISORDER, AUDIT, UNREADABLE = range(7)

BID, BID_SIZE, ASK, ASK_SIZE, SPREAD, MICROPRICE, IMBALANCE_5, IMBALANCE_10, IMBALANCE_50, OFI = range(10)
BID_DEPTH, ASK_DEPTH, FEATURES = range(10, 13)

STATE: Final = np.dtype(
    [
        # which book this is
        ("depth", "i8"),
        ("band", "f8"),  # fraction of the mid price within which notional is summed
        ("head", "u1", 128),  # the message up to the value of "type"
        ("head_length", "i8"),
        ("middle", "u1", 128),  # from behind the value of "ts" to the first bid
        ("middle_length", "i8"),
        # where it is
        ("condition", "i8"),
        ("u", "i8"),
        ("seq", "i8"),  # highest seen since the subscription began
        ("lag", "i8"),  # ms from the matching engine to us, of the newest delta; 0 after a snapshot
        ("received", "i8"),  # ms
        ("reason", "i8"),
        ("offender", "i8"),  # u of the message that lost the book
        # counters
        ("updates", "i8"),
        ("snapshots", "i8"),
        ("ignored", "i8"),
        ("unknown_deletes", "i8"),
        ("lost", "i8", 7),  # by reason
        # levels, and the levels of the message in hand: [bids, asks]
        ("count", "i8", 2),
        ("key", "f8", (2, CAPACITY)),
        ("size", "f8", (2, CAPACITY)),
        ("new_snapshot", "i8"),
        ("new_u", "i8"),
        ("new_seq", "i8"),
        ("new_time", "i8"),
        ("new_count", "i8", 2),
        ("new_key", "f8", (2, CAPACITY)),
        ("new_size", "f8", (2, CAPACITY)),
        # results
        ("features", "f8", FEATURES),
        ("past_seq", "i8", PAST),
        ("past_top", "f8", (PAST, 4)),
    ],
    align=True,
)

_POW10 = np.array([float(10**k) for k in range(19)])  # exact, as up to 10^22
_EXACT = 2**53
_OTHER: Final = -1  # the index that parsers return for another layout


def _bytes(text: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(text, np.uint8)


_SNAPSHOT = _bytes(b'snapshot","ts":')
_DELTA = _bytes(b'delta","ts":')
_ASKS = _bytes(b',"a":[')
_UPDATE = _bytes(b',"u":')
_SEQ = _bytes(b',"seq":')
_CTS = _bytes(b'},"cts":')


# --- parser: each function takes the index of its first byte and returns the one behind its last, or _OTHER -
# --- when a byte is not the expected one, or when it was given _OTHER ---------------------------------------


@njit(cache=True, error_model="numpy")
def _text(buf: bytes, i: int, text: NDArray[np.uint8], length: int) -> int:
    if i == _OTHER:
        return _OTHER
    for k in range(length):
        if buf[i + k] != text[k]:
            return _OTHER
    return i + length


@njit(cache=True, error_model="numpy")
def _integer(buf: bytes, i: int) -> tuple[int, int]:
    """A JSON integer of at most 18 digits."""
    if i == _OTHER:
        return 0, _OTHER
    start = i
    value = 0
    while 48 <= buf[i] <= 57:
        value = value * 10 + (buf[i] - 48)
        i += 1
    if i == start or i > start + 18 or (buf[start] == 48 and i > start + 1):
        return 0, _OTHER
    return value, i


@njit(cache=True, error_model="numpy")
def _decimal(buf: bytes, i: int) -> tuple[float, int]:
    """A JSON number without sign and exponent, correctly rounded.

    digits / 10^k is one IEEE division of two exact doubles, hence rounded like Python's float(), as long as
    the digits are an integer of at most 2^53 and k <= 22 (Clinger, 'How to read floating point numbers
    accurately', 1990). Longer numbers are another layout.
    """
    start = i
    digits = 0
    digit = buf[i] ^ 48  # '0'..'9' become 0..9, '.' 30, every other byte something else above 9
    while digit < 10:
        digits = digits * 10 + digit
        i += 1
        digit = buf[i] ^ 48
    point = i
    if point == start or (buf[start] == 48 and point > start + 1):
        return 0.0, _OTHER
    decimals = 0
    if digit == 30:
        i += 1
        digit = buf[i] ^ 48
        while digit < 10:
            digits = digits * 10 + digit
            i += 1
            digit = buf[i] ^ 48
        decimals = i - point - 1
        if decimals == 0:
            return 0.0, _OTHER
    if point - start + decimals > 18 or digits > _EXACT:  # the first keeps the second from overflowing
        return 0.0, _OTHER
    return digits / _POW10[decimals], i


@njit(cache=True, error_model="numpy")
def _levels(buf: bytes, i: int, book: Any, side: int) -> int:
    """[["price","size"],...] behind the first bracket, into the message in hand."""
    if i == _OTHER:
        return _OTHER
    sign = -1.0 if side == 0 else 1.0
    key, size = book["new_key"][side], book["new_size"][side]
    book["new_count"][side] = 0
    if buf[i] == 93:
        return i + 1
    for count in range(CAPACITY):
        if buf[i] != 91 or buf[i + 1] != 34:
            return _OTHER
        price, i = _decimal(buf, i + 2)
        if i == _OTHER or price == 0.0 or buf[i] != 34 or buf[i + 1] != 44 or buf[i + 2] != 34:
            return _OTHER
        amount, i = _decimal(buf, i + 3)
        if i == _OTHER or buf[i] != 34 or buf[i + 1] != 93:
            return _OTHER
        key[count] = sign * price
        size[count] = amount
        if buf[i + 2] == 93:
            book["new_count"][side] = count + 1
            return i + 3
        if buf[i + 2] != 44:
            return _OTHER
        i += 3
    return _OTHER


@njit(cache=True, error_model="numpy")
def _parse(buf: bytes, book: Any) -> bool:
    """Reads the whole message into the book's message in hand; False if it has another layout."""
    i = _text(buf, 0, book["head"], book["head_length"])
    if i == _OTHER:
        return False
    if buf[i] == 115:
        book["new_snapshot"] = 1
        i = _text(buf, i, _SNAPSHOT, len(_SNAPSHOT))
    else:
        book["new_snapshot"] = 0
        i = _text(buf, i, _DELTA, len(_DELTA))
    _, i = _integer(buf, i)
    i = _text(buf, i, book["middle"], book["middle_length"])
    i = _levels(buf, i, book, 0)
    i = _text(buf, i, _ASKS, len(_ASKS))
    i = _levels(buf, i, book, 1)
    i = _text(buf, i, _UPDATE, len(_UPDATE))
    book["new_u"], i = _integer(buf, i)
    i = _text(buf, i, _SEQ, len(_SEQ))
    book["new_seq"], i = _integer(buf, i)
    i = _text(buf, i, _CTS, len(_CTS))
    book["new_time"], i = _integer(buf, i)
    return i != _OTHER and book["new_u"] > 0 and i + 1 == len(buf) and buf[i] == 125


# --- book -------------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def _clear(book: Any) -> None:
    """Nothing of the book stays readable."""
    book["count"][0] = 0
    book["count"][1] = 0
    for k in range(FEATURES):
        book["features"][k] = np.nan
    book["features"][OFI] = 0.0
    for k in range(PAST):
        book["past_seq"][k] = -1


@njit(cache=True, error_model="numpy")
def _lose(book: Any, reason: int, u: int) -> int:
    """The book can't be trusted any more, until a snapshot replaces it."""
    _clear(book)
    book["condition"] = STALE
    book["reason"] = reason
    book["offender"] = u
    book["lost"][reason] += 1
    return LOST


@njit(cache=True, error_model="numpy")
def _apply_side(book: Any, side: int) -> bool:
    """Insert, replace or delete the message's levels of one side; False if there is no room.

    Messages list their levels mostly best first, so the search walks on from the last one.
    """
    key, size = book["key"][side], book["size"][side]
    new_key, new_size = book["new_key"][side], book["new_size"][side]
    count = book["count"][side]
    at = 0
    for k in range(book["new_count"][side]):
        wanted = new_key[k]
        amount = new_size[k]
        while at < count and key[at] < wanted:
            at += 1
        while at > 0 and key[at - 1] >= wanted:
            at -= 1
        known = at < count and key[at] == wanted
        if amount != 0.0:
            if not known:
                if count == CAPACITY:
                    return False
                for j in range(count, at, -1):
                    key[j] = key[j - 1]
                    size[j] = size[j - 1]
                key[at] = wanted
                count += 1
            size[at] = amount
        elif known:
            count -= 1
            for j in range(at, count):
                key[j] = key[j + 1]
                size[j] = size[j + 1]
        else:
            book["unknown_deletes"] += 1
    book["count"][side] = count
    return True


@njit(cache=True, error_model="numpy")
def _volume(size: NDArray[np.float64], start: int, end: int) -> float:
    total = 0.0
    for k in range(start, end):
        total += size[k]
    return total


@njit(cache=True, error_model="numpy")
def _notional(key: NDArray[np.float64], size: NDArray[np.float64], count: int, worst: float) -> float:
    """Sum of price x size over the levels whose key is not above `worst`; NaN if that is NaN."""
    total = 0.0 * worst
    for k in range(count):
        if key[k] > worst:
            break
        total += abs(key[k]) * size[k]
    return total


@njit(cache=True, error_model="numpy")
def _compute_features(book: Any) -> None:
    """Features of the book as it is; NaN where a side is missing.

    Order-flow imbalance of the best level: Cont, Kukanov & Stoikov, 'The price impact of order book events',
    2014, eq. (3), summed over consecutive live states; a missing side compares as neither. Microprice: mid
    weighted by the opposite sizes. Imbalance over n levels: (bids - asks) / (bids + asks) of their sizes.
    """
    out = book["features"]
    key, size = book["key"], book["size"]
    bids, asks = book["count"][0], book["count"][1]
    bid = bid_size = ask = ask_size = np.nan
    if bids > 0:
        bid, bid_size = -key[0, 0], size[0, 0]
    if asks > 0:
        ask, ask_size = key[1, 0], size[1, 0]
    if bid >= out[BID]:
        out[OFI] += bid_size
    if bid <= out[BID]:
        out[OFI] -= out[BID_SIZE]
    if ask <= out[ASK]:
        out[OFI] -= ask_size
    if ask >= out[ASK]:
        out[OFI] += out[ASK_SIZE]
    out[BID], out[BID_SIZE], out[ASK], out[ASK_SIZE] = bid, bid_size, ask, ask_size
    mid = (bid + ask) / 2
    out[SPREAD] = (ask - bid) / mid * 1e4
    out[MICROPRICE] = (bid * ask_size + ask * bid_size) / (bid_size + ask_size)
    bought = sold = 0.0
    start = 0
    for k, end in enumerate((5, 10, 50)):
        bought += _volume(size[0], start, min(end, bids))
        sold += _volume(size[1], start, min(end, asks))
        out[IMBALANCE_5 + k] = (bought - sold) / (bought + sold)
        start = end
    out[BID_DEPTH] = _notional(key[0], size[0], bids, -mid * (1 - book["band"]))
    out[ASK_DEPTH] = _notional(key[1], size[1], asks, mid * (1 + book["band"]))


@njit(cache=True, error_model="numpy")
def _judge(book: Any) -> int:
    """APPLIED if the message in hand may be applied, else what became of it instead.

    A live book is the state at the highest `seq` ever seen, so a message that is newer by `seq` but not by
    `u`, or the other way round, ends it: something restarted or was mixed up, and only a new subscription
    puts it right.
    """
    snapshot, u = book["new_snapshot"] == 1, book["new_u"]
    newer = book["new_seq"] > book["seq"]
    older = book["new_seq"] < book["seq"]
    if newer:
        book["seq"] = book["new_seq"]
    if book["condition"] != LIVE:
        return APPLIED if snapshot and not older else IGNORED
    if not snapshot and u <= book["u"] and not newer:
        return IGNORED
    if not snapshot and u > book["u"] + 1:
        return _lose(book, GAP, u)
    if older or (not snapshot and u <= book["u"]):
        return _lose(book, DISORDER, u)
    return APPLIED


@njit(cache=True, error_model="numpy")
def _commit(book: Any, received: int) -> int:
    """The message in hand becomes the book, changes it, or is refused."""
    verdict = _judge(book)
    if verdict != APPLIED:
        book["ignored"] += verdict == IGNORED
        return verdict
    snapshot, u = book["new_snapshot"] == 1, book["new_u"]
    if snapshot:
        book["count"][0] = 0
        book["count"][1] = 0
    if not (_apply_side(book, 0) and _apply_side(book, 1)):
        return _lose(book, OVERFULL, u)
    bids, asks = book["count"][0], book["count"][1]
    if max(bids, asks) > book["depth"]:
        return _lose(book, OVERFULL, u)
    if bids > 0 and asks > 0 and -book["key"][0, 0] >= book["key"][1, 0]:
        return _lose(book, CROSSED, u)
    book["condition"] = LIVE
    book["u"] = u
    # A snapshot carries the time of the last change, which in a quiet market may be long ago.
    book["lag"] = 0 if snapshot else received - book["new_time"]
    book["received"] = received
    _compute_features(book)
    slot = (book["updates"] + book["snapshots"]) % PAST
    book["past_seq"][slot] = book["seq"]
    for k in range(4):
        book["past_top"][slot, k] = book["features"][k]
    if snapshot:
        book["snapshots"] += 1
        return REPLACED
    book["updates"] += 1
    return APPLIED


@njit(cache=True, error_model="numpy")
def _take(book: Any, side: int, sign: float, levels: NDArray[np.float64]) -> bool:
    if len(levels) > CAPACITY:
        return False
    for k in range(len(levels)):
        price, amount = levels[k, 0], levels[k, 1]
        if not (0.0 < price < np.inf and 0.0 <= amount < np.inf):
            return False
        book["new_key"][side, k] = sign * price
        book["new_size"][side, k] = amount
    book["new_count"][side] = len(levels)
    return True


# --- entry points: a book comes as the bytes of its row, which numba unwraps faster than the row itself -----


@njit(cache=True, error_model="numpy")
def update(frame: bytes, memory: NDArray[np.uint8], received: int) -> int:
    """One message as it came; OTHER_LAYOUT leaves the book as it was."""
    book = memory.view(STATE)[0]
    return _commit(book, received) if _parse(frame, book) else OTHER_LAYOUT


@njit(cache=True, error_model="numpy")
def apply(
    memory: NDArray[np.uint8],
    bids: NDArray[np.float64],
    asks: NDArray[np.float64],
    header: tuple[int, int, int, int],
    received: int,
) -> int:
    """One message decoded elsewhere.

    header: 1 for a snapshot, u, seq, time; bids and asks float64 (n, 2): price and size.

    REJECTED, the book left as it was, unless prices are positive, sizes not negative, and all finite.
    """
    book = memory.view(STATE)[0]
    if not (_take(book, 0, -1.0, bids) and _take(book, 1, 1.0, asks)):
        return REJECTED
    book["new_snapshot"], book["new_u"], book["new_seq"], book["new_time"] = header
    return _commit(book, received)


@njit(cache=True, error_model="numpy")
def lose(memory: NDArray[np.uint8], reason: int) -> int:
    book = memory.view(STATE)[0]
    return _lose(book, reason, book["u"])


@njit(cache=True, error_model="numpy")
def reset(memory: NDArray[np.uint8]) -> None:
    """A new subscription: its `u` and `seq` need not continue the old ones. Counters stay."""
    book = memory.view(STATE)[0]
    _clear(book)
    book["condition"] = EMPTY
    book["reason"] = NOTHING
    book["u"] = 0
    book["seq"] = -1
    book["lag"] = 0
