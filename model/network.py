"""The network: one LSTM, two answers, trained together.

        window (lookback, channels)  ->  LSTM(32)  ->  sigmoid: probability of falling
                                                   ->  linear:  change to the next value, in scales of the window

The linear head starts at zero, so an untrained network is the naive forecast: the next value is the last one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.runtime import keras

UNITS = 32
Arrays = dict[str, NDArray[np.float32]]


def shapes(channels: int, units: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights, as Keras lays them out: an LSTM's gates are input, forget, cell, output."""
    return {
        "lstm_kernel": (channels, 4 * units),
        "lstm_recurrent": (units, 4 * units),
        "lstm_bias": (4 * units,),
        "falling_kernel": (units, 1),
        "falling_bias": (1,),
        "change_kernel": (units, 1),
        "change_bias": (1,),
    }


def build(lookback: int, channels: int, units: int = UNITS) -> Any:
    """A new Keras network: (n, lookback, channels) float32 -> {"falling": (n, 1) in 0..1, "change": (n, 1)}.

    Initial weights come from Keras's global seed (`keras.utils.set_random_seed`)."""
    k = keras()
    window = k.Input((lookback, channels), name="window")
    memory = k.layers.LSTM(units, name="lstm")(window)
    falling = k.layers.Dense(1, activation="sigmoid", name="falling")(memory)
    change = k.layers.Dense(1, kernel_initializer="zeros", name="change")(memory)
    return k.Model(window, {"falling": falling, "change": change}, name="downtick")


def get_weights(network: Any) -> Arrays:
    """The weights by name (see `shapes`), float32."""
    parts = [w for name in ("lstm", "falling", "change") for w in network.get_layer(name).get_weights()]
    return {name: np.asarray(part, np.float32) for name, part in zip(_NAMES, parts, strict=True)}


def set_weights(network: Any, weights: Arrays) -> None:
    """The inverse of `get_weights`."""
    for layer in ("lstm", "falling", "change"):
        network.get_layer(layer).set_weights([weights[name] for name in _NAMES if name.startswith(layer)])


def run(network: Any, x: NDArray[np.float32], batch: int = 1024) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What Keras itself computes: (probability (n,), change (n,)), float32. Called directly, not through `predict`."""
    probability, change = np.empty(len(x), np.float32), np.empty(len(x), np.float32)
    for start in range(0, len(x), batch):
        rows = slice(start, start + batch)
        out = network(x[rows], training=False)
        probability[rows], change[rows] = np.asarray(out["falling"])[:, 0], np.asarray(out["change"])[:, 0]
    return probability, change


_NAMES = tuple(shapes(1, 1))
