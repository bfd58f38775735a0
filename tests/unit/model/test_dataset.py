import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from model.dataset import Table, read
from model.sheet import BadTable, parse_time

SEED = Path(__file__).parents[3] / "model" / "data" / "seed.csv"


def table(tmp_path: Path, text: str, **options: object) -> Table:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    return read([path], **options)  # type: ignore[arg-type]


def test_the_seed_table_is_five_series_with_a_flag_and_the_value_to_come() -> None:
    seed = read([SEED])
    assert [s.stock for s in seed.series] == ["banana", "bar", "foo", "pear", "raspberry"]
    bar = seed.series[1]
    assert bar.values[:, 0].tolist() == [50, 100, 100, 50, 25]
    assert bar.after == 10
    assert np.isnan(bar.labels[:4]).all()
    assert [s.labels[-1] for s in seed.series] == [1, 1, 0, 0, 0]
    assert [seed.time_name(int(t)) for t in bar.times] == ["2010", "2011", "2012", "2013", "2014"]
    assert seed.labelled


def test_a_long_table_is_sorted_by_time_within_each_stock(tmp_path: Path) -> None:
    found = table(tmp_path, "Date,Ticker,Close,Volume\n2026-01-02,B,2,20\n2026-01-01,A,7,70\n2026-01-01,B,1,10\n")
    assert [s.stock for s in found.series] == ["A", "B"]
    assert found.series[1].values[:, 0].tolist() == [1, 2]
    assert [found.time_name(int(t)) for t in found.series[1].times] == ["2026-01-01", "2026-01-02"]
    assert (found.value, found.rows, found.labelled) == ("Close", 3, False)


@pytest.mark.parametrize(
    ("columns", "taken"),
    [("close,Adj Close", "Adj Close"), ("adj_close,value", "value"), ("price,open", "price"), ("open,CLOSE", "CLOSE")],
)
def test_adjusted_values_are_preferred_to_raw_ones(tmp_path: Path, columns: str, taken: str) -> None:
    assert table(tmp_path, f"stock,ts,{columns}\nA,2026-01-01,1,2\n").value == taken


def test_the_value_and_further_channels_can_be_named(tmp_path: Path) -> None:
    text = "stock,ts,open,close,volume\nA,2026-01-01,1,2,3\nA,2026-01-02,4,5,6\n"
    found = table(tmp_path, text, value="open", fields=("volume",))
    assert found.series[0].values.tolist() == [[1, 3], [4, 6]]


def test_times_are_dates_rfc_3339_or_epoch_milliseconds(tmp_path: Path) -> None:
    rows = ["2026-11-23", "2026-11-23T14:30:00Z", "2026-11-23T16:30:00.250+01:00", "1795530600251"]
    found = table(tmp_path, "stock,ts,value\n" + "".join(f"A,{t},1\n" for t in rows))
    midnight = 1795392000000
    assert (found.series[0].times - midnight).tolist() == [0, 52_200_000, 55_800_250, 138_600_251]
    assert found.time_of("2026-11-23") == midnight


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970", 0),
        ("1971", 31_536_000_000),
        ("1970-02", 2_678_400_000),
        ("19700102", 86_400_000),
        ("1700000000", 1_700_000_000_000),
        ("1700000000123", 1_700_000_000_123),
        ("1700000000123456", 1_700_000_000_123),
        ("1700000000123456789", 1_700_000_000_123),
    ],
)
def test_a_time_may_be_written_in_many_ways(text: str, milliseconds: int) -> None:
    assert parse_time(text) == milliseconds


@pytest.mark.parametrize("text", ["", "12", "2026-13", "9" * 30, "-5", "tomorrow"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a date"):
        parse_time(text)


def test_rows_without_a_value_are_left_out_and_counted(tmp_path: Path) -> None:
    found = table(tmp_path, "stock,ts,value\nA,2026-01-01,\nA,2026-01-02,2\n")
    assert (found.rows, found.skipped) == (2, 1)
    assert found.series[0].values.tolist() == [[2]]


def test_a_stock_of_a_wide_table_may_begin_late(tmp_path: Path) -> None:
    found = table(tmp_path, "stock,1,2,3\nA,,5,6\nB,1,2,3\n")
    assert found.series[0].times.tolist() == [1, 2]
    assert found.series[1].times.tolist() == [0, 1, 2]
    assert math.isnan(found.series[0].after)


def test_flags_may_be_words_or_unknown(tmp_path: Path) -> None:
    found = table(
        tmp_path, "stock,ts,value,Falling\n" + "".join(f"A,2026-01-0{i + 1},1,{f}\n" for i, f in enumerate(FLAGS))
    )
    assert np.array_equal(found.series[0].labels, [0, 1, 0, 1, np.nan], equal_nan=True)


FLAGS = ("0", "1", "false", "True", "")


def test_compressed_or_not_a_file_has_the_same_fingerprint(tmp_path: Path) -> None:
    packed = tmp_path / "seed.csv.gz"
    packed.write_bytes(gzip.compress(SEED.read_bytes()))
    assert read([packed]).sha256 == read([SEED]).sha256


def test_several_files_make_one_table(tmp_path: Path) -> None:
    for name, day in [("a.csv", 1), ("b.csv", 2)]:
        (tmp_path / name).write_text(f"stock,ts,value\nA,2026-01-0{day},{day}\n")
    assert read([tmp_path / "b.csv", tmp_path / "a.csv"]).series[0].values.tolist() == [[1], [2]]


BAD = {
    "": "t.csv, row 1: no column named stock",
    "a,b\n1,2\n": "t.csv, row 1: no column named stock, ticker, symbol; the columns are a, b",
    "stock,ts,value\n": "t.csv: no rows",
    "stock,ts,amount\nA,2026-01-01,1\n": "t.csv, row 1: no column named value, adj_close, close, price; there are",
    "stock,ts,value\nA,2026-01-01,x\n": "t.csv, row 2, column 'value': 'x' is not a finite number",
    "stock,ts,value\n\nA,2026-01-01,1e400\n": "t.csv, row 3, column 'value': '1e400' is not a finite number",
    "stock,ts,value\nA,2026-01-01,nan\n": "t.csv, row 2, column 'value': 'nan' is not a finite number",
    "stock,ts,value\nA,yesterday,1\n": "t.csv, row 2, column 'ts': 'yesterday' is neither a date",
    "stock,ts,value\nA,2026-01-01\n": "t.csv, row 2: 2 cells, the header has 3",
    "stock,ts,value\n ,2026-01-01,1\n": "t.csv, row 2, column 'stock': no stock",
    "stock,ts,value\nA,2026-01-02,1\nA,2026-01-01,1\nA,2026-01-02,3\n": "t.csv, row 4, column 'ts': A has a value at",
    "stock,ts,value,label\nA,2026-01-01,1,2\n": "t.csv, row 2, column 'label': '2' must be 0 or 1",
    "stock,ts,Value,value\nA,1,2,3\n": "t.csv, row 1: two columns have the same name",
    "stock,2010\nA,1\n": "t.csv, row 1: a table without a time column must be: stock, at least two steps",
    "stock,1,2,falling,3,4\nA,1,2,0,3,4\n": "t.csv, row 1: a table without a time column must be",
    "stock,1,2,3\nA,1,,3\n": "t.csv, row 2, column '2': empty",
    "stock,1,2,3\nA,,,\n": "t.csv, row 2, column '1': empty",
    "stock,1,2\nA,1,2\nA,3,4\n": "t.csv, row 3, column 'stock': A has a row already",
    'stock,1,2\nA,"1,2\n': "t.csv, row 2: unexpected end of data",
}


@pytest.mark.parametrize(("text", "told"), BAD.items())
def test_what_is_wrong_is_told_with_file_row_and_column(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadTable) as error:
        table(tmp_path, text)
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_table_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for data in (b"stock,ts,value\nA,2026-01-01,\xff\n", gzip.compress(b"stock,1,2\nA,1,2\n")[:-4]):
        path.write_bytes(data)
        with pytest.raises(BadTable, match=r"t\.csv: "):
            read([path])


def test_files_of_different_layouts_are_no_one_table(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text("stock,ts,value\nA,2026-01-01,1\n")
    with pytest.raises(BadTable, match="must all have the same layout"):
        read([SEED, tmp_path / "long.csv"])


def test_fields_of_a_wide_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTable, match="need a long table"):
        read([SEED], fields=("volume",))
    with pytest.raises(BadTable, match="no column named weight"):
        table(tmp_path, "stock,ts,value\nA,2026-01-01,1\n", fields=("weight",))
