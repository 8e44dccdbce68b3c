"""The signed endpoints of positions, the account and the key."""

from typing import Any

from bot.exchange.local import render
from bot.exchange.local.account import Holding
from bot.exchange.local.api import Answer, Asked, cut, require_linear, window
from bot.exchange.local.market_api import is_linear, listed_of
from bot.exchange.local.terms import text, wrong


def positions(asked: Asked) -> Answer:
    """By symbol also when flat (in hedge mode both sides); by settle coin only what is held."""
    account, world, params = asked.account, asked.world, asked.params
    category, symbol = text(params, "category"), text(params, "symbol")
    if not is_linear(params, ""):
        held = []
    elif symbol:
        market = listed_of(world, params).market
        indices = (1, 2) if symbol in account.hedged else (0,)
        held = [account.holding(market.contract, index) for index in indices]
    elif text(params, "settleCoin") or text(params, "baseCoin"):
        held = account.held() if text(params, "settleCoin", "USDT") == "USDT" else []
    else:
        raise wrong("symbol or settleCoin is required")
    rows, cursor = cut(held, params, 20, 200)
    views = [_position(asked, holding) for holding in rows]
    return Answer({"category": category, "list": views, "nextPageCursor": cursor})


def _position(asked: Asked, holding: Holding) -> dict[str, Any]:
    market = asked.world.engine.markets[holding.contract.symbol]
    liquidation = asked.clearing.liquidation_price(asked.account, holding)
    return render.position_view(holding, market, liquidation, "avgPrice")


def set_leverage(asked: Asked) -> Answer:
    require_linear(asked.params)
    asked.clearing.set_leverage(asked.account, asked.params, asked.now)
    return Answer({})


def switch_mode(asked: Asked) -> Answer:
    require_linear(asked.params)
    asked.clearing.switch_mode(asked.account, asked.params)
    return Answer({})


def add_margin(asked: Asked) -> Answer:
    require_linear(asked.params)
    return Answer(_position(asked, asked.clearing.add_margin(asked.account, asked.params, asked.now)))


def set_auto_add_margin(asked: Asked) -> Answer:
    require_linear(asked.params)
    asked.clearing.set_auto_add_margin(asked.account, asked.params, asked.now)
    return Answer({})


def trading_stop(asked: Asked) -> Answer:
    require_linear(asked.params)
    asked.world.engine.triggers.trading_stop(asked.account, asked.params, asked.now)
    return Answer({})


def closed_pnl(asked: Asked) -> Answer:
    first, last = window(asked.params, asked.now)
    symbol, is_ours = text(asked.params, "symbol"), is_linear(asked.params, "")
    rows = [
        row
        for row in asked.account.closed
        if is_ours and first <= row["updated"] <= last and symbol in ("", row["order"].symbol)
    ]
    page, cursor = cut(rows[::-1], asked.params, 50, 100)
    views = [render.closed_view(row) for row in page]
    category = text(asked.params, "category")
    return Answer({"category": category, "list": views, "nextPageCursor": cursor})


# --- account ----------------------------------------------------------------------------------------------


def wallet(asked: Asked) -> Answer:
    if text(asked.params, "accountType") != "UNIFIED":
        raise wrong("accountType only support UNIFIED.")
    view = render.wallet_view(asked.account)
    if coins := text(asked.params, "coin"):
        blank = {name: "0" if isinstance(value, str) else value for name, value in view["coin"][0].items()}
        view["coin"] = [
            view["coin"][0] if coin == "USDT" else blank | {"coin": coin} for coin in coins.split(",")
        ]
    return Answer({"list": [view]})


def account_info(asked: Asked) -> Answer:
    return Answer({
        "marginMode": asked.account.margin_mode,
        "updatedTime": str(asked.account.updated),
        "unifiedMarginStatus": 5,
        "dcpStatus": "OFF",
        "timeWindow": 10,
        "smpGroup": 0,
        "isMasterTrader": False,
        "spotHedgingStatus": "OFF",
    })  # fmt: skip


def set_margin_mode(asked: Asked) -> Answer:
    asked.clearing.set_margin_mode(asked.account, asked.params, asked.now)
    return Answer({"reasons": []})


def fee_rates(asked: Asked) -> Answer:
    symbol = text(asked.params, "symbol")
    rows = [
        {
            "symbol": listed.symbol,
            "takerFeeRate": format(listed.contract.taker_fee, "f"),
            "makerFeeRate": format(listed.contract.maker_fee, "f"),
            "baseCoin": "",
        }
        for listed in asked.world.listed.values()
        if is_linear(asked.params) and symbol in ("", listed.symbol)
    ]
    return Answer({"list": rows})


def transactions(asked: Asked) -> Answer:
    """The ledger; without a time the last day of it. A transfer is of no category."""
    params = asked.params
    first, last = window(params, asked.now, usual_days=1)
    rows = [
        render.ledger_view(entry, number)
        for number, entry in enumerate(asked.account.ledger, 1)
        if first <= entry.ts <= last
    ]
    base = text(params, "baseCoin")
    for name, wanted in (
        ("category", text(params, "category")),
        ("currency", text(params, "currency")),
        ("type", text(params, "type")),
        ("symbol", f"{base}USDT" if base else ""),
    ):
        rows = [row for row in rows if wanted in ("", row[name])]
    views, cursor = cut(rows[::-1], params, 20, 50)
    return Answer({"list": views, "nextPageCursor": cursor})


def key_information(asked: Asked) -> Answer:
    key = asked.key
    return Answer({
        "id": str(key.account.uid), "note": "local", "apiKey": key.key, "readOnly": int(key.read_only),
        "secret": "",
        "permissions": {
            "ContractTrade": ["Order", "Position"], "Spot": [], "Wallet": [], "Options": [],
            "Derivatives": ["DerivativesTrade"], "Exchange": [], "NFT": [], "BlockTrade": [],
            "Affiliate": [], "CopyTrading": [], "Earn": [], "FiatP2P": [], "FiatBybitPay": [],
            "FiatConvertBroker": [], "FiatGlobalPay": [], "FiatBitPay": [], "BitCard": [], "ByXPost": [],
        },
        "ips": ["127.0.0.1"], "type": 1, "deadlineDay": 90, "expiredAt": "2099-01-01T00:00:00Z",
        "createdAt": "2025-01-01T00:00:00Z", "unified": 0, "uta": 1, "userID": key.account.uid,
        "inviterID": 0, "vipLevel": "No VIP", "mktMakerLevel": "0", "affiliateID": 0, "rsaPublicKey": "",
        "isMaster": True, "parentUid": "0", "kycLevel": "LEVEL_DEFAULT", "kycRegion": "",
        "userIDInt64": str(key.account.uid), "inviterIDInt64": "0", "affiliateIDInt64": "0",
    })  # fmt: skip
