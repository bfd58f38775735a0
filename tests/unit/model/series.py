"""Made-up prices for the tests of the model."""

import numpy as np
from numpy.typing import NDArray

from model.dataset import Series, Table

DAY = 86_400_000


def walks(count: int, steps: int, seed: int = 0) -> NDArray[np.float64]:
    """(count, steps) random walks around 100, never zero or below."""
    moves = np.random.default_rng(seed).normal(0, 0.02, (count, steps))
    return np.asarray(100 * np.exp(np.cumsum(moves, axis=1)))


def table(values: NDArray[np.float64]) -> Table:
    """A long table of daily values, (stocks, steps); day 0 is 1970-01-01."""
    days = np.arange(values.shape[1], dtype=np.int64) * DAY
    unknown = np.full(values.shape[1], np.nan, np.float32)
    series = tuple(Series(f"S{i}", days, row[:, None], unknown) for i, row in enumerate(values))
    return Table(series, ("made-up.csv",), "0" * 64, values.size, 0, "value")
