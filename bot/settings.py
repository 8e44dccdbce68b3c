"""Typed, frozen configuration: the command line wins over `BOT_*` variables, these over `config.toml`.

Unknown keys and variables, wrong types and contradictory limits are all reported at once, each with its key.
Only `load` looks at the environment: settings that a stored run was made with are never changed by it.
"""

import difflib
import json
import os
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from bot.core.errors import UsageError

ENVIRONMENT_PREFIX: Final = "BOT_"
NO_SETTINGS: Final = frozenset(
    f"{ENVIRONMENT_PREFIX}{account}_API_{part}"
    for account in ("TESTNET", "DEMO", "LIVE", "LOCAL")
    for part in ("KEY", "SECRET")
) | {f"{ENVIRONMENT_PREFIX}ACCEPT_REAL_MONEY"}
"""Our variables that are no settings: they never enter the configuration, which is stored with every run."""

Fraction = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def _not_a_truth(value: Any) -> Any:
    """`true` equals 1 in Python, and so passes for it where single numbers are allowed."""
    if isinstance(value, bool):
        raise ValueError("Input should be a number")
    return value


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Simulation(Section):
    """The embedded market of `bot paper`. Simulated prices; nothing here describes a real token."""

    seed: int = Field(7, ge=0, le=2**63 - 1)
    days: Count = Field(40, description="trading days of the run, after the history")
    history_days: Count = Field(180, description="BTC and ETH history for pretraining, in days")
    bar_minutes: Annotated[Literal[1, 3, 5, 15], BeforeValidator(_not_a_truth)] = 5


class Account(Section):
    initial_balance: Positive = Field(10_000.0, description="paper money, quote coin")


class Market(Section):
    sources: tuple[str, ...] = Field(("BTCUSDT", "ETHUSDT"), min_length=1)
    decision_minutes: Literal[5, 15, 30, 60] = 15

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if twice := sorted({name for name in self.sources if self.sources.count(name) > 1}):
            raise ValueError(f"sources names {', '.join(twice)} more than once")
        return self


class Label(Section):
    """Triple barrier (López de Prado 2018, ch. 3)."""

    horizon_bars: Annotated[int, Field(ge=2, le=96)] = 8
    barrier_sigmas: Positive = Field(1.0, description="barrier = this x sigma x sqrt(horizon)")


class Model(Section):
    method: Literal["supervised", "masked", "contrastive", "predictive", "order", "forecast"] = Field(
        "supervised", description="or the pretext task that initialises the encoder first"
    )
    channels: Annotated[int, Field(ge=4, le=128)] = 32
    blocks: Annotated[int, Field(ge=1, le=7)] = 5
    pool_bars: Annotated[int, Field(ge=1, le=96)] = 16
    embedding: Annotated[int, Field(ge=4, le=128)] = 32
    epochs: Count = 30
    learning_rate: Positive = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    patience: Count = Field(5, description="epochs without a better loss on the purged tail")
    validation_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    min_source_bars: Count = Field(2_000, description="per source symbol")


class Adaptation(Section):
    every_bars: Count = Field(288, description="decision bars between adaptations of one token")
    first_bars: Count = Field(192, description="ready rows before the first one")
    window_bars: Count = Field(2_000, description="the newest rows of the token that are used")
    drift_bars: Count = Field(48, description="decision bars before an alarm may ask for the next adaptation")
    drift_threshold: Positive = Field(
        2.0, description="of Page's test on the log loss: rise above its minimum (nats) that is an alarm"
    )
    drift_allowance: Annotated[float, Field(ge=0)] = Field(
        0.02, description="of Page's test: rise of the mean log loss (nats) that is none"
    )
    drift_check_bars: Count = Field(96, description="decision bars between tests of the features")
    drift_level: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.01, description="p-value of the features' MMD up to which it is an alarm; 0 = never"
    )
    steps: Count = Field(120, description="from the source model")
    learning_rate: Positive = 1e-3
    l2sp: Annotated[float, Field(ge=0)] = Field(
        1e-3, description="pull towards the weights that the adaptation began with"
    )
    gentle_steps: Count = Field(24, description="from a model of the chain")
    gentle_rate: Positive = 1e-4
    gentle_l2sp: Annotated[float, Field(ge=0)] = 10.0
    batch: Annotated[int, Field(ge=16)] = Field(192, description="embeddings of each domain per step")
    mmd_weight: Annotated[float, Field(ge=0)] = 3.0
    target_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="of the matured target labels")
    clip: Positive = 5.0
    collapse: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="spread of the logits, relative to that before, below which a candidate is discarded"
    )
    job_seconds: Positive = Field(
        900.0, description="without an answer of the adaptation process after which it is replaced"
    )
    delay_bars: Count = Field(2, description="a candidate takes part this many decision bars after its cut")
    chain_tokens: Annotated[int, Field(ge=0)] = Field(
        40, description="newest tokens that the chain learns from; 0 = no chain"
    )
    chain_days: Count = Field(60, description="of each token, from its first ready bar")
    chain_every_days: Count = Field(14, description="between steps of the chain")
    chain_tail_days: Count = Field(7, description="newest labels, which judge a step instead of teaching it")
    chain_labels: Positive = Field(200.0, description="effective labels older than the tail before a step")
    chain_steps: Count = 250
    chain_learning_rate: Positive = 5e-4
    chain_mmd_weight: Annotated[float, Field(ge=0)] = 4.0
    chain_l2sp: Annotated[float, Field(ge=0)] = Field(1e-2, description="pull towards the source's weights")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("every_bars", "drift_bars"):
            if getattr(self, name) <= self.delay_bars:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) must be more than delay_bars ({self.delay_bars}): "
                    "one adaptation of a token ends before the next begins"
                )
        if self.first_bars > self.window_bars:
            raise ValueError(
                f"first_bars ({self.first_bars}) is above window_bars ({self.window_bars}), all that is kept"
            )
        return self


class Gate(Section):
    """What a model must show before it may trade, and what makes it lose that right."""

    similarity: Fraction = 0.7
    effective_labels: Positive = Field(100.0, description="matured, out-of-sample, uniqueness-weighted")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.65
    conformal: bool = Field(
        default=False, description="enter only where the token's conformal set is one direction, too"
    )
    source_accuracy: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        0.60, description="of the pretrained model on its most confident tenth, purged tail"
    )
    evidence: Annotated[float, Field(gt=1)] = Field(
        20.0, description="e-value against the rival; 20 is the anytime-valid form of p < 0.05"
    )
    full_evidence: Annotated[float, Field(gt=1)] = Field(400.0, description="e-value for the whole size")
    forgetting: Share = Field(0.03, description="loss of source accuracy that discards a candidate")
    overconfidence: Fraction = Field(
        0.05, description="confidence beyond accuracy, less what chance explains, over the newest two weeks"
    )
    calm_bars: Count = Field(4, description="decision bars without trouble before a step up")
    most_faults: Count = Field(
        24, description="of a token's market data in a UTC day; more suspend it until the next"
    )
    drift_blocks: Count = Field(60, description="label blocks whose mean skill below zero ends trading")
    probation_blocks: Count = Field(
        24, description="label blocks in which new weights of a champion must not be worse than the old"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.full_evidence < self.evidence:
            raise ValueError(f"full_evidence ({self.full_evidence}) is below evidence ({self.evidence})")
        return self


class Risk(Section):
    position_share: Fraction = Field(0.02, description="notional of one position / equity, at FULL")
    small_share: Fraction = Field(0.25, description="of the full size, at SMALL")
    max_exposure: Annotated[float, Field(gt=0, le=10)] = Field(0.20, description="gross notional / equity")
    max_net_exposure: Annotated[float, Field(gt=0, le=10)] = Field(
        0.20, description="long less short, / equity"
    )
    max_cluster_exposure: Annotated[float, Field(gt=0, le=10)] = Field(
        0.10, description="tokens that move together, in one direction, / equity"
    )
    cluster_correlation: Fraction = Field(0.6, description="of decision bars' returns, from which on they do")
    correlation_half_life: Positive = Field(192.0, description="of these correlations, in decision bars")
    max_leverage: Annotated[float, Field(gt=0, le=100)] = Field(
        1.0, description="gross notional / equity without unrealised gains"
    )
    turnover_share: Fraction = Field(0.01, description="largest order, of a decision bar's usual turnover")
    interest_share: Fraction = Field(0.01, description="largest order, of all open positions of the market")
    depth_share: Fraction = Field(0.1, description="largest order, of the book near the touch")
    max_notional: Positive = Field(50_000.0, description="largest order, quote coin")
    min_notional: Annotated[float, Field(ge=0)] = Field(5.0, description="smallest order, quote coin")
    target_volatility: Positive = Field(0.006, description="per decision bar; above it positions shrink")
    arms: tuple[str, ...] = Field((), description="whose models may trade, such as adapted; empty = all")
    max_model_days: Positive = Field(120.0, description="age of the newest data that a model learnt from")
    collar: Fraction = Field(0.02, description="the decision's price off the market's mid or mark")
    max_spread: Fraction = Field(0.003, description="(ask - bid) / mid, mean of the decision bar")
    min_move_costs: Annotated[float, Field(ge=0)] = Field(
        3.0, description="the expected move must exceed this many round-trip costs"
    )
    entries_per_second: Count = 10
    entries_per_day: Count = 500
    cooldown_minutes: Annotated[float, Field(ge=0)] = Field(
        30.0, description="without entries of a token after it lost money"
    )
    max_positions: Count = 10
    max_funding: Annotated[float, Field(ge=0)] = Field(
        0.001, description="of the notional, to be paid within `funding_minutes`"
    )
    funding_minutes: Annotated[float, Field(ge=0)] = 30.0
    band_share: Fraction = Field(0.8, description="of the exchange's price band around the mark price")
    stop: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.015, description="widest stop, fraction of the price"
    )
    stop_sigmas: Positive = Field(1.0, description="stop = this x sigma x sqrt(horizon), capped by `stop`")
    daily_drawdown: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.03, description="from the day's opening equity; until the next UTC day"
    )
    rolling_drawdown: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.08, description="from the highest equity of `rolling_days`; until a person clears it"
    )
    rolling_days: Count = 7
    peak_drawdown: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.15, description="from the highest equity ever; until a person clears it"
    )
    token_daily_loss: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.005, description="of equity, by one token; no entries of it until the next UTC day"
    )
    on_breaker: Literal["flatten", "block"] = Field(
        "flatten", description="or only no entries, and let positions end by their stops"
    )
    take_profit_moves: Annotated[float, Field(ge=0)] = Field(
        1.0, description="take profit = this x the expected move, not nearer than the stop; 0 = none"
    )
    break_even_stops: Annotated[float, Field(ge=0)] = Field(
        0.0, description="gain, in first stop distances, from which the stop lies at the entry; 0 = never"
    )
    trailing_stops: Annotated[float, Field(ge=0)] = Field(
        0.0, description="the stop follows the best price at this x its first distance; 0 = it does not"
    )
    max_holding_bars: Count = Field(96, description="decision bars after which a position is closed")
    naked_seconds: Annotated[float, Field(ge=5)] = Field(
        30.0, description="a position that could not be given a stop for so long is closed"
    )
    trigger_by: Literal["last", "mark"] = Field("last", description="price that sets off stops and targets")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_exposure < self.position_share:
            raise ValueError(
                f"max_exposure ({self.max_exposure}) is below position_share ({self.position_share}): "
                "no position could ever be opened; raise max_exposure or lower position_share"
            )
        if 0 < self.trailing_stops < 0.5:
            raise ValueError(
                f"trailing_stops ({self.trailing_stops}) must be 0 or at least 0.5: noise sets it off"
            )
        for name in ("max_net_exposure", "max_cluster_exposure", "max_leverage"):
            if getattr(self, name) < self.position_share:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) is below position_share ({self.position_share}): no "
                    "position could ever be whole"
                )
        return self


class Execution(Section):
    """How an approved entry reaches the market. Exits are market orders, always."""

    style: Literal["market", "post_only"] = Field(
        "market", description="post_only rests in the book and saves the spread where it fills"
    )
    requote_seconds: Annotated[float, Field(ge=1)] = Field(
        15.0, description="between new prices of a post-only order"
    )
    deadline_seconds: Annotated[float, Field(ge=1)] = Field(
        120.0, description="of a post-only entry; then ..."
    )
    at_deadline: Literal["cross", "give_up"] = "cross"
    twap_notional: Positive = Field(2_000.0, description="quote coin; larger entries go in slices")
    twap_slices: Annotated[int, Field(ge=2, le=50)] = 5
    twap_seconds: Annotated[float, Field(ge=1)] = Field(300.0, description="from the first slice to the end")
    signal_valid_seconds: Annotated[float, Field(ge=1)] = Field(
        30.0, description="from the close of its bar; a later order is dropped, not sent"
    )


class Costs(Section):
    taker_fee: Annotated[float, Field(ge=0, lt=0.05)] = 0.00055
    maker_fee: Annotated[float, Field(gt=-0.01, lt=0.05)] = 0.0002
    half_spread: Annotated[float, Field(ge=0, lt=0.1)] = Field(
        0.0002, description="fraction of the price, for markets without quotes"
    )
    slippage_sigmas: Annotated[float, Field(ge=0)] = Field(
        0.05, description="adverse slippage of a market order, in bar ranges"
    )
    default_funding: Annotated[float, Field(ge=0, lt=0.05)] = Field(
        0.0001, description="per 8 hours, paid by either side where the data has no funding rates"
    )


class Bybit(Section):
    """Trading on Bybit: testnet, demo and live. Keys come from the environment only."""

    accept_real_money: bool = Field(False, description="the first half of the confirmation for live")
    allowed_permissions: tuple[str, ...] = Field(
        (), description='permissions of the API key to put up with, such as "Withdraw"'
    )
    orders_by_websocket: bool = False
    leverage: Annotated[float, Field(ge=1, le=100)] = Field(
        2.0, description="set for each symbol before its first entry"
    )
    margin_mode: Literal["cross", "isolated"] = "cross"
    may_switch_modes: bool = Field(
        False, description="change margin and position mode of an account that holds nothing"
    )
    foreign_positions: Literal["leave", "adopt"] = Field(
        "leave", description="of others on the account: left alone, or guarded and closed like our own"
    )
    bar_minutes: Literal[1, 3, 5, 15] = 1
    newest_days: Count = Field(60, description="tokens launched in the last so many days are traded")
    max_tokens: Annotated[int, Field(ge=1, le=100)] = Field(
        20, description="at once, the newest; one connection carries the streams of no more than 100"
    )
    history_days: Count = Field(180, description="BTC and ETH history for pretraining, in days")


class Universe(Section):
    """Which tokens are watched and may be traded. Who is in may miss the limits by the slack."""

    always: tuple[str, ...] = Field((), description="followed whatever their age and liquidity")
    never: tuple[str, ...] = Field((), description="not traded; what is held of them is only guarded")
    min_turnover: Annotated[float, Field(ge=0)] = Field(
        1_000_000.0, description="quote coin a day; of a younger token, at the rate so far"
    )
    max_spread: Annotated[float, Field(gt=0, lt=1)] = Field(0.005, description="(ask - bid) / mid")
    min_depth: Annotated[float, Field(ge=0)] = Field(
        250.0, description="quote coin within 10 bps of mid, the thinner side"
    )
    slack: Fraction = Field(0.5, description="share of a limit at which a token that is in falls out")

    @field_validator("always", "never")
    @classmethod
    def _symbols(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """In capitals, as the exchange writes them: a name that matches nothing would forbid nothing."""
        for name in names:
            if not (name.isascii() and name.isalnum()):
                raise ValueError(f"{name!r} is no symbol; write one like NEWUSDT")
        return tuple(dict.fromkeys(name.upper() for name in names))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if both := sorted(set(self.always) & set(self.never)):
            raise ValueError(f"always and never both name {', '.join(both)}")
        return self


class Live(Section):
    """How a run on the exchange ends and is watched."""

    on_stop: Literal["keep", "flatten"] = Field(
        "keep", description="what SIGTERM does with positions: they stay with their stops, or are closed"
    )
    adaptation_seconds: Positive = Field(
        1_800.0, description="CPU time an hour of the adaptation process, once the past has been replayed"
    )


class Storage(Section):
    directory: Path = Field(Path("var"), description="database, models, reports")
    database: str = Field("", description="postgresql://user@host/name; empty = SQLite in `directory`")

    @property
    def target(self) -> str | Path:
        """What `Database.open` takes."""
        return self.database or self.directory / "bot.sqlite"

    @property
    def option(self) -> str:
        """What a command line needs to find it: --directory, or nothing where that is the default."""
        default = type(self).model_fields["directory"].default
        is_found = self.database or self.directory == default
        return "" if is_found else f" --directory {shlex.quote(str(self.directory))}"

    def models(self, *, simulated: bool) -> Path:
        """Models of invented prices lie apart: no run on real ones may find and begin with them."""
        models = self.directory / "models"
        return models / "simulated" if simulated else models


class ExchangeAccount(Section):
    """A customer of the local exchange. Not a real key: it opens nothing but a loopback port."""

    key: str = Field("local", min_length=1)
    secret: str = Field("local-secret", min_length=1, repr=False)
    balance: Positive = Field(10_000.0, description="USDT")
    read_only: bool = False


class Exchange(Section):
    """`bot exchange`: Bybit's interface on loopback, on the simulated market or on recorded bars."""

    port: Annotated[int, Field(ge=0, le=65_535)] = Field(8899, description="0 = any free one")
    seed: int = Field(7, ge=0, le=2**63 - 1)
    history_days: Count = Field(
        120, description="of candles before the exchange opens; more than bybit.newest_days by a month"
    )
    future_days: Count = Field(7, description="then prices stand still")
    rate_limit_scale: Annotated[float, Field(ge=0)] = Field(
        1.0, description="multiplies Bybit's limits; 0 switches them off"
    )
    latency_ms: Annotated[float, Field(ge=0, le=10_000)] = Field(
        20.0, description="before a WebSocket request is answered"
    )
    accounts: tuple[ExchangeAccount, ...] = Field((ExchangeAccount(),), min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        keys = [account.key for account in self.accounts]
        if len(set(keys)) < len(keys):
            raise ValueError(f"two accounts have the same key: {', '.join(keys)}")
        return self


class Settings(Section):
    """All of it. Field names are the keys of config.toml."""

    account: Account = Account()
    market: Market = Market()
    simulation: Simulation = Simulation()
    label: Label = Label()
    model: Model = Model()
    adaptation: Adaptation = Adaptation()
    gate: Gate = Gate()
    risk: Risk = Risk()
    execution: Execution = Execution()
    costs: Costs = Costs()
    bybit: Bybit = Bybit()
    universe: Universe = Universe()
    live: Live = Live()
    storage: Storage = Storage()
    exchange: Exchange = Exchange()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.market.decision_minutes % self.simulation.bar_minutes:
            raise ValueError(
                f"simulation.bar_minutes ({self.simulation.bar_minutes}) must divide "
                f"market.decision_minutes ({self.market.decision_minutes})"
            )
        if named := sorted(set(self.market.sources) & {*self.universe.always, *self.universe.never}):
            raise ValueError(
                f"universe names {', '.join(named)}, which market.sources has: never traded anyway"
            )
        if self.risk.max_exposure > self.bybit.leverage:
            raise ValueError(
                f"risk.max_exposure ({self.risk.max_exposure}) is above bybit.leverage "
                f"({self.bybit.leverage}): the exchange would refuse orders for want of margin"
            )
        return self


def load(
    path: Path | None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    only: str = "",
) -> Settings:
    """Read `path` (None: defaults only); variables of `environment` win over it, and `overrides` over both.

    overrides: a nested dict like the file's, of the command line
    only: a section; the others, right or wrong, count for nothing then and have their defaults

    Raises UsageError that lists every wrong key and variable with what is allowed.
    """
    values = {} if path is None else _read(path)
    if only:
        prefix = f"{ENVIRONMENT_PREFIX}{only}__".upper()
        values = {section: keys for section, keys in values.items() if section == only}
        environment = {name: text for name, text in environment.items() if name.upper().startswith(prefix)}
    variables, problems = _variables(environment)
    where = ["the environment"] if problems else []
    for section, key in variables:
        _set(values, section, key, _value(environment[variables[section, key]], section, key))
    for section, keys in (overrides or {}).items():
        for key, value in keys.items():
            variables.pop((section, key), None)
            _set(values, section, key, value)
    try:
        # strict, and as JSON: there a list is the only tuple, a string the only path, and "45" no number
        text = json.dumps(values, default=lambda moment: [str(moment)])  # no key is a date or a time
        settings = Settings.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems += [_explain(item, variables) for item in error.errors()]
        elsewhere = [item for item in error.errors() if tuple(item["loc"][:2]) not in variables]
        where = ["the environment"] if len(elsewhere) < len(problems) else []
        where += [str(path or "configuration")] if elsewhere else []
    if problems:
        lines = "\n".join(f"  {line}" for line in problems)
        raise UsageError(f"{' and '.join(where)}: {len(problems)} problem(s)\n{lines}")
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such configuration file; --config names one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None


def _set(values: dict[str, Any], section: str, key: str, value: Any) -> None:
    if isinstance(values.setdefault(section, {}), dict):  # anything else is told by the validation
        values[section][key] = value


def _variables(environment: Mapping[str, str]) -> tuple[dict[tuple[str, str], str], list[str]]:
    """The variables that set a key, by (section, key), and what is wrong with the other ones of ours."""
    known = {
        f"{ENVIRONMENT_PREFIX}{section}__{key}".upper(): (section, key)
        for section in Settings.model_fields
        for key in _keys_at((section,))
    }
    found, problems = {}, []
    for name in sorted(environment):
        if name.upper() in known:
            found[known[name.upper()]] = name
        elif name.startswith(ENVIRONMENT_PREFIX) and name not in NO_SETTINGS:
            close = difflib.get_close_matches(name.upper(), [*known, *NO_SETTINGS], 1)
            hint = f"did you mean {close[0]}?" if close else "write BOT_SECTION__KEY, such as BOT_RISK__STOP"
            problems.append(f"{name}: unknown environment variable; {hint}")
    return found, problems


def _value(text: str, section: str, key: str) -> Any:
    """What a variable says: a text where the key is one, else a number or JSON; the validation refuses it
    where it is neither."""
    if _section(section).model_fields[key].annotation in (str, Path):
        return text
    for parse in (int, float, json.loads):
        try:
            return parse(text)
        except ValueError:
            continue
    return text


def _explain(error: ErrorDetails, variables: Mapping[tuple[str, str], str]) -> str:
    path = tuple(str(part) for part in error["loc"])
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        known = _keys_at(path[:-1])
        close = difflib.get_close_matches(path[-1], known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    message = error["msg"].removeprefix("Value error, ")
    if len(path) > 1:
        origin = variables.get((path[0], path[1]))
        return f"{key}{f' ({origin})' if origin else ''}: {message} (got {error['input']!r})"
    if isinstance(error["input"], dict):
        return f"{key}: {message}" if key else message
    return f"{key}: {message} (got {error['input']!r})"


def _section(name: str) -> type[BaseModel]:
    section = Settings.model_fields[name].annotation
    assert isinstance(section, type)
    assert issubclass(section, BaseModel)
    return section


def _keys_at(path: tuple[str, ...]) -> list[str]:
    return list((_section(path[0]) if path else Settings).model_fields)
