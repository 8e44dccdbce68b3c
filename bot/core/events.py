"""Facts, in the past tense. Exchange and receipt time, `ts` and `received` (ms UTC), are the only clock."""

from decimal import Decimal
from typing import Final

import msgspec

from bot.core.types import Feed, FillOrigin, Instrument, Side, TradingStatus, Verb


class Event(msgspec.Struct, frozen=True, tag=True):
    ts: int
    received: int


# --- market -----------------------------------------------------------------------------------------------


class BarClosed(Event, frozen=True, gc=False):
    """One confirmed bar of `interval` ms that opened at `start`; `ts` is its close, `start + interval`.

    `volume` is in base coin, `turnover` in quote coin (NaN when the source has none).
    """

    symbol: str
    start: int
    interval: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    turnover: float


class InstrumentListed(Event, frozen=True):
    instrument: Instrument


class InstrumentDelisted(Event, frozen=True):
    """A symbol is followed no more: it ends, or its place goes to another. What is held of it is sold."""

    symbol: str
    reason: str = "delisted"


class TokenLeftOut(Event, frozen=True):
    """A new token is not followed, and why; with an empty reason nothing is against it any more."""

    symbol: str
    reason: str


class FundingRatePublished(Event, frozen=True):
    """The rate settled at `ts`: a long position pays `rate` of its notional, a short one receives it."""

    symbol: str
    rate: float


class InstrumentStatusChanged(Event, frozen=True):
    symbol: str
    status: TradingStatus


class Traded(Event, frozen=True, gc=False):
    """A trade of the market at `ts`. `side` is the taker's, `size` in base coin."""

    symbol: str
    side: Side
    price: float
    size: float


class TickerChanged(Event, frozen=True, gc=False):
    """News of a ticker: None has not changed, NaN has no value now. A snapshot knows nothing older.

    `funding_rate` is the one that will be settled at `next_funding_time` (ms); `open_interest` is in base
    coin, `turnover_24h` in quote coin.
    """

    symbol: str
    is_snapshot: bool
    last_price: float | None = None
    mark_price: float | None = None
    index_price: float | None = None
    funding_rate: float | None = None
    next_funding_time: int | None = None
    open_interest: float | None = None
    turnover_24h: float | None = None


class FeedChanged(Event, frozen=True):
    """Every message of a feed is heard from `ts` on (subscribed), or else some may be lost (disconnected)."""

    symbol: str
    feed: Feed
    alive: bool


class MicrostructureSampled(Event, frozen=True, gc=False):
    """Book and trades during the decision bar that opened at `start`; `ts` is its close. NaN = unknown.

    Means over the bar of the spread (bps of mid), the imbalances of 5, 10 and 50 levels (-1 to 1) and the
    distance of the microprice from mid (bps). `ofi`: order-flow imbalance of the whole bar, base coin.
    `trade_imbalance`: (bought - sold) / both by takers, -1 to 1. `large_share`: of turnover, in large trades.
    """

    symbol: str
    start: int
    spread_bps: float
    imbalance_5: float
    imbalance_10: float
    imbalance_50: float
    microprice_bps: float
    ofi: float
    trade_imbalance: float
    large_share: float


class FeedRefused(Event, frozen=True):
    """The exchange does not give us a feed of this symbol: it is not traded by this run any more."""

    symbol: str
    reason: str


class FramesUnreadable(Event, frozen=True):
    """Messages of the market that could not be understood, since the last fact of this kind."""

    count: int
    reason: str  # of the last one


class LiquiditySampled(Event, frozen=True, gc=False):
    """How well a symbol trades, at the close of the decision bar that opened at `start`. NaN = unknown.

    Means over the bar of the spread (bps of mid) and of the notional within 10 bps of mid on either side;
    `mid_price` as the book stands at the close. The rest is as its ticker says; units as in TickerChanged
    (`next_funding_time` 0 = unknown).
    """

    symbol: str
    start: int
    spread_bps: float
    bid_depth: float
    ask_depth: float
    mid_price: float
    turnover_24h: float
    last_price: float
    mark_price: float
    index_price: float
    open_interest: float
    next_funding_rate: float
    next_funding_time: int


class MarketHealthChanged(Event, frozen=True):
    """What is wrong with our view of a symbol from `ts` on; no fault means that it can be relied upon."""

    symbol: str
    faults: tuple[str, ...]


class MarketHealthMeasured(Event, frozen=True, gc=False):
    """Once a minute, for people: how our view of a symbol fared.

    `ages`: ms since each feed was heard, None = not since it was subscribed. The counts are of the whole run:
    `book_losses` by holes, crossings, disorder or too many levels; `resyncs` new snapshots asked for;
    `refused` messages that were not understood; `bars_lost` that neither the stream nor REST had;
    `trades_lost` impossible, or too late for their bar. `lags`: ms that the newest message took.
    `bars_corrected` came again with other values, `bars_late` after they had been given up.
    """

    symbol: str
    book: str  # "empty", "live", "stale"
    ages: dict[Feed, int | None]
    book_losses: int
    resyncs: int
    audits_passed: int
    audits_failed: int
    audits_skipped: int
    refused: int
    bars_lost: int
    trades_lost: int
    lags: dict[Feed, int] = {}
    bars_corrected: int = 0
    bars_late: int = 0


# --- account ----------------------------------------------------------------------------------------------


class OrderAccepted(Event, frozen=True):
    link_id: str
    order_id: str


class OrderRejected(Event, frozen=True):
    """Refused by the exchange (our own refusals are `Refused`)."""

    link_id: str
    reason: str


class OrderCancelled(Event, frozen=True):
    link_id: str
    reason: str


class OrderFilled(Event, frozen=True):
    """One execution. `link_id` is empty when the exchange made the order (stop loss, take profit).

    `fee` is positive when paid, in quote coin. `leaves_qty` is what the order still wants.
    """

    exec_id: str
    link_id: str
    symbol: str
    side: Side
    price: Decimal
    qty: Decimal
    fee: Decimal
    leaves_qty: Decimal
    is_maker: bool
    origin: FillOrigin


class FundingPaid(Event, frozen=True):
    """Funding booked on our position; `amount` is positive when we paid, in quote coin."""

    exec_id: str
    symbol: str
    amount: Decimal
    rate: float


class StopMoved(Event, frozen=True):
    """The exchange confirms the stop loss of a position; None when the position has none."""

    symbol: str
    stop_loss: Decimal | None


class PositionAdopted(Event, frozen=True):
    """What the exchange says that we hold, where our books did not know: it is right. `qty` is signed.

    `entry` is its average price and is of no account when `qty` is zero.
    """

    symbol: str
    qty: Decimal
    entry: Decimal
    stop_loss: Decimal | None
    reason: str


class OthersHold(Event, frozen=True):
    """What somebody else has in a symbol, which is left alone: a position (`qty` is signed), and so many open
    orders that may add to it. Nothing of either: the symbol is free again."""

    symbol: str
    qty: Decimal
    orders: int

    def __str__(self) -> str:
        held = [f"a position of {self.qty:+f}"] if self.qty else []
        return " and ".join([*held, *([f"{self.orders} open orders"] if self.orders else [])])


class PositionMarked(Event, frozen=True, gc=False):
    """The exchange's mark price of a position that it says we hold: it comes without a bar of its own."""

    symbol: str
    mark: float


class BalanceChanged(Event, frozen=True):
    """Money that came or went without our trading: a deposit, a bonus, what somebody else's position brought.
    `amount` is signed, quote coin.

    parts: it did come by our trading, so much by each symbol ("" for an unknown one), and our books had it
    otherwise: gains and losses, of one moment. until: of what was not ours, the newest line of the exchange's
    ledger that our books now contain, ms.
    """

    amount: Decimal
    reason: str
    parts: tuple[tuple[str, Decimal], ...] = ()
    until: int = 0


HISTORY: Final = "history"  # the cause while the past is played: its bars are not about our account
OPERATOR: Final = "operator"  # the cause that only a person ends, with `bot resume`
PAUSED: Final = "paused"  # the cause that a person asked for, by a pause, a flattening or a kill
RESTART: Final = "restart"  # the cause that only a new run ends


class TimePassed(Event, frozen=True, gc=False):
    """Nothing but time, told once a second where there is a clock: what has waited too long is seen by it."""


class EntriesBlocked(Event, frozen=True):
    """Something is not as it must be for opening positions; exits go on. One reason for each `cause`."""

    cause: str  # "feed", "clock", "account", HISTORY, OPERATOR, RESTART
    reason: str


class EntriesAllowed(Event, frozen=True):
    """`cause` is over. Entries go on when no other is left."""

    cause: str


class OperatorCommanded(Event, frozen=True):
    """A person, or the stop of the process, wants something. `number`: of the stored request, 0 for none."""

    number: int
    verb: Verb
    by: str
    reason: str

    def __str__(self) -> str:
        return f"{self.verb} by {self.by}{f': {self.reason}' if self.reason else ''}"


# --- model ------------------------------------------------------------------------------------------------


class AdaptationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the adaptation child measured. MMD values are multi-kernel MMD², unbiased, on held-out windows."""

    mmd_before: float
    mmd_after: float
    similarity_before: float
    similarity_after: float
    source_accuracy_before: float
    source_accuracy_after: float
    target_labels: float  # effective (uniqueness-weighted) matured labels that were used
    steps: int
    seconds: float  # CPU seconds of the child; informative, never decides
    gain: float = 0.0  # of a chain: nats per label over its rival, on the newest labels of all tokens
    gain_labels: float = 0.0  # effective labels behind `gain`
    gain_error: float = 0.0  # standard error of `gain`, by days
    scratch: str = ""  # model that the same job trained on the token's labels alone; "" with too few of them


class CandidateArrived(Event, frozen=True):
    """An adapted model is ready. It has seen nothing after `cut` (ms, close of the last bar used).

    `symbol` is `commands.CHAIN` for a model from which tokens start.
    """

    symbol: str
    model_id: str
    cut: int
    report: AdaptationReport


class AdaptationFailed(Event, frozen=True):
    symbol: str
    cut: int
    reason: str
