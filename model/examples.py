"""Windows with their answers, and their split by time.

    time  ─────────────────────────────────────────────────────────►
    example of step s      [ window ......... s ] ···· until          (label and target reach `until`)

    border                                  │
    train:    until <  border   ··········· │
    between:  step before the border, answer behind it: left out (the gap)
    held out: step  >= border               │ ······

So no number that a training answer was made of lies at or behind a border. Windows may look back over it, as they do
in service, where the past is known.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from model import labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.dataset import Series, Table

LEAST_TIMES = 30  # distinct steps below which a split by time says nothing


@dataclass(frozen=True)
class Examples:
    """n examples, by stock and within a stock by time; every array has n rows.

    windows: (n, window, channels) float64. target: float64, the next value, NaN if unknown.
    label: float32 1, 0 or NaN if unknown. slope: float64, the baseline, NaN if unknown.
    stock: int64, number of the series. time: int64, of the window's last step. until: int64, time of the last
    value that label or target were made of.
    """

    windows: NDArray[np.float64]
    target: NDArray[np.float64]
    label: NDArray[np.float32]
    slope: NDArray[np.float64]
    stock: NDArray[np.int64]
    time: NDArray[np.int64]
    until: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)

    def take(self, mask: NDArray[np.bool_]) -> Examples:
        """Those of the mask, in the same order."""
        return Examples(*(getattr(self, f.name)[mask] for f in fields(self)))


@dataclass(frozen=True)
class Split:
    """Examples by time; validation and test are None together, and then `note` says why."""

    train: Examples
    validation: Examples | None
    test: Examples | None
    note: str


def make(table: Table, rule: labels.Rule, window: int, look_ahead: int) -> Examples:
    """Every window of every series whose label or target is known.

    Args:
        window: steps; shorter series give none.
        look_ahead: steps after a window's last one that its label may have been made of, at least 1.
    """
    parts = [_of_series(number, s, rule, window, look_ahead) for number, s in enumerate(table.series)]
    return Examples(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Examples)))


def split(examples: Examples, borders: tuple[int, int] | None) -> Split:
    """Train, validation and test by time.

    Args:
        borders: times at which validation and test begin; when None, at 60 % and 80 % of the distinct times.
    """
    times = np.unique(examples.time)
    if borders is None:
        if len(times) < LEAST_TIMES:
            return Split(
                examples, None, None, f"nothing held out: {len(times)} distinct steps are too few to split by time"
            )
        borders = int(times[int(0.6 * len(times))]), int(times[int(0.8 * len(times))])
    first, second = borders
    train = examples.take(examples.until < first)
    validation = examples.take((examples.time >= first) & (examples.until < second))
    test = examples.take(examples.time >= second)
    for name, part in {"train": train, "validation": validation, "test": test}.items():
        if len(np.unique(part.label[np.isfinite(part.label)])) < 2 or not np.isfinite(part.target).any():
            return Split(
                examples, None, None, f"nothing held out: split by time, the {name} part lacks one of the classes"
            )
    return Split(train, validation, test, "split by time; the test part was used for no choice")


def _of_series(number: int, series: Series, rule: labels.Rule, window: int, look_ahead: int) -> Examples:
    length, values = len(series.times), series.values[:, 0]
    label = labels.regime(values, window) if rule == "regime" else series.labels
    target = np.append(values[1:], series.after)
    steps = np.arange(length)
    keep = (steps >= window - 1) & (np.isfinite(label) | np.isfinite(target))
    # A given label at the end of a series was made of what came later all the same: its reach is then unknown, and
    # only the step itself is counted. Targets of a wide table lie one step behind its last.
    times = np.append(series.times, series.times[-1] + 1 if np.isfinite(series.after) else series.times[-1])
    windows = np.empty((0, window, series.values.shape[1]))
    if length >= window:
        windows = sliding_window_view(series.values, window, axis=0).transpose(0, 2, 1)[keep[window - 1 :]]
    return Examples(
        windows,
        target[keep],
        label[keep],
        labels.trailing_slope(values, window)[keep],
        np.full(int(keep.sum()), number),
        series.times[keep],
        times[np.minimum(steps + look_ahead, length)][keep],
    )
