"""The truth of one window is the label that training gives that step of the whole series."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from model import labels
from model.manifest import LabelRule
from model.truth import horizon, truth, values_needed

REGIME = LabelRule(rule="regime", look_ahead=8)
DROP = LabelRule(rule="drop", look_ahead=1, threshold=0.005)
DEAD = LabelRule(rule="drop", look_ahead=1, threshold=0.005, dead_zone=0.0055)
GIVEN = LabelRule(rule="given", look_ahead=5)

prices = st.lists(st.sampled_from([1.0, 1.005, 0.995, 1.0055, 1.5, 0.0, -1.0]), min_size=30, max_size=120)


def windows(series: NDArray[np.float64], rule: LabelRule, window: int, more: int) -> NDArray[np.float64]:
    """Every stretch of the series that has what the truth needs, and `more` older values."""
    return sliding_window_view(series, values_needed(rule, window) + more)


def agree(series: NDArray[np.float64], window: int, more: int) -> None:
    for rule in (REGIME, DROP, DEAD):
        whole = (
            labels.regime(series, window)
            if rule is REGIME
            else labels.drop(series[:-1], series[1:], rule.threshold or 0, rule.dead_zone)
        )
        first = values_needed(rule, window) - 1 - horizon(rule) + more  # the step that the first stretch tells of
        if len(series) < values_needed(rule, window) + more:
            continue
        found = truth(windows(series, rule, window, more), rule, window)
        np.testing.assert_array_equal(found, whole[first : first + len(found)])
        assert found.dtype == np.float32


@settings(max_examples=300, deadline=None)
@given(moves=prices, window=st.integers(2, 20), more=st.integers(0, 3))
def test_on_series_of_few_different_moves_it_is_trainings_label(moves: list[float], window: int, more: int) -> None:
    agree(np.cumprod(moves), window, more)


@pytest.mark.parametrize("window", [2, 8, 9, 32])
def test_on_random_walks_it_is_trainings_label(window: int) -> None:
    random = np.random.default_rng(4)
    for scale in (1e-9, 0.01, 0.5):
        series = 100 * np.exp(np.cumsum(random.normal(0, scale, 3_000)))
        agree(series, window, 0)
        agree(series.round(2), window, 2)  # ticks: many steps of nothing


def test_half_of_a_random_walks_regimes_are_known_to_both() -> None:
    """The comparison above is not one of NaN with NaN."""
    random = np.random.default_rng(5)
    found = truth(100 * np.exp(np.cumsum(random.normal(0, 0.01, (500, 40)), axis=1)), REGIME, 32)
    assert np.isfinite(found).all()
    assert 100 < np.count_nonzero(found == 1) < 400


def test_a_given_label_is_never_known() -> None:
    assert (horizon(GIVEN), values_needed(GIVEN, 32)) == (0, 0)
    assert np.isnan(truth(np.ones((3, 5)), GIVEN, 32)).all()


def test_too_few_values_are_told() -> None:
    assert values_needed(REGIME, 32) == 40
    assert values_needed(REGIME, 4) == 17  # the slope's own
    with pytest.raises(ValueError, match="regime needs 40 values of a window of 32, got 39"):
        truth(np.ones((1, 39)), REGIME, 32)


@pytest.mark.parametrize("value", [0.0, -1.0, 1e308, 5e-324])
def test_odd_values_neither_warn_nor_fail(value: float) -> None:
    values = np.full((1, 40), 100.0)
    for at in (0, 20, -9, -1):
        values[0, at] = value
        for rule in (REGIME, DROP, DEAD):
            truth(values, rule, 32)
