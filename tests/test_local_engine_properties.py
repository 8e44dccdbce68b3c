"""Whatever customers do: no order is over-filled, the book never crosses, no money is made or lost."""

import contextlib
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.types import Side
from bot.exchange.local.contract import TRADING
from bot.exchange.local.orders import Refused
from tests.local_core import SYMBOL, World

PRICES = [str(Decimal(190 + n) / 2) for n in range(21)]  # 95 to 105
QUANTITIES = ["0.5", "1", "3", "10", "60"]
seeds = st.integers(0, 2**32)
lengths = st.integers(1, 120)  # a failure shrinks to the shortest run


def some_order(rng: Random) -> dict[str, Any]:
    side, price = rng.choice(["Buy", "Sell"]), rng.choice(PRICES)
    order: dict[str, Any] = {
        "side": side,
        "qty": rng.choice(QUANTITIES),
        "by": rng.randrange(3),
        "price": price,
    }
    order["timeInForce"] = rng.choice(["GTC"] * 6 + ["IOC", "FOK", "PostOnly"])
    kind = rng.random()
    if kind < 0.25:
        sign = 1 if side == "Buy" else -1
        for name, way in (("stopLoss", -sign), ("takeProfit", sign)):
            if rng.random() < 0.7:
                order[name] = str(Decimal(price) + way * rng.choice([1, 3]))
        order["tpslMode"] = rng.choice(["Full", "Partial"])
    elif kind < 0.35:
        trigger = rng.choice(PRICES)
        order |= {"triggerPrice": trigger, "triggerDirection": 1 if Decimal(trigger) > 100 else 2}
        order |= {"triggerBy": rng.choice(["LastPrice", "MarkPrice"]), "reduceOnly": rng.random() < 0.3}
    elif kind < 0.5:
        order["reduceOnly"] = True
    elif kind < 0.6:
        order["smpType"] = rng.choice(["CancelMaker", "CancelTaker", "CancelBoth"])
    if rng.random() < 0.2:
        order["price"] = None
    return order


def some_moves(seed: int, length: int) -> list[tuple[str, Any]]:
    rng = Random(seed)

    def maybe(value: str) -> str | None:
        return rng.choice([None, value])

    makers: dict[str, Callable[[], Any]] = {
        "place": lambda: some_order(rng),
        "cancel": lambda: rng.randrange(30),
        "amend": lambda: (rng.randrange(30), maybe(rng.choice(QUANTITIES)), maybe(rng.choice(PRICES))),
        "mark": lambda: rng.choice(["80", "92", "97.5", "100", "100", "104", "112", "125"]),
        "fund": lambda: rng.choice(["0.001", "-0.0005"]),
        "stop": lambda: (rng.randrange(3), maybe(rng.choice(PRICES)), maybe(rng.choice(PRICES)), maybe("2")),
        "leverage": lambda: (rng.randrange(3), rng.choice(["1", "10", "50"])),
    }
    kinds = ["place"] * 12 + ["cancel", "amend", "amend", "mark", "fund", "stop", "leverage"]
    return [(kind, makers[kind]()) for kind in (rng.choice(kinds) for _ in range(length))]


def apply(world: World, kind: str, what: Any) -> None:
    if kind == "place":
        world.place(**{**what, "price": what.get("price")})
    elif kind in ("cancel", "amend"):
        number = what if kind == "cancel" else what[0]
        found = [order for account in world.accounts for order in account.open_orders.values()]
        if found:
            order = found[number % len(found)]
            if kind == "cancel":
                world.cancel(order)
            else:
                world.amend(order, qty=what[1], price=what[2])
    elif kind == "mark":
        world.mark(what)
    elif kind == "fund":
        world.clearing.pay_funding(world.market, Decimal(what), world.now)
    elif kind == "stop":
        by, stop_loss, take_profit, trailing = what
        world.stop(by, stopLoss=stop_loss, takeProfit=take_profit, trailingStop=trailing)
    else:
        by, leverage = what
        body = {"symbol": SYMBOL, "buyLeverage": leverage, "sellLeverage": leverage}
        world.clearing.set_leverage(world.accounts[by], body, world.now)


def check(world: World) -> None:
    book = world.market.book
    bid, ask = book.best_price(Side.BUY), book.best_price(Side.SELL)
    assert bid is None or ask is None or bid < ask
    for half in (book.buys, book.sells):
        assert half.keys == sorted(half.levels)
        for level in half.levels.values():
            assert level.total == sum(order.leaves for order in level.orders.values()) > 0
    for account in world.accounts:
        for order in account.orders.values():
            assert order.executed + order.leaves == order.qty
            assert order.leaves >= 0
            assert order.is_open == (order.id in account.open_orders)
        reserved: Counter[tuple[int, Side]] = Counter()
        for order in account.open_orders.values():
            if order.is_reserved:
                reserved[order.index, order.side] += order.leaves
            if order.reduce_only and order.is_booked:
                assert order.leaves <= account.holdings[SYMBOL, order.index].lots
        for (_, index), holding in account.holdings.items():
            assert {s: holding.open_lots[s] for s in Side} == {s: reserved[index, s] for s in Side}
            if not holding.qty:
                assert not holding.stops()
                assert not holding.open_value[Side.BUY] or reserved[index, Side.BUY]
        assert account.wallet == sum(entry.change for entry in account.ledger)


def cash_of(world: World, by: int) -> Decimal:
    """The wallet by an independent road: every execution as a cash flow, and the position at its cost."""
    account = world.accounts[by]
    total = Decimal(0)
    held = Decimal(0)
    for fill in account.executions:
        sign = 1 if fill["side"] == "Buy" else -1
        if fill["execType"] == "Funding":
            total -= Decimal(fill["execFee"])
            continue
        value = Decimal(fill["execPrice"]) * Decimal(fill["execQty"])
        total -= sign * value + Decimal(fill["execFee"])
        held += sign * Decimal(fill["execQty"])
    holding = account.holdings.get((SYMBOL, 0))
    assert held == (holding.qty if holding else 0)
    cost = holding.position.cost if holding else Decimal(0)
    gifts = sum(
        (entry.change for entry in account.ledger if entry.kind in ("TRANSFER_IN", "BONUS")), Decimal(0)
    )
    return gifts + total + cost


@settings(max_examples=200, deadline=None)
@given(seeds, lengths, st.sampled_from([300, 700, 5_000]))
def test_money_and_orders_balance_after_every_step(seed: int, length: int, balance: int) -> None:
    world = World(balance, balance, 1_000_000)
    for kind, what in some_moves(seed, length):
        with contextlib.suppress(Refused):
            apply(world, kind, what)
        check(world)
    for by in range(3):
        assert abs(cash_of(world, by) - world.accounts[by].wallet) < Decimal("1e-9")


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_the_same_requests_have_the_same_outcome(seed: int) -> None:
    outcomes = []
    for _ in range(2):
        world = World(5_000, 5_000, 1_000_000)
        for kind, what in some_moves(seed, 60):
            try:
                apply(world, kind, what)
            except Refused as error:
                world.engine.outbox.append((world.accounts[0], "refused", {"code": error.code}))
        outcomes.append([(account.uid, topic, view) for account, topic, view in world.engine.outbox])
    assert outcomes[0] == outcomes[1]


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_the_customers_only_pay_each_other_and_the_fees(seed: int) -> None:
    world = World(1_000_000, 1_000_000, 1_000_000)
    rng = Random(seed)
    for _ in range(60):
        with contextlib.suppress(Refused):
            apply(world, "place", some_order(rng))
    fees = sum(entry.fee for account in world.accounts for entry in account.ledger)
    equity = sum((account.equity for account in world.accounts), Decimal(0))
    assert world.market.contract.status == TRADING
    assert equity + fees == 3_000_000
    assert sum(world.qty(by) for by in range(3)) == 0


def test_the_runs_above_do_reach_every_corner() -> None:
    seen: Counter[str] = Counter()
    for seed in range(40):
        world = World(700, 700, 1_000_000)
        for kind, what in some_moves(seed, 120):
            try:
                apply(world, kind, what)
            except Refused as error:
                seen[str(error.code)] += 1
        for account in world.accounts:
            seen.update(order.status + order.stop_type for order in account.orders.values())
            seen.update(order.cancel_type for order in account.orders.values())
            seen.update(order.reject_reason for order in account.orders.values())
            seen.update(fill["execType"] for fill in account.executions)
    wanted = {
        "Trade", "Funding", "BustTrade", "FilledStopLoss", "FilledTakeProfit", "FilledPartialStopLoss",
        "FilledTrailingStop", "FilledStop", "DeactivatedStopLoss", "CancelBySmp", "CancelByReduceOnly",
        "EC_PostOnlyWillTakeLiquidity", "EC_CancelForNoFullFill", "EC_NoImmediateQtyToFill",
        "110007", "110017",
    }  # fmt: skip
    assert wanted - set(seen) == set()
