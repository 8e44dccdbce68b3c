"""What an error of the exchange means for us: one table, five kinds.

Texts of Bybit vary, codes do not: everything is decided by code, and an unknown code fails closed.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from bot.core.errors import RuntimeFault, UsageError
from bot.exchange.bybit.environment import ENVIRONMENTS, Environment

IP_BAN_S: Final = 600.0  # Bybit lifts the ban of an address after ten quiet minutes


class Kind(StrEnum):
    RETRY = "retry"  # nothing was done; the same request may go again, later
    REFUSED = "refused"  # nothing was done and nothing will be
    UNKNOWN = "unknown outcome"  # done or not: ask by orderLinkId, never send again blindly
    CONFIGURATION = "configuration"  # a person must change something
    FATAL = "fatal"  # we sent what should never be sent: stop


class Ruling(NamedTuple):
    kind: Kind
    reason: str


class ExchangeError(RuntimeFault):
    """The exchange did not do what was asked.

    `code` is the retCode, the HTTP status, or 0 when no answer came; `retry_after` is in seconds.
    """

    def __init__(
        self, ruling: Ruling, *, path: str, code: int = 0, text: str = "", retry_after: float = 0.0
    ) -> None:
        self.kind = ruling.kind
        if ruling.kind is Kind.CONFIGURATION:  # no restart mends it
            self.exit_code = UsageError.exit_code
        self.reason = ruling.reason
        self.path = path
        self.code = code
        self.text = text
        self.retry_after = retry_after
        detail = f" ({code}: {text[:300]})" if code else ""
        super().__init__(f"{path}: {ruling.reason}{detail}")

    @property
    def may_pass(self) -> bool:
        """Whether the same question may be answered if it is asked again."""
        return self.kind in (Kind.RETRY, Kind.UNKNOWN)


UNCHANGED: Final = frozenset({110025, 110026, 110027, 110043, 34040})
"""Codes that say "it is so already": success."""

TOO_FAST: Final = frozenset({10006, 10403, 20003, 170005, 170222})

_RETRY: Final = {
    "too many requests": TOO_FAST,
    "this address sent too many requests": (10018,),
    "our clock and the exchange's disagree": (10002,),
    "the order is still being processed": (110079,),
}
_UNKNOWN: Final = {
    "the exchange is overloaded or timed out": (
        429,
        10000,
        10016,
        10019,
        10429,
        170007,
        170032,
        170146,
        170147,
    ),
    "the request was seen before": (10014, 20006),
    "an order with this orderLinkId exists": (110072, 170141),
    "the order is gone or not there yet": (110001, 170143, 170213),
    "the order is finished already": (110008, 110010, 170139, 170142, 170190),
    "the exchange could not create or cancel the order": (170149, 170150, 170210),
}
_REFUSED: Final = {
    "a parameter is not acceptable": (10001,),
    "the symbol is not open to this key": (10029,),
    "the price is out of range": (
        110003, 110120, 110121, 30208, 30209, 170132, 170133, 170193, 170194, 170371, 170372,
    ),
    "not enough balance or margin": (
        110004, 110006, 110007, 110012, 110014, 110044, 110045, 110051, 110052, 110053, 170033, 170131,
    ),
    "too many open orders": (110009, 110020, 110061, 170810),
    "above the risk limit for this leverage": (110013, 110085, 110086, 110089, 110090),
    "there is nothing to reduce": (110017,),
    "there is no position": (110034,),
    "trading of the symbol is restricted": (110021, 110022, 110023, 110042, 110066, 110074, 30228),
    "positions or orders stand in the way of the change": (110024, 110028, 3400045),
    "the trigger price is on the wrong side": (110092, 110093),
    "below the minimum order value": (110094, 170140),
    "the symbol is not open to this account": (110100, 110123, 110125, 110132),
    "no such symbol": (170121,),
    "the quantity is out of range": (170124, 170136, 170341, 170381, 170382),
    "not on the instrument's grid": (170134, 170137, 170148),
    "a maker order would have taken": (170217, 170218),
}  # fmt: skip
_CONFIGURATION: Final = {
    "the API key is not valid here": (10003,),
    "the signature is wrong: check the API secret": (10004,),
    "the API key lacks a permission: edit the key on the Bybit site": (10005,),
    "authentication failed: check key and secret": (10007, 401),
    "the account or key is banned: ask Bybit": (10008, 10027),
    "this address or region is not served": (10009, 10024),
    "the API key is bound to other IP addresses: add this one on the Bybit site": (10010,),
    "the account is not a Unified Trading Account: upgrade it on the Bybit site": (10028,),
    "the API key has expired: make a new one": (33004, -2015),
    "demo trading does not offer this": (10032,),
}
_FATAL: Final = {
    "no such endpoint": (10017, 404, 10404),
    "a request that should never have been sent": (
        400, 20001, 110018, 110019, 110032, 170105, 170115, 170116, 170117, 170130,
    ),
}  # fmt: skip

TABLE: Final[dict[int, Ruling]] = {
    code: Ruling(kind, reason)
    for kind, rows in (
        (Kind.RETRY, _RETRY),
        (Kind.UNKNOWN, _UNKNOWN),
        (Kind.REFUSED, _REFUSED),
        (Kind.CONFIGURATION, _CONFIGURATION),
        (Kind.FATAL, _FATAL),
    )
    for reason, codes in rows.items()
    for code in codes
}
_BANNED: Final = Ruling(Kind.RETRY, "this address sent too many requests, or is in a region not served")
_SERVER: Final = Ruling(Kind.UNKNOWN, "the exchange failed")
_STRANGE: Final = Ruling(Kind.UNKNOWN, "a code that we do not know")
NO_ANSWER: Final = Ruling(Kind.UNKNOWN, "no answer")
NOT_SENT: Final = Ruling(Kind.RETRY, "the request never left")
UNREADABLE: Final = Ruling(Kind.UNKNOWN, "an answer that cannot be read")


def ruling(code: int, *, write: bool) -> Ruling:
    """What a retCode means."""
    return judged(TABLE.get(code, _STRANGE), write=write)


def http_ruling(status: int, *, write: bool) -> Ruling:
    """What an HTTP status other than 200 means."""
    if status == 403:
        return _BANNED
    return judged(_SERVER if status >= 500 else TABLE.get(status, _STRANGE), write=write)


def judged(found: Ruling, *, write: bool) -> Ruling:
    """A read has no outcome to be unknown: it may simply be repeated."""
    if found.kind is not Kind.UNKNOWN or write:
        return found
    return found._replace(kind=Kind.REFUSED if found is _STRANGE else Kind.RETRY)


def advice(code: int, environment: Environment) -> str:
    """What the operator can do about it; "" where the reason says it all."""
    if code != 10003:
        return ""
    key, secret = environment.key_variables
    if environment.name == "local":
        return (
            f"The exchange at {environment.rest} does not know the key in {key}: its keys are those of "
            "[[exchange.accounts]] in the configuration that `bot exchange` was started with. Put one and "
            f"its secret into {key} and {secret}, or set neither for the default"
        )
    others = ", ".join(name for name in ENVIRONMENTS if name != environment.name)
    return (
        f"{environment.name} ({environment.rest}) does not know the key in {key}. A key works only where it "
        f"was made: one of {others}? Choose that environment, or put a {environment.name} key into "
        f"{key} and {secret}"
    )
