"""What the exchange does to positions without an order of theirs: modes, funding, liquidation, settlement."""

from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from typing import Any, Final

from bot.core.types import Side
from bot.exchange.local.account import CROSS, ISOLATED, Account, Entry, Holding
from bot.exchange.local.admission import check_tradable, require_index
from bot.exchange.local.contract import CLOSED
from bot.exchange.local.engine import Engine
from bot.exchange.local.market import Market, Print
from bot.exchange.local.orders import FILLED, IOC, MARKET, Order, Refused
from bot.exchange.local.position import SMALLEST_CASH, ZERO
from bot.exchange.local.terms import PARAMS, choice, number, text, whole, wrong

LEVERAGE_STEP: Final = Decimal("0.01")
MARGIN_STEP: Final = Decimal("0.0001")  # of what is added to an isolated position
BEFORE_LIQUIDATION: Final = "CancelAllBeforeLiq"
BY_SETTLEMENT: Final = "CancelBySettle"


class Clearing:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- modes --------------------------------------------------------------------------------------------

    def set_leverage(self, account: Account, body: Mapping[str, Any], now: int) -> None:
        """Raises Refused; 110043 when nothing changes."""
        market = self._engine.market(text(body, "symbol"))
        check_tradable(market)
        buy, sell = number(body, "buyLeverage"), number(body, "sellLeverage")
        if buy is None or sell is None:
            raise wrong("buyLeverage and sellLeverage are required")
        if market.symbol not in account.hedged and buy != sell:
            raise wrong("buy leverage and sell leverage must be equal in one-way mode")
        for leverage in (buy, sell):
            if leverage < 1 or leverage % LEVERAGE_STEP:
                raise wrong("leverage invalid")
            if leverage > market.contract.max_leverage:
                raise Refused(110013, "cannot set leverage gt maxLeverage by risk limit")
        if (account.leverage_of(market.symbol, 1), account.leverage_of(market.symbol, 2)) == (buy, sell):
            raise Refused(110043, "leverage not modified")
        self._require_cover(account, market, buy, sell)
        account.leverage[market.symbol] = buy, sell
        for index, leverage in ((0, buy), (1, buy), (2, sell)):
            holding = account.holdings.get((market.symbol, index))
            if holding is not None:
                holding.leverage, holding.updated = leverage, now
                account.touch(holding)

    def _require_cover(self, account: Account, market: Market, buy: Decimal, sell: Decimal) -> None:
        """Lower leverage needs more margin; the tier of the position allows only so much leverage."""
        extra = ZERO
        for index, leverage in ((0, buy), (1, buy), (2, sell)):
            holding = account.holdings.get((market.symbol, index))
            if holding is None:
                continue
            if holding.qty and leverage > holding.tier.max_leverage:
                raise Refused(110013, "cannot set leverage gt maxLeverage by risk limit")
            before, old = holding.initial_margin + holding.order_margin, holding.leverage
            holding.leverage = leverage
            extra += holding.initial_margin + holding.order_margin - before
            holding.leverage = old
        if extra > 0 and extra > account.available:
            raise Refused(110044, "Available margin is insufficient")

    def switch_mode(self, account: Account, body: Mapping[str, Any]) -> None:
        """One-way (0) or hedge (3), for a symbol or for all of a coin. Raises Refused."""
        mode = whole(body, "mode", -1)
        if mode not in (0, 3):
            raise wrong("mode invalid")
        symbol = text(body, "symbol")
        if symbol:
            symbols = [self._engine.market(symbol).symbol]
        elif text(body, "coin") == "USDT":
            symbols = list(self._engine.markets)
        else:
            raise wrong("symbol or coin is required")
        wanted = [name for name in symbols if (name in account.hedged) != (mode == 3)]
        if not wanted:
            raise Refused(110025, "Position mode is not modified")
        for name in wanted:
            if any(holding.qty for (owner, _), holding in account.holdings.items() if owner == name):
                raise Refused(110024, "You have an existing position, so the mode cannot be switched")
            if any(order.symbol == name for order in account.open_orders.values()):
                raise Refused(110028, "You have existing orders, so the mode cannot be switched")
        for name in wanted:
            (account.hedged.add if mode == 3 else account.hedged.discard)(name)

    def set_margin_mode(self, account: Account, body: Mapping[str, Any], now: int) -> None:
        mode = choice(body, "setMarginMode", (CROSS, ISOLATED, "PORTFOLIO_MARGIN"))
        if mode == "PORTFOLIO_MARGIN":
            raise Refused(PARAMS, "portfolio margin is not available here")
        if account.held() or account.open_orders:
            raise Refused(110024, "You have existing positions or orders, so the mode cannot be switched")
        account.margin_mode, account.updated = mode, now

    def add_margin(self, account: Account, body: Mapping[str, Any], now: int) -> Holding:
        """To an isolated position, or from it ("-10"), down to what its leverage asks for. Raises Refused."""
        holding = self._isolated(account, body)
        try:
            margin = Decimal(text(body, "margin"))
        except InvalidOperation:
            raise wrong("margin invalid") from None
        if not margin.is_finite() or not margin or margin % MARGIN_STEP:
            raise wrong("margin invalid")
        if not holding.qty:
            raise Refused(110034, "There is no net position")
        if margin > account.available:
            raise Refused(110044, "Available margin is insufficient")
        if margin < -holding.added:
            raise Refused(110015, "The margin that you want to reduce is more than what has been added")
        holding.added += margin
        holding.updated = now
        account.touch(holding)
        return holding

    def set_auto_add_margin(self, account: Account, body: Mapping[str, Any], now: int) -> None:
        """Raises Refused."""
        holding = self._isolated(account, body)
        holding.adds_margin = choice(body, "autoAddMargin", ("0", "1")) == "1"
        holding.updated = now
        account.touch(holding)

    def _isolated(self, account: Account, body: Mapping[str, Any]) -> Holding:
        market = self._engine.market(text(body, "symbol"))
        index = require_index(account, market, whole(body, "positionIdx"))
        if account.margin_mode != ISOLATED:
            raise wrong("only an isolated position has a margin of its own")
        return account.holding(market.contract, index)

    # --- funding ------------------------------------------------------------------------------------------

    def pay_funding(self, market: Market, rate: Decimal, now: int) -> None:
        """Position value at mark x rate; longs pay shorts when the rate is positive."""
        engine = self._engine
        engine.now = max(engine.now, now)
        for account, holding in self._holdings(market):
            amount = (holding.qty * holding.mark * rate).quantize(SMALLEST_CASH, ROUND_CEILING)
            engine.seq += 1
            holding.realised -= amount
            holding.session_realised -= amount
            account.realised -= amount
            account.wallet -= amount
            engine.record_funding(holding, market, amount, rate)
            account.touch(holding)

    def _holdings(self, market: Market) -> list[tuple[Account, Holding]]:
        return [
            (account, holding)
            for account in self._engine.accounts
            for holding in account.held()
            if holding.contract is market.contract
        ]

    # --- liquidation --------------------------------------------------------------------------------------

    def liquidate(self, now: int) -> None:
        """Take over what the mark price has ruined. Call it after the mark prices have moved."""
        self._engine.now = max(self._engine.now, now)
        for account in self._engine.accounts:
            if account.margin_mode == ISOLATED:
                self._liquidate_isolated(account)
            else:
                self._liquidate_cross(account)

    def _liquidate_isolated(self, account: Account) -> None:
        for holding in account.held():
            sign = 1 if holding.qty > 0 else -1
            missing = (holding.isolated_liquidation_price() - holding.mark) * sign
            if missing >= 0 and holding.adds_margin and account.available > 0:
                holding.added += min(account.available, abs(holding.qty) * missing + MARGIN_STEP)
                account.touch(holding)
                missing = (holding.isolated_liquidation_price() - holding.mark) * sign
            if missing >= 0:
                self._cancel_all(account, holding, BEFORE_LIQUIDATION)
                self._take_over(account, holding, holding.bankruptcy_price)

    def _liquidate_cross(self, account: Account) -> None:
        """The largest position first, at the price that leaves nothing; until the account is safe."""
        while (held := account.held()) and account.equity <= account.maintenance_margin:
            for holding in list(account.holdings.values()):
                self._cancel_all(account, holding, BEFORE_LIQUIDATION)
            worst = max(held, key=lambda holding: holding.maintenance_margin)
            size, sign = abs(worst.qty), (1 if worst.qty > 0 else -1)
            fee = worst.contract.taker_fee
            # equity + sign x size x (price - mark) - size x price x fee = 0
            price = (sign * worst.mark - account.equity / size) / (sign - fee)
            self._take_over(account, worst, price)

    def _cancel_all(self, account: Account, holding: Holding, reason: str) -> None:
        for order in list(account.open_orders.values()):
            if order.contract is holding.contract and order.index == holding.index:
                self._engine.end(order, cancel_type=reason)

    def _take_over(self, account: Account, holding: Holding, price: Decimal) -> None:
        """The exchange closes the position at its bankruptcy price; it bears what the wallet cannot."""
        contract = holding.contract
        rounding = ROUND_CEILING if holding.qty > 0 else ROUND_FLOOR  # in favour of the account
        ticks = max(1, int((price / contract.tick).to_integral_value(rounding)))
        market = self._engine.markets[contract.symbol]
        market.liquidations.append(
            (self._engine.now, Side.BUY if holding.qty > 0 else Side.SELL, holding.lots, ticks)
        )
        self._force(account, holding, market, ticks, "CreateByTakeOver_PassThrough", "BustTrade")
        if account.wallet < 0 and not account.held():
            account.book(Entry(self._engine.now, "BONUS", -account.wallet, ZERO))

    def _force(
        self, account: Account, holding: Holding, market: Market, ticks: int, create_type: str, kind: str
    ) -> None:
        """Close a position outside the book."""
        engine = self._engine
        side = Side.SELL if holding.qty > 0 else Side.BUY
        order = Order(
            number=engine.next_number(),
            id=engine.new_id(),
            account=account,
            contract=holding.contract,
            side=side,
            type=MARKET,
            time_in_force=IOC,
            qty=holding.lots,
            price=ticks,
            created=engine.now,
            updated=engine.now,
            index=holding.index,
            reduce_only=True,
            create_type=create_type,
        )
        account.admit(order)
        engine.seq += 1
        trade = Print(engine.now, side, ticks, order.qty, engine.new_id(), engine.seq)
        order.executed, order.leaves, order.value = order.qty, 0, order.qty * ticks
        order.status = FILLED
        rate = ZERO if kind == "Settle" else holding.contract.taker_fee
        engine.settle_trade(order, holding, market, trade, rate, is_maker=False, kind=kind)
        account.finish(order)
        engine.tell(order)
        engine.after_position(holding)

    # --- the end of a contract ----------------------------------------------------------------------------

    def close_market(self, market: Market, now: int, price: int | None = None, kind: str = "Settle") -> None:
        """A delisted contract: orders are cancelled and positions are settled, the book is emptied.

        At the mark price and without a fee, unless `price` (ticks) or another `kind` of execution is given.
        """
        engine = self._engine
        engine.now = max(engine.now, now)
        for account in engine.accounts:
            for order in list(account.open_orders.values()):
                if order.contract is market.contract:
                    engine.end(order, cancel_type=BY_SETTLEMENT)
        for account, holding in self._holdings(market):
            self._force(account, holding, market, price or market.mark, "CreateBySettle", kind)
        market.contract.status = CLOSED
        for half in (market.book.buys, market.book.sells):
            for level in list(half.best_first()):
                for quote in list(level.orders.values()):
                    market.book.remove(quote)

    def liquidation_price(self, account: Account, holding: Holding) -> Decimal | None:
        """At which mark price this position would be taken over, the other positions as they are."""
        if not holding.qty:
            return None
        if account.margin_mode == ISOLATED:
            return holding.isolated_liquidation_price()
        size, sign, tier = abs(holding.qty), (1 if holding.qty > 0 else -1), holding.tier
        others = account.maintenance_margin - holding.maintenance_margin
        # equity + sign x size x (p - mark) = others + size x p x MMR - deduction + fee to close
        constant = (
            account.equity - sign * size * holding.mark - others + tier.deduction - holding.fee_to_close
        )
        price = constant / (size * (tier.maintenance - sign))
        return price if price > 0 else None
