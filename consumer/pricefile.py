"""Price files: a CSV table of prices becomes events in the order in which they happened.

Long: a row for each value, with a stock, a time and a value column. Wide: a row for each stock, a column for each
step. The file is read row by row into columns of numbers (20 bytes a value), because a table is usually ordered by
stock and events must leave ordered by time. `model/dataset.py` reads the same files for training."""

import csv
import gzip
import io
import json
import math
import re
import sys
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from consumer.events import TS_MAX_MS

STOCK_COLUMNS = ("stock", "ticker", "symbol")
TIME_COLUMNS = ("ts", "timestamp", "time", "datetime", "date")
# Adjusted before raw: a split halves a raw close without anything having fallen.
VALUE_COLUMNS = ("value", "adj_close", "close", "price")
LABEL_COLUMNS = ("falling", "label")

STOCK_NAME = re.compile(r"[A-Za-z0-9^][A-Za-z0-9._:=/^+@&-]{0,63}")  # the contract's, consumer/events.py
_MONTH = re.compile(r"\d{4}-\d\d")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DIGITS = {10: 1000.0, 13: 1.0, 16: 1e-3, 19: 1e-6}  # seconds, milli-, micro-, nanoseconds → milliseconds


class BadPriceFile(Exception):
    """The file is not a price table; the message names file, row (as an editor counts lines) and column."""


@dataclass(frozen=True)
class Prices:
    """The values of a price file, ordered by time; values of one time stand as in the file."""

    stocks: list[str]
    stock: NDArray[np.int32]  # (n,) index into `stocks`
    ts_ms: NDArray[np.int64]  # (n,) epoch milliseconds
    value: NDArray[np.float64]  # (n,) finite
    field_names: tuple[str, ...]
    fields: NDArray[np.float64]  # (n, len(field_names)); NaN: the cell was empty
    skipped: int  # rows (long) or cells (wide) without a value

    def __len__(self) -> int:
        return len(self.value)

    def first(self, n: int) -> "Prices":
        """The earliest `n` values."""
        return self._take(slice(0, n))

    def only(self, stocks: Sequence[str]) -> "Prices":
        """The values of these stocks. Raises: KeyError with the first name that the file does not have."""
        known = {stock: i for i, stock in enumerate(self.stocks)}
        return self._take(np.isin(self.stock, [known[stock] for stock in stocks]))

    def _take(self, rows: slice | NDArray[np.bool_]) -> "Prices":
        stock, ts_ms, value = self.stock[rows], self.ts_ms[rows], self.value[rows]
        return Prices(self.stocks, stock, ts_ms, value, self.field_names, self.fields[rows], self.skipped)

    def messages(self) -> Iterator[tuple[str, int, bytes]]:
        """Each value as (key, ts_ms, JSON by the contract), in order."""
        for key, ts_ms, message in self.templates():
            yield key, ts_ms, message(ts_ms)

    def templates(self) -> Iterator[tuple[str, int, Callable[[int], bytes]]]:
        """As `messages`, with the JSON left to a function of the time that it shall carry (epoch milliseconds)."""
        names = [json.dumps(name) for name in self.field_names]
        chunk = 65_536  # whole columns as Python objects would take ten times the arrays' memory
        for start in range(0, len(self), chunk):
            rows = slice(start, start + chunk)
            columns = (self.stock[rows].tolist(), self.ts_ms[rows].tolist(), self.value[rows].tolist())
            for i, (code, ts_ms, value) in enumerate(zip(*columns, strict=True)):
                head, tail = f'{{"stock": "{self.stocks[code]}", "value": {value!r}, "ts": "', '"}'
                if names:
                    cells = zip(names, self.fields[start + i].tolist(), strict=True)
                    given = ", ".join(f"{name}: {cell!r}" for name, cell in cells if not math.isnan(cell))
                    tail = f'", "fields": {{{given}}}}}'
                yield self.stocks[code], ts_ms, partial(_at, head, tail)


def _at(head: str, tail: str, ts_ms: int) -> bytes:
    return f"{head}{_rfc3339(ts_ms)}{tail}".encode()


def read_prices(
    path: Path | str,
    *,
    value: str | None = None,
    fields: Sequence[str] = (),
    start_ms: int | None = None,
    step_ms: int | None = None,
) -> Prices:
    """Read a price table: CSV in UTF-8 with a header; `,`, `;` or tab; `.gz` or not; "-" is standard input.

    Names of columns are compared without case, a space or `-` is `_`. Values without a cell are left out.

    Args:
        value: the column of the values in a long table; otherwise the first found of `VALUE_COLUMNS`.
        fields: columns of a long table that go with each value.
        start_ms, step_ms: the times of a wide table's steps, where its column names are none (years, dates, times).
    Raises: BadPriceFile."""
    name = "standard input" if str(path) == "-" else str(path)
    try:
        with _open(path) as raw, _text(raw) as text:
            table = _Table(name, text)
            if table.time is not None:
                if start_ms is not None or step_ms is not None:
                    table.fail("it has times of its own; --start and --step are for wide tables without", row=0)
                _read_long(table, table.time, value, fields)
            else:
                if value is not None or fields:
                    table.fail("it is a wide table: it has no value or field columns to choose", row=0)
                _read_wide(table, start_ms, step_ms)
            return table.prices(tuple(fields))
    except UnicodeDecodeError as error:
        raise BadPriceFile(f"{name}: not UTF-8 text ({error.reason}); is it a CSV file?") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadPriceFile(f"{name}: the gzip file is damaged or cut short ({error})") from error
    except OSError as error:
        raise BadPriceFile(f"{name}: cannot be read ({error.strerror or error})") from error


def parse_time(text: str) -> int:
    """Epoch milliseconds of a year, month, date, RFC 3339 or ISO 8601 time (UTC without offset), or of an integer.

    Four digits are a year, eight a date, 10, 13, 16 and 19 are epoch seconds, milli-, micro- and nanoseconds.
    Raises: ValueError."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        if len(text) in _EPOCH_DIGITS:
            digits = int(text)
            scale = _EPOCH_DIGITS[len(text)]
            return digits * int(scale) if scale >= 1 else digits // round(1 / scale)
        if len(text) == 4:
            text += "-01-01"
        elif len(text) != 8:
            raise ValueError(f"{text!r} is not a time")
    elif _MONTH.fullmatch(text):
        text += "-01"
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


@lru_cache(maxsize=1)  # many values of a file have the same time, one after the other
def _rfc3339(ts_ms: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=ts_ms)
    return moment.isoformat(timespec="milliseconds" if ts_ms % 1000 else "seconds").replace("+00:00", "Z")


def _open(path: Path | str) -> io.BufferedReader:
    return cast("io.BufferedReader", sys.stdin.buffer) if str(path) == "-" else Path(path).open("rb")


def _text(raw: io.BufferedReader) -> IO[str]:
    packed = raw.peek(2)[:2] == b"\x1f\x8b"
    return io.TextIOWrapper(gzip.GzipFile(fileobj=raw) if packed else raw, "utf-8-sig", newline="")


def _normal(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


class _Table:
    """The rows of a file and the values found so far."""

    def __init__(self, name: str, text: IO[str]) -> None:
        self.name = name
        first = text.readline()
        delimiter = max(",;\t", key=first.count)
        self._reader = csv.reader(_with_first(first, text), delimiter=delimiter, strict=True)
        self.header = next(self.rows(), [])
        if not self.header:
            raise BadPriceFile(f"{name}: it is empty; expected a header and rows")
        self.columns = {_normal(column): i for i, column in reversed(list(enumerate(self.header)))}
        stock = self._find(STOCK_COLUMNS)
        if stock is None:
            self.fail(
                f"no column of stocks: expected one of {', '.join(STOCK_COLUMNS)}, found {', '.join(self.header)}"
            )
        self.stock: int = stock
        self.time = self._find(TIME_COLUMNS)
        self._codes: dict[str, int] = {}
        self._times: dict[str, int] = {}
        self._stock, self._ts, self._value, self._fields = array("i"), array("q"), array("d"), array("d")
        self.skipped = 0

    def _find(self, names: Sequence[str]) -> int | None:
        return next((self.columns[name] for name in names if name in self.columns), None)

    def column(self, name: str) -> int:
        """The column of this name; fails with the names there are."""
        if _normal(name) not in self.columns:
            self.fail(f"no column {name!r}, found {', '.join(self.header)}")
        return self.columns[_normal(name)]

    def fail(self, message: str, column: int | None = None, row: int | None = None) -> NoReturn:
        row = self._reader.line_num if row is None else row
        place = f"{self.name}, row {row}" if row else self.name
        if column is not None:
            place += f", column {self.header[column]!r}"
        raise BadPriceFile(f"{place}: {message}")

    def rows(self) -> Iterator[list[str]]:
        """Every row that is not blank; each has as many cells as the header."""
        while True:
            try:
                cells = next(self._reader, None)
            except csv.Error as error:
                self.fail(f"not a CSV row ({error})")
            if cells is None:
                return
            if not cells or (len(cells) == 1 and not cells[0].strip()):
                continue
            if hasattr(self, "header") and len(cells) != len(self.header):
                self.fail(f"{len(cells)} cells, the header has {len(self.header)}")
            yield cells

    def code(self, name: str) -> int:
        """The index of a stock; a new name is checked against the contract."""
        name = name.strip()
        code = self._codes.get(name)
        if code is None:
            if not STOCK_NAME.fullmatch(name):
                self.fail(f"{name!r} is not the name of a stock (1-64 of letters, digits, ._:=/^+@&-)", self.stock)
            code = self._codes[name] = len(self._codes)
        return code

    def time_of(self, text: str, column: int) -> int:
        ts_ms = self._times.get(text)
        if ts_ms is None:
            try:
                ts_ms = parse_time(text)
            except (ValueError, OverflowError):
                self.fail(f"{text!r} is not a time (a year, a date, an RFC 3339 time or epoch milliseconds)", column)
            if len(self._times) >= 100_000:  # remembered because dates repeat; ticks do not
                self._times.clear()
            self._times[text] = ts_ms
        return ts_ms

    def number(self, text: str, column: int) -> float:
        """A finite number; an empty cell is NaN."""
        text = text.strip()
        if not text:
            return math.nan
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or "_" in text:
            self.fail(f"{text!r} is not a finite number", column)
        return number

    def add(self, code: int, ts_ms: int, value: float, fields: Sequence[float] = ()) -> None:
        if math.isnan(value):
            self.skipped += 1
            return
        self._stock.append(code)
        self._ts.append(ts_ms)
        self._value.append(value)
        self._fields.extend(fields)

    def prices(self, field_names: tuple[str, ...]) -> Prices:
        if not self._value:
            self.fail("there is no value in it", row=0)
        ts_ms = np.array(self._ts, np.int64)
        order = np.argsort(ts_ms, kind="stable")
        fields = np.array(self._fields, np.float64).reshape(len(ts_ms), len(field_names))
        stock, value = np.array(self._stock, np.int32), np.array(self._value, np.float64)
        return Prices(
            list(self._codes), stock[order], ts_ms[order], value[order], field_names, fields[order], self.skipped
        )


def _with_first(first: str, rest: IO[str]) -> Iterator[str]:
    yield first
    yield from rest


def _read_long(table: _Table, time: int, value: str | None, fields: Sequence[str]) -> None:
    stock = table.stock
    if value is not None:
        value_column = table.column(value)
    else:
        found = [table.columns[name] for name in VALUE_COLUMNS if name in table.columns]
        if not found:
            table.fail(f"no column of values: expected one of {', '.join(VALUE_COLUMNS)}; name yours with --value")
        value_column = found[0]
    field_columns = [table.column(field) for field in fields]
    for cells in table.rows():
        table.add(
            table.code(cells[stock]),
            table.time_of(cells[time], time),
            table.number(cells[value_column], value_column),
            [table.number(cells[column], column) for column in field_columns],
        )


def _read_wide(table: _Table, start_ms: int | None, step_ms: int | None) -> None:
    labels = {table.columns[name] for name in LABEL_COLUMNS if name in table.columns}
    steps = [i for i in range(len(table.header)) if i != table.stock and i not in labels]
    if start_ms is not None and step_ms is not None:
        times = [start_ms + n * step_ms for n in range(len(steps))]
        if times and times[-1] > TS_MAX_MS:
            table.fail("--start and --step lead past the year 9999")
    else:
        times = []
        for column in steps:
            try:
                times.append(parse_time(table.header[column]))
            except (ValueError, OverflowError):
                table.fail(
                    f"{table.header[column]!r} is not a time: either a time column is missing "
                    f"({', '.join(TIME_COLUMNS)}), or the steps of a wide table need --start and --step"
                )
        if len(set(times)) < len(times):
            table.fail("two columns have the same time")
    seen: set[int] = set()
    for cells in table.rows():
        code = table.code(cells[table.stock])
        if code in seen:
            table.fail(f"the stock {cells[table.stock].strip()!r} has a row already", table.stock)
        seen.add(code)
        for column, ts_ms in zip(steps, times, strict=True):
            table.add(code, ts_ms, table.number(cells[column], column))
