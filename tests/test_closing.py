"""`bot flatten` without a bot: every position closed by REST alone, whatever the exchange does meanwhile."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bot.cli import app
from bot.commands import flatten as flatten_command
from bot.control import Control
from bot.core.errors import RuntimeFault
from bot.core.events import PositionAdopted
from bot.core.types import Verb
from bot.exchange.bybit import closing
from bot.exchange.bybit.closing import Closing
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.bybit.errors import TABLE, ExchangeError
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.requests import NewOrder
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.wire.private import Execution
from bot.execution.orders import Orders, tag_of
from bot.storage.database import Database
from bot.storage.journal import Journal
from bot.storage.mailbox import Mailbox
from tests.builders import START
from tests.local_exchange import KEY, SECRET, LocalExchange, local_exchange
from tests.test_database import RUN


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    with local_exchange(manual=False) as running:
        yield running


async def hold(exchange: LocalExchange, ours: str | None = None) -> None:
    """A long and a short position (of the order `ours`), an entry of ours and one of somebody else's."""
    rest = Rest(local(exchange.url), Credentials(KEY, SECRET))
    await rest.measure_clock()
    for symbol, side, qty, stop in (("ETHUSDT", "Buy", "1", 2_400), ("BTCUSDT", "Sell", "0.01", 61_000)):
        order = NewOrder(
            symbol=symbol,
            side=side,
            order_type="Market",
            qty=Decimal(qty),
            stop_loss=Decimal(stop),
            order_link_id=ours if symbol == "BTCUSDT" else None,
        )
        await rest.orders.create(order)
    for link_id in (Orders(tag_of(START, 1)).next_id("ETHUSDT"), "by-hand"):
        resting = NewOrder(
            symbol="ETHUSDT", side="Buy", order_type="Limit", qty=Decimal(1), price=Decimal(2_000),
            order_link_id=link_id,
        )  # fmt: skip
        await rest.orders.create(resting)
    rest.close()


def held(exchange: LocalExchange) -> dict[str, Decimal]:
    return exchange.do(lambda: {item.contract.symbol: item.qty for item in exchange.account.held()})


async def close(exchange: LocalExchange, *, everything: bool = False) -> tuple[list[str], str]:
    """Every position, as where they are adopted, or really everything."""
    told: list[str] = []
    rest = Rest(local(exchange.url), Credentials(KEY, SECRET))
    await rest.measure_clock()

    async def briefly(_: float) -> None:
        await asyncio.sleep(0.05)

    try:
        closed = await Closing(rest, told.append, None if everything else Ownership(), sleep=briefly).run()
        return told, f"{closed.positions} {len(closed.cancelled)} {closed.left}"
    finally:
        rest.close()


async def test_everything_is_closed_and_the_order_of_a_stranger_is_named(exchange: LocalExchange) -> None:
    await hold(exchange)
    assert len(held(exchange)) == 2
    told, done = await close(exchange)
    assert held(exchange) == {}
    assert done == "['BTCUSDT', 'ETHUSDT'] 1 ['ETHUSDT by-hand']"
    assert "sell 1.00 ETHUSDT to close it" in told
    told, done = await close(exchange)
    assert (told, done) == ([], "[] 0 ['ETHUSDT by-hand']")


async def test_where_everything_is_to_go_nothing_stays_that_could_open_a_position(
    exchange: LocalExchange,
) -> None:
    """A stranger's entry that waits for a price is among them."""
    await hold(exchange)
    rest = Rest(local(exchange.url), Credentials(KEY, SECRET))
    await rest.measure_clock()
    waiting = NewOrder(
        symbol="BTCUSDT", side="Buy", order_type="Market", qty=Decimal("0.01"), trigger_price=Decimal(70_000),
        trigger_direction=1,
    )  # fmt: skip
    await rest.orders.create(waiting)
    _, done = await close(exchange, everything=True)
    assert done == "['BTCUSDT', 'ETHUSDT'] 3 []"
    assert held(exchange) == {}
    assert await rest.orders.open_orders(settle_coin="USDT") == []
    rest.close()


async def test_a_position_of_others_is_asked_about_once(exchange: LocalExchange) -> None:
    """However many rounds the rest takes; again when it has changed, as often as it is new."""
    await hold(exchange)
    rest = Rest(local(exchange.url), Credentials(KEY, SECRET))
    await rest.measure_clock()
    asked: list[str] = []
    executions = rest.orders.executions

    async def counted(**query: Any) -> list[Execution]:
        asked.append(query["symbol"])
        return await executions(**query)

    rest.orders.executions = counted  # type: ignore[method-assign]
    rounds = 0

    async def after(_: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            await rest.orders.create(
                NewOrder(symbol="BTCUSDT", side="Sell", order_type="Market", qty=Decimal("0.01"))
            )
            exchange.do(lambda: age("BTCUSDT"))

    def age(*symbols: str) -> None:
        for item in exchange.account.held():
            item.updated -= 60_000 if item.contract.symbol in symbols else 0

    exchange.do(lambda: age("BTCUSDT", "ETHUSDT"))
    exchange.arm("bad_gateway", "/v5/order/cancel*", count=5)
    owners = Ownership(leave=True, earlier=[tag_of(START, 1)])
    closed = await Closing(rest, lambda _: None, owners, sleep=after).run()
    rest.close()
    assert len(closed.cancelled) == 1
    assert rounds > 3
    assert Counter(asked) == {"ETHUSDT": 1, "BTCUSDT": 2}


async def test_what_is_on_record_is_closed_while_nobody_says_whose_the_others_are(
    exchange: LocalExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "_ROUNDS", 2)
    await hold(exchange)
    rest = Rest(local(exchange.url), Credentials(KEY, SECRET))
    await rest.measure_clock()
    exchange.arm("bad_gateway", "/v5/execution/list", lasts_ms=60_000)
    owners = Ownership(leave=True, earlier=[tag_of(START, 1)], past={"BTCUSDT": [(0, math.inf)]})
    with pytest.raises(RuntimeFault, match=r"other positions may be ours or not: .*execution/list"):
        await Closing(rest, lambda _: None, owners).run()
    assert held(exchange) == {"ETHUSDT": Decimal(1)}
    orders = await rest.orders.open_orders(settle_coin="USDT")
    assert [item.order_link_id for item in orders if not item.reduce_only] == ["by-hand"]
    rest.close()


async def test_what_asking_again_does_not_mend_is_told_once_all_that_is_on_record_is_closed(
    exchange: LocalExchange,
) -> None:
    await hold(exchange)
    rest = Rest(local(exchange.url), Credentials(KEY, SECRET))
    await rest.measure_clock()
    asked = 0

    async def forbidden(**_: Any) -> list[Execution]:
        nonlocal asked
        asked += 1
        raise ExchangeError(TABLE[10005], path="/v5/execution/list", code=10005)

    rest.orders.executions = forbidden  # type: ignore[method-assign]
    exchange.arm("bad_gateway", "/v5/order/create*", count=1)
    owners = Ownership(leave=True, earlier=[tag_of(START, 1)], past={"BTCUSDT": [(0, math.inf)]})
    with pytest.raises(ExchangeError, match="lacks a permission"):
        await Closing(rest, lambda _: None, owners).run()
    assert held(exchange) == {"ETHUSDT": Decimal(1)}
    assert 1 < asked < 12  # BTCUSDT was tried twice, the others not to the last round
    rest.close()


@pytest.mark.parametrize("fault", ["ack_lost", "drop", "server_error", "bad_gateway", "too_many_visits"])
async def test_it_goes_on_through_faults_and_never_turns_a_position(
    exchange: LocalExchange, fault: str
) -> None:
    await hold(exchange)
    exchange.arm(fault, "/v5/order/*", count=3)
    await close(exchange)
    assert held(exchange) == {}


async def test_what_cannot_be_closed_is_told(exchange: LocalExchange) -> None:
    await hold(exchange)
    exchange.arm("bad_gateway", "/v5/order/create*", lasts_ms=60_000)
    with pytest.raises(RuntimeFault, match=r"not flat after 12 rounds .*: close by hand"):
        await close(exchange)
    assert len(held(exchange)) == 2


def flatten(exchange: LocalExchange, home: Path, *arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(
        app, ["flatten", "--mode", "testnet", "--url", exchange.url, "--directory", str(home), *arguments],
        env={"COLUMNS": "200", **variables},
    )  # fmt: skip


@pytest.mark.parametrize("broken", ["", "bot.sqlite", "config.toml"])
def test_the_command_closes_everything_even_without_database_or_configuration(
    exchange: LocalExchange, tmp_path: Path, broken: str
) -> None:
    asyncio.run(hold(exchange))
    (tmp_path / "config.toml").write_text("")
    if broken:
        (tmp_path / broken).write_text("neither a database nor TOML")
    result = flatten(exchange, tmp_path, "--all", "--config", str(tmp_path / "config.toml"))
    assert "No bot that trades answers for testnet: closing on local from here" in result.output
    assert result.exit_code == 0, result.output
    assert "flat: 2 positions closed, 2 entries cancelled\n" in result.output
    assert held(exchange) == {}
    assert "Nothing holds the next start back" in result.output
    assert broken == "bot.sqlite" or not (tmp_path / "bot.sqlite").exists()


def test_without_a_database_what_an_order_of_this_program_opened_is_closed(
    exchange: LocalExchange, tmp_path: Path
) -> None:
    asyncio.run(hold(exchange, ours=Orders(tag_of(START, 3)).next_id("BTCUSDT")))
    result = flatten(exchange, tmp_path)
    assert result.exit_code == 4, result.output
    assert held(exchange) == {"ETHUSDT": Decimal(1)}
    assert "positions of others are left: ETHUSDT +1.00 (--all closes them, too)" in result.output
    assert "That may not be all that is ours: no database could be read" in result.output


def had(home: Path, account: int, symbol: str) -> None:
    """A run on an account that held something in the end."""
    config = json.dumps({"choice": {"account": str(account)}})
    with Database.open(home / "bot.sqlite") as database:
        journal = Journal.start(database, **{**RUN, "kind": "testnet", "config_json": config})
        journal.write(PositionAdopted(1, 1, symbol, Decimal(1), Decimal(1), None, ""))
        journal.finish({})


def test_what_runs_on_another_account_held_says_nothing_of_this_one(
    exchange: LocalExchange, tmp_path: Path
) -> None:
    asyncio.run(hold(exchange))
    had(tmp_path, 7, "ETHUSDT")
    had(tmp_path, exchange.account.uid, "BTCUSDT")
    result = flatten(exchange, tmp_path)
    assert result.exit_code == 0, result.output
    assert held(exchange) == {"ETHUSDT": Decimal(1)}
    assert "positions of others are left: ETHUSDT +1.00" in result.output
    assert "open orders of others are left: ETHUSDT by-hand, ETHUSDT t" in result.output
    assert "(--all cancels them, too)\n" in result.output


def test_the_key_of_an_account_that_no_run_was_on_is_refused_and_nothing_is_written_down(
    exchange: LocalExchange, tmp_path: Path
) -> None:
    """Nothing of the bot is there to close: that would pass for done, and its next start would close all."""
    asyncio.run(hold(exchange))
    had(tmp_path, 7, "ETHUSDT")
    result = flatten(exchange, tmp_path, BOT_BYBIT__FOREIGN_POSITIONS="adopt")
    assert result.exit_code == 2
    assert f"the key is one of account {exchange.account.uid}, on which no run of testnet" in result.output
    assert len(held(exchange)) == 2
    with Database.open(tmp_path / "bot.sqlite") as database:
        assert Mailbox(database, "testnet").in_force() == []
    assert flatten(exchange, tmp_path, "--all").exit_code == 0
    assert held(exchange) == {}


def test_where_the_exchange_does_not_say_which_account_it_is_all_that_any_run_held_is_closed(
    exchange: LocalExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the ids of orders tell. The request stands: that may not be all, or another account."""
    monkeypatch.setattr(flatten_command, "_PAUSES", (0.0,))
    asyncio.run(hold(exchange, ours=Orders(tag_of(START, 3)).next_id("BTCUSDT")))
    had(tmp_path, exchange.account.uid, "ETHUSDT")
    exchange.arm("bad_gateway", "/v5/user/query-api", lasts_ms=60_000)
    result = flatten(exchange, tmp_path)
    assert result.exit_code == 4, result.output
    assert "In doubt ours is what any run of this mode on record held" in result.output
    assert held(exchange) == {}
    assert "flat: 2 positions closed, 1 entries cancelled" in result.output
    with Database.open(tmp_path / "bot.sqlite") as database:
        (request,) = Mailbox(database, "testnet").in_force()
        assert not request.done
        assert "That may not be all that is ours: /v5/user/query-api" in request.answer


def test_the_exchange_is_asked_again_which_account_it_is(
    exchange: LocalExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flatten_command, "_PAUSES", (0.0, 0.0))
    asyncio.run(hold(exchange))
    had(tmp_path, exchange.account.uid, "ETHUSDT")
    exchange.arm("bad_gateway", "/v5/user/query-api", count=2)
    result = flatten(exchange, tmp_path)
    assert result.exit_code == 0, result.output
    assert held(exchange).keys() == {"BTCUSDT"}
    assert "Warning" not in result.output


@pytest.mark.parametrize("policy", ["leave", "adopt"])
def test_with_a_database_what_is_ours_is_closed_and_the_request_is_done(
    exchange: LocalExchange, tmp_path: Path, policy: str
) -> None:
    asyncio.run(hold(exchange))
    had(tmp_path, exchange.account.uid, "BTCUSDT")
    result = flatten(exchange, tmp_path, BOT_BYBIT__FOREIGN_POSITIONS=policy)
    assert result.exit_code == 0, result.output
    assert held(exchange) == ({"ETHUSDT": Decimal(1)} if policy == "leave" else {})
    assert ("positions of others are left: ETHUSDT +1.00" in result.output) == (policy == "leave")
    with Database.open(tmp_path / "bot.sqlite") as database:
        (request,) = Mailbox(database, "testnet").in_force()
        assert request.verb is Verb.FLATTEN
        assert request.done


def test_without_a_key_nothing_is_written_down(exchange: LocalExchange, tmp_path: Path) -> None:
    Database.open(tmp_path / "bot.sqlite").close()
    result = CliRunner().invoke(
        app, ["flatten", "--mode", "live", "--directory", str(tmp_path)], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 2
    assert "set BOT_LIVE_API_KEY and BOT_LIVE_API_SECRET" in result.output
    with Database.open(tmp_path / "bot.sqlite") as database:
        assert Mailbox(database, "live").in_force() == []


def test_without_a_key_the_bot_that_starts_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flatten_command, "FLAT_SECONDS", 0.2)
    with Database.open(tmp_path / "bot.sqlite") as database:
        Control(database, "live").begin()
    result = CliRunner().invoke(
        app, ["flatten", "--mode", "live", "--directory", str(tmp_path)], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 4
    assert "written down, but the bot has not done it" in result.output
    with Database.open(tmp_path / "bot.sqlite") as database:
        (request,) = Mailbox(database, "live").in_force()
        assert request.verb is Verb.FLATTEN


def test_what_failed_waits_for_the_next_start_and_status_says_why(
    exchange: LocalExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "_ROUNDS", 1)
    asyncio.run(hold(exchange))
    with Database.open(tmp_path / "bot.sqlite") as database:
        Control(database, "testnet").begin()
    exchange.arm("bad_gateway", "/v5/order/create*", lasts_ms=60_000)
    result = flatten(exchange, tmp_path, "--all")
    assert result.exit_code == 4
    with Database.open(tmp_path / "bot.sqlite") as database:
        (request,) = Mailbox(database, "testnet").in_force()
        assert (request.taken, request.done) == (None, None)
        assert request.answer.startswith("not done from here: not flat after 1 rounds")
        (again,) = Control(database, "testnet").opening()
        assert again.verb is Verb.FLATTEN
    told = CliRunner().invoke(app, ["status", "--directory", str(tmp_path)], env={"COLUMNS": "200"})
    assert "not taken up yet; not done from here: not flat after 1 rounds" in told.output
