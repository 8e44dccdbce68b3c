"""Who listens to what: subscriptions, and the way of every frame to its sessions, faults included."""

import asyncio
import time
from collections import defaultdict
from typing import Any, Final

import msgspec

from bot.exchange.local.account import Account
from bot.exchange.local.faults import Faults
from bot.exchange.local.orders import Refused
from bot.exchange.local.topics import BookTopic, Topic, public_topic
from bot.exchange.local.world import World

QUEUE: Final = 20_000  # frames that a slow client may be behind before it is cut off
DCP: Final = ("dcp.future", "dcp.spot", "dcp.option")
PRIVATE: Final = ("order", "execution", "position", "wallet", "execution.fast", "greeks", *DCP)
CATEGORISED: Final = ("order", "execution", "position", "execution.fast")
_encode: Final = msgspec.json.Encoder().encode


class Session:
    """The sending side of one connection."""

    def __init__(self, hub: "Hub", identity: str) -> None:
        self.identity = identity
        self.topics: set[str] = set()
        self.account: Account | None = None
        self.outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.is_cut = False
        self.put_at = time.monotonic()  # the last frame, s
        self.is_watching = False  # its account
        self._hub = hub
        self._held: bytes | None = None  # to be sent after the next frame, or when its time is over
        self._release_later: asyncio.TimerHandle | None = None

    def send(self, document: dict[str, Any]) -> None:
        """A reply: faults of the streams do not touch it."""
        self._put(_encode(document))

    def push(self, frame: bytes, topic: str) -> None:
        faults = self._hub.faults
        if not faults.armed and self._held is None:
            self._put(frame)
            return
        if faults.strike("drop", topic):
            return
        if fault := faults.strike("delay", topic):
            asyncio.get_running_loop().call_later(fault.ms / 1000, self._put, frame)
            return
        if self._held is None and (fault := faults.strike("reorder", topic)):
            self._held = frame
            self._release_later = asyncio.get_running_loop().call_later(fault.ms / 1000, self._release)
            return
        self._put(frame)
        self._release()
        if faults.strike("duplicate", topic):
            self._put(frame)

    def _release(self) -> None:
        if self._release_later is not None:
            self._release_later.cancel()
        if self._held is not None:
            held, self._held = self._held, None
            self._put(held)

    def _put(self, frame: bytes) -> None:
        if self.outgoing.qsize() >= QUEUE:
            self.cut()
        elif not self.is_cut:
            self.put_at = time.monotonic()
            self.outgoing.put_nowait(frame)

    def cut(self) -> None:
        """End the connection."""
        if not self.is_cut:
            self.is_cut = True
            self.outgoing.put_nowait(None)


class Hub:
    def __init__(self, world: World, faults: Faults) -> None:
        self._world = world
        self.faults = faults
        self.sessions: set[Session] = set()
        self._topics: dict[str, Topic] = {}
        self._listeners: defaultdict[str, set[Session]] = defaultdict(set)
        self._restarted = False

    # --- public -------------------------------------------------------------------------------------------

    def subscribe_public(self, session: Session, names: list[str], now: int) -> list[bytes]:
        """All or none; the frames that follow the acknowledgement. Raises Refused with the first reason."""
        wanted: dict[str, Topic] = {}
        for name in names:
            if name in session.topics:
                raise Refused(10001, f"error:already subscribed,topic:{name}")
            wanted[name] = self._topics.get(name) or public_topic(name, self._world, self.faults)
        frames = []
        for name, topic in wanted.items():
            if name not in self._topics:
                self._topics[name] = topic
                if self._restarted and isinstance(topic, BookTopic):
                    topic.restart()
            self._listeners[name].add(session)
            session.topics.add(name)
            if (frame := topic.snapshot(now)) is not None:
                frames.append(_encode(frame))
        return frames

    def unsubscribe(self, session: Session, names: list[str]) -> None:
        for name in names:
            session.topics.discard(name)
            listeners = self._listeners.get(name)
            if listeners is not None:
                listeners.discard(session)
                if not listeners:
                    del self._listeners[name]
                    self._topics.pop(name, None)

    def publish_changes(self, now: int) -> None:
        for name, topic in list(self._topics.items()):
            self._publish(name, topic, now)

    def _publish(self, name: str, topic: Topic, now: int) -> None:
        for frame in topic.changes(now):
            self._send(name, _encode(frame))

    def _send(self, name: str, payload: bytes) -> None:
        for session in list(self._listeners.get(name, ())):
            session.push(payload, name)

    def announce(self, name: str, frame: dict[str, Any]) -> None:
        """Say something on a topic that nobody computes (system.status)."""
        self._send(name, _encode(frame))

    def listen(self, session: Session, name: str) -> None:
        session.topics.add(name)
        self._listeners[name].add(session)

    # --- private ------------------------------------------------------------------------------------------

    def subscribe_private(self, session: Session, names: list[str]) -> None:
        """Raises Refused; subscribing again is harmless."""
        bases = [_base(name) for name in names]
        for name, base in zip(names, bases, strict=True):
            if base is None:
                raise Refused(10001, f"error:handler not found,topic:{name}")
            if name != base and base in names:
                raise Refused(10001, f"error:topic {base} and {name} cannot be in the same request")
        account = session.account
        if account is None:
            raise Refused(10001, "Request not authorized")
        if not session.is_watching:
            session.is_watching = True
            account.watchers += 1
        session.topics.update(names)

    def publish_private(
        self, account: Account, topic: str, data: list[dict[str, Any]], id_: str, now: int
    ) -> None:
        for session in list(self.sessions):
            if session.account is not account:
                continue
            for name in session.topics:
                if name in (topic, f"{topic}.linear"):
                    frame = {"id": id_, "topic": name, "creationTime": now, "data": data}
                    session.push(_encode(frame), name)
                elif topic == "execution" and name in ("execution.fast", "execution.fast.linear"):
                    fast = [_fast(view) for view in data if view["execType"] == "Trade"]
                    if fast:
                        session.push(_encode({"topic": name, "creationTime": now, "data": fast}), name)

    # --- sessions -----------------------------------------------------------------------------------------

    def enter(self, session: Session) -> None:
        self.sessions.add(session)

    def leave(self, session: Session) -> None:
        if session.account is not None and session.is_watching:
            session.account.watchers -= 1
        self.sessions.discard(session)
        self.unsubscribe(session, list(session.topics))

    def restart(self) -> None:
        """Every connection ends; the books begin again with u = 1."""
        for session in list(self.sessions):
            session.cut()
        self._topics.clear()
        self._listeners.clear()
        self._restarted = True


def _base(name: str) -> str | None:
    """The topic behind `order.linear` and the like; None for one that there is not."""
    if name in PRIVATE:
        return name
    base, _, category = name.rpartition(".")
    return base if base in CATEGORISED and category in ("linear", "inverse", "spot", "option") else None


def _fast(view: dict[str, Any]) -> dict[str, Any]:
    fields = (
        "category",
        "symbol",
        "execId",
        "execPrice",
        "execQty",
        "orderId",
        "isMaker",
        "side",
        "execTime",
        "seq",
    )
    link_id = "" if view["isMaker"] else view["orderLinkId"]
    return {**{name: view[name] for name in fields}, "orderLinkId": link_id}
