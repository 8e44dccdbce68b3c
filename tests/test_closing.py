"""`bot flatten` without a bot: every position closed by REST alone, whatever the exchange does meanwhile."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

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
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.requests import NewOrder
from bot.exchange.bybit.rest import Rest
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


async def close(exchange: LocalExchange, owners: Ownership | None = None) -> tuple[list[str], str]:
    told: list[str] = []
    rest = Rest(local(exchange.url), Credentials(KEY, SECRET))
    await rest.measure_clock()

    async def briefly(_: float) -> None:
        await asyncio.sleep(0.05)

    try:
        closed = await Closing(rest, told.append, owners or Ownership(), sleep=briefly).run()
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
    assert "flat: 2 positions closed, 1 entries cancelled; open orders of others are left" in result.output
    assert held(exchange) == {}
    assert "Nothing holds the next start back" in result.output
    assert broken == "bot.sqlite" or not (tmp_path / "bot.sqlite").exists()


def test_without_a_database_what_an_order_of_this_program_opened_is_closed(
    exchange: LocalExchange, tmp_path: Path
) -> None:
    asyncio.run(hold(exchange, ours=Orders(tag_of(START, 3)).next_id("BTCUSDT")))
    result = flatten(exchange, tmp_path)
    assert result.exit_code == 0, result.output
    assert held(exchange) == {"ETHUSDT": Decimal(1)}
    assert "positions of others are left: ETHUSDT +1.00 (--all closes them, too)" in result.output


@pytest.mark.parametrize("policy", ["leave", "adopt"])
def test_with_a_database_what_is_ours_is_closed_and_the_request_is_done(
    exchange: LocalExchange, tmp_path: Path, policy: str
) -> None:
    asyncio.run(hold(exchange))
    with Database.open(tmp_path / "bot.sqlite") as database:
        journal = Journal.start(database, **{**RUN, "kind": "testnet"})
        journal.write(PositionAdopted(1, 1, "BTCUSDT", Decimal("-0.01"), Decimal(60_000), None, ""))
        journal.finish({})
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
