"""Where Bybit is, whose keys open it, and what must be true before real money moves."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from bot.core.errors import UsageError
from bot.exchange.bybit.wire.account import ApiKey

ACCEPT_VARIABLE: Final = "BOT_ACCEPT_REAL_MONEY"
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_NEEDED: Final = {"ContractTrade": {"Order", "Position"}, "Derivatives": {"DerivativesTrade"}}
_EXCESSIVE: Final = ("Withdraw", "AccountTransfer", "SubMemberTransfer", "SubMemberTransferList")


@dataclass(frozen=True, slots=True)
class Environment:
    """One world of Bybit. Its keys are valid nowhere else."""

    name: str
    rest: str
    public_streams: str
    private_streams: str
    keys: str = "LIVE"  # the part of the variable names that differs
    real_money: bool = False
    orders_by_websocket: bool = True

    def public_url(self, category: str = "linear") -> str:
        return f"{self.public_streams}/v5/public/{category}"

    @property
    def private_url(self) -> str:
        return f"{self.private_streams}/v5/private"

    @property
    def trade_url(self) -> str:
        if not self.orders_by_websocket:
            raise UsageError(f"{self.name} has no order entry by WebSocket; use REST there")
        return f"{self.private_streams}/v5/trade"

    @property
    def key_variables(self) -> tuple[str, str]:
        return f"BOT_{self.keys}_API_KEY", f"BOT_{self.keys}_API_SECRET"


def _mainnet(region: str, rest_host: str, stream_host: str = "stream.bybit.com") -> Environment:
    stream = f"wss://{stream_host}"
    name = f"mainnet-{region}" if region else "mainnet"
    return Environment(name, f"https://{rest_host}", stream, stream, real_money=True)


ENVIRONMENTS: Final[Mapping[str, Environment]] = {
    environment.name: environment
    for environment in (
        _mainnet("", "api.bybit.com"),
        _mainnet("bytick", "api.bytick.com"),
        _mainnet("nl", "api.bybit.nl"),
        _mainnet("tr", "api.bybit.tr", "stream.bybit.tr"),
        _mainnet("kz", "api.bybit.kz", "stream.bybit.kz"),
        _mainnet("ge", "api.bybitgeorgia.ge", "stream.bybitgeorgia.ge"),
        _mainnet("ae", "api.bybit.ae"),
        _mainnet("eu", "api.bybit.eu", "stream.bybit.eu"),
        _mainnet("id", "api.bybit.id", "stream.bybit.id"),
        _mainnet("jp", "api.manepa.jp", "stream.manepa.jp"),
        Environment(
            "testnet",
            "https://api-testnet.bybit.com",
            "wss://stream-testnet.bybit.com",
            "wss://stream-testnet.bybit.com",
            keys="TESTNET",
        ),
        Environment(
            "demo",
            "https://api-demo.bybit.com",
            "wss://stream.bybit.com",  # demo trades on the market data of mainnet
            "wss://stream-demo.bybit.com",
            keys="DEMO",
            orders_by_websocket=False,
        ),
    )
}


def environment(name: str) -> Environment:
    """The environment of this name. Raises UsageError that lists the names."""
    try:
        return ENVIRONMENTS[name]
    except KeyError:
        raise UsageError(f"no environment {name!r}; there are {', '.join(ENVIRONMENTS)}") from None


def local(endpoint: str) -> Environment:
    """A local exchange at `endpoint` (http://127.0.0.1:8899), REST and streams on one port.

    Only loopback: a mistyped host must never receive signed orders.
    """
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or parts.hostname not in _LOOPBACK or parts.path not in ("", "/"):
        raise UsageError(f"{endpoint!r}: a local exchange is http://127.0.0.1:PORT")
    base = f"http://{parts.netloc}"
    stream = f"ws://{parts.netloc}"
    return Environment("local", base, stream, stream, keys="LOCAL")


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """An API key. Neither part shows in a log, a repr or a traceback."""

    key: str = field(repr=False)
    secret: str = field(repr=False)

    def __repr__(self) -> str:
        return f"Credentials({masked(self.key)})"


def masked(key: str) -> str:
    """Enough of a key to tell it from another one."""
    return f"{key[:4]}…" if len(key) > 8 else "…"


def credentials(environment: Environment, variables: Mapping[str, str]) -> Credentials:
    """The key of this environment from the process environment. Raises UsageError."""
    key_name, secret_name = environment.key_variables
    key, secret = variables.get(key_name, "").strip(), variables.get(secret_name, "").strip()
    if environment.name == "local" and not key and not secret:
        return Credentials("local", "local-secret")
    missing = [name for name, value in ((key_name, key), (secret_name, secret)) if not value]
    if missing:
        raise UsageError(f"{environment.name} needs an API key: set {' and '.join(missing)}")
    return Credentials(key, secret)


def require_confirmation(
    environment: Environment, *, flag: bool, configured: bool, variables: Mapping[str, str]
) -> None:
    """Real money needs a second yes: the flag, or the configuration key together with the variable.

    Raises UsageError that says how to give it.
    """
    agreed = variables.get(ACCEPT_VARIABLE, "").strip().lower() in ("1", "yes", "true")
    if environment.real_money and not flag and not (configured and agreed):
        raise UsageError(
            f"{environment.name} trades real money: confirm with --i-accept-real-money, or with "
            f"`accept_real_money = true` in the configuration and {ACCEPT_VARIABLE}=yes"
        )


def check_key(
    info: ApiKey, environment: Environment, *, allowed: Collection[str] = (), trades: bool = True
) -> list[str]:
    """What a person should know about this key before it is used.

    `allowed` names permissions ("Withdraw") that the operator accepts although a bot never needs them.
    Raises UsageError for a key that cannot do the work, or that can do dangerous things with real money.
    """
    if trades:
        _require_trading(info, environment)
    granted = {permission for group in info.permissions.values() for permission in group}
    if "Withdraw" in granted and "Withdraw" not in allowed and environment.real_money:
        raise UsageError(
            f"the {environment.name} key {masked(info.api_key)} may withdraw funds: make one without that "
            'permission, or name "Withdraw" in the configuration\'s allowed permissions'
        )
    warnings = [
        f"the key holds the permission {name}, which the bot never needs"
        for name in _EXCESSIVE
        if name in granted and name not in allowed
    ]
    if info.ips == ["*"] or not info.ips:
        days = "" if info.deadline_day is None else f"; it expires in {info.deadline_day} days"
        warnings.append(f"the key is not bound to an IP address{days}")
    return warnings


def _require_trading(info: ApiKey, environment: Environment) -> None:
    if info.read_only:
        raise UsageError(f"the {environment.name} key is read-only: it cannot trade; make a read-write key")
    if not any(rights <= set(info.permissions.get(group, ())) for group, rights in _NEEDED.items()):
        raise UsageError(
            f"the {environment.name} key lacks the permission to trade contracts: "
            'edit it and tick "Contract: Orders, Positions"'
        )
    if info.uta is False:
        raise UsageError("the account is not a Unified Trading Account: upgrade it on the Bybit site")
