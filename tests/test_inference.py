"""The live predictor: torch's numbers without torch, one step per bar, the same bits however it was fed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bot.core.errors import DataError
from strategies.learning.architecture import Architecture
from strategies.learning.encoder import Encoder
from strategies.learning.inference import Predictor

ROOT = Path(__file__).parents[1]
SHAPES = [
    Architecture(features=24, channels=32, blocks=5, pool_bars=16, embedding=32),
    Architecture(features=2, channels=5, blocks=1, pool_bars=1, embedding=3),
    Architecture(features=7, channels=6, blocks=7, pool_bars=40, embedding=9),
]


def model(architecture: Architecture) -> Encoder:
    torch.manual_seed(0)
    net = Encoder(architecture).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # norms and biases away from one and zero
    return net


def rows(architecture: Architecture, n: int = 200) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((n, architecture.features)).astype(np.float32)


@pytest.mark.parametrize("architecture", SHAPES)
def test_it_equals_torch_from_the_first_row_on(architecture):
    net, x = model(architecture), rows(architecture)
    with torch.no_grad():
        wanted = net(torch.from_numpy(x)[None])

    got = Predictor(net.weights(), architecture).predict(x)

    np.testing.assert_allclose(got.logit, wanted.logit[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(got.log_vol, wanted.log_vol[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(got.z, wanted.z[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("architecture", SHAPES)
@pytest.mark.parametrize("warmed", [0, 1, 150])
def test_warming_then_pushing_gives_the_bits_of_pushing_alone(architecture, warmed):
    x = rows(architecture)
    weights = model(architecture).weights()
    whole, resumed = Predictor(weights, architecture), Predictor(weights, architecture)
    pushed = [whole.push(row) for row in x]

    resumed.warm(x[:warmed])
    for row, wanted in list(zip(x, pushed, strict=True))[warmed:]:
        got = resumed.push(row)
        assert (got.logit, got.log_vol) == (wanted.logit, wanted.log_vol)
        np.testing.assert_array_equal(got.z, wanted.z)


def test_rows_older_than_the_receptive_field_do_not_matter():
    architecture = SHAPES[0]
    weights, x = model(architecture).weights(), rows(architecture)
    whole, recent = Predictor(weights, architecture), Predictor(weights, architecture)

    whole.warm(x[:-1])
    recent.warm(x[-architecture.receptive_field : -1])

    assert whole.push(x[-1]).logit == recent.push(x[-1]).logit


def test_a_reset_forgets_everything():
    architecture = SHAPES[0]
    weights, x = model(architecture).weights(), rows(architecture)
    used, fresh = Predictor(weights, architecture), Predictor(weights, architecture)
    used.predict(x)

    used.reset()

    assert used.steps == 0
    assert used.push(x[0]).logit == fresh.push(x[0]).logit


def test_two_tokens_with_the_same_weights_do_not_share_a_past():
    architecture = SHAPES[0]
    weights, x = model(architecture).weights(), rows(architecture)
    one, other = Predictor(weights, architecture), Predictor(weights, architecture)
    one.warm(x)

    assert other.push(x[0]).logit == Predictor(weights, architecture).push(x[0]).logit


def test_an_embedding_that_was_handed_out_does_not_change():
    architecture = SHAPES[0]
    predictor, x = Predictor(model(architecture).weights(), architecture), rows(architecture)
    first = predictor.push(x[0])
    kept = first.z.copy()

    predictor.push(x[1])

    np.testing.assert_array_equal(first.z, kept)


@pytest.mark.parametrize("row", [np.zeros(3, np.float32), np.full(24, np.nan, np.float32)])
def test_a_row_of_another_width_or_with_nan_is_refused_and_leaves_no_trace(row):
    architecture = SHAPES[0]
    predictor, x = Predictor(model(architecture).weights(), architecture), rows(architecture)

    with pytest.raises(DataError, match="24 finite features"):
        predictor.push(row)

    assert (
        predictor.push(x[0]).logit == Predictor(model(architecture).weights(), architecture).push(x[0]).logit
    )


def test_no_row_warms_nothing():
    architecture = SHAPES[0]
    predictor = Predictor(model(architecture).weights(), architecture)

    predictor.warm(np.empty((0, 24), np.float32))

    assert predictor.steps == 0


@pytest.mark.parametrize(
    "module",
    ["inference", "registry", "evidence", "calibration", "worker", "dataset", "skill", "pretraining_job"],
)
def test_the_live_side_does_not_load_torch(module):
    script = f"import sys, strategies.learning.{module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
