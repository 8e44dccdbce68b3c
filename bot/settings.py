"""Typed, frozen configuration: `config.toml`, then `BOT_*` environment variables, then the command line.

Unknown keys, wrong types and contradictory limits are all reported at once, each with its key.
"""

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bot.core.errors import UsageError

Fraction = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Simulation(Section):
    """The embedded market of `bot paper`. Simulated prices; nothing here describes a real token."""

    seed: int = Field(7, ge=0)
    days: Count = Field(40, description="trading days of the run, after the history")
    history_days: Count = Field(180, description="BTC and ETH history for pretraining, in days")
    bar_minutes: Literal[1, 3, 5, 15] = 5


class Account(Section):
    initial_balance: Positive = Field(10_000.0, description="paper money, quote coin")


class Market(Section):
    sources: tuple[str, ...] = Field(("BTCUSDT", "ETHUSDT"), min_length=1)
    decision_minutes: Literal[5, 15, 30, 60] = 15


class Label(Section):
    """Triple barrier (López de Prado 2018, ch. 3)."""

    horizon_bars: Annotated[int, Field(ge=2, le=96)] = 8
    barrier_sigmas: Positive = Field(1.0, description="barrier = this x sigma x sqrt(horizon)")


class Model(Section):
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
    steps: Count = 120
    batch: Annotated[int, Field(ge=16)] = Field(192, description="embeddings of each domain per step")
    learning_rate: Positive = 1e-3
    mmd_weight: Annotated[float, Field(ge=0)] = 3.0
    target_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="of the matured target labels")
    l2sp: Annotated[float, Field(ge=0)] = Field(1e-3, description="pull towards the pretrained weights")
    clip: Positive = 5.0
    delay_bars: Count = Field(2, description="a candidate takes part this many decision bars after its cut")


class Gate(Section):
    """What a model must show before it may trade, and what makes it lose that right."""

    similarity: Fraction = 0.7
    effective_labels: Positive = Field(100.0, description="matured, out-of-sample, uniqueness-weighted")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.65
    source_accuracy: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        0.60, description="of the pretrained model on its most confident tenth, purged tail"
    )
    evidence: Annotated[float, Field(gt=1)] = Field(
        20.0, description="e-value against the rival; 20 is the anytime-valid form of p < 0.05"
    )
    full_evidence: Annotated[float, Field(gt=1)] = Field(400.0, description="e-value for the whole size")
    forgetting: Share = Field(0.03, description="loss of source accuracy that discards a candidate")
    collapse: Annotated[float, Field(gt=0.5, le=1)] = Field(
        0.95, description="share of one class in the predictions that discards a candidate"
    )
    drift_blocks: Count = Field(60, description="label blocks whose mean skill below zero ends trading")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.full_evidence < self.evidence:
            raise ValueError(f"full_evidence ({self.full_evidence}) is below evidence ({self.evidence})")
        return self


class Risk(Section):
    position_share: Fraction = Field(0.02, description="notional of one position / equity, at FULL")
    small_share: Fraction = Field(0.25, description="of the full size, at SMALL")
    max_positions: Count = 10
    max_exposure: Annotated[float, Field(gt=0, le=10)] = Field(0.20, description="gross notional / equity")
    stop: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.015, description="widest stop, fraction of the price"
    )
    stop_sigmas: Positive = Field(1.0, description="stop = this x sigma x sqrt(horizon), capped by `stop`")
    daily_drawdown: Annotated[float, Field(gt=0, lt=1)] = 0.03
    min_move_costs: Annotated[float, Field(ge=0)] = Field(
        3.0, description="the expected move must exceed this many round-trip costs"
    )
    min_notional: Annotated[float, Field(ge=0)] = 5.0
    target_volatility: Positive = Field(0.006, description="per decision bar; above it positions shrink")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_exposure < self.position_share:
            raise ValueError(
                f"max_exposure ({self.max_exposure}) is below position_share ({self.position_share}): "
                "no position could ever be opened; raise max_exposure or lower position_share"
            )
        return self


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


class Storage(Section):
    directory: Path = Field(Path("var"), description="database, models, reports")
    database: str = Field("", description="SQLAlchemy URL; empty = SQLite in `directory`")


class ExchangeAccount(Section):
    """A customer of the local exchange. Not a real key: it opens nothing but a loopback port."""

    key: str = Field("local", min_length=1)
    secret: str = Field("local-secret", min_length=1, repr=False)
    balance: Positive = Field(10_000.0, description="USDT")
    read_only: bool = False


class Exchange(Section):
    """`bot exchange`: Bybit's interface on loopback, on the simulated market or on recorded bars."""

    port: Annotated[int, Field(ge=0, le=65_535)] = Field(8899, description="0 = any free one")
    seed: int = Field(7, ge=0)
    history_days: Count = Field(30, description="of candles before the exchange opens")
    future_days: Count = Field(7, description="then prices stand still")
    rate_limit_scale: Annotated[float, Field(ge=0)] = Field(
        1.0, description="multiplies Bybit's limits; 0 switches them off"
    )
    accounts: tuple[ExchangeAccount, ...] = Field((ExchangeAccount(),), min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        keys = [account.key for account in self.accounts]
        if len(set(keys)) < len(keys):
            raise ValueError(f"two accounts have the same key: {', '.join(keys)}")
        return self


class Settings(BaseSettings):
    """All of it. Field names are the keys of config.toml."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="BOT_", env_nested_delimiter="__", allow_inf_nan=False
    )

    account: Account = Account()
    market: Market = Market()
    simulation: Simulation = Simulation()
    label: Label = Label()
    model: Model = Model()
    adaptation: Adaptation = Adaptation()
    gate: Gate = Gate()
    risk: Risk = Risk()
    costs: Costs = Costs()
    storage: Storage = Storage()
    exchange: Exchange = Exchange()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings  # the file arrives as init values; the environment wins

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.market.decision_minutes % self.simulation.bar_minutes:
            raise ValueError(
                f"simulation.bar_minutes ({self.simulation.bar_minutes}) must divide "
                f"market.decision_minutes ({self.market.decision_minutes})"
            )
        return self


def load(path: Path | None, overrides: dict[str, Any] | None = None) -> Settings:
    """Read `path` (None: defaults only) and apply `overrides`, a nested dict like the file's.

    Raises UsageError that lists every wrong key with what is allowed.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text())
        except FileNotFoundError:
            raise UsageError(f"{path}: no such configuration file; --config names one") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot be read ({error})") from None
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path}: not valid TOML: {error}") from None
    for section, keys in (overrides or {}).items():
        if isinstance(values.setdefault(section, {}), dict):  # anything else is told below
            values[section].update(keys)
    try:
        return Settings(**values)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        source = path or "configuration"
        raise UsageError(
            f"{source}: {len(lines)} problem(s)\n" + "\n".join(f"  {line}" for line in lines)
        ) from None


def _explain(error: ErrorDetails) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = _keys_at(error["loc"][:-1])
        close = difflib.get_close_matches(str(error["loc"][-1]), known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    message = error["msg"].removeprefix("Value error, ")
    return (
        f"{key}: {message} (got {error['input']!r})"
        if key and error["type"] != "value_error"
        else f"{key}: {message}"
    )


def _keys_at(path: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in path:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
