"""Models on disk: named by their content, whole or absent, and every kind of damage has its message."""

import msgspec
import numpy as np
import pytest

from bot.core.errors import DataError
from strategies.features.spec import VERSION
from strategies.learning import shipped
from strategies.learning.architecture import Architecture
from strategies.learning.registry import Model, ModelCard, Registry
from strategies.learning.skill import Estimate

SHAPE = Architecture(features=3, channels=4, blocks=2, pool_bars=4, embedding=5)


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPE.shapes().items()}


def card(**changes) -> ModelCard:
    values = {
        "kind": "pretrained", "architecture": SHAPE, "features": VERSION, "columns": ("a", "b", "c"),
        "location": (0.0, 1.0, 2.0), "scale": (1.0, 1.0, 0.5), "symbols": ("BTCUSDT",), "since": 0,
        "until": 900_000, "temperature": 1.5,
        "metrics": {"accuracy_confident": Estimate(0.63, 0.58, 0.68, 240.0)}, "key": "k1",
    }  # fmt: skip
    return ModelCard(**values | changes)


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(tmp_path / "models")


@pytest.fixture
def saved(registry) -> Model:
    return registry.save(weights(), card())


def test_what_was_saved_is_loaded(registry, saved):
    loaded = registry.load(saved.model_id)

    assert loaded.card == card()
    assert loaded.card.source_accuracy == 0.63
    assert loaded.card.statistics.scale.tolist() == [1.0, 1.0, 0.5]
    for name, array in weights().items():
        np.testing.assert_array_equal(loaded.weights[name], array)


def test_the_same_content_has_the_same_name_everywhere(registry, saved, tmp_path):
    elsewhere = Registry(tmp_path / "other").save(dict(reversed(weights().items())), card())

    assert elsewhere.model_id == saved.model_id
    assert registry.save(weights(1), card()).model_id != saved.model_id


def test_the_origin_of_a_model_is_the_source_at_the_end_of_its_line(registry, saved):
    chain = registry.save(weights(1), card(kind="chain", parent=saved.model_id))
    adapted = registry.save(weights(2), card(kind="adapted", parent=chain.model_id))

    assert {registry.origin(one.model_id) for one in (saved, chain, adapted)} == {saved.model_id}
    (registry.directory / f"{chain.model_id}.json").unlink()
    assert registry.origin(adapted.model_id) == ""


def test_saving_leaves_two_files_and_nothing_half_written(registry, saved):
    names = sorted(path.name for path in registry.directory.iterdir())

    assert names == [f"{saved.model_id}.json", f"{saved.model_id}.safetensors"]


def test_a_model_of_before_the_method_was_told_keeps_its_id_in_another_folder(tmp_path):
    """The shipped one is kept beside those that descend from it, who name it."""
    model = shipped.load()
    assert Registry(tmp_path).save(model.weights, model.card).model_id == model.model_id


def test_a_pretrained_model_is_found_by_what_it_was_made_from(registry, saved):
    registry.save(weights(1), card(kind="adapted", parent=saved.model_id))

    found = registry.find_pretrained("k1")

    assert found is not None
    assert found.model_id == saved.model_id
    assert registry.find_pretrained("k2") is None


def test_a_damaged_model_is_not_found(registry, saved):
    (registry.directory / f"{saved.model_id}.safetensors").write_bytes(b"")

    assert registry.find_pretrained("k1") is None


def test_the_same_weights_with_another_card_are_another_model(registry, saved):
    child = registry.save(weights(), card(kind="adapted", parent=saved.model_id))

    assert child.model_id != saved.model_id
    assert registry.load(saved.model_id).card.kind == "pretrained"


def test_weights_with_nan_are_not_saved(registry):
    broken = weights()
    broken["input.bias"][0] = np.nan

    with pytest.raises(DataError, match="NaN"):
        registry.save(broken, card())

    assert not registry.directory.exists()


def test_a_missing_model_is_named(registry):
    with pytest.raises(DataError, match=r"nowhere\.json: no such model"):
        registry.load("nowhere")


def test_a_changed_byte_of_the_weights_is_noticed(registry, saved):
    path = registry.directory / f"{saved.model_id}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(DataError, match="checksum is wrong"):
        registry.load(saved.model_id)


@pytest.mark.parametrize("length", [0, 7, 500])
def test_truncated_weights_are_noticed(registry, saved, length):
    path = registry.directory / f"{saved.model_id}.safetensors"
    path.write_bytes(path.read_bytes()[:length])

    with pytest.raises(DataError, match="checksum is wrong"):
        registry.load(saved.model_id)


def test_missing_weights_are_noticed(registry, saved):
    (registry.directory / f"{saved.model_id}.safetensors").unlink()

    with pytest.raises(DataError, match=r"safetensors: cannot be read"):
        registry.load(saved.model_id)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"kind": "pretrained", "stranger": 1}', b"\xff\xfe"])
def test_a_foreign_or_truncated_card_is_no_card(registry, saved, content):
    (registry.directory / f"{saved.model_id}.json").write_bytes(content)

    with pytest.raises(DataError, match="not a model card"):
        registry.load(saved.model_id)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": msgspec.structs.replace(SHAPE, pool_bars=8)},
        {"metrics": {"accuracy_confident": Estimate(0.99, 0.98, 1.0, 240.0)}},
        {"temperature": 0.1},
        {"until": 0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_word_on_the_card_is_noticed(registry, saved, changes):
    path = registry.directory / f"{saved.model_id}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(card(**changes))))

    with pytest.raises(DataError, match="checksum is wrong"):
        registry.load(saved.model_id)


def test_a_model_for_other_features_is_refused(registry):
    old = registry.save(weights(), card(features="older"))

    with pytest.raises(DataError, match=f"made for features older, this version has {VERSION}"):
        registry.load(old.model_id)
