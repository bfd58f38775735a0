"""Whether two forecasts differ in loss by more than chance.

    d[t] = loss of one - loss of the other, at time t (here: the mean over stocks of a day)
    DM   = mean(d) / sqrt(V / n),  V = gamma(0) + 2 * sum gamma(1 .. h-1)

Sources: Diebold & Mariano (1995), J. Business & Economic Statistics 13(3); the factor for few days and Student's t:
Harvey, Leybourne & Newbold (1997), Int. J. Forecasting 13(2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.extras import extra

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class DieboldMariano:
    """statistic: below zero when the first forecast has the smaller loss; p_value: two-sided; n: times."""

    statistic: float
    p_value: float
    n: int


def diebold_mariano(difference: NDArray[np.float64], horizon: int = 1) -> DieboldMariano:
    """The corrected test of a mean loss difference of zero, for forecasts `horizon` steps ahead.

    NaN where it cannot be computed: fewer times than horizon + 1, or a variance that is not above zero.

    Args:
        difference: (n,) float64, in order of time.
    """
    n = len(difference)
    nothing = DieboldMariano(math.nan, math.nan, n)
    if n <= horizon:
        return nothing
    d = difference - difference.mean()
    gammas = [float(d[lag:] @ d[: n - lag]) / n for lag in range(horizon)]
    variance = gammas[0] + 2 * sum(gammas[1:])
    # Rounding leaves a variance of about 1e-34 where all differences are the same.
    if not variance > 1e-24 * float(np.max(np.abs(difference))) ** 2:
        return nothing
    correction = (n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n
    statistic = float(difference.mean()) / math.sqrt(variance / n) * math.sqrt(correction)
    return DieboldMariano(statistic, float(2 * extra("scipy.stats").t.sf(abs(statistic), n - 1)), n)


def by_day(values: NDArray[np.float64], days: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of each day's values, in order of day; (distinct days,)."""
    _, day = np.unique(days, return_inverse=True)
    return np.asarray(np.bincount(day, values) / np.bincount(day))
