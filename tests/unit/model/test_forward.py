"""The compiled forward pass against the Keras network itself, and against itself in other batches."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model import network
from model.forward import BATCH_SIZES, Forward, forward_for
from model.network import Arrays
from model.runtime import keras

WINDOW = 32


def weights(channels: int, units: int = 32, seed: int = 0) -> Arrays:
    """As large as those of trained networks; both heads answer."""
    rng = np.random.default_rng(seed)
    return {k: rng.normal(0, 0.4, v).astype(np.float32) for k, v in network.shapes(channels, units).items()}


def inputs(rows: int, channels: int, seed: int = 1) -> NDArray[np.float32]:
    """From still windows to ones of the largest features there are."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.uniform(-5, 5, (rows, 1, 1)))
    return (rng.normal(0, 1, (rows, WINDOW, channels)) * size).astype(np.float32)


@pytest.mark.parametrize(("channels", "units"), [(1, 32), (3, 32), (2, 7)])
def test_it_computes_what_keras_computes(channels: int, units: int) -> None:
    given, x = weights(channels, units), inputs(256, channels)
    net = network.build(WINDOW, channels, units)
    network.set_weights(net, given)
    forward = Forward(WINDOW, channels, units)
    for ours, theirs in zip(forward(x, forward.fold(given)), network.run(net, x), strict=True):
        assert np.std(theirs) > 0.03
        assert np.max(np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))) < 1e-5


def test_weights_come_back_from_keras_by_name_as_they_went_in() -> None:
    given = weights(2)
    net = network.build(WINDOW, 2)
    network.set_weights(net, given)
    found = network.get_weights(net)
    assert found.keys() == given.keys() == network.shapes(2, 32).keys()
    assert all(np.array_equal(found[name], given[name]) for name in given)


def test_an_untrained_network_forecasts_no_change() -> None:
    keras().utils.set_random_seed(0)
    _, change = network.run(network.build(WINDOW, 1), inputs(64, 1))
    assert not change.any()


def test_a_row_is_the_same_bit_for_bit_in_every_padded_size_and_at_every_position() -> None:
    forward = forward_for(WINDOW, 1, 32)
    folded = forward.fold(weights(1))
    x = inputs(BATCH_SIZES[-1], 1)
    whole = forward(x, folded)
    rng = np.random.default_rng(2)
    for size in BATCH_SIZES:
        for shift in (0, 1, size // 2 + 3):
            rows = np.roll(np.arange(len(x)), shift)[:size]
            assert np.array_equal(forward(x[rows], folded), whole[:, rows])
        rows = rng.permutation(len(x))[:size]
        padded = np.zeros_like(x[:size])
        padded[: size - 5] = x[rows[: size - 5]]
        assert np.array_equal(forward(padded, folded)[:, : size - 5], whole[:, rows[: size - 5]])


def test_other_weights_of_the_same_shape_compile_nothing_new() -> None:
    forward = Forward(WINDOW, 1, 4)
    x = inputs(64, 1)
    one = forward(x, forward.fold(weights(1, 4)))
    other = forward(x, forward.fold(weights(1, 4, seed=5)))
    assert forward.traces == 1
    assert not np.array_equal(one, other)
