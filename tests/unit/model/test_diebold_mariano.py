"""The test of equal loss, worked by hand and against scipy 1.17."""

import numpy as np
import pytest

from model.diebold_mariano import by_day, diebold_mariano

stats = pytest.importorskip("scipy.stats")


def test_one_step_ahead_it_is_the_t_test_of_the_mean() -> None:
    d = np.random.default_rng(0).normal(0.1, 1, 40)
    found, expected = diebold_mariano(d), stats.ttest_1samp(d, 0)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)


def test_two_steps_ahead_by_hand() -> None:
    # d = 1 2 3 4 6, mean 3.2: deviations -2.2 -1.2 -.2 .8 2.8
    # gamma0 = (4.84 + 1.44 + .04 + .64 + 7.84) / 5 = 2.96; gamma1 = (2.64 + .24 - .16 + 2.24) / 5 = .992
    # V = 2.96 + 1.984 = 4.944; DM = 3.2 / sqrt(4.944 / 5) = 3.21802; factor sqrt((6 - 4 + 2/5) / 5) = .692820
    found = diebold_mariano(np.array([1.0, 2, 3, 4, 6]), horizon=2)
    assert found.statistic == pytest.approx(3.21802 * 0.692820, abs=1e-4)
    assert found.p_value == pytest.approx(2 * stats.t.sf(2.22951, 4), abs=1e-4)
    assert found.n == 5


def test_below_zero_means_that_the_first_forecast_loses_less() -> None:
    d = np.random.default_rng(0).normal(-1, 0.1, 30)
    assert diebold_mariano(d).statistic < -10
    assert diebold_mariano(d).p_value < 1e-6


def test_nothing_is_said_without_days_or_without_differences() -> None:
    for d in (np.array([]), np.array([1.0]), np.zeros(10), np.full(10, 0.1)):
        found = diebold_mariano(d)
        assert np.isnan([found.statistic, found.p_value]).all()


def test_means_of_days_in_order_of_day() -> None:
    assert by_day(np.array([1.0, 5.0, 3.0]), np.array([7, 2, 7])).tolist() == [5, 2]
