"""What a flag is measured against."""

import numpy as np
import pytest

from model.baselines import boosted, calibrated, logistic, slope_probability, threshold_at
from model.evaluation import auc


def y(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def made(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows whose last steps decide, with noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8, 2)).astype(np.float32)
    score = x[:, -1, 0] - x[:, -2, 1]
    return x, (rng.uniform(size=n) < 1 / (1 + np.exp(-2 * score))).astype(np.float32)


def test_a_steeper_fall_gives_a_higher_number_and_no_slope_none() -> None:
    found = slope_probability(np.array([-1.0, 0.0, 1.0, np.nan]))
    assert found[0] > found[1] == 0.5 > found[2]
    assert np.isnan(found[3])


def test_logistic_regression_and_trees_learn_what_is_there_and_are_the_same_each_time() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("lightgbm")
    x, label = made(3000, 0)
    held, held_label = made(1000, 1)
    new, new_label = made(2000, 2)
    for fit in (lambda: logistic(x, label), lambda: boosted(x, label, held, held_label, seed=1)):
        one, two = fit(), fit()
        assert one.score(new).tolist() == two.score(new).tolist()
        found = auc(new_label, one.score(new))
        assert found is not None
        assert found > 0.8
        assert "fitted to 3,000 windows" in one.note


def test_calibration_is_fitted_on_the_held_out_rows_and_leaves_unknown_ones_unknown() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, 20_000)
    label = (rng.uniform(size=len(p)) < p).astype(np.float32)
    label[0] = np.nan
    pushed = 1 / (1 + np.exp(-3 * np.log(p / (1 - p))))
    held, other = calibrated(label, pushed, np.array([np.nan, pushed[5]]))
    assert held == pytest.approx(p, abs=0.03)
    assert np.isnan(other[0])
    assert other[1] == pytest.approx(p[5], abs=0.03)


def test_the_threshold_flags_as_many_as_the_precision_allows() -> None:
    label, score = y(1, 1, 0, 1, 0, 0), np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert threshold_at(label, score, 0.75) == (0.6, 0.75)
    assert threshold_at(label, score, 1.0) == (0.8, 1.0)
    assert threshold_at(label, score, 0.5) == (0.4, 0.5)


def test_equal_scores_are_flagged_together() -> None:
    assert threshold_at(y(1, 0, 1), np.array([0.5, 0.5, 0.5]), 0.6) == (0.5, pytest.approx(2 / 3))
    assert threshold_at(y(1, 0, 1), np.array([0.9, 0.5, 0.5]), 1.0) == (0.9, 1.0)


def test_a_precision_out_of_reach_gives_the_best_that_flags_more_than_a_handful() -> None:
    label = y(0, 1, *([0] * 298))
    score = np.linspace(1, 0, 300)
    # The best is 1 of 2, but two rows of 300 are a handful: 1 of 3.
    assert threshold_at(label, score, 0.9) == (pytest.approx(score[2]), pytest.approx(1 / 3))
