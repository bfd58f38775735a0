"""How early a falling regime is flagged.

    label    0 0 0 0 0 1 1 1 1 1 1 0        one stretch of 6 steps, it begins at b
    counted      [ k = 3 | stretch    ]     flags from k steps before b to its end; not into an earlier stretch
    flag     0 0 0 0 1 1 1 1 1 1 0 0        first at b - 1: delay -1
    other    0 0 0 0 0 0 0 1 1 1 1 1        first at b + 2: delay +2; lead of the flag over the other: 3 steps

A stretch whose begin is not seen (the first known label of a stock falls) is not counted. One in which nothing is
flagged is missed; it has no delay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.labels import HALF

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.bootstrap import Weights


@dataclass(frozen=True)
class Stretches:
    """Falling stretches as rows: earliest that counts, begin, and last; all (k,) int64, by row."""

    earliest: NDArray[np.int64]
    begin: NDArray[np.int64]
    last: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.begin)


def stretches(
    label: NDArray[np.float32], step: NDArray[np.int64], stock: NDArray[np.int64], before: int = HALF
) -> Stretches:
    """The falling stretches of rows that are by stock and within a stock by time.

    Args:
        label: (n,) 1, 0, or NaN for unknown, which ends a stretch.
        step: (n,) number of the step in the series: rows that follow each other differ by 1.
        before: steps before the begin in which a flag counts.
    """
    if not len(label):
        return Stretches(*(np.empty(0, np.int64) for _ in range(3)))
    joined = (np.diff(step) == 1) & (np.diff(stock) == 0)
    begins = np.append(0, 1 + np.flatnonzero(~joined | (label[1:] != label[:-1])))  # NaN differs from itself
    lasts = np.append(begins[1:] - 1, len(label) - 1)
    # A run counts when it is of 1, and the one before it is of 0 and joins it.
    runs = 1 + np.flatnonzero((label[begins[1:]] == 1) & (label[begins[:-1]] == 0) & joined[begins[1:] - 1])
    return Stretches(np.maximum(begins[runs] - before, begins[runs - 1]), begins[runs], lasts[runs])


def delays(flag: NDArray[np.bool_], found: Stretches) -> NDArray[np.float64]:
    """Steps from each stretch's begin to its first flag, below zero when it comes before; (k,), NaN when missed."""
    n = len(flag)
    following = np.minimum.accumulate(np.where(flag, np.arange(n), n)[::-1])[::-1]
    first = following[found.earliest]
    return np.where(first <= found.last, first - found.begin, np.nan).astype(np.float64)


def median(values: NDArray[np.float64], weights: Weights) -> float:
    """Weighted (lower) median of values without NaN; NaN without weight."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    if not len(values) or not reached[-1] > 0:
        return np.nan
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])
