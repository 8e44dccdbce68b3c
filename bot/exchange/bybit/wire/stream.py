"""`decode`: one frame of any stream, as its type."""

from typing import Any, Final

import msgspec

from bot.exchange.bybit.wire import private, public
from bot.exchange.bybit.wire.codec import MALFORMED, Codec, Wire, WireError, count_unknown, parsed
from bot.exchange.bybit.wire.control import Head, Reply, Request

MAX_FRAME: Final = 4 * 2**20  # a 1000-level snapshot is about 50 kB


class Other(msgspec.Struct, frozen=True):
    """A topic that this version does not know; counted in `unknown` and otherwise left alone."""

    topic: str
    document: dict[str, Any]


Pushed = (
    public.Book | public.RpiBook | public.Trades | public.Ticker | public.Klines | public.Liquidations
    | public.PriceLimit | public.AdlAlerts | public.SystemStatus | private.Orders | private.Executions
    | private.FastExecutions | private.Positions | private.Wallets | Other
)  # fmt: skip
Message = Pushed | Reply | Request | private.Position

_TOPICS: Final[dict[str, Codec[Any]]] = {
    name: Codec(kind, name)
    for name, kind in {
        "orderbook": public.Book,
        "orderbook.rpi": public.RpiBook,
        "publicTrade": public.Trades,
        "tickers": public.Ticker,
        "kline": public.Klines,
        "allLiquidation": public.Liquidations,
        "priceLimit": public.PriceLimit,
        "adlAlert": public.AdlAlerts,
        "system": public.SystemStatus,
        "order": private.Orders,
        "execution": private.Executions,
        "execution.fast": private.FastExecutions,
        "position": private.Positions,
        "wallet": private.Wallets,
    }.items()
}
_HEAD: Final = msgspec.json.Decoder(Head, strict=False)
_REPLY: Final = Codec(Reply, "reply")
_REQUEST: Final = Codec(Request, "request")
_POSITION: Final = Codec(private.Position, "position.data")


def decode(payload: bytes) -> Message:
    """Decode one frame. Raises WireError for everything that is not a message we can understand."""
    if len(payload) > MAX_FRAME:
        raise WireError(f"frame of {len(payload)} bytes; the limit is {MAX_FRAME}")
    try:
        head = _HEAD.decode(payload)
    except MALFORMED as error:
        raise WireError(f"frame: {error}") from None
    if head.topic:
        message: Wire | Other = _pushed(head.topic, payload)
    elif head.is_reply:
        message = _REPLY.decode(payload)
    elif head.op:
        message = _REQUEST.decode(payload)
    else:
        message = _POSITION.decode(payload)  # recorders of private streams keep the bare elements of `data`
    return message  # type: ignore[return-value]  # the tables above hold members of the union only


def _pushed(topic: str, payload: bytes) -> Wire | Other:
    kind, _, rest = topic.partition(".")
    qualified = f"{kind}.{rest.partition('.')[0]}"
    codec = _TOPICS.get(qualified) or _TOPICS.get(kind)
    if codec is None:
        count_unknown(f"topic {kind[:64]}")
        return Other(topic, parsed(payload, topic[:64]))
    message: Wire = codec.decode(payload)
    return message
