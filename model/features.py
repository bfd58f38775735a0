"""What the network sees of a window, the same for training and serving.

A window is taken relative to its last value and divided by its own scale, so that 4 and 40,000 a share, and any
finite numbers at all, look alike. Per row and channel, in exact arithmetic:

    steps   = |w[t] - w[t-1]|                      the moves between neighbours
    cap     = 4 * mean(steps)
    scale   = max(mean(min(steps, cap)), 1e-6 * max|w|)
    x[t]    = (w[t] - w[last]) / scale             0 where the scale is 0: a window of nothing but zeros

The mean absolute step is what the regime label and the interval are measured in. The cap keeps one split or bad
tick from flattening everything else in its window; because a step is at least partly counted, |x| stays within
max(reach, reach**2 / 4) whatever the input. The floor keeps a constant series at 0 instead of 0/0.
The scale that is given out, and that errors are measured in, is at least 2.2e-308.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP_CAP = 4.0  # a single step counts for at most this many mean steps
FLOOR = 1e-6  # smallest scale, relative to the largest |value| of the window
TINY = float(np.finfo(np.float64).tiny)  # smallest scale at all

# Rows outside (SMALL, LARGE) are computed times a power of two, which is exact, so that no difference or sum of
# `reach` values overflows and no step of a subnormal window is lost.
SMALL, LARGE = 2.0**-900, 2.0**900
UP, DOWN = 2.0**600, 2.0**-200


class Features(NamedTuple):
    """What `features` gives; n rows, each a function of its own window only, bit for bit.

    x: (n, reach, channels) float32, finite; the last step of every channel is 0.
    scale: (n,) float64 > 0, finite, of the value (channel 0) in the value's own unit.
    last: (n,) float64, the window's last value times `factor`.
    unit: (n,) float64, the scale times `factor`: `forecast = (last + change * unit) / factor` cannot overflow half-way.
    factor: (n,) float64, a power of two.
    """

    x: NDArray[np.float32]
    scale: NDArray[np.float64]
    last: NDArray[np.float64]
    unit: NDArray[np.float64]
    factor: NDArray[np.float64]


def features(windows: NDArray[np.float64]) -> Features:
    """The network's input for each window; see the module for the formula and `Features` for the parts.

    Args:
        windows: (n, reach, channels) float64, oldest first, all finite; reach >= 2; channel 0 is the value.
    Raises: ValueError on another shape. Finite input never gives a warning or a non-finite result.
    """
    if windows.ndim != 3 or windows.shape[1] < 2 or windows.shape[2] < 1:
        raise ValueError(f"windows must be (n, reach >= 2, channels >= 1), got {windows.shape}")
    # (n, channels, reach) in C order: every reduction runs along contiguous memory within a row, which is what makes
    # a row's result independent of how many rows come with it.
    w = np.ascontiguousarray(windows.transpose(0, 2, 1), dtype=np.float64)
    largest = np.abs(w).max(axis=2)
    factor = np.where(largest > LARGE, DOWN, np.where(largest < SMALL, UP, 1.0))
    if (factor != 1.0).any():
        w = w * factor[:, :, None]
        largest = largest * factor
    steps = np.abs(w[:, :, 1:] - w[:, :, :-1])
    cap = STEP_CAP * steps.mean(axis=2, keepdims=True)
    unit = np.minimum(steps, cap).mean(axis=2)
    unit = np.maximum(np.maximum(unit, FLOOR * largest), TINY)
    x = ((w - w[:, :, -1:]) / unit[:, :, None]).astype(np.float32)
    # Only a window of mixed +-1e308 has a scale beyond the largest float: there the exported scale saturates.
    limit = np.finfo(np.float64).max * np.minimum(factor[:, 0], 1.0)
    scale = np.maximum(np.minimum(unit[:, 0], limit) / factor[:, 0], TINY)
    return Features(np.ascontiguousarray(x.transpose(0, 2, 1)), scale, w[:, 0, -1], unit[:, 0], factor[:, 0])


def to_values(change: NDArray[np.float64], seen: Features) -> NDArray[np.float64]:
    """The values that lie `change` scales from the windows' last values; (…, n) float64 in the value's own unit.

    Saturates at the largest float rather than overflow; a non-finite change gives NaN.
    """
    limit = np.finfo(np.float64).max * np.minimum(seen.factor, 1.0)
    with np.errstate(invalid="ignore"):
        moved = np.clip(seen.last + change * seen.unit, -limit, limit) / seen.factor
    return np.where(np.isfinite(change), moved, np.nan)
