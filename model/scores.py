"""Scores of weighted rows: of probabilities, of a flag, of forecasts and of quantiles.

Each is a function of arrays of n rows and their weights (n,) >= 0: whole numbers mean repeated rows, which is what a
bootstrap asks for (model/bootstrap.py). NaN where the rows cannot tell: no weight, or a single class. What must be
sorted is sorted once in `Ranking`, whose methods then take weights alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.bootstrap import Weights

CERTAIN = 1e-7  # probabilities are kept this far from 0 and 1 where a logarithm is taken
BINS = 15


def mean(values: NDArray[Any], weights: Weights) -> float:
    """Weighted mean."""
    total = weights.sum()
    return float(values @ weights / total) if total > 0 else np.nan


def losses(label: NDArray[Any], probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Negative log likelihood of each row in nats; (n,)."""
    p = np.clip(probability, CERTAIN, 1 - CERTAIN)
    return np.asarray(-np.where(label == 1, np.log(p), np.log1p(-p)))


def log_loss(label: NDArray[Any], probability: NDArray[np.float64], weights: Weights) -> float:
    """Mean negative log likelihood in nats."""
    return mean(losses(label, probability), weights)


def brier(label: NDArray[Any], probability: NDArray[np.float64], weights: Weights) -> float:
    """Mean squared distance of the probability from the label, 0 to 1."""
    return mean((probability - label) ** 2, weights)


def mcc(label: NDArray[Any], flag: NDArray[np.bool_], weights: Weights) -> float:
    """Matthews correlation of a flag with the label; 0 where either never varies."""
    y, f = label == 1, flag.astype(bool)
    tp, fp, fn = (float(weights @ (a & b)) for a, b in ((f, y), (f, ~y), (~f, y)))
    tn = float(weights.sum()) - tp - fp - fn
    below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / below**0.5 if below > 0 else 0.0


def precision(label: NDArray[Any], flag: NDArray[np.bool_], weights: Weights) -> float:
    """Share of the flagged rows that are falling; NaN when none is flagged."""
    return mean((label == 1).astype(np.float64), weights * flag)


def auc(label: NDArray[Any], score: NDArray[np.float64], weights: Weights) -> float:
    """Chance that a falling row scores above one that is not, ties half; NaN with one class."""
    return Ranking(label, score).auc(weights)


def pr_auc(label: NDArray[Any], score: NDArray[np.float64], weights: Weights) -> float:
    """Average precision: the step-wise area under precision over recall; its baseline is the base rate."""
    return Ranking(label, score).pr_auc(weights)


def ece(label: NDArray[Any], probability: NDArray[np.float64], weights: Weights, bins: int = BINS) -> float:
    """Expected calibration error; see `Ranking.ece`."""
    return Ranking(label, probability).ece(weights, bins)


def mae(error: NDArray[np.float64], weights: Weights) -> float:
    """Mean absolute error."""
    return mean(np.abs(error), weights)


def rmse(error: NDArray[np.float64], weights: Weights) -> float:
    """Root of the mean squared error."""
    return float(mean(error**2, weights) ** 0.5)


def pinball_losses(truth: NDArray[np.float64], quantile: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """Loss of a forecast of the `level` quantile for each row; smallest on average for the true quantile; (n,)."""
    miss = truth - quantile
    return np.asarray(np.maximum(level * miss, (level - 1) * miss))


def pinball(truth: NDArray[np.float64], quantile: NDArray[np.float64], level: float, weights: Weights) -> float:
    """Mean pinball loss of a forecast of the `level` quantile (Koenker & Bassett 1978)."""
    return mean(pinball_losses(truth, quantile, level), weights)


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
        ordered = score[self._order]
        self._falling = (label == 1)[self._order].astype(np.float64)
        self._score = ordered
        self._starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(score) else np.empty(0, int)
        self._tied = len(self._starts) < len(score)

    def auc(self, weights: Weights) -> float:
        """As `auc`."""
        positive, negative = self._classes(weights)
        below = positive.sum() * negative.sum()
        if not below > 0:
            return np.nan
        # Of each group of ties: the positives above its negatives, and half of its own.
        above = np.cumsum(positive) - positive / 2
        return float(above @ negative / below)

    def pr_auc(self, weights: Weights) -> float:
        """As `pr_auc`."""
        positive, negative = self._classes(weights)
        hits = np.cumsum(positive)
        if not len(hits) or not hits[-1] > 0:
            return np.nan
        flagged = hits + np.cumsum(negative)
        return float(positive @ (hits / np.where(flagged > 0, flagged, 1)) / hits[-1])

    def ece(self, weights: Weights, bins: int = BINS) -> float:
        """Mean distance between probability and share of falling over bins of equal weight.

        Noise alone makes it positive: about the root of (bins / rows that are independent)."""
        found = self.reliability(weights, bins)
        return mean(np.abs(found.probability - found.rate), found.weight)

    def reliability(self, weights: Weights, bins: int = BINS) -> Reliability:
        """Bins of equal weight, from high to low probability; equal probabilities are never split."""
        w = weights[self._order]
        group = self._summed(w)
        total = group.sum()
        if not total > 0:
            return Reliability(np.empty(0), np.empty(0), np.empty(0))
        middle = np.cumsum(group) - group / 2
        # Without ties a group is a row; with them, each row takes its group's bin.
        into = np.minimum((bins * (middle / total)).astype(np.int64), bins - 1)
        if self._tied:
            into = np.repeat(into, np.diff(np.append(self._starts, len(w))))
        weight = np.bincount(into, w, bins).astype(np.float64)
        used = weight > 0
        probability = np.bincount(into, w * self._score, bins)[used] / weight[used]
        rate = np.bincount(into, w * self._falling, bins)[used] / weight[used]
        return Reliability(probability, rate, weight[used])

    def _classes(self, weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight of falling and of other rows in each group of ties, from high score to low."""
        w = weights[self._order]
        positive = w * self._falling
        return self._summed(positive), self._summed(w - positive)

    def _summed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.add.reduceat(values, self._starts) if self._tied else values
