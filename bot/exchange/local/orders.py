"""An order inside the exchange, from the door to its end."""

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from bot.core.types import Side
from bot.exchange.local.contract import Contract

if TYPE_CHECKING:
    from bot.exchange.local.account import Account, Holding
    from bot.exchange.local.market import Print

MARKET: Final = "Market"
LIMIT: Final = "Limit"
GTC, IOC, FOK, POST_ONLY = "GTC", "IOC", "FOK", "PostOnly"
TIMES_IN_FORCE: Final = (GTC, IOC, FOK, POST_ONLY)
LAST_PRICE, MARK_PRICE, INDEX_PRICE = "LastPrice", "MarkPrice", "IndexPrice"
RISES, FALLS = 1, 2  # trigger directions

NEW, PARTIALLY_FILLED, FILLED, CANCELLED = "New", "PartiallyFilled", "Filled", "Cancelled"
UNTRIGGERED, TRIGGERED, DEACTIVATED = "Untriggered", "Triggered", "Deactivated"
OPEN: Final = frozenset({NEW, PARTIALLY_FILLED, UNTRIGGERED})

NO_ERROR: Final = "EC_NoError"
NO_FULL_FILL: Final = "EC_CancelForNoFullFill"
NO_MARGIN: Final = "EC_NoEnoughBalance"
NO_LIQUIDITY: Final = "EC_NoImmediateQtyToFill"
WOULD_TAKE: Final = "EC_PostOnlyWillTakeLiquidity"


class Refused(Exception):
    """The exchange's answer to a request that it does not take."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


@dataclass(slots=True, kw_only=True, frozen=True)
class Protection:
    """Take profit and stop loss that an order carries to its position. 0: none. Prices in ticks."""

    take_profit: int = 0
    stop_loss: int = 0
    tp_by: str = LAST_PRICE
    sl_by: str = LAST_PRICE
    mode: str = "Full"
    tp_limit: int = 0  # of a limit take profit (Partial mode); 0: market
    sl_limit: int = 0

    def __bool__(self) -> bool:
        return bool(self.take_profit or self.stop_loss)


UNPROTECTED: Final = Protection()


@dataclass(slots=True, kw_only=True, eq=False)
class Order:
    """Prices in ticks, quantities in lots, `value` in ticks x lots. `price` of a market order: its bound."""

    number: int
    id: str
    account: "Account"
    contract: Contract
    side: Side
    type: str
    time_in_force: str
    qty: int
    price: int
    created: int  # ms UTC
    link_id: str = ""
    index: int = 0  # positionIdx
    reduce_only: bool = False
    close_on_trigger: bool = False
    trigger_price: int = 0
    trigger_direction: int = 0
    trigger_by: str = ""
    protection: Protection = UNPROTECTED
    smp: str = "None"
    slippage: tuple[str, Decimal] | None = None  # how far a market order may walk
    stop_type: str = ""  # stopOrderType
    create_type: str = "CreateByUser"
    parent: str = ""  # link id of the order whose fill made this one
    last_on_created: int = 0
    leaves: int = 0
    executed: int = 0
    value: int = 0
    fee: Decimal = Decimal(0)
    status: str = NEW
    cancel_type: str = "UNKNOWN"
    reject_reason: str = NO_ERROR
    updated: int = 0
    holding: "Holding | None" = None  # that its fills change, once it has been looked up
    is_booked: bool = False  # rests in the book
    is_reserved: bool = False  # counted in the holding's open orders
    pair: "Order | None" = None  # the other leg of a partial take profit and stop loss
    extreme: int = 0  # of a trailing stop: the best price since it is active
    distance: int = 0

    @property
    def symbol(self) -> str:
        return self.contract.symbol

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    @property
    def is_conditional(self) -> bool:
        return self.trigger_price > 0 or self.distance > 0


class Execution(NamedTuple):
    """One account's side of a trade. Money in quote coin, `closed` (of the position) in base coin."""

    order: Order
    holding: "Holding"
    trade: "Print"
    fee: Decimal
    rate: Decimal
    entry: Decimal  # average price of the position before
    closed: Decimal
    realised: Decimal
    fees: tuple[Decimal, Decimal]  # of what was closed: to open it, and to close it
    is_maker: bool
    kind: str  # execType
