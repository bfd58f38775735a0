"""Long tables while they are read: the rows of all files, a compact array for each column, then put in order."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from model.sheet import BadTable, time_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from model.sheet import Block, Sheet

_NEVER = np.iinfo(np.int64).min


class Rows(NamedTuple):
    """One stock's rows, by time."""

    stock: str
    times: NDArray[np.int64]  # (n,)
    values: NDArray[np.float64]  # (n, columns)
    labels: NDArray[np.float32]  # (n,)


class LongTable:
    """Rows of any number of files; 12 bytes each, 8 more for each column, 4 for labels if there are any.

    Within a file a stock's rows must rise in time. Between files nothing is asked but that no two of them hold the
    same stretch of a stock's time: whatever their order, a stretch is one file's.
    """

    def __init__(self, width: int) -> None:
        self.rows = self.skipped = 0  # skipped: those without a value in one of the columns
        self._numbers: dict[str, int] = {}  # of stocks, in order of appearance
        self._stock, self._time, self._labels = array("i"), array("q"), array("f")
        self._columns = [array("d") for _ in range(width)]
        self._first, self._last = _nevers(0), _nevers(0)  # times of each stock in the file that is being read
        self._stretches: list[NDArray[np.int64]] = []  # for each file (4, stocks in it): number, first, last, file
        self._files: list[str] = []

    def add(self, file: str, sheet: Sheet, time: int, columns: Sequence[int]) -> None:
        """Take in a file. Raises: BadTable."""
        before = self.rows
        self._first, self._last = _nevers(len(self._numbers)), _nevers(len(self._numbers))
        for block in sheet.blocks([time, *columns]):
            self._add(block, time, columns)
        if self.rows == before:
            raise BadTable(f"{file}: no rows below the header: leave the file out")
        there = np.flatnonzero(self._last != _NEVER)
        which = np.full(len(there), len(self._files))
        self._stretches.append(np.stack([there, self._first[there], self._last[there], which]))
        self._files.append(file)

    def _add(self, block: Block, time: int, columns: Sequence[int]) -> None:
        numbers = [block.numbers(column) for column in columns]
        stock, times, labels = block.stocks(self._numbers), block.times(time), block.labels()
        kept = np.flatnonzero(~np.logical_or.reduce([np.isnan(column) for column in numbers]))
        self.rows += len(stock)
        if len(kept) < len(stock):
            self.skipped += len(stock) - len(kept)
            numbers, stock, times, labels = [c[kept] for c in numbers], stock[kept], times[kept], labels[kept]
        self._check_order(block, kept, stock, times, time)
        if self._labels or np.isfinite(labels).any():
            if not self._labels:  # the first label of all: nobody before had one
                self._labels = array("f", [np.nan]) * len(self._stock)
            self._labels.frombytes(labels.tobytes())
        self._stock.frombytes(stock.tobytes())
        self._time.frombytes(times.tobytes())
        for into, column in zip(self._columns, numbers, strict=True):
            into.frombytes(column.tobytes())

    def _check_order(
        self, block: Block, kept: NDArray[np.int64], stock: NDArray[np.int32], times: NDArray[np.int64], column: int
    ) -> None:
        """Each row must be later than the one before of its stock; `kept` are the rows' places in the block."""
        if not len(stock):
            return
        new = len(self._numbers) - len(self._last)
        self._first, self._last = np.append(self._first, _nevers(new)), np.append(self._last, _nevers(new))
        order = stock.argsort(kind="stable")
        stock, times = stock[order], times[order]
        begin = np.flatnonzero(np.append(True, stock[1:] != stock[:-1]))
        before = np.append(_NEVER, times[:-1])
        before[begin] = self._last[stock[begin]]
        wrong = np.flatnonzero(times <= before)
        if len(wrong):
            at = wrong[order[wrong].argmin()]
            name = list(self._numbers)[stock[at]]
            told = f"{name} has a value at this time already: keep one of them"
            if times[at] < before[at]:
                told = (
                    f"{time_name(int(times[at]))} comes after {time_name(int(before[at]))} of {name}: sort the file "
                    f"by time"
                )
            raise BadTable(f"{block.where(int(kept[order[at]]), column)}: {told}")
        fresh = begin[before[begin] == _NEVER]
        self._first[stock[fresh]] = times[fresh]
        self._last[stock[begin]] = times[np.append(begin[1:], len(stock)) - 1]

    def stocks(self) -> Iterator[Rows]:
        """Each stock's rows, stocks by name. To be called once, at the end. Raises: BadTable."""
        self._check_stretches()
        stock, times = np.frombuffer(self._stock, np.int32), np.frombuffer(self._time, np.int64)
        rises = (stock[1:] > stock[:-1]) | ((stock[1:] == stock[:-1]) & (times[1:] > times[:-1]))
        order = slice(None) if rises.all() else np.lexsort((times, stock))
        times = times[order]
        values = np.empty((len(times), len(self._columns)))
        for i, column in enumerate(self._columns):
            values[:, i] = np.frombuffer(column, np.float64)[order]
            self._columns[i] = array("d")  # given back at once: there may be many
        # Where nobody has a label, one NaN stands for all of them.
        labels = np.broadcast_to(np.float32(np.nan), len(times))
        if self._labels:
            labels = np.frombuffer(self._labels, np.float32)[order]
        end = np.cumsum(np.bincount(stock, minlength=len(self._numbers)))
        for name in sorted(self._numbers):
            number = self._numbers[name]
            part = slice(end[number - 1] if number else 0, end[number])
            if part.start < part.stop:
                yield Rows(name, times[part], values[part], labels[part])

    def _check_stretches(self) -> None:
        """No two files may hold the same stretch of a stock's time."""
        number, first, last, file = np.concatenate(self._stretches, axis=1)
        order = np.lexsort((first, number))
        number, first, last, file = number[order], first[order], last[order], file[order]
        wrong = np.flatnonzero((number[1:] == number[:-1]) & (first[1:] <= last[:-1]))
        if len(wrong):
            at = int(wrong[0])
            names = [self._files[int(file[at])], self._files[int(file[at + 1])]]
            until = min(int(last[at]), int(last[at + 1]))
            raise BadTable(
                f"{' and '.join(names)}: both have {list(self._numbers)[int(number[at])]} from "
                f"{time_name(int(first[at + 1]))} to {time_name(until)}: keep each stretch of time in one file"
            )


def _nevers(count: int) -> NDArray[np.int64]:
    return np.full(count, _NEVER)
