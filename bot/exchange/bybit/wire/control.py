"""Requests to the streams and the exchange's replies to them.

Data streams and order entry spell the same things differently (req_id and reqId, success and retCode).
"""

from typing import Any, ClassVar

import msgspec
from msgspec import field

from bot.exchange.bybit.wire.codec import Wire


class Request(Wire, frozen=True, rename=None):
    """What a client sends; kept here so that both ends of a connection share one vocabulary.

    {"op": "subscribe", "req_id": "7", "args": ["orderbook.50.BTCUSDT", "publicTrade.BTCUSDT"]}
    {"op": "order.create", "reqId": "8", "header": {"X-BAPI-TIMESTAMP": "1711001595207"}, "args": [{...}]}
    """

    op: str
    args: list[Any] = field(default_factory=list)
    stream_id: str | int = field(name="req_id", default="")
    trade_id: str | int = field(name="reqId", default="")
    header: dict[str, Any] = field(default_factory=dict)

    @property
    def request_id(self) -> str:
        return str(self.stream_id or self.trade_id)


class Reply(Wire, frozen=True, rename=None):
    """Every reply to `auth`, `subscribe`, `unsubscribe`, `ping` and the order operations.

    {"success": true, "ret_msg": "", "conn_id": "3cd84cb1", "req_id": "7", "op": "subscribe"}
    {"req_id": "8", "op": "pong", "args": ["1675418560633"], "conn_id": "cfcb4ocsvfriu23r3er0-1b"}
    {"reqId": "9", "retCode": 0, "retMsg": "OK", "op": "order.create", "data": {"orderId": "a4c1718e"},
     "retExtInfo": {}, "header": {"X-Bapi-Limit-Status": "9"}, "connId": "cnt5leec0hvan15eukcg-2v"}
    """

    unused: ClassVar[frozenset[str]] = frozenset({"conn_id", "connId"})
    op: str = ""
    type: str = ""
    success: bool | None = None
    code: int | None = field(name="retCode", default=None)
    stream_text: str = field(name="ret_msg", default="")
    trade_text: str = field(name="retMsg", default="")
    stream_id: str | int = field(name="req_id", default="")
    trade_id: str | int = field(name="reqId", default="")
    args: list[Any] = field(default_factory=list)
    data: Any = None
    extra: Any = field(name="retExtInfo", default=None)
    header: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        if self.is_pong:
            return True
        return self.success is not False and not self.code and not self.rejected_topics

    @property
    def text(self) -> str:
        return self.stream_text or self.trade_text

    @property
    def request_id(self) -> str:
        return str(self.stream_id or self.trade_id)

    @property
    def is_pong(self) -> bool:
        return self.op == "pong" or self.stream_text == "pong"

    @property
    def rejected_topics(self) -> list[str]:
        """Options answer {"type": "COMMAND_RESP", "data": {"failTopics": [], "successTopics": [...]}}."""
        topics = self.data.get("failTopics") if isinstance(self.data, dict) else None
        return [str(topic) for topic in topics] if isinstance(topics, list) else []


class Head(msgspec.Struct, frozen=True, gc=False):
    """Just enough of a frame to know what it is."""

    topic: str = ""
    op: str = ""
    type: str = ""
    success: bool | None = None
    code: int | None = field(name="retCode", default=None)

    @property
    def is_reply(self) -> bool:
        return (
            self.success is not None
            or self.code is not None
            or self.op == "pong"
            or self.type == "COMMAND_RESP"
        )
