"""The rival that knows nothing but the token: the same network from random weights, on the same labels.

Where it is better than what was transferred, transfer does harm. It has the rows and the held-out tail of an
adaptation, as many steps as one from the source model, and the pace at which studies train it.
"""

from typing import Final

import torch

from bot.core.commands import AdaptModel
from bot.settings import Adaptation
from strategies.learning.architecture import Weights
from strategies.learning.dataset import SourceReplay
from strategies.learning.domains import parted
from strategies.learning.encoder import Encoder
from strategies.learning.listing_training import Trainer, fresh_encoder
from strategies.learning.sequences import Sequences
from strategies.learning.stopping import CHECK_EVERY, EarlyStopping

LEAST_LABELS: Final = 8.0  # effective; fewer teach nothing
RATE: Final = 3e-4
DECAY: Final = 0.1
DROPOUT: Final = 0.1
LOG_VOL: Final = -5.0  # where the volatility head begins and stays: a snapshot does not teach it


def train(like: Encoder, replay: SourceReplay, job: AdaptModel, plan: Adaptation) -> Weights | None:
    """Weights of `like`'s shape, or None with too few labels; the same arguments give the same bits.

    Of the replay only the shape of the labels is used. Raises as `adapt` does for a broken snapshot.
    """
    context = like.receptive_field - 1
    learn, tail = parted(replay, job, plan.window_bars, context)
    target = Sequences([learn], context)
    if float(target.weight.sum()) < LEAST_LABELS:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        encoder = fresh_encoder(like, DROPOUT, LOG_VOL, job.seed)
        trainer = Trainer(encoder, RATE, 0.0, job.seed, DECAY)
        stopping = EarlyStopping(encoder, Sequences([tail], context))
        for step in range(CHECK_EVERY, plan.steps + 1, CHECK_EVERY):
            trainer.learn(target, CHECK_EVERY)
            if stopping.rises(step):
                stopping.restore_best()
                break
    return encoder.weights()
