"""Tells systemd that the service is ready, alive and stopping (sd_notify(3)); without systemd nothing."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

_PER_PERIOD: Final = 3  # notices within the time after which systemd ends a silent service


class Notifier:
    """Call `alive` from the loop that must not hang, as often as it comes round: silence is the alarm."""

    def __init__(
        self, variables: Mapping[str, str] = os.environ, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._address = variables.get("NOTIFY_SOCKET", "")
        self._period = int(variables.get("WATCHDOG_USEC") or 0) / 1e6 / _PER_PERIOD
        self._monotonic = monotonic
        self._due = 0.0

    def ready(self) -> None:
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        now = self._monotonic()
        if self._period and now >= self._due:
            self._due = now + self._period
            self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        name = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as link:
            try:
                link.sendto(text.encode(), name)
            except OSError:  # nobody listens: that must not end a bot
                return
