"""What the engine wants done, in the imperative. The runner writes a command down before it leaves."""

import hashlib
from decimal import Decimal
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.types import OrderRequest, Trigger

CHAIN: Final = "chain"  # in place of a symbol: what concerns all listings together


class Command(msgspec.Struct, frozen=True, tag=True):
    ts: int  # ms UTC of the event that caused it


class PlaceOrder(Command, frozen=True):
    order: OrderRequest
    valid_until: int = 0  # ms UTC; later it is dropped, not sent. 0: the broker's own patience


class AmendOrder(Command, frozen=True):
    """Move a resting order to another price; it keeps its id and what was filled."""

    symbol: str
    link_id: str
    price: Decimal


class CancelOrder(Command, frozen=True):
    symbol: str
    link_id: str


class MoveStop(Command, frozen=True):
    """Amend the stop loss of the open position."""

    symbol: str
    stop_loss: Decimal
    trigger_by: Trigger = Trigger.LAST


BrokerCommand = PlaceOrder | AmendOrder | CancelOrder | MoveStop


class AdaptModel(Command, frozen=True):
    """Adapt `base_model` to one token, from a snapshot that ends at `cut`.

    rows:    float32 (n, F) normalised features, oldest first
    starts:  int64 (n,) open time of each row's bar, ms; a step other than one bar is a gap
    labels:  int8 (n,) 1 = up, 0 = down, -1 = not matured at `cut`
    weights: float32 (n,) uniqueness of each label, 0 where there is none
    reason:  why now, for people; urgent: an alarm asks for it, not the schedule
    until:   ms, nothing later taught the model that it is to replace
    scratch: the rival that has the token's labels alone and goes on learning beside it; "" for none yet
    """

    symbol: str
    cut: int
    base_model: str
    seed: int
    rows: NDArray[np.float32]
    starts: NDArray[np.int64]
    labels: NDArray[np.int8]
    weights: NDArray[np.float32]
    reason: str = ""
    urgent: bool = False
    until: int = 0
    scratch: str = ""

    def summary(self) -> dict[str, Any]:
        """What goes into the journal instead of the arrays."""
        return {
            "symbol": self.symbol,
            "cut": self.cut,
            "base_model": self.base_model,
            "scratch": self.scratch,
            "seed": self.seed,
            "reason": self.reason,
            "rows": len(self.rows),
            "labels": int((self.labels >= 0).sum()),
            "snapshot": self._digest(),
        }

    def _digest(self) -> str:
        return digest_of(self.rows, self.starts, self.labels, self.weights)


class ExtendChain(Command, frozen=True):
    """Lead `base_model`, the source's, on to all tokens seen so far, from a snapshot that ends at `cut`.

    rival_model: the model from which tokens start so far; the new one replaces it if it is not worse
    listings:    symbol and number of rows of each token, the oldest listing first; the arrays hold the tokens
                 one after the other, as in AdaptModel
    log_vol:     float32 (n,) log realised volatility per bar over the label's horizon, NaN where unknown
    """

    cut: int
    base_model: str
    rival_model: str
    seed: int
    listings: tuple[tuple[str, int], ...]
    rows: NDArray[np.float32]
    starts: NDArray[np.int64]
    labels: NDArray[np.int8]
    weights: NDArray[np.float32]
    log_vol: NDArray[np.float32]

    @property
    def symbol(self) -> str:
        return CHAIN

    def summary(self) -> dict[str, Any]:
        """What goes into the journal instead of the arrays."""
        return {
            "cut": self.cut,
            "base_model": self.base_model,
            "rival_model": self.rival_model,
            "seed": self.seed,
            "listings": len(self.listings),
            "rows": len(self.rows),
            "labels": int((self.labels >= 0).sum()),
            "snapshot": digest_of(self.rows, self.starts, self.labels, self.weights, self.log_vol),
        }


def digest_of(*arrays: NDArray[Any]) -> str:
    """Equal for equal arrays only, so that a replay notices another snapshot."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class FetchBook(Command, frozen=True):
    """Ask for a snapshot of the order book to compare with."""

    symbol: str
    levels: int


class RenewBook(Command, frozen=True):
    """Our book of this topic is wrong: subscribe anew, so that a snapshot comes."""

    symbol: str
    topic: str
    reason: str
