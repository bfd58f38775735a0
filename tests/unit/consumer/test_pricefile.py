"""What a price file says is what is sent, in the order in which it happened; what is wrong is named by its place."""

import gzip
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from consumer import pricefile
from consumer.events import EventDecoder
from consumer.pricefile import BadPriceFile, Prices, parse_time, read_prices
from model import dataset, sheet

DATA = Path(__file__).parents[3] / "consumer/data/daily-us/stocks.csv.gz"

SEED = """stock,2010,2011,2012,falling,2015
foo,100,200,250,0,450
bar,50,100,100,1,10
"""


def write(folder: Path, text: str, name: str = "prices.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def sent(prices: Prices) -> list[tuple[str, float, str]]:
    events = [json.loads(value) for _, _, value in prices.messages()]
    return [(event["stock"], event["value"], event["ts"]) for event in events]


def test_a_wide_table_of_years_is_sent_year_by_year_without_its_label(tmp_path: Path) -> None:
    assert sent(read_prices(write(tmp_path, SEED))) == [
        ("foo", 100.0, "2010-01-01T00:00:00Z"),
        ("bar", 50.0, "2010-01-01T00:00:00Z"),
        ("foo", 200.0, "2011-01-01T00:00:00Z"),
        ("bar", 100.0, "2011-01-01T00:00:00Z"),
        ("foo", 250.0, "2012-01-01T00:00:00Z"),
        ("bar", 100.0, "2012-01-01T00:00:00Z"),
        ("foo", 450.0, "2015-01-01T00:00:00Z"),
        ("bar", 10.0, "2015-01-01T00:00:00Z"),
    ]


def test_the_steps_of_a_wide_table_take_their_times_from_start_and_step(tmp_path: Path) -> None:
    path = write(tmp_path, "stock,t1,t2,label\nfoo,1,2,0\n")
    prices = read_prices(path, start_ms=parse_time("2026-01-01"), step_ms=60_000)
    assert sent(prices) == [("foo", 1.0, "2026-01-01T00:00:00Z"), ("foo", 2.0, "2026-01-01T00:01:00Z")]


def test_a_long_table_ordered_by_stock_is_sent_ordered_by_time_and_one_time_in_file_order(tmp_path: Path) -> None:
    text = "Ticker,Date,Close\nB,2026-01-02,2\nB,2026-01-03,3\nA,2026-01-02,20\nA,2026-01-01,10\nA,2026-01-02,21\n"
    assert [(stock, value) for stock, value, _ in sent(read_prices(write(tmp_path, text)))] == [
        ("A", 10.0),
        ("B", 2.0),
        ("A", 20.0),
        ("A", 21.0),
        ("B", 3.0),
    ]


def test_adjusted_prices_are_preferred_and_another_column_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "stock,date,Close,Adj Close\nA,2026-01-01,10,5\n")
    assert read_prices(path).value.tolist() == [5.0]
    assert read_prices(path, value="close").value.tolist() == [10.0]


def test_fields_go_with_each_value_and_an_empty_cell_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "stock,ts,value,Volume,open\nA,2026-01-01,10,1200,9\nA,2026-01-02,11,,10\n")
    events = [json.loads(value) for _, _, value in read_prices(path, fields=["volume", "open"]).messages()]
    assert [event["fields"] for event in events] == [{"volume": 1200.0, "open": 9.0}, {"open": 10.0}]


def test_rows_and_cells_without_a_value_are_skipped_and_counted(tmp_path: Path) -> None:
    long = read_prices(write(tmp_path, "stock,ts,value\nA,2026-01-01,\n\nA,2026-01-02,7\n"))
    assert (long.value.tolist(), long.skipped) == ([7.0], 1)
    wide = read_prices(write(tmp_path, "stock,2010,2011\nA,,7\n"))
    assert (wide.value.tolist(), wide.skipped) == ([7.0], 1)


def test_gzip_a_byte_order_mark_semicolons_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "prices"
    path.write_bytes(gzip.compress("\ufeffstock;ts;value\r\nA;2026-01-01;1.5\r\n".encode()))
    assert sent(read_prices(path)) == [("A", 1.5, "2026-01-01T00:00:00Z")]


def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(SEED.encode()))))
    assert len(read_prices("-")) == 8


def test_the_daily_prices_of_the_demo_are_all_valid_events_of_the_contract() -> None:
    class Record:
        def __init__(self, key: str, value: bytes) -> None:
            self._key, self._value = key.encode(), value

        def key(self) -> bytes:
            return self._key

        def value(self) -> bytes:
            return self._value

        def offset(self) -> int:
            return 0

        def timestamp(self) -> tuple[int, int]:
            return 1, 1_790_000_000_000

        def headers(self) -> None:
            return None

    prices = read_prices(DATA)
    assert (len(prices), prices.skipped, sorted(prices.stocks)) == (12_154, 0, ["AAPL", "FB", "GOOG", "IBM", "MSFT"])
    assert np.all(np.diff(prices.ts_ms) >= 0)
    events = EventDecoder((), 65_536, 86_400).decode([Record(key, value) for key, _, value in prices.messages()])
    assert events.rejections == []
    assert events.ts.tolist() == prices.ts_ms.tolist()
    assert events.values[:, 0].tolist() == prices.value.tolist()
    assert events.stocks == [prices.stocks[code] for code in prices.stock]


def test_extreme_values_and_times_survive_the_way_through_json(tmp_path: Path) -> None:
    path = write(
        tmp_path, "stock,ts,value\n^GSPC,0001-01-01,1e308\n^GSPC,1790000000123,5e-324\n^GSPC,9999-12-31,-0.0\n"
    )
    prices = read_prices(path)
    assert sent(prices) == [
        ("^GSPC", 1e308, "0001-01-01T00:00:00Z"),
        ("^GSPC", 5e-324, "2026-09-21T14:13:20.123Z"),
        ("^GSPC", -0.0, "9999-12-31T00:00:00Z"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2010", "2010-01-01T00:00:00Z"),
        ("2010-07", "2010-07-01T00:00:00Z"),
        ("20100704", "2010-07-04T00:00:00Z"),
        ("2010-07-04 09:30", "2010-07-04T09:30:00Z"),
        ("2010-07-04T09:30:00.1239+02:00", "2010-07-04T07:30:00.123Z"),
        ("1278235800", "2010-07-04T09:30:00Z"),
        ("1278235800123", "2010-07-04T09:30:00.123Z"),
        ("1278235800123456", "2010-07-04T09:30:00.123Z"),
        ("1278235800123456789", "2010-07-04T09:30:00.123Z"),
    ],
)
def test_times_are_read_in_every_common_form(text: str, expected: str, tmp_path: Path) -> None:
    prices = read_prices(write(tmp_path, f"stock,ts,value\nA,{text},1\n"))
    assert sent(prices) == [("A", 1.0, expected)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty; expected a header and rows"),
        ("stock,ts,value\n", "there is no value in it"),
        ("name,2010\nfoo,1\n", "row 1: no column of stocks: expected one of stock, ticker, symbol, found name, 2010"),
        ("stock,ts,amount\nA,2026,1\n", "row 1: no column of values: expected one of value, adj_close, close, price"),
        ("stock,ts,value\nA,2026,1\nA,2027,x1\n", "row 3, column 'value': 'x1' is not a finite number"),
        ("stock,ts,value\nA,2026,1e400\n", "row 2, column 'value': '1e400' is not a finite number"),
        ("stock,ts,value\nA,2026,1_000\n", "row 2, column 'value': '1_000' is not a finite number"),
        ("stock,ts,value\nA,soon,1\n", "row 2, column 'ts': 'soon' is not a time"),
        ("stock,ts,value\nA,2026-02-30,1\n", "row 2, column 'ts': '2026-02-30' is not a time"),
        ("stock,ts,value\nA B,2026,1\n", "row 2, column 'stock': 'A B' is not the name of a stock"),
        ("stock,ts,value\nA,2026\n", "row 2: 2 cells, the header has 3"),
        ('stock,ts,value\nA,2026,"1\n', "row 2: not a CSV row"),
        ("stock,t1,t2\nA,1,2\n", "row 1: 't1' is not a time: either a time column is missing"),
        ("stock,2010,2010-01\nA,1,2\n", "row 1: two columns have the same time"),
        ("stock,2010\nA,1\nA,2\n", "row 3, column 'stock': the stock 'A' has a row already"),
    ],
)
def test_what_is_wrong_is_named_by_file_row_and_column(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadPriceFile) as error:
        read_prices(path)
    assert str(error.value).startswith(f"{path}")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"stock,ts,value\nA,2026,\xff\n", "not UTF-8 text"),
        (gzip.compress(SEED.encode() * 1000)[:50], "the gzip file is damaged or cut short"),
        (b"\x1f\x8bnothing", "the gzip file is damaged or cut short"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_file_that_is_no_text_is_refused_in_one_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadPriceFile) as error:
        read_prices(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_options_that_do_not_fit_the_kind_of_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPriceFile, match="--start and --step are for wide tables"):
        read_prices(DATA, start_ms=0, step_ms=1)
    with pytest.raises(BadPriceFile, match="it is a wide table: it has no value or field columns"):
        read_prices(write(tmp_path, SEED), value="close")
    with pytest.raises(BadPriceFile, match="lead past the year 9999"):
        read_prices(write(tmp_path, SEED), start_ms=parse_time("9999-12-31"), step_ms=86_400_000)
    with pytest.raises(BadPriceFile, match="no column 'vwap', found Ticker, Date"):
        read_prices(DATA, fields=["vwap"])


def test_some_stocks_and_the_earliest_values_can_be_taken() -> None:
    prices = read_prices(DATA)
    few = prices.only(["IBM", "FB"]).first(3)
    assert [stock for stock, _, _ in sent(few)] == ["IBM", "IBM", "IBM"]
    assert len(prices.only(["IBM", "FB"])) == 3270 + 196
    with pytest.raises(KeyError, match="NONE"):
        prices.only(["NONE"])


def test_training_and_replay_read_the_same_numbers_from_the_same_file() -> None:
    assert (pricefile.STOCK_COLUMNS, pricefile.VALUE_COLUMNS) == (sheet.STOCK, dataset.VALUE)
    assert set(pricefile.TIME_COLUMNS) == set(dataset.TIME)
    assert set(pricefile.LABEL_COLUMNS) == set(sheet.FLAG)
    prices = read_prices(DATA, fields=["volume"])
    for series in dataset.read([DATA], fields=["volume"]).series:
        mine = prices.stock == prices.stocks.index(series.stock)
        assert prices.ts_ms[mine].tolist() == series.times.tolist()
        assert prices.value[mine].tolist() == series.values[:, 0].tolist()
        assert prices.fields[mine, 0].tolist() == series.values[:, 1].tolist()
