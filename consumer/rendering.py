"""What people see: numbers, sparklines and the table of predictions, the same in `watch`, `history` and `demo`.

A `prediction` is the decoded JSON of the output topic. Every string here is safe for a terminal that the data
cannot be trusted with: names and messages are shown as text, never as markup or control characters."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

_BARS = "▁▂▃▄▅▆▇█"
_ABSENT = "-"
_NUMBERS = ("value", "falling_probability", "forecast", "forecast_low", "forecast_high")
_RATE_WINDOW = 5.0  # seconds


def sparkline(values: Iterable[float], width: int = 24) -> str:
    """The newest `width` values as bars, from the lowest of those shown to the highest; a non-finite one is a blank."""
    shown = list(values)[-width:] if width > 0 else []
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return " " * len(shown)
    low, high = min(finite), max(finite)
    if low == high:
        return "".join(_BARS[3] if math.isfinite(value) else " " for value in shown)
    # ±1e308 are legal values, and their difference is infinite; halves of them are not.
    scale = 1.0 if math.isfinite(high - low) else 0.5
    span, top = high * scale - low * scale, len(_BARS) - 1
    return "".join(
        _BARS[round((value * scale - low * scale) / span * top)] if math.isfinite(value) else " " for value in shown
    )


def number(value: float) -> str:
    """A value for reading, not for parsing: two decimals from 10 up, four from 1 up, four digits below."""
    if not math.isfinite(value):
        return _ABSENT if math.isnan(value) else str(value)
    size = abs(value)
    if size == 0:
        return "0.00"
    if size >= 1e12 or size < 1e-6:
        return f"{value:.4g}"
    exponent = int(f"{size:.3e}".partition("e")[2])  # of the rounded number: 0.09999999 is 0.1000
    return f"{value:,.{2 if exponent >= 1 else 3 - exponent}f}" if exponent else f"{value:.4f}"


def count(n: int) -> str:
    """A whole number with thousands separated."""
    return f"{n:,}"


def duration(seconds: float) -> str:
    """Seconds as people say them: "3.1 ms", "1.2 s", "2 min", "3 h", "4 d"."""
    if math.isnan(seconds):
        return _ABSENT
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 99.5:
        return f"{seconds:.3g} s"
    for size, name in ((60, "min"), (3600, "h"), (86400, "d")):
        if name == "d" or seconds < 99.5 * size:
            return f"{seconds / size:,.0f} {name}"
    raise AssertionError("days take every duration")


def timestamp(ts_ms: int) -> str:
    """Epoch milliseconds as "2026-11-23 14:30:00Z"; milliseconds are shown if there are any."""
    try:
        moment = datetime.fromtimestamp(ts_ms // 1000, UTC)
    except (
        OverflowError,
        ValueError,
        OSError,
    ):  # the contract allows any past instant, datetime begins with the year 1
        return f"{ts_ms} ms"
    rest = ts_ms % 1000
    return moment.strftime("%Y-%m-%d %H:%M:%S") + (f".{rest:03d}Z" if rest else "Z")


def plain(text: object) -> str:
    """Text without control characters: a name or a message from elsewhere must not steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in str(text))


def _event_time(prediction: Mapping[str, Any]) -> str:
    text = plain(prediction["ts"]).replace("T", " ")
    return text.replace(".000Z", "Z").replace(" 00:00:00Z", "")


def _number_of(prediction: Mapping[str, Any], field: str) -> float:
    value = prediction[field]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{field} is {type(value).__name__}, expected a number")
    return float(value)


def _interval(prediction: Mapping[str, Any], to: str) -> str:
    return f"{number(_number_of(prediction, 'forecast_low'))}{to}{number(_number_of(prediction, 'forecast_high'))}"


def _check(prediction: Mapping[str, Any]) -> None:
    for field in _NUMBERS:
        _number_of(prediction, field)
    for field in ("ts", "falling", "flipped"):
        _ = prediction[field]


def prediction_line(prediction: Mapping[str, Any]) -> str:
    """One prediction as one line of ASCII: time, stock, value, forecast, interval, probability, flag.

    Raises: KeyError, TypeError if it is not a prediction of the contract."""
    flag = "falling" if prediction["falling"] else "-"
    if prediction["flipped"]:
        flag += " (flipped)"
    return (
        f"{_event_time(prediction):<20} {plain(prediction['stock']):<8} {number(_number_of(prediction, 'value')):>12}"
        f"  next {number(_number_of(prediction, 'forecast')):>12} [{_interval(prediction, ', ')}]"
        f"  p_falling {_number_of(prediction, 'falling_probability'):.3f}  {flag}"
    )


def _fits(columns: int) -> tuple[int, bool]:
    """How wide a sparkline is on a terminal of that many columns, and whether the event time fits as well."""
    timed = columns >= 117
    return max(4, min(24, columns - (93 if timed else 71))), timed


def prediction_table(title: str = "", *, caption: str = "", columns: int = 120) -> Table:
    """An empty table for the rows of `prediction_row`; on a narrow terminal time and history give way."""
    table = Table(title=title or None, caption=caption or None, title_justify="left", caption_justify="left")
    table.box, table.padding, table.pad_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False
    table.title_style, table.caption_style = "bold", "dim"
    table.add_column("stock", no_wrap=True, min_width=6)
    table.add_column("value", justify="right", no_wrap=True, min_width=8)
    table.add_column("history", no_wrap=True, overflow="crop")
    table.add_column("falling", no_wrap=True, min_width=7)
    table.add_column("P", justify="right", no_wrap=True, min_width=5)
    table.add_column("forecast", justify="right", no_wrap=True, min_width=8)
    table.add_column("interval", justify="center", no_wrap=True)
    if _fits(columns)[1]:
        table.add_column("event time", no_wrap=True, min_width=10)
    return table


def prediction_row(prediction: Mapping[str, Any], values: Sequence[float], *, columns: int = 120) -> tuple[Text, ...]:
    """The cells of one prediction; `values` is the stock's history, oldest first, for the sparkline.

    Raises: KeyError, TypeError if it is not a prediction of the contract."""
    value, forecast = _number_of(prediction, "value"), _number_of(prediction, "forecast")
    width, timed = _fits(columns)
    falling = bool(prediction["falling"])
    flag = Text("▼ yes", "bold red") if falling else Text("-", "dim")
    if prediction["flipped"]:
        flag.append(" ⇄", "bold yellow")
    row = (
        Text(plain(prediction["stock"]), "bold"),
        Text(number(value)),
        Text(sparkline(values, width), "red" if falling else "cyan"),
        flag,
        Text(f"{_number_of(prediction, 'falling_probability'):.3f}"),
        Text(number(forecast), "green" if forecast > value else "red" if forecast < value else ""),
        Text(_interval(prediction, " … "), "dim"),
    )
    return (*row, Text(_event_time(prediction), "dim")) if timed else row


class Board:
    """What a live table shows: the last prediction and values of each stock, counts, rate and latency.

    Owned by one thread, never blocks. Memory grows with the number of stocks only."""

    def __init__(self, *, values: int = 24, clock: Callable[[], float] = time.monotonic) -> None:
        self._values, self._clock = values, clock
        self._last: dict[str, Mapping[str, Any]] = {}  # in the order of their last update, oldest first
        self._history: dict[str, deque[float]] = {}
        self._falling: set[str] = set()
        self._latencies: deque[float] = deque(maxlen=1000)
        self._recent: deque[list[float]] = deque()  # [when, how many], one for each tenth of a second
        self.predictions = self.flips = 0

    def add(self, prediction: Mapping[str, Any], latency: float | None = None) -> None:
        """Take one prediction; `latency` is the time from produce to seen, in seconds, where it is known.

        Raises: KeyError, TypeError if it is not a prediction of the contract; nothing has changed then."""
        stock = prediction["stock"]
        if not isinstance(stock, str):
            raise TypeError(f"stock is {type(stock).__name__}, expected a string")
        _check(prediction)  # what cannot be shown later is refused now
        self._last.pop(stock, None)
        self._last[stock] = prediction
        self._history.setdefault(stock, deque(maxlen=self._values)).append(float(prediction["value"]))
        (self._falling.add if prediction["falling"] else self._falling.discard)(stock)
        self.predictions += 1
        self.flips += bool(prediction["flipped"])
        if latency is not None:
            self._latencies.append(latency)
        now = self._clock()
        if self._recent and now - self._recent[-1][0] < 0.1:
            self._recent[-1][1] += 1
        else:
            self._recent.append([now, 1.0])

    @property
    def stocks(self) -> int:
        """How many stocks have been seen."""
        return len(self._last)

    @property
    def falling(self) -> int:
        """How many stocks are flagged as falling by their last prediction."""
        return len(self._falling)

    def rate(self) -> float:
        """Predictions a second over the last five seconds, or since the first of them."""
        now = self._clock()
        while self._recent and now - self._recent[0][0] > _RATE_WINDOW:
            self._recent.popleft()
        if not self._recent:
            return 0.0
        return sum(n for _, n in self._recent) / max(1.0, now - self._recent[0][0])

    def latency(self, quantile: float) -> float:
        """The quantile (0 to 1) of the last thousand latencies in seconds; NaN if none is known."""
        ordered = sorted(self._latencies)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] if ordered else math.nan

    def caption(self) -> str:
        """The counts, the rate and the latency in one line."""
        text = (
            f"{count(self.predictions)} predictions · {count(self.stocks)} stocks · {count(self.falling)} falling · "
            f"{count(self.flips)} flips · {count(round(self.rate()))}/s"
        )
        if self._latencies:
            text += f" · latency p50 {duration(self.latency(0.5))}, p99 {duration(self.latency(0.99))}"
        return text

    def table(self, rows: int, *, title: str = "", columns: int = 120, only_falling: bool = False) -> Table:
        """At most `rows` stocks, those updated last, by name so that rows keep their place."""
        chosen: list[str] = []
        for stock in reversed(self._last):
            if len(chosen) >= rows:
                break
            if not only_falling or stock in self._falling:
                chosen.append(stock)
        table = prediction_table(title, caption=self.caption(), columns=columns)
        for stock in sorted(chosen):
            table.add_row(*prediction_row(self._last[stock], self._history[stock], columns=columns))
        return table
