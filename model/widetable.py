"""Wide tables while they are read: a row for each stock, a column for each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from model.sheet import FLAG, BadTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from model.sheet import Columns, Sheet

NEXT = "next"


@dataclass(frozen=True)
class Shape:
    """Which column is what; the same in all files of a table."""

    steps: tuple[str, ...]
    next_name: str  # the column of the value to come, "" without one
    columns: tuple[int, ...]  # of the steps
    after: int  # of the value to come, -1 without one


class Row(NamedTuple):
    """One stock."""

    stock: str
    times: NDArray[np.int64]  # (n,) numbers of its steps
    values: NDArray[np.float64]  # (n, 1)
    labels: NDArray[np.float32]  # (n,)
    after: float


def shape(columns: Columns) -> Shape:
    """What the columns of a wide table are: the stock, the steps, then a flag, a value to come, both or none.

    Raises: BadTable if they are something else.
    """
    names = columns.names
    data = [i for i in range(len(names)) if i != columns.stock]
    ends = [i for i, number in enumerate(data) if number in {columns.flag, columns.find([NEXT])}]
    end = min(ends, default=len(data))
    after = [number for number in data[end:] if number != columns.flag]
    if len(after) > 1 or end < 2:
        raise BadTable(
            f"{columns.where}: a table without a time column must be: stock, at least two steps, then optionally a "
            f"flag ({' or '.join(FLAG)}) and the next value; the columns are {', '.join(names)}"
        )
    last = after[0] if after else -1
    return Shape(tuple(names[i] for i in data[:end]), names[last] if after else "", tuple(data[:end]), last)


class WideTable:
    """Rows of any number of files of one shape; 8 bytes a value."""

    def __init__(self) -> None:
        self.rows = 0
        self._stocks: dict[str, Row] = {}
        self._places: dict[str, str] = {}  # file and row of each stock

    def add(self, file: str, sheet: Sheet, shape: Shape) -> None:
        """Take in a file. Raises: BadTable."""
        before, stock = self.rows, sheet.columns.stock
        grid = np.arange(len(shape.steps))
        for block in sheet.blocks([*shape.columns, *([shape.after] if shape.after >= 0 else [])]):
            values = np.stack([block.numbers(column) for column in shape.columns], axis=1)
            missing = np.isnan(values)
            begin = missing.argmin(axis=1)
            holes = missing & (grid >= begin[:, None])
            if holes.any():
                row, step = np.unravel_index(holes.argmax(), holes.shape)
                raise BadTable(
                    f"{block.where(int(row), shape.columns[step])}: empty: only the steps before a stock's first value "
                    f"may be"
                )
            labels = block.labels()
            after = block.numbers(shape.after) if shape.after >= 0 else np.full(len(block), np.nan)
            numbers: dict[str, int] = {}
            index = block.stocks(numbers)
            names = list(numbers)
            for row, number in enumerate(index.tolist()):
                name = names[number]
                if name in self._stocks:
                    raise BadTable(f"{block.where(row, stock)}: {name} has a row already, {self._places[name]}")
                flag = np.full(len(grid) - begin[row], np.nan, np.float32)
                flag[-1] = labels[row]
                part = slice(begin[row], None)
                self._stocks[name] = Row(name, grid[part], values[row, part, None], flag, float(after[row]))
                self._places[name] = block.where(row)
            self.rows += len(block)
        if self.rows == before:
            raise BadTable(f"{file}: no rows below the header: leave the file out")

    def stocks(self) -> Iterator[Row]:
        """Each stock's row, by name."""
        for name in sorted(self._stocks):
            yield self._stocks[name]
