"""What people are shown is right at the edges of the contract, and cannot steer their terminal."""

import io
import math
from typing import Any

import pytest
from rich.console import Console

from consumer.rendering import Board, duration, number, plain, prediction_line, prediction_row, sparkline, timestamp


def prediction(**changed: Any) -> dict[str, Any]:
    return {
        "stock": "AAPL",
        "ts": "2026-11-23T14:30:00.000Z",
        "value": 189.98,
        "falling": False,
        "falling_probability": 0.1234,
        "flipped": False,
        "forecast": 190.21,
        "forecast_low": 187.9,
        "forecast_high": 192.4,
        **changed,
    }


def text_of(board: Board, *, rows: int = 10, columns: int = 120, only_falling: bool = False) -> str:
    console = Console(file=io.StringIO(), width=columns)
    console.print(board.table(rows, columns=columns, only_falling=only_falling))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([], ""),
        ([1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇█"),
        ([5, 5, 5], "▄▄▄"),
        ([1, math.nan, 2], "▁ █"),
        ([math.inf, math.nan], "  "),
        ([-1e308, 0.0, 1e308], "▁▅█"),
        ([0.0, 5e-324], "▁█"),
    ],
)
def test_a_sparkline_spans_lowest_to_highest(values: list[float], shown: str) -> None:
    assert sparkline(values) == shown


def test_a_sparkline_shows_the_newest_values_that_fit() -> None:
    assert sparkline([100, 0, 1, 2], width=2) == "▁█"
    assert sparkline([1, 2], width=0) == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (189.98, "189.98"),
        (1234.5, "1,234.50"),
        (9.99996, "10.00"),
        (1.5, "1.5000"),
        (0.99996, "1.0000"),
        (0.0123, "0.01230"),
        (-0.5, "-0.5000"),
        (0.0, "0.00"),
        (5e-324, "4.941e-324"),
        (1e308, "1e+308"),
        (math.nan, "-"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_are_short_and_keep_their_size(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0031, "3.1 ms"),
        (0.9996, "1 s"),
        (1.25, "1.25 s"),
        (150, "2 min"),
        (3600, "60 min"),
        (7200, "2 h"),
        (86400 * 30, "30 d"),
        (math.nan, "-"),
    ],
)
def test_durations_have_the_unit_people_use(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_every_instant_of_the_contract_can_be_shown() -> None:
    assert timestamp(1_795_444_200_000) == "2026-11-23 14:30:00Z"
    assert timestamp(1_795_444_200_007) == "2026-11-23 14:30:00.007Z"
    assert timestamp(-1) == "1969-12-31 23:59:59.999Z"
    assert timestamp(-(10**18)) == "-1000000000000000000 ms"


def test_control_characters_never_reach_the_terminal() -> None:
    assert plain("A\x1b[2JB\nC\u202e") == "A?[2JB?C?"
    assert "\x1b" not in prediction_line(prediction(stock="\x1b[2J"))
    assert prediction_row(prediction(stock="[red]x"), ())[0].plain == "[red]x"


def test_a_prediction_is_one_plain_line() -> None:
    assert prediction_line(prediction(falling=True, flipped=True)) == (
        "2026-11-23 14:30:00Z AAPL           189.98  next       190.21 [187.90, 192.40]"
        "  p_falling 0.123  falling (flipped)"
    )


@pytest.mark.parametrize("broken", [{"value": "1"}, {"value": True}, {"forecast": None}])
def test_what_is_no_prediction_is_refused_and_changes_nothing(broken: dict[str, Any]) -> None:
    board = Board()
    with pytest.raises(TypeError):
        board.add(prediction(**broken))
    with pytest.raises(KeyError):
        board.add({"stock": "AAPL"})
    assert (board.predictions, board.stocks, board.flips) == (0, 0, 0)


def test_the_board_counts_and_shows_the_last_prediction_of_each_stock() -> None:
    board = Board()
    board.add(prediction(value=1.0, falling=True, flipped=True))
    board.add(prediction(stock="IBM", value=7.0, falling=True, flipped=True))
    board.add(prediction(value=2.0, flipped=True), latency=0.003)
    assert (board.predictions, board.stocks, board.falling, board.flips) == (3, 2, 1, 3)
    shown = text_of(board)
    assert "▁█" in shown
    assert "2.0000" in shown
    assert "3 predictions · 2 stocks · 1 falling · 3 flips" in shown
    assert "p99 3 ms" in shown
    falling = text_of(board, only_falling=True)
    assert "IBM" in falling
    assert "AAPL" not in falling


def test_too_many_rows_keep_those_updated_last_by_name() -> None:
    board = Board()
    for stock in ("C", "A", "B", "C"):
        board.add(prediction(stock=stock))
    shown = text_of(board, rows=2)
    assert [line.split()[0] for line in shown.splitlines() if line.strip()[:1] in "ABC" and line.strip()] == ["B", "C"]


@pytest.mark.parametrize("columns", [80, 100, 120, 200])
def test_a_row_is_one_line_that_fits(columns: int) -> None:
    board = Board()
    for value in range(40):
        board.add(prediction(stock="GOOGL", value=1000.0 + value, forecast_low=1000.5, forecast_high=1111.5))
    lines = [line for line in text_of(board, columns=columns).splitlines() if "GOOGL" in line]
    assert len(lines) == 1
    assert "1,000.50 … 1,111.50" in lines[0]
    assert ("2026-11-23 14:30:00Z" in lines[0]) == (columns >= 117)


def test_the_rate_is_that_of_the_last_five_seconds() -> None:
    now = 100.0
    board = Board(clock=lambda: now)
    for _ in range(10):
        board.add(prediction())
        now += 0.5
    assert board.rate() == pytest.approx(2.0)
    now += 20
    assert board.rate() == 0.0
    assert math.isnan(board.latency(0.5))
