"""Small valid objects that tests vary."""

from decimal import Decimal

from bot.core.events import BarClosed, InstrumentListed, OrderFilled
from bot.core.signal import Action, Signal
from bot.core.types import MINUTE_MS, FillOrigin, Instrument, Side, Stage

START = 1_735_689_600_000  # 2025-01-01 00:00 UTC
BAR = 15 * MINUTE_MS


def instrument(symbol: str = "NEWUSDT", *, tick_size: str = "0.01", qty_step: str = "0.1") -> Instrument:
    return Instrument(
        symbol=symbol,
        tick_size=Decimal(tick_size),
        qty_step=Decimal(qty_step),
        min_qty=Decimal(qty_step),
        max_qty=Decimal(1_000_000),
        max_market_qty=Decimal(500_000),
        min_notional=Decimal(5),
        launch_time=START,
    )


def listed(symbol: str = "NEWUSDT", ts: int = START) -> InstrumentListed:
    return InstrumentListed(ts, ts, instrument(symbol))


def bar(
    index: int, price: float, symbol: str = "NEWUSDT", *, high: float | None = None, low: float | None = None,
    opened: float | None = None, volume: float = 1e6, interval: int = BAR,
) -> BarClosed:  # fmt: skip
    start = START + index * interval
    opened = price if opened is None else opened
    top = max(opened, price) if high is None else high
    bottom = min(opened, price) if low is None else low
    end = start + interval
    return BarClosed(end, end, symbol, start, interval, opened, top, bottom, price, volume, volume * price)


def enter(
    index: int = 0, side: Side = Side.BUY, price: float = 100.0, symbol: str = "NEWUSDT", **changes: object
) -> Signal:
    values: dict[str, object] = {
        "ts": START + (index + 1) * BAR, "symbol": symbol, "action": Action.ENTER, "side": side,
        "bar_start": START + index * BAR, "price": price, "stage": Stage.FULL, "p_up": 0.8, "confidence": 0.8,
        "similarity": 1.0, "sigma": 0.004, "expected_move": 0.02, "horizon_bars": 8,
    }  # fmt: skip
    return Signal(**{**values, **changes})  # type: ignore[arg-type]


def fill(
    side: Side,
    qty: str,
    price: str,
    *,
    fee: str = "0",
    ts: int = START,
    symbol: str = "NEWUSDT",
    exec_id: str = "x",
) -> OrderFilled:
    return OrderFilled(
        ts, ts, exec_id, "", symbol, side, Decimal(price), Decimal(qty), Decimal(fee), Decimal(0), False,
        FillOrigin.ORDER,
    )  # fmt: skip
