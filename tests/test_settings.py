"""Configuration: every mistake is reported at once, with the key and what is allowed."""

import tomllib
from pathlib import Path

import pytest

from bot.core.errors import UsageError
from bot.exchange.bybit.streams import StreamSettings, shards
from bot.settings import Settings, Universe, load

ROOT = Path(__file__).parents[1]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_the_shipped_file_states_every_default() -> None:
    shipped = tomllib.loads((ROOT / "config.toml").read_text())
    assert load(ROOT / "config.toml") == Settings()
    assert {name: sorted(keys) for name, keys in shipped.items()} == {
        name: sorted(
            getattr(Settings(), name).model_fields_set | set(type(getattr(Settings(), name)).model_fields)
        )
        for name in Settings.model_fields
    }


def test_all_problems_are_told_at_once_with_their_keys(tmp_path: Path) -> None:
    path = write(
        tmp_path, '[risk]\nposition_shar = 0.1\nstop = -1\nmin_notional = "much"\n[elsewhere]\na = 1\n'
    )
    with pytest.raises(UsageError) as error:
        load(path)
    text = str(error.value)
    assert "4 problem(s)" in text
    assert "risk.position_shar: unknown key; did you mean 'position_share'?" in text
    assert "risk.stop" in text
    assert "greater than 0" in text
    assert "risk.min_notional" in text
    assert "elsewhere: unknown key" in text


def test_contradictory_limits_are_refused_together_with_other_mistakes(tmp_path: Path) -> None:
    path = write(
        tmp_path, "[risk]\nmax_exposure = 0.01\n[gate]\nfull_evidence = 2\n[costs]\ntaker_fee = -1\n"
    )
    with pytest.raises(UsageError) as error:
        load(path)
    assert "max_exposure (0.01) is below position_share (0.02)" in str(error.value)
    assert "gate: full_evidence (2.0) is below evidence (20.0)" in str(error.value)
    assert "costs.taker_fee" in str(error.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"every_bars": 2, "delay_bars": 2}, "every_bars (2) must be more than delay_bars (2)"),
        ({"first_bars": 101, "window_bars": 100}, "first_bars (101) is above window_bars (100)"),
    ],
)
def test_an_adaptation_that_could_never_be_is_refused(keys: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError) as error:
        load(None, {"adaptation": keys})
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["[risk\n", "risk = 3\n", "[risk]\nstop = nan\n", "[risk]\nstop = inf\n"])
def test_what_is_no_valid_configuration_is_a_usage_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError):
        load(write(tmp_path, text))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml: no such configuration file"):
        load(Path("nowhere.toml"))


def test_command_line_then_environment_then_file_then_default(tmp_path: Path) -> None:
    path = write(tmp_path, "[simulation]\nseed = 1\ndays = 2\nhistory_days = 100\n")
    environment = {"BOT_SIMULATION__SEED": "3", "BOT_SIMULATION__DAYS": "4"}
    simulation = load(path, {"simulation": {"seed": 5}}, environment).simulation
    assert (simulation.seed, simulation.days, simulation.history_days) == (5, 4, 100)
    assert simulation.bar_minutes == 5


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("BOT_RISK__STOP", "0.01", 0.01),
        ("BOT_RISK__STOP", " .5e-2 ", 0.005),
        ("BOT_risk__stop", "0.01", 0.01),
        ("BOT_RISK__MAX_POSITIONS", "7", 7),
        ("BOT_SIMULATION__BAR_MINUTES", "15", 15),
        ("BOT_MARKET__SOURCES", '["BTCUSDT"]', ("BTCUSDT",)),
        ("BOT_STORAGE__DIRECTORY", "2026", Path("2026")),
        ("BOT_STORAGE__DATABASE", "", ""),
    ],
)
def test_a_variable_sets_its_key(name: str, text: str, expected: object) -> None:
    section, key = name.removeprefix("BOT_").lower().split("__")
    assert getattr(getattr(load(None, None, {name: text}), section), key) == expected


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "BOT_RIKS__STOP",
            "0.01",
            "BOT_RIKS__STOP: unknown environment variable; did you mean BOT_RISK__STOP?",
        ),
        (
            "BOT_RISK__STPO",
            "0.01",
            "BOT_RISK__STPO: unknown environment variable; did you mean BOT_RISK__STOP?",
        ),
        ("BOT_RISK_STOP", "0.01", "did you mean BOT_RISK__STOP?"),
        ("BOT_RISK", "abc", "BOT_RISK: unknown environment variable; did you mean BOT_RISK__"),
        ("BOT_OF_MINE", "abc", "BOT_OF_MINE: unknown environment variable; write BOT_SECTION__KEY"),
        ("BOT_LIVE_API_KEZ", "abc", "did you mean BOT_LIVE_API_KEY?"),
        ("BOT_RISK__STOP", "abc", "risk.stop (BOT_RISK__STOP): Input should be a valid number (got 'abc')"),
        ("BOT_RISK__STOP", "", "risk.stop (BOT_RISK__STOP): Input should be a valid number"),
        ("BOT_RISK__STOP", "nan", "risk.stop (BOT_RISK__STOP): Input should be a finite number"),
        ("BOT_RISK__STOP", "-1", "risk.stop (BOT_RISK__STOP): Input should be greater than 0"),
        ("BOT_MARKET__SOURCES", "BTCUSDT", "market.sources (BOT_MARKET__SOURCES): Input should be a valid"),
    ],
)
def test_a_wrong_variable_is_told_like_a_wrong_key(tmp_path: Path, name: str, text: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        load(write(tmp_path, "[risk]\nstpo = 1\n"), None, {name: text})
    assert told in str(error.value)
    assert "2 problem(s)" in str(error.value)
    assert "risk.stpo: unknown key" in str(error.value)


def test_what_a_variable_says_does_not_matter_where_the_command_line_speaks() -> None:
    with pytest.raises(UsageError, match=r"simulation\.days: Input should be greater"):
        load(None, {"simulation": {"days": -1}}, {"BOT_SIMULATION__DAYS": "3"})


def test_secrets_and_the_variables_of_others_are_left_alone() -> None:
    others = {
        "BOT_TESTNET_API_KEY": "k", "BOT_LIVE_API_SECRET": "s", "BOT_ACCEPT_REAL_MONEY": "yes",
        "BOT_LOCAL_API_KEY": "k", "BOT_LOCAL_API_SECRET": "s",
        "ROBOT_RISK__STOP": "1", "PATH": "/",
    }  # fmt: skip
    settings = load(None, None, others)
    assert settings == Settings()
    assert "'k'" not in repr(settings)


def test_settings_of_a_stored_run_do_not_look_at_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_RISK__STOP", "0.01")
    monkeypatch.setenv("BOT_RIKS", "1")
    stored = Settings().model_dump(mode="json")
    assert Settings.model_validate(stored).risk.stop == stored["risk"]["stop"] == 0.015


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[simulation]\ndays = "45"', "simulation.days"),
        ("[simulation]\ndays = 45.0", "simulation.days"),
        ("[simulation]\ndays = true", "simulation.days"),
        ("[simulation]\nbar_minutes = true", "simulation.bar_minutes"),
        ("[simulation]\nseed = 1e30", "simulation.seed"),
        ('[risk]\nstop = "0.01"', "risk.stop"),
        ("[risk]\nstop = true", "risk.stop"),
        ('[market]\ndecision_minutes = "15"', "market.decision_minutes"),
        ('[market]\nsources = "BTCUSDT"', "market.sources"),
        (
            '[market]\nsources = ["BTCUSDT", "ETHUSDT", "BTCUSDT"]',
            "market: sources names BTCUSDT more than once",
        ),
        ("[storage]\ndatabase = 2026-01-01", "storage.database"),
        ("[storage]\ndirectory = 3", "storage.directory"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_key(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(UsageError, match="1 problem") as error:
        load(write(tmp_path, text), None, {})
    assert key in str(error.value)


def test_settings_cannot_change_after_start() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().risk.stop = 0.5  # type: ignore[misc]


def test_what_the_exchange_of_the_defaults_has_is_enough_for_a_run_of_the_defaults() -> None:
    settings = Settings()
    learnt = settings.model.min_source_bars * settings.market.decision_minutes / (24 * 60)
    assert settings.exchange.history_days > settings.bybit.newest_days + 7 + learnt


def test_all_tokens_and_sources_that_may_be_followed_fit_on_one_connection() -> None:
    with pytest.raises(UsageError, match=r"bybit\.max_tokens: Input should be less than or equal to 100"):
        load(None, {"bybit": {"max_tokens": 101}}, {})
    symbols = [f"{number:016}USDT" for number in range(110)]  # with positions found held
    topics = [
        topic.format(name)
        for name in symbols
        for topic in ("kline.15.{}", "orderbook.50.{}", "publicTrade.{}", "tickers.{}")
    ]
    assert len(shards(topics, StreamSettings().characters_per_connection)) == 1


def test_the_place_of_a_mistake_is_named(tmp_path: Path) -> None:
    wrong, right = write(tmp_path, "[risk]\nstop = -1\n"), tmp_path / "right.toml"
    right.write_text("")
    for path, variables, told in (
        (right, {"BOT_RISK__STOPP": "1"}, "the environment: 1 problem"),
        (right, {"BOT_RISK__STOP": "-1"}, "the environment: 1 problem"),
        (wrong, {}, f"{wrong}: 1 problem"),
        (wrong, {"BOT_GATE__CONFIDENCE": "7"}, f"the environment and {wrong}: 2 problem"),
        (None, {}, "configuration: 1 problem"),
    ):
        with pytest.raises(UsageError) as error:
            load(path, {"model": {"epochs": -1}} if path is None else None, variables)
        assert str(error.value).startswith(told)


def test_one_section_alone_is_read_whatever_is_wrong_with_the_others(tmp_path: Path) -> None:
    path = write(tmp_path, '[risk]\nstop = -1\n[nonsense]\n[storage]\ndirectory = "elsewhere"\n')
    wrong = {"BOT_RISK__STOPP": "1", "BOT_STORAGE__DATABASE": "postgresql://here/bot"}
    settings = load(path, None, wrong, only="storage")
    assert str(settings.storage.directory) == "elsewhere"
    assert settings.storage.database == "postgresql://here/bot"
    assert settings.risk == Settings().risk
    with pytest.raises(UsageError, match="BOT_STORAGE__DIRECTORY"):
        load(path, None, {"BOT_STORAGE__DIRECTORI": "x"}, only="storage")


def test_names_of_tokens_are_those_of_the_exchange_or_an_error() -> None:
    assert Universe(never=("newusdt", "NEWUSDT")).never == ("NEWUSDT",)
    with pytest.raises(ValueError, match="is no symbol"):
        Universe(never=("NOT A SYMBOL",))
    with pytest.raises(ValueError, match="both name NEWUSDT"):
        Universe(always=("NEWUSDT",), never=("newusdt",))
