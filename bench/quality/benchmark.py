"""The ACL18 benchmark's examples: its labels, its splits, its rule without learning.

    "the example of day t": input up to day t-1, label from adj_close of t-1 and t, split by the date of t

In the words of model/examples.py: `end` and `time` are those of t-1, `target` is the value of t, `until` its date; up
is 0 and falling 1. An example is there when the stock has what the benchmark's own features need: 32 days, the first of
which has a mean over 30. With that, and only with that, the published counts come out (tests/unit/bench).
Source: Feng et al., "Enhancing Stock Movement Prediction with Adversarial Training", IJCAI 2019.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bench.machine import ROOT
from model import dataset, examples
from model.manifest import LabelRule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.dataset import Table
    from model.examples import Examples
    from model.inputs import Inputs

PRICES = ROOT / "bench" / "data" / "acl18" / "prices.csv.gz"
LEFT_OUT = "GMRE"  # the benchmark uses 87 of the 88 stocks
RULE = LabelRule(rule="drop", look_ahead=1, threshold=0.005, dead_zone=0.0055)
WINDOW = 32
NEEDED = WINDOW + 29  # values before day t
TRAIN, LATER = ("2014-01-02", "2015-08-03"), ("2016-01-01", "2017-10-01")
TEST = ("2015-10-01", "2016-01-01")
FOLDS = 4


def table() -> Table:
    """The prices of the benchmark's stocks."""
    whole = dataset.read([PRICES])
    return replace(whole, series=tuple(series for series in whole.series if series.stock != LEFT_OUT))


def labelled(prices: Table, inputs: Inputs) -> Examples:
    """Every example with a label, of all years; the same ones in the same order whatever the inputs.

    Raises: ValueError if the inputs reach back further than the benchmark's own features.
    """
    if inputs.reach > NEEDED:
        raise ValueError(f"{inputs.channels} reach back {inputs.reach} values, the benchmark's own {NEEDED}")
    made = examples.make(prices, RULE, inputs)
    lengths = np.array([len(series.times) for series in prices.series])
    first = (np.cumsum(lengths) - lengths)[made.stock]
    return made.take(np.isfinite(made.label) & (made.end - first >= NEEDED - 1))


def between(found: Examples, prices: Table, dates: tuple[str, str]) -> NDArray[np.bool_]:
    """(n,) examples whose day t is at or after the first date and before the second."""
    first, last = (prices.time_of(date) for date in dates)
    return (found.until >= first) & (found.until < last)


def folds(found: Examples) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Blocks of time: (train, held out), each (n,), for each of four.

    A training day is at least a window away from the held-out block, before it and behind it: no value is seen by both.
    """
    days, day = np.unique(found.until, return_inverse=True)
    borders = [round(len(days) * k / FOLDS) for k in range(FOLDS + 1)]
    made = []
    for first, last in itertools.pairwise(borders):
        held = (day >= first) & (day < last)
        made.append(((day < first - found.inputs.reach) | (day >= last + found.inputs.reach), held))
    return made


def against_ten_days(found: Examples) -> NDArray[np.float64]:
    """The rule without learning: falling (1) if the stock rose over the last ten days, else up (0); (n,)."""
    values = found.series[:, 0]
    return (values[found.end] > values[found.end - 10]).astype(np.float64)
