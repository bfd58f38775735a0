"""What the network sees of a window, the same for training and serving.

A window is taken relative to its last value and divided by its own scale, so that 4 and 40,000 a share, and any
finite numbers at all, look alike. Per row and series (the value, each field), in exact arithmetic:

    steps   = |w[t] - w[t-1]|                      the moves between neighbours in the window
    cap     = 4 * mean(steps)
    scale   = max(mean(min(steps, cap)), 1e-6 * max|w|)
    x[t]    = (w[t] - w[last]) / scale             0 where the scale is 0: a window of nothing but zeros

The other kinds of channels are told in inputs.py; steps before the window have no part in the scale. The width of the
interval follows the younger steps of the value more closely, as volatility comes in bursts:

    spread  = max(sum(g[t] * min(steps[t], cap)), 1e-6 * max|w|)      g[t] falls by 0.94 a step back, sum(g) = 1

The mean absolute step is what the regime label and the interval are measured in. The cap keeps one split or bad
tick from flattening everything else in its window; because a step is at least partly counted, |x| stays within
max(window, window**2 / 4) whatever the input. The floor keeps a constant series at 0 instead of 0/0.
The scale that is given out, and that errors are measured in, is at least 2.2e-308.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.inputs import Channel, Inputs

STEP_CAP = 4.0  # a single step counts for at most this many mean steps
FLOOR = 1e-6  # smallest scale, relative to the largest |value| of the window
TINY = float(np.finfo(np.float64).tiny)  # smallest scale at all
SCORE_CAP = 1e6  # scales; one wrong decimal point, or a first price after zeros, must not drown the sums of a year
CUT = 32.0  # of derived channels: a jump before the window is measured in a scale that knows nothing of it

# Of the spread: the decay of RiskMetrics (1996) for daily data, here over capped steps; docs/decisions/windows.md.
DECAY = 0.94

# Rows outside (SMALL, LARGE) are computed times a power of two, which is exact, so that no difference or sum of
# `reach` values overflows and no step of a subnormal window is lost.
SMALL, LARGE = 2.0**-900, 2.0**900
UP, DOWN = 2.0**600, 2.0**-200


class Features(NamedTuple):
    """What `features` gives; n rows, each a function of its own window only, bit for bit.

    x: (n, window, channels) float32, finite; the last step of every level is 0.
    scale: (n,) float64 > 0, finite, of the value (column 0) in the value's own unit.
    last: (n,) float64, the window's last value times `factor`.
    unit: (n,) float64, the scale times `factor`: `forecast = (last + change * unit) / factor` cannot overflow half-way.
    factor: (n,) float64, a power of two.
    spread: (n,) float64 > 0, of the value, in scales: about 1, more when the latest steps were the larger ones.
    """

    x: NDArray[np.float32]
    scale: NDArray[np.float64]
    last: NDArray[np.float64]
    unit: NDArray[np.float64]
    factor: NDArray[np.float64]
    spread: NDArray[np.float64]


def features(windows: NDArray[np.float64], inputs: Inputs) -> Features:
    """The network's input for each window; see the module for the formula and `Features` for the parts.

    Args:
        windows: (n, reach, columns) float64, oldest first, all finite; column 0 is the value, then inputs.fields.
    Raises: ValueError on another shape. Finite input never gives a warning or a non-finite result.
    """
    if windows.ndim != 3 or windows.shape[1:] != (inputs.reach, inputs.columns):
        raise ValueError(f"windows must be (n, {inputs.reach}, {inputs.columns}), got {windows.shape}")
    # (n, columns, reach) in C order: every reduction runs along contiguous memory within a row, which is what makes
    # a row's result independent of how many rows come with it.
    w = np.ascontiguousarray(windows.transpose(0, 2, 1), dtype=np.float64)
    largest = np.abs(w).max(axis=2)
    factor = np.where(largest > LARGE, DOWN, np.where(largest < SMALL, UP, 1.0))
    if (factor != 1.0).any():
        w = w * factor[:, :, None]
        largest = largest * factor
    moves = w[:, :, 1:] - w[:, :, :-1]
    steps = np.abs(moves[:, :, 1 - inputs.window :])
    cap = STEP_CAP * steps.mean(axis=2, keepdims=True)
    counted = np.minimum(steps, cap)
    floor = np.maximum(FLOOR * largest, TINY)
    unit = np.maximum(counted.mean(axis=2), floor)
    spread = np.maximum((counted[:, 0] * _recency(inputs.window - 1)).sum(axis=1), floor[:, 0]) / unit[:, 0]
    # (n, channels, window) first: written along contiguous memory, turned once at the end.
    x = np.empty((len(w), len(inputs.channels), inputs.window), np.float32)
    for at, channel in enumerate(inputs.parsed):
        column = 0 if channel.name == "value" else 1 + inputs.fields.index(channel.name)
        x[:, at] = _channel(channel, w[:, column], moves[:, column], unit[:, column, None], inputs.window)
    # Only a window of mixed +-1e308 has a scale beyond the largest float: there the exported scale saturates.
    limit = np.finfo(np.float64).max * np.minimum(factor[:, 0], 1.0)
    scale = np.maximum(np.minimum(unit[:, 0], limit) / factor[:, 0], TINY)
    return Features(np.ascontiguousarray(x.transpose(0, 2, 1)), scale, w[:, 0, -1], unit[:, 0], factor[:, 0], spread)


@cache
def _recency(steps: int) -> NDArray[np.float64]:
    """(steps,) weights that fall by DECAY with each step back and sum to 1."""
    weights = DECAY ** np.arange(steps - 1.0, -1.0, -1.0)
    return np.asarray(weights / weights.sum())


def _channel(
    channel: Channel,
    w: NDArray[np.float64],
    moves: NDArray[np.float64],
    unit: NDArray[np.float64],
    window: int,
) -> NDArray[np.float64]:
    """(n, window) of one channel, from (n, reach) values, (n, reach - 1) moves between them and (n, 1) scales."""
    recent = w[:, -window:]
    if channel.kind == "level":
        return np.asarray((recent - w[:, -1:]) / unit)
    if channel.kind == "return":
        larger = np.maximum(np.abs(w[:, 1:]), np.abs(w[:, :-1]))
        shown = 100 * (moves / np.where(larger > 0, larger, 1.0))[:, -window:]
    elif channel.kind == "change":
        shown = moves[:, -window:] / unit
    elif channel.kind == "mean":
        # Means of differences: w itself may be large beside them. Step by step of the span, here and below: all of
        # them at once would take `span` times the memory of the windows, gigabytes where both are long.
        total = np.zeros_like(recent)
        for back in range(1, channel.span):
            total += _earlier(w, window, back) - recent
        shown = total / channel.span / unit
    else:
        sizes, total = np.abs(moves), np.zeros_like(recent)
        for back in range(channel.span):
            total += _earlier(sizes, window, back)
        shown = total / channel.span / unit - 1
    return np.clip(shown, -CUT, CUT)


def _earlier(series: NDArray[np.float64], window: int, back: int) -> NDArray[np.float64]:
    """(n, window) of the steps that end `back` before the last one; a view."""
    end = series.shape[1] - back
    return series[:, end - window : end]


def to_values(change: NDArray[np.float64], seen: Features) -> NDArray[np.float64]:
    """The values that lie `change` scales from the windows' last values; (…, n) float64 in the value's own unit.

    Saturates at the largest float rather than overflow; a non-finite change gives NaN.
    """
    limit = np.finfo(np.float64).max * np.minimum(seen.factor, 1.0)
    with np.errstate(invalid="ignore"):
        moved = np.clip(seen.last + change * seen.unit, -limit, limit) / seen.factor
    return np.where(np.isfinite(change), moved, np.nan)
