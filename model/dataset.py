"""Tables of prices, read into one series per stock.

CSV (.gz or not) or Parquet, one file, many, or folders of them; two layouts, told apart by the names of the columns
(in any case; `adj close` is `adj_close`):

    long   one row per value: a stock column (stock, ticker, symbol), a time column (ts, date, time, timestamp,
           datetime: a date, ISO 8601 or an epoch time, sheet.parse_time), the value (value, adj_close, close, price:
           the first of these that is there), optionally `label` or `falling` (0, 1 or empty), any others (fields).
           A stock's rows rise in time; between them may be those of others.
    wide   one row per stock: the stock, then one column per step, oldest first; optionally a `label` or `falling`
           column, which speaks of the last step, and beside it one column (or one named `next`) with the value to come

           stock,2010,2011,2012,2013,2014,falling,2015
           bar,50,100,100,50,25,1,10

In a wide table a stock may begin late (empty cells first). In a long one, rows without a value are left out, counted.
Files of one table may come in any order, as long as no two of them hold the same stretch of a stock's time.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from model import widetable
from model.longtable import LongTable
from model.parquet import MAGIC, open_parquet
from model.sheet import BadTable, MissingColumn, MissingValue, normal, open_csv, parse_time, time_name
from model.widetable import NEXT, WideTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

TIME = ("ts", "date", "time", "timestamp", "datetime")
VALUE = ("value", "adj_close", "close", "price")
SUFFIXES = (".csv", ".csv.gz", ".parquet")  # of the files that are read of a folder


@dataclass(frozen=True)
class Series:
    """One stock, oldest first. The arrays may be views of larger ones, and read-only.

    times: (len,) int64, strictly rising: epoch milliseconds, or the number of the step's column in a wide table.
    values: (len, 1 + fields) float64, finite; column 0 is the value.
    labels: (len,) float32: 1 falling, 0 not, NaN unknown.
    after: the value to come after the last step, NaN if unknown.
    """

    stock: str
    times: NDArray[np.int64]
    values: NDArray[np.float64]
    labels: NDArray[np.float32]
    after: float = math.nan


@dataclass(frozen=True)
class Table:
    """All series of the files, by stock; `sha256` is of the files' decompressed bytes (Parquet: as they are), in order.

    The order is the one in which they were named; of a folder's files, by name.
    """

    series: tuple[Series, ...]
    files: tuple[str, ...]
    sha256: str
    rows: int
    skipped: int  # rows of a long table that have no value
    value: str  # the value's column, or "steps"
    steps: tuple[str, ...] = ()  # names of a wide table's step columns
    next_name: str = ""  # and of the one with the value to come, if there is one
    fields: tuple[str, ...] = ()  # names of the extra columns of `values`

    def time_of(self, text: str) -> int:
        """The time that a text means: the name of a step, or a date. Raises: BadTable."""
        if not self.steps:
            try:
                return parse_time(text)
            except ValueError as error:
                raise BadTable(f"{text!r} is {error}") from None
        if text not in self.steps:
            raise BadTable(f"{text!r} is no step of {self.files[0]}, which has {', '.join(self.steps)}")
        return self.steps.index(text)

    @property
    def labelled(self) -> bool:
        """Whether any row has a given label."""
        return any(np.isfinite(s.labels).any() for s in self.series)

    def time_name(self, time: int) -> str:
        """A time as its file would write it."""
        if self.steps:
            return self.steps[time] if time < len(self.steps) else self.next_name or NEXT
        return time_name(time)


def read(files: Sequence[Path], *, value: str | None = None, fields: Sequence[str] = ()) -> Table:
    """The files as one table, all of one layout; a folder stands for all CSV and Parquet files in it, by name.

    Args:
        value: the value's column in long files; the first of VALUE that is there when not given.
        fields: columns of long files that become extra channels, in this order.
    Raises: BadTable; OSError if a file cannot be opened.
    """
    paths = _files(files)
    names = _names(paths)
    digest = hashlib.sha256()
    long, wide = LongTable(1 + len(fields)), WideTable()
    layouts: list[tuple[str, tuple[str, ...], str]] = []  # of each file: the value's column, steps, value to come
    for path, file in zip(paths, names, strict=True):
        opened = open_parquet if _is_parquet(path) else open_csv
        with opened(path, file, digest.update) as sheet:
            columns = sheet.columns
            time = columns.find(TIME)
            if time is not None:
                named = [value] if value else VALUE
                chosen = [columns.one_of(named, "name the value's column with --value", error=MissingValue)]
                chosen += [columns.one_of([name], error=MissingColumn) for name in fields]
                layouts.append((columns.names[chosen[0]], (), ""))
                _check_layouts(layouts, names)
                long.add(file, sheet, time, chosen)
            elif value or fields:
                asked = ", ".join([value, *fields] if value else fields)
                raise (MissingColumn if fields else MissingValue)(
                    f"{columns.where}: only a long table has columns to be named ({asked}), and one needs a column "
                    f"{_or(TIME)}"
                )
            else:
                shape = widetable.shape(columns)
                layouts.append(("steps", shape.steps, shape.next_name))
                _check_layouts(layouts, names)
                wide.add(file, sheet, shape)
    name, steps, next_name = layouts[0]
    found = long.stocks() if not steps else wide.stocks()
    series = tuple(Series(*one) for one in found)
    if not series:
        raise BadTable(f"{', '.join(names)}: no row has a value")
    return Table(
        series,
        tuple(names),
        digest.hexdigest(),
        long.rows + wide.rows,
        long.skipped,
        name,
        steps,
        next_name,
        tuple(fields),
    )


def usable(table: Table, needed: int, *, moving: bool = True) -> tuple[Table, list[str]]:
    """The table without the stocks that nothing can be learned from, and a line about each of them.

    Those with fewer than `needed` values (the one to come aside), and those whose value never changes, unless `moving`
    is False. Raises: BadTable if none is left.
    """
    kept, lines = [], []
    for one in table.series:
        values = one.values[:, 0]
        if len(values) < needed:
            lines.append(f"{one.stock}: {len(values)} values, {needed} are needed: skipped")
        elif moving and (values == values[0]).all() and (math.isnan(one.after) or one.after == values[0]):
            lines.append(f"{one.stock}: all {len(values)} values are {values[0]:g}: skipped")
        else:
            kept.append(one)
    if not kept:
        few = f", as in {lines[0].removesuffix(': skipped')}" if lines else ""
        raise BadTable(f"{', '.join(table.files)}: none of {len(table.series)} stocks can be used{few}")
    return replace(table, series=tuple(kept)), lines


def _files(given: Sequence[Path]) -> list[Path]:
    """The files, folders replaced by what they hold."""
    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        held = sorted(p for p in path.iterdir() if p.name.lower().endswith(SUFFIXES) and not p.name.startswith("."))
        if not held:
            raise BadTable(f"{path}: a folder without any {_or(tuple('*' + s for s in SUFFIXES))}")
        found += held
    twice = [path for path, count in Counter(p.resolve() for p in found).items() if count > 1]
    if twice:
        raise BadTable(f"{twice[0].name}: given twice: name it once")
    return found


def _names(paths: Sequence[Path]) -> list[str]:
    """What the files are called: their names, with folders where two are alike."""
    count = Counter(path.name for path in paths)
    return [path.name if count[path.name] == 1 else str(path) for path in paths]


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC or path.suffix.lower() == ".parquet"


def _check_layouts(layouts: Sequence[tuple[str, tuple[str, ...], str]], files: Sequence[str]) -> None:
    """The newest layout must be the first one's."""
    (value, steps, next_name), (its_value, its_steps, its_next) = layouts[0], layouts[-1]
    this, first = files[len(layouts) - 1], files[0]
    told = ""
    if bool(steps) != bool(its_steps):
        told = f"{'a wide' if its_steps else 'a long'} table, {first} is a {'wide' if steps else 'long'} one"
    elif normal(value) != normal(its_value):
        told = f"its value is {its_value!r}, that of {first} is {value!r}: name one column with --value"
    elif steps != its_steps or next_name != its_next:
        told = f"its steps are not those of {first}"
    if told:
        raise BadTable(f"{this}: {told}: all files of a table must have the same layout")


def _or(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}"
