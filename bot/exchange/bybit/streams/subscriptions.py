"""Which topics we want, in requests that the exchange accepts, with bad topics put aside."""

import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from bot.exchange.bybit.wire.control import Reply

Ask = Callable[[str, list[str]], Awaitable[Reply]]  # op and topics


def chunks(topics: Iterable[str], size: int) -> Iterator[list[str]]:
    """At most `size` topics each, in order."""
    chunk: list[str] = []
    for topic in topics:
        chunk.append(topic)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def shards(topics: Iterable[str], characters: int) -> list[list[str]]:
    """Topics for several connections: all arguments of one may not exceed so many characters."""
    found: list[list[str]] = []
    used = characters
    for topic in topics:
        cost = len(topic) + 3  # quotes and comma
        if used + cost > characters:
            found.append([])
            used = 0
        found[-1].append(topic)
        used += cost
    return found


async def subscribe(ask: Ask, topics: Iterable[str], size: int) -> dict[str, str]:
    """Subscribe in legal chunks, awaiting every answer; the topics that were refused, with the reason.

    One bad topic makes the exchange refuse a whole request, and none of its topics is subscribed. The bad one
    is named in the answer's text, or else found by halving; the others are asked for again.
    """
    rejected: dict[str, str] = {}
    pending = deque(chunks(topics, size))
    while pending:
        chunk = pending.popleft()
        reply = await ask("subscribe", chunk)
        if reply.ok:
            continue
        text = reply.text or "refused"
        if reply.rejected_topics:  # options name the bad ones and subscribe the rest
            rejected.update((topic, text) for topic in reply.rejected_topics)
            continue
        bad = _named(text, chunk)
        if bad is None and len(chunk) > 1:
            middle = len(chunk) // 2
            pending.extendleft((chunk[middle:], chunk[:middle]))
            continue
        bad = bad or chunk[0]
        if "already subscribed" not in text:
            rejected[bad] = text
        if others := [topic for topic in chunk if topic != bad]:
            pending.appendleft(others)
    return rejected


async def unsubscribe(ask: Ask, topics: Iterable[str], size: int) -> None:
    """Give up topics. A refusal is no harm: what is not subscribed needs no unsubscribing."""
    for chunk in chunks(topics, size):
        await ask("unsubscribe", chunk)


def _named(text: str, chunk: Sequence[str]) -> str | None:
    """The topic that a refusal names, as a whole word: one topic may be the beginning of another."""
    words = set(re.findall(r"[\w.\-]+", text))
    return next((topic for topic in chunk if topic in words), None)
