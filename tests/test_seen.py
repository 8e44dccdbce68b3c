"""What the views say about a token's features: names, order and missing bits are the specification's."""

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bot.core.records import FeaturesSeen
from bot.core.types import DAY_MS, Side
from bot.dashboard.lines import LineView
from bot.dashboard.seen import unusual
from bot.dashboard.terminal import TerminalView
from strategies.features.spec import COUNT, NAMES, SPEC
from tests.builders import START, fill, listed

NORMALISED = {feature.name for feature in SPEC if feature.normalised}


def row(**values: float) -> tuple[float, ...]:
    x = np.zeros(COUNT)
    for name, value in values.items():
        x[NAMES.index(name)] = value
    return tuple(x.tolist())


def test_the_furthest_from_the_median_comes_first_with_its_sign():
    assert unusual(row(rsi=1.5, volume_ratio=-3.0, beta=1.2), 80) == "volume_ratio −3.0  rsi +1.5  beta +1.2"


def test_ordinary_values_are_not_worth_a_word():
    assert unusual(row(rsi=0.5), 80) == "nothing unusual"


def test_kinds_of_inputs_that_are_missing_are_always_named():
    assert (
        unusual(row(rsi=2.0, book_missing=1.0, funding_missing=1.0), 60)
        == "rsi +2.0  book_missing, funding_missing"
    )


@given(st.lists(st.floats(-5.0, 5.0), min_size=COUNT, max_size=COUNT), st.integers(40, 200))
def test_what_is_said_fits_and_names_only_features_of_the_specification(x: list[float], width: int):
    bits = [feature.group == "missing" for feature in SPEC]
    said = unusual([0.0 if bit else value for bit, value in zip(bits, x, strict=True)], width)
    assert len(said) <= width
    if said != "nothing unusual":
        assert {word.rsplit(" ", 1)[0] for word in said.split("  ")} <= NORMALISED


def test_the_terminal_shows_what_the_foremost_token_sees():
    out = Console(width=100, height=40, file=io.StringIO(), record=True)
    view = TerminalView("one", simulated=True, start=START, end=START + DAY_MS, balance=1.0, console=out)
    view.apply(listed("XUSDT"))
    out.print(view.render())
    assert "sees" not in out.export_text()
    view.apply(FeaturesSeen(START, "XUSDT", row(rsi=2.5)))
    out.print(view.render())
    assert "XUSDT sees  rsi +2.5" in out.export_text()


def test_a_daemon_tells_at_each_decision_bar_what_the_model_of_a_held_token_sees():
    out = io.StringIO()
    view = LineView(1.0, Console(width=200, file=out, color_system=None))
    view.apply(FeaturesSeen(START, "XUSDT", row(rsi=2.5)))
    assert "sees" not in out.getvalue()
    view.apply(fill(Side.BUY, "2", "1", symbol="XUSDT"))
    view.apply(FeaturesSeen(START, "XUSDT", row(rsi=2.5)))
    assert "XUSDT sees rsi +2.5" in out.getvalue()
