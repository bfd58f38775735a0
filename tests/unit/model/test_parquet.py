"""Parquet as tables of prices: whatever wrote it, it means what the same CSV means."""

import hashlib
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model import parquet
from model.dataset import Table, read
from model.sheet import BadTable

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SEED = Path(__file__).parents[3] / "model" / "data" / "seed.csv"
DAYS = [date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 1)]
MOMENTS = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)]
LONG = {"stock": ["A", "A", "B"], "ts": ["2026-01-01", "2026-01-02", "2026-01-01"], "value": [1.0, 2.0, 3.0]}


def table(folder: Path, columns: dict[str, Any], **options: Any) -> Table:
    pq.write_table(pa.table(columns), folder / "t.parquet")
    return read([folder / "t.parquet"], **options)


def rows(found: Table) -> list[tuple[str, str, list[float]]]:
    return [
        (s.stock, found.time_name(int(time)), values.tolist())
        for s in found.series
        for time, values in zip(s.times, s.values, strict=True)
    ]


EXPECTED = [("A", "2026-01-01", [1.0]), ("A", "2026-01-02", [2.0]), ("B", "2026-01-01", [3.0])]


@pytest.mark.parametrize(
    "stocks",
    [
        pa.array(["A", "A", "B"]),
        pa.array(["A", " A ", "B"], pa.large_string()),
        pa.array(["A", "A", "B"], pa.string_view()),
        pa.DictionaryArray.from_arrays(pa.array([2, 2, 0], pa.int8()), pa.array(["B", "unused", "A"])),
    ],
)
def test_stocks_may_be_any_text_or_a_category(tmp_path: Path, stocks: Any) -> None:
    found = table(tmp_path, LONG | {"stock": stocks})
    assert rows(found) == EXPECTED


@pytest.mark.parametrize(
    "times",
    [
        pa.array(LONG["ts"]),
        pa.array(DAYS, pa.date32()),
        pa.array(DAYS, pa.date64()),
        *[pa.array(MOMENTS, pa.timestamp(unit, zone)) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC")],
        pa.array(MOMENTS, pa.timestamp("us", "America/New_York")),
        pa.array([1_767_225_600, 1_767_312_000, 1_767_225_600], pa.int64()),
        pa.array([1_767_225_600_000, 1_767_312_000_000, 1_767_225_600_000], pa.uint64()),
        pa.array([20260101, 20260102, 20260101], pa.int32()),
    ],
    ids=lambda times: str(times.type),
)
def test_times_may_be_of_any_kind(tmp_path: Path, times: Any) -> None:
    assert rows(table(tmp_path, LONG | {"ts": times})) == EXPECTED


def test_times_before_1970_are_floored_to_milliseconds_too(tmp_path: Path) -> None:
    found = table(tmp_path, {"stock": ["A"], "value": [1.0], "ts": pa.array([-1], pa.timestamp("us"))})
    assert found.series[0].times.tolist() == [-1]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 2, 3], pa.int16()),
        pa.array([1, 2, 3], pa.float32()),
        pa.array([Decimal("1.00"), Decimal("2.00"), Decimal("3.00")], pa.decimal128(10, 2)),
        pa.array(["1", "2", " 3.0"]),
    ],
    ids=lambda values: str(values.type),
)
def test_values_may_be_numbers_of_any_kind(tmp_path: Path, values: Any) -> None:
    assert rows(table(tmp_path, LONG | {"value": values})) == EXPECTED


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([True, False, None]),
        pa.array([1, 0, None], pa.int8()),
        pa.array([1.0, 0.0, None]),
        pa.array(["true", "0", ""]),
    ],
    ids=lambda labels: str(labels.type),
)
def test_labels_may_be_booleans_numbers_or_words(tmp_path: Path, labels: Any) -> None:
    found = table(tmp_path, LONG | {"Falling": labels})
    assert found.series[0].labels.tolist() == [1, 0]
    assert np.isnan(found.series[1].labels).all()


def test_a_null_is_no_value_and_its_row_is_left_out(tmp_path: Path) -> None:
    found = table(tmp_path, LONG | {"value": [1.0, None, 3.0], "volume": [1, 2, None]}, fields=["volume"])
    assert rows(found) == [("A", "2026-01-01", [1.0, 1.0])]
    assert (found.rows, found.skipped) == (3, 2)


def test_other_columns_are_not_read_whatever_they_hold(tmp_path: Path) -> None:
    assert rows(table(tmp_path, LONG | {"note": [["x"], [], None]})) == EXPECTED


def test_rows_of_many_groups_and_batches_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "BLOCK_ROWS", 7)
    times = pa.array(np.arange(50) * 60_000, pa.timestamp("ms"))
    content = pa.table({"stock": ["A", "B"] * 25, "ts": times, "value": np.arange(50.0)})
    pq.write_table(content, tmp_path / "t.parquet", row_group_size=20)
    found = read([tmp_path / "t.parquet"])
    assert [s.values[:, 0].tolist() for s in found.series] == [list(range(0, 50, 2)), list(range(1, 50, 2))]


def test_the_seed_table_may_be_parquet(tmp_path: Path) -> None:
    from pyarrow import csv  # noqa: PLC0415 - of the extra

    pq.write_table(csv.read_csv(SEED), tmp_path / "seed.parquet")
    ours, theirs = read([tmp_path / "seed.parquet"]), read([SEED])
    assert (ours.steps, ours.next_name, ours.labelled) == (theirs.steps, theirs.next_name, True)
    for one, other in zip(ours.series, theirs.series, strict=True):
        assert (one.stock, one.after, one.values.tolist()) == (other.stock, other.after, other.values.tolist())
        assert np.array_equal(one.labels, other.labels, equal_nan=True)


def test_csv_and_parquet_may_be_files_of_one_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("stock,ts,value\nA,2026-01-03,9\n")
    found = table(tmp_path, LONG)
    both = read([tmp_path])
    assert rows(both) == [*EXPECTED[:2], ("A", "2026-01-03", [9.0]), EXPECTED[2]]
    assert both.files == ("a.csv", "t.parquet")
    assert found.sha256 == hashlib.sha256((tmp_path / "t.parquet").read_bytes()).hexdigest()


OFFSET = timezone(timedelta(hours=1))
BAD: list[tuple[dict[str, Any], str]] = [
    ({"value": [1.0, float("nan"), 3.0]}, "row 2, column 'value': nan is not a finite number"),
    ({"value": [1.0, 2.0, float("inf")]}, "row 3, column 'value': inf is not a finite number"),
    ({"value": ["1", "x", "3"]}, "row 2, column 'value': 'x' is not a finite number"),
    ({"value": [[1.0], [2.0], [3.0]]}, "row 1, column 'value': a column of list<"),
    ({"stock": ["A", None, "B"]}, "row 2, column 'stock': no stock"),
    ({"stock": ["A", "A", " "]}, "row 3, column 'stock': no stock"),
    ({"stock": [1, 1, 2]}, "row 1, column 'stock': a column of int64 cannot be read here"),
    ({"ts": ["2026-01-01", "soon", "2026-01-01"]}, "row 2, column 'ts': 'soon' is neither a date"),
    ({"ts": pa.array([None, *DAYS[1:]], pa.date32())}, "row 1, column 'ts': no time"),
    ({"ts": [1, 2, 3]}, "row 1, column 'ts': '1' is neither a date"),
    ({"ts": pa.array(DAYS[::-1], pa.date32()), "stock": ["A"] * 3}, "row 3, column 'ts': 2026-01-01 comes after"),
    ({"ts": [MOMENTS[0], MOMENTS[0].astimezone(OFFSET), MOMENTS[0]]}, "row 2, column 'ts': A has a value at this time"),
    ({"label": [1, 0, 2]}, "row 3, column 'label': 2 must be 0 or 1"),
    ({"label": ["1", "up", None]}, "row 2, column 'label': 'up' must be 0 or 1"),
    ({"Value": [1.0, 2.0, 3.0]}, "schema: two columns have the same name, 'value'"),
]


@pytest.mark.parametrize("batch", [2, 65_536])
@pytest.mark.parametrize(("columns", "told"), BAD, ids=[told for _, told in BAD])
def test_what_is_wrong_is_told_with_file_row_and_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: dict[str, Any], told: str, batch: int
) -> None:
    monkeypatch.setattr(parquet, "BLOCK_ROWS", batch)
    with pytest.raises(BadTable) as error:
        table(tmp_path, LONG | columns)
    assert str(error.value).startswith(f"t.parquet, {told}")
    assert "\n" not in str(error.value)


def test_missing_columns_and_empty_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        BadTable, match=r"^t\.parquet, schema: no column named stock, ticker, symbol; there are ts, value"
    ):
        table(tmp_path, {"ts": LONG["ts"], "value": LONG["value"]})
    with pytest.raises(BadTable, match=r"^t\.parquet: no rows below the header"):
        table(
            tmp_path,
            {"stock": pa.array([], pa.string()), "ts": pa.array([], pa.date32()), "value": pa.array([], pa.float64())},
        )


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    table(tmp_path, LONG)
    whole = (tmp_path / "t.parquet").read_bytes()
    middle = whole[:4] + bytes(len(whole) // 3) + whole[4 + len(whole) // 3 :]
    for damaged in (whole[:-9], b"PAR1", b"", middle):
        (tmp_path / "t.parquet").write_bytes(damaged)
        with pytest.raises(BadTable, match=r"^t\.parquet(: not a Parquet file|, row 1 or later: a damaged)") as error:
            read([tmp_path / "t.parquet"])
        assert "\n" not in str(error.value)
