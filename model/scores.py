"""Scores of weighted rows: of probabilities, of a flag, of forecasts and of quantiles.

Each is a function of arrays of n rows and their weights (n,) >= 0: whole numbers mean repeated rows, which is what a
bootstrap asks for (model/bootstrap.py). NaN where the rows cannot tell: no weight, or a single class. What must be
sorted is sorted once in `Ranking`, whose methods then take weights alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.bootstrap import Weights

CERTAIN = 1e-7  # probabilities are kept this far from 0 and 1 where a logarithm is taken
BINS = 15


def mean(values: NDArray[Any], weights: Weights) -> float:
    """Weighted mean."""
    total = weights.sum()
    return _dot(values, weights) / float(total) if total > 0 else np.nan


def losses(label: NDArray[Any], probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Negative log likelihood of each row in nats; (n,)."""
    p = np.clip(probability, CERTAIN, 1 - CERTAIN)
    return np.asarray(-np.where(label == 1, np.log(p), np.log1p(-p)))


def confusion(label: NDArray[np.bool_], flag: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Of each row, 1 or 0: flagged and falling, flagged only, falling only, neither; four (n,)."""
    return [part.astype(np.float64) for part in (flag & label, flag & ~label, ~flag & label, ~flag & ~label)]


def matthews(
    both: NDArray[np.float64],
    flag_only: NDArray[np.float64],
    label_only: NDArray[np.float64],
    none: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Matthews correlation from the shares of the four cases, of any shape; 0 where flag or label never varies."""
    below = (both + flag_only) * (both + label_only) * (none + flag_only) * (none + label_only)
    return np.where(below > 0, (both * none - flag_only * label_only) / np.sqrt(np.where(below > 0, below, 1)), 0.0)


def precision(label: NDArray[Any], flag: NDArray[np.bool_], weights: Weights) -> float:
    """Share of the flagged rows that are falling; NaN when none is flagged."""
    return mean((label == 1).astype(np.float64), weights * flag)


def pinball_losses(truth: NDArray[np.float64], quantile: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """Loss of a forecast of the `level` quantile for each row; smallest on average for the true quantile; (n,).

    Koenker & Bassett 1978."""
    miss = truth - quantile
    return np.asarray(np.maximum(level * miss, (level - 1) * miss))


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: of each bin with weight, its mean probability, its share of falling and its weight."""

    probability: NDArray[np.float64]
    rate: NDArray[np.float64]
    weight: NDArray[np.float64]


class Ranking:
    """Rows sorted once by score, ties together, for all scores that need an order.

    label: (n,) 1 or 0. score: (n,) finite, high means falling; probabilities for `ece` and `reliability`.
    """

    def __init__(self, label: NDArray[Any], score: NDArray[np.float64]) -> None:
        # Falling scores: precision is summed from the top.
        self._order = np.argsort(-score, kind="stable")
        self._score = score[self._order]
        self._falling = (label == 1)[self._order].astype(np.float64)
        self._last = np.flatnonzero(np.append(self._score[1:] != self._score[:-1], len(score) > 0))  # of each tie
        self._tied = len(self._last) < len(score)

    def auc(self, weights: Weights) -> float:
        """Chance that a falling row scores above one that is not, ties half; NaN with one class."""
        return _auc(self._sums(weights))

    def pr_auc(self, weights: Weights) -> float:
        """Average precision: the step-wise area under precision over recall; its baseline is the base rate."""
        return _pr_auc(self._sums(weights))

    def ece(self, weights: Weights, bins: int = BINS) -> float:
        """Expected calibration error: mean distance between probability and share of falling over bins of equal weight.

        Noise alone makes it positive: about the root of (bins / rows that are independent)."""
        return _ece(self._bins(self._sums(weights), bins))

    def all(self, weights: Weights) -> tuple[float, float, float]:
        """auc, pr_auc and ece from one pass over the rows."""
        sums = self._sums(weights)
        return _auc(sums), _pr_auc(sums), _ece(self._bins(sums, BINS))

    def reliability(self, weights: Weights, bins: int = BINS) -> Reliability:
        """Bins of equal weight, from high to low probability; equal probabilities are never split."""
        return self._bins(self._sums(weights), bins)

    def _sums(self, weights: Weights) -> _Sums:
        w = weights[self._order]
        sums = np.cumsum(w * self._falling), np.cumsum(w), np.cumsum(w * self._score)
        return _Sums(*(part[self._last] for part in sums)) if self._tied else _Sums(*sums)

    def _bins(self, sums: _Sums, bins: int) -> Reliability:
        total = sums.weight[-1] if len(sums.weight) else 0.0
        if not total > 0:
            return Reliability(np.empty(0), np.empty(0), np.empty(0))
        # A tie belongs to the bin that holds the middle of its weight.
        middle = (sums.weight + np.append(0, sums.weight[:-1])) / 2
        edges = np.append(np.searchsorted(middle, total * np.arange(1, bins) / bins), len(middle))
        falling, weight, score = (np.diff(np.append(0, part)[np.append(0, edges)]) for part in sums)
        used = weight > 0
        return Reliability(score[used] / weight[used], falling[used] / weight[used], weight[used])


class _Sums(NamedTuple):
    """Running sums from the highest score down, one entry for each tie: weight of falling rows, of all, of scores."""

    falling: NDArray[np.float64]
    weight: NDArray[np.float64]
    score: NDArray[np.float64]


def _auc(sums: _Sums) -> float:
    above = np.append(0, sums.falling)
    other = np.append(0, sums.weight) - above
    pairs = above[-1] * other[-1]
    # Of each tie: the falling ones above its others, and half of its own. That is the trapezoid.
    return _dot(above[1:] + above[:-1], np.diff(other)) / 2 / float(pairs) if pairs > 0 else np.nan


def _pr_auc(sums: _Sums) -> float:
    if not len(sums.falling) or not sums.falling[-1] > 0:
        return np.nan
    precise = sums.falling / np.where(sums.weight > 0, sums.weight, 1)
    return _dot(np.diff(np.append(0, sums.falling)), precise) / float(sums.falling[-1])


def _ece(found: Reliability) -> float:
    return mean(np.abs(found.probability - found.rate), found.weight)


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    # Not `@`: BLAS takes every core for it, ten times slower beside other work, and its sums depend on how many it got.
    return float(np.einsum("i,i->", a, b))
