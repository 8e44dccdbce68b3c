"""What is traded: one linear perpetual with its filters, its risk tiers, and its grid.

Inside the core a price is an integer number of ticks and a quantity an integer number of steps ("lots");
money is Decimal. This module is where the two meet.
"""

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

from bot.core.types import Instrument

PRE_LAUNCH: Final = "PreLaunch"
TRADING: Final = "Trading"
CLOSED: Final = "Closed"
PRICE_LIMIT_X: Final = Decimal("0.05")  # riskParameters of the price limit
PRICE_LIMIT_Y: Final = Decimal("0.1")


class Tier(NamedTuple):
    """Up to `limit` (quote coin) of position value. MM = value x `maintenance` - `deduction`."""

    id: int
    limit: Decimal
    maintenance: Decimal
    initial: Decimal
    max_leverage: Decimal
    deduction: Decimal


def _tiers(*rows: tuple[int, str, int]) -> tuple[Tier, ...]:
    """Deductions make the maintenance margin continuous from one tier to the next."""
    tiers: list[Tier] = []
    for number, (limit, rate, leverage) in enumerate(rows, 1):
        deduction = Decimal(0)
        if tiers:
            last = tiers[-1]
            deduction = last.deduction + last.limit * (Decimal(rate) - last.maintenance)
        tiers.append(
            Tier(number, Decimal(limit), Decimal(rate), Decimal(1) / leverage, Decimal(leverage), deduction)
        )
    return tuple(tiers)


TIERS: Final = _tiers(
    (2_000_000, "0.005", 100), (10_000_000, "0.01", 50), (50_000_000, "0.02", 25), (200_000_000, "0.05", 10)
)


@dataclass
class Contract:
    """One symbol. `status`, `delivery_time` and the instrument's filters may change at run time."""

    instrument: Instrument
    taker_fee: Decimal = Decimal("0.00055")
    maker_fee: Decimal = Decimal("0.0002")
    status: str = TRADING
    delivery_time: int = 0  # ms UTC; 0: no end is announced
    tiers: tuple[Tier, ...] = TIERS

    @cached_property
    def symbol(self) -> str:
        return self.instrument.symbol

    @cached_property
    def tick(self) -> Decimal:
        return self.instrument.tick_size

    @cached_property
    def _tick(self) -> float:
        return float(self.tick)

    @cached_property
    def step(self) -> Decimal:
        return self.instrument.qty_step

    @cached_property
    def unit(self) -> Decimal:
        """Quote coin per tick and lot."""
        return self.tick * self.step

    def change(self, instrument: Instrument) -> None:
        """Other filters of the same symbol. What is counted in ticks and lots of the old grid is not ours."""
        self.instrument = instrument
        for name in ("tick", "_tick", "step", "unit"):
            self.__dict__.pop(name, None)

    @property
    def base_coin(self) -> str:
        return self.symbol.removesuffix("USDT")

    @property
    def max_leverage(self) -> Decimal:
        return self.tiers[0].max_leverage

    def price(self, ticks: int) -> Decimal:
        return self.tick * ticks

    def quantity(self, lots: int) -> Decimal:
        return self.step * lots

    def ticks(self, price: Decimal) -> int | None:
        """None unless the price lies on the grid."""
        return _multiple(price, self.tick)

    def lots(self, qty: Decimal) -> int | None:
        return _multiple(qty, self.step)

    def nearest_ticks(self, price: float) -> int:
        return max(1, round(price / self._tick))

    def price_text(self, ticks: int) -> str:
        return _text(ticks, self.tick)

    def quantity_text(self, lots: int) -> str:
        return _text(lots, self.step)

    def tier(self, value: Decimal) -> Tier:
        for tier in self.tiers:
            if value <= tier.limit:
                return tier
        return self.tiers[-1]


def _multiple(value: Decimal, step: Decimal) -> int | None:
    if not value.is_finite():
        return None
    count = value / step
    whole = int(count)
    return whole if whole == count else None


@lru_cache(maxsize=200_000)
def _text(count: int, step: Decimal) -> str:
    return format((step * count).quantize(step), "f")
