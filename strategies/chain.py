"""The model from which tokens start: the source's, led on by every token seen so far, one gated step a week.

A step begins at the source model, rehearses the source, and learns the labels of all tokens that are older
than `chain_tail_days`. The newer ones judge it: it replaces the model before unless it was worse there by
more than one standard error.

The rule is that of one standard error (Breiman et al., CART, 1984) because the two models are not alike
otherwise: the newer one has learnt the same way from more tokens and fresher ones, and one week of labels, on
which all tokens move together, cannot tell small differences from chance. A gain of zero or more would refuse
every other step of no difference, and keep an older and older model. Nothing adds up when a step is a little
worse: each begins at the source, never at the step before.
"""

import math
import zlib

from bot.core.commands import CHAIN, ExtendChain
from bot.core.events import AdaptationReport, CandidateArrived
from bot.core.records import GateDecided
from bot.core.types import DAY_MS, MINUTE_MS
from bot.settings import Settings
from strategies.learning.registry import Model
from strategies.listings import Listings


class Chain:
    """Pure. `listings` is filled by the tokens; `base` is the model that a token starts from now."""

    def __init__(self, settings: Settings, pretrained: Model) -> None:
        plan = settings.adaptation
        self.base = pretrained
        self._plan = plan
        self._forgetting = settings.gate.forgetting
        self._pretrained = pretrained
        rows = plan.chain_days * DAY_MS // (settings.market.decision_minutes * MINUTE_MS)
        self.listings = Listings(len(pretrained.card.columns), rows, plan.chain_tokens)
        self._last_step = 0  # ms

    def step(self, ts: int) -> ExtendChain | None:
        """The next step, when it is due; asked at the end of each moment."""
        plan = self._plan
        if not plan.chain_tokens or ts - self._last_step < plan.chain_every_days * DAY_MS:
            return None
        if self.listings.effective_labels(ts - plan.chain_tail_days * DAY_MS) < plan.chain_labels:
            return None
        self._last_step = ts
        seed = zlib.crc32(f"{CHAIN}:{ts}".encode())
        return ExtendChain(
            ts, ts, self._pretrained.model_id, self.base.model_id, seed, *self.listings.snapshot()
        )

    def on_candidate(self, event: CandidateArrived, model: Model) -> GateDecided:
        """`base` is `model` from now on, unless it was worse, beyond chance, on labels new to both."""
        fault = self._fault(event.report)
        if fault is None:
            self.base = model
        said = fault or _gain(event.report)
        verdict = "promoted" if fault is None else "discarded"
        return GateDecided(
            event.ts, CHAIN, model.model_id, CHAIN, verdict, (said,), event.report.similarity_after,
            event.report.mmd_before, event.report.mmd_after, event.report.target_labels,
        )  # fmt: skip

    def _fault(self, report: AdaptationReport) -> str | None:
        forgotten = report.source_accuracy_before - report.source_accuracy_after
        if not math.isfinite(forgotten):
            return "its accuracy on the source was not measured"
        if forgotten > self._forgetting:
            return f"source accuracy fell by {forgotten:.3f} > {self._forgetting:g}: forgetting"
        return None if report.gain + report.gain_error >= 0 else _gain(report)


def _gain(report: AdaptationReport) -> str:
    return (
        f"gain {report.gain:+.4f} ± {report.gain_error:.4f} nats over the model before on "
        f"{report.gain_labels:.0f} newest labels"
    )
