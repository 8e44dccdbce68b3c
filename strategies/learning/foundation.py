"""Pretrained forecasters of other people as one more arm: a quantile forecast of the price becomes P(up).

Never the core: they are large, their weights come from a hub, and what they were trained on may hold the very
period that they are judged on. Only results after their publication count.

chronos    Ansari et al., Chronos, TMLR 2024 (Chronos, Chronos-Bolt, Chronos-2): the extra "foundation"
moirai     Woo et al., Unified Training of Universal Time Series Transformers, ICML 2024: the package uni2ts,
           which asks for an older torch than this program: never run beside it
lag_llama  Rasul et al., Lag-Llama, 2023: not on PyPI, its checkpoints are pickles; no pickle is loaded here
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bot.core.errors import DataError, UsageError

Floats = NDArray[np.float64]

LEVELS: Final = tuple(round(0.1 * number, 1) for number in range(1, 10))
BATCH: Final = 64  # contexts per forward pass
SAMPLES: Final = 200  # of a forecaster that draws paths
FARTHEST: Final = 0.02  # least and most P that nine quantiles can tell


class Forecaster(Protocol):
    """Quantile forecasts without training."""

    def quantiles(self, contexts: NDArray[np.float32], steps: int) -> Floats:
        """contexts (n, L), oldest first -> (n, LEVELS) of the value `steps` after the last one."""


class Chronos:
    """Any of the Chronos family; which one, its configuration says."""

    def __init__(self, place: str) -> None:
        from chronos import BaseChronosPipeline

        self._pipeline = BaseChronosPipeline.from_pretrained(place, device_map="cpu", dtype=torch.float32)

    def quantiles(self, contexts: NDArray[np.float32], steps: int) -> Floats:
        found = []
        for part in torch.split(torch.from_numpy(contexts), BATCH):
            told, _ = self._pipeline.predict_quantiles(
                list(part), prediction_length=steps, quantile_levels=list(LEVELS)
            )
            # Chronos-2 gives a list with one (variates, steps, levels) for each context
            ends = [one.reshape(steps, len(LEVELS))[-1] for one in told]
            found.append(torch.stack(ends).double().numpy())
        return np.concatenate(found)


class Moirai:
    """Moirai 1.x, whose samples give the quantiles."""

    def __init__(self, place: str) -> None:
        from uni2ts.model.moirai import MoiraiModule

        self._module = MoiraiModule.from_pretrained(place)

    def quantiles(self, contexts: NDArray[np.float32], steps: int) -> Floats:
        from uni2ts.model.moirai import MoiraiForecast

        length = contexts.shape[1]
        forecast = MoiraiForecast(
            module=self._module, prediction_length=steps, context_length=length, patch_size=32,
            num_samples=SAMPLES, target_dim=1, feat_dynamic_real_dim=0, past_feat_dynamic_real_dim=0,
        )  # fmt: skip
        found = []
        for part in torch.split(torch.from_numpy(contexts), BATCH):
            past, seen = part[..., None], torch.ones_like(part[..., None], dtype=torch.bool)
            with torch.no_grad():
                drawn = forecast(past, seen, torch.zeros_like(part, dtype=torch.bool))
            ends = drawn.reshape(len(part), SAMPLES, steps)[..., -1].double().numpy()
            found.append(np.quantile(ends, LEVELS, axis=1).T)
        return np.concatenate(found)


_KNOWN: Final[dict[str, tuple[str, Callable[[str], Forecaster], str]]] = {
    "chronos": ("chronos", Chronos, "pip install 'transfer-trader[foundation]'"),
    "moirai": ("uni2ts", Moirai, "pip install uni2ts in an environment with the torch that it asks for"),
}
NAMES: Final = tuple(_KNOWN)


def require(name: str) -> None:
    """Raises UsageError for a name that is not known or whose package is not installed."""
    if name == "lag_llama":
        raise UsageError("lag_llama: its checkpoints are pickles, which may run code; none is loaded here")
    if name not in _KNOWN:
        raise UsageError(f"no forecaster {name!r}; choose from {', '.join(NAMES)}")
    package, _, remedy = _KNOWN[name]
    if find_spec(package) is None:
        raise UsageError(f"{name} needs the package {package}, which is not installed: {remedy}")


def load(name: str, place: str) -> Forecaster:
    """place: a folder, or the name of a model on the hub.

    Raises UsageError as `require` does, DataError for a place that holds no such model.
    """
    require(name)
    try:
        return _KNOWN[name][1](place)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise DataError(f"{place}: not a model of {name} ({_first_line(error)})") from None


def probability_above(quantiles: Floats, threshold: Floats, levels: Sequence[float] = LEVELS) -> Floats:
    """(n,) P(value > threshold), of quantiles (n, levels) and threshold (n,); linear between quantiles."""
    ordered = np.sort(quantiles, axis=1)
    below = [
        float(np.interp(at, row, levels, left=FARTHEST, right=1 - FARTHEST))
        for row, at in zip(ordered, threshold, strict=True)
    ]
    return np.asarray(np.clip(1 - np.array(below), FARTHEST, 1 - FARTHEST))


def _first_line(error: Any) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
