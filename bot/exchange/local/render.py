"""The exchange's objects as Bybit writes them: numbers are texts, an absent one is empty."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from bot.exchange.local.account import CROSS, Account, Entry, Holding
from bot.exchange.local.market import Market, Print
from bot.exchange.local.orders import Execution, Order

_CASH: Final = Decimal("1e-8")


def cash(value: Decimal) -> str:
    """Eight decimals at most, without an exponent or trailing zeros."""
    rounded = format(value.quantize(_CASH, ROUND_HALF_UP), "f")
    return rounded.rstrip("0").rstrip(".") if "." in rounded else rounded


def order_view(order: Order) -> dict[str, Any]:
    """As `order` on the private stream; REST sends the same."""
    contract, terms = order.contract, order.protection
    price = contract.price_text
    leaves = order.leaves if order.is_open else 0
    value = contract.unit * order.value
    return {
        "category": "linear",
        "symbol": contract.symbol,
        "orderId": order.id,
        "orderLinkId": order.link_id,
        "parentOrderLinkId": order.parent,
        "blockTradeId": "",
        "side": order.side.value,
        "positionIdx": order.index,
        "orderStatus": order.status,
        "createType": order.create_type,
        "cancelType": order.cancel_type,
        "rejectReason": order.reject_reason,
        "timeInForce": order.time_in_force,
        "isLeverage": "",
        "price": price(order.price),
        "qty": contract.quantity_text(order.qty),
        "avgPrice": cash(value / contract.quantity(order.executed)) if order.executed else "",
        "leavesQty": contract.quantity_text(leaves),
        "leavesValue": cash(contract.unit * order.price * leaves),
        "cumExecQty": contract.quantity_text(order.executed),
        "cumExecValue": cash(value),
        "cumExecFee": cash(order.fee),
        "cumFeeDetail": {"USDT": cash(order.fee)} if order.executed else {},
        "orderType": order.type,
        "stopOrderType": order.stop_type,
        "orderIv": "",
        "marketUnit": "",
        "triggerPrice": price(order.trigger_price) if order.is_conditional else "",
        "takeProfit": price(terms.take_profit) if terms.take_profit else "",
        "stopLoss": price(terms.stop_loss) if terms.stop_loss else "",
        "tpslMode": _mode(order),
        "ocoTriggerBy": "",
        "tpLimitPrice": price(terms.tp_limit) if terms.tp_limit else "",
        "slLimitPrice": price(terms.sl_limit) if terms.sl_limit else "",
        "tpTriggerBy": terms.tp_by if terms.take_profit else "",
        "slTriggerBy": terms.sl_by if terms.stop_loss else "",
        "triggerDirection": order.trigger_direction,
        "triggerBy": order.trigger_by,
        "lastPriceOnCreated": price(order.last_on_created),
        "basePrice": "",
        "reduceOnly": order.reduce_only,
        "closeOnTrigger": order.close_on_trigger,
        "placeType": "",
        "smpType": order.smp,
        "smpGroup": 0,
        "smpOrderId": "",
        "closedPnl": "0",
        "feeCurrency": "",
        "slippageToleranceType": order.slippage[0] if order.slippage else "UNKNOWN",
        "slippageTolerance": format(order.slippage[1], "f") if order.slippage else "",
        "extraFees": "",
        "rpiTakerAccess": False,
        "rpiMatchedQty": "0",
        "createdTime": str(order.created),
        "updatedTime": str(order.updated),
    }


def _mode(order: Order) -> str:
    if order.stop_type.startswith("Partial"):
        return "Partial"
    if order.protection:
        return order.protection.mode
    return "Full" if order.stop_type in ("TakeProfit", "StopLoss", "TrailingStop") else ""


def execution_view(execution: Execution, market: Market) -> dict[str, Any]:
    order, trade, is_maker = execution.order, execution.trade, execution.is_maker
    contract = order.contract
    return {
        "category": "linear",
        "symbol": contract.symbol,
        "orderId": order.id,
        "orderLinkId": order.link_id,
        "side": order.side.value,
        "orderPrice": contract.price_text(order.price),
        "orderQty": contract.quantity_text(order.qty),
        "leavesQty": contract.quantity_text(order.leaves),
        "createType": order.create_type,
        "orderType": order.type,
        "stopOrderType": order.stop_type or "UNKNOWN",
        "execFee": cash(execution.fee),
        "execFeeV2": "",
        "execId": execution_id(trade, is_maker=execution.is_maker),
        "execPrice": contract.price_text(trade.price),
        "execQty": contract.quantity_text(trade.lots),
        "execPnl": cash(execution.realised),
        "execType": execution.kind,
        "execValue": cash(contract.unit * trade.price * trade.lots),
        "execTime": str(trade.ts),
        "feeCurrency": "USDT",
        "isMaker": is_maker,
        "isLeverage": "0",
        "feeRate": format(execution.rate, "f"),
        "tradeIv": "",
        "markIv": "",
        "markPrice": contract.price_text(market.mark),
        "indexPrice": contract.price_text(market.index),
        "underlyingPrice": "",
        "blockTradeId": "",
        "closedSize": format(execution.closed, "f"),
        "marketUnit": "",
        "extraFees": [],
        "seq": trade.seq,
    }


def funding_view(
    holding: Holding, market: Market, amount: Decimal, rate: Decimal, id_: str, ts: int, seq: int
) -> dict[str, Any]:
    """A funding payment is an execution of no order."""
    contract, side = holding.contract, holding.side
    size = contract.quantity_text(holding.lots)
    return {
        "category": "linear",
        "symbol": contract.symbol,
        "orderId": id_,
        "orderLinkId": "",
        "side": side.value if side else "",
        "orderPrice": "0",
        "orderQty": "0",
        "leavesQty": "0",
        "createType": "",
        "orderType": "UNKNOWN",
        "stopOrderType": "UNKNOWN",
        "execFee": cash(amount),
        "execFeeV2": "",
        "execId": id_,
        "execPrice": contract.price_text(market.mark),
        "execQty": size,
        "execPnl": "0",
        "execType": "Funding",
        "execValue": cash(holding.value),
        "execTime": str(ts),
        "feeCurrency": "USDT",
        "isMaker": False,
        "isLeverage": "0",
        "feeRate": format(rate, "f"),
        "tradeIv": "",
        "markIv": "",
        "markPrice": contract.price_text(market.mark),
        "indexPrice": contract.price_text(market.index),
        "underlyingPrice": "",
        "blockTradeId": "",
        "closedSize": "0",
        "marketUnit": "",
        "extraFees": [],
        "seq": seq,
    }


def execution_id(trade: Print, *, is_maker: bool) -> str:
    """Each of the two parties of a trade has its own."""
    return f"{trade.id[:-1]}{'m' if is_maker else 't'}"


def funding_detail(holding: Holding, market: Market, rate: Decimal, id_: str) -> dict[str, Any]:
    return {
        "symbol": market.symbol,
        "side": holding.side.value if holding.side else "",
        "tradeId": id_,
        "tradePrice": market.contract.price_text(market.mark),
        "category": "linear",
        "qty": market.contract.quantity_text(holding.lots),
        "size": format(holding.qty, "f"),
        "feeRate": format(rate if holding.qty > 0 else -rate, "f"),
    }


def ledger_detail(execution: Execution) -> dict[str, Any]:
    order, trade = execution.order, execution.trade
    contract = order.contract
    return {
        "symbol": contract.symbol,
        "category": "linear",
        "side": order.side.value,
        "orderId": order.id,
        "orderLinkId": order.link_id,
        "tradeId": execution_id(trade, is_maker=execution.is_maker),
        "tradePrice": contract.price_text(trade.price),
        "qty": contract.quantity_text(trade.lots),
        "size": format(execution.holding.qty, "f"),
        "feeRate": format(execution.rate, "f"),
    }


def ledger_view(entry: Entry, number: int) -> dict[str, Any]:
    blank = dict.fromkeys(
        (
            "symbol", "category", "orderId", "orderLinkId", "tradeId", "tradePrice", "qty", "size", "feeRate",
        ),
        "",
    )  # fmt: skip
    return {
        **blank,
        "side": "None",
        **entry.detail,
        "id": str(number),
        "transactionTime": str(entry.ts),
        "type": entry.kind,
        "transSubType": "",
        "currency": "USDT",
        "funding": cash(entry.funding) if entry.kind == "SETTLEMENT" else "",
        "fee": cash(entry.fee),
        "cashFlow": cash(entry.cash_flow),
        "change": cash(entry.change),
        "cashBalance": cash(entry.balance),
        "bonusChange": "",
        "extraFees": "",
    }


def add_closed(account: Account, execution: Execution) -> None:
    """Closed P&L, one line for each order that closes something, less the fees to open and to close it."""
    order, trade, closed = execution.order, execution.trade, execution.closed
    price = order.contract.price(trade.price)
    last = account.closed[-1] if account.closed else None
    if last is None or last["order"] is not order:
        last = {"order": order, "entry": execution.entry, "closed": Decimal(0), "exit": Decimal(0)}
        last |= {"pnl": Decimal(0), "fills": 0, "created": order.created}
        last |= {"leverage": execution.holding.leverage, "kind": execution.kind}
        last |= {"open_fee": Decimal(0), "close_fee": Decimal(0)}
        account.closed.append(last)
    last["closed"] += closed
    last["exit"] += closed * price
    last["pnl"] += execution.realised - sum(execution.fees)
    last["open_fee"] += execution.fees[0]
    last["close_fee"] += execution.fees[1]
    last["fills"] += 1
    last["updated"] = trade.ts


def closed_view(row: dict[str, Any]) -> dict[str, Any]:
    order: Order = row["order"]
    contract, size = order.contract, row["closed"]
    return {
        "symbol": contract.symbol,
        "orderId": order.id,
        "side": order.side.value,
        "qty": contract.quantity_text(order.qty),
        "orderPrice": contract.price_text(order.price),
        "orderType": order.type,
        "execType": row["kind"],
        "closedSize": format(size, "f"),
        "cumEntryValue": cash(row["entry"] * size),
        "avgEntryPrice": cash(row["entry"]),
        "cumExitValue": cash(row["exit"]),
        "avgExitPrice": cash(row["exit"] / size),
        "closedPnl": cash(row["pnl"]),
        "openFee": cash(row["open_fee"]),
        "closeFee": cash(row["close_fee"]),
        "fillCount": str(row["fills"]),
        "leverage": format(row["leverage"], "f"),
        "createdTime": str(row["created"]),
        "updatedTime": str(row["updated"]),
    }


def position_view(
    holding: Holding, market: Market, liquidation: Decimal | None, entry_name: str
) -> dict[str, Any]:
    """`entry_name` is "avgPrice" by REST and "entryPrice" on the stream, where another name differs too."""
    contract, side, tier = holding.contract, holding.side, holding.tier
    price = contract.price_text

    def stop(order: Order | None) -> str:
        return price(order.trigger_price) if order is not None else "0"

    initial, maintenance = cash(holding.initial_margin), cash(holding.maintenance_margin)
    return {
        "positionIdx": holding.index,
        "riskId": tier.id,
        "riskLimitValue": format(tier.limit, "f"),
        "symbol": contract.symbol,
        "side": side.value if side else "",
        "size": contract.quantity_text(holding.lots),
        entry_name: cash(holding.entry) if side else "0",
        "positionValue": cash(abs(holding.position.cost)) if side else "",
        "tradeMode": 0,
        "autoAddMargin": int(holding.adds_margin),
        "positionStatus": "Normal",
        "leverage": format(holding.leverage, "f"),
        "breakEvenPrice": _break_even(holding),
        "markPrice": price(market.mark),
        "liqPrice": cash(liquidation) if liquidation is not None and liquidation > 0 else "",
        "bustPrice": "",
        "positionBalance": initial,
        "positionIM": initial,
        "positionIMByMp": initial,
        "positionMM": maintenance,
        "positionMMByMp": maintenance,
        "tpslMode": "Full",
        "takeProfit": stop(holding.take_profit),
        "stopLoss": stop(holding.stop_loss),
        "trailingStop": price(holding.trailing.distance) if holding.trailing else "0",
        "sessionAvgPrice": "",
        "unrealisedPnl": cash(holding.unrealised),
        "curRealisedPnl": cash(holding.session_realised),
        "cumRealisedPnl": cash(holding.realised),
        "adlRankIndicator": 2 if side else 0,
        "createdTime": str(holding.created),
        "updatedTime": str(holding.updated),
        "openTime": holding.opened,
        "seq": holding.seq,
        "isReduceOnly": False,
        "mmrSysUpdateTime" if entry_name == "avgPrice" else "mmrSysUpdatedTime": "",
        "leverageSysUpdatedTime": "",
        "category": "linear",
    }


def _break_even(holding: Holding) -> str:
    """(entry x qty - realised) / (qty - |qty| x taker fee); what has been paid in fees is in `realised`."""
    qty, fee = holding.qty, max(holding.contract.taker_fee, Decimal("0.00055"))
    if not qty:
        return ""
    return cash((holding.entry * qty - holding.session_realised) / (qty - abs(qty) * fee))


def wallet_view(account: Account) -> dict[str, Any]:
    """The unified account, of which only USDT is used; one USDT counts as one USD."""
    equity, held, ordered = account.equity, account.position_margin, account.order_margin
    initial, maintenance = held + ordered, account.maintenance_margin
    base = account.wallet if account.margin_mode != CROSS else equity
    rate = format(initial / base, ".4f") if base > 0 else "0"
    maintenance_rate = format(maintenance / base, ".4f") if base > 0 else "0"
    return {
        "accountType": "UNIFIED",
        "accountLTV": "0",
        "accountIMRate": rate,
        "accountIMRateByMp": rate,
        "accountMMRate": maintenance_rate,
        "accountMMRateByMp": maintenance_rate,
        "totalEquity": cash(equity),
        "totalWalletBalance": cash(account.wallet),
        "totalMarginBalance": cash(equity),
        "totalAvailableBalance": cash(max(Decimal(0), account.available)),
        "totalPerpUPL": cash(account.unrealised),
        "totalInitialMargin": cash(initial),
        "totalInitialMarginByMp": cash(initial),
        "totalMaintenanceMargin": cash(maintenance),
        "totalMaintenanceMarginByMp": cash(maintenance),
        "coin": [
            {
                "coin": "USDT",
                "equity": cash(equity),
                "usdValue": cash(equity),
                "walletBalance": cash(account.wallet),
                "free": "",
                "locked": "0",
                "spotHedgingQty": "0",
                "borrowAmount": "0",
                "spotBorrow": "0",
                "accruedInterest": "0",
                "availableToWithdraw": "",
                "availableToBorrow": "",
                "totalOrderIM": cash(ordered),
                "totalPositionIM": cash(held),
                "totalPositionMM": cash(maintenance),
                "unrealisedPnl": cash(account.unrealised),
                "cumRealisedPnl": cash(account.realised),
                "bonus": "0",
                "marginCollateral": True,
                "collateralSwitch": True,
                "colRes": "0",
            }
        ],
    }
