"""The networks: one body, two answers, trained together.

    lstm     window (window, channels)  ->  LSTM(32)                        ->  sigmoid: probability of falling
    dense    the same, flattened        ->  100 ReLU  ->  100 ReLU          ->  linear:  change to the next value, in
                                                                                scales of the window

The linear head starts at zero, so an untrained network is the naive forecast: the next value is the last one. A model
may be several such networks, trained from different seeds, whose logits and changes are averaged.

Beside the LSTM a linear path leads from the flattened window straight to both heads (`direct`), and starts at zero too.
Much of what there is to know is a weighted sum of the last values, which the gates, saturated by levels of up to
twenty scales, do not pass: with the path the flag is as good as the best of its rivals (bench/results/regime.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.features import CUT
from model.runtime import keras

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.inputs import Inputs
    from model.manifest import Architecture

Arrays = dict[str, NDArray[np.float32]]
_BODY = {"lstm": ("lstm",), "dense": ("first", "second")}
_HEADS = ("falling", "change")
_DIRECT = tuple(f"{head}_direct" for head in _HEADS)


def shapes(inputs: Inputs, architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights: as Keras lays them out, behind an axis of members.

    An LSTM's gates are input, forget, cell, output."""
    units, channels = architecture.units, len(inputs.channels)
    if architecture.kind == "lstm":
        body = {"lstm_kernel": (channels, 4 * units), "lstm_recurrent": (units, 4 * units), "lstm_bias": (4 * units,)}
    else:
        body = {
            "first_kernel": (inputs.window * channels, units),
            "first_bias": (units,),
            "second_kernel": (units, units),
            "second_bias": (units,),
        }
    ends: dict[str, tuple[int, ...]] = {"kernel": (units, 1), "bias": (1,)}
    if architecture.direct:
        ends["direct_kernel"] = (inputs.window * channels, 1)
    heads = {f"{head}_{end}": shape for head in _HEADS for end, shape in ends.items()}
    return {name: (architecture.members, *shape) for name, shape in {**body, **heads}.items()}


def build(inputs: Inputs, architecture: Architecture) -> Any:
    """One new member as a Keras network, (n, window, channels) float32 -> {"falling", "logit", "change"}, (n, 1) each.

    Initial weights come from Keras's global seed (`keras.utils.set_random_seed`)."""
    k = keras()
    window = k.Input((inputs.window, len(inputs.channels)), name="window")
    if architecture.kind == "lstm":
        memory = k.layers.LSTM(architecture.units, name="lstm")(window)
    else:
        memory = k.layers.Flatten(name="flat")(window)
        for name in _BODY["dense"]:
            memory = k.layers.Dense(architecture.units, activation="relu", name=name)(memory)
    logit = k.layers.Dense(1, name="falling")(memory)
    change = k.layers.Dense(1, kernel_initializer="zeros", name="change")(memory)
    if architecture.direct:
        # A split in the window shows as levels of hundreds of scales: gates saturate there, a sum would not.
        flat = k.layers.Flatten(name="levels")(k.ops.clip(window, -CUT, CUT))
        logit, change = (
            k.layers.Add(name=f"{name}_sum")(
                [head, k.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name=name)(flat)]
            )
            for name, head in zip(_DIRECT, (logit, change), strict=True)
        )
    falling = k.layers.Activation("sigmoid", name="probability")(logit)
    return k.Model(window, {"falling": falling, "logit": logit, "change": change}, name="downtick")


def named(weights: Sequence[Any], architecture: Architecture) -> Arrays:
    """One member's weights by name, float32, with a first axis of one.

    Args:
        weights: in the order of `build(...).get_weights()`: layer after layer, body first.
    """
    return {name: np.asarray(w, np.float32)[None] for name, w in zip(_names(architecture), weights, strict=True)}


def set_weights(network: Any, architecture: Architecture, weights: Arrays, member: int = 0) -> None:
    """Give a network of `build` the weights of a member."""
    for layer in _layers(architecture):
        names = [name for name in _names(architecture) if name.rpartition("_")[0] == layer]
        network.get_layer(layer).set_weights([weights[name][member] for name in names])


def stack(members: Sequence[Arrays]) -> Arrays:
    """The weights of several networks as those of one model."""
    return {name: np.concatenate([weights[name] for weights in members]) for name in members[0]}


def rescale(weights: Arrays, *, slope: float, intercept: float, shrink: float) -> Arrays:
    """Weights whose logit is `slope` * logit + `intercept` and whose change is `shrink` * change, averages included."""
    factors = {"falling": np.float32(slope), "change": np.float32(shrink)}
    scaled = {
        name: array * factors[name.partition("_")[0]]
        for name, array in weights.items()
        if name.partition("_")[0] in factors
    }
    scaled["falling_bias"] = scaled["falling_bias"] + np.float32(intercept)
    return {**weights, **scaled}


def run(
    inputs: Inputs, architecture: Architecture, weights: Arrays, x: NDArray[np.float32], batch: int = 1024
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What Keras itself computes: (probability (n,), change (n,)), float32; the authority for `forward`.

    Networks are called directly, not through `predict`. Members' logits and changes are averaged in float64."""
    logit, change = np.zeros(len(x)), np.zeros(len(x))
    network = build(inputs, architecture)
    for member in range(architecture.members):
        set_weights(network, architecture, weights, member)
        for start in range(0, len(x), batch):
            rows = slice(start, start + batch)
            out = network(x[rows], training=False)
            logit[rows] += np.asarray(out["logit"], np.float64)[:, 0]
            change[rows] += np.asarray(out["change"], np.float64)[:, 0]
    logit, change = logit / architecture.members, change / architecture.members
    return (0.5 + 0.5 * np.tanh(logit / 2)).astype(np.float32), change.astype(np.float32)


def _names(architecture: Architecture) -> list[str]:
    """Names of one network's weights, body first, in Keras's order."""
    parts = ("kernel", "recurrent", "bias") if architecture.kind == "lstm" else ("kernel", "bias")
    body = [f"{layer}_{part}" for layer in _BODY[architecture.kind] for part in parts]
    heads = [[f"{head}_kernel", f"{head}_bias", f"{head}_direct_kernel"] for head in _HEADS]
    return body + [name for head in heads for name in head[: 3 if architecture.direct else 2]]


def _layers(architecture: Architecture) -> tuple[str, ...]:
    return (*_BODY[architecture.kind], *_HEADS, *(_DIRECT if architecture.direct else ()))
