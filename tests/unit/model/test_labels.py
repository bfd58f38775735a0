import numpy as np
import pytest

from model.labels import drop, regime, trailing_slope

N = 4  # the window of these tests


def series(*log_values: float) -> np.ndarray:
    return np.exp(np.array(log_values))


def test_a_slope_below_a_twentieth_of_the_mean_step_is_falling() -> None:
    # A zigzag 0, 1, 0, ..., 0 that sinks by d a step: it is symmetric, so the slope of its 17 values is -d exactly. The
    # mean absolute step of the 4 values that end in the middle is ((1 + d) + (1 - d) + (1 + d)) / 3, 1 within d / 3.
    zigzag = np.arange(17) % 2

    def label(d: float) -> float:
        return float(regime(np.exp(zigzag - d * np.arange(17)), N)[8])

    assert label(0.052) == 1
    assert label(0.048) == 0
    assert label(-0.052) == 0


def test_the_rule_looks_at_the_eight_steps_behind_and_ahead_and_no_further() -> None:
    rising = np.exp(0.01 * np.arange(60))
    assert regime(rising, N)[30] == 0  # its window is the steps 27 to 30
    for step, factor, then in [(21, 1e6, 0), (22, 1e6, 1), (38, 1e-6, 1), (39, 1e-6, 0)]:
        changed = rising.copy()
        changed[step] *= factor  # early and high or late and low: a steep fall, if it is seen
        assert regime(changed, N)[30] == then, step


def test_a_straight_fall_is_falling_and_a_straight_rise_is_not() -> None:
    line = np.linspace(0, 1, 40)
    assert set(regime(np.exp(-line), N)[8:32]) == {1.0}
    assert set(regime(np.exp(line), N)[8:32]) == {0.0}


def test_a_constant_stretch_is_not_falling() -> None:
    assert set(regime(np.full(40, 3.7), N)[8:32]) == {0.0}


def test_the_ends_of_a_series_and_a_short_series_have_no_label() -> None:
    label = regime(np.linspace(1, 2, 60), 32)
    assert np.isnan(label[:31]).all()
    assert np.isfinite(label[31:52]).all()
    assert np.isnan(label[52:]).all()
    assert np.isnan(regime(np.linspace(1, 2, 16), 4)).all()
    assert regime(np.array([]), 4).shape == (0,)


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_where_a_needed_value_has_no_logarithm_there_is_no_label(bad: float) -> None:
    values = np.linspace(1, 2, 60)
    values[30] = bad
    unknown = np.isnan(regime(values, N))
    assert unknown[22:39].all()
    assert not unknown[8:22].any()
    assert not unknown[39:52].any()


def test_the_baseline_is_the_slope_of_the_last_eight_values_in_mean_steps() -> None:
    values = series(*([0.0] * 4), *np.arange(9) * -0.5)
    score = trailing_slope(values, N)
    assert np.isnan(score[:7]).all()
    assert score[-1] == pytest.approx(-1)  # 0.5 down each step, mean step 0.5
    before = trailing_slope(values[:-1], N)
    assert np.array_equal(before, score[:-1], equal_nan=True)  # looks ahead nowhere


def test_a_drop_is_a_next_change_of_minus_the_threshold_or_less() -> None:
    values = np.array([100.0, 100, 100, 100, 100])
    after = np.array([99.0, 98.9, 99.1, 101, np.nan])
    assert np.array_equal(drop(values, after, 0.01, None), [1, 1, 0, 0, np.nan], equal_nan=True)
    assert np.array_equal(drop(values, after, 0.0, None), [1, 1, 1, 0, np.nan], equal_nan=True)


def test_changes_in_the_dead_zone_are_neither() -> None:
    values, after = np.full(4, 200.0), np.array([198.9, 199.5, 201.0, 201.1])
    assert np.array_equal(drop(values, after, 0.005, 0.0055), [1, np.nan, np.nan, 0], equal_nan=True)


def test_a_value_that_is_not_above_zero_has_no_change_to_tell() -> None:
    assert np.isnan(drop(np.array([0.0, -1.0]), np.array([1.0, 1.0]), 0.01, None)).all()
