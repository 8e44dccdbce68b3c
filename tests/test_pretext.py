"""Pretext tasks: equal to their references, learnable where there is structure, and of use to the encoder."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bot import settings
from bot.core.errors import UsageError
from strategies.learning.encoder import Encoder
from strategies.learning.pretext import (
    AHEAD,
    MASKED,
    PRETEXTS,
    SPAN,
    Pretext,
    initialise,
    nt_xent,
    span_mask,
    view,
)
from strategies.learning.pretraining import pretrain
from strategies.learning.sequences import Sequences
from tests.controls import HORIZON, World
from tests.test_finetuning import ARCHITECTURE

pytestmark = pytest.mark.usefixtures("one_thread")

ORACLES = Path(__file__).parent / "oracles"


def encoder(features: int = 10) -> Encoder:
    import msgspec

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Encoder(msgspec.structs.replace(ARCHITECTURE, features=features))


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_nt_xent_equals_the_reference(tau):
    with np.load(ORACLES / "nt_xent.npz") as file:
        z1, z2 = (torch.from_numpy(file[name]) for name in ("z1", "z2"))
    expected = json.loads((ORACLES / "nt_xent.json").read_text())

    assert nt_xent(z1, z2, tau).item() == pytest.approx(expected[f"tau={tau}"])


def test_masks_hide_whole_spans_of_about_their_share():
    hidden = span_mask(500, 64, torch.Generator().manual_seed(0))

    assert hidden.float().mean() == pytest.approx(MASKED, abs=0.03)
    edges = (hidden[:, 1:] != hidden[:, :-1]).sum(1)
    assert (edges <= 2 * round(MASKED * 64 / SPAN)).all()


def test_a_view_stays_inside_its_window_and_differs_from_the_next():
    x = torch.randn(8, 32, 3, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)

    first, second = view(x, generator), view(x, generator)

    assert first.shape == x.shape
    assert not torch.equal(first, second)
    assert torch.corrcoef(torch.stack([first.flatten(), x.flatten()]))[0, 1] > 0.8


@pytest.mark.parametrize("pretext", PRETEXTS)
def test_every_task_is_learnt_without_a_label(pretext):
    """Slow factors and a sawtooth: what hides can be guessed, what follows resembles what was, time has a
    direction."""
    source = World(0).series("SOURCE", 6000, "source", 0, labels=False)
    at = np.arange(6000)[:, None]
    waves = np.concatenate([np.sin(at / np.arange(15, 24)), (at % 100) / 17 - 3], axis=1)
    slow = replace(source, x=(0.3 * source.x + waves).astype(np.float32))
    network = encoder()

    epochs = 220 if pretext == "order" else 80  # of two steps each
    generator = torch.Generator().manual_seed(0)
    losses = initialise(network, Sequences([slow], 0), pretext, epochs, generator)

    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_a_forecast_never_sees_what_it_predicts():
    """The encoder is causal, and the last target begins after the last input."""
    network, generator = encoder(), torch.Generator().manual_seed(0)
    x = torch.randn(4, 20, 10, generator=generator)
    changed = x.clone()
    changed[:, 20 - AHEAD :] += 1.0

    same = network(x).z[:, :-AHEAD], network(changed).z[:, :-AHEAD]

    assert torch.equal(*same)


def test_an_unknown_task_is_a_usage_error():
    with pytest.raises(UsageError, match="no pretext task 'jigsaw'; choose from masked"):
        Pretext("jigsaw", encoder(), torch.Generator())


def test_pretraining_starts_from_a_pretext_task_and_is_deterministic():
    model = settings.Model(channels=8, blocks=2, epochs=2, embedding=8, pool_bars=4, min_source_bars=500)
    source = World(0).series("SOURCE", 2500, "source", 0)

    plain = pretrain([source], model, HORIZON, 1)
    first = model.model_copy(update={"method": "contrastive"})
    started, again = (pretrain([source], first, HORIZON, 1) for _ in range(2))

    for name, array in started.weights.items():
        np.testing.assert_array_equal(array, again.weights[name])
    assert not np.array_equal(started.weights["input.weight"], plain.weights["input.weight"])
