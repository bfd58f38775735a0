"""A CSV whose cells are read by column, and refused with file, row and column."""

from __future__ import annotations

import csv
import io
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STOCK = ("stock", "ticker", "symbol")
FLAG = ("falling", "label")
_LABELS = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0, "": math.nan}
_EPOCH_MS = {10: 1000, 13: 1, 16: 1e-3, 19: 1e-6}  # by number of digits


class BadTable(Exception):
    """This file cannot be read as a table of prices; one line with file, row and column."""


class Sheet:
    """A CSV with its header; cells are read by column name and refused with file, row and column."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name, self.rows = name, 0
        try:
            self._reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
            first = next(self._reader, [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadTable(f"{name}: not a CSV in UTF-8: {error}") from error
        self.names = [cell.strip() for cell in first]
        self.header = {cell.lower().replace(" ", "_"): i for i, cell in enumerate(self.names)}
        if len(self.header) != len(self.names):
            raise BadTable(f"{name}, row 1: two columns have the same name")
        self.stock = next((self.header[n] for n in STOCK if n in self.header), -1)
        if self.stock < 0:
            raise BadTable(f"{name}, row 1: no column named {', '.join(STOCK)}; the columns are {', '.join(first)}")
        self.flag = next((self.header[n] for n in FLAG if n in self.header), -1)

    def __iter__(self) -> Iterator[list[str]]:
        """Rows that are not empty, each as long as the header."""
        try:
            for row in self._reader:
                if not any(row):
                    continue
                self.rows += 1
                if len(row) != len(self.names):
                    raise BadTable(f"{self.where()}: {len(row)} cells, the header has {len(self.names)}")
                if not row[self.stock].strip():
                    raise BadTable(f"{self.where(self.stock)}: no stock")
                yield row
        except csv.Error as error:
            raise BadTable(f"{self.where()}: {error}") from error

    def where(self, column: int | None = None) -> str:
        """File, row (as an editor counts lines) and column."""
        at = f"{self.name}, row {self._reader.line_num}"
        return at if column is None else f"{at}, column {self.names[column]!r}"

    def number(self, row: list[str], column: int) -> float:
        """A finite number, or NaN for an empty cell."""
        cell = row[column].strip()
        if not cell:
            return math.nan
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise BadTable(f"{self.where(column)}: {cell!r} is not a finite number")
        return number

    def label(self, row: list[str]) -> float:
        """1, 0, or NaN where there is no flag column or its cell is empty."""
        if self.flag < 0:
            return math.nan
        cell = row[self.flag].strip().lower()
        if cell not in _LABELS:
            raise BadTable(f"{self.where(self.flag)}: {cell!r} must be 0 or 1 (or empty: unknown)")
        return _LABELS[cell]

    def time(self, row: list[str], column: int) -> int:
        """Epoch milliseconds."""
        cell = row[column].strip()
        try:
            return parse_time(cell)
        except ValueError as error:
            raise BadTable(f"{self.where(column)}: {cell!r} is {error}") from None


def parse_time(text: str) -> int:
    """Epoch milliseconds of a time as `downtick replay` reads it. Raises: ValueError.

    A year, a month, a date or ISO 8601 (UTC without an offset), or epoch seconds, milli-, micro- or nanoseconds, told
    apart by their number of digits.
    """
    if text.isdecimal() and len(text) in _EPOCH_MS:
        return int(int(text) * _EPOCH_MS[len(text)])
    for whole in (text, f"{text}-01", f"{text}-01-01"):
        try:
            moment = datetime.fromisoformat(whole)
        except ValueError:
            continue
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    raise ValueError("neither a date, ISO 8601 nor an epoch time")
