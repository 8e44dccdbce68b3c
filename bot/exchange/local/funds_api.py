"""The signed endpoints of coins and account settings: USDT is all there is, and nothing comes or goes."""

from decimal import Decimal
from typing import Final

from bot.exchange.local import render
from bot.exchange.local.account import Account
from bot.exchange.local.api import Answer, Asked
from bot.exchange.local.market_api import instruments, is_linear
from bot.exchange.local.orders import Refused
from bot.exchange.local.terms import text, wrong

COIN: Final = "USDT"


def _transferable(account: Account) -> str:
    return render.cash(max(Decimal(0), min(account.wallet, account.available)))


def _balance(account: Account, coin: str) -> dict[str, str]:
    is_ours = coin == COIN
    return {
        "coin": coin,
        "walletBalance": render.cash(account.wallet) if is_ours else "0",
        "transferBalance": _transferable(account) if is_ours else "0",
        "bonus": "",
    }


def coin_balances(asked: Asked) -> Answer:
    """Of several coins, without a name of all that there are. The funding wallet is empty."""
    coins = text(asked.params, "coin", COIN).split(",") if _is_unified(asked) else []
    result = {"accountType": text(asked.params, "accountType"), "memberId": str(asked.account.uid)}
    return Answer({**result, "balance": [_balance(asked.account, coin) for coin in coins]})


def coin_balance(asked: Asked) -> Answer:
    coin = text(asked.params, "coin")
    if not coin:
        raise wrong("coin is required")
    uid = str(asked.account.uid)
    balance = _balance(asked.account, coin if _is_unified(asked) else "")
    result = {
        "accountType": text(asked.params, "accountType"),
        "bizType": 1,
        "accountId": uid,
        "memberId": uid,
    }
    more = {"coin": coin, "transferSafeAmount": "", "ltvTransferSafeAmount": ""}
    return Answer({**result, "balance": balance | more})


def _is_unified(asked: Asked) -> bool:
    kind = text(asked.params, "accountType")
    if kind not in ("UNIFIED", "FUND"):
        raise wrong("accountType only supports UNIFIED and FUND")
    return kind == "UNIFIED"


def withdrawable(asked: Asked) -> Answer:
    coins = text(asked.params, "coinName").split(",")
    amounts = {coin: _transferable(asked.account) if coin == COIN else "0" for coin in coins}
    return Answer({"availableWithdrawal": amounts[coins[0]], "availableWithdrawalMap": amounts})


def collateral(asked: Asked) -> Answer:
    """Nothing can be borrowed."""
    row = {
        "currency": COIN, "hourlyBorrowRate": "0", "maxBorrowingAmount": "0", "freeBorrowingLimit": "0",
        "freeBorrowAmount": "0", "borrowAmount": "0", "otherBorrowAmount": "0", "freeBorrowingAmount": "",
        "availableToBorrow": "0", "borrowable": False, "borrowUsageRate": "0", "marginCollateral": True,
        "collateralSwitch": True, "collateralRatio": "1",
    }  # fmt: skip
    return Answer({"list": [row] if text(asked.params, "currency", COIN) == COIN else []})


def no_rows(asked: Asked) -> Answer:
    """Deposits, withdrawals, and coins for either (ccxt asks for them with the markets): there are none."""
    return Answer({"rows": [], "nextPageCursor": ""})


def no_list(asked: Asked) -> Answer:
    """Transfers, loans, greeks, moved positions: there are none."""
    return Answer({"list": [], "nextPageCursor": ""})


def no_protection(asked: Asked) -> Answer:
    """Market maker protection is for options."""
    return Answer({"result": []})


def transfer(asked: Asked) -> Answer:
    """There is no second wallet with anything in it, and the unified one stays as it is."""
    raise Refused(131212, "user insufficient balance")


def not_unified(asked: Asked) -> Answer:
    """Of the time before the unified account: Bybit refuses it too."""
    raise Refused(100028, "unified account is forbidden")


def not_offered(asked: Asked) -> Answer:
    """As Bybit says it of what demo trading lacks."""
    raise Refused(10032, "The local exchange does not support this")


# --- settings of the account ------------------------------------------------------------------------------


def account_instruments(asked: Asked) -> Answer:
    return Answer(instruments(asked.world, asked.params))


def disconnect_protection(asked: Asked) -> Answer:
    """Only institutional customers have it."""
    return Answer({"dcpInfos": []})


def protect_disconnected(asked: Asked) -> Answer:
    raise Refused(10005, "Permission denied, please check your API key permissions.")


def trade_prevention_group(asked: Asked) -> Answer:
    return Answer({"smpGroup": 0})


def user_settings(asked: Asked) -> Answer:
    """An order beyond the price limit is moved to it."""
    return Answer({"lpaSpot": False, "lpaPerp": False, "deltaEnable": False, "smsef": False, "fmsef": False})


def symbol_leverage(asked: Asked) -> Answer:
    """Mode and leverage of a symbol, or of all."""
    account, symbol = asked.account, text(asked.params, "symbol")
    rows = [
        {
            "symbol": listed.symbol,
            "leverage": format(account.leverage_of(listed.symbol, index), "f"),
            "side": "Sell" if index == 2 else "Buy",
            "positionIdx": index,
        }
        for listed in asked.world.listed.values()
        if is_linear(asked.params, "") and symbol in ("", listed.symbol) and not listed.market.is_closed
        for index in ((1, 2) if listed.symbol in account.hedged else (0,))
    ]
    return Answer({"category": text(asked.params, "category"), "list": rows})
