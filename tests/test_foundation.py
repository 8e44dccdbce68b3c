"""Forecasters of other people: the real loading code on a tiny random checkpoint, and clear words without."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from bot.core.errors import DataError, UsageError
from strategies.learning.foundation import FARTHEST, LEVELS, load, probability_above

needs_chronos = pytest.mark.skipif(
    find_spec("chronos") is None, reason="chronos-forecasting is not installed (extra: foundation)"
)


def test_the_probability_is_read_between_the_quantiles():
    quantiles = np.tile(np.linspace(-4.0, 4.0, 9), (5, 1))

    p = probability_above(quantiles, np.array([0.0, -4.0, 1.5, -90.0, 90.0]))

    np.testing.assert_allclose(p, [0.5, 0.9, 0.35, 1 - FARTHEST, FARTHEST], atol=1e-12)


def test_crossing_quantiles_are_put_in_order():
    rows = np.array([[3.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 9.0, 8.0]])

    assert probability_above(rows, np.array([1.5]))[0] == pytest.approx(0.85)


@pytest.mark.parametrize(
    ("name", "told"),
    [("timegpt", "no forecaster 'timegpt'; choose from chronos, moirai"), ("lag_llama", "pickles")],
)
def test_what_is_not_known_is_told(name, told):
    with pytest.raises(UsageError, match=told):
        load(name, "anywhere")


@pytest.mark.skipif(find_spec("uni2ts") is not None, reason="uni2ts is installed")
def test_a_package_that_is_not_installed_is_named_with_its_remedy():
    with pytest.raises(UsageError, match="moirai needs the package uni2ts, which is not installed: pip inst"):
        load("moirai", "anywhere")


def tiny_bolt(place: Path) -> Path:
    """A Chronos-Bolt of a few thousand weights, as random as they come, saved as the real ones are."""
    import torch
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    config = T5Config(
        d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=2, is_encoder_decoder=True,
        feed_forward_proj="relu", decoder_start_token_id=0, pad_token_id=0,
    )  # fmt: skip
    config.chronos_config = {
        "context_length": 64, "prediction_length": 16, "input_patch_size": 16, "input_patch_stride": 16,
        "quantiles": list(LEVELS), "use_reg_token": True,
    }  # fmt: skip
    config.chronos_pipeline_class = "ChronosBoltPipeline"
    config.architectures = ["ChronosBoltModelForForecasting"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ChronosBoltModelForForecasting(config).save_pretrained(place)
    return place


@needs_chronos
def test_chronos_is_loaded_from_a_folder_and_forecasts_every_context(tmp_path):
    contexts = np.random.default_rng(0).normal(0, 0.01, (70, 64)).cumsum(axis=1).astype(np.float32)

    forecaster = load("chronos", str(tiny_bolt(tmp_path / "bolt")))
    quantiles = forecaster.quantiles(contexts, 16)

    assert quantiles.shape == (70, len(LEVELS))
    assert np.isfinite(quantiles).all()
    np.testing.assert_allclose(quantiles[3:5], forecaster.quantiles(contexts[3:5], 16), atol=1e-5)
    assert (probability_above(quantiles, contexts[:, -1].astype(float)) > 0).all()


@needs_chronos
def test_a_folder_that_holds_no_such_model_is_told(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="not a model of chronos"):
        load("chronos", str(tmp_path))
