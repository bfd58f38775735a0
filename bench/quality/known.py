"""Series whose best possible forecast is known: what there is to learn, and so what share of it was learnt.

All are relative changes r of a value, v[t+1] = v[t] * (1 + r[t+1]), in units of sigma = 0.01:

    walk        r = e                            nothing to learn
    ar          r[t] = phi * r[t-1] + e          the next mean is phi * r[t]
    switching   r = drift[s] + e                 s is a hidden Markov chain: the next mean is a sum over its states,
                                                 whose probabilities the Hamilton filter gives exactly

e is normal. So the next change is normal, or a mixture of two normals, around a known mean: the best forecast in
squared error is that mean, the best probability of a drop the mass below the threshold, and no model that sees the past
alone can do better on average. The filter sees the whole past, the network 32 steps: the bar is the filter's.
Source: Hamilton (1989), Econometrica 57(2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIGMA = 0.01


@dataclass(frozen=True)
class Ar:
    """phi: the next change is phi times this one, on average; 0 is the random walk."""

    phi: float

    def draw(self, random: np.random.Generator, series: int, steps: int) -> NDArray[np.float64]:
        """Changes in sigmas; (series, steps)."""
        noise = random.standard_normal((series, steps))
        found = np.empty_like(noise)
        found[:, 0] = noise[:, 0] / math.sqrt(1 - self.phi**2)
        for t in range(1, steps):
            found[:, t] = self.phi * found[:, t - 1] + noise[:, t]
        return found

    def best(self, changes: NDArray[np.float64], threshold: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of the step after each: its mean and its probability of at most -threshold; (series, steps) each, sigmas."""
        mean = self.phi * changes
        return mean, below(-threshold - mean)


@dataclass(frozen=True)
class Switching:
    """Two states of one weight with drifts +drift and -drift in sigmas; `stay`: chance that a step keeps its state."""

    drift: float
    stay: float

    def draw(self, random: np.random.Generator, series: int, steps: int) -> NDArray[np.float64]:
        """As `Ar.draw`."""
        changed = random.random((series, steps)) > self.stay
        changed[:, 0] = random.random(series) < 0.5
        state = np.cumsum(changed, axis=1) % 2
        return self.drift * (1 - 2 * state) + random.standard_normal((series, steps))

    def best(self, changes: NDArray[np.float64], threshold: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As `Ar.best`."""
        rising = self.filtered(changes)
        mean = self.drift * (2 * rising - 1)
        return mean, rising * below(-threshold - self.drift) + (1 - rising) * below(-threshold + self.drift)

    def filtered(self, changes: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(the next step is of the rising state | the changes so far); (series, steps)."""
        found = np.empty_like(changes)
        rising = np.full(len(changes), 0.5)
        # The ratio of the two normal densities of a change c is exp(2 * drift * c): sigma is 1.
        for t in range(changes.shape[1]):
            odds = np.exp(np.clip(2 * self.drift * changes[:, t], -500, 500)) * rising
            rising = odds / (odds + 1 - rising)
            rising = self.stay * rising + (1 - self.stay) * (1 - rising)
            found[:, t] = rising
        return found


Process = Ar | Switching


def below(x: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """The standard normal distribution function."""
    return np.asarray(0.5 * np.vectorize(math.erfc)(-np.asarray(x) / math.sqrt(2)), np.float64)


def values(changes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values that these changes (in sigmas) make of 100; (series, steps + 1), the first before any change."""
    grown = np.cumprod(1 + SIGMA * changes, axis=1)
    return np.asarray(100 * np.concatenate([np.ones((len(changes), 1)), grown], axis=1))
