"""Intervals from past moves alone."""

import numpy as np
import pytest

from model.spread import LAMBDA, WARM, constant, ewma, moves, volatility

pytest.importorskip("scipy.signal")


def walk(steps: int, seed: int = 0, sigma: float = 0.02) -> np.ndarray:
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, sigma, steps)))


def test_moves_are_relative_where_all_values_are_above_zero() -> None:
    assert moves(np.array([100.0, 110.0, 99.0])) == pytest.approx([0.1, -0.1])
    assert moves(np.array([-1.0, 1.0, 4.0])).tolist() == [2, 3]


def test_volatility_is_the_recursion_of_riskmetrics_after_a_plain_mean() -> None:
    values = walk(60)
    r = moves(values)
    expected = np.mean(r[:WARM] ** 2)
    for move in r[WARM:]:
        expected = LAMBDA * expected + (1 - LAMBDA) * move**2
    assert volatility(values)[-1] == pytest.approx(expected**0.5)
    assert volatility(values)[2] == pytest.approx(np.mean(r[:2] ** 2) ** 0.5)
    assert np.isnan(volatility(values)[0])


@pytest.mark.parametrize("method", [constant, ewma])
def test_nothing_looks_ahead(method: object) -> None:
    assert callable(method)
    values = walk(300)
    other = values.copy()
    other[200:] = walk(100, seed=9)
    (low, high), (low2, high2) = method([values], [150], 0.9)[0], method([other], [150], 0.9)[0]
    assert np.array_equal(low[:200], low2[:200], equal_nan=True)
    assert np.array_equal(high[:200], high2[:200], equal_nan=True)


@pytest.mark.parametrize("method", [constant, ewma])
def test_nine_of_ten_values_fall_into_an_interval_of_nine_tenths(method: object) -> None:
    assert callable(method)
    series = [walk(8000, seed) for seed in range(3)]
    for values, (low, high) in zip(series, method(series, [4000] * 3, 0.9), strict=True):
        truth = values[4001:]
        assert np.mean((truth >= low[4000:-1]) & (truth <= high[4000:-1])) == pytest.approx(0.9, abs=0.03)


def test_volatility_follows_where_constant_quantiles_do_not() -> None:
    values = np.concatenate([walk(1000), 100 * np.exp(np.cumsum(np.random.default_rng(5).normal(0, 0.08, 500)))])
    truth = values[1101:]
    covered = {}
    for method in (constant, ewma):
        (low, high) = method([values], [1000], 0.9)[0]
        covered[method.__name__] = np.mean((truth >= low[1100:-1]) & (truth <= high[1100:-1]))
    assert covered["constant"] < 0.5
    assert covered["ewma"] > 0.85


def test_a_stock_with_few_moves_takes_the_quantiles_of_all() -> None:
    series = [walk(500), walk(500, 1)]
    (_, high), (_, short) = constant(series, [400, 10], 0.9)
    assert (short / series[1])[0] == pytest.approx((high / series[0])[0], rel=0.05)


def test_nothing_before_the_border_gives_nothing() -> None:
    assert constant([walk(50)], [0], 0.9) is None
    assert ewma([walk(50)], [1], 0.9) is None
