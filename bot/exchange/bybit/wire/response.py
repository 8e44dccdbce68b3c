"""`decode_response`: the answer of a REST endpoint, as its type."""

from typing import Any, Final, Generic, TypeVar, cast
from urllib.parse import urlsplit

from msgspec import Struct, field

from bot.exchange.bybit.wire import account, instruments, market, private, public
from bot.exchange.bybit.wire.codec import Codec, Millis, Wire, WireError, count_unknown, parsed
from bot.exchange.bybit.wire.control import Reply

MAX_RESPONSE: Final = 32 * 2**20  # every instrument with every field is about 2 MB

T = TypeVar("T")

_RESULTS: Final[dict[str, type[Any]]] = {
    "/v5/market/time": market.ServerTime,
    "/v5/market/kline": market.KlineList,
    "/v5/market/mark-price-kline": market.PriceKlineList,
    "/v5/market/index-price-kline": market.PriceKlineList,
    "/v5/market/premium-index-price-kline": market.PriceKlineList,
    "/v5/market/tickers": market.TickerList,
    "/v5/market/orderbook": market.BookSnapshot,
    "/v5/market/rpi_orderbook": market.RpiBookSnapshot,
    "/v5/market/recent-trade": market.PublicTradeList,
    "/v5/market/instruments-info": instruments.InstrumentList,
    "/v5/market/funding/history": market.FundingHistory,
    "/v5/market/open-interest": market.OpenInterestList,
    "/v5/market/account-ratio": market.LongShortRatioList,
    "/v5/market/price-limit": market.OrderPriceLimit,
    "/v5/market/risk-limit": market.RiskTierList,
    "/v5/market/adlAlert": market.InsurancePoolList,
    "/v5/market/fee-group-info": market.FeeGroupList,
    "/v5/system/status": market.SystemStatusList,
    "/v5/order/create": account.OrderIds,
    "/v5/order/amend": account.OrderIds,
    "/v5/order/cancel": account.OrderIds,
    "/v5/order/cancel-all": account.CancelledAll,
    "/v5/order/create-batch": account.Batch,
    "/v5/order/amend-batch": account.Batch,
    "/v5/order/cancel-batch": account.Batch,
    "/v5/order/pre-check": account.PreCheck,
    "/v5/order/disconnected-cancel-all": account.Nothing,
    "/v5/order/realtime": account.OrderList,
    "/v5/order/history": account.OrderList,
    "/v5/order/spot-borrow-check": account.SpotBorrowQuota,
    "/v5/execution/list": account.ExecutionList,
    "/v5/position/list": account.PositionList,
    "/v5/position/symbol-info": account.SymbolLeverageList,
    "/v5/position/closed-pnl": account.ClosedPnlList,
    "/v5/position/add-margin": private.MarginAdded,
    "/v5/position/confirm-pending-mmr": account.Nothing,
    "/v5/position/set-auto-add-margin": account.Nothing,
    "/v5/position/set-leverage": account.Nothing,
    "/v5/position/switch-mode": account.Nothing,
    "/v5/position/trading-stop": account.Nothing,
    "/v5/account/wallet-balance": account.WalletList,
    "/v5/account/info": account.AccountInfo,
    "/v5/account/fee-rate": account.FeeRateList,
    "/v5/account/transaction-log": account.TransactionLog,
    "/v5/account/collateral-info": account.CollateralList,
    "/v5/account/instruments-info": instruments.InstrumentList,
    "/v5/account/smp-group": account.SmpGroup,
    "/v5/account/user-setting-config": account.UserSettings,
    "/v5/account/withdrawal": account.Withdrawable,
    "/v5/account/set-limit-px-action": account.Nothing,
    "/v5/account/set-margin-mode": account.MarginModeResult,
    "/v5/user/query-api": account.ApiKey,
}
_ROWS: Final[dict[str, type[Any]]] = {
    "/v5/market/tickers": public.TickerData,
    "/v5/market/instruments-info": instruments.InstrumentInfo,
}
"""Lists of the whole market: one row that cannot be read must not hide the others. Never what is ours: an
order or a position that cannot be read refuses the answer."""
_CODECS: Final[dict[str, Codec[Any]]] = {
    path: Codec(kind, path.removeprefix("/v5/")) for path, kind in _RESULTS.items()
}


_ROW_CODECS: Final[dict[str, Codec[Any]]] = {
    path: Codec(kind, f"{path.removeprefix('/v5/')}.list") for path, kind in _ROWS.items()
}


class Verdicts(Wire, frozen=True):
    """`retExtInfo`: empty, or one verdict for each item of a batch."""

    verdicts: list[account.BatchVerdict] = field(name="list", default_factory=list)


class Envelope(Wire, frozen=True):
    """{"retCode": 0, "retMsg": "OK", "result": {}, "retExtInfo": {}, "time": 1671017382656}"""

    code: int = field(name="retCode")
    text: str = field(name="retMsg", default="")
    result: Any = None
    extra: Any = field(name="retExtInfo", default=None)
    time: Millis = 0


class Response(Struct, Generic[T], frozen=True):
    """One answer. `code` 0 is success; with another code `result` is None unless it decodes all the same."""

    code: int
    text: str
    result: T | None
    time: int = 0  # ms UTC of the exchange; 0 when it sent none
    verdicts: tuple[account.BatchVerdict, ...] = ()
    unreadable: str = ""  # why rows are missing from a list, of the last of them

    @property
    def value(self) -> T:
        """The result of a successful answer."""
        if self.result is None:
            raise WireError(f"no result in an answer with code {self.code} ({self.text})")
        return self.result


_ENVELOPE: Final = Codec(Envelope, "response")
_VERDICTS: Final = Codec(Verdicts, "response.retExtInfo")


def decode_response(path: str, payload: bytes) -> Response[Any]:
    """Decode the body that the REST endpoint `path` ("/v5/market/kline") answered. Raises WireError."""
    if len(payload) > MAX_RESPONSE:
        raise WireError(f"{path}: answer of {len(payload)} bytes; the limit is {MAX_RESPONSE}")
    return response_of(path, parsed(payload, path))


def response_of(path: str, document: Any) -> Response[Any]:
    """The same for an answer that is parsed already."""
    path = urlsplit(path).path
    codec = _CODECS.get(path)
    if codec is None:
        raise WireError(f"{path}: no such endpoint is known here")
    return _response(codec, _ENVELOPE.convert(document), _ROW_CODECS.get(path))


def response_of_reply(reply: Reply) -> Response[Any]:
    """The answer of an order operation by WebSocket (`order.create`), which is that of its REST twin."""
    codec = _CODECS.get("/v5/" + reply.op.replace(".", "/", 1))
    if codec is None or reply.code is None:
        raise WireError(f"{reply.op or 'reply'}: not the answer of an order operation")
    envelope = Envelope(reply.code, reply.text, reply.data, reply.extra, _time_of(reply))
    return _response(codec, envelope)


def _response(codec: Codec[T], envelope: Envelope, rows: Codec[Any] | None = None) -> Response[T]:
    verdicts = _VERDICTS.convert(envelope.extra if isinstance(envelope.extra, dict) else {}).verdicts
    document, unreadable = {} if envelope.result is None else envelope.result, ""
    try:
        result: T | None = codec.convert(document)
    except WireError:
        if envelope.code:
            result = None
        elif rows is None:
            raise
        else:
            document, unreadable = _readable(document, rows)
            result = codec.convert(document)
    return Response(envelope.code, envelope.text, result, envelope.time, tuple(verdicts), unreadable)


def _readable(document: Any, rows: Codec[Any]) -> tuple[Any, str]:
    """The same list without the rows that cannot be read, and why not, of the last of them."""
    if not isinstance(document, dict) or not isinstance(document.get("list"), list):
        return document, ""
    kept, reason = [], ""
    for row in document["list"]:
        try:
            rows.convert(row)
        except WireError as error:
            named = row.get("symbol") if isinstance(row, dict) else None
            reason = f"{str(named)[:40]}: {error}"
            count_unknown(f"{rows.name}.(unreadable)")
        else:
            kept.append(row)
    return {**document, "list": kept}, reason


def _time_of(reply: Reply) -> int:
    sent = str(cast("Any", reply.header.get("Timenow", "")))
    return int(sent) if sent.isascii() and sent.isdigit() and len(sent) <= 16 else 0
