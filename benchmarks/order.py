"""From a decision's features to the signed request: ours, every risk check included, beside the usual stack.

python -m benchmarks.order [--orders N]

Ours: one streaming step of the shipped network, the signal, all checks of an entry on an account that holds
other positions, the order and its id, the exchange's parameters, the body, the signature. What the journal
takes to write it down is measured by `benchmarks.live_loop`. The usual stack has neither checks nor a
journal: a torch network in eager mode, a formatted body, the same signature. It runs twice, with a small
perceptron (20-128-64-3) and with our own network over the window that it looks back on. All three take turns
order by order in one process, with the caches swept before each, as a market's messages do; wall clock.
"""

import argparse
import gc
import hmac
import os
import time
from collections.abc import Callable
from decimal import Decimal

import msgspec
import numpy as np
import torch

from benchmarks.live_loop import START, contract, symbol
from bot.core.commands import PlaceOrder
from bot.core.events import InstrumentListed, LiquiditySampled, PositionAdopted
from bot.core.signal import Action, Signal
from bot.core.types import MINUTE_MS, Side
from bot.engine.account_view import AccountView
from bot.engine.entries import Entries
from bot.engine.market_view import MarketView
from bot.engine.portfolio import Portfolio
from bot.exchange.bybit.requests import new_order, params
from bot.execution.orders import Orders
from bot.execution.protection import Protection
from bot.settings import Costs, Execution, Gate, Risk
from risk.breaker import Breaker
from risk.manager import RiskManager
from strategies.learning import shipped
from strategies.learning.encoder import Encoder
from strategies.learning.inference import Predictor

GOAL = 0.65
HELD = 5  # positions
KEY, SECRET, WINDOW = "k" * 18, b"s" * 36, "5000"


def sign(body: bytes, now: int) -> str:
    return hmac.digest(SECRET, f"{now}{KEY}{WINDOW}".encode() + body, "sha256").hex()


def ours() -> Callable[[], str]:
    model = shipped.load()
    predictor = Predictor(model.weights, model.card.architecture)
    row = np.random.default_rng(3).standard_normal(model.card.architecture.features).astype(np.float32)
    risk, gate, costs = Risk(entries_per_second=10**6, entries_per_day=10**6), Gate(), Costs()
    breaker, markets, orders = Breaker(risk, 1e5), MarketView(risk, MINUTE_MS), Orders()
    account = AccountView(Portfolio(Decimal(100_000)), orders, markets)
    manager = RiskManager(risk, gate, costs, breaker, live=True)
    entries = Entries(account, manager, Protection(risk, MINUTE_MS), risk, Execution())
    for number in range(HELD + 1):
        markets.hear(InstrumentListed(START, START, contract(number)))
    for number in range(HELD):
        adopted = PositionAdopted(START, START, symbol(number), Decimal(10), Decimal(100), Decimal(99), "")
        account.portfolio.adopt(adopted)
    name = symbol(HELD)
    markets.hear(
        LiquiditySampled(
            START, START, name, START, 1.0, 1e6, 1e6, 100.0, 1e9, 100.0, 100.0, 100.0, 1e6, 0.0001, 0
        )
    )  # fmt: skip
    encode = msgspec.json.Encoder().encode

    def order() -> str:
        said = predictor.push(row)
        p_up = 1 / (1 + np.exp(-said.logit))
        signal = Signal(
            ts=START, symbol=name, action=Action.ENTER, side=Side.BUY if p_up > 0.5 else Side.SELL,
            bar_start=START - MINUTE_MS, price=100.0, p_up=float(p_up), confidence=0.8, similarity=0.9,
            sigma=float(np.exp(said.log_vol)), expected_move=0.05, horizon_bars=8,
        )  # fmt: skip
        command = entries.enter(signal, START)[-1]
        assert isinstance(command, PlaceOrder), command
        body = encode(params(new_order(command.order)))
        signature = sign(body, time.time_ns() // 1_000_000)
        orders.__init__()  # type: ignore[misc]  # the next one finds the same account
        return signature

    return order


def usual(
    network: torch.nn.Module, rows: torch.Tensor, says: Callable[[object], torch.Tensor]
) -> Callable[[], str]:
    features = rows.tolist()

    def order() -> str:
        with torch.inference_mode():
            said = says(network(torch.tensor(features, dtype=torch.float32)))
        side = "Buy" if said.reshape(-1)[0] > 0 else "Sell"
        body = (
            f'{{"category":"linear","symbol":"S5USDT","side":"{side}","orderType":"Limit","qty":"0.01",'
            f'"price":"{100:.2f}","timeInForce":"PostOnly","orderLinkId":"{time.monotonic_ns()}"}}'
        ).encode()
        return sign(body, time.time_ns() // 1_000_000)

    return order


def perceptron() -> Callable[[], str]:
    torch.manual_seed(0)
    layers = (torch.nn.Linear(20, 128), torch.nn.ReLU(), torch.nn.Linear(128, 64), torch.nn.ReLU())
    network = torch.nn.Sequential(*layers, torch.nn.Linear(64, 3)).eval()
    return usual(network, torch.randn(1, 20), lambda said: said)  # type: ignore[arg-type, return-value]


def same_network() -> Callable[[], str]:
    torch.manual_seed(0)
    model = shipped.load()
    architecture = model.card.architecture
    network = Encoder.from_weights(model.weights, architecture).eval()
    rows = torch.randn(1, architecture.receptive_field, architecture.features)
    return usual(network, rows, lambda said: said.logit[:, -1])  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=1_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    makers = {"ours": ours(), "usual, perceptron": perceptron(), "usual, our network": same_network()}
    sweep = np.ones(4_000_000)
    spent: dict[str, list[float]] = {name: [] for name in makers}
    for make in makers.values():
        for _ in range(20):
            make()
    gc.collect()
    gc.freeze()
    for _ in range(options.orders):
        for name, make in makers.items():
            sweep += 1.0
            began = time.perf_counter()
            make()
            spent[name].append(time.perf_counter() - began)
    own = np.percentile(spent["ours"], (50, 99)) * 1e6
    print(f"ours: p50 {own[0]:,.0f} us, p99 {own[1]:,.0f} us; load {os.getloadavg()[0]:.1f}")
    for name in list(makers)[1:]:
        theirs = np.percentile(spent[name], (50, 99)) * 1e6
        p50, p99 = own / theirs
        told = f"x{p50:.2f} and x{p99:.2f} (goal {GOAL})"
        print(f"  / {name}: {told}; p50 {theirs[0]:,.0f} us, p99 {theirs[1]:,.0f} us")


if __name__ == "__main__":
    main()
