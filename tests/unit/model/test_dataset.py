import csv
import gzip
import hashlib
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from model import sheet
from model.dataset import Series, Table, read, usable
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
    assert (seed.next_name, seed.time_name(5)) == ("2015", "2015")
    assert seed.labelled


def test_a_long_table_may_be_ordered_by_stock_or_by_time(tmp_path: Path) -> None:
    found = table(tmp_path, "Date,Ticker,Close,Volume\n2026-01-01,B,1,10\n2026-01-01,A,7,70\n2026-01-02,B,2,20\n")
    assert [s.stock for s in found.series] == ["A", "B"]
    assert found.series[1].values[:, 0].tolist() == [1, 2]
    assert [found.time_name(int(t)) for t in found.series[1].times] == ["2026-01-01", "2026-01-02"]
    assert (found.value, found.rows, found.labelled) == ("Close", 3, False)
    assert np.isnan(found.series[0].labels).all()


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
    assert found.fields == ("volume",)


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
        ("1970-01-01T00:00:00.0019Z", 1),
        ("1969-12-31T23:59:59.9991Z", -1),
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


def test_times_of_every_kind_may_stand_in_one_file(tmp_path: Path) -> None:
    rows = ["1970", "1970-02", "19700203", "1970-02-04T00:00", "1970-02-05T01:00:00+01:00", " 1970-02-06 "]
    found = table(tmp_path, "stock,ts,value\n" + "".join(f"A,{t},1\n" for t in rows))
    assert (found.series[0].times // 86_400_000).tolist() == [0, 31, 33, 34, 35, 36]


@pytest.mark.parametrize(("factor", "digits"), [(1, 10), (1_000, 13), (1_000_000, 16), (1_000_000_000, 19)])
def test_epoch_times_of_any_unit_are_read_as_columns(tmp_path: Path, factor: int, digits: int) -> None:
    stamps = [1_700_000_000 * factor, 1_700_000_000 * factor + 86_400 * factor]
    assert {len(str(t)) for t in stamps} == {digits}
    found = table(tmp_path, "stock,ts,value\n" + "".join(f"A,{t},1\n" for t in stamps))
    assert found.series[0].times.tolist() == [1_700_000_000_000, 1_700_086_400_000]


def test_a_stock_of_a_wide_table_may_begin_late(tmp_path: Path) -> None:
    found = table(tmp_path, "stock,1,2,3\nA,,5,6\nB,1,2,3\n")
    assert found.series[0].times.tolist() == [1, 2]
    assert found.series[1].times.tolist() == [0, 1, 2]
    assert math.isnan(found.series[0].after)


@pytest.mark.parametrize(
    ("header", "row", "flag", "after"),
    [
        ("stock,1,2", "A,5,6", None, None),
        ("stock,1,2,falling", "A,5,6,1", 1, None),
        ("stock,1,2,falling,3", "A,5,6,1,7", 1, 7),
        ("stock,1,2,next", "A,5,6,7", None, 7),
        ("stock,1,2,falling,next", "A,5,6,1,7", 1, 7),
        ("stock,1,2,Next,Label", "A,5,6,7,1", 1, 7),
        ("1,2,stock,falling,3", "5,6,A,1,7", 1, 7),
        ("stock,1,2,falling,3", "A,5,6,,", None, None),
    ],
)
def test_a_flag_and_the_value_to_come_stand_behind_the_steps(
    tmp_path: Path, header: str, row: str, flag: float | None, after: float | None
) -> None:
    (found,) = table(tmp_path, f"{header}\n{row}\n").series
    assert found.values.tolist() == [[5], [6]]
    nan = math.nan
    assert np.array_equal(found.labels, [nan, nan if flag is None else flag], equal_nan=True)
    assert np.array_equal(found.after, nan if after is None else after, equal_nan=True)


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


def test_the_fingerprint_is_of_the_decompressed_bytes_in_order(tmp_path: Path) -> None:
    texts = [b"stock,ts,value\nA,2026-01-01,1\n", b"stock,ts,value\nA,2026-01-02,2\n\n"]
    (tmp_path / "a.csv").write_bytes(texts[0])
    (tmp_path / "b.csv").write_bytes(gzip.compress(texts[1]))
    assert read([tmp_path / "a.csv", tmp_path / "b.csv"]).sha256 == hashlib.sha256(b"".join(texts)).hexdigest()


def days(folder: Path, name: str, *stretches: tuple[str, int, int]) -> Path:
    """A long file with the days from one to another of January 2026 of some stocks; a value is its day."""
    lines = [f"{stock},2026-01-{day:02d},{day}" for stock, first, last in stretches for day in range(first, last + 1)]
    (folder / name).write_text("\n".join(["stock,ts,value", *lines]))
    return folder / name


def test_several_files_make_one_table_whatever_their_order(tmp_path: Path) -> None:
    late = days(tmp_path, "late.csv", ("B", 8, 9), ("A", 4, 6))
    early = days(tmp_path, "early.csv", ("A", 1, 3), ("B", 1, 2))
    middle = days(tmp_path, "middle.csv", ("B", 3, 5))
    for files in ([late, early, middle], [early, middle, late]):
        found = read(files)
        assert [(s.stock, s.values[:, 0].tolist()) for s in found.series] == [
            ("A", [1, 2, 3, 4, 5, 6]),
            ("B", [1, 2, 3, 4, 5, 8, 9]),
        ]
        assert all((np.diff(s.times) > 0).all() for s in found.series)
        assert (found.files, found.rows) == (tuple(f.name for f in files), 13)


def test_a_folder_stands_for_its_tables_by_name(tmp_path: Path) -> None:
    days(tmp_path, "b.csv", ("A", 3, 4))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(days(tmp_path, "a.txt", ("A", 1, 2)).read_bytes()))
    (tmp_path / "deeper").mkdir()
    days(tmp_path / "deeper", "c.csv", ("A", 5, 6))
    days(tmp_path, ".hidden.csv", ("A", 7, 8))
    found = read([tmp_path])
    assert found.files == ("a.csv.gz", "b.csv")
    assert found.series[0].values[:, 0].tolist() == [1, 2, 3, 4]


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("")
    with pytest.raises(BadTable, match=r"a folder without any \*\.csv, \*\.csv\.gz or \*\.parquet$"):
        read([tmp_path])


@pytest.mark.parametrize(("first", "last"), [(3, 5), (2, 2), (1, 9)])
def test_a_stretch_of_time_in_two_files_is_refused_with_both_names(tmp_path: Path, first: int, last: int) -> None:
    files = [days(tmp_path, "a.csv", ("B", 1, 9), ("A", 2, 3)), days(tmp_path, "b.csv", ("A", first, last))]
    for order in (files, files[::-1]):
        with pytest.raises(
            BadTable, match=r"(a\.csv and b|b\.csv and a)\.csv: both have A from 2026-01-0\d to 2026-01-0\d:"
        ):
            read(order)


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    files = [days(tmp_path / "x", "t.csv", ("A", 1, 2)), days(tmp_path / "y", "t.csv", ("A", 2, 3))]
    with pytest.raises(BadTable, match=r"x/t\.csv and .*y/t\.csv: both have A"):
        read(files)


def test_a_file_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    path = days(tmp_path, "a.csv", ("A", 1, 2))
    with pytest.raises(BadTable, match=r"^a\.csv: given twice"):
        read([tmp_path, path])


def test_a_label_that_only_some_files_have_is_unknown_in_the_others(tmp_path: Path) -> None:
    days(tmp_path, "a.csv", ("A", 1, 2))
    (tmp_path / "b.csv").write_text("stock,ts,value,label\nA,2026-01-03,3,1\nB,2026-01-03,3,0\n")
    days(tmp_path, "c.csv", ("A", 4, 4))
    found = read([tmp_path])
    assert np.array_equal(found.series[0].labels, [math.nan, math.nan, 1, math.nan], equal_nan=True)
    assert found.series[1].labels.tolist() == [0]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_cells_may_be_parted_by_comma_semicolon_or_tab(tmp_path: Path, delimiter: str) -> None:
    text = "stock,ts,value\nA,2026-01-01,1\nA,2026-01-02,2\n".replace(",", delimiter)
    assert table(tmp_path, text).series[0].values.tolist() == [[1], [2]]


# Ways to write the same two rows: all but the first three are read by csv, row by row.
SAME = [
    "stock,ts,value,note\nA,2026-01-01,1,x\nB,2026-01-02,2.5,y\n",
    "stock,ts,value,note\r\nA,2026-01-01,1,x\r\nB,2026-01-02,2.5,y",
    "\ufeffstock,ts,value,note\nA,2026-01-01, 1,x\nB ,2026-01-02 ,2.5 ,y\n",
    "\n\nstock,ts,value,note\nA,2026-01-01,1,x\n\n,,,\nB,2026-01-02,2.5,y\n\n",
    "stock,ts,value,note\rA,2026-01-01,1,x\rB,2026-01-02,2.5,y\r",
    '"stock",ts,"va""lue",note\n"A",2026-01-01,"1","x, and\nmore"\nB,2026-01-02,2.5,""""\n',
    'stock,ts,value,"long\nnote"\nA,2026-01-01,1,\nB,2026-01-02,2.5,\n',
]


@pytest.mark.parametrize("size", [1, 7, 1 << 21])
@pytest.mark.parametrize("text", SAME)
def test_however_it_is_written_and_cut_a_csv_means_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, size: int
) -> None:
    monkeypatch.setattr(sheet, "BLOCK_CHARACTERS", size)
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    found = read([tmp_path / "t.csv"], value='va"lue' if '""' in text.partition("\n")[0] else None)
    rows = [(s.stock, found.time_name(int(s.times[0])), *s.values[:, 0].tolist()) for s in found.series]
    assert rows == [("A", "2026-01-01", 1), ("B", "2026-01-02", 2.5)]


@pytest.mark.parametrize("size", [1, 1 << 21])
@pytest.mark.parametrize(
    ("before", "row"),
    [
        ("", 2),
        ("\n\n", 4),
        ("A,2026-01-01,1,\n", 3),
        ('A,2026-01-01,1,"two\nlines"\n', 4),
        ("A,2026-01-01,,\n,,,\n", 4),
    ],
)
def test_rows_are_counted_as_an_editor_counts_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, row: int, size: int
) -> None:
    monkeypatch.setattr(sheet, "BLOCK_CHARACTERS", size)
    with pytest.raises(BadTable, match=f"^t.csv, row {row}, column 'value': 'x' is not"):
        table(tmp_path, f"stock,ts,value,note\n{before}A,2026-01-02,x,\n")


def test_a_quote_that_never_ends_is_told_without_reading_for_ever(tmp_path: Path) -> None:
    text = 'stock,ts,value\nA,"2026-01-01,1\n' + "A,2026-01-02,1\n" * 1_000_000
    with pytest.raises(BadTable, match=r"^t\.csv, row \d+: (field larger than|unexpected end)"):
        table(tmp_path, text)


def test_plain_rows_do_not_go_through_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: object, **_: object) -> object:
        if isinstance(text, list):  # the header's
            return iter([str(text[0]).strip().split(",")])
        raise AssertionError("read row by row")

    monkeypatch.setattr(csv, "reader", refuse)
    assert table(tmp_path, SAME[0]).rows == 2


def test_a_table_takes_few_bytes_a_row_and_a_compressed_one_is_never_whole_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 100_000
    text = "stock,ts,value\n" + "".join(f"S{i // 1000},{1_700_000_000_000 + i},{i % 997 / 7}\n" for i in range(rows))
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(text.encode(), 1))
    monkeypatch.setattr(sheet, "BLOCK_CHARACTERS", 1 << 15)
    tracemalloc.start()
    try:
        found = read([path])
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.series) == 100
    assert kept < 24 * rows  # times and values are 16, what the growing left unused is the rest
    assert peak < 45 * rows < len(text) * 1.5


def test_csv_is_read_where_pyarrow_is_not_installed(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path; from model.dataset import read, BadTable\n"
        "print(len(read([Path(sys.argv[1])]).series))\n"
        "try: read([Path(sys.argv[2])])\n"
        "except BadTable as error: print(error)"
    )
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    run = subprocess.run(
        [sys.executable, "-c", code, SEED, tmp_path / "t.parquet"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = "t.parquet: Parquet needs more than is installed: pip install 'downtick[training]'"
    assert run.stdout.splitlines() == ["5", told]


def made(stock: str, *values: float, after: float = math.nan) -> Series:
    count = len(values)
    return Series(stock, np.arange(count), np.array(values)[:, None], np.full(count, np.nan, np.float32), after)


def test_stocks_that_nothing_can_be_learned_from_are_listed_and_left_out() -> None:
    series = (
        made("FEW", 1, 2),
        made("SAME", 7, 7, 7),
        made("GOOD", 1, 1, 2),
        made("MOVES", 7, 7, 7, after=8),
        made("STAYS", 7, 7, 7, after=7),
    )
    found, lines = usable(Table(series, ("t.csv",), "", 14, 0, "value"), 3)
    assert [s.stock for s in found.series] == ["GOOD", "MOVES"]
    assert lines == [
        "FEW: 2 values, 3 are needed: skipped",
        "SAME: all 3 values are 7: skipped",
        "STAYS: all 3 values are 7: skipped",
    ]
    assert len(usable(Table(series, ("t.csv",), "", 14, 0, "value"), 3, moving=False)[0].series) == 4


def test_a_table_of_which_nothing_can_be_used_is_refused() -> None:
    short = Table((made("A", 1, 2), made("B", 1)), ("t.csv",), "", 3, 0, "value")
    with pytest.raises(BadTable, match=r"^t\.csv: none of 2 stocks can be used, as in A: 2 values, 40 are needed$"):
        usable(short, 40)


BAD = {
    "": "t.csv: it is empty",
    "\n\n": "t.csv: it is empty",
    "a,b\n1,2\n": "t.csv, row 1: no column named stock, ticker, symbol; there are a, b",
    "\na,b\n": "t.csv, row 2: no column named stock",
    "stock,ts,value\n": "t.csv: no rows below the header",
    "stock,1,2\n\n": "t.csv: no rows below the header",
    "stock,ts,value\nA,2026-01-01,\n": "t.csv: no row has a value",
    "stock,ts,amount\nA,2026-01-01,1\n": "t.csv, row 1: no column named value, adj_close, close, price; there are",
    "stock,ts,value\nA,2026-01-01,x\n": "t.csv, row 2, column 'value': 'x' is not a finite number",
    "stock,ts,value\n\nA,2026-01-01,1e400\n": "t.csv, row 3, column 'value': '1e400' is not a finite number",
    "stock,ts,value\nA,2026-01-01,nan\n": "t.csv, row 2, column 'value': 'nan' is not a finite number",
    "stock,ts,value\nA,2026-01-01,-inf\n": "t.csv, row 2, column 'value': '-inf' is not a finite number",
    "stock,ts,value\nA,2026-01-01,1_000\n": "t.csv, row 2, column 'value': '1_000' is not a finite number",
    "stock,1,2\nA,1,2\nB,1,nan\n": "t.csv, row 3, column '2': 'nan' is not a finite number",
    "stock,ts,value\nA,,1\n": "t.csv, row 2, column 'ts': '' is neither a date",
    "stock,ts,value\nA,yesterday,1\n": "t.csv, row 2, column 'ts': 'yesterday' is neither a date",
    "stock,ts,value\nA,2026-01-01\n": "t.csv, row 2: 2 cells, the header has 3",
    "stock,ts,value\n ,2026-01-01,1\n": "t.csv, row 2, column 'stock': no stock",
    "stock,ts,value\n,2026-01-01,1\n": "t.csv, row 2, column 'stock': no stock",
    "stock,ts,value\nA,2026-01-01\nA,2026-01-02,1,2\n": "t.csv, row 2: 2 cells, the header has 3",
    "stock,ts,value\nA,2026-01-02,1\nB,2026-01-01,1\nA,2026-01-01,3\n": "t.csv, row 4, column 'ts': 2026-01-01 comes "
    "after 2026-01-02 of A: sort the file by time",
    "stock,ts,value\nA,2026-01-02,1\nA,2026-01-03,\nA,2026-01-02,3\n": "t.csv, row 4, column 'ts': A has a value at",
    "stock,ts,value,label\nA,2026-01-01,1,2\n": "t.csv, row 2, column 'label': '2' must be 0 or 1",
    "stock,ts,Value,value\nA,1,2,3\n": "t.csv, row 1: two columns have the same name",
    "stock,2010\nA,1\n": "t.csv, row 1: a table without a time column must be: stock, at least two steps",
    "stock,1,2,falling,3,4\nA,1,2,0,3,4\n": "t.csv, row 1: a table without a time column must be",
    "stock,1,2,next,falling,3\nA,1,2,3,0,4\n": "t.csv, row 1: a table without a time column must be",
    "stock,next,1,2\nA,1,2,3\n": "t.csv, row 1: a table without a time column must be",
    "stock,1,2,3\nA,1,,3\n": "t.csv, row 2, column '2': empty",
    "stock,1,2,3\nA,,,\n": "t.csv, row 2, column '1': empty",
    "stock,1,2\nA,1,2\nA,3,4\n": "t.csv, row 3, column 'stock': A has a row already, t.csv, row 2",
    "stock,1,2\nA,1\n": "t.csv, row 2: 2 cells, the header has 3",
    'stock,1,2\nA,"1,2\n': "t.csv, row 2: unexpected end of data",
}


@pytest.mark.parametrize("size", [1, 1 << 21])
@pytest.mark.parametrize(("text", "told"), BAD.items())
def test_what_is_wrong_is_told_with_file_row_and_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str, size: int
) -> None:
    monkeypatch.setattr(sheet, "BLOCK_CHARACTERS", size)
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


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("b.csv", "stock,ts,value\nA,2026-01-01,1\n", "a long table, a.csv is a wide one"),
        ("b.csv", "stock,1,3\nB,1,2\n", "its steps are not those of a.csv"),
        ("b.csv", "stock,1,2,next\nB,1,2,3\n", "its steps are not those of a.csv"),
        ("b.csv", "stock,1,2\nA,1,2\n", "row 2, column 'stock': A has a row already, a.csv, row 2"),
    ],
)
def test_files_of_different_layouts_are_no_one_table(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / "a.csv").write_text("stock,1,2\nA,1,2\n")
    (tmp_path / name).write_text(text)
    with pytest.raises(BadTable) as error:
        read([tmp_path])
    assert str(error.value).startswith(f"{name}") and told in str(error.value)  # noqa: PT018 - one line, two parts


def test_files_whose_values_are_in_different_columns_are_no_one_table(tmp_path: Path) -> None:
    days(tmp_path, "a.csv", ("A", 1, 2))
    (tmp_path / "b.csv").write_text("stock,ts,price\nA,2026-01-03,3\n")
    with pytest.raises(
        BadTable, match=r"^b\.csv: its value is 'price', that of a\.csv is 'value': name one column with"
    ):
        read([tmp_path])


def test_fields_of_a_wide_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTable, match=r"only a long table has columns to be named \(volume\)"):
        read([SEED], fields=("volume",))
    with pytest.raises(BadTable, match="no column named weight; there are stock, ts, value: rename one"):
        table(tmp_path, "stock,ts,value\nA,2026-01-01,1\n", fields=("weight",))
