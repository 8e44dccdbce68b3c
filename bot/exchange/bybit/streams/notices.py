"""What a stream tells its consumer beside the data, in the order in which it happened."""

import msgspec


class Notice(msgspec.Struct, frozen=True, tag=True):
    pass


class Connected(Notice, frozen=True):
    """Logged in and subscribed; the first data may come before. What happened while we were away is lost:
    `resync` asks for it by REST.
    """

    number: int  # connections so far


class Disconnected(Notice, frozen=True):
    reason: str
    retry_in: float  # seconds, before the connection budget


class LoginRefused(Notice, frozen=True):
    """A person must act (key, secret, permissions); the stream tries again all the same, slowly."""

    reason: str


class TopicRejected(Notice, frozen=True):
    """The exchange does not know this topic; the others of the request are subscribed."""

    topic: str
    reason: str


class BookLost(Notice, frozen=True):
    """The order book of this topic cannot be continued; the next message of it is a snapshot."""

    topic: str
    reason: str


class TopicStale(Notice, frozen=True):
    """No message for longer than this topic's deadline."""

    topic: str
    silent_s: float


class TopicFresh(Notice, frozen=True):
    """A stale topic speaks again."""

    topic: str


class BadFrames(Notice, frozen=True):
    """Frames that could not be understood, since the last notice of this kind."""

    count: int
    reason: str  # of the last one


class Resynced(Notice, frozen=True):
    """The resync by REST has succeeded: nothing is missing any more."""


class ResyncFailed(Notice, frozen=True):
    """It will be tried again while the connection lives."""

    reason: str
