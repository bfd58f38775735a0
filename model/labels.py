"""What the network is asked: is the stock falling at a step of its series?

A label may look at later steps, the input never does. `look_ahead` says how many later steps a rule uses; the split
(model/examples.py) leaves that much out before each border.

regime, for the step s of a series v with the network's window of N steps (N = 32, H = 8):

    v:  . . . . . [ s-N+1 ......... s-8 ... s ] ... s+8
                  '---- the window, seen ----'
                                    '- 17 values: slope -'

    slope = least-squares slope, per step, of log v over the 17 values s-8 .. s+8
    step  = mean |log v[t] - log v[t-1]| over the window's N - 1 steps
    falling  <=>  slope < -0.05 * step

A quarter to a third of the steps of a stock are falling by this rule. On the ACL18 prices from 2016 the slope of the
trailing 8 values over the same step, which looks ahead nowhere, orders the steps with an AUC of 0.812.

drop, for the step s: the next change is v[s+1] / v[s] - 1.

    falling      <=>  change <= -threshold
    not falling  <=>  change >= dead_zone, or > -threshold where there is no dead zone
    in between: unknown, the example is left out
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rule = Literal["given", "regime", "drop"]
HALF = 8  # steps on each side of the labelled one
THRESHOLD = -0.05  # of the window's mean absolute log step
TRAILING = 8  # values of the baseline's slope
LOOK_AHEAD: dict[Rule, int] = {"given": 1, "regime": HALF, "drop": 1}  # the forecast's target alone looks 1 ahead


def slopes(series: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Least-squares slope per step of each run of `count` values; (len - count + 1,), entry k for series[k:k+count]."""
    t = np.arange(count) - (count - 1) / 2
    return sliding_window_view(series, count) @ (t / (t @ t))


def logs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of each value, NaN where there is none (zero and negative values)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values > 0, np.log(np.abs(values)), np.nan)


def mean_step(log_values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean absolute step of the `window` values that end at each step; (len,) float64, NaN before there are enough."""
    out = np.full(len(log_values), np.nan)
    if len(log_values) >= window >= 2:
        out[window - 1 :] = sliding_window_view(np.abs(np.diff(log_values)), window - 1).mean(axis=1)
    return out


def regime(values: NDArray[np.float64], window: int) -> NDArray[np.float32]:
    """1 where the series is falling, 0 where not, NaN where the rule cannot say; (len,) float32.

    It cannot say in the first `window` - 1 and the last 8 steps, nor where a value it needs is not above zero.
    A constant stretch (slope 0, step 0) is not falling.

    Args:
        values: (len,) float64, oldest first.
        window: length of the network's window in steps, at least 2.
    """
    logged = logs(values)
    slope = np.full(len(values), np.nan)
    if len(values) > 2 * HALF:
        slope[HALF : len(values) - HALF] = slopes(logged, 2 * HALF + 1)
    step = mean_step(logged, window)
    known = np.isfinite(slope) & np.isfinite(step)
    # Rounding leaves a slope of about 1e-18 on a constant stretch; a step of 0 settles it.
    falling = known & (step > 0) & (slope < THRESHOLD * step)
    return np.where(known, falling, np.nan).astype(np.float32)


def drop(
    values: NDArray[np.float64], following: NDArray[np.float64], threshold: float, dead_zone: float | None
) -> NDArray[np.float32]:
    """1 where the next change is a drop, 0 where it is none, NaN in the dead zone and where there is no change to tell.

    Args:
        values, following: (n,) float64, a value and the one after it; a value must be above zero to have a change.
        threshold: fraction, at least 0: 0.005 is half a percent down.
        dead_zone: fraction, its upper end: changes in (-threshold, dead_zone) are neither; None: no dead zone.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        change = np.where(values > 0, following / values - 1, np.nan)
    other = change > -threshold if dead_zone is None else change >= dead_zone
    return np.where(change <= -threshold, 1, np.where(other, 0, np.nan)).astype(np.float32)


def trailing_slope(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """The baseline that looks ahead nowhere: slope of the last 8 log values over the window's mean step; (len,).

    NaN where it cannot be computed, 0 on a constant stretch. Low means falling.
    """
    logged = logs(values)
    slope = np.full(len(values), np.nan)
    if len(values) >= TRAILING:
        slope[TRAILING - 1 :] = slopes(logged, TRAILING)
    step = mean_step(logged, window)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((step == 0) & np.isfinite(slope), 0.0, slope / step)
