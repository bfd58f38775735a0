from dataclasses import replace

import numpy as np
import pytest

from model.dataset import Series, Table
from model.examples import Examples, make, split
from model.inputs import Inputs
from model.labels import HALF
from model.manifest import LabelRule
from tests.unit.model.series import DAY, table, walks

WINDOW = 16
INPUTS, REGIME = Inputs(WINDOW), LabelRule(rule="regime", look_ahead=HALF)
VALIDATION, TEST = 200, 260  # days


def parts(data: Table) -> tuple[Examples, Examples, Examples]:
    found = split(make(data, REGIME, INPUTS), data, REGIME, (VALIDATION * DAY, TEST * DAY))
    assert found.validation is not None
    assert found.test is not None
    return found.train, found.validation, found.test


def same(a: Examples, b: Examples) -> bool:
    """Whether the examples are, to the bit: what they see and what they answer."""
    names = ("target", "label", "slope", "stock", "time", "until", "scale", "spread")
    return np.array_equal(a.windows(), b.windows()) and all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in names
    )


def test_nothing_at_or_behind_a_border_has_a_part_in_what_is_before_it() -> None:
    values = walks(3, 320)
    train, validation, _ = parts(table(values))
    for border, untouched in [(VALIDATION, [train]), (TEST, [train, validation])]:
        changed = values.copy()
        changed[:, border:] = walks(3, 320, seed=9)[:, border:] * 7
        now = parts(table(changed))
        for before, after in zip(untouched, now, strict=False):
            assert same(before, after)


def test_the_parts_share_no_value() -> None:
    train, validation, test = parts(table(walks(3, 320)))
    for before, after in ((train, validation), (validation, test)):
        assert before.until.max() < after.time.min() - (WINDOW - 1) * DAY


@pytest.mark.parametrize("window", [2, 5, 8, 9, 10])
def test_labels_on_both_sides_of_a_border_share_no_value_however_short_the_window(window: int) -> None:
    data = table(walks(3, 320))
    found = split(make(data, REGIME, Inputs(window)), data, REGIME, (VALIDATION * DAY, TEST * DAY))
    assert found.validation is not None
    assert found.test is not None
    for before, after in ((found.train, found.validation), (found.validation, found.test)):
        assert before.until.max() == after.time.min() - (max(window, HALF + 1) - 1) * DAY - DAY
    assert f"{max(window, HALF + 1) - 1} steps left out before each border" in found.note


def thinned(data: Table) -> Table:
    """The second stock trades every second day only, the third not in the month before the first border."""
    days = np.arange(320)
    kept = (days >= 0, days % 2 == 0, (days < VALIDATION - 35) | (days >= VALIDATION - 5))
    return replace(
        data,
        series=tuple(
            replace(s, times=s.times[at], values=s.values[at], labels=s.labels[at])
            for s, at in zip(data.series, kept, strict=True)
        ),
    )


def test_the_parts_share_no_value_of_a_stock_that_does_not_trade_every_day() -> None:
    data = thinned(table(walks(3, 320)))
    train, validation, test = parts(data)
    starts = np.cumsum([0, *(len(one.times) for one in data.series)])
    for before, after in ((train, validation), (validation, test), (train, test)):
        for number, one in enumerate(data.series):
            answered = np.searchsorted(one.times, before.until[before.stock == number].max())
            seen = after.end[after.stock == number].min() - starts[number] - (WINDOW - 1)
            assert answered < seen, number


def test_an_hourly_stock_beside_it_does_not_shorten_the_gap_of_a_daily_one() -> None:
    daily = table(walks(1, 320))
    hours = np.arange(150 * 24, 320 * 24) * (DAY // 24)
    hourly = Series("H", hours, walks(1, len(hours), seed=5).T, np.full(len(hours), np.nan, np.float32))
    train, _, _ = parts(replace(daily, series=(*daily.series, hourly)))
    assert train.until[train.stock == 0].max() == (VALIDATION - (WINDOW - 1) - 1) * DAY
    assert train.until[train.stock == 1].max() == VALIDATION * DAY - WINDOW * (DAY // 24)


def test_a_stock_that_ended_before_the_border_keeps_its_last_windows() -> None:
    data = table(walks(3, 320))
    ended = replace(data.series[0], times=data.series[0].times[:150], values=data.series[0].values[:150])
    train, _, _ = parts(replace(data, series=(ended, *data.series[1:])))
    assert train.time[train.stock == 0].max() == 148 * DAY


def test_the_gap_is_one_window_and_the_held_out_part_begins_at_the_border() -> None:
    train, validation, test = parts(table(walks(3, 320)))
    assert train.time.max() == (VALIDATION - (WINDOW - 1) - HALF - 1) * DAY
    assert validation.time.min() == VALIDATION * DAY
    assert validation.time.max() == (TEST - (WINDOW - 1) - HALF - 1) * DAY
    assert test.time.min() == TEST * DAY


def test_a_given_label_is_kept_as_far_from_the_border_as_it_looks_ahead() -> None:
    data = table(walks(3, 320))
    rng = np.random.default_rng(1)
    labelled = tuple(replace(s, labels=rng.integers(0, 2, 320).astype(np.float32)) for s in data.series)
    for reach in (1, 5):
        given = LabelRule(rule="given", look_ahead=reach)
        found = split(make(replace(data, series=labelled), given, INPUTS), data, given, (VALIDATION * DAY, TEST * DAY))
        assert found.train.time.max() == (VALIDATION - (WINDOW - 1) - reach - 1) * DAY


def test_a_window_ends_at_its_step_and_its_target_is_the_next_value() -> None:
    values = walks(2, 60)
    made = make(table(values), REGIME, INPUTS)
    for k in (0, 10, len(made) - 1):
        stock, step = made.stock[k], made.time[k] // DAY
        assert made.windows([k])[0, :, 0].tolist() == values[stock, step - WINDOW + 1 : step + 1].tolist()
        assert made.target[k] == values[stock, step + 1]


def test_examples_come_by_stock_and_within_a_stock_by_time() -> None:
    made = make(table(walks(3, 60)), REGIME, INPUTS)
    assert np.array_equal(np.lexsort((made.time, made.stock)), np.arange(len(made)))


def test_series_shorter_than_the_window_give_no_examples() -> None:
    assert len(make(table(walks(2, WINDOW - 1)), REGIME, INPUTS)) == 0


def test_unless_borders_are_named_they_lie_at_sixty_and_eighty_percent_of_time() -> None:
    data = table(walks(3, 315))
    found = split(make(data, REGIME, INPUTS), data, REGIME)  # steps 15..313: 299 of them
    assert found.test is not None
    assert found.validation is not None
    assert found.validation.time.min() == (15 + 179) * DAY
    assert found.test.time.min() == (15 + 239) * DAY


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        (40, "24 distinct steps are too few"),
        (50, "the train part has no room for a window of 16 values and the next one: move the borders, or give more"),
        (320, "the train part lacks one of the classes: move the borders, or give more data"),
    ],
)
def test_too_little_time_to_hold_any_out_is_said(steps: int, why: str) -> None:
    data = table(np.exp(0.01 * np.cumsum(np.ones((2, steps)), axis=1)))
    made = make(data, REGIME, INPUTS)
    found = split(made, data, REGIME)
    assert found.validation is None
    assert found.test is None
    assert len(found.train) == len(made)
    assert why in found.note


def test_a_table_of_many_stocks_and_few_steps_is_split_by_stock() -> None:
    rng = np.random.default_rng(0)
    steps = ("2010", "2011", "2012", "2013")
    series = tuple(
        Series(
            f"S{i}",
            np.arange(4),
            row[:, None],
            np.array([np.nan] * 3 + [i % 2], np.float32),
            after=float(row[-1] + rng.normal()),
        )
        for i, row in enumerate(walks(200, 4))
    )
    data = Table(series, ("made-up.csv",), "0" * 64, 200, 0, "steps", steps)
    given = LabelRule(rule="given", look_ahead=1)
    found = split(make(data, given, Inputs(4)), data, given)
    assert (found.by, found.borders) == ("stock", None)
    assert found.validation is not None
    assert found.test is not None
    stocks = [set(part.stock.tolist()) for part in (found.train, found.validation, found.test)]
    assert sum(map(len, stocks)) == len(set().union(*stocks)) == 200
    assert 100 < len(stocks[0]) < 140
    # Other stocks in the table do not move one from its part.
    fewer = replace(data, series=series[:150])
    again = split(make(fewer, given, Inputs(4)), fewer, given)
    assert set(again.train.stock.tolist()) == {number for number in stocks[0] if number < 150}


def test_windows_are_cut_out_when_they_are_asked_for() -> None:
    made = make(table(walks(3, 2000)), REGIME, Inputs(32, ("value", "value.mean30")))
    assert made.windows(slice(5, 8)).shape == (3, 61, 1)
    held = sum(array.nbytes for array in vars(made).values() if isinstance(array, np.ndarray))
    assert held < 100 * 3 * 2000  # bytes: the windows would be 488 a row


def test_a_table_with_other_columns_than_the_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="must have the value and volume"):
        make(table(walks(1, 50)), REGIME, Inputs(16, ("value", "volume")))
