"""Scoring a table: what the service would have said of the same values, bit for bit."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer import offline
from consumer.batch import Stager
from consumer.events import EventDecoder
from consumer.metrics import Metrics
from consumer.offline import Scored, newest, rows, score
from model.dataset import Series, Table, read
from model.predictor import Predictions, Predictor
from state.history import History
from state.layout import PREDICTED, Records
from tests.unit.consumer.doubles import NOT_FINITE, Message, SlopeModel, seated

PRICES = Path(__file__).parents[3] / "consumer" / "data" / "daily-us" / "stocks.csv.gz"
SAID = ("ts", "values", "forecast", "low", "high", "scale", "probability", "flags")


class TwoColumns(SlopeModel):
    """SlopeModel for a stock whose volume lowers the chance of a fall."""

    fields = ("volume",)

    def predict(self, windows: NDArray[np.float64]) -> Predictions:
        assert windows.shape[1:] == (3, 2)
        said = super().predict(windows[:, :, :1])
        return replace(said, probability=(said.probability / windows[:, -1, 1]).astype(np.float32))


def made(stock: str, *values: float, columns: int = 1, begin: int = 0) -> Series:
    count = len(values)
    matrix = np.repeat(np.array(values, np.float64)[:, None], columns, axis=1)
    matrix[:, 1:] = 1 + np.arange(count)[:, None] % 2
    times = (begin + np.arange(count)) * 86_400_000
    return Series(stock, times, matrix, np.full(count, np.nan, np.float32))


def streamed(model: SlopeModel | Predictor, series: list[Series], cut: int) -> dict[tuple[str, int], Records]:
    """What the service's stager makes of these values as events, by time, in batches of `cut`: by stock and time."""
    events = sorted(
        (int(time), one.stock, values.tolist())
        for one in series
        for time, values in zip(one.times, one.values, strict=True)
    )
    messages = [
        Message(
            stock.encode(),
            json.dumps(
                {
                    "stock": stock,
                    "value": values[0],
                    "ts": time,
                    "fields": dict(zip(model.fields, values[1:], strict=True)),
                }
            ).encode(),
            offset,
            2**52,
        )
        for offset, (time, stock, values) in enumerate(events)
    ]
    partition = seated()
    partition.history = History(model.reach, 1 + len(model.fields), model.reach + 3)
    stager = Stager(EventDecoder(model.fields, 65_536, 86_400), model, Metrics(), 1_000, 1_000)  # type: ignore[arg-type]
    found = {}
    for first in range(0, len(messages), cut):
        ((_, staged),) = stager.stage([(partition, messages[first : first + cut])])
        for update, entry in enumerate(staged.entries):
            if entry["flags"] & PREDICTED:
                stock = staged.admitted.events.stocks[staged.admitted.source[update]]
                found[stock, int(entry["ts"])] = entry.copy()
        partition.history.fold(staged.admitted.updates, staged.entries)
    return found


def told(series: list[Series], parts: list[Scored]) -> dict[tuple[str, int], Records]:
    return {
        (series[number].stock, int(entry["ts"])): entry
        for part in parts
        for number, entry in zip(part.stock.tolist(), part.entries, strict=True)
    }


def assert_same(ours: dict[tuple[str, int], Records], theirs: dict[tuple[str, int], Records]) -> None:
    assert ours.keys() == theirs.keys()
    for key, entry in theirs.items():
        for name in SAID:
            assert ours[key][name].tobytes() == entry[name].tobytes(), (key, name)


@pytest.mark.parametrize("model", [SlopeModel(), TwoColumns()], ids=["value", "with a field"])
@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
def test_every_step_is_what_the_service_says_of_it_however_the_table_is_cut(
    monkeypatch: pytest.MonkeyPatch, size: int, model: SlopeModel
) -> None:
    monkeypatch.setattr(offline, "LEAST_ROWS", 1)
    monkeypatch.setattr(offline, "MOST_ROWS", size)
    rng = np.random.default_rng(5)
    columns = 1 + len(model.fields)
    series = [
        made(f"S{i}", *rng.integers(95, 105, length).cumsum().tolist(), columns=columns, begin=i)
        for i, length in enumerate((1, 2, 3, 4, 40, 5, 11))
    ]
    series[4] = made("S4", *(100 + rng.integers(-2, 3, 40).cumsum()).tolist(), columns=columns)
    parts = list(score(model, series))  # type: ignore[arg-type]  # a model of our own
    theirs = streamed(model, series, cut=9)
    flags = [int(entry["flags"]) for entry in theirs.values()]
    assert len(theirs) == 1 + 2 + 38 + 3 + 9
    assert len(set(flags)) == 4  # falling or not, flipped or not: all there
    assert_same(told(series, parts), theirs)
    assert max(model.calls) <= max(size, 9)
    model.calls.clear()


def test_the_numbers_of_the_bundle_that_ships_are_those_of_the_service_bit_for_bit() -> None:
    series = [replace(one, times=one.times[:300], values=one.values[:300]) for one in read([PRICES]).series[:3]]
    model = Predictor.load()
    ours = told(series, list(score(model, series)))
    assert len(ours) == sum(len(one.times[:300]) - model.min_history + 1 for one in series)
    assert_same(ours, streamed(model, series, cut=101))


def test_a_long_stock_is_scored_in_batches_that_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SlopeModel()
    monkeypatch.setattr(offline, "BATCH_BYTES", 100 * 8 * model.reach)
    parts = list(score(model, [made("A", *range(20, 1_020)), made("B", *range(20, 70)), made("C", *range(20, 70))]))  # type: ignore[arg-type]
    assert model.calls == [98, *[100] * 9, 96]
    assert [pair for part in parts for pair in pairwise(part.step.tolist()) if pair[1] - pair[0] != 1] == [(49, 2)]


def test_windows_without_finite_numbers_are_counted_and_the_flag_goes_on() -> None:
    series = [made("A", 9, 8, 7, NOT_FINITE, 5, 4)]
    (part,) = score(SlopeModel(), series)  # type: ignore[arg-type]  # a model of our own
    assert (part.step.tolist(), part.failed) == ([2, 4, 5], 1)


def test_rows_have_the_time_as_the_table_writes_it_and_the_value_that_came() -> None:
    series = (made("A", 5, 6, 7, 8), replace(made("B", 1, 2, 3, begin=1), after=9.0), made("C", 4, 4, 4))
    table = Table(series, ("t.csv",), "", 10, 0, "value")
    (part,) = score(SlopeModel(), series)  # type: ignore[arg-type]  # a model of our own
    found = rows(SlopeModel(), table, part)  # type: ignore[arg-type]  # as above
    assert list(zip(found.stock, found.ts, found.value, strict=True)) == [
        ("A", "1970-01-03", 7),
        ("A", "1970-01-04", 8),
        ("B", "1970-01-04", 3),
        ("C", "1970-01-03", 4),
    ]
    assert np.array_equal(found.next, [8, np.nan, 9, np.nan], equal_nan=True)
    last = newest([part])
    assert (last.stock.tolist(), last.step.tolist()) == ([0, 1, 2], [3, 2, 2])
