"""Parquet files as sheets (sheet.py). Rows are counted from 1: there is no header among them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from model.sheet import BadTable, Columns, epochs, flags, moments, numbered, parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from model.sheet import Block

MAGIC = b"PAR1"
BLOCK_ROWS = 65_536
_MS_PER_DAY = 86_400_000
_PER_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}  # units of a timestamp in a millisecond


class ParquetSheet:
    """A Parquet file whose columns are what a CSV's would be; a null is an empty cell.

    A stock may be text or a category; a time a timestamp (UTC without a zone), a date, text or an epoch number; a
    label a boolean, 0 and 1 as numbers, or text.
    """

    def __init__(self, file: str, source: Any, arrow: ModuleType) -> None:
        self.file, self._source, self._arrow = file, source, arrow
        self.names: list[str] = source.schema_arrow.names
        self.columns = Columns(f"{file}, schema", self.names)
        self.known_times: dict[str, int] = {}

    def blocks(self, columns: Sequence[int]) -> Iterator[Block]:
        """All rows; of the columns only these, the stock and the flag are read."""
        wanted = sorted({*columns, self.columns.stock, self.columns.flag} - {-1})
        row = 0
        try:
            for batch in self._source.iter_batches(BLOCK_ROWS, columns=[self.names[i] for i in wanted]):
                if len(batch):
                    yield _ParquetBlock(self, batch, row, self._arrow)
                row += len(batch)
        except (self._arrow.ArrowException, OSError) as error:
            raise BadTable(f"{self.file}, row {row + 1} or later: a damaged Parquet file: {_line(error)}") from error


class _ParquetBlock:
    def __init__(self, sheet: ParquetSheet, batch: Any, before: int, arrow: ModuleType) -> None:
        self._sheet, self._batch, self._before, self._arrow = sheet, batch, before, arrow

    def __len__(self) -> int:
        return len(self._batch)

    def where(self, row: int, column: int | None = None) -> str:
        at = f"{self._sheet.file}, row {self._before + row + 1}"
        return at if column is None else f"{at}, column {self._sheet.columns.names[column]!r}"

    def _fail(self, column: int) -> Callable[[int, str], NoReturn]:
        def fail(row: int, message: str) -> NoReturn:
            raise BadTable(f"{self.where(row, column)}: {message}")

        return fail

    def _column(self, column: int) -> Any:
        found = self._batch.column(self._sheet.names[column])
        if self._arrow.types.is_dictionary(found.type):
            found = found.dictionary_decode()
        return found.cast(self._arrow.string()) if self._arrow.types.is_string_view(found.type) else found

    def _texts(self, found: Any, column: int) -> list[str | None]:
        """The cells of a column of text."""
        types = self._arrow.types
        kind = found.type
        if not (types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind)):
            self._fail(column)(0, f"a column of {kind} cannot be read here: write it as text or numbers")
        texts: list[str | None] = found.to_pylist()
        return texts

    def stocks(self, known: dict[str, int]) -> NDArray[np.int32]:
        column = self._sheet.columns.stock
        fail = self._fail(column)
        found = self._batch.column(self._sheet.names[column])
        if not self._arrow.types.is_dictionary(found.type):
            found = self._column(column).dictionary_encode()
        nulls = _nulls(found)
        if nulls.any():
            fail(int(nulls.argmax()), "no stock: fill it in")
        # A category may have names that no row has: only those of rows are taken in.
        used, place = np.unique(_whole(found.indices), return_inverse=True)
        names = self._texts(found.dictionary.take(self._arrow.array(used)), column)
        return numbered(names, known, lambda i: fail(int((place == i).argmax()), "no stock: fill it in"))[place]

    def numbers(self, column: int) -> NDArray[np.float64]:
        found, types, fail = self._column(column), self._arrow.types, self._fail(column)
        kind = found.type
        if not (types.is_floating(kind) or types.is_integer(kind) or types.is_decimal(kind)):
            return parsed(self._texts(found, column), fail)
        numbers: NDArray[np.float64] = found.cast(self._arrow.float64(), safe=False).to_numpy(zero_copy_only=False)
        bad = ~np.isfinite(numbers) & ~_nulls(found)
        if bad.any():
            row = int(bad.argmax())
            fail(row, f"{numbers[row]} is not a finite number: correct it, or write null where there is none")
        return numbers

    def times(self, column: int) -> NDArray[np.int64]:
        found, types, fail = self._column(column), self._arrow.types, self._fail(column)
        kind, nulls = found.type, _nulls(found)
        if nulls.any():
            fail(int(nulls.argmax()), "no time: fill it in")
        if types.is_date32(kind):
            return _whole(found.cast(self._arrow.int32())) * _MS_PER_DAY
        if types.is_date64(kind) or types.is_timestamp(kind):
            whole = _whole(found.cast(self._arrow.int64()))
            unit = "ms" if types.is_date64(kind) else kind.unit
            return whole * 1000 if unit == "s" else whole // _PER_MS[unit]
        if types.is_integer(kind):
            whole = _whole(found.cast(self._arrow.int64(), safe=False))
            whole_ms = epochs(whole)
            if whole_ms is not None:
                return whole_ms
            return moments([str(n) for n in whole.tolist()], self._sheet.known_times, fail)
        return moments([text or "" for text in self._texts(found, column)], self._sheet.known_times, fail)

    def labels(self) -> NDArray[np.float32]:
        column = self._sheet.columns.flag
        if column < 0:
            return np.full(len(self), np.nan, np.float32)
        found, types = self._column(column), self._arrow.types
        if types.is_boolean(found.type):
            numbers = found.cast(self._arrow.int8()).to_numpy(zero_copy_only=False).astype(np.float64)
        elif types.is_floating(found.type) or types.is_integer(found.type):
            numbers = self.numbers(column)
        else:
            return flags(self._texts(found, column), self._fail(column))
        bad = ~np.isnan(numbers) & (numbers != 0) & (numbers != 1)
        if bad.any():
            row = int(bad.argmax())
            self._fail(column)(row, f"{numbers[row]:g} must be 0 or 1 (or null: unknown)")
        labels: NDArray[np.float32] = numbers.astype(np.float32)
        return labels


@contextmanager
def open_parquet(path: Path, file: str, saw: Callable[[Buffer], object]) -> Iterator[ParquetSheet]:
    """The Parquet file at `path`, called `file` in errors. Its rows are read while the context is open.

    Args:
        saw: is given the file's bytes.
    Raises: BadTable, also where pyarrow is not installed; OSError.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415 - of the extra, slow, without types
        from pyarrow import parquet  # noqa: PLC0415 - as above
    except ImportError as error:
        raise BadTable(f"{file}: Parquet needs more than is installed: pip install 'downtick[training]'") from error
    with path.open("rb") as raw:
        while data := raw.read(1 << 20):
            saw(data)
        raw.seek(0)
        try:
            source = parquet.ParquetFile(raw)
        except (pa.ArrowException, OSError) as error:
            raise BadTable(f"{file}: not a Parquet file, or a damaged one: {_line(error)}") from error
        yield ParquetSheet(file, source, pa)


def _nulls(found: Any) -> NDArray[np.bool_]:
    nulls: NDArray[np.bool_] = found.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _whole(found: Any) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = found.to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
