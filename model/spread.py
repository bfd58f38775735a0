"""Intervals for the next value from the spread of past moves alone: what the bundle's interval is measured against.

    constant   quantiles of the stock's own moves before the border, the same for ever
    ewma       quantiles of moves over volatility; volatility is the exponentially weighted mean of squared moves,
               lambda 0.94 (J. P. Morgan/Reuters, RiskMetrics Technical Document, 4th ed. 1996, section 5.3)

A move is relative to the value where a stock's values are all above zero, else a plain difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.extras import extra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LAMBDA = 0.94
WARM = 20  # moves whose plain mean square starts the volatility
LEAST = 60  # moves of a stock below which `constant` takes the quantiles of all stocks

Pair = tuple["NDArray[np.float64]", "NDArray[np.float64]"]


def units(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a move from each step is divided by; (len,)."""
    return values if (values > 0).all() else np.ones_like(values)


def moves(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(len - 1,) the move from each step to the next, in `units`."""
    return np.asarray(np.diff(values) / units(values)[:-1])


def volatility(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root of the weighted mean square of the moves up to each step; (len,), in `units`, NaN at the first step."""
    squares = moves(values) ** 2
    out = np.full(len(values), np.nan)
    warm = min(WARM, len(squares))
    out[1 : warm + 1] = np.cumsum(squares[:warm]) / np.arange(1, warm + 1)
    if len(squares) > warm:
        lfilter = extra("scipy.signal").lfilter
        later, _ = lfilter([1 - LAMBDA], [1, -LAMBDA], squares[warm:], zi=[LAMBDA * out[warm]])
        out[warm + 1 :] = later
    return np.asarray(np.sqrt(out))


def constant(series: Sequence[NDArray[np.float64]], borders: Sequence[int], level: float) -> list[Pair] | None:
    """For each series, low and high made at each of its steps; None if no series has a move before its border.

    Args:
        series: values (len,) of each stock. borders: of each, the first step whose value must not be used."""
    past = [moves(v[:border]) for v, border in zip(series, borders, strict=True)]
    pooled = np.concatenate([p for p in past if len(p)] or [np.empty(0)])
    if not len(pooled):
        return None
    out = []
    for values, own in zip(series, past, strict=True):
        low, high = _ends(own if len(own) >= LEAST else pooled, level)
        out.append((values + low * units(values), values + high * units(values)))
    return out


def ewma(series: Sequence[NDArray[np.float64]], borders: Sequence[int], level: float) -> list[Pair] | None:
    """As `constant`, from moves over volatility, whose quantiles are those of all stocks together."""
    volatilities = [volatility(v) for v in series]
    standard = []
    for values, sigma, border in zip(series, volatilities, borders, strict=True):
        own, before = moves(values[:border]), sigma[: max(border - 1, 0)]
        used = before > 0  # NaN, and a stock that has not moved yet, say nothing
        standard.append(own[used] / before[used])
    pooled = np.concatenate([*standard, np.empty(0)])
    if not len(pooled):
        return None
    low, high = _ends(pooled, level)
    return [
        (values + low * sigma * units(values), values + high * sigma * units(values))
        for values, sigma in zip(series, volatilities, strict=True)
    ]


def _ends(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
