"""One whole transfer on windows: check, pretrain, adapt, train the rival, calibrate, judge.

The frozen and the adapted model learn nothing from the matured labels but the class share and two numbers of
calibration; the scratch rival learns from nothing else. For the verdict all of them, the base rate too, are
fitted on some blocks of the matured windows and scored on the others (blocked cross-validation in time order;
windows next to the block are left out).

Out of fold are the scratch networks, what calibration fits to matured labels, and the base rate. Two things
are not:
- The share of "up" that balances the source's batches in the adaptation is that of all matured labels,
  those of the scored block too: one number, shrunk by 20 pseudo-labels. An adaptation for each block
  instead, tried on three worlds with label shift (160 labels), changed the adapted arm's log loss by
  +0.0011, +0.0009 and -0.0007 nats, each within a standard error of zero.
- The calibration of a block learns from log odds of scratch networks that had seen the block's labels. It
  moves two numbers, shrunk, of the rival that the adapted model must not lose to. On labels that are noise
  scratch was chosen in 3.5 % of 400 trials (its temperature was in fold then), where 5 % may be.
Matured windows may be among the unlabelled ones: those are used without their labels.
"""

from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bot.core.verdict import ADAPTED, FROZEN, NONE, SCRATCH, Verdict
from strategies.learning.calibration import Calibrator, fit_temperature
from strategies.learning.divergences import mmd
from strategies.learning.prior import share_up
from strategies.learning.verdict import judge
from strategies.learning.window_checks import Checked, TransferResult
from strategies.learning.window_net import WindowNet, scale_of
from strategies.learning.window_training import adapt, tail_of, train_scratch, train_source

Floats = NDArray[np.float64]

FOLDS: Final = 4
EMBARGO: Final = 1  # windows left out on either side of a scored block
PSEUDO_LABELS: Final = 20.0  # of the calibration: the windows' labels do not overlap
COMPARED: Final = 512  # most windows of a domain behind a divergence


class _Arm(NamedTuple):
    """Log odds, uncalibrated: of matured windows (scored: not learnt from them) and of the test's.

    temperature: fitted on the source; None for an arm that has but the matured labels to learn it from
    """

    scored: Floats
    test: Floats
    temperature: float | None

    def temperature_by(self, y: Floats, rows: NDArray[np.int64]) -> float:
        """As the labels of these matured windows have it, where the source says nothing."""
        if self.temperature is not None:
            return self.temperature
        return max(1.0, fit_temperature(self.scored[rows], y[rows]))

    def calibrator(self, y: Floats, rows: NDArray[np.int64]) -> Calibrator:
        """Learnt from the labels of these matured windows."""
        calibrator = Calibrator(self.temperature_by(y, rows), PSEUDO_LABELS)
        calibrator.fit(self.scored[rows], y[rows])
        return calibrator


def run_transfer(data: Checked, method: str, seed: int) -> TransferResult:
    if data.refusal:
        return _refused(data, method)
    with torch.random.fork_rng(devices=[]):  # initialisation and dropout draw from the global generator
        return _run(data, method, seed)


def _run(data: Checked, method: str, seed: int) -> TransferResult:
    source, target, matured, test = (
        torch.from_numpy(x) for x in (data.source_x, data.target_x, data.matured_x, data.test_x)
    )
    source_y, matured_y = torch.from_numpy(data.source_y).float(), torch.from_numpy(data.matured_y).float()
    net = train_source(source, source_y, scale_of(data.source_x), seed)
    learnt = len(source) - tail_of(len(source))
    held, held_y = source[learnt:], source_y[learnt:]
    y = data.matured_y.astype(np.float64)
    prior = share_up(y, np.ones(len(y)), float(source_y.mean()))

    nets = {FROZEN: net}
    if method != FROZEN:
        nets[method] = adapt(net, source[:learnt], source_y[:learnt], target, prior, method, seed)
    arms = {name: _transferred(one, held, held_y, matured, test) for name, one in nets.items()}
    arms[SCRATCH] = _scratch(matured, matured_y, test, scale_of(data.matured_x), seed)
    out_of_fold = {name: _cross_calibrated(arm, y) for name, arm in arms.items()}
    named = {ADAPTED if name == method and name != FROZEN else name: p for name, p in out_of_fold.items()}
    before, after = net, nets[method]
    kept = _accuracy(after, held, held_y) - _accuracy(before, held, held_y)
    verdict = judge(named, _base_rate(y), y, kept, seed)

    every = np.arange(len(y))
    by_arm = {name: arm.calibrator(y, every).p_of(arm.test) for name, arm in arms.items()}
    chosen = method if verdict.chosen == ADAPTED else verdict.chosen
    base = np.full(len(test), prior)
    return TransferResult(
        by_arm=by_arm,
        without_prior={name: _sigmoid(arm.test / arm.temperature_by(y, every)) for name, arm in arms.items()},
        probability=base if chosen == NONE else by_arm[chosen],
        verdict=verdict.chosen,
        reasons=[*verdict.figures, *verdict.reasons],
        divergence_before=_divergence(before, held, held_y, target, prior),
        divergence_after=_divergence(after, held, held_y, target, prior),
        details=verdict,
    )


def _refused(data: Checked, method: str) -> TransferResult:
    """No model: the base rate for every arm, and why."""
    base = np.full(len(data.test_x), data.base_rate)
    arms = dict.fromkeys((FROZEN, SCRATCH, method), base)
    nothing = float("nan")
    verdict = Verdict(NONE, (data.refusal,), ())
    return TransferResult(arms, arms, base, NONE, [data.refusal], nothing, nothing, verdict)


def _transferred(
    net: WindowNet, held: torch.Tensor, held_y: torch.Tensor, matured: torch.Tensor, test: torch.Tensor
) -> _Arm:
    temperature = fit_temperature(_logit(net, held, own=False), held_y.numpy().astype(np.float64))
    return _Arm(_logit(net, matured, own=True), _logit(net, test, own=True), temperature)


def _scratch(x: torch.Tensor, y: torch.Tensor, test: torch.Tensor, scale: float, seed: int) -> _Arm:
    """Scored out of fold; the test's by a model of all matured windows."""
    scored = np.full(len(x), np.nan)
    for fitted, judged in _folds(len(x)):
        one_class = y[fitted].min() == y[fitted].max()
        net = None if one_class else train_scratch(x[fitted], y[fitted], scale, seed)
        scored[judged] = 0.0 if net is None else _logit(net, x[judged], own=False)
    final = train_scratch(x, y, scale, seed)
    return _Arm(scored, _logit(final, test, own=False), None)


def _folds(n: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(fitted, judged) row numbers: consecutive blocks, with an embargo between the two."""
    blocks = np.array_split(np.arange(n), FOLDS)
    rows = np.arange(n)
    return [(rows[(rows < b[0] - EMBARGO) | (rows > b[-1] + EMBARGO)], b) for b in blocks]


def _cross_calibrated(arm: _Arm, y: Floats) -> Floats:
    p = np.empty(len(y))
    for fitted, judged in _folds(len(y)):
        p[judged] = arm.calibrator(y, fitted).p_of(arm.scored[judged])
    return p


def _base_rate(y: Floats) -> Floats:
    p = np.empty(len(y))
    for fitted, judged in _folds(len(y)):
        p[judged] = (y[fitted].sum() + 1) / (len(fitted) + 2)
    return p


def _divergence(
    net: WindowNet, held: torch.Tensor, held_y: torch.Tensor, target: torch.Tensor, prior: float
) -> float:
    """Unbiased MMD^2 between the embeddings of the source's held-out windows, with the token's class shares,
    and those of the token."""
    generator = torch.Generator().manual_seed(0)
    share = held_y.mean()
    chance = torch.where(held_y > 0.5, prior / share, (1 - prior) / (1 - share))
    count = max(2, int(min(COMPARED, len(held) * 0.7)))
    drawn = held[torch.multinomial(chance, count, generator=generator)]
    spaced = target[torch.linspace(0, len(target) - 1, min(COMPARED, len(target))).long()]
    ours, theirs = net.measure(drawn, own=False).z, net.measure(spaced, own=True).z
    return float(mmd(ours, theirs, unbiased=True))


def _logit(net: WindowNet, x: torch.Tensor, *, own: bool) -> Floats:
    return net.measure(x, own=own).logit.numpy().astype(np.float64)


def _accuracy(net: WindowNet, x: torch.Tensor, y: torch.Tensor) -> float:
    return float(((net.measure(x, own=False).logit > 0) == (y > 0.5)).float().mean())


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))
