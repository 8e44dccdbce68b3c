"""nautilus_trader's Bybit adapter, unmodified apart from the URLs, trades on the local exchange.

It has an environment of its own, so it runs as a process. To run this:

    python3.11 -m venv DIR && DIR/bin/pip install nautilus_trader==1.221.0
    BOT_NAUTILUS_PYTHON=DIR/bin/python python -m pytest tests/test_local_nautilus.py
"""

import json
import os
import subprocess
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.local_exchange import KEY, SECRET, local_exchange

PYTHON = os.environ.get("BOT_NAUTILUS_PYTHON", "")
SESSION = Path(__file__).with_name("nautilus_session.py")
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="BOT_NAUTILUS_PYTHON does not name the Python of an environment with nautilus_trader"
)


@pytest.mark.parametrize("options", [[], ["--trade-stream"]], ids=["by REST", "by the trade stream"])
def test_a_session_from_instruments_to_a_closed_position(options: list[str]) -> None:
    with local_exchange(manual=False) as exchange:
        ran = subprocess.run(
            [PYTHON, str(SESSION), exchange.url, KEY, SECRET, *options],
            capture_output=True, text=True, timeout=90,
        )  # fmt: skip
        told: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in ran.stdout.splitlines():
            if line.startswith("{"):
                event = json.loads(line)
                told[event.pop("what")].append(event)
        account = exchange.account
        orders = exchange.do(lambda: [order.status for order in account.orders.values()])
        balance = account.wallet
    output = ran.stdout[-3_000:] + ran.stderr[-3_000:]
    assert told["closed"], output
    assert "Traceback" not in output
    assert "[ERROR]" not in output
    assert told["instrument"] == [{"tick": "0.1", "lot": "0.001"}]
    assert told["book"] == [{"bid": "59988.0", "ask": "60012.0"}]
    assert told["balance"] == [{"total": "10000"}]
    happened = ("OrderAccepted", "OrderUpdated", "OrderCanceled", "OrderFilled", "trade", "opened")
    assert [len(told[what]) for what in happened] == [1, 1, 1, 2, 2, 1]
    assert not told["OrderRejected"] + told["OrderModifyRejected"] + told["OrderCancelRejected"]
    assert orders == ["Cancelled", "Filled", "Filled"]
    profit = Decimal(told["closed"][0]["pnl"].split()[0])
    assert abs(balance - 10_000 - profit) < Decimal("0.00000001")  # they agree to the last fraction of a cent
