"""Forecasts from one series alone."""

import numpy as np
import pytest

from model import classical
from model.classical import ahead, drift


def walk(steps: int, seed: int = 0) -> np.ndarray:
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.02, steps)))


def test_drift_adds_the_mean_change_so_far() -> None:
    assert drift(np.array([10.0, 12.0, 16.0])).tolist() == [10, 14, 19]


@pytest.mark.parametrize("kind", ["ets", "theta"])
def test_forecasts_know_nothing_of_what_comes(kind: classical.Kind) -> None:
    pytest.importorskip("statsforecast")
    for seed in range(6):  # so that AutoTheta picks static and dynamic variants
        values = walk(160, seed)
        other = values.copy()
        other[140:] = 2 * walk(20, 99)
        one, two = ahead(values, 120, kind), ahead(other, 120, kind)
        assert one is not None
        assert two is not None
        assert len(one) == 40
        # Made at the steps 120 … 139: those before the change at 140 are the same to the bit.
        assert one[:20].tolist() == two[:20].tolist()
        assert one[20:].tolist() != two[20:].tolist()


@pytest.mark.parametrize("kind", ["ets", "theta"])
def test_each_is_what_the_method_says_when_the_series_ends_there(kind: classical.Kind) -> None:
    models = pytest.importorskip("statsforecast.models")
    values = walk(100)
    model = models.AutoETS(season_length=1) if kind == "ets" else models.AutoTheta(season_length=1)
    model.fit(values[:80])
    expected = [model.forward(values[: s + 1], h=1)["mean"][0] for s in range(80, 100)]
    assert ahead(values, 80, kind) == pytest.approx(expected)


def test_a_trend_is_followed() -> None:
    pytest.importorskip("statsforecast")
    values = 100 + 2.0 * np.arange(100) + np.random.default_rng(0).normal(0, 0.1, 100)
    found = ahead(values, 80, "ets")
    assert found is not None
    assert found[:-1] == pytest.approx(values[81:], abs=1)


def test_too_little_to_fit_to_gives_none() -> None:
    assert ahead(walk(100), 29, "ets") is None
    assert ahead(walk(100), 100, "theta") is None


@pytest.mark.parametrize("kind", ["ets", "theta"])
@pytest.mark.filterwarnings("error")
def test_series_that_do_not_move_or_cross_zero_are_no_accident(kind: classical.Kind) -> None:
    pytest.importorskip("statsforecast")
    for values in (np.full(100, 5.0), np.zeros(100), walk(100) - 100, np.append(np.full(60, 5.0), walk(40))):
        found = ahead(values, 60, kind)
        assert found is None or (len(found) == 40 and np.isfinite(found).all())


def test_a_long_series_is_cut_to_what_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("statsforecast")
    monkeypatch.setattr(classical, "LONGEST", 60)
    monkeypatch.setattr(classical, "MOST_STEPS", 10)
    values = walk(200)
    other = values.copy()
    other[:40] = walk(40, 3)
    one, two = ahead(values, 100, "ets"), ahead(other, 100, "ets")
    assert one is not None
    assert two is not None
    assert len(one) == 10
    assert one.tolist() == two.tolist()
