"""One adaptation: processor seconds of the sequence path with the default network, of the window path whole
and cached, and of one step's terms, beside a matrix product of the same machine at the same time.

python -m benchmarks.adaptation [steps]

The budgets: 45 s for 500 steps of 192 + 192 embeddings of the whole default encoder, 4 s with the encoder
frozen and cached. The run ends with an error when one is broken.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from bot import settings
from bot.core.commands import AdaptModel
from strategies.learning.adaptation import adapt
from strategies.learning.alignment import alignment
from strategies.learning.architecture import Architecture
from strategies.learning.controls import Task, World
from strategies.learning.dataset import LabelledSeries, SourceReplay
from strategies.learning.divergences import fourier_mmd, joint_mmd, mmd, mmd_linear_time
from strategies.learning.encoder import Encoder
from strategies.learning.window_net import WindowNet, architecture_for
from strategies.learning.window_training import ALIGNED, STEPS
from strategies.learning.window_training import adapt as adapt_windows

WHOLE_BUDGET = 45.0
CACHED_BUDGET = 4.0
FEATURES = 24
BAR = 900_000
HORIZON = 8


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    torch.set_num_threads(1)
    unit = seconds_of(matrix_products)
    print(f"  unit: 200 products of 512 x 512 matrices, {unit:.2f} s of processor time")
    whole = sequence_adaptation(steps) * 500 / steps
    show(f"sequences, whole default encoder, 500 steps (measured {steps})", whole, unit)
    windows = World(0).task("covariate")
    show(f"windows of 32 x 12, whole, {STEPS} steps", window_adaptation(windows, "mmd"), unit)
    cached = window_adaptation(windows, "cached")
    show("windows of 32 x 12, frozen and cached, 500 steps", cached, unit)
    for name, seconds in terms().items():
        show(f"500 x {name}", 500 * seconds, unit)
    if whole > WHOLE_BUDGET or cached > CACHED_BUDGET:
        sys.exit(f"over budget: {whole:.1f} of {WHOLE_BUDGET} s, {cached:.1f} of {CACHED_BUDGET} s")


def show(what: str, seconds: float, unit: float) -> None:
    print(f"  {what:<62} {seconds:7.2f} s   {seconds / unit:6.1f} units", flush=True)


def seconds_of(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def matrix_products() -> None:
    a = torch.randn(512, 512)
    for _ in range(200):
        a @ a


def series(symbol: str, n: int, shift: float) -> LabelledSeries:
    rng = np.random.default_rng(len(symbol))
    return LabelledSeries(
        symbol=symbol,
        step=BAR,
        starts=BAR * np.arange(n, dtype=np.int64),
        x=(rng.standard_normal((n, FEATURES)) + shift).astype(np.float32),
        y=rng.integers(0, 2, n).astype(np.int8),
        weight=np.full(n, 1 / HORIZON, np.float32),
        log_vol=np.full(n, -6.0, np.float32),
        t_known=BAR * (np.arange(n, dtype=np.int64) + HORIZON + 1),
    )


def sequence_adaptation(steps: int) -> float:
    model = settings.Model()
    architecture = Architecture(
        features=FEATURES,
        channels=model.channels,
        blocks=model.blocks,
        pool_bars=model.pool_bars,
        embedding=model.embedding,
    )
    torch.manual_seed(0)
    weights = Encoder(architecture).weights()
    source, token = series("SOURCE", 8000, 0.0), series("TOKEN", 2000, 0.5)
    cut = int(token.starts[-1]) + BAR
    labels, weights_of = np.full(2000, -1, np.int8), np.zeros(2000, np.float32)
    job = AdaptModel(cut, token.symbol, cut, "base", 1, token.x, token.starts, labels, weights_of)
    how = settings.Adaptation(steps=steps)
    replay = SourceReplay((source,), int(source.starts[7000]), HORIZON)
    return seconds_of(lambda: adapt(weights, architecture, replay, job, how, 1))


def window_adaptation(task: Task, method: str) -> float:
    source, target, _, _ = task
    torch.manual_seed(0)
    net = WindowNet(architecture_for(*source.x.shape[1:]), 1.0)
    x, y = torch.from_numpy(source.x), torch.from_numpy(source.y).float()
    return seconds_of(lambda: adapt_windows(net, x, y, torch.from_numpy(target.x), 0.5, method, 0))


def terms() -> dict[str, float]:
    """Seconds of one forward and backward pass of each part, on 192 + 192 embeddings."""
    generator = torch.Generator().manual_seed(0)
    z, other = torch.randn(2, ALIGNED, 32, generator=generator).requires_grad_().unbind()
    lifted, other_lifted = torch.randn(2, ALIGNED, 64, generator=generator).requires_grad_().unbind()
    net = WindowNet(architecture_for(32, 12), 1.0)
    sensors = torch.randn(2 * ALIGNED, 32, 12, generator=generator)
    adversary = alignment("adversarial", 72, generator)

    def adversarial() -> torch.Tensor:
        source, target = net(sensors).split(ALIGNED)
        return adversary(source, target, 0.5)

    parts: dict[str, Callable[[], torch.Tensor]] = {
        "encoder on 384 windows of 32 x 12": lambda: net(sensors).logit.square().mean(),
        "the same with a discriminator": adversarial,
        "MK-MMD, quadratic": lambda: mmd(z, other),
        "joint MK-MMD of two layers": lambda: joint_mmd([lifted, z], [other_lifted, other]),
        "MK-MMD, 256 random Fourier features": lambda: fourier_mmd(z, other, generator=generator),
        "MK-MMD, linear time": lambda: mmd_linear_time(z, other),
    }
    return {name: repeated(part) for name, part in parts.items()}


def repeated(part: Callable[[], torch.Tensor], times: int = 20) -> float:
    def work() -> None:
        for _ in range(times):
            torch.autograd.backward(part(), retain_graph=True)

    work()
    return seconds_of(work) / times


if __name__ == "__main__":
    main()
