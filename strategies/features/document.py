"""docs/features.md, made from the specification: python -m strategies.features.document > docs/features.md"""

import json
import sys
from pathlib import Path
from typing import Final

from strategies.features.kernel import LONG
from strategies.features.normaliser import CLIP, MIN_BARS, PRIOR_SAMPLES, STRIDE, WINDOW
from strategies.features.spec import COUNT, RAW_WARM_UP, SPEC, VERSION, WARM_UP, Feature

_CHECKPOINT: Final = Path(__file__).parents[1] / "learning" / "checkpoint"
_HEADINGS: Final = (
    "#",
    "name",
    "group",
    "made from",
    "bars",
    "range",
    "normalised",
    "missing bit",
    "shown",
    "shipped model",
    "meaning",
)


def page() -> str:
    (card,) = _CHECKPOINT.glob("*.json")
    seen = json.loads(card.read_text())["columns"]
    rows = (_cells(number, feature, shipped=feature.name in seen) for number, feature in enumerate(SPEC))
    table = [_HEADINGS, ("---",) * len(_HEADINGS), *rows]
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    return f"""# Features

Made from `strategies/features/spec.py`: `make docs`. Version `{VERSION}`; a model that was trained on
another one is refused.

Each of the {COUNT} features of a bar is computed from that bar and earlier ones of the same unbroken run;
no return, sum or average crosses a gap. *sigma* is the standard deviation of the last {LONG} log returns,
a *step* is sigma x close. A feature exists from its warm-up on, counted in bars since the last gap; all of
them need {RAW_WARM_UP}. A new token is ready after {WARM_UP} bars, when its own statistics have seen
{MIN_BARS} rows.

*Normalised* features are robust z-scores by the token's own trailing median and MAD (of the last
{STRIDE * WINDOW} bars, every {STRIDE}th), clipped to +-{CLIP:g}. While a token is young, its statistics
are shrunk towards those of the source markets, with weight n / (n + {PRIOR_SAMPLES:g}) after n samples.
The others are passed on.

A feature with a *missing bit* may be missing. It is then 0 and its bit is 1; so it is while it has no
statistics of its own yet. Any other value that is not finite, infinity in any feature, and a value that is
passed on but out of its range make the row not ready, for this token and this bar alone, and are counted.

Of those that may be *shown*, a model sees the features that vary in its source markets: nothing would have
taught the weights of others. Those that are not shown nearly copy another feature, there at least; they are
for people.

**The shipped model sees {len(seen)} of the {COUNT}**, marked in the table. The others are not shown, or were
missing or constant in its sources, which are bars alone: no order book, no trades, no funding rates, no
launch. They are computed and checked live all the same, but say nothing to this model nor to one that
`bot pretrain` makes, which is given bars alone too. They are there for models that are trained on data that
has them.

{lines}
"""


def _cells(number: int, f: Feature, *, shipped: bool) -> tuple[str, ...]:
    scaled, shown, seen = ("yes" if answer else "" for answer in (f.normalised, f.shown, shipped))
    bounds = f"{f.low:g} to {f.high:g}"
    return (
        str(number), f"`{f.name}`", f.group, f.inputs, str(f.warm_up), bounds, scaled, f.bit,
        shown, seen, f.doc,
    )  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(page())
