"""What a person tells a running bot: heard, obeyed, written down, and in force until `resume`."""

import asyncio
import json
import math
import shlex
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from bot import control
from bot.cli import app
from bot.control import Control, Wishes, _answer, commanded
from bot.core.commands import PlaceOrder
from bot.core.errors import Latched
from bot.core.events import (
    OPERATOR,
    RESTART,
    BarClosed,
    EntriesAllowed,
    EntriesBlocked,
    InstrumentDelisted,
    MarketHealthChanged,
    OperatorCommanded,
    OthersHold,
    TokenLeftOut,
)
from bot.core.records import Alarm, BreakerReleased, Refused, RungChanged, TransferJudged
from bot.core.types import Rung, Side, Stage, Verb
from bot.core.verdict import Gain, Verdict
from bot.dashboard import status
from bot.engine.driver import drive
from bot.engine.standing import standing
from bot.settings import Storage
from bot.storage.database import Database
from bot.storage.journal import Journal
from bot.storage.mailbox import Heartbeat, Mailbox, Request
from tests.builders import BAR, START, bar, enter, fill, listed
from tests.test_database import RUN
from tests.test_engine import Desk, nothing

WISH = "the wish of a test"


def told(desk: Desk, verb: Verb, ts: int, number: int = 0) -> None:
    desk.runner.hear(OperatorCommanded(ts, ts, number, verb, "ann", WISH))


def always(closed: BarClosed, _: object) -> Sequence[object]:
    """Enter at every bar."""
    return (enter((closed.start - START) // (closed.ts - closed.start)),)


def holding() -> Desk:
    """A desk that has just bought, and wants more at every bar."""
    desk = Desk(always)  # type: ignore[arg-type]
    desk.play(bar(0, 100), bar(1, 100))
    assert desk.engine.portfolio.positions
    return desk


# --- the engine ---------------------------------------------------------------------------------------------


def test_a_pause_stops_entries_and_nothing_else() -> None:
    desk = holding()
    told(desk, Verb.PAUSE, bar(1, 100).ts)
    assert desk.journal.of(Alarm)[-1].text == f"pause by ann: {WISH}"
    sent = len(desk.journal.of(PlaceOrder))
    desk.play(bar(2, 100, low=50))  # the stop loss closes the position
    assert desk.engine.portfolio.positions == {}
    desk.play(bar(3, 100), bar(4, 100))
    assert len(desk.journal.of(PlaceOrder)) == sent
    assert desk.journal.of(Refused)[-1].reason == f"pause by ann: {WISH}"
    assert desk.engine.blocks == {"paused": f"pause by ann: {WISH}"}


def test_no_event_of_the_market_ends_a_pause_only_resume_does() -> None:
    desk = Desk(always)  # type: ignore[arg-type]
    told(desk, Verb.PAUSE, START)
    desk.runner.hear(EntriesAllowed(START, START, "feed"))
    desk.play(bar(0, 100))
    assert desk.journal.of(PlaceOrder) == []
    told(desk, Verb.RESUME, bar(0, 100).ts)
    desk.play(bar(1, 100))
    assert len(desk.journal.of(PlaceOrder)) == 1


def test_a_flattening_closes_everything_and_whatever_still_fills_afterwards() -> None:
    desk = holding()
    told(desk, Verb.FLATTEN, bar(1, 100).ts)
    assert desk.journal.of(PlaceOrder)[-1].order.reduce_only
    assert not standing(desk.engine).is_flat
    desk.play(bar(2, 100))
    assert standing(desk.engine).is_flat
    late = fill(Side.BUY, "1", "100", ts=bar(2, 100).ts)  # an entry that was under way
    desk.runner.hear(late)
    exit_ = desk.journal.of(PlaceOrder)[-1].order
    assert (exit_.reduce_only, exit_.side, exit_.qty) == (True, Side.SELL, Decimal(1))


def test_pending_entries_are_cancelled_by_a_pause_and_by_a_kill() -> None:
    for verb in (Verb.PAUSE, Verb.KILL, Verb.FLATTEN):
        desk = Desk(always)  # type: ignore[arg-type]
        desk.play(bar(0, 100))
        (entry,) = desk.journal.of(PlaceOrder)
        told(desk, verb, bar(0, 100).ts)
        desk.play(bar(1, 100))
        assert desk.engine.portfolio.positions == {}, verb
        assert entry.order.link_id not in [item.link_id for item in standing(desk.engine).orders]


def test_resume_ends_what_a_person_has_seen_to_and_not_what_needs_a_restart_or_is_still_there() -> None:
    desk = Desk(always)  # type: ignore[arg-type]
    for cause in (OPERATOR, RESTART, "account"):
        desk.runner.hear(EntriesBlocked(START, START, cause, f"of {cause}"))
    told(desk, Verb.RESUME, START + 1)
    assert desk.engine.blocks == {RESTART: "of restart", "account": "of account"}
    assert desk.journal.of(Alarm)[-1].text == f"resume by ann: {WISH}; seen to: of operator"
    assert _answer(Verb.RESUME, standing(desk.engine)) == (
        "entries still wait: restart: of restart; account: of account"
    )
    desk.runner.hear(EntriesBlocked(START + 2, START + 2, OPERATOR, "again"))
    assert desk.engine.blocks[OPERATOR] == "again"


def test_resume_ends_a_halt_and_measures_the_day_anew() -> None:
    desk = Desk(nothing)
    desk.breaker.mark(START, 10_000.0)
    desk.breaker.mark(START + 1, 9_000.0)
    assert desk.breaker.halted
    told(desk, Verb.RESUME, START + 2)
    assert [record.reason for record in desk.journal.of(BreakerReleased)] == [f"resume by ann: {WISH}"]
    assert desk.breaker.mark(START + 3, 8_990.0) == []
    assert not desk.breaker.halted
    desk.breaker.mark(START + 4, 8_700.0)
    assert desk.breaker.halted


# --- a run over a past market -------------------------------------------------------------------------------


def played(database: Database, wishes: Wishes, journal: Journal, stop_at: int | None = None) -> Desk:
    """Forty bars; told `stop_at`, the run ends before that bar."""
    desk = Desk(lambda closed, positions: () if positions else always(closed, positions))  # type: ignore[arg-type]
    desk.runner._journal = journal
    heard = wishes.begin(desk.engine, database.operator(journal.run_id), lambda: journal.replaying)
    desk.runner._observers = heard
    desk.runner.advance([listed()])
    stop = asyncio.Event()

    def bars() -> Iterator[BarClosed]:
        for index in range(40):
            if index == stop_at:
                stop.set()
            yield bar(index, 100)

    asyncio.run(drive(desk.runner, bars(), stop, journal.commit, lambda _: None, told=wishes.at))
    journal.commit()
    return desk


class Asked(Wishes):
    """Wishes that come after given bars, by no mailbox."""

    def __init__(self, wishes: dict[int, Verb]) -> None:
        super().__init__(None)
        self._wishes = {bar(index, 100).ts: verb for index, verb in wishes.items()}

    def at(self, ts: int) -> list[OperatorCommanded]:
        if (verb := self._wishes.get(ts)) and not self._stored and not self._replaying():
            self._new.append(
                Request(
                    number=0, mode="", verb=verb, by="ann", reason="", asked=0, taken=1, done=1, answer=""
                )
            )
        return super().at(ts)


def test_a_resumed_run_hears_what_it_heard_before_and_where(tmp_path: Path) -> None:
    wishes = {5: Verb.FLATTEN, 9: Verb.RESUME, 20: Verb.PAUSE}
    with Database.open(tmp_path / "a.sqlite") as database:
        whole = Journal.start(database, **RUN)
        played(database, Asked(wishes), whole)
        first = Journal.start(database, **RUN)
        played(database, Asked(wishes), first, stop_at=12)
        first.interrupt()
        again = Journal.resume(database, first.run_id)
        played(database, Asked({20: Verb.PAUSE}), again)  # what was asked before is stored
        assert not again.replaying
        assert database.commands(again.run_id) == database.commands(whole.run_id)
        assert database.operator(again.run_id) == database.operator(whole.run_id)
        assert [event.verb for event in database.operator(again.run_id)] == list(wishes.values())


# --- the daemon's side --------------------------------------------------------------------------------------


class Daemon:
    """A desk whose control is served, as in a live run: what is delivered is heard at once."""

    def __init__(self, database: Database, desk: Desk | None = None, mode: str = "demo") -> None:
        self.desk = desk or holding()
        self.ended = 0
        self.faults: list[str] = []
        self.control = Control(database, mode, look_seconds=0.02, end=self._end)
        self.desk.runner._observers = (self.control.apply,)

    def _end(self) -> None:
        self.ended += 1

    def deliver(self, request: Request) -> None:
        self.desk.runner.hear(commanded(request, bar(1, 100).ts))

    def begin(self) -> None:
        self.control.begin()
        for request in self.control.opening():
            self.deliver(request)
        self.control.watch(self.desk.engine)


async def until(condition: object, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.01)


async def test_a_request_from_another_connection_is_heard_answered_and_done(target: str | Path) -> None:
    with Database.open(target) as database, Database.open(target, readonly=True) as elsewhere:
        daemon, person = Daemon(database), Mailbox(elsewhere, "demo")
        daemon.begin()
        async with daemon.control.serving(daemon.deliver, daemon.faults.append):
            asked = person.post(Verb.FLATTEN, "ann", WISH, 1)
            await until(lambda: person.request(asked.number).taken)
            assert person.request(asked.number).answer == "closing 1 positions"
            assert person.request(asked.number).done is None
            daemon.desk.play(bar(2, 100))
            await until(lambda: person.request(asked.number).done)
            assert person.request(asked.number).answer == "flat; no entries before `bot resume`"
            asked = person.post(Verb.RESUME, "ann", "", 2)
            await until(lambda: person.request(asked.number).done)
            assert person.request(asked.number).answer == "entries allowed"
            beat = person.heartbeat()
            assert beat is not None
            assert beat.phase == "trading"
        beat = person.heartbeat()
        assert beat is not None
        assert (beat.phase, daemon.faults, daemon.ended) == ("stopped", [], 0)
        assert json.loads(beat.standing or "")["blocks"] == {}


async def test_a_kill_ends_the_process_and_the_next_start_until_resume(target: str | Path) -> None:
    with Database.open(target) as database:
        daemon, person = Daemon(database), Mailbox(database, "demo")
        daemon.begin()
        async with daemon.control.serving(daemon.deliver):
            asked = person.post(Verb.KILL, "ann", WISH, 1)
            await until(lambda: daemon.ended)
        assert person.request(asked.number).answer == "stopped; 1 positions keep their stops"
        lets = f"kill by ann: {WISH}; `bot resume --mode demo` lets it start"
        with pytest.raises(Latched, match=f"ended: {lets}"):
            daemon.control.require_alive()
        with pytest.raises(Latched, match=lets):
            Control(database, "demo").begin()
        Control(database, "paper").begin()  # another mode is not meant
        person.post(Verb.RESUME, "bob", "", 2)
        again = Daemon(database)
        again.begin()
        assert again.desk.engine.blocks == {}
        assert again.control.killed is None


async def test_a_kill_does_not_wait_for_an_engine_that_does_not_hear(target: str | Path) -> None:
    with Database.open(target) as database:
        daemon, person = Daemon(database), Mailbox(database, "demo")
        daemon.control.begin()
        async with daemon.control.serving(lambda request: None):
            asked = person.post(Verb.KILL, "ann", "", 1)
            await until(lambda: daemon.ended)
        assert person.request(asked.number).answer == control._UNHEARD


async def test_a_kill_that_comes_while_the_bot_starts_is_not_taken_for_an_old_one(target: str | Path) -> None:
    with Database.open(target) as database:
        daemon, person = Daemon(database), Mailbox(database, "demo")
        daemon.control.begin()
        old = person.post(Verb.KILL, "ann", "", 1)
        person.post(Verb.RESUME, "ann", "", 1)
        new = person.post(Verb.KILL, "ann", "", 1)
        assert [request.verb for request in daemon.control.opening()] == [Verb.RESUME]
        assert person.request(old.number).answer == "ended by a later resume"
        async with daemon.control.serving(daemon.deliver):
            await until(lambda: daemon.ended)
        assert daemon.control.killed == new


async def test_what_a_resume_ended_before_the_start_does_not_come_back_after_it(target: str | Path) -> None:
    """A live run listens while it reads the account, before it asks what is in force."""
    with Database.open(target) as database:
        person, daemon = Mailbox(database, "demo"), Daemon(database)
        paused = person.post(Verb.PAUSE, "ann", "", 1)
        person.settle(paused.number, 2, "paused")
        killed = person.post(Verb.KILL, "ann", "", 3)
        resumed = person.post(Verb.RESUME, "ann", "", 4)
        daemon.control.begin()
        async with daemon.control.serving(daemon.deliver):
            beat = person.heartbeat()
            await until(lambda: person.heartbeat() != beat)  # it has looked
            for request in daemon.control.opening():
                daemon.deliver(request)
            daemon.control.watch(daemon.desk.engine)
            await until(lambda: person.request(resumed.number).done)
        assert (daemon.desk.engine.blocks, daemon.ended, daemon.control.killed) == ({}, 0, None)
        assert person.request(killed.number).answer == "ended by a later resume"
        assert person.in_force() == []


def test_what_is_in_force_is_heard_by_the_next_start(target: str | Path) -> None:
    with Database.open(target) as database:
        person = Mailbox(database, "demo")
        paused = person.post(Verb.PAUSE, "ann", "", 1)
        person.settle(paused.number, 2, "paused")  # by a bot that is dead now
        daemon = Daemon(database)
        daemon.begin()
        assert "paused" in daemon.desk.engine.blocks
        assert standing(daemon.desk.engine).positions


async def test_a_flattening_that_a_death_cut_short_goes_on_and_one_that_ended_is_a_pause(
    target: str | Path,
) -> None:
    with Database.open(target) as database:
        person = Mailbox(database, "demo")
        asked = person.post(Verb.FLATTEN, "ann", "", 1)
        person.settle(asked.number, 2, "closing 1 positions", done=False)
        daemon = Daemon(database)
        daemon.begin()
        assert daemon.desk.journal.of(PlaceOrder)[-1].order.reduce_only
        daemon.desk.play(bar(2, 100))
        async with daemon.control.serving(daemon.deliver):
            await until(lambda: person.request(asked.number).done)
        later = Daemon(database)
        later.begin()
        assert "paused" in later.desk.engine.blocks
        assert not later.desk.journal.of(PlaceOrder)[-1].order.reduce_only


async def test_a_mailbox_that_cannot_be_read_is_told_once_and_again_when_it_works(tmp_path: Path) -> None:
    path = tmp_path / "bot.sqlite"
    with Database.open(path) as database:
        daemon = Daemon(database)
        daemon.begin()
        async with daemon.control.serving(daemon.deliver, daemon.faults.append):
            database.engine.dispose()
            path.rename(tmp_path / "away")
            path.mkdir()
            await until(lambda: daemon.faults)
            assert "cannot be written" in daemon.faults[0]
            path.rmdir()
            (tmp_path / "away").rename(path)
            await until(lambda: len(daemon.faults) == 2)
            assert daemon.faults[1] == ""


# --- the person's side --------------------------------------------------------------------------------------


def command(*arguments: str, home: Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments, "--directory", str(home)], env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_without_a_bot_a_request_is_written_down_for_the_next_start(tmp_path: Path) -> None:
    Database.open(tmp_path / "bot.sqlite").close()
    code, out = command("pause", home=tmp_path)
    assert (code, "name one with --mode" in out) == (2, True)
    code, out = command("pause", "--mode", "demo", "--reason", "lunch", home=tmp_path)
    assert code == 0
    assert "Written down for the next start of demo" in out
    with Database.open(tmp_path / "bot.sqlite") as database:
        (request,) = Mailbox(database, "demo").in_force()
        assert (request.verb, request.reason, request.taken) == (Verb.PAUSE, "lunch", None)


def test_what_a_killed_bot_says_to_type_names_its_folder_and_lets_it_start(tmp_path: Path) -> None:
    home = tmp_path / "another folder"
    Database.open(home / "bot.sqlite").close()
    command("kill", "--mode", "paper", home=home)
    code, out = command("paper", home=home)
    assert code == 5
    program, *arguments = shlex.split(out.split("`")[1])
    assert program == "bot"
    assert CliRunner().invoke(app, arguments).exit_code == 0
    with Database.open(home / "bot.sqlite") as database:
        assert Mailbox(database, "paper").killed() is None
    assert Storage().option == "", "the default folder needs no name"


@pytest.mark.parametrize("arguments", [(), ("--mode", "live")])
@pytest.mark.parametrize("verb", ["kill", "pause", "resume"])
def test_where_no_bot_ever_ran_nothing_is_written_down(
    tmp_path: Path, verb: str, arguments: tuple[str, ...]
) -> None:
    code, out = command(verb, *arguments, home=tmp_path)
    assert code == 2
    assert f"no bot has ever run in {tmp_path}: name the folder of the one you mean by --directory" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["kill", "pause", "flatten"])
def test_a_mistake_elsewhere_in_the_configuration_keeps_nobody_from_stopping_the_bot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    Database.open(tmp_path / "bot.sqlite").close()
    monkeypatch.setenv("BOT_RISK__STOPP", "1")
    code, out = command(verb, "--mode", "paper", home=tmp_path)
    assert (code, "Written down" in out) == (0, True)
    assert "did you mean BOT_RISK__STOP?" in out
    with Database.open(tmp_path / "bot.sqlite") as database:
        assert [request.verb for request in Mailbox(database, "paper").in_force()] == [Verb(verb)]
    assert command("resume", "--mode", "paper", home=tmp_path)[0] == 2


def test_status_says_how_a_bot_stands_and_its_exit_code_whether_it_is_well(tmp_path: Path) -> None:
    assert command("status", home=tmp_path)[0] == 3
    with Database.open(tmp_path / "bot.sqlite") as database:
        daemon = Daemon(database)
        daemon.control.begin()
        code, out = command("status", home=tmp_path)
        assert code == 1
        assert "demo: alive, starting since" in out
        daemon.begin()
        asyncio.run(one_look(daemon))
        code, out = command("status", home=tmp_path)
        assert code == 3  # it has said that it stops
        assert "demo: stopped" in out
        assert "as it last stood:" in out
        assert "position NEWUSDT +2" in out
        assert "last decision bar closed 2025-01-01 00:30, 0 s ago" in out  # by the run's clock
        Mailbox(database, "demo").post(Verb.PAUSE, "ann", "lunch", 0)
        assert "held by pause, 1970-01-01 00:00, ann: lunch, not taken up yet" in command(
            "status", home=tmp_path
        )[1]  # fmt: skip


async def test_status_tells_a_kill_once_and_no_more_after_the_resume_of_a_dead_bot(tmp_path: Path) -> None:
    with Database.open(tmp_path / "bot.sqlite") as database:
        daemon, person = Daemon(database), Mailbox(database, "demo")
        daemon.begin()
        async with daemon.control.serving(daemon.deliver):
            person.post(Verb.KILL, "ann", WISH, 1)
            await until(lambda: daemon.ended)
    assert command("status", home=tmp_path)[1].count(WISH) == 1
    command("resume", home=tmp_path)
    assert WISH not in command("status", home=tmp_path)[1]


@pytest.mark.parametrize(("held", "code"), [(False, 0), (True, 1)])
def test_a_run_that_came_to_its_end_is_not_taken_for_one_that_was_stopped(
    tmp_path: Path, held: bool, code: int
) -> None:
    with Database.open(tmp_path / "bot.sqlite") as database:
        daemon = Daemon(database)
        daemon.begin()
        daemon.control.finish()
        asyncio.run(one_look(daemon))
        if held:
            Mailbox(database, "demo").post(Verb.PAUSE, "ann", "", 0)
    told, out = command("status", home=tmp_path)
    assert told == code
    assert "demo: finished" in out
    assert "`bot report` shows what it brought" in out
    assert "stopped" not in out


def test_status_groups_the_tokens_that_are_left_out_by_reason() -> None:
    engine = Desk(nothing).engine
    thin = {f"T{n}USDT": f"turnover of {n} a day < 1,000" for n in range(10)}
    for name, reason in {**thin, "FULLUSDT": "all 3 places are taken", "GONEUSDT": "spread"}.items():
        engine.step(TokenLeftOut(START, START, name, reason))
    engine.step(TokenLeftOut(START, START, "GONEUSDT", ""))
    said = msgspec.json.encode(standing(engine)).decode()
    beat = Heartbeat(
        mode="demo", host="h", pid=1, born="", phase="trading", since=0, beat=0, standing=said
    )  # fmt: skip
    told = [line for line in status.lines(beat, [], 0) if line.startswith("not followed")]
    assert told == [
        "not followed: FULLUSDT (all 3 places are taken)",
        "not followed: T0USDT, T1USDT, T2USDT, T3USDT, T4USDT, T5USDT, T6USDT, T7USDT and 2 more "
        "(turnover of … a day < …)",
    ]


def test_status_names_a_fault_of_the_market_data_once_with_the_symbols_that_have_it() -> None:
    engine = Desk(nothing).engine
    for number in range(10):
        engine.step(MarketHealthChanged(START, START, f"T{number}USDT", ("the book is stale",)))
    beat = Heartbeat(
        mode="demo", host="h", pid=1, born="", phase="trading", since=0, beat=0,
        standing=msgspec.json.encode(standing(engine)).decode(),
    )  # fmt: skip
    told = [line for line in status.lines(beat, [], 0) if line.startswith("market data")]
    assert told == [
        "market data of T0USDT, T1USDT, T2USDT, T3USDT, T4USDT, T5USDT, T6USDT, T7USDT and 2 more: "
        "the book is stale"
    ]


def test_what_somebody_else_has_is_told_while_they_have_it() -> None:
    desk = holding()
    desk.runner.hear(OthersHold(START, START, "OLDUSDT", Decimal("-5"), 2))
    beat = Heartbeat(
        mode="demo", host="h", pid=1, born="", phase="trading", since=0, beat=0,
        standing=msgspec.json.encode(standing(desk.engine)).decode(),
    )  # fmt: skip
    told = "a position of -5 and 2 open orders"
    assert f"left alone: OLDUSDT, {told} of somebody else" in list(status.lines(beat, [], 0))
    answer = f"closing 1 positions; left alone, somebody else has it: OLDUSDT ({told})"
    assert _answer(Verb.FLATTEN, standing(desk.engine)) == answer
    later = Desk(nothing)
    later.engine.take_over(desk.engine)
    assert later.engine.others == {"OLDUSDT": told}
    desk.runner.hear(OthersHold(START, START, "OLDUSDT", Decimal(0), 0))
    assert desk.engine.others == {}
    assert [item.text for item in desk.journal.of(Alarm)] == [
        f"somebody else has {told} here: left alone, no entries", "nobody else is here now",
    ]  # fmt: skip


def test_status_says_what_each_token_is_traded_by_and_why() -> None:
    """What the strategy told last; a token that is gone is told of no more."""
    ladder = [
        RungChanged(START, "NEWUSDT", Stage.SHADOW, Rung.NONE, "frozen", "4 of 100 effective labels"),
        RungChanged(START, "NEWUSDT", Stage.SMALL, Rung.PROMOTED, "adapted", "evidence 31 against the base"),
        RungChanged(START, "OLDUSDT", Stage.SHADOW, Rung.NONE, "frozen", "similarity 0.31 < 0.7"),
    ]
    gain = Gain("adapted", "base rate", 0.012, 0.004, 0.02, math.nan, 120.0, 31.0)
    verdict = Verdict("adapted", ("evidence 31 against the base",), (gain,), -0.004)
    judged = [TransferJudged(START, name, verdict) for name in ("NEWUSDT", "OLDUSDT")]
    desk = Desk(lambda closed, _: [*ladder, *judged])
    desk.play(bar(0, 100.0))
    desk.engine.step(InstrumentDelisted(START + 2 * BAR, START + 2 * BAR, "OLDUSDT"))
    beat = Heartbeat(
        mode="demo", host="h", pid=1, born="", phase="trading", since=0, beat=0,
        standing=msgspec.json.encode(standing(desk.engine)).decode(),
    )  # fmt: skip
    told = list(status.lines(beat, [], 0))
    at = told.index("NEWUSDT SMALL, promoted (adapted): evidence 31 against the base")
    assert told[at + 1] == (
        "  transfer to NEWUSDT: adapted; evidence 31 against the base; adapted over base rate: +0.012 nats "
        "[+0.004, +0.020], evidence 31, 120 effective labels"
    )
    assert not any("OLDUSDT" in line for line in told)


async def one_look(daemon: Daemon) -> None:
    async with daemon.control.serving(daemon.deliver):
        await asyncio.sleep(0)


async def test_a_person_waits_for_the_answer_of_a_bot_that_lives(tmp_path: Path) -> None:
    with Database.open(tmp_path / "bot.sqlite") as database:
        daemon = Daemon(database)
        daemon.begin()
        async with daemon.control.serving(daemon.deliver):
            code, out = await asyncio.to_thread(command, "pause", home=tmp_path)
            assert (code, "paused: no entries; 1 positions are looked after" in out) == (0, True)
            assert (await asyncio.to_thread(command, "status", home=tmp_path))[0] == 1
            code, out = await asyncio.to_thread(command, "resume", home=tmp_path)
            assert (code, "entries allowed" in out) == (0, True)
            await until(lambda: command("status", home=tmp_path)[0] == 0)
