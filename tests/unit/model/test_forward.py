"""The compiled forward pass against the Keras network itself, and against itself in other batches."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model import network
from model.forward import BATCH_SIZES, forward_for, padded
from model.inputs import Inputs
from model.manifest import Architecture
from model.network import Arrays
from model.runtime import keras

CHANNELS = ["value", *(f"field{i}" for i in range(15))]


def weights(inputs: Inputs, architecture: Architecture, seed: int = 0) -> Arrays:
    """As large as those of trained networks; both heads answer."""
    rng = np.random.default_rng(seed)
    shapes = network.shapes(inputs, architecture)
    size = {name: min(0.4, 1.5 / shape[1] ** 0.5) if len(shape) == 3 else 0.4 for name, shape in shapes.items()}
    # The path beside the network is a sum over all levels, of up to 32 scales each: trained weights are small there.
    size |= {name: 0.5 / shape[1] ** 0.5 for name, shape in shapes.items() if "direct" in name}
    return {name: rng.normal(0, size[name], shape).astype(np.float32) for name, shape in shapes.items()}


def seen(rows: int, inputs: Inputs, seed: int = 1) -> NDArray[np.float32]:
    """From still windows to ones of the largest features there are."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.uniform(-5, 5, (rows, 1, 1)))
    return (rng.normal(0, 1, (rows, inputs.window, len(inputs.channels))) * size).astype(np.float32)


KINDS = [
    (1, Architecture()),
    (3, Architecture()),
    (2, Architecture(units=7)),
    (16, Architecture()),
    (1, Architecture(kind="dense")),
    (3, Architecture(kind="dense", units=12)),
    (1, Architecture(members=3)),
    (2, Architecture(kind="dense", members=2)),
]
WAYS = pytest.mark.parametrize(("channels", "architecture"), KINDS)


@WAYS
def test_it_computes_what_keras_computes(channels: int, architecture: Architecture) -> None:
    inputs = Inputs(32, tuple(CHANNELS[:channels]))
    given, x = weights(inputs, architecture), seen(256, inputs)
    forward = forward_for(inputs, architecture)
    for ours, theirs in zip(forward(x, forward.fold(given)), network.run(inputs, architecture, given, x), strict=True):
        assert np.std(theirs) > 0.02
        assert np.max(np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))) < 1e-5


@WAYS
def test_a_row_is_the_same_bit_for_bit_in_every_padded_size_and_at_every_position(
    channels: int, architecture: Architecture
) -> None:
    inputs = Inputs(32, tuple(CHANNELS[:channels]))
    forward = forward_for(inputs, architecture)
    folded = forward.fold(weights(inputs, architecture))
    x = seen(BATCH_SIZES[-1], inputs)
    whole = forward(x, folded)
    rng = np.random.default_rng(2)
    for size in BATCH_SIZES:
        for shift in (0, 1, size // 2 + 3):
            rows = np.roll(np.arange(len(x)), shift)[:size]
            assert np.array_equal(forward(x[rows], folded), whole[:, rows])
        rows = rng.permutation(len(x))[:size]
        filled = padded(x[rows[: size - 5]], size)
        assert np.array_equal(forward(filled, folded)[:, : size - 5], whole[:, rows[: size - 5]])
    assert np.array_equal(forward.all(x[:777], folded), whole[:, :777])


@pytest.mark.parametrize("architecture", [Architecture(), Architecture(kind="dense")])
def test_weights_come_back_from_keras_by_name_as_they_went_in(architecture: Architecture) -> None:
    inputs = Inputs(32, ("value", "volume"))
    given = weights(inputs, architecture)
    net = network.build(inputs, architecture)
    network.set_weights(net, architecture, given)
    found = network.named(net.get_weights(), architecture)
    assert found.keys() == given.keys() == network.shapes(inputs, architecture).keys()
    assert all(np.array_equal(found[name], given[name]) for name in given)


def test_an_average_is_that_of_the_logits_and_the_changes() -> None:
    inputs, both = Inputs(32), Architecture(members=2)
    given, x = weights(inputs, both), np.clip(seen(64, inputs), -9, 9)  # a float32 near 1 does not tell its logit
    single = [
        network.run(inputs, Architecture(), {name: w[k : k + 1] for name, w in given.items()}, x) for k in range(2)
    ]
    probability, change = network.run(inputs, both, given, x)
    logit = np.mean([np.log(p / (1 - p.astype(np.float64))) for p, _ in single], axis=0)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-logit)), atol=1e-4)
    np.testing.assert_allclose(change, (single[0][1] + single[1][1]) / 2, atol=1e-6)


def test_rescaling_moves_logit_and_change_as_told() -> None:
    inputs, both = Inputs(32), Architecture(members=2)
    given, x = weights(inputs, both), seen(64, inputs)[:, :, :] * np.float32(0.05)
    p, change = network.run(inputs, both, given, x)
    q, moved = network.run(inputs, both, network.rescale(given, slope=0.5, intercept=0.3, shrink=0.25), x)
    logit = np.log(p / (1 - p.astype(np.float64)))
    np.testing.assert_allclose(q, 1 / (1 + np.exp(-(0.5 * logit + 0.3))), atol=1e-5)
    np.testing.assert_allclose(moved, 0.25 * change, atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "dense"])
def test_an_untrained_network_forecasts_no_change(kind: str) -> None:
    keras().utils.set_random_seed(0)
    inputs, architecture = Inputs(32), Architecture.model_validate({"kind": kind})
    given = network.named(network.build(inputs, architecture).get_weights(), architecture)
    assert not network.run(inputs, architecture, given, seen(64, inputs))[1].any()


def test_other_weights_of_the_same_shape_compile_nothing_new() -> None:
    inputs, architecture = Inputs(32), Architecture(units=4)
    forward, x = forward_for(inputs, architecture), seen(64, inputs)
    one = forward(x, forward.fold(weights(inputs, architecture)))
    other = forward(x, forward.fold(weights(inputs, architecture, seed=5)))
    assert forward.traces == 1
    assert not np.array_equal(one, other)
    assert forward_for(Inputs(32, ("value.return",)), architecture) is forward
