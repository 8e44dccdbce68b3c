"""`bot models`: the pointer moves in one step, five champions are kept, and damage is told."""

import io
import shutil

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from bot.cli import app
from bot.commands import model_tables
from bot.core.errors import DataError, UsageError
from bot.core.types import DAY_MS
from bot.settings import Storage
from strategies.learning import shipped
from strategies.learning.champions import KEPT, Champions
from strategies.learning.registry import Registry
from tests.test_registry import card, weights


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(tmp_path / "models")


def saved(registry: Registry, count: int) -> list[str]:
    return [registry.save(weights(seed), card(seed=seed)).model_id for seed in range(count)]


def invoke(registry: Registry, *arguments: str) -> Result:
    return CliRunner().invoke(
        app,
        ["models", *arguments, "--directory", str(registry.directory.parent)],
        env={"COLUMNS": "200", "TERM": "dumb"},
    )


def test_the_newest_champion_is_current_and_the_list_is_short(registry):
    champions, ids = Champions(registry), saved(registry, KEPT + 2)
    assert champions.current() is None
    for model_id in ids:
        champions.promote(model_id)
    assert champions.ids() == ids[:-6:-1]
    current = champions.current()
    assert current is not None
    assert current.model_id == ids[-1]


def test_promoting_again_moves_a_champion_to_the_front_and_keeps_it_once(registry):
    champions, ids = Champions(registry), saved(registry, 2)
    for model_id in (*ids, ids[0]):
        champions.promote(model_id)
    assert champions.ids() == [ids[0], ids[1]]


def test_a_rollback_goes_back_one_step_and_not_beyond_the_first(registry):
    champions, ids = Champions(registry), saved(registry, 2)
    for model_id in ids:
        champions.promote(model_id)
    assert champions.rollback().model_id == ids[0]
    assert champions.ids() == [ids[0]]
    with pytest.raises(UsageError, match="no earlier champion"):
        champions.rollback()


def test_a_damaged_model_is_neither_promoted_nor_gone_back_to(registry):
    champions, ids = Champions(registry), saved(registry, 2)
    for model_id in ids:
        champions.promote(model_id)
    path = registry.directory / f"{ids[0]}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(DataError, match="checksum"):
        champions.rollback()
    with pytest.raises(DataError, match="checksum"):
        champions.promote(ids[0])
    assert champions.ids() == [ids[1], ids[0]]


def test_a_damaged_pointer_is_told(registry):
    champions, (model_id,) = Champions(registry), saved(registry, 1)
    champions.promote(model_id)
    (registry.directory / "champions.json").write_text('["half')
    with pytest.raises(DataError, match=r"champions\.json: not readable"):
        champions.current()


def test_the_commands_list_show_compare_and_roll_back(registry):
    ids = saved(registry, 2)
    child = registry.save(weights(9), card(kind="adapted", symbols=("NEWUSDT",), parent=ids[0], seed=9))
    for model_id in ids:
        Champions(registry).promote(model_id)
    listed = invoke(registry, "list")
    assert listed.exit_code == 0
    assert all(model_id in listed.output for model_id in (*ids, child.model_id))
    shown = invoke(registry, "show", child.model_id[:8])
    assert f"{child.model_id} <- {ids[0]}" in shown.output
    assert "checksum right" in shown.output
    compared = invoke(registry, "diff", ids[0], child.model_id)
    assert "NEWUSDT" in compared.output
    assert "moved by" in compared.output
    back = invoke(registry, "rollback")
    assert f"{ids[0]} is the champion again" in back.output


def test_models_of_the_simulated_market_are_told_apart_and_never_begin_a_run_on_real_prices(registry):
    real = registry.save(weights(1), card(seed=1))
    simulated = Registry(Storage(directory=registry.directory.parent).models(simulated=True))
    invented = simulated.save(weights(2), card(seed=2))
    lines = invoke(registry, "list").output.splitlines()
    (row,) = (line for line in lines if real.model_id in line)
    assert "\treal\t" in row
    (row,) = (line for line in lines if invented.model_id in line)
    assert "\tsimulated\t" in row
    assert registry.cards().keys() == {real.model_id}, "where a run on real prices looks"
    assert "made from simulated prices" in invoke(registry, "show", invented.model_id).output
    assert "simulated" not in invoke(registry, "show", real.model_id).output


def test_a_terminal_of_80_columns_shows_whole_ids_and_kinds(registry, monkeypatch):
    first, second = saved(registry, 2)
    invented = Registry(Storage(directory=registry.directory.parent).models(simulated=True)).save(
        weights(2), card(seed=2)
    )
    adapted = registry.save(weights(9), card(kind="adapted", symbols=("NEWUSDT",), parent=first, seed=9))
    path = registry.directory / f"{second}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    out = io.StringIO()
    terminal = Console(width=80, file=out, force_terminal=True, color_system=None)
    monkeypatch.setattr(model_tables, "Console", lambda: terminal)
    model_tables.list_models(Storage(directory=registry.directory.parent))
    lines = out.getvalue().splitlines()
    for model_id, kind in (
        (shipped.load().model_id, "shipped "),
        (first, "pretrained "),
        (second, "pretrained "),
        (adapted.model_id, "adapted "),
        (invented.model_id, "simulated "),
    ):
        (row,) = (line for line in lines if model_id in line)
        assert kind in row
        assert any(date in row for date in ("1970-01-01 ", "2026-01-01 "))
    assert "(damaged)" in out.getvalue()
    assert max(map(len, lines)) <= 80


def test_models_of_two_pretext_tasks_are_told_apart(registry):
    first, second = (
        registry.save(weights(), card(method=method)).model_id for method in ("masked", "contrastive")
    )

    assert '"method": "masked"' in invoke(registry, "show", first).output
    assert "contrastive" in invoke(registry, "diff", first, second).output
    older = registry.save(weights(), card()).model_id
    assert "contrastive" in invoke(registry, "diff", older, second).output, "a card that does not tell"


def test_what_cannot_be_done_is_told_without_a_traceback(registry):
    listed = invoke(registry, "list").output
    assert "comes along with the program; `bot pretrain` makes one of your own" in listed
    assert shipped.load().model_id in listed
    saved(registry, 1)
    assert invoke(registry, "show", shipped.load().model_id[:6]).exit_code == 0
    unknown = invoke(registry, "show", "nothing")
    assert unknown.exit_code == 2
    assert "0 models begin with 'nothing'" in unknown.output
    assert invoke(registry, "rollback").exit_code == 2


# --- the shipped checkpoint --------------------------------------------------------------------------------


def test_the_shipped_model_loads_is_small_and_knows_nothing_of_listings():
    model = shipped.load()
    assert sum(path.stat().st_size for path in shipped.FOLDER.iterdir()) < 1_000_000
    assert model.card.kind == "pretrained"
    assert model.card.symbols == ("BTCUSDT", "ETHUSDT")
    assert {"accuracy", "auc", "skill"} <= set(model.card.metrics)
    assert 0.5 < model.card.metrics["auc"].value < 0.6, "on the purged tail; more would be a leak"


@pytest.mark.parametrize(
    ("days", "told"), [(-3, "has seen them"), (10, "10 days ago"), (200, "pretrain again on newer bars")]
)
def test_the_age_of_the_shipped_model_is_told(days, told):
    model = shipped.load()
    assert told in shipped.age_warning(model, model.card.until + days * DAY_MS)


def test_a_missing_or_damaged_checkpoint_is_told(tmp_path):
    with pytest.raises(DataError, match="0 models where one is shipped"):
        shipped.load(tmp_path)
    shutil.copytree(shipped.FOLDER, tmp_path / "copy")
    weights_file = next((tmp_path / "copy").glob("*.safetensors"))
    weights_file.write_bytes(weights_file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(DataError, match="checksum"):
        shipped.load(tmp_path / "copy")
