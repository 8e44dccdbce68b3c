"""What must be true of an account before orders leave: its modes, its leverage, its fees.

An account in hedge mode refuses our orders or opens a second position beside the one that we know. What a
person set is never changed under a position, and modes only where the configuration allows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal

from bot.core.errors import UsageError
from bot.exchange.bybit.errors import ExchangeError, Kind, Ruling
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.transfers import SETTLE

MarginMode = Literal["cross", "isolated"]
_MARGIN_MODES: Final = {"cross": "REGULAR_MARGIN", "isolated": "ISOLATED_MARGIN"}
_CLASSIC: Final = 1  # unifiedMarginStatus
_NOT_OFFERED: Final = 10032  # demo trading has no fee rates
_FEE_TOLERANCE: Final = 0.1  # of the configured fee
_OTHERS: Final = Ruling(Kind.REFUSED, "somebody else is there: its leverage is left as it is")


@dataclass(slots=True)
class Preparation:
    """may_switch: modes may be changed while nothing is held or ordered. probe: any symbol, to ask for modes.

    taker_fee: what the settings say, a fraction of the value. owners: whose a symbol is; one that somebody
    else holds is not touched. fees: what `account` found that it pays (taker, maker), None where the exchange
    does not say.
    """

    rest: Rest
    probe: str
    leverage: Decimal
    margin_mode: MarginMode
    taker_fee: float
    may_switch: bool
    owners: Ownership = field(default_factory=Ownership)
    fees: tuple[float, float] | None = None
    _prepared: set[str] = field(default_factory=set)

    async def account(self) -> list[str]:
        """Before anything is read of it; what a person should know.

        Raises ExchangeError, and UsageError that says what to change.
        """
        info = await self.rest.account.info()
        if info.unified_margin_status == _CLASSIC:
            raise UsageError("the account is not a Unified Trading Account: upgrade it on the Bybit site")
        told = []
        wanted = _MARGIN_MODES[self.margin_mode]
        if info.margin_mode != wanted:
            await self._require_switch(
                f"the account's margin mode is {info.margin_mode}, not {wanted}",
                "set it on the Bybit site, set `bybit.margin_mode`",
            )
            await self.rest.account.set_margin_mode(wanted)
            told.append(f"the margin mode was {info.margin_mode} and is {wanted} now")
        held = await self.rest.account.positions()
        asked = await self.rest.account.positions(symbol=self.probe)
        if hedged := sorted({item.symbol for item in (*held, *asked) if item.position_idx}):
            await self._require_switch(*_hedge(hedged))
            await self.rest.account.set_position_mode(hedge=False, coin=SETTLE)
            told.append("the position mode was hedge and is one-way now")
        return told + await self._ask_fees()

    async def symbols(self, names: Sequence[str]) -> list[str]:
        """Each symbol that may be traded; what could not be set, in words. Raises as `symbol` does."""
        told = []
        for name in names:
            try:
                await self.symbol(name)
            except ExchangeError as error:
                if error.kind is not Kind.REFUSED:
                    raise
                told.append(f"{name} is not ready for entries: {error}")
        return told

    async def symbol(self, name: str) -> None:
        """Before its first entry: one-way mode and our leverage; the second time nothing.

        Raises UsageError in hedge mode; ExchangeError, whose kind is never UNKNOWN: it may be tried again; it
        is REFUSED where somebody else holds the symbol.
        """
        if name in self._prepared:
            return
        try:
            found = await self.rest.account.positions(symbol=name)
            if any(item.position_idx for item in found):
                raise UsageError("; ".join(_hedge([name])))
            if any(item.size for item in found) and not self.owners.holds(name):
                raise ExchangeError(_OTHERS, path="/v5/position/list")
            if any(item.leverage != self.leverage for item in found) or not found:
                if not self.owners.holds(name):
                    orders = await self.rest.orders.open_orders(symbol=name)
                    if any(self.owners.is_another(order.order_link_id) for order in orders):
                        raise ExchangeError(_OTHERS, path="/v5/order/realtime")
                await self.rest.account.set_leverage(name, self.leverage)
        except ExchangeError as error:
            if error.kind is Kind.UNKNOWN:
                again = Ruling(Kind.RETRY, error.reason)
                raise ExchangeError(again, path=error.path, code=error.code, text=error.text) from error
            raise
        self._prepared.add(name)

    async def _require_switch(self, what: str, advice: str) -> None:
        if not self.may_switch:
            raise UsageError(f"{what}: {advice}, or allow it with `bybit.may_switch_modes = true`")
        held = await self.rest.account.positions()
        orders = await self.rest.orders.open_orders(settle_coin=SETTLE)
        if held or orders:
            symbols = sorted({item.symbol for item in held} | {item.symbol for item in orders})
            raise UsageError(f"{what}, and cannot be changed before {', '.join(symbols)} is flat: {advice}")

    async def _ask_fees(self) -> list[str]:
        try:
            rates = await self.rest.account.fee_rates(symbol=self.probe)
        except ExchangeError as error:
            if error.code == _NOT_OFFERED:
                return []
            raise
        if not rates:
            return []
        taker, maker = (
            max(float(rate.taker_fee_rate) for rate in rates),
            max(float(rate.maker_fee_rate) for rate in rates),
        )
        self.fees = taker, maker
        if abs(taker - self.taker_fee) <= _FEE_TOLERANCE * self.taker_fee:
            return []
        return [
            f"the account's taker fee is {taker:.4%}, not {self.taker_fee:.4%} as `costs.taker_fee` says; "
            "this run reckons with it"
        ]


def _hedge(symbols: Sequence[str]) -> tuple[str, str]:
    return f"{', '.join(symbols)} in hedge mode", "switch the account to one-way mode on the Bybit site"
