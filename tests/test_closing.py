"""`bot flatten` without a bot: every position closed by REST alone, whatever the exchange does meanwhile."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bot.cli import app
from bot.core.errors import RuntimeFault
from bot.core.types import Verb
from bot.exchange.bybit.closing import Closing
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.bybit.requests import NewOrder
from bot.exchange.bybit.rest import Rest
from bot.execution.orders import Orders, tag_of
from bot.storage.database import Database
from bot.storage.mailbox import Mailbox
from tests.builders import START
from tests.local_exchange import KEY, SECRET, LocalExchange, local_exchange


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    with local_exchange(manual=False) as running:
        yield running


async def hold(exchange: LocalExchange) -> None:
    """A long and a short position, an entry of ours and one of somebody else's."""
    rest = Rest(local(exchange.url), Credentials(KEY, SECRET))
    await rest.measure_clock()
    for symbol, side, qty, stop in (("ETHUSDT", "Buy", "1", 2_400), ("BTCUSDT", "Sell", "0.01", 61_000)):
        order = NewOrder(
            symbol=symbol, side=side, order_type="Market", qty=Decimal(qty), stop_loss=Decimal(stop)
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


async def close(exchange: LocalExchange) -> tuple[list[str], str]:
    told: list[str] = []
    rest = Rest(local(exchange.url), Credentials(KEY, SECRET))
    await rest.measure_clock()

    async def briefly(_: float) -> None:
        await asyncio.sleep(0.05)

    try:
        closed = await Closing(rest, told.append, briefly).run()
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


@pytest.mark.parametrize("broken", ["", "bot.sqlite", "config.toml"])
def test_the_command_closes_and_holds_the_next_start_even_without_database_or_configuration(
    exchange: LocalExchange, tmp_path: Path, broken: str
) -> None:
    asyncio.run(hold(exchange))
    (tmp_path / "config.toml").write_text("")
    if broken:
        (tmp_path / broken).write_text("neither a database nor TOML")
    result = CliRunner().invoke(
        app, ["flatten", "--mode", "testnet", "--direct", "--url", exchange.url,
              "--directory", str(tmp_path), "--config", str(tmp_path / "config.toml")],
        env={"COLUMNS": "200"},
    )  # fmt: skip
    assert "Without the bot (--direct): closing everything on local from here" in result.output
    assert result.exit_code == 0, result.output
    assert "flat: 2 positions closed, 1 entries cancelled; open orders of others are left" in result.output
    assert held(exchange) == {}
    if broken:
        assert "Nothing holds the next start back" in result.output
        return
    with Database.open(tmp_path / "bot.sqlite") as database:
        (request,) = Mailbox(database, "testnet").in_force()
        assert request.verb is Verb.FLATTEN
        assert request.done
