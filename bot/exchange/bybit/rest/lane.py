"""pybit's HTTP in a thread of its own.

pybit signs and sends; everything else that it offers (retries, sleeping, logging) is switched off. A lane
with one thread keeps its requests in order. Each thread owns its HTTP object and session, and neither ever
leaves it: what comes out is an answer or a failure, both free of secrets.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import requests
from pybit import _helpers
from pybit.exceptions import FailedRequestError, InvalidRequestError
from pybit.unified_trading import HTTP
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from bot.exchange.bybit.endpoints import Endpoint
from bot.exchange.bybit.environment import Credentials, Environment
from bot.exchange.bybit.wire import Response, WireError, response_of

_NO_RETRIES: Final = {-1}  # pybit takes an empty set for "the default"
_PYBIT_LOGGER: Final = "pybit._http_manager"


class Answer(NamedTuple):
    """The exchange answered with retCode 0."""

    response: Response[Any]
    headers: Mapping[str, object]


class Refusal(NamedTuple):
    """The exchange answered with another retCode, or with an HTTP status other than 200."""

    code: int
    text: str
    headers: Mapping[str, object]
    is_http: bool


class Silence(NamedTuple):
    """No answer, or none that can be read. `sent` is False when the request certainly never left."""

    text: str
    sent: bool = True
    answered: bool = False


Outcome = Answer | Refusal | Silence


class _Thread(threading.local):
    """What each sending thread owns."""

    http: HTTP
    now_ms: Callable[[], int] | None = None


_thread: Final = _Thread()


def _timestamp() -> int:
    """pybit signs with this: the exchange's time in our threads, the wall clock in anybody else's."""
    return _thread.now_ms() if _thread.now_ms else int(time.time() * 1_000)


_helpers.generate_timestamp = _timestamp


class _Http(HTTP):  # type: ignore[misc]  # pybit is untyped
    """pybit's HTTP prints the API secret in its repr; this one does not."""

    def __repr__(self) -> str:
        return f"Http({self.endpoint})"


class SendLane:
    """One or more sending threads."""

    def __init__(
        self,
        name: str,
        environment: Environment,
        credentials: Credentials | None,
        now_ms: Callable[[], int],
        *,
        timeout: float,
        recv_window_ms: int,
        threads: int = 1,
    ) -> None:
        def own() -> None:
            _thread.http = _session(environment, credentials, timeout, recv_window_ms)
            _thread.now_ms = now_ms

        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"bybit-{name}", initializer=own)

    def submit(self, endpoint: Endpoint, params: dict[str, Any]) -> Future[Outcome]:
        """The future never raises. Cancelled before a thread picked it up, the request never leaves."""
        return self._pool.submit(_send, endpoint, params)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _session(
    environment: Environment, credentials: Credentials | None, timeout: float, recv_window_ms: int
) -> HTTP:
    http = _Http(
        api_key=credentials.key if credentials else None,
        api_secret=credentials.secret if credentials else None,
        timeout=timeout,
        recv_window=recv_window_ms,
        retry_codes=_NO_RETRIES,
        max_retries=1,
        force_retry=False,
        log_requests=False,
        return_response_headers=True,
    )
    logging.getLogger(_PYBIT_LOGGER).handlers.clear()  # it adds its own when the root logger has none yet
    http.endpoint = environment.rest
    if environment.name == "local":
        http.client.trust_env = False  # a proxy of the environment must not come between
    return http


def _send(endpoint: Endpoint, params: dict[str, Any]) -> Outcome:
    """Runs in a lane's thread. Decodes here too, so that a large answer does not hold up the event loop."""
    try:
        document, _elapsed, headers = getattr(_thread.http, endpoint.method)(**params)
        return Answer(response_of(endpoint.path, document), dict(headers))
    except InvalidRequestError as error:
        return Refusal(int(error.status_code), str(error.message), dict(error.resp_headers or {}), False)
    except FailedRequestError as error:
        if error.resp_headers is None:
            return Silence("the answer is not JSON", answered=True)
        return Refusal(int(error.status_code), str(error.message), dict(error.resp_headers), True)
    except WireError as error:
        return Silence(str(error), answered=True)
    except requests.exceptions.RequestException as error:
        return Silence(type(error).__name__, sent=not _never_left(error))
    except Exception as error:  # pybit stumbles over answers of unexpected shape
        return Silence(f"{type(error).__name__} in the client")


def _never_left(error: requests.exceptions.RequestException) -> bool:
    """True when no connection was made: refused, unreachable, unknown host, or timed out while connecting."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, NewConnectionError | ConnectTimeoutError)
