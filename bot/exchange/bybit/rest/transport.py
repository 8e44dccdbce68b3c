"""From a request to its typed answer or an ExchangeError: limits, lanes, timeouts, the meaning of codes."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from bot.core.errors import UsageError
from bot.exchange.bybit import endpoints
from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.endpoints import Endpoint
from bot.exchange.bybit.environment import Credentials, Environment
from bot.exchange.bybit.errors import UNCHANGED, ExchangeError, Kind
from bot.exchange.bybit.judge import Judge
from bot.exchange.bybit.limits import Limits
from bot.exchange.bybit.requests import Params, plain
from bot.exchange.bybit.rest.lane import Answer, Outcome, Refusal, SendLane, Silence
from bot.exchange.bybit.wire import Response


class Transport:
    """Sends requests. One for each account; close it at the end."""

    def __init__(
        self,
        environment: Environment,
        credentials: Credentials | None,
        clock: ExchangeClock,
        limits: Limits,
        *,
        timeout: float = 5.0,
        recv_window_ms: int = 5_000,
        read_attempts: int = 3,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        """`timeout` is pybit's, for the connection and for each read; the caller waits twice that at most."""
        self.environment = environment
        self._has_key = credentials is not None
        self.clock = clock
        self.limits = limits
        self.answers: Counter[str] = Counter()  # by kind of outcome
        self._judge = Judge(environment, limits, clock)
        self._timeout = timeout
        self._read_attempts = read_attempts
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._asking = asyncio.Lock()
        self.resync: Callable[[], Awaitable[object]] | None = None  # measures the clock, after a 10002
        self._lanes = {
            name: SendLane(
                name, environment, credentials, clock.now_ms,
                timeout=timeout, recv_window_ms=recv_window_ms, threads=threads,
            )
            for name, threads in (("queries", 2), ("orders", 1), ("cancels", 1))
        }  # fmt: skip

    async def call(
        self, endpoint: Endpoint, parameters: Params | None = None, cost: int = 1
    ) -> Response[Any]:
        """Send until answered: a read a few times, a write once.

        Only the caller of a write knows whether its order is still wanted, so a write is never repeated
        here, whatever the answer. Raises ExchangeError, and UsageError without the key that it takes.
        """
        if endpoint.signed and not self._has_key:
            key, secret = self.environment.key_variables
            raise UsageError(f"{endpoint.path} needs an API key: set {key} and {secret}")
        attempts = 1 if endpoint.write else self._read_attempts
        for attempt in range(attempts):
            try:
                return await self._once(endpoint, plain(parameters or {}), cost)
            except ExchangeError as error:
                if error.code == 10002:
                    await self._measure_clock()
                if error.kind is not Kind.RETRY or attempt == attempts - 1 or self.limits.banned_for:
                    raise
                await self._sleep(error.retry_after + self._rng.uniform(0, 0.25 * 2**attempt))
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, endpoint: Endpoint, parameters: Params, cost: int) -> Response[Any]:
        if self.limits.is_doubtful:
            await self._ask_whether_served()
        await self.limits.enter(endpoint.group, cost)
        outcome = await self._outcome(endpoint, parameters)
        if not isinstance(outcome, Silence):
            self._judge.note(endpoint, outcome.headers)
        if isinstance(outcome, Answer):
            response = outcome.response
            self._judge.note_items(endpoint, response, outcome.headers)
        elif isinstance(outcome, Refusal) and outcome.code in UNCHANGED and not outcome.is_http:
            response = Response(0, outcome.text, None)
        else:
            error = self._error(endpoint, outcome)
            self.answers[error.kind] += 1
            raise error
        self.answers["ok"] += 1
        return response

    async def _ask_whether_served(self) -> None:
        """A minute after a 403, by the cheapest read: an order is too dear for finding out."""
        async with self._asking:
            if not self.limits.is_doubtful:  # somebody else has asked
                return
            outcome = await self._outcome(endpoints.TIME, {})
            if isinstance(outcome, Refusal) and outcome.is_http and outcome.code == 403:
                self.limits.banned()
            else:
                self.limits.served()

    async def _outcome(self, endpoint: Endpoint, parameters: Params) -> Outcome:
        future = self._lanes[endpoint.lane].submit(endpoint, parameters)
        try:
            async with asyncio.timeout(2 * self._timeout):  # wait_for could swallow our cancellation
                return await asyncio.wrap_future(future)
        except TimeoutError:
            # the thread may still be at it: only a request that no thread had picked up is known not to leave
            return Silence(f"no answer within {2 * self._timeout:g} s", sent=not future.cancel())

    def _error(self, endpoint: Endpoint, outcome: Refusal | Silence) -> ExchangeError:
        if isinstance(outcome, Refusal):
            if outcome.is_http:
                return self._judge.of_status(endpoint, outcome.code, outcome.text)
            return self._judge.of_code(endpoint, outcome.code, outcome.text, outcome.headers)
        if not outcome.sent:
            return self._judge.of_not_sent(endpoint, outcome.text)
        if outcome.answered:
            return self._judge.of_nonsense(endpoint, outcome.text)
        return self._judge.of_silence(endpoint, outcome.text)

    async def _measure_clock(self) -> None:
        if self.resync:
            with suppress(ExchangeError):  # the error at hand says more
                await self.resync()

    def close(self) -> None:
        for lane in self._lanes.values():
            lane.close()
