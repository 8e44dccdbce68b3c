"""Configuration: every mistake is reported at once, with the key and what is allowed."""

import tomllib
from pathlib import Path

import pytest

from bot.core.errors import UsageError
from bot.settings import Settings, load

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


@pytest.mark.parametrize("text", ["[risk\n", "risk = 3\n", "[risk]\nstop = nan\n", "[risk]\nstop = inf\n"])
def test_what_is_no_valid_configuration_is_a_usage_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError):
        load(write(tmp_path, text))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml: no such configuration file"):
        load(Path("nowhere.toml"))


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_RISK__STOP", "0.01")
    assert load(write(tmp_path, "[risk]\nstop = 0.012\n")).risk.stop == 0.01


def test_overrides_of_the_command_line_win_over_the_file(tmp_path: Path) -> None:
    settings = load(write(tmp_path, "[simulation]\nseed = 1\n"), {"simulation": {"seed": 9}})
    assert settings.simulation.seed == 9


def test_settings_cannot_change_after_start() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().risk.stop = 0.5  # type: ignore[misc]
