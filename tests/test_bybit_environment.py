"""Where orders go, with whose key, and what a person must have said before."""

from typing import Any

import pytest

from bot.core.errors import UsageError
from bot.exchange.bybit import wire
from bot.exchange.bybit.environment import (
    ENVIRONMENTS,
    Credentials,
    check_key,
    credentials,
    environment,
    local,
    require_confirmation,
)
from bot.exchange.bybit.wire.account import ApiKey
from tests.bybit_fixtures import sample

MAINNET, TESTNET, DEMO = environment("mainnet"), environment("testnet"), environment("demo")


def key(**changes: Any) -> ApiKey:
    values = {
        "permissions": {"ContractTrade": ["Order", "Position"]}, "read_only": False, "uta": True,
        "api_key": "ABCDEFGHIJKL", "ips": ["10.0.0.1"], **changes,
    }  # fmt: skip
    return ApiKey(**values)


# --- hosts ------------------------------------------------------------------------------------------------


def test_each_environment_has_its_hosts() -> None:
    assert (MAINNET.rest, MAINNET.public_url()) == (
        "https://api.bybit.com",
        "wss://stream.bybit.com/v5/public/linear",
    )
    assert TESTNET.trade_url == "wss://stream-testnet.bybit.com/v5/trade"
    assert environment("mainnet-kz").private_url == "wss://stream.bybit.kz/v5/private"


def test_demo_trades_apart_but_watches_the_real_market() -> None:
    assert DEMO.private_url == "wss://stream-demo.bybit.com/v5/private"
    assert DEMO.public_url("spot") == "wss://stream.bybit.com/v5/public/spot"
    with pytest.raises(UsageError, match="use REST"):
        _ = DEMO.trade_url


def test_only_mainnet_and_its_regions_trade_real_money() -> None:
    real = {name for name, place in ENVIRONMENTS.items() if place.real_money}
    assert real == {name for name in ENVIRONMENTS if name.startswith("mainnet")}
    assert not local("http://127.0.0.1:8899").real_money


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"mainnet.*testnet.*demo"):
        environment("moonnet")


def test_a_local_exchange_has_everything_on_one_port() -> None:
    here = local("http://127.0.0.1:8899")
    assert (here.rest, here.public_url(), here.trade_url) == (
        "http://127.0.0.1:8899", "ws://127.0.0.1:8899/v5/public/linear", "ws://127.0.0.1:8899/v5/trade",
    )  # fmt: skip


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://api.bybit.com",
        "http://evil.example:80",
        "ftp://127.0.0.1",
        "127.0.0.1:1",
        "http://127.0.0.1/x",
    ],
)
def test_an_endpoint_that_is_not_this_machine_is_refused(endpoint: str) -> None:
    with pytest.raises(UsageError, match="local exchange"):
        local(endpoint)


# --- keys -------------------------------------------------------------------------------------------------


def test_each_environment_reads_its_own_variables() -> None:
    variables = {"BOT_TESTNET_API_KEY": "k", "BOT_TESTNET_API_SECRET": "s", "BOT_LIVE_API_KEY": "m"}
    found = credentials(TESTNET, variables)
    assert (found.key, found.secret) == ("k", "s")
    with pytest.raises(UsageError, match=r"mainnet needs an API key: set BOT_LIVE_API_SECRET$"):
        credentials(MAINNET, variables)
    with pytest.raises(UsageError, match="BOT_DEMO_API_KEY and BOT_DEMO_API_SECRET"):
        credentials(DEMO, variables)


def test_the_local_exchange_needs_no_variables() -> None:
    assert credentials(local("http://127.0.0.1:1"), {}).key == "local"


def test_a_key_does_not_show_itself() -> None:
    secretive = Credentials("ABCDEFGHIJKL", "hush-hush")
    assert repr(secretive) == str(secretive) == f"{secretive}" == "Credentials(ABCD…)"


# --- real money -------------------------------------------------------------------------------------------

YES = {"BOT_ACCEPT_REAL_MONEY": "yes"}


@pytest.mark.parametrize(
    ("flag", "configured", "variables"), [(False, False, {}), (False, True, {}), (False, False, YES)]
)
def test_real_money_needs_a_second_confirmation(
    flag: bool, configured: bool, variables: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match="--i-accept-real-money"):
        require_confirmation(MAINNET, flag=flag, configured=configured, variables=variables)


def test_the_flag_confirms_and_so_do_the_key_and_the_variable_together() -> None:
    require_confirmation(MAINNET, flag=True, configured=False, variables={})
    require_confirmation(MAINNET, flag=False, configured=True, variables=YES)


def test_play_money_needs_no_confirmation() -> None:
    for place in (TESTNET, DEMO, local("http://localhost:1")):
        require_confirmation(place, flag=False, configured=False, variables={})


# --- permissions ------------------------------------------------------------------------------------------


def test_a_key_that_can_trade_and_nothing_else_passes_silently() -> None:
    assert check_key(key(), MAINNET) == []
    assert check_key(key(permissions={"Derivatives": ["DerivativesTrade"]}), MAINNET) == []


def test_a_key_that_may_withdraw_is_refused_with_real_money_unless_allowed_by_name() -> None:
    rich = key(permissions={"ContractTrade": ["Order", "Position"], "Wallet": ["Withdraw"]})
    with pytest.raises(UsageError, match="may withdraw"):
        check_key(rich, MAINNET)
    assert check_key(rich, MAINNET, allowed=["Withdraw"]) == []
    assert "Withdraw" in check_key(rich, TESTNET)[0]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"read_only": True}, "read-only"),
        ({"permissions": {"Spot": ["SpotTrade"]}}, "lacks the permission"),
        ({"permissions": {"ContractTrade": ["Order"]}}, "lacks the permission"),
        ({"uta": False}, "Unified Trading Account"),
    ],
)
def test_a_key_that_cannot_do_the_work_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        check_key(key(**changes), MAINNET)
    check_key(key(**changes), MAINNET, trades=False)


def test_an_unbound_key_and_excessive_permissions_are_told() -> None:
    loose = key(
        ips=["*"], deadline_day=60,
        permissions={"ContractTrade": ["Order", "Position"], "Wallet": ["AccountTransfer"]},
    )  # fmt: skip
    first, second = check_key(loose, MAINNET)
    assert "AccountTransfer" in first
    assert "not bound" in second
    assert "60 days" in second


def test_the_real_key_of_the_documentation_is_read_only() -> None:
    payload = sample("rest-GET-user-query-api/docs__apikey-info-0.json")
    info = wire.decode_response("/v5/user/query-api", payload).value
    with pytest.raises(UsageError, match="read-only"):
        check_key(info, TESTNET)
