"""A table scored as the service would score it as a stream: no Kafka and no Redis, but the service's own steps.

    series → admit → windows → predict → judge → fold, cut into batches that fit into memory

Each stock's values are taken in as its updates, oldest first, by the functions that the service stages a batch with
(consumer/stage.py, state/history.py). So a flag's hysteresis, and which step is predicted at all, cannot differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from consumer.events import Events
from consumer.predictionfile import Rows
from consumer.stage import admit, judge, predictable
from state.history import History
from state.layout import FALLING, FLIPPED, PREDICTED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from model.dataset import Series, Table
    from model.predictor import Predictor
    from state.layout import Records

BATCH_BYTES = 1 << 25  # of a batch's windows
LEAST_ROWS, MOST_ROWS = 64, 8_192  # of a batch: more are no faster


@dataclass(frozen=True)
class Scored:
    """Predictions of a batch, by stock and within a stock by time.

    stock: (n,) int64, number of the series. step: (n,) int64, which of its values was the last seen. entries: (n,) as
    the service keeps them (state.layout.record_dtype): values, probability, forecast, low, high, scale, flags.
    failed: steps for which the model gave no finite numbers; the service makes them dead letters."""

    stock: NDArray[np.int64]
    step: NDArray[np.int64]
    entries: Records
    failed: int


def score(predictor: Predictor, series: Sequence[Series]) -> Iterator[Scored]:
    """Every step of every series that has the values that a prediction needs, batch by batch, in order.

    Args:
        series: each with `1 + len(predictor.fields)` columns of values."""
    columns = 1 + len(predictor.fields)
    size = max(LEAST_ROWS, min(MOST_ROWS, BATCH_BYTES // (8 * predictor.reach * columns)))
    for first, end in _groups([len(one.times) for one in series], size):
        history = History(predictor.reach, columns, predictor.reach)
        longest = max(len(one.times) for one in series[first:end])
        for begin in range(0, longest, size):  # more than once only for a stock that is alone in its group
            yield _batch(predictor, history, series[first:end], first, slice(begin, begin + size))


def _groups(lengths: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Consecutive series that make `size` rows at most, or one alone: first and end of each group."""
    first = rows = 0
    for number, length in enumerate(lengths):
        if number > first and rows + length > size:
            yield first, number
            first, rows = number, 0
        rows += length
    if first < len(lengths):
        yield first, len(lengths)


def _batch(predictor: Predictor, history: History, series: Sequence[Series], number: int, part: slice) -> Scored:
    """The values `part` of each of these series, of which the first is that of `number`; `history` takes them in."""
    times = [one.times[part] for one in series]
    sizes = [len(one) for one in times]
    count = sum(sizes)
    stock = np.arange(number, number + len(series)).repeat(sizes)
    step = np.concatenate([np.arange(part.start, part.start + size) for size in sizes])
    events = Events(
        position=np.arange(count),
        offset=step,
        ts=np.concatenate(times),
        timestamp=np.full(count, -1),
        values=np.concatenate([one.values[part] for one in series]),
        stocks=[one.stock for one, size in zip(series, sizes, strict=True) for _ in range(size)],
        rejections=[],
    )
    admitted = admit(history, events, max_stocks=len(series))
    wanted = predictable(admitted, predictor.min_history)
    predictions = predictor.predict(history.windows(admitted.updates, wanted))
    (judged,) = judge([admitted], [wanted], predictions, (predictor.falling_on, predictor.falling_off))
    history.fold(admitted.updates, judged.entries)
    told = (judged.entries["flags"] & PREDICTED != 0).nonzero()[0]
    source = admitted.source[told]
    return Scored(stock[source], step[source], judged.entries[told], len(judged.rejections))


def rows(predictor: Predictor, table: Table, scored: Scored) -> Rows:
    """The predictions as rows of a file, with the values that came; `scored` is of the table's series."""
    entries, flags = scored.entries, scored.entries["flags"]
    moments, place = np.unique(entries["ts"], return_inverse=True)  # dates repeat
    names = [table.time_name(moment) for moment in moments.tolist()]
    return Rows(
        stock=[table.series[number].stock for number in scored.stock.tolist()],
        ts=[names[i] for i in place.tolist()],
        ts_ms=None if table.steps else entries["ts"],
        value=entries["values"][:, 0],
        falling=flags & FALLING != 0,
        falling_probability=entries["probability"],
        flipped=flags & FLIPPED != 0,
        forecast=entries["forecast"],
        forecast_low=entries["low"],
        forecast_high=entries["high"],
        window=predictor.window,
        model=predictor.version,
        next=_came(table.series, scored),
    )


def newest(parts: Sequence[Scored]) -> Scored:
    """Each stock's newest prediction in consecutive batches."""
    stock = np.concatenate([part.stock for part in parts])
    last = _ends(stock) - 1
    return Scored(
        stock[last],
        np.concatenate([part.step for part in parts])[last],
        np.concatenate([part.entries for part in parts])[last],
        sum(part.failed for part in parts),
    )


def _ends(stock: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each stock's rows end: the first position behind them."""
    last: NDArray[np.int64] = np.diff(stock, append=-1).nonzero()[0]
    return last + 1


def _came(series: Sequence[Series], scored: Scored) -> NDArray[np.float64]:
    """The value after each step, NaN where it is not known."""
    found = np.empty(len(scored.stock))
    first = 0
    for end in _ends(scored.stock).tolist():
        one = series[int(scored.stock[first])]
        found[first:end] = np.append(one.values[:, 0], one.after)[scored.step[first:end] + 1]
        first = end
    return found
