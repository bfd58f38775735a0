from dataclasses import fields, replace

import numpy as np
import pytest

from model.dataset import Table
from model.examples import Examples, make, split
from model.labels import HALF
from tests.unit.model.series import DAY, table, walks

WINDOW = 16
VALIDATION, TEST = 200, 260  # days


def parts(data: Table) -> tuple[Examples, Examples, Examples]:
    found = split(make(data, "regime", WINDOW, HALF), (VALIDATION * DAY, TEST * DAY))
    assert found.validation is not None
    assert found.test is not None
    return found.train, found.validation, found.test


def same(a: Examples, b: Examples) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name), equal_nan=True) for f in fields(Examples))


def test_nothing_at_or_behind_a_border_has_a_part_in_what_is_before_it() -> None:
    values = walks(3, 320)
    train, validation, _ = parts(table(values))
    for border, untouched in [(VALIDATION, [train]), (TEST, [train, validation])]:
        changed = values.copy()
        changed[:, border:] = walks(3, 320, seed=9)[:, border:] * 7
        now = parts(table(changed))
        for before, after in zip(untouched, now, strict=False):
            assert same(before, after)


def test_the_gap_is_no_wider_than_the_label_looks_ahead() -> None:
    train, validation, test = parts(table(walks(3, 320)))
    assert train.time.max() == (VALIDATION - HALF - 1) * DAY
    assert validation.time.min() == VALIDATION * DAY
    assert validation.time.max() == (TEST - HALF - 1) * DAY
    assert test.time.min() == TEST * DAY


def test_a_given_label_is_kept_as_far_from_the_border_as_it_looks_ahead() -> None:
    data = table(walks(3, 320))
    rng = np.random.default_rng(1)
    labelled = tuple(replace(s, labels=rng.integers(0, 2, 320).astype(np.float32)) for s in data.series)
    for reach in (1, 5):
        found = split(make(replace(data, series=labelled), "given", WINDOW, reach), (VALIDATION * DAY, TEST * DAY))
        assert found.train.time.max() == (VALIDATION - reach - 1) * DAY


def test_a_window_ends_at_its_step_and_its_target_is_the_next_value() -> None:
    values = walks(2, 60)
    made = make(table(values), "regime", WINDOW, HALF)
    for k in (0, 10, len(made) - 1):
        stock, step = made.stock[k], made.time[k] // DAY
        assert made.windows[k, :, 0].tolist() == values[stock, step - WINDOW + 1 : step + 1].tolist()
        assert made.target[k] == values[stock, step + 1]


def test_examples_come_by_stock_and_within_a_stock_by_time() -> None:
    made = make(table(walks(3, 60)), "regime", WINDOW, HALF)
    assert np.array_equal(np.lexsort((made.time, made.stock)), np.arange(len(made)))


def test_series_shorter_than_the_window_give_no_examples() -> None:
    assert len(make(table(walks(2, WINDOW - 1)), "regime", WINDOW, HALF)) == 0


def test_unless_borders_are_named_they_lie_at_sixty_and_eighty_percent_of_time() -> None:
    found = split(make(table(walks(3, 115)), "regime", WINDOW, HALF), None)  # steps 15..113: 99 of them
    assert found.test is not None
    assert found.validation is not None
    assert found.validation.time.min() == (15 + 59) * DAY
    assert found.test.time.min() == (15 + 79) * DAY


@pytest.mark.parametrize(("steps", "why"), [(40, "24 distinct steps are too few"), (50, "lacks one of the classes")])
def test_too_little_time_to_hold_any_out_is_said(steps: int, why: str) -> None:
    made = make(table(np.exp(0.01 * np.cumsum(np.ones((2, steps)), axis=1))), "regime", WINDOW, HALF)
    found = split(made, None)
    assert found.validation is None
    assert found.test is None
    assert len(found.train) == len(made)
    assert why in found.note
