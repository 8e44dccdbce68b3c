"""A person's requests and a bot's heartbeats: what holds until `resume`, and who is alive."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bot.core.types import Verb
from bot.storage.database import Database
from bot.storage.mailbox import STALE_MS, Heartbeat, Mailbox, born, heartbeats

NOW = 1_790_000_000_000


@pytest.fixture
def mailbox(target: str | Path) -> Iterator[Mailbox]:
    with Database.open(target) as database:
        yield Mailbox(database, "demo")


def numbers(mailbox: Mailbox) -> list[int]:
    return [request.number for request in mailbox.in_force()]


def test_a_request_waits_until_it_is_taken_and_keeps_both_times(mailbox: Mailbox) -> None:
    asked = mailbox.post(Verb.FLATTEN, "ann", "news", NOW)
    assert mailbox.waiting() == [asked]
    assert (asked.taken, asked.done, str(asked)) == (None, None, "flatten by ann: news")
    mailbox.settle(asked.number, NOW + 1, "closing 2 positions", done=False)
    assert mailbox.waiting() == []
    mailbox.settle(asked.number, NOW + 2, "flat")
    now = mailbox.request(asked.number)
    assert (now.taken, now.done, now.answer) == (NOW + 1, NOW + 2, "flat")


def test_requests_of_another_mode_are_not_ours(mailbox: Mailbox, target: str | Path) -> None:
    with Database.open(target, readonly=True) as database:
        Mailbox(database, "live").post(Verb.KILL, "ann", "", NOW)
    assert mailbox.waiting() == mailbox.in_force() == []
    assert mailbox.killed() is None


def test_what_was_asked_for_holds_until_a_run_has_taken_a_later_resume(mailbox: Mailbox) -> None:
    paused = mailbox.post(Verb.PAUSE, "ann", "", NOW)
    killed = mailbox.post(Verb.KILL, "ann", "", NOW)
    mailbox.settle(paused.number, NOW, "paused")
    assert numbers(mailbox) == [paused.number, killed.number]
    assert mailbox.killed() == killed
    resumed = mailbox.post(Verb.RESUME, "bob", "", NOW)
    assert mailbox.killed() is None  # at once: the next start may trade
    assert numbers(mailbox) == [paused.number, killed.number, resumed.number]  # and hears of all of it
    mailbox.settle(resumed.number, NOW, "entries allowed")
    assert numbers(mailbox) == []
    again = mailbox.post(Verb.KILL, "ann", "", NOW)
    assert mailbox.killed() == again


def test_the_newest_heartbeat_of_a_mode_replaces_the_one_before(mailbox: Mailbox) -> None:
    beat = Heartbeat(
        mode="demo", host=socket.gethostname(), pid=os.getpid(), born=born(os.getpid()), phase="starting",
        since=NOW, beat=NOW, standing=None,
    )  # fmt: skip
    mailbox.beat(beat)
    later = msgspec.structs.replace(beat, phase="trading", beat=NOW + 1, standing='{"equity":1.0}')
    mailbox.beat(later)
    mailbox.beat(msgspec.structs.replace(beat, mode="paper"))
    assert mailbox.heartbeat() == later
    assert [found.mode for found in heartbeats(mailbox._engine)] == ["paper", "demo"]


def test_a_bot_is_alive_while_it_says_so_and_its_process_is_there() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    beat = Heartbeat(
        mode="demo", host=socket.gethostname(), pid=process.pid, born=born(process.pid), phase="trading",
        since=NOW, beat=NOW, standing=None,
    )  # fmt: skip
    assert beat.is_alive(NOW + STALE_MS - 1)
    assert not beat.is_alive(NOW + STALE_MS)  # it hangs
    assert not msgspec.structs.replace(beat, phase="stopped").is_alive(NOW)
    assert not msgspec.structs.replace(beat, born="another process").is_alive(NOW)
    process.kill()
    process.stdin.close()  # type: ignore[union-attr]
    process.wait()
    assert not beat.is_alive(NOW)
    assert msgspec.structs.replace(beat, host="elsewhere").is_alive(NOW)  # there only time can tell
