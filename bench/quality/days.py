"""Scores of a flag from sums by day, so that a bootstrap over days costs a sum over days and not over rows.

A row of a result has one `Days` per seed; what is reported is the mean over seeds of a score, its standard deviation
over seeds (another seed would give another number), and the interval of that mean over days (other days would).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from model import scores
from model.bootstrap import DayBootstrap, Draws, Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Days:
    """One set of answers, summed by day; every array (days,) float64, in the order of time.

    hits, alarms, misses, quiet: rows flagged and falling, flagged and not, not flagged but falling, neither.
    loss: sum of the log losses, NaN for a rule that gives no probability.
    """

    hits: NDArray[np.float64]
    alarms: NDArray[np.float64]
    misses: NDArray[np.float64]
    quiet: NDArray[np.float64]
    loss: NDArray[np.float64]

    def rows(self, weights: Weights) -> float:
        """Number of rows, days weighted."""
        return float(weights @ (self.hits + self.alarms + self.misses + self.quiet))

    def mcc(self, weights: Weights) -> float:
        """Matthews correlation; 0 where the flag or the label never varies."""
        tp, fp = float(weights @ self.hits), float(weights @ self.alarms)
        fn, tn = float(weights @ self.misses), float(weights @ self.quiet)
        below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        return (tp * tn - fp * fn) / below**0.5 if below > 0 else 0.0

    def accuracy(self, weights: Weights) -> float:
        """Share of rows whose flag is right."""
        return float(weights @ (self.hits + self.quiet)) / self.rows(weights)

    def majority(self, weights: Weights) -> float:
        """Accuracy of always saying the more frequent class of these very rows."""
        share = self._falling(weights)
        return max(share, 1 - share)

    def log_loss(self, weights: Weights) -> float:
        """Mean log loss in nats."""
        return float(weights @ self.loss) / self.rows(weights)

    def base_log_loss(self, weights: Weights) -> float:
        """Log loss of always saying the share of falling of all these rows: no constant does better on them."""
        share, falling = self._falling(np.ones_like(weights)), self._falling(weights)
        return -float(falling * np.log(share) + (1 - falling) * np.log(1 - share))

    def excess(self, weights: Weights) -> float:
        """Log loss above that of the base rate; below zero is better than knowing nothing."""
        return self.log_loss(weights) - self.base_log_loss(weights)

    def _falling(self, weights: Weights) -> float:
        return float(weights @ (self.hits + self.misses)) / self.rows(weights)


def by_day(
    day: NDArray[np.int64],
    label: NDArray[np.float32],
    flag: NDArray[np.bool_],
    probability: NDArray[np.float64] | None,
) -> Days:
    """The sums; all (n,), rows in any order."""
    distinct, at = np.unique(day, return_inverse=True)
    falling = label == 1

    def summed(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(at, values, len(distinct)).astype(np.float64)

    loss = np.full(len(day), np.nan) if probability is None else scores.losses(label, probability)
    hits, alarms, misses, quiet = (summed(f & y) for f in (flag, ~flag) for y in (falling, ~falling))
    return Days(hits, alarms, misses, quiet, summed(loss))


Score = Callable[[Days, Weights], float]


class DayJudge:
    """Intervals over the days of one column; every score sees the same replicates, so that differences are paired."""

    def __init__(self, days: int, *, replicates: int, block: int = 1) -> None:
        self._bootstrap = DayBootstrap(np.arange(days), replicates=replicates, block=block)

    def draws(self, seeds: Sequence[Days], score: Score) -> Draws:
        """The mean of a score over seeds, on the days as they are and on each replicate."""
        return over_seeds([self._bootstrap.draws(partial(score, one)) for one in seeds])

    def score(self, seeds: Sequence[Days], score: Score) -> dict[str, float]:
        """`mean` over seeds, `sd` over seeds, `low` and `high` of the mean over days."""
        return told([self._bootstrap.draws(partial(score, one)) for one in seeds])

    def difference(self, seeds: Sequence[Days], others: Sequence[Days], score: Score) -> dict[str, float]:
        """The same score less that of others, paired by day."""
        return told([self.draws(seeds, score).minus(self.draws(others, score))])


def over_seeds(drawn: Sequence[Draws]) -> Draws:
    """The mean over seeds, replicate by replicate."""
    return Draws(float(np.mean([one.point for one in drawn])), np.mean([one.values for one in drawn], axis=0))


def told(drawn: Sequence[Draws]) -> dict[str, float]:
    """As it stands in a result: the mean over seeds with its interval over days, and the spread over seeds.

    `sd` is 0 where there is one seed, or no chance."""
    scored = over_seeds(drawn).scored()
    sd = float(np.std([one.point for one in drawn], ddof=1)) if len(drawn) > 1 else 0.0
    return {"mean": scored.point, "low": scored.low, "high": scored.high, "sd": sd}
