"""Prediction files: rows with the field names of the output topic, as CSV, Parquet or lines of JSON.

A file appears whole or not at all: it is written beside its place under another name, and moved there at the end.
In text, numbers have as many digits as on the topic; Parquet keeps every bit."""

from __future__ import annotations

import csv
import io
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_GROUP = 1 << 17  # rows of a Parquet file's row group


class CannotWrite(Exception):
    """No prediction file can be written here; one line that says why."""


@dataclass(frozen=True)
class Rows:
    """n predictions of one model, by the names and in the order of a file's columns; every array (n,)."""

    stock: list[str]
    ts: list[str]  # as the table writes it
    ts_ms: NDArray[np.int64] | None  # the same in epoch milliseconds; None for a table of steps
    value: NDArray[np.float64]
    falling: NDArray[np.bool_]
    falling_probability: NDArray[np.float32]
    flipped: NDArray[np.bool_]
    forecast: NDArray[np.float64]
    forecast_low: NDArray[np.float64]
    forecast_high: NDArray[np.float64]
    window: int
    model: str
    next: NDArray[np.float64]  # the value that came, NaN where the table does not hold it


NAMES = tuple(field.name for field in fields(Rows) if field.name != "ts_ms")


class Writer(Protocol):
    """Takes rows, in order."""

    def write(self, rows: Rows) -> None:
        """Append them."""

    def close(self) -> None:
        """Write what is left; the file beneath stays open."""


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """A writer by the suffix of `path`. At the end the file is at `path`, in place of one that was there.

    Args:
        path: ends in one of SUFFIXES.
    When the body fails, nothing has changed. Raises: CannotWrite; OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.is_dir():
            raise CannotWrite(f"{path}: is a folder; name a file")
        try:
            file = fresh.open("wb")
        except OSError as error:
            raise CannotWrite(f"{path}: {error.strerror}") from error
        with file:
            writer = _WRITERS[path.suffix.lower()](file)
            yield writer
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _texts(rows: Rows, unknown: str) -> dict[str, list[str]]:
    """The columns as text, each number with the digits that consumer/outputs.py gives it; `unknown` for NaN."""
    count = len(rows.stock)
    next_values = [repr(value) if value == value else unknown for value in rows.next.tolist()]  # noqa: PLR0124 - NaN
    return {
        "stock": rows.stock,
        "ts": rows.ts,
        "value": list(map(repr, rows.value.tolist())),
        "falling": np.where(rows.falling, "true", "false").tolist(),
        "falling_probability": [f"{p:.7g}" for p in rows.falling_probability.tolist()],
        "flipped": np.where(rows.flipped, "true", "false").tolist(),
        "forecast": [f"{value:.12g}" for value in rows.forecast.tolist()],
        "forecast_low": [f"{value:.12g}" for value in rows.forecast_low.tolist()],
        "forecast_high": [f"{value:.12g}" for value in rows.forecast_high.tolist()],
        "window": [str(rows.window)] * count,
        "model": [rows.model] * count,
        "next": next_values,
    }


class _Csv:
    """A header and a row each; a value that is not known is an empty cell."""

    def __init__(self, file: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(file, "utf-8", newline="")
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(NAMES)

    def write(self, rows: Rows) -> None:
        self._writer.writerows(zip(*_texts(rows, "").values(), strict=True))

    def close(self) -> None:
        self._text.detach()


class _Json:
    """An object on each line."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, rows: Rows) -> None:
        texts = _texts(rows, "null")
        for name in ("stock", "ts", "model"):
            texts[name] = list(map(json.dumps, texts[name]))
        template = "{" + ",".join(f'"{name}":%s' for name in NAMES) + "}\n"
        self._file.writelines((template % row).encode() for row in zip(*texts.values(), strict=True))

    def close(self) -> None:
        pass


class _Parquet:
    """`ts` is a timestamp in UTC, or text for a table of steps."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415 - of the extra, slow, without types
            from pyarrow import parquet  # noqa: PLC0415 - as above
        except ImportError as error:
            raise CannotWrite("Parquet needs more than is installed: pip install 'downtick[training]'") from error
        self._file, self._pa, self._parquet = file, pa, parquet
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._count = 0

    def write(self, rows: Rows) -> None:
        pa, count = self._pa, len(rows.stock)
        columns: dict[str, Any] = {name: getattr(rows, name) for name in NAMES}
        if rows.ts_ms is not None:
            columns["ts"] = pa.array(rows.ts_ms, pa.timestamp("ms", "UTC"))
        columns["window"] = pa.array(np.full(count, rows.window, np.int32))
        columns["model"] = pa.array([rows.model] * count, pa.string())
        columns["next"] = pa.array(rows.next, from_pandas=True)  # NaN is null
        self._waiting.append(pa.table(columns))
        self._count += count
        if self._count >= _GROUP:
            self._flush()

    def _flush(self) -> None:
        table = self._pa.concat_tables(self._waiting)
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)
        self._waiting, self._count = [], 0

    def close(self) -> None:
        if self._waiting:
            self._flush()
        if self._writer is not None:
            self._writer.close()


_WRITERS: dict[str, Callable[[IO[bytes]], Writer]] = {".csv": _Csv, ".json": _Json, ".parquet": _Parquet}
SUFFIXES = tuple(_WRITERS)
