import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from model.features import Features, features, to_values
from model.inputs import Inputs
from tests.unit.model.series import walks

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX = float(np.finfo(np.float64).max)


def of(*values: float) -> Features:
    return features(np.array(values, np.float64)[None, :, None], Inputs(len(values)))


def test_a_window_is_seen_relative_to_its_last_value_and_in_its_mean_absolute_step() -> None:
    seen = of(10, 12, 11, 11, 14)  # steps 2, 1, 0, 3: mean 1.5, none above the cap of 6
    assert seen.scale[0] == 1.5
    np.testing.assert_allclose(seen.x[0, :, 0], np.array([-4, -2, -3, -3, 0]) / 1.5, rtol=1e-7)


def test_a_single_jump_counts_for_four_mean_steps_at_most() -> None:
    values = [0.0, *([100.0] * 10)]  # ten steps, one of 100: mean 10, so it counts as 40
    assert of(*values).scale[0] == 4.0


def test_the_level_and_the_currency_of_a_price_do_not_matter() -> None:
    window = walks(50, 32)[:, :, None]
    value = Inputs(32)
    x = features(window, value).x
    assert np.array_equal(features(window * 2.0**20, value).x, x)
    assert np.array_equal(features(window * 2.0**-30, value).x, x)
    np.testing.assert_allclose(features(window * 117.3, value).x, x, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(features(window + 5000, value).x, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, -0.0, 5e-324, 1.0, -7.25, 1e308, -1e308, MAX])
def test_a_constant_series_is_seen_as_zeros_at_any_level(value: float) -> None:
    seen = of(*([value] * 32))
    assert np.array_equal(seen.x, np.zeros((1, 32, 1)))
    assert 0 < seen.scale[0] < np.inf
    assert to_values(np.zeros(1), seen)[0] == value


EXTREMES = {
    "from zero": [0.0] * 31 + [1.0],
    "signed zeros": [0.0, -0.0] * 16,
    "smallest": [0.0, 5e-324] * 16,
    "smallest to largest": [5e-324, MAX] * 16,
    "huge": [1e308, 1.1e308] * 16,
    "mixed huge": [1e308, -1e308] * 16,
    "mixed largest": [MAX, -MAX] * 16,
    "one huge": [1.0] * 31 + [-MAX],
    "first huge": [MAX] + [1.0] * 31,
    "tiny steps": [1.0, 1.0 + 2.3e-16] * 16,
    "around the borders of the extra factor": [2.0**900, 2.0**901] * 16,
    "around the other border": [2.0**-900, 2.0**-901] * 16,
}


@pytest.mark.parametrize("window", EXTREMES.values(), ids=EXTREMES.keys())
def test_finite_input_gives_finite_output_and_no_warning(window: list[float]) -> None:
    with np.errstate(all="raise", under="ignore"):
        seen = of(*window)
        moved = {c: to_values(np.array([c]), seen)[0] for c in (-1e6, -2.0, 0.0, 2.0, 1e6)}
    assert np.isfinite(seen.x).all()
    assert np.abs(seen.x).max() <= 32**2 / 4
    assert seen.x[0, -1, 0] == 0
    assert 0 < seen.scale[0] < np.inf
    assert moved[0.0] == window[-1]
    assert all(np.isfinite(value) for value in moved.values())
    assert sorted(moved.values()) == list(moved.values())


def test_values_that_would_be_larger_than_any_float_stay_at_the_largest() -> None:
    seen = of(*([MAX, -MAX] * 16))
    assert to_values(np.array([100.0]), seen)[0] == MAX
    assert to_values(np.array([-100.0]), seen)[0] == -MAX


@pytest.mark.parametrize("change", [np.nan, np.inf, -np.inf])
def test_a_change_that_is_no_number_gives_a_value_that_is_none(change: float) -> None:
    assert np.isnan(to_values(np.array([change]), of(1.0, 2.0))[0])


ALL_KINDS = Inputs(
    8, ("value", "value.change", "value.return", "value.mean3", "value.volatility4", "volume", "volume.mean2")
)


def test_a_row_does_not_depend_on_the_rows_beside_it_bit_for_bit() -> None:
    windows = np.concatenate([walks(40, 32), np.array(list(EXTREMES.values()))])[:, :, None]
    windows = np.concatenate([windows, windows[::-1]], axis=2)  # two columns
    for inputs in (Inputs(32, ("value", "volume")), ALL_KINDS):
        whole = features(windows[:, -inputs.reach :], inputs)
        layouts: list[NDArray[np.float64]] = [windows, np.asfortranarray(windows), windows[:, ::-1].copy()[:, ::-1]]
        for layout in layouts:
            for start, stop in [(0, 1), (3, 5), (7, 15), (11, 52), (40, 52), (51, 52)]:
                part = features(layout[start:stop, -inputs.reach :], inputs)
                for name, ours, theirs in zip(Features._fields, part, whole, strict=True):
                    assert np.array_equal(ours, theirs[start:stop]), name


def test_every_level_is_scaled_by_itself_and_the_scale_is_the_values() -> None:
    window = np.stack([walks(1, 32)[0], 1e6 * walks(1, 32, seed=1)[0]], axis=1)[None]
    both = features(window, Inputs(32, ("value", "volume")))
    value, other = features(window[:, :, :1], Inputs(32)), features(window[:, :, 1:], Inputs(32))
    assert np.array_equal(both.x, np.concatenate([value.x, other.x], axis=2))
    assert both.scale == value.scale
    assert both.spread == value.spread


def test_derived_channels_are_what_their_formulas_say() -> None:
    inputs = ALL_KINDS
    w = 100 + np.cumsum(np.random.default_rng(3).normal(size=(inputs.reach, 2)), axis=0)
    value, volume = w[:, 0], w[:, 1]
    seen = features(w[None], inputs)
    recent = range(inputs.reach - 8, inputs.reach)
    steps = np.abs(np.diff(value[-8:]))
    scale = np.minimum(steps, 4 * steps.mean()).mean()
    other = np.abs(np.diff(volume[-8:]))
    other_scale = np.minimum(other, 4 * other.mean()).mean()
    expected = {
        "value": [(value[t] - value[-1]) / scale for t in recent],
        "value.change": [(value[t] - value[t - 1]) / scale for t in recent],
        "value.return": [100 * (value[t] - value[t - 1]) / max(value[t - 1], value[t]) for t in recent],
        "value.mean3": [(value[t - 2 : t + 1].mean() - value[t]) / scale for t in recent],
        "value.volatility4": [np.abs(np.diff(value[t - 4 : t + 1])).mean() / scale - 1 for t in recent],
        "volume": [(volume[t] - volume[-1]) / other_scale for t in recent],
        "volume.mean2": [(volume[t - 1 : t + 1].mean() - volume[t]) / other_scale for t in recent],
    }
    for at, channel in enumerate(inputs.channels):
        np.testing.assert_allclose(seen.x[0, :, at], expected[channel], rtol=1e-5, atol=1e-5, err_msg=channel)
    weights = 0.94 ** np.arange(6, -1, -1)
    young = (np.minimum(steps, 4 * steps.mean()) * weights).sum() / weights.sum()
    assert seen.spread[0] == pytest.approx(young / scale)


def test_long_means_and_volatilities_take_no_more_memory_than_a_few_windows() -> None:
    inputs = Inputs(250, ("value.mean250", "value.volatility250"))
    windows = walks(64, inputs.reach)[:, :, None]
    tracemalloc.start()
    try:
        features(windows, inputs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * windows.nbytes, f"{peak / 1e6:.1f} MB"  # all spans side by side: 125 times as much


def test_a_jump_before_the_window_is_cut() -> None:
    inputs = Inputs(4, ("value.mean4", "value.change", "value.volatility2", "value.return"))
    window = np.array([1e300, 1.0, 1.0, 1.1, 1.2, 1.1, 1.2][-inputs.reach :])
    window[0] = 1e300
    with np.errstate(all="raise", under="ignore"):
        x = features(window[None, :, None], inputs).x
    assert np.abs(x).max() <= 32


def test_another_shape_is_refused() -> None:
    for shape in [(3, 32), (3, 31, 1), (3, 33, 1), (3, 32, 2)]:
        with pytest.raises(ValueError, match="windows must be"):
            features(np.zeros(shape), Inputs(32))


def test_no_rows_are_no_rows() -> None:
    assert features(np.zeros((0, 32, 1)), Inputs(32)).x.shape == (0, 32, 1)
