"""Which rows are scored, and what is said of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model import bundle
from model.dataset import Series, Table
from model.held_out import CannotEvaluate, block, held_out, sampled
from model.labels import HALF
from model.manifest import LabelRule, Manifest, Parts
from model.predictor import DEFAULT_BUNDLE
from model.sheet import BadTable
from tests.unit.model.series import DAY, table, walks

WINDOW = 8
REGIME = LabelRule(rule="regime", look_ahead=8)
BY_TIME = Parts(by="time", validation_from="1970-04-11", test_from="1970-05-31", gap=HALF)  # days 100 and 150


def manifest(parts: Parts = BY_TIME, label: LabelRule = REGIME, **data: Any) -> Manifest:
    """The manifest that ships, with another window, split and data."""
    shipped = bundle.load(DEFAULT_BUNDLE).manifest.model_dump()
    changed = {
        **shipped,
        "window": WINDOW,
        "channels": ("value",),
        "min_history": WINDOW,
        "parts": parts.model_dump(),
        "label": label.model_dump(),
        "data": {**shipped["data"], **data},
    }
    return Manifest.model_validate(changed)


def days(values: np.ndarray) -> set[int]:
    return set((values // DAY).tolist())


def test_rows_behind_the_border_are_scored_and_those_before_it_train_as_they_trained_the_bundle() -> None:
    data = table(walks(3, 200))
    found = held_out(data, manifest(sha256=data.sha256))
    assert found.train is not None
    assert days(found.later.time[found.scored]) == set(range(150, 199))  # the last day has nothing to come
    # Labels look 8 steps ahead and as many back, further than a window of 8 does: 100 - 8 - 1 - 8.
    assert max(days(found.train.time)) == 83
    assert days(found.later.time[found.validation]) == set(range(100, 134))
    assert not (found.scored & found.validation).any()
    assert found.certain
    assert found.notes == ()
    assert found.borders == (100 * DAY, 150 * DAY)


def test_other_data_than_the_bundles_are_told_where_baselines_learn_from_them() -> None:
    assert held_out(table(walks(3, 200)), manifest(sha256="1" * 64)).notes == (
        "baselines learnt from this file, the bundle from another",
    )


def test_no_scored_window_holds_a_value_that_a_baseline_learnt_from() -> None:
    data = table(walks(3, 200))
    found = held_out(data, manifest())
    assert found.train is not None
    learnt = {(int(s), int(t)) for s, t in zip(found.train.stock, found.train.until // DAY, strict=True)}
    oldest = 150 - (WINDOW - 1)
    assert max(day for _, day in learnt) < 100 - (WINDOW - 1)
    assert max(days(found.later.until[found.validation])) < oldest


def test_no_scored_window_of_a_stock_with_holes_holds_a_value_that_a_baseline_learnt_from() -> None:
    data = table(walks(2, 200))
    every_second = replace(
        data.series[0],
        times=data.series[0].times[::2],
        values=data.series[0].values[::2],
        labels=data.series[0].labels[::2],
    )
    found = held_out(replace(data, series=(every_second, data.series[1])), manifest())
    assert found.train is not None
    learnt = found.train.until[found.train.stock == 0].max() // DAY
    calibrated = found.later.until[found.validation & (found.later.stock == 0)].max() // DAY
    assert (learnt, calibrated) == (100 - 2 * HALF - 2, 150 - 2 * HALF - 2)


def test_a_file_wholly_behind_the_border_is_scored_without_baselines_that_learn() -> None:
    data = table(walks(3, 60))
    later = replace(data, series=tuple(replace(s, times=s.times + 150 * DAY) for s in data.series))
    found = held_out(later, manifest())
    assert found.train is None
    assert found.scored.all()
    assert found.certain
    assert found.notes == (
        "baselines that must be trained are left out: scored from 1970-05-31 on, no row lies before it",
    )


def test_scored_rows_of_one_class_take_no_baseline_away() -> None:
    rng = np.random.default_rng(0)
    data = table(walks(3, 200))
    labels = np.where(np.arange(200) < 150, rng.integers(0, 2, 200), 0).astype(np.float32)
    given = replace(data, series=tuple(replace(s, labels=labels) for s in data.series))
    found = held_out(given, manifest(label=LabelRule(rule="given", look_ahead=1), sha256=data.sha256))
    assert found.train is not None
    assert days(found.later.time[found.scored]) == set(range(150, 200))
    assert found.notes == ()


def test_a_file_wholly_before_the_border_has_nothing_to_score() -> None:
    with pytest.raises(CannotEvaluate, match=r"no row to score from 1970-05-31 on.*1970-01-08 to 1970-04-09"):
        held_out(table(walks(3, 100)), manifest())


def test_too_short_a_file_is_told() -> None:
    with pytest.raises(CannotEvaluate, match="no stock has the 8 values that this bundle reaches back"):
        held_out(table(walks(3, 5)), manifest())


def test_another_border_can_be_asked_for_and_what_the_bundle_saw_of_it_is_told() -> None:
    data = table(walks(3, 200))
    later = held_out(data, manifest(), "1970-06-20")
    assert min(days(later.later.time[later.scored])) == 170
    assert later.certain
    assert later.notes == ("scored from 1970-06-20 on, as asked",)
    earlier = held_out(data, manifest(), "1970-05-11")
    assert not earlier.certain
    assert "60 of the scored rows lie before 1970-05-31: the bundle was made with them" in earlier.notes
    with pytest.raises(BadTable, match="'soon' is neither a date"):
        held_out(data, manifest(), "soon")


def test_a_border_before_the_validation_part_calibrates_on_what_lies_before_it() -> None:
    found = held_out(table(walks(3, 200)), manifest(), "1970-03-31")
    assert found.train is not None
    assert any(
        note.startswith("baselines are calibrated on the last quarter of the steps before") for note in found.notes
    )
    assert max(days(found.train.until)) < min(days(found.later.time[found.validation])) < 89


def test_a_bundle_that_held_nothing_out_is_scored_on_everything_and_that_is_told() -> None:
    nothing = Parts(by="nothing", gap=0)
    data = table(walks(3, 60))
    found = held_out(data, manifest(nothing, sha256=data.sha256))
    assert found.scored.all()
    assert (found.train, found.certain) == (None, False)
    assert found.notes[:2] == (
        "this bundle held nothing out: every row is scored",
        "these are the data it was trained on, so its scores say nothing about new data",
    )
    other = held_out(data, manifest(nothing, sha256="1" * 64))
    assert not any("trained on, so" in note for note in other.notes)


def test_borders_that_the_file_does_not_know_are_told() -> None:
    wide = wide_table(40, ("a", "b", "c", "d", "e", "f", "g", "h", "i"))
    found = held_out(wide, manifest(label=LabelRule(rule="given", look_ahead=1)))
    assert "the bundle's borders (1970-04-11, 1970-05-31) are no steps of this file" in found.notes[0]
    assert not found.certain


def test_a_split_by_stock_is_repeated_and_named() -> None:
    wide = wide_table(60, tuple(f"s{i}" for i in range(9)))
    by_stock = Parts(by="stock", gap=0)
    found = held_out(wide, manifest(by_stock, LabelRule(rule="given", look_ahead=1)))
    assert found.train is not None
    assert found.certain
    assert found.notes == ("split by stock: other stocks at the same times are no proof for later times",)
    scored, trained = set(found.later.stock[found.scored].tolist()), set(found.train.stock.tolist())
    assert scored
    assert not scored & trained
    few = held_out(replace(wide, series=wide.series[:5]), manifest(by_stock, LabelRule(rule="given", look_ahead=1)))
    assert few.notes[0] == "the bundle's split by stock cannot be repeated on this file: every row is scored"


def wide_table(stocks: int, steps: tuple[str, ...]) -> Table:
    rng = np.random.default_rng(0)
    series = []
    for number in range(stocks):
        labels = np.full(len(steps), np.nan, np.float32)
        labels[-1] = number % 2
        values = rng.uniform(1, 2, (len(steps), 1))
        series.append(Series(f"S{number}", np.arange(len(steps)), values, labels, 1.5))
    return Table(tuple(series), ("wide.csv",), "0" * 64, stocks, 0, "steps", steps, "next")


def test_days_are_drawn_then_steps_then_stocks() -> None:
    data = table(walks(3, 200))
    found = held_out(data, manifest())
    rows = found.later.take(found.scored)
    drawn, unit = sampled(data, rows)
    assert (unit, len(np.unique(drawn))) == ("day", 49)
    hourly = replace(rows, time=rows.time // 24)
    assert sampled(data, hourly)[1] == "step"
    assert len(np.unique(sampled(data, hourly)[0])) == 49
    assert sampled(data, rows.take(rows.time < 160 * DAY))[1] == "stock"


def test_blocks_are_as_many_days_as_labels_share_and_never_more_than_a_quarter() -> None:
    data = table(walks(3, 200))
    rows = held_out(data, manifest()).later
    drawn, unit = sampled(data, rows)
    assert block(rows, drawn, unit, 17) == 17
    assert block(rows, drawn, unit, 1) == 1
    assert block(rows, drawn, unit, 60) == len(np.unique(drawn)) // 4
    assert block(rows, drawn, "stock", 17) == 1
