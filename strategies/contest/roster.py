"""Who takes part in a contest, in which role, and who is whose rival."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot.core.verdict import ADAPTED, ENSEMBLE, FROZEN, SCRATCH
from bot.settings import Gate
from strategies.contest.arm import Arm, EnsembleArm, NetworkArm
from strategies.learning.registry import Model

CHAINED: Final = "chain"
CHALLENGER: Final = "challenger"


class Roster:
    """The arms by name. champion: what the token would trade by; base: where adaptation starts, and what the
    adapted arm must beat."""

    def __init__(self, pretrained: Model, chained: Model, block: int, gate: Gate) -> None:
        """chained: `pretrained` itself where there is no chain yet; block: as in PairedScores"""
        self._lengths = block, gate.drift_blocks, gate.probation_blocks  # of every arm's scores
        self.networks: dict[str, NetworkArm] = {}
        self.ensemble: EnsembleArm | None = None  # as soon as there is a scratch arm
        nothing = np.empty((0, pretrained.card.architecture.features), np.float32)
        self.base = self.add(FROZEN, pretrained, nothing)
        if chained is not pretrained:
            self.base = self.add(CHAINED, chained, nothing)
        self.champion: Arm = self.base
        self._member: NetworkArm | None = None

    def add(self, name: str, model: Model, rows: NDArray[np.float32]) -> NetworkArm:
        """rows: (n, F) newest features since the last gap"""
        arm = self.networks[name] = NetworkArm(name, model, *self._lengths)
        arm.use(model, rows)
        return arm

    def add_scratch(self, model: Model, rows: NDArray[np.float32]) -> None:
        """And with it the ensemble. rows: as in `add`"""
        self.add(SCRATCH, model, rows)
        self.ensemble = EnsembleArm(ENSEMBLE, model, *self._lengths)

    @property
    def arms(self) -> list[Arm]:
        return [*self.networks.values(), *([self.ensemble] if self.ensemble else [])]

    @property
    def transferred(self) -> NetworkArm:
        """The arm whose weights are replaced next: a rise of its losses asks for an adaptation."""
        return self.networks.get(ADAPTED, self.base)

    @property
    def member(self) -> NetworkArm:
        """What is transferred in the ensemble. While it trades it keeps the member that it has."""
        return self._member or self.transferred

    def rival_of(self, name: str) -> str:
        """Who leads is measured against the base, who wants to lead against who leads."""
        if name in (ADAPTED, ENSEMBLE):
            return (self.base if name == self.champion.name else self.champion).name
        others = {FROZEN: CHAINED, CHAINED: FROZEN, CHALLENGER: ADAPTED, SCRATCH: self.transferred.name}
        return others[name]

    def lead(self, arm: Arm) -> None:
        """Another champion, so another rival for the others."""
        if ENSEMBLE in (self.champion.name, arm.name) and ADAPTED in self.networks:
            self.networks[ADAPTED].against_rival.reset()
        self._member = self.member if arm is self.ensemble else None
        self.champion = arm
        if self.ensemble is not None:
            self.ensemble.against_rival.reset()

    def make_base(self, arm: NetworkArm) -> None:
        """The adapted arm has another rival then, and must beat that one too."""
        led, self.base = self.champion is self.base, arm
        for each in self.networks.values():
            if each.name != CHALLENGER:
                each.against_rival.reset()
        self.lead(arm if led else self.champion)
