"""Intervals that take whole days: stocks move together within a day, so days, not rows, are the sample.

    rows       d1 d1 d1 | d2 d2 d2 | d3 d3 d3          three stocks on three days
    replicate  d1 d1 d1 | d3 d3 d3 | d3 d3 d3          weights 1 1 1 | 0 0 0 | 2 2 2

A replicate is a weight per row, never a copy of rows: a metric is a function of weights, and what needs sorting is
sorted once (model/scores.py). All metrics of one `DayBootstrap` see the same replicates, so differences are paired.

Where answers of neighbouring days are made of the same values (a label that is a slope over 17 days), single days are
no independent draws either: `block` takes so many days in a row (circular blocks, Politis & Romano 1992).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
Metric = Callable[[Weights], float]
REPLICATES = 1000


@dataclass(frozen=True)
class Scored:
    """A number and its interval; low and high are NaN where a single day, or no replicate, cannot give one."""

    point: float
    low: float
    high: float


@dataclass(frozen=True)
class Draws:
    """A metric on all rows, and on each replicate: values (replicates,), NaN where a replicate has no answer."""

    point: float
    values: NDArray[np.float64]

    def minus(self, other: Draws) -> Draws:
        """The difference, replicate by replicate; both of the same `DayBootstrap`."""
        return Draws(self.point - other.point, self.values - other.values)

    def over(self, other: Draws) -> Draws:
        """The ratio, replicate by replicate; NaN where the other is zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(other.values != 0, self.values / other.values, np.nan)
        return Draws(self.point / other.point if other.point else math.nan, values)

    def root(self) -> Draws:
        """The square root: of a mean squared error, its size."""
        return Draws(math.sqrt(self.point), np.sqrt(self.values))

    def scored(self, level: float = 0.95) -> Scored:
        """The point with the percentile interval; NaN replicates are left out."""
        known = self.values[np.isfinite(self.values)]
        if not len(known) or not math.isfinite(self.point):
            return Scored(self.point, math.nan, math.nan)
        low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
        return Scored(self.point, float(low), float(high))


class DayBootstrap:
    """Resamples distinct days with replacement. The same days, seed and arguments give the same replicates.

    days: (n,) int64, the day (or other cluster) of each row, in any order; blocks follow the days' own order.
    replicates: how many. block: days drawn together, at least 1 and at most the days there are.
    """

    def __init__(self, days: NDArray[np.int64], *, replicates: int = REPLICATES, seed: int = 1, block: int = 1) -> None:
        distinct, self._day = np.unique(days, return_inverse=True)
        self.days = len(distinct)
        self.block = max(1, min(block, self.days))
        self._counts = self._draw(replicates, seed) if self.days > 1 else np.empty((0, self.days), np.uint32)

    def __len__(self) -> int:
        """Replicates: none when there is a single day."""
        return len(self._counts)

    def weights(self, replicate: int) -> Weights:
        """How often each row is in the replicate; (n,) float64 whole numbers."""
        return np.asarray(self._counts[replicate].astype(np.float64)[self._day])

    def draws(self, metric: Metric) -> Draws:
        """The metric with all weights 1, and on every replicate."""
        return self.draws_of(lambda weights: (metric(weights),))[0]

    def draws_of(self, metrics: Callable[[Weights], Sequence[float]]) -> list[Draws]:
        """As `draws`, for a function that gives several numbers at once."""
        points = metrics(np.ones(len(self._day)))
        values = np.array([metrics(self.weights(r)) for r in range(len(self))], np.float64).reshape(-1, len(points))
        return [Draws(float(point), values[:, at]) for at, point in enumerate(points)]

    def mean(self, values: NDArray[np.float64]) -> Draws:
        """The mean of one value per row (n,): as `draws(mean)`, from one sum per day instead of all the rows."""
        rows = np.bincount(self._day, minlength=self.days).astype(np.float64)
        sums = np.bincount(self._day, values, minlength=self.days)
        counts = self._counts.astype(np.float64)
        return Draws(float(values.mean()) if len(values) else math.nan, (counts @ sums) / (counts @ rows))

    def _draw(self, replicates: int, seed: int) -> NDArray[np.uint32]:
        random, n = np.random.default_rng(seed), self.days
        blocks = -(-n // self.block)
        out = np.empty((replicates, n), np.uint32)
        for row in out:
            starts = random.integers(n, size=blocks)
            drawn = (starts[:, None] + np.arange(self.block)).ravel()[:n] % n  # as many days as there are
            row[:] = np.bincount(drawn, minlength=n)
        return out
