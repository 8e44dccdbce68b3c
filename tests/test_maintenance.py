"""Announced maintenance keeps entries waiting: shortly before it, while it lasts, and not a moment longer."""

import asyncio

import pytest

from bot.core.types import MINUTE_MS
from bot.exchange.bybit.environment import local
from bot.exchange.bybit.limits import Limits
from bot.exchange.bybit.maintenance import LEAD_MS, in_the_way, watch_maintenance
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.wire.public import Maintenance
from tests.local_exchange import local_exchange
from tests.test_local_own_client import CREDENTIALS, FAST

BEGIN = 1_751_596_902_000
END = BEGIN + 30 * MINUTE_MS


def announced(state: str = "scheduled", product: tuple[int, ...] = (1, 2)) -> Maintenance:
    return Maintenance(id="a", state=state, begin=BEGIN, end=END, product=list(product))


@pytest.mark.parametrize(
    ("now", "blocked"),
    [(BEGIN - LEAD_MS - 1, False), (BEGIN - LEAD_MS, True), (BEGIN, True), (END - 1, True), (END, False)],
)
def test_what_is_scheduled_blocks_from_a_quarter_of_an_hour_before_to_its_end(
    now: int, *, blocked: bool
) -> None:
    assert bool(in_the_way([announced()], now)) is blocked


def test_what_goes_on_blocks_however_late_it_is() -> None:
    assert in_the_way([announced("ongoing")], END + 1) == (
        "maintenance of the exchange (ongoing), 2025-07-04 02:41 to 2025-07-04 03:11 UTC"
    )


@pytest.mark.parametrize("state", ["completed", "canceled"])
def test_what_is_over_does_not(state: str) -> None:
    assert in_the_way([announced(state)], BEGIN) == ""


@pytest.mark.parametrize(("product", "blocked"), [((), True), ((1,), True), ((2, 3), False)])
def test_only_futures_concern_us_and_what_names_no_product_concerns_all(
    product: tuple[int, ...], *, blocked: bool
) -> None:
    assert bool(in_the_way([announced(product=product)], BEGIN)) is blocked


async def test_each_change_is_told_once_and_silence_changes_nothing() -> None:
    told: list[str] = []
    looked = asyncio.Event()

    async def pause(_: float) -> None:
        looked.set()
        await asyncio.sleep(0)

    async def look() -> None:
        looked.clear()
        await looked.wait()

    with local_exchange() as exchange:
        rest = Rest(local(exchange.url), CREDENTIALS, limits=Limits(FAST), timeout=0.5)
        watching = asyncio.create_task(watch_maintenance(rest, told.append, sleep=pause))
        try:
            await look()
            assert told == []
            exchange.arm("maintenance")
            await look()
            await look()
            assert [bool(reason) for reason in told] == [True]
            exchange.arm("bad_gateway", "/v5/system/status", count=2)
            await look()
            assert len(told) == 1
            exchange.do(exchange.venue.faults.clear)
            await look()
            await look()
            assert [bool(reason) for reason in told] == [True, False]
        finally:
            watching.cancel()
            rest.close()
