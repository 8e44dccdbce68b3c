"""What the engine answers, and how it tells the verdict on a strategy's wish."""

from bot.core.commands import Command
from bot.core.records import DecisionMade, Record, Refused
from bot.core.signal import Signal

Message = Command | Record


def refused(signal: Signal, reason: str) -> list[Message]:
    return [Refused(signal.ts, signal.symbol, reason), decision(signal, "refused", reason)]


def decision(signal: Signal, verdict: str, reason: str) -> DecisionMade:
    return DecisionMade(
        signal.ts,
        signal.symbol,
        signal.bar_start,
        signal.price,
        signal.stage,
        signal.arm,
        signal.model_id,
        signal.p_up,
        signal.confidence,
        signal.similarity,
        signal.mmd,
        signal.effective_labels,
        signal.side,
        verdict,
        reason,
        signal.statistics_until,
    )
