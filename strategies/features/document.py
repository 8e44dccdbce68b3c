"""docs/features.md, made from the specification: python -m strategies.features.document > docs/features.md"""

import sys

from strategies.features.kernel import LONG
from strategies.features.normaliser import CLIP, MIN_BARS, PRIOR_SAMPLES, STRIDE, WINDOW
from strategies.features.spec import COUNT, RAW_WARM_UP, SPEC, VERSION, WARM_UP, Feature

_HEADINGS = (
    "#",
    "name",
    "group",
    "made from",
    "bars",
    "range",
    "normalised",
    "missing bit",
    "shown",
    "meaning",
)


def page() -> str:
    table = [_HEADINGS, ("---",) * len(_HEADINGS), *(_cells(*item) for item in enumerate(SPEC))]
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

Of those that may be *shown*, the model sees the features that vary in its source markets: nothing would have
taught the weights of others. The rest nearly copy another feature, there at least; they are for people.

{lines}
"""


def _cells(number: int, f: Feature) -> tuple[str, ...]:
    bounds = f"{f.low:g} to {f.high:g}"
    scaled, shown = ("yes" if answer else "" for answer in (f.normalised, f.shown))
    return str(number), f"`{f.name}`", f.group, f.inputs, str(f.warm_up), bounds, scaled, f.bit, shown, f.doc


if __name__ == "__main__":
    sys.stdout.write(page())
