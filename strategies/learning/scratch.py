"""The rival that knows nothing but the token: the same network from random weights, on the same labels.

Where it is better than what was transferred, transfer does harm. It goes on from its own last weights, and
each label buys a part of a step when it is new; the steps are taken over all labels of the window. So few
labels move it little, and no tail must be held out to stop it in time.

STEPS_PER_LABEL lies between what markets without any mechanism ask for and what a reversed one does. On
twelve listings before 2025-04 its skill over the base rate was -0.3, -0.6 and -1.4 % at 1/8, 1/4 and 1/2
steps a label (-8 % at 120 steps from random weights each time, -88 % in the first week). On an invented token
with reversed labels it was right in 60, 71 and 81 of 100 after a month, where 83 can be.
"""

from typing import Final

import torch

from bot.core.commands import AdaptModel
from bot.settings import Adaptation
from strategies.learning.architecture import Weights
from strategies.learning.dataset import SourceReplay
from strategies.learning.domains import series_of
from strategies.learning.encoder import Encoder
from strategies.learning.listing_training import Trainer, fresh_encoder
from strategies.learning.registry import Model
from strategies.learning.sequences import Sequences

LEAST_LABELS: Final = 8.0  # effective and new; fewer wait for the next time
STEPS_PER_LABEL: Final = 0.25
RATE: Final = 3e-4
DECAY: Final = 0.1
DROPOUT: Final = 0.1
LOG_VOL: Final = -5.0  # where the volatility head begins and stays: a snapshot does not teach it


def train(
    like: Encoder, replay: SourceReplay, job: AdaptModel, plan: Adaptation, before: Model | None
) -> Weights | None:
    """Weights of `like`'s shape, or None with too few new labels; the same arguments give the same bits.

    before: what it was, None for nothing; its card says until when it has learnt. Of the replay only the
    shape of the labels is used. Raises as `adapt` does for a broken snapshot.
    """
    token = series_of(job, replay, plan.window_bars)
    known_since = token.t_known > (before.card.until if before else 0)
    labels = float(token.weight[(token.y >= 0) & known_since].sum())
    if labels < LEAST_LABELS:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        encoder = fresh_encoder(like, DROPOUT, LOG_VOL, job.seed)
        if before is not None:
            encoder.load_state_dict({name: torch.from_numpy(w) for name, w in before.weights.items()})
        trainer = Trainer(encoder, RATE, 0.0, job.seed, DECAY)
        trainer.learn(Sequences([token], like.receptive_field - 1), round(labels * STEPS_PER_LABEL))
    return encoder.weights()
