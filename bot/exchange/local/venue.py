"""One running exchange: world, keys, limits, faults and streams, and the time they live in."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from bot.exchange.local import render
from bot.exchange.local.account import Account
from bot.exchange.local.faults import Fault, Faults
from bot.exchange.local.gate import Key, Keys, RateLimits
from bot.exchange.local.hub import Hub
from bot.exchange.local.world import World

STEP_MS: Final = 100
FLUSH_S: Final = 0.02


class Venue:
    """`manual`: the world moves by `advance` only; else `run` moves it with the wall clock.

    latency_ms: before a subscription or an order by WebSocket is answered, as over a real distance (pybit
    registers its callback only after it has asked, and dies of an answer that is faster)
    """

    def __init__(
        self,
        world: World,
        *,
        rate_limit_scale: float = 1.0,
        manual: bool = False,
        latency_ms: float = 0.0,
        wall_ms: Callable[[], float] = lambda: time.time() * 1000,
    ) -> None:
        self.world = world
        self.manual = manual
        self.latency_ms = latency_ms
        self.keys = Keys()
        self.limits = RateLimits(rate_limit_scale)
        self.faults = Faults(world.seed, wall_ms)
        self.hub = Hub(world, self.faults)
        self._wall_ms = wall_ms
        self._is_flush_due = False
        self.refusing_until = 0.0  # ms: a restart is under way
        self._hidden: dict[str, float] = {}  # ids of orders that nobody is told of, until when (ms)

    def open_account(self, key: str, secret: str, balance: Decimal, *, read_only: bool = False) -> Account:
        account = self.world.engine.add_account(balance, self.world.now)
        self.keys.add(Key(key, secret, account, read_only))
        return account

    def clock_ms(self) -> int:
        """What the exchange takes for the time: signatures are checked against it."""
        skew = self.faults.holds("clock_skew")
        return int(self._wall_ms()) + (skew.ms if skew else 0)

    @property
    def market_ms(self) -> int:
        """The time of orders and trades."""
        if self.manual:
            return self.world.now
        return max(self.world.now, int(self._wall_ms()))

    def hide(self, fault: Fault, result: Any) -> None:
        """The orders that an answer to order/create or create-batch names."""
        until = self._wall_ms() + fault.ms
        for row in result.get("list", [result]):
            self._hidden[row["orderId"]] = until

    def hidden(self) -> set[str]:
        now = self._wall_ms()
        self._hidden = {order_id: until for order_id, until in self._hidden.items() if until > now}
        return set(self._hidden)

    # --- time ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Move the world with the wall clock until cancelled."""
        while True:
            self.world.step(self.market_ms)
            self.flush()
            await asyncio.sleep(STEP_MS / 1000 - time.time() % (STEP_MS / 1000))

    def advance(self, ms: int) -> None:
        """Move a manual world, in the usual steps, and tell the streams after each."""
        end = self.world.now + ms
        while self.world.now < end:
            self.world.step(min(end, self.world.now + STEP_MS))
            self.flush()

    # --- streams ------------------------------------------------------------------------------------------

    def poke(self) -> None:
        """Something has changed: tell the streams soon."""
        if not self._is_flush_due:
            self._is_flush_due = True
            loop = asyncio.get_running_loop()
            loop.call_later(0 if self.manual else FLUSH_S, self.flush)

    def flush(self) -> None:
        self._is_flush_due = False
        now = self.market_ms
        for listed in self.world.listed.values():
            if listed.market.fresh:
                listed.drain()
        self.hub.publish_changes(now)
        for listed in self.world.listed.values():
            listed.unpublished.clear()
            listed.market.liquidations.clear()
        self._tell_accounts(now)

    def _tell_accounts(self, now: int) -> None:
        engine = self.world.engine
        told: defaultdict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
        hidden = self.hidden()
        waiting = [item for item in engine.outbox if item[2].get("orderId") in hidden]
        for account, topic, view in engine.outbox:
            if view.get("orderId") not in hidden:
                told[account.uid, topic].append(view)
        engine.outbox[:] = waiting
        for account in engine.accounts:
            self._collect_state(account, told)
            if account.watchers:
                for topic in ("execution", "order", "position", "wallet"):
                    if data := told.get((account.uid, topic)):
                        self.hub.publish_private(account, topic, data, engine.new_id(), now)

    def _collect_state(self, account: Account, told: dict[tuple[int, str], list[dict[str, Any]]]) -> None:
        """Positions and the wallet are told as they are now, however often they changed."""
        touched, account.touched = account.touched, {}
        is_wallet_touched, account.is_wallet_touched = account.is_wallet_touched, False
        if not account.watchers:
            return
        clearing = self.world.clearing
        told[account.uid, "position"] = [
            render.position_view(
                holding,
                self.world.engine.markets[holding.contract.symbol],
                clearing.liquidation_price(account, holding),
                "entryPrice",
            )
            for holding in touched.values()
        ]
        if is_wallet_touched:
            told[account.uid, "wallet"] = [render.wallet_view(account)]
