"""Windows with their answers, and their split by time or by stock.

Windows are not stored: an example is a place in the series, and `windows` cuts out those that are asked for. So a data
set takes the memory of its values, not of its windows, which are hundreds of times as large.

    time  ─────────────────────────────────────────────────────────►
    example of step s         [ window ......... s ] ···· until       (label and target reach `until`)

    border                                     │
    train:    until < border - one window      │
    gap:      one window                ·······│
    held out: step >= border                   │ ······

A window is counted in the stock's own steps: that of one which trades every second day reaches back twice as far. Where
labels reach back further than windows do (`regime`, 8 steps), that is what is left out.
No number that a training answer was made of lies at or behind the border or in a window of a held-out example: the
parts share no value at all.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from model import labels
from model.features import SCORE_CAP, features
from model.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from model.dataset import Series, Table
    from model.manifest import LabelRule

LEAST_TIMES = 30  # distinct steps below which a split by time says nothing
LEAST_STOCKS = 30  # stocks below which a split by stock says nothing
PARTS = ("train", "validation", "test")
CHUNK = 8192  # windows at a time


@dataclass(frozen=True)
class Examples:
    """n examples, by stock and within a stock by time; every array but `series` has n rows.

    series: (rows, columns) float64, the values of all stocks, one stock after the other.
    end: int64, the row of `series` where the window ends. target: float64, the next value, NaN if unknown.
    label: float32 1, 0 or NaN if unknown. slope: float64, the baseline, NaN if unknown.
    stock: int64, number of the series. time: int64, of the window's last step. until: int64, time of the last
    value that label or target were made of.
    """

    inputs: Inputs
    series: NDArray[np.float64]
    end: NDArray[np.int64]
    target: NDArray[np.float64]
    label: NDArray[np.float32]
    slope: NDArray[np.float64]
    stock: NDArray[np.int64]
    time: NDArray[np.int64]
    until: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.end)

    def windows(self, at: Any = slice(None)) -> NDArray[np.float64]:
        """(k, reach, columns) float64, oldest first: the windows of the examples at a slice, mask or index array."""
        rows = self.end[at][:, None] + np.arange(1 - self.inputs.reach, 1)
        return np.asarray(self.series[rows])

    @property
    def scale(self) -> NDArray[np.float64]:
        """(n,) each window's own scale, in the value's unit (features.py)."""
        scale: NDArray[np.float64] = self._sizes[0]
        return scale

    @property
    def spread(self) -> NDArray[np.float64]:
        """(n,) each window's spread, in scales (features.py): what the interval is measured in."""
        spread: NDArray[np.float64] = self._sizes[1]
        return spread

    @cached_property
    def _sizes(self) -> NDArray[np.float64]:
        value = Inputs(self.inputs.window)
        found = np.empty((2, len(self)))
        for part in self.chunks():
            seen = features(self.windows(part)[:, -value.window :, :1], value)
            found[:, part] = seen.scale, seen.spread
        return found

    @property
    def change(self) -> NDArray[np.float64]:
        """(n,) what the network is asked for: the change to the next value, in scales, SCORE_CAP of them at most; NaN
        unknown."""
        with np.errstate(over="ignore"):
            change: NDArray[np.float64] = (self.target - self.series[self.end, 0]) / self.scale
        return change.clip(-SCORE_CAP, SCORE_CAP)

    def chunks(self, size: int = CHUNK) -> Iterator[slice]:
        """The whole, in slices of at most `size` examples."""
        return (slice(start, min(start + size, len(self))) for start in range(0, len(self), size))

    def take(self, at: Any) -> Examples:
        """Those of a mask or of rising indices."""
        return replace(self, **{f.name: getattr(self, f.name)[at] for f in fields(self) if f.name not in _SHARED})


_SHARED = ("inputs", "series")


@dataclass(frozen=True)
class Split:
    """Train, validation and test; the latter two are None together, and then `note` says why.

    by: what the parts differ in. borders: times at which validation and test begin, if it is time.
    """

    train: Examples
    validation: Examples | None
    test: Examples | None
    note: str
    by: str = "nothing"
    borders: tuple[int, int] | None = None


def make(table: Table, rule: LabelRule, inputs: Inputs) -> Examples:
    """Every window of every series whose label or target is known; shorter series than the reach give none.

    Raises: ValueError if the table has other extra columns than `inputs.fields`.
    """
    if any(series.values.shape[1] != inputs.columns for series in table.series):
        raise ValueError(f"the table must have the value and {', '.join(inputs.fields) or 'no other column'}")
    parts = []
    first = 0
    for number, series in enumerate(table.series):
        parts.append(_of_series(number, first, series, rule, inputs))
        first += len(series.times)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Examples(inputs, np.concatenate([series.values for series in table.series]), **columns)


def split(
    examples: Examples,
    table: Table,
    rule: LabelRule,
    borders: tuple[int, int] | None = None,
    needed: Sequence[str] = PARTS,
) -> Split:
    """Train, validation and test: by time, or by stock where a table has too few steps for that but no dates.

    Args:
        rule: what the labels were made by.
        borders: times at which validation and test begin; when None, at 60 % and 80 % of the distinct times.
        needed: parts without which, or without both classes in which, nothing is held out.
    """
    times = np.unique(examples.time)
    if borders is not None or len(times) >= LEAST_TIMES:
        chosen = borders or (int(times[int(0.6 * len(times))]), int(times[int(0.8 * len(times))]))
        return _checked(examples, _by_time(examples, table, rule, chosen), needed)
    if table.steps and len(np.unique(examples.stock)) >= LEAST_STOCKS:
        return _checked(examples, _by_stock(examples, table), needed)
    return _nothing(examples, f"{len(times)} distinct steps are too few to split by time")


def reach_of(inputs: Inputs, rule: LabelRule) -> int:
    """Values that an example is made of, from the oldest of its window or of its label to its own step."""
    return max(inputs.reach, labels.HALF + 1) if rule.rule == "regime" else inputs.reach


def gap_begins(table: Table, border: int, reach: int) -> NDArray[np.int64]:
    """(stocks,) the time at which the gap before a border begins for each stock: no answer before it may reach that.

    `reach` values are counted back from the first step at or behind the border, in the steps of all stocks together and
    in the stock's own, of which its windows are made; the earlier of the two. They differ where stocks have holes, or
    other frequencies.
    """
    together = _oldest(np.unique(np.concatenate([series.times for series in table.series])), border, reach)
    own = [_oldest(series.times, border, reach) if series.times[-1] >= border else together for series in table.series]
    return np.minimum(np.array(own, np.int64), together)


def _oldest(times: NDArray[np.int64], border: int, reach: int) -> int:
    """Time of the oldest value in the window of the first of these steps at or behind the border."""
    at = int(np.searchsorted(times, border)) - (reach - 1)
    return int(times[max(at, 0)])


def _by_time(examples: Examples, table: Table, rule: LabelRule, borders: tuple[int, int]) -> Split:
    first, second = borders
    reach, stock = reach_of(examples.inputs, rule), examples.stock
    train = examples.take(examples.until < gap_begins(table, first, reach)[stock])
    validation = examples.take((examples.time >= first) & (examples.until < gap_begins(table, second, reach)[stock]))
    test = examples.take(examples.time >= second)
    note = f"split by time, {reach - 1} steps left out before each border; the test part was used for no choice"
    return Split(train, validation, test, note, "time", borders)


def _by_stock(examples: Examples, table: Table) -> Split:
    """By a hash of the name: a stock stays in its part when others come or go."""
    place = np.array([zlib.crc32(series.stock.encode()) / 2**32 for series in table.series])[examples.stock]
    train, validation = examples.take(place < 0.6), examples.take((place >= 0.6) & (place < 0.8))
    note = "split by stock, for want of steps to split by time; the test part was used for no choice"
    return Split(train, validation, examples.take(place >= 0.8), note, "stock")


def _checked(examples: Examples, found: Split, needed: Sequence[str]) -> Split:
    way = "move the borders, or give more data" if found.by == "time" else "give more data"
    for name in needed:
        part = getattr(found, name)
        fault = ""
        if not np.isfinite(part.target).any():
            fault = f"has no room for a window of {examples.inputs.reach} values and the next one"
        elif len(np.unique(part.label[np.isfinite(part.label)])) < 2:
            fault = "lacks one of the classes"
        if fault:
            return _nothing(examples, f"split by {found.by}, the {name} part {fault}: {way}")
    return found


def _nothing(examples: Examples, why: str) -> Split:
    return Split(examples, None, None, f"nothing held out: {why}")


def _of_series(
    number: int, first: int, series: Series, rule: LabelRule, inputs: Inputs
) -> dict[str, NDArray[np.int64 | np.float64 | np.float32]]:
    length, values = len(series.times), series.values[:, 0]
    target = np.append(values[1:], series.after)
    if rule.rule == "regime":
        label = labels.regime(values, inputs.window)
    elif rule.rule == "drop":
        label = labels.drop(values, target, rule.threshold or 0.0, rule.dead_zone)
    else:
        label = series.labels
    steps = np.arange(length)
    keep = (steps >= inputs.reach - 1) & (np.isfinite(label) | np.isfinite(target))
    # A given label at the end of a series was made of what came later all the same: its reach is then unknown, and
    # only the step itself is counted. Targets of a wide table lie one step behind its last.
    times = np.append(series.times, series.times[-1] + 1 if np.isfinite(series.after) else series.times[-1])
    return {
        "end": first + steps[keep],
        "target": target[keep],
        "label": label[keep],
        "slope": labels.trailing_slope(values, inputs.window)[keep],
        "stock": np.full(int(keep.sum()), number),
        "time": series.times[keep],
        "until": times[np.minimum(steps + rule.look_ahead, length)][keep],
    }
