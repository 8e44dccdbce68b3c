"""Who may come in: keys, signatures over the bytes that came, the time rule, and the limits of speed."""

import hashlib
import hmac
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from bot.exchange.local.account import Account
from bot.exchange.local.orders import Refused

RECV_WINDOW: Final = 5_000
AHEAD_MS: Final = 1_000  # how far a client's clock may run ahead
ADDRESS_LIMIT: Final = 600  # HTTP requests in 5 seconds
ADDRESS_WINDOW_S: Final = 5.0


class Key(NamedTuple):
    """An API key of an account."""

    key: str
    secret: str
    account: Account
    read_only: bool = False

    def signs(self, text: str, signature: str) -> bool:
        expected = hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        return hmac.compare_digest(expected.encode(), signature.lower().encode(errors="surrogateescape"))


class Keys:
    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}

    def add(self, key: Key) -> None:
        self._keys[key.key] = key

    def find(self, name: str) -> Key:
        """Raises Refused 10003."""
        try:
            return self._keys[name]
        except KeyError:
            raise Refused(10003, "API key is invalid.") from None

    def of_request(self, headers: Mapping[str, str], payload: str, now: int) -> Key:
        """The key that signed a REST request; `payload` is the raw query or body. Raises Refused."""
        key = self.find(headers.get("X-BAPI-API-KEY", ""))
        stamp = headers.get("X-BAPI-TIMESTAMP", "")
        window = headers.get("X-BAPI-RECV-WINDOW", "")
        check_time(stamp, window, now)
        origin = f"{stamp}{key.key}{window}{payload}"
        if not key.signs(origin, headers.get("X-BAPI-SIGN", "")):
            raise Refused(10004, f"error sign! origin_string[{origin}]")
        return key

    def of_login(self, args: Any, now: int) -> Key:
        """The key of `{"op": "auth", "args": [key, expires, signature]}`. Raises Refused."""
        if not isinstance(args, list) or len(args) != 3:
            raise Refused(10001, "Params Error")
        name, expires, signature = (str(item) for item in args)
        key = self.find(name)
        if not expires.isdecimal() or int(expires) <= now:
            raise Refused(10001, "Params Error")
        if not key.signs(f"GET/realtime{expires}", signature):
            raise Refused(10004, "Invalid sign")
        return key


def check_time(stamp: object, window: object, now: int) -> None:
    """server - window <= timestamp < server + 1000; raises Refused 10002."""
    text, width = str(stamp or ""), str(window or RECV_WINDOW)
    if not text.isdecimal() or not width.isdecimal() or not now - int(width) <= int(text) < now + AHEAD_MS:
        raise Refused(
            10002,
            "invalid request, please check your server timestamp or recv_window param. "
            f"req_timestamp[{text}],server_timestamp[{now}],recv_window[{width}]",
        )


class Quota(NamedTuple):
    """What is left after a request; `reset` in ms UTC."""

    limit: int
    remaining: int
    reset: int

    def headers(self) -> dict[str, str]:
        return {
            "X-Bapi-Limit": str(self.limit),
            "X-Bapi-Limit-Status": str(self.remaining),
            "X-Bapi-Limit-Reset-Timestamp": str(self.reset),
        }


class RateLimits:
    """Rolling windows of one second per account and endpoint, and of five seconds per address.

    `scale` multiplies the limits; 0 switches them off.
    """

    def __init__(self, scale: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.scale = scale
        self._monotonic = monotonic
        self._taken: defaultdict[tuple[int, str], deque[float]] = defaultdict(deque)
        self._address: deque[float] = deque()

    def admit_address(self) -> bool:
        if not self.scale:
            return True
        now = self._monotonic()
        while self._address and self._address[0] <= now - ADDRESS_WINDOW_S:
            self._address.popleft()
        self._address.append(now)
        return len(self._address) <= ADDRESS_LIMIT * self.scale

    def take(self, uid: int, group: str, limit: int, count: int, server_ms: int) -> tuple[int, Quota]:
        """(how many of `count` requests are admitted, what is left)."""
        if not self.scale:
            return count, Quota(limit, limit - 1, server_ms)
        allowed = max(1, int(limit * self.scale))
        taken, now = self._taken[uid, group], self._monotonic()
        while taken and taken[0] <= now - 1:
            taken.popleft()
        admitted = min(count, allowed - len(taken))
        taken.extend([now] * admitted)
        reset = server_ms
        if admitted < count:
            reset += int((taken[0] + 1 - now) * 1000) + 1
        return admitted, Quota(allowed, allowed - len(taken), reset)
