"""The network's forward pass as one compiled function, several times faster than the Keras layer.

A plain loop over the steps under XLA. Each step is one matrix product and one tanh over all four gates:
sigmoid(x) = 1/2 + 1/2 tanh(x/2), so the three sigmoid gates become a tanh of half their sums, and the halves are
folded into the weights once, when they are loaded.

The weights are arguments, so another bundle of the same shape runs through what is already compiled. Rows are padded
to a few fixed sizes, each compiled once; a row's result is the same, bit for bit, in any of them and at any position
(tests/unit/model/test_forward.py). That holds from 64 rows up; below, XLA chooses other kernels.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from model.runtime import tensorflow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.network import Arrays

BATCH_SIZES = (64, 256, 1024)


class Forward:
    """The forward pass for one shape of network; build through `forward_for`. Any thread may call it."""

    def __init__(self, lookback: int, channels: int, units: int) -> None:
        self._shape, self._units = (lookback, channels), units
        self._compiled: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._function = tensorflow().function(self._trace, jit_compile=True, autograph=False)
        self.traces = 0  # grows only when something new is compiled

    def fold(self, weights: Arrays) -> tuple[Any, ...]:
        """The weights as `__call__` wants them, from Keras's layout: gates reordered (i, f, o, g), sigmoids halved."""
        tf, u = tensorflow(), self._units
        order = np.r_[0 : 2 * u, 3 * u : 4 * u, 2 * u : 3 * u]
        halve = np.repeat(np.array([0.5, 1.0], np.float32), [3 * u, u])
        return (
            tf.constant(weights["lstm_kernel"][:, order] * halve),
            tf.constant(weights["lstm_recurrent"][:, order] * halve),
            tf.constant(weights["lstm_bias"][order] * halve),
            tf.constant(np.hstack([weights["falling_kernel"] * np.float32(0.5), weights["change_kernel"]])),
            tf.constant(np.hstack([weights["falling_bias"] * np.float32(0.5), weights["change_bias"]])),
        )

    def compile(self, size: int, folded: tuple[Any, ...]) -> Any:
        """The compiled function for `size` rows; compiles at the first call (0.2 s), later ones return it at once."""
        with self._lock:
            if size not in self._compiled:
                rows = tensorflow().TensorSpec((size, *self._shape), np.float32)
                function = self._function.get_concrete_function(rows, *folded)
                function(tensorflow().zeros((size, *self._shape)), *folded)  # XLA compiles at the first run
                self._compiled[size] = function
            return self._compiled[size]

    def __call__(self, x: NDArray[np.float32], folded: tuple[Any, ...]) -> NDArray[np.float32]:
        """(2, n) float32: probability and change of each row of x, (n, lookback, channels) with n a padded size."""
        result: NDArray[np.float32] = self.compile(len(x), folded)(tensorflow().constant(x), *folded).numpy()
        return result

    def _trace(self, x: Any, kernel: Any, recurrent: Any, bias: Any, head: Any, head_bias: Any) -> Any:
        self.traces += 1  # Python runs this body once per trace
        tf, u = tensorflow(), self._units
        steps = tf.transpose(x, (1, 0, 2))  # (lookback, n, channels)
        first = tf.zeros((x.shape[0], u), tf.float32)

        def step(t: Any, h: Any, c: Any) -> Any:
            z = tf.tanh(_project(steps[t], kernel) + bias + h @ recurrent)
            gates = 0.5 + 0.5 * z[:, : 3 * u]
            c = gates[:, u : 2 * u] * c + gates[:, :u] * z[:, 3 * u :]
            return t + 1, gates[:, 2 * u :] * tf.tanh(c), c

        _, h, _ = tf.while_loop(lambda t, *_: t < self._shape[0], step, (0, first, first))
        out = tf.transpose(h @ head + head_bias)
        return tf.stack([0.5 + 0.5 * tf.tanh(out[0]), out[1]])


def _project(x: Any, kernel: Any) -> Any:
    """x (n, channels) @ kernel; with one channel an outer product, which XLA fuses into the rest of the step."""
    return x * kernel if kernel.shape[0] == 1 else x @ kernel


@cache
def forward_for(lookback: int, channels: int, units: int) -> Forward:
    """The process's one `Forward` of this shape: a second bundle of the same shape compiles nothing."""
    return Forward(lookback, channels, units)
