"""A file of rows and named columns, read by column and refused with file, row and column.

A file is read in blocks of rows, whatever it is (CSV here, Parquet in parquet.py), and a block gives whole columns as
arrays. A column of a CSV is converted by one C loop; only when that fails is it gone through cell by cell, to find
the empty ones or to name the bad one.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zlib
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import IO, TYPE_CHECKING, NoReturn, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from typing_extensions import Buffer

STOCK = ("stock", "ticker", "symbol")
FLAG = ("falling", "label")
BLOCK_CHARACTERS = 1 << 21  # of a CSV: 20 MB as a list of cells
LONGEST_QUOTED = 1 << 25  # characters that may follow an opening quote

_LABELS = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0, "": math.nan}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MS_PER_DAY = 86_400_000
_EPOCH_DIGITS = {10: (1000, 1), 13: (1, 1), 16: (1, 1000), 19: (1, 1_000_000)}  # digits → times this, divided by that
_KNOWN_TIMES = 100_000  # remembered because dates repeat; ticks do not
_BREAK = re.compile(r"\r\n|\r|\n")


class BadTable(Exception):
    """This file cannot be read as a table of prices; one line with file, row and column."""


class MissingColumn(BadTable):
    """This file has not the columns that a model sees beside the value."""


class MissingValue(BadTable):
    """This file has not the value's column that was named."""


class Block(Protocol):
    """Consecutive rows of a sheet; every array has one entry for each of them. All raise BadTable."""

    def __len__(self) -> int:
        """How many rows."""

    def where(self, row: int, column: int | None = None) -> str:
        """File, row and column: `row` counts from 0 in the block."""

    def stocks(self, known: dict[str, int]) -> NDArray[np.int32]:
        """Each row's stock by its number in `known`, to which new names are added."""

    def numbers(self, column: int) -> NDArray[np.float64]:
        """Finite numbers, NaN where there is none."""

    def times(self, column: int) -> NDArray[np.int64]:
        """Epoch milliseconds."""

    def labels(self) -> NDArray[np.float32]:
        """1, 0, or NaN where it is not known; all NaN without a flag column."""


class Sheet(Protocol):
    """A file with a header."""

    columns: Columns

    def blocks(self, columns: Sequence[int]) -> Iterator[Block]:
        """All rows, in order; only the stock, the flag and these columns may be asked for."""


class Columns:
    """The header: columns by name. Case does not count, a space or a dash is an underscore.

    where: file and row of the header. stock: number of the stock's column; flag: of the label's, -1 without one.
    """

    def __init__(self, where: str, names: Sequence[str]) -> None:
        self.where, self.names = where, tuple(name.strip() for name in names)
        self._number = {normal(name): i for i, name in enumerate(self.names)}
        if len(self._number) != len(self.names):
            twice = next(n for i, n in enumerate(self.names) if self._number[normal(n)] != i)
            raise BadTable(f"{where}: two columns have the same name, {twice!r}: rename one")
        self.stock = self.one_of(STOCK)
        flag = self.find(FLAG)
        self.flag = -1 if flag is None else flag

    def find(self, wanted: Sequence[str]) -> int | None:
        """The first of these names that there is."""
        return next((self._number[normal(name)] for name in wanted if normal(name) in self._number), None)

    def one_of(self, wanted: Sequence[str], hint: str = "rename one", error: type[BadTable] = BadTable) -> int:
        """The same; raises `error` if there is none."""
        found = self.find(wanted)
        if found is None:
            raise error(f"{self.where}: no column named {', '.join(wanted)}; there are {', '.join(self.names)}: {hint}")
        return found


def normal(name: str) -> str:
    """A column's name as names are compared."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


class CsvSheet:
    """A CSV in UTF-8 with `,`, `;` or tab between its cells; rows are counted as an editor counts lines."""

    def __init__(self, file: str, text: IO[str]) -> None:
        self.file, self._text = file, text
        self._line = 0  # lines read
        header = self._whole(text.readline())
        while header and not header.strip():
            header = self._whole(text.readline())
        if not header:
            raise BadTable(f"{file}: it is empty: a header and rows are needed")
        self.delimiter = max(",;\t", key=header.count)
        self.columns = Columns(f"{file}, row {self._line}", next(csv.reader([header], delimiter=self.delimiter)))
        self.known_times: dict[str, int] = {}

    def _whole(self, text: str) -> str:
        """The text with what follows of its last row: quotes may hold a line break. Counts its lines."""
        if text.count('"') % 2:
            rest, left = [text], LONGEST_QUOTED
            while left > 0 and (line := self._text.readline()):
                rest.append(line)
                left -= len(line)
                if line.count('"') % 2:
                    break
            text = "".join(rest)
        self._line += len(_BREAK.findall(text)) if "\r" in text else text.count("\n")
        return text

    def blocks(self, columns: Sequence[int]) -> Iterator[Block]:  # noqa: ARG002 - a CSV is read whole
        """All rows that are not empty."""
        while text := self._text.read(BLOCK_CHARACTERS):
            before = self._line
            block = _CsvBlock(self, self._whole(text + self._text.readline()), before)
            if len(block):
                yield block


class _CsvBlock:
    """Rows as one list of cells, `_stride` for each row: a column is every so manieth of them."""

    def __init__(self, sheet: CsvSheet, text: str, line: int) -> None:
        """`line`: how many lines stand before the text."""
        self._sheet, self._columns, self._line = sheet, sheet.columns, line
        self._lines: list[int] | None = None  # of each row, when they are not one after the other
        if not self._split(text):
            self._read(text)

    def _split(self, text: str) -> bool:
        """Cut plain rows, three times as fast as csv does; whether they were plain: no quotes, no holes."""
        if '"' in text:
            return False
        text = text.replace("\r\n", "\n").removesuffix("\n")
        if "\r" in text:
            return False
        # The end of each line as a cell of its own: where one stands elsewhere, a row is not as long as the header.
        mark = self._sheet.delimiter
        self._cells, self._stride = text.replace("\n", f"{mark}\n{mark}").split(mark), len(self._columns.names) + 1
        ends = self._cells[self._stride - 1 :: self._stride]
        return (
            (len(self._cells) + 1) % self._stride == 0
            and ends.count("\n") == len(ends)
            and "" not in self._cells[self._columns.stock :: self._stride]
        )

    def _read(self, text: str) -> None:
        width = len(self._columns.names)
        self._cells, self._stride, self._lines = [], width, []
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self._sheet.delimiter, strict=True)
        try:
            for cells in reader:
                if not any(cells):
                    continue
                self._lines.append(self._line + reader.line_num)
                if len(cells) != width:
                    raise BadTable(f"{self.where(-1)}: {len(cells)} cells, the header has {width}")
                self._cells += cells
        except csv.Error as error:
            at = f"{self._sheet.file}, row {self._line + reader.line_num}"
            raise BadTable(f"{at}: {error}: is a quote missing, or is it no CSV?") from error

    def __len__(self) -> int:
        return (len(self._cells) + 1) // self._stride

    def where(self, row: int, column: int | None = None) -> str:
        line = self._line + 1 + row if self._lines is None else self._lines[row]
        return f"{self._sheet.file}, row {line}" + (
            "" if column is None else f", column {self._columns.names[column]!r}"
        )

    def _fail(self, row: int, column: int, message: str) -> NoReturn:
        raise BadTable(f"{self.where(row, column)}: {message}")

    def _column(self, column: int) -> list[str]:
        return self._cells[column :: self._stride]

    def stocks(self, known: dict[str, int]) -> NDArray[np.int32]:
        column = self._columns.stock
        cells = self._column(column)
        try:
            return np.fromiter(map(known.__getitem__, cells), np.int32, len(cells))
        except KeyError:
            return numbered(cells, known, lambda row: self._fail(row, column, "no stock: fill it in"))

    def numbers(self, column: int) -> NDArray[np.float64]:
        cells = self._column(column)
        try:
            found = np.fromiter(map(float, cells), np.float64, len(cells))
        except ValueError:
            found = None
        if found is not None and np.isfinite(found).all() and "_" not in "".join(cells):
            return found
        return parsed(cells, lambda row, message: self._fail(row, column, message))

    def times(self, column: int) -> NDArray[np.int64]:
        cells, known = self._column(column), self._sheet.known_times
        try:
            return np.fromiter(map(known.__getitem__, cells), np.int64, len(cells))
        except KeyError:
            return moments(cells, known, lambda row, message: self._fail(row, column, message))

    def labels(self) -> NDArray[np.float32]:
        column = self._columns.flag
        if column < 0:
            return np.full(len(self), np.nan, np.float32)
        return flags(self._column(column), lambda row, message: self._fail(row, column, message))


@contextmanager
def open_csv(path: Path, file: str, saw: Callable[[Buffer], object]) -> Iterator[CsvSheet]:
    """The CSV at `path`, .gz or not, called `file` in errors. Its rows are read while the context is open.

    Args:
        saw: is given the decompressed bytes as they are read; all of them, once all rows are.
    Raises: BadTable, also out of the context; OSError.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            source = io.BufferedReader(_Seen(gzip.GzipFile(fileobj=raw) if packed else raw, saw), 1 << 18)
            with io.TextIOWrapper(source, "utf-8-sig", newline="") as text:
                yield CsvSheet(file, text)
    except UnicodeDecodeError as error:
        raise BadTable(f"{file}: not a CSV in UTF-8: {error.reason} at one of its bytes") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadTable(f"{file}: a damaged .gz: {error}") from error


class _Seen(io.RawIOBase):
    """A stream that shows what is read of it."""

    def __init__(self, source: io.BufferedIOBase, saw: Callable[[Buffer], object]) -> None:
        self._source, self._saw = source, saw

    def readable(self) -> bool:
        return True

    def readinto(self, into: Buffer) -> int:
        view = memoryview(into)
        data = self._source.read(len(view))
        view[: len(data)] = data
        self._saw(data)
        return len(data)


def numbered(names: Sequence[str | None], known: dict[str, int], fail: Callable[[int], NoReturn]) -> NDArray[np.int32]:
    """Each name's number in `known`, to which new ones are added, spaces around them aside; fail(row) without one."""
    found = np.empty(len(names), np.int32)
    for row, name in enumerate(names):
        stripped = (name or "").strip() or fail(row)
        found[row] = known.setdefault(stripped, len(known))
    return found


def parsed(cells: Sequence[str | None], fail: Callable[[int, str], NoReturn]) -> NDArray[np.float64]:
    """Cells as finite numbers, empty ones as NaN; fail(row, message) for others."""
    found = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        text = (cell or "").strip()
        if not text:
            continue
        try:
            number = math.nan if "_" in text else float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            fail(row, f"{text!r} is not a finite number: correct it, or leave the cell empty where there is none")
        found[row] = number
    return found


def flags(cells: Sequence[str | None], fail: Callable[[int, str], NoReturn]) -> NDArray[np.float32]:
    """Cells as labels; fail(row, message) for what is none."""
    try:
        return np.fromiter(map(_LABELS.__getitem__, cells), np.float32, len(cells))  # type: ignore[arg-type]  # KeyError
    except KeyError:
        found = np.empty(len(cells), np.float32)
    for row, cell in enumerate(cells):
        text = (cell or "").strip().lower()
        if text not in _LABELS:
            fail(row, f"{cell!r} must be 0 or 1 (or empty: unknown)")
        found[row] = _LABELS[text]
    return found


def moments(cells: Sequence[str], known: dict[str, int], fail: Callable[[int, str], NoReturn]) -> NDArray[np.int64]:
    """Cells as epoch milliseconds; fail(row, message) for what is no time.

    Args:
        known: those of earlier calls; added to, and emptied when it grows large.
    """
    try:
        whole = epochs(np.fromiter(map(int, cells), np.int64, len(cells)))
    except (ValueError, OverflowError):
        whole = None
    if whole is not None:
        return whole
    fresh = [cell for cell in dict.fromkeys(cells) if cell not in known]
    known.update(zip(fresh, _parsed_times(fresh, lambda cell, why: fail(cells.index(cell), why)), strict=True))
    found = np.fromiter(map(known.__getitem__, cells), np.int64, len(cells))
    if len(known) > _KNOWN_TIMES:
        known.clear()
    return found


def _parsed_times(cells: Sequence[str], fail: Callable[[str, str], NoReturn]) -> list[int]:
    """parse_time of each; fail(cell, message) where it cannot."""
    # A third of the time where all are ISO 8601, and either all or none of them have an offset.
    for epoch in (_EPOCH, _EPOCH.replace(tzinfo=None)):
        with suppress(ValueError, TypeError):
            return [(datetime.fromisoformat(cell) - epoch) // _MILLISECOND for cell in cells]
    found = []
    for cell in cells:
        try:
            found.append(parse_time(cell.strip()))
        except ValueError as error:
            fail(cell, f"{cell!r} is {error}")
    return found


def epochs(numbers: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Epoch seconds, milli-, micro- or nanoseconds, all of one unit, as milliseconds; None if they are not."""
    for digits, (factor, divisor) in _EPOCH_DIGITS.items():
        if len(numbers) and numbers.min() >= 10 ** (digits - 1) and numbers.max() <= 10**digits - 1:
            return numbers * factor // divisor
    return None


def parse_time(text: str) -> int:
    """Epoch milliseconds (floored, as the service does) of a time as `downtick replay` reads it. Raises: ValueError.

    A year, a month, a date or ISO 8601 (UTC without an offset), or epoch seconds, milli-, micro- or nanoseconds, told
    apart by their number of digits.
    """
    if text.isdecimal() and len(text) in _EPOCH_DIGITS:
        factor, divisor = _EPOCH_DIGITS[len(text)]
        return int(text) * factor // divisor
    for whole in (text, f"{text}-01", f"{text}-01-01"):
        try:
            moment = datetime.fromisoformat(whole)
        except ValueError:
            continue
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
    raise ValueError("neither a date, ISO 8601 nor an epoch time: write 2026-11-23, 2026-11-23T14:30:00Z or 1795530600")


def time_name(moment: int) -> str:
    """Epoch milliseconds as a file would write them: a date at midnight, else ISO 8601."""
    text = _EPOCH + moment * _MILLISECOND
    return text.date().isoformat() if moment % _MS_PER_DAY == 0 else text.isoformat().replace("+00:00", "Z")
