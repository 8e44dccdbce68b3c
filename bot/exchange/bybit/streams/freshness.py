"""How long each topic has been silent, against its deadline."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class _Watched:
    deadline: float
    heard: float
    stale: bool = False
    tries: int = 0  # to wake it up, since it fell silent
    next_try: float = 0.0


class Freshness:
    """Topics without a deadline are never stale. Times are monotonic, in seconds."""

    def __init__(self, deadlines: Mapping[str, float]) -> None:
        """`deadlines`: seconds by the beginning of a topic; the longest beginning that fits decides."""
        self._deadlines = sorted(deadlines.items(), key=lambda item: -len(item[0]))
        self._topics: dict[str, _Watched] = {}

    def watch(self, topics: Iterable[str], now: float) -> None:
        """Begin with topics that are not watched yet."""
        for topic in topics:
            deadline = next((s for start, s in self._deadlines if topic.startswith(start)), None)
            if deadline is not None:
                self._topics.setdefault(topic, _Watched(deadline, now))

    def restart(self, now: float) -> None:
        """A new connection: every topic gets its time again; a stale one stays so until it speaks."""
        for watched in self._topics.values():
            watched.heard = now
            watched.tries = 0
            watched.next_try = now + watched.deadline

    def forget(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self._topics.pop(topic, None)

    def heard(self, topic: str, now: float) -> bool:
        """Note a message; True if the topic was stale until now."""
        watched = self._topics.get(topic)
        if watched is None:
            return False
        watched.heard = now
        if not watched.stale:
            return False
        watched.stale = False
        watched.tries = 0
        return True

    def newly_stale(self, now: float) -> list[tuple[str, float]]:
        """Topics that have just passed their deadline, with the seconds of silence."""
        found = []
        for topic, watched in self._topics.items():
            if not watched.stale and now - watched.heard > watched.deadline:
                watched.stale = True
                watched.next_try = now
                found.append((topic, now - watched.heard))
        return found

    def to_wake(self, now: float) -> list[str]:
        """Stale topics whose turn it is to be subscribed anew; ever more rarely while they stay silent."""
        found = []
        for topic, watched in self._topics.items():
            if watched.stale and now >= watched.next_try:
                watched.tries += 1
                watched.next_try = now + watched.deadline * 2 ** min(watched.tries, 6)
                found.append(topic)
        return found

    def is_stale(self, topic: str) -> bool:
        watched = self._topics.get(topic)
        return watched is not None and watched.stale

    @property
    def dead(self) -> bool:
        """Every watched topic is stale in spite of being subscribed anew: the connection is at fault."""
        return bool(self._topics) and all(w.stale and w.tries > 1 for w in self._topics.values())
