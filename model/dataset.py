"""Tables of prices, read into one series per stock.

Two layouts, told apart by the header (names in any case; `adj close` is `adj_close`), .gz or not:

    long   one row per value: a stock column (stock, ticker, symbol), a time column (ts, date, time, timestamp:
           a date, ISO 8601 or an epoch time: sheet.parse_time), the value (value, adj_close, close, price: the
           first of these that is there), optionally `label` or `falling` (0, 1 or empty), any others (extra fields)
    wide   one row per stock: the stock, then one column per step, oldest first; optionally a `label` or `falling`
           column, which speaks of the last step, and after it one column (or one named `next`) with the value to come

           stock,2010,2011,2012,2013,2014,falling,2015
           bar,50,100,100,50,25,1,10

In a wide table a stock may begin late (empty cells first). In a long one, rows without a value are left out, counted.
"""

from __future__ import annotations

import gzip
import hashlib
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from model.sheet import FLAG, BadTable, Sheet, parse_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

TIME = ("ts", "date", "time", "timestamp", "datetime")
VALUE = ("value", "adj_close", "close", "price")
NEXT = "next"


@dataclass(frozen=True)
class Series:
    """One stock, oldest first.

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
    """All series of the files, by stock; `sha256` is of the files' decompressed bytes, in order."""

    series: tuple[Series, ...]
    files: tuple[str, ...]
    sha256: str
    rows: int
    skipped: int  # rows of a long table that have no value
    value: str  # the value's column, or "steps"
    steps: tuple[str, ...] = ()  # names of a wide table's step columns

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
            return self.steps[time] if time < len(self.steps) else NEXT
        moment = datetime.fromtimestamp(time / 1000, UTC)
        return moment.date().isoformat() if time % 86_400_000 == 0 else moment.isoformat().replace("+00:00", "Z")


@dataclass
class _Rows:
    """A stock's rows while they are collected."""

    times: list[int] = field(default_factory=list)
    values: list[tuple[float, ...]] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    after: float = math.nan


def read(files: Sequence[Path], *, value: str | None = None, fields: Sequence[str] = ()) -> Table:
    """The files as one table; all of one layout.

    Args:
        value: the value's column in long files; the first of VALUE that is there when not given.
        fields: columns of long files that become extra channels, in this order.
    Raises: BadTable; OSError if a file cannot be opened.
    """
    stocks: dict[str, _Rows] = {}
    digest = hashlib.sha256()
    rows = skipped = 0
    layouts: set[tuple[str, tuple[str, ...]]] = set()
    for path in files:
        data = _read_bytes(path)
        digest.update(data)
        sheet = Sheet(path.name, data)
        if any(name in sheet.header for name in TIME):
            column = _value_column(sheet, value)
            layouts.add((column, ()))
            skipped += _read_long(sheet, stocks, column, fields)
        elif value or fields:
            raise BadTable(
                f"{path.name}: --value and --fields need a long table (with a {' or '.join(TIME[:2])} column)"
            )
        else:
            layouts.add(("steps", _read_wide(sheet, stocks)))
        rows += sheet.rows
    if len(layouts) != 1:
        raise BadTable(f"{', '.join(p.name for p in files)}: must all have the same layout, value column and steps")
    if not stocks:
        raise BadTable(f"{', '.join(p.name for p in files)}: no rows")
    name, steps = layouts.pop()
    series = tuple(_series(stock, stocks[stock]) for stock in sorted(stocks))
    return Table(series, tuple(p.name for p in files), digest.hexdigest(), rows, skipped, name, steps)


def _read_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise BadTable(f"{path.name}: a damaged .gz: {error}") from error


def _value_column(sheet: Sheet, wanted: str | None) -> str:
    for name in (wanted.lower().replace(" ", "_"),) if wanted else VALUE:
        if name in sheet.header:
            return sheet.names[sheet.header[name]]
    raise BadTable(
        f"{sheet.name}, row 1: no column named {wanted or ', '.join(VALUE)}; there are {', '.join(sheet.names)}"
    )


def _read_long(sheet: Sheet, stocks: dict[str, _Rows], value: str, fields: Sequence[str]) -> int:
    columns = []
    for name in (value, *fields):
        if name.lower().replace(" ", "_") not in sheet.header:
            raise BadTable(f"{sheet.name}, row 1: no column named {name}; there are {', '.join(sheet.names)}")
        columns.append(sheet.header[name.lower().replace(" ", "_")])
    time = next(sheet.header[n] for n in TIME if n in sheet.header)
    skipped = 0
    for row in sheet:
        values = tuple(sheet.number(row, column) for column in columns)
        if any(math.isnan(v) for v in values):
            skipped += 1
            continue
        into = stocks.setdefault(row[sheet.stock].strip(), _Rows())
        into.times.append(sheet.time(row, time))
        into.values.append(values)
        into.labels.append(sheet.label(row))
        into.lines.append(sheet.where(time))
    return skipped


def _read_wide(sheet: Sheet, stocks: dict[str, _Rows]) -> tuple[str, ...]:
    """Add the rows to `stocks` and give the names of the steps."""
    end = sheet.flag if sheet.flag >= 0 else sheet.header.get(NEXT, len(sheet.names))
    after = [i for i in range(end, len(sheet.names)) if i != sheet.flag]
    if sheet.stock != 0 or len(after) > 1 or end < 3:
        raise BadTable(
            f"{sheet.name}, row 1: a table without a time column must be: stock, at least two steps, then optionally a "
            f"flag ({' or '.join(FLAG)}) and the next value; the columns are {', '.join(sheet.names)}"
        )
    for row in sheet:
        values = [sheet.number(row, column) for column in range(1, end)]
        begin = next((i for i, v in enumerate(values) if not math.isnan(v)), len(values))
        hole = next((i for i, v in enumerate(values[begin:], begin) if math.isnan(v)), None)
        if hole is not None or begin == len(values):
            raise BadTable(f"{sheet.where(1 + (hole or 0))}: empty")
        stock = row[0].strip()
        if stock in stocks:
            raise BadTable(f"{sheet.where(0)}: {stock} has a row already")
        known = values[begin:]
        stocks[stock] = _Rows(
            list(range(begin, len(values))),
            [(v,) for v in known],
            [math.nan] * (len(known) - 1) + [sheet.label(row)],
            [],
            sheet.number(row, after[0]) if after else math.nan,
        )
    return tuple(sheet.names[1:end])


def _series(stock: str, rows: _Rows) -> Series:
    times = np.array(rows.times, np.int64)
    order = np.argsort(times, kind="stable")
    times = times[order]
    twice = np.flatnonzero(np.diff(times) == 0)
    if len(twice):
        raise BadTable(f"{rows.lines[order[twice[0] + 1]]}: {stock} has a value at this time already")
    values, labels = np.array(rows.values, np.float64)[order], np.array(rows.labels, np.float32)[order]
    return Series(stock, times, values, labels, rows.after)
