"""The strategy: a model per token that adapts and climbs the ladder; signals from the arm that earned it."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bot.core.commands import CHAIN
from bot.core.events import (
    AdaptationFailed,
    BarClosed,
    CandidateArrived,
    FundingRatePublished,
    InstrumentDelisted,
    InstrumentListed,
    MicrostructureSampled,
)
from bot.core.records import Alarm, FeaturesSeen, Readiness
from bot.core.types import Position
from bot.settings import Settings
from strategies.base import Advice, News
from strategies.chain import Chain
from strategies.features.pipeline import FeatureBank
from strategies.learning.dataset import LabelledSeries
from strategies.learning.registry import Model
from strategies.soundness import Concerning
from strategies.token import Token

_KEPT: Final = 96  # moments whose references a late bar still finds; a day of quarter hours
_RATES: Final = 4  # funding rates of a token among which a late bar finds its own


class TransferStrategy:
    """Pure, like everything that the engine calls.

    pretrained: the source model; models: adapted ones by id, put there before their candidate is announced;
    earlier: tokens listed before, the oldest first, with what was known of them when the run begins.
    The bars of one moment are decided together: a token's features need its references' bars of that moment.
    A token's bar that comes late finds them, and its features are those of the batch. A reference that comes
    after the next moment began was missing: its bit is set in that row, and until its return has left every
    window the features say something else than the batch, which knows it.
    """

    def __init__(
        self,
        settings: Settings,
        pretrained: Model,
        models: Mapping[str, Model],
        earlier: Iterable[LabelledSeries] = (),
    ) -> None:
        self._settings = settings
        self._pretrained = pretrained
        self._models = models
        self._sources = settings.market.sources
        self._chain = Chain(settings, pretrained)
        for series in earlier:
            self._chain.listings.join(series)
        self._bank = FeatureBank(pretrained.card.statistics)
        self._tokens: dict[str, Token] = {}
        self._funding: dict[str, deque[FundingRatePublished]] = {}
        self._microstructure: dict[str, MicrostructureSampled] = {}  # of the newest decision bar
        self._moment = 0  # open time of the newest decision bar
        self._references: dict[int, dict[str, BarClosed]] = {}  # the sources' bars by moment and symbol
        self._waiting: list[BarClosed] = []  # the tokens' bars of that moment that wait for them

    def on_bar(self, bar: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
        out: list[Advice] = []
        is_source = bar.symbol in self._sources
        if is_source:
            self._keep(bar)
        if bar.start < self._moment:  # came after its moment had passed
            return out if is_source else self._decide([bar], positions, late=True)
        if bar.start > self._moment:
            out += self._decide_waiting(positions, late=True)  # a reference never came
            self._moment = bar.start
        if bar.symbol in self._tokens:
            self._waiting.append(bar)
        if len(self._references.get(bar.start, ())) == len(self._sources):
            out += self._decide_waiting(positions, late=False)
        return out

    def _keep(self, bar: BarClosed) -> None:
        self._references.setdefault(bar.start, {})[bar.symbol] = bar
        if len(self._references) > _KEPT:
            del self._references[min(self._references)]

    def on_event(self, event: News) -> Sequence[Advice]:
        if isinstance(event, InstrumentListed):
            return self._list(event)
        if isinstance(event, FundingRatePublished):
            self._funding.setdefault(event.symbol, deque(maxlen=_RATES)).append(event)
        elif isinstance(event, MicrostructureSampled):
            self._microstructure[event.symbol] = event
        elif isinstance(event, InstrumentDelisted):
            return self._forget(event)
        elif isinstance(event, Concerning):
            return self._tell_tokens(event)
        elif isinstance(event, CandidateArrived):
            return self._on_candidate(event, self._models[event.model_id])
        elif isinstance(event, AdaptationFailed):
            return (Alarm(event.ts, event.symbol, f"adaptation failed: {event.reason}"),)
        return ()

    def _tell_tokens(self, news: Concerning) -> list[Advice]:
        """The one that it is about, or all of them."""
        concerned = [token for symbol, token in self._tokens.items() if news.symbol in ("", symbol)]
        return [advice for token in concerned for advice in token.hear(news)]

    def _on_candidate(self, event: CandidateArrived, model: Model) -> Sequence[Advice]:
        if event.symbol == CHAIN:
            verdict = self._chain.on_candidate(event, model)
            if self._chain.base is model:
                for living in self._tokens.values():
                    living.on_chain(model)
            return (verdict,)
        token = self._tokens.get(event.symbol)
        scratch = event.report.scratch
        return token.on_candidate(event, model, self._models[scratch] if scratch else None) if token else ()

    def _list(self, event: InstrumentListed) -> Sequence[Advice]:
        symbol = event.instrument.symbol
        if symbol in self._sources or symbol in self._tokens:
            return ()
        if symbol in self._settings.universe.never:
            return (Alarm(event.ts, symbol, "not traded: universe.never names it"),)
        self._bank.add(symbol, event.instrument.launch_time)
        self._tokens[symbol] = Token(
            symbol, self._settings, self._pretrained, self._chain, event.instrument.launch_time
        )
        return ()

    def _rate_before(self, bar: BarClosed) -> float:
        """What was known at the close: a rate that is settled at that moment is published seconds later."""
        rates = reversed(self._funding.get(bar.symbol, ()))
        return next((rate.rate for rate in rates if rate.ts < bar.ts), math.nan)

    def _forget(self, event: InstrumentDelisted) -> Sequence[Advice]:
        self._funding.pop(event.symbol, None)
        self._microstructure.pop(event.symbol, None)
        token = self._tokens.pop(event.symbol, None)
        if token is None:
            return ()
        self._bank.remove(event.symbol)
        return token.suspend(event.ts, event.reason)

    def _decide_waiting(self, positions: Mapping[str, Position], *, late: bool) -> list[Advice]:
        waiting, self._waiting = self._waiting, []
        return self._decide(waiting, positions, late=late)

    def _decide(
        self, bars: Sequence[BarClosed], positions: Mapping[str, Position], *, late: bool
    ) -> list[Advice]:
        """Tokens' bars of one moment, features of all of them first.

        late: the moment is over: the token goes on, but opens nothing
        """
        bars = [bar for bar in bars if bar.symbol in self._tokens]
        if not bars:
            return []
        kept = self._references.get(bars[0].start, {})
        references = [kept.get(source) for source in self._sources]
        funding = [self._rate_before(bar) for bar in bars]
        micro = [self._microstructure.get(bar.symbol) for bar in bars]
        first, second = references[0], references[1 % len(references)]
        rows = self._bank.update_many(bars, first, second, funding, micro)
        out: list[Advice] = []
        for bar, row in zip(bars, rows, strict=True):
            if row.ready:
                out.append(FeaturesSeen(bar.ts, bar.symbol, tuple(row.x.tolist())))
            else:
                refused = self._bank.refused(bar.symbol)
                out.append(Readiness(bar.ts, bar.symbol, row.have, row.need, refused))
            out += self._tokens[bar.symbol].on_row(bar, row, positions.get(bar.symbol), late=late)
        step = self._chain.step(max(bar.ts for bar in bars))
        return out if step is None else [*out, step]
