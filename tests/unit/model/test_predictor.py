import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest

from model import network
from model.features import features, to_values
from model.predictor import Predictions, Predictor, chunks
from tests.unit.model.series import walks


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    found = Predictor.load(threads=1)
    found.warm()
    return found


def equal(a: Predictions, b: Predictions, rows: slice) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)[rows]) for f in fields(Predictions))


def test_it_says_what_it_needs(predictor: Predictor) -> None:
    assert (predictor.window, predictor.reach, predictor.min_history, predictor.fields) == (32, 32, 32, ())
    assert 0 < predictor.falling_off <= predictor.falling_on < 1
    assert float(np.float32(predictor.falling_on)) == predictor.falling_on
    assert float(np.float32(predictor.falling_off)) == predictor.falling_off


def test_a_fall_is_falling_and_a_rise_is_not(predictor: Predictor) -> None:
    fall = 100 * np.exp(-0.01 * np.arange(32))
    found = predictor.predict(np.stack([fall, fall[::-1]])[:, :, None])
    assert found.probability[0] > predictor.falling_on > predictor.falling_off > found.probability[1]


def test_predictions_are_the_keras_networks_in_the_values_own_unit(predictor: Predictor) -> None:
    windows = walks(300, 32)[:, :, None] * 10.0 ** np.arange(-3, 3).repeat(50)[:, None, None]
    seen = features(windows, predictor.inputs)
    from model import bundle  # noqa: PLC0415 - named here because only this test reads the weights
    from model.predictor import DEFAULT_BUNDLE  # noqa: PLC0415 - as above

    weights = bundle.load(DEFAULT_BUNDLE).weights
    probability, change = network.run(predictor.inputs, predictor.manifest.network, weights, seen.x)
    found, interval = predictor.predict(windows), predictor.manifest.interval
    np.testing.assert_allclose(found.probability, probability, atol=1e-5)
    for ours, shift in [(found.forecast, 0.0), (found.low, interval.low), (found.high, interval.high)]:
        moved = change + shift * seen.spread
        np.testing.assert_allclose(ours, windows[:, -1, 0] + moved * seen.scale, rtol=0, atol=1e-5 * seen.scale.max())
        np.testing.assert_allclose((ours - to_values(moved, seen)) / seen.scale, 0, atol=1e-5)
    assert np.array_equal(found.scale, seen.scale)


def test_a_prediction_does_not_depend_on_its_batch_nor_on_the_number_of_threads(predictor: Predictor) -> None:
    windows = walks(2300, 32)[:, :, None]
    whole = predictor.predict(windows)
    two = Predictor.load(threads=2)
    for n in (1, 2, 31, 63, 64, 65, 129, 255, 257, 600, 1023, 1025, 2300):
        for start in {0, 7, 2300 - n}:
            rows = slice(start, start + n)
            assert equal(predictor.predict(windows[rows]), whole, rows)
            assert equal(two.predict(windows[rows]), whole, rows)


def test_many_rows_go_to_several_threads_and_few_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Predictor.load(threads=2)
    assert two._pool is not None
    shared: list[int] = []
    map_ = two._pool.map
    monkeypatch.setattr(two._pool, "map", lambda f, parts: shared.append(len(parts)) or map_(f, parts))
    two.predict(walks(64, 32)[:, :, None])
    assert shared == []
    two.predict(walks(2048, 32)[:, :, None])
    assert shared == [2]


def test_an_exception_in_a_thread_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Predictor.load(threads=2)
    monkeypatch.setattr(two, "_forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        two.predict(walks(2048, 32)[:, :, None])


def test_a_thousand_batches_of_odd_sizes_trace_nothing_new(predictor: Predictor) -> None:
    windows = walks(1100, 32)[:, :, None]
    sizes = np.random.default_rng(0).integers(1, 200, 1000)
    sizes[::100] = 1099
    for n in sizes:
        predictor.predict(windows[: n | 1])
    assert predictor.traces == len(predictor.batch_sizes)


def test_a_second_model_of_the_same_shape_traces_nothing_new(predictor: Predictor) -> None:
    second = Predictor.load(threads=1)
    second.predict(walks(100, 32)[:, :, None])
    assert second.traces == predictor.traces == len(predictor.batch_sizes)


def test_of_a_longer_window_the_newest_values_are_used(predictor: Predictor) -> None:
    windows = walks(70, 40)[:, :, None]
    assert equal(predictor.predict(windows), predictor.predict(windows[:, 8:].copy()), slice(None))


def test_no_windows_give_no_predictions(predictor: Predictor) -> None:
    found = predictor.predict(np.empty((0, 32, 1)))
    assert [getattr(found, f.name).shape for f in fields(Predictions)] == [(0,)] * 5


@pytest.mark.parametrize("shape", [(3, 31, 1), (3, 32, 2), (3, 32)])
def test_windows_of_another_shape_are_refused(predictor: Predictor, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"windows must be \(n, 32 or more, 1\)"):
        predictor.predict(np.zeros(shape))


def test_any_finite_window_gives_finite_numbers_in_order(predictor: Predictor) -> None:
    largest = np.finfo(np.float64).max
    rows = [[0.0] * 32, [-0.0] * 32, [5e-324] * 32, [1e308] * 32, [1e308, -1e308] * 16, [largest, -largest] * 16]
    rows += [[0.0] * 31 + [1.0], [5e-324, 0.0] * 16, [largest] + [1.0] * 31, [-5.0] * 16 + [5.0] * 16]
    with np.errstate(all="raise", under="ignore"):
        found = predictor.predict(np.array(rows)[:, :, None])
    assert all(np.isfinite(getattr(found, f.name)).all() for f in fields(Predictions))
    assert (found.scale > 0).all()
    assert (found.low <= found.forecast).all()
    assert (found.forecast <= found.high).all()
    assert ((found.probability >= 0) & (found.probability <= 1)).all()


def test_an_output_that_is_not_finite_comes_back_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Predictor.load(threads=1)
    monkeypatch.setattr(broken, "_forward", lambda x, _: np.full((2, len(x)), [[np.nan], [np.inf]], np.float32))
    found = broken.predict(walks(3, 32)[:, :, None])
    for name in ("probability", "forecast", "low", "high"):
        assert np.isnan(getattr(found, name)).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_are_cut_into_padded_sizes_without_gaps(threads: int) -> None:
    for n in [*range(1, 400), 511, 513, 1023, 1024, 1025, 2047, 2048, 2049, 4096, 10_000]:
        parts = chunks(n, threads)
        assert [start for start, _, _ in parts] == [0, *(stop for _, stop, _ in parts[:-1])]
        assert parts[-1][1] == n
        assert all(0 < stop - start <= size for start, stop, size in parts)
        assert sum(size for _, _, size in parts) <= max(64, 2 * n)


def test_large_batches_are_shared_evenly() -> None:
    assert [size for _, _, size in chunks(4096, 2)] == [1024] * 4
    assert [size for _, _, size in chunks(1024, 2)] == [256] * 4
    assert [size for _, _, size in chunks(1024, 1)] == [1024]
    assert [size for _, _, size in chunks(100, 2)] == [64, 64]


def test_loading_and_predicting_writes_nothing_to_the_terminal() -> None:
    code = (
        "import numpy; from model.predictor import Predictor; p = Predictor.load(); p.warm();"
        "p.predict(numpy.ones((2000, 32, 1)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
