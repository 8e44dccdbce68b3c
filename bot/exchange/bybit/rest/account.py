"""The account: wallet, positions, fees, modes, the key itself."""

from decimal import Decimal

from bot.exchange.bybit import endpoints
from bot.exchange.bybit.requests import Params
from bot.exchange.bybit.rest.paging import pages
from bot.exchange.bybit.rest.transport import Transport
from bot.exchange.bybit.wire.account import AccountInfo, ApiKey, ClosedPnl, FeeRate, Transaction
from bot.exchange.bybit.wire.private import Position, Wallet


class AccountRest:
    """Every method raises ExchangeError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._call = transport.call

    async def wallet(self, coin: str | None = None) -> Wallet:
        response = await self._call(endpoints.WALLET, {"accountType": "UNIFIED", "coin": coin})
        wallet: Wallet = response.value.accounts[0] if response.value.accounts else Wallet(coin=[])
        return wallet

    async def positions(
        self, symbol: str | None = None, settle_coin: str = "USDT", category: str = "linear"
    ) -> list[Position]:
        """By symbol (also when flat), or all open ones that settle in this coin."""
        query: Params = {"category": category, "symbol": symbol}
        if symbol is None:
            query |= {"settleCoin": settle_coin, "limit": 200}
        found: list[Position] = []
        async for page in pages(self._transport, endpoints.POSITIONS, query):
            found += page.value.positions
        return found

    async def info(self) -> AccountInfo:
        info: AccountInfo = (await self._call(endpoints.ACCOUNT)).value
        return info

    async def key(self) -> ApiKey:
        """What the key in use may do."""
        key: ApiKey = (await self._call(endpoints.KEY)).value
        return key

    async def fee_rates(self, symbol: str | None = None, category: str = "linear") -> list[FeeRate]:
        response = await self._call(endpoints.FEES, {"category": category, "symbol": symbol})
        rates: list[FeeRate] = response.value.rates
        return rates

    async def transactions(self, start: int, end: int, category: str | None = None) -> list[Transaction]:
        """The ledger within [start, end] (ms, at most 7 days), newest first."""
        query: Params = {
            "accountType": "UNIFIED", "category": category, "startTime": start, "endTime": end, "limit": 50,
        }  # fmt: skip
        found: list[Transaction] = []
        async for page in pages(self._transport, endpoints.LEDGER, query):
            found += page.value.transactions
        return found

    async def closed_pnl(self, start: int, end: int, symbol: str | None = None) -> list[ClosedPnl]:
        """Closed positions within [start, end] (ms, at most 7 days), newest first."""
        query: Params = {
            "category": "linear", "symbol": symbol, "startTime": start, "endTime": end, "limit": 100,
        }  # fmt: skip
        found: list[ClosedPnl] = []
        async for page in pages(self._transport, endpoints.CLOSED_PNL, query):
            found += page.value.closed
        return found

    async def set_leverage(self, symbol: str, leverage: Decimal, category: str = "linear") -> None:
        """For both sides. Leverage that is so already counts as success."""
        query: Params = {
            "category": category, "symbol": symbol, "buyLeverage": leverage, "sellLeverage": leverage,
        }  # fmt: skip
        await self._call(endpoints.LEVERAGE, query)

    async def set_position_mode(
        self, *, hedge: bool, symbol: str | None = None, coin: str | None = None
    ) -> None:
        """One-way or hedge, for a symbol or all of a settle coin. Refused while positions or orders exist."""
        query: Params = {"category": "linear", "symbol": symbol, "coin": coin, "mode": 3 if hedge else 0}
        await self._call(endpoints.POSITION_MODE, query)

    async def set_margin_mode(self, mode: str) -> None:
        """ISOLATED_MARGIN, REGULAR_MARGIN (cross) or PORTFOLIO_MARGIN, for the whole account."""
        await self._call(endpoints.MARGIN_MODE, {"setMarginMode": mode})
