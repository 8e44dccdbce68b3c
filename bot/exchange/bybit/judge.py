"""From what came back to an ExchangeError, and what the limits learn from it; for REST and WebSocket."""

from collections.abc import Mapping
from typing import Any

from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.endpoints import Endpoint
from bot.exchange.bybit.environment import Environment
from bot.exchange.bybit.errors import (
    NO_ANSWER,
    NOT_SENT,
    TOO_FAST,
    UNREADABLE,
    ExchangeError,
    Ruling,
    advice,
    http_ruling,
    judged,
    ruling,
)
from bot.exchange.bybit.limits import Limits
from bot.exchange.bybit.wire.response import Response


class Judge:
    """Knows the environment, for advice, and the limits, for waiting."""

    def __init__(self, environment: Environment, limits: Limits, clock: ExchangeClock) -> None:
        self._environment = environment
        self._limits = limits
        self._clock = clock

    def note(self, endpoint: Endpoint, headers: Mapping[str, object]) -> None:
        """Every answer tells how much is left."""
        if headers:
            self._limits.note(endpoint.group, headers, self._clock.now_ms())

    def note_items(self, endpoint: Endpoint, response: Response[Any], headers: Mapping[str, object]) -> None:
        """The answer to a batch succeeds as a whole, also where single orders were too fast."""
        if any(verdict.code in TOO_FAST for verdict in response.verdicts):
            self._limits.exceeded(endpoint.group, headers, self._clock.now_ms())

    def of_code(
        self, endpoint: Endpoint, code: int, text: str, headers: Mapping[str, object]
    ) -> ExchangeError:
        """The exchange answered with a retCode other than 0."""
        after = 0.0
        if code == 10018:
            after = self._limits.banned()
        elif code in TOO_FAST:
            after = self._limits.exceeded(endpoint.group, headers, self._clock.now_ms())
        found = ruling(code, write=endpoint.write)
        hint = advice(code, self._environment)
        found = found._replace(reason=f"{found.reason}. {hint}" if hint else found.reason)
        return ExchangeError(found, path=endpoint.path, code=code, text=text, retry_after=after)

    def of_status(self, endpoint: Endpoint, status: int, text: str) -> ExchangeError:
        """The exchange, or something before it, answered with an HTTP status other than 200."""
        after = self._limits.suspected() if status == 403 else 0.0
        found = http_ruling(status, write=endpoint.write)
        return ExchangeError(found, path=endpoint.path, code=status, text=text, retry_after=after)

    def of_silence(self, endpoint: Endpoint, text: str) -> ExchangeError:
        """No answer came."""
        return _because(judged(NO_ANSWER, write=endpoint.write), endpoint, text)

    def of_nonsense(self, endpoint: Endpoint, text: str) -> ExchangeError:
        """An answer came that cannot be read."""
        return _because(judged(UNREADABLE, write=endpoint.write), endpoint, text)

    def of_not_sent(self, endpoint: Endpoint, text: str) -> ExchangeError:
        """The request certainly never left."""
        where = self._environment
        hint = "is `bot exchange` running there?" if where.name == "local" else "check the network"
        return _because(NOT_SENT, endpoint, f"{text}; {where.name}, {where.rest}: {hint}")


def _because(found: Ruling, endpoint: Endpoint, text: str) -> ExchangeError:
    return ExchangeError(found._replace(reason=f"{found.reason} ({text})"), path=endpoint.path)
