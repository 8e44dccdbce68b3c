"""Tasks that need no labels and initialise the encoder: what a window hides, resembles or will become.

masked:      spans of 30 % of the bars are blanked, their features predicted from the past; spans, because
             single bars are given away by their neighbours (He et al., MAE, CVPR 2022)
contrastive: two views of a window resemble each other more than other windows' (NT-Xent, Chen et al., SimCLR,
             ICML 2020); views stay inside the window
predictive:  an embedding tells which one follows it (CPC, van den Oord et al. 2018)
order:       were the two halves of a window exchanged?
forecast:    the mean features of the next bars
"""

from typing import Final

import torch
from torch import Tensor, nn

from bot.core.errors import TrainingFailed, UsageError
from strategies.learning.encoder import Encoder
from strategies.learning.sequences import Sequences

MASKED: Final = 0.3
SPAN: Final = 6  # bars
TEMPERATURE: Final = 0.5
AHEAD: Final = 4  # bars
LENGTH: Final = 64  # bars of a window
BATCH: Final = 64
RATE: Final = 1e-3
CLIP: Final = 5.0

PRETEXTS: Final = ("masked", "contrastive", "predictive", "order", "forecast")


def initialise(
    encoder: Encoder, data: Sequences, pretext: str, epochs: int, generator: torch.Generator
) -> list[float]:
    """Train `encoder` in place on windows of `data`, without its labels; the mean loss of every epoch."""
    task = Pretext(pretext, encoder, generator)
    free = [*encoder.parameters(), *task.parameters()]
    optimiser = torch.optim.AdamW(free, lr=RATE)
    losses = []
    encoder.train()
    for _ in range(epochs):
        cut = data.cut(LENGTH, offset=int(torch.randint(LENGTH, (), generator=generator)))
        seen = []
        for picked in torch.split(torch.randperm(len(cut.rows), generator=generator), BATCH):
            if len(picked) < 2:
                continue
            # whole windows of a chunk's own bars: neither its context nor its filling
            x = data.batch(cut, picked.numpy()).x[:, data.context :]
            loss = task(encoder, x, generator)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            if not torch.isfinite(nn.utils.clip_grad_norm_(free, CLIP)):
                raise TrainingFailed(f"the pretext task {pretext} diverged; choose another model.method")
            optimiser.step()
            seen.append(float(loss.detach()))
        losses.append(sum(seen) / max(1, len(seen)))
    return losses


class Pretext(nn.Module):
    """One task with its own head, thrown away afterwards; called with windows (B, T, F) it gives its loss."""

    def __init__(self, name: str, encoder: Encoder, generator: torch.Generator) -> None:
        super().__init__()
        if name not in PRETEXTS:
            raise UsageError(f"no pretext task {name!r}; choose from {', '.join(PRETEXTS)}")
        z, features = encoder.architecture.embedding, encoder.architecture.features
        # the order of two halves is no linear matter: a rise may be a part of a greater fall
        wide = nn.Sequential(nn.Linear(2 * z, 2 * z), nn.ReLU(), nn.Linear(2 * z, 1))
        narrow = nn.Linear(z, features if name in ("masked", "forecast") else z)
        self.head: nn.Module = wide if name == "order" else narrow
        for parameter in self.head.parameters():
            bound = parameter.shape[-1] ** -0.5
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        self._loss = getattr(self, f"_{name}")

    def forward(self, encoder: Encoder, x: Tensor, generator: torch.Generator) -> Tensor:
        loss: Tensor = self._loss(encoder, x, generator)
        return loss

    def _masked(self, encoder: Encoder, x: Tensor, generator: torch.Generator) -> Tensor:
        hidden = span_mask(len(x), x.shape[1], generator)
        guessed = self.head(encoder(x.masked_fill(hidden[..., None], 0.0)).z)
        return nn.functional.mse_loss(guessed[hidden], x[hidden])

    def _contrastive(self, encoder: Encoder, x: Tensor, generator: torch.Generator) -> Tensor:
        views = [self.head(encoder(view(x, generator)).z[:, -1]) for _ in range(2)]
        return nt_xent(views[0], views[1], TEMPERATURE)

    def _predictive(self, encoder: Encoder, x: Tensor, generator: torch.Generator) -> Tensor:
        z = encoder(x).z
        at = int(torch.randint(x.shape[1] // 2, x.shape[1] - AHEAD, (), generator=generator))
        scores = self.head(z[:, at]) @ z[:, at + AHEAD].T / z.shape[2] ** 0.5
        return nn.functional.cross_entropy(scores, torch.arange(len(x)))

    def _order(self, encoder: Encoder, x: Tensor, generator: torch.Generator) -> Tensor:
        half = x.shape[1] // 2
        first, second = (encoder(part).z[:, -1] for part in (x[:, :half], x[:, half : 2 * half]))
        swapped = torch.rand(len(x), generator=generator) < 0.5
        pair = torch.cat([first, second], dim=1)
        turned = torch.cat([second, first], dim=1)
        said = self.head(torch.where(swapped[:, None], turned, pair)).squeeze(1)
        return nn.functional.binary_cross_entropy_with_logits(said, swapped.float())

    def _forecast(self, encoder: Encoder, x: Tensor, generator: torch.Generator) -> Tensor:
        del generator
        z = encoder(x).z[:, :-AHEAD]
        later = torch.stack([x[:, ahead : x.shape[1] - AHEAD + ahead] for ahead in range(1, AHEAD + 1)]).mean(
            0
        )
        return nn.functional.huber_loss(self.head(z), later)


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy of N pairs (N, d), mean over all 2 N anchors.

    Cosine similarities; an anchor is no candidate for itself, its partner stays in the denominator.
    """
    z = nn.functional.normalize(torch.cat([a, b]), dim=1)
    scores = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(z)).roll(len(a))
    return nn.functional.cross_entropy(scores, partner)


def span_mask(n: int, bars: int, generator: torch.Generator) -> Tensor:
    """(n, bars) true where hidden: whole spans, about MASKED of every window, at least one."""
    spans = max(1, round(MASKED * bars / SPAN))
    slots = torch.rand(n, bars // SPAN, generator=generator).argsort(dim=1)[:, :spans]
    hidden = torch.zeros(n, bars, dtype=torch.bool)
    rows = torch.arange(n)[:, None]
    for step in range(SPAN):
        hidden[rows, slots * SPAN + step] = True
    return hidden


def view(x: Tensor, generator: torch.Generator) -> Tensor:
    """Noise, another scale and a hidden span: what leaves the meaning of a window alone."""
    scale = 1 + 0.1 * torch.randn(len(x), 1, 1, generator=generator)
    noisy = x * scale + 0.1 * torch.randn(x.shape, generator=generator)
    begin = torch.randint(x.shape[1] - SPAN, (len(x), 1), generator=generator)
    at = torch.arange(x.shape[1])
    return noisy.masked_fill(((at >= begin) & (at < begin + SPAN))[..., None], 0.0)
