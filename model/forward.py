"""The network's forward pass as one compiled function, several times faster than the Keras layer.

An LSTM is a plain loop over the steps under XLA. Each step is one matrix product and one tanh over all four gates:
sigmoid(x) = 1/2 + 1/2 tanh(x/2), so the three sigmoid gates become a tanh of half their sums, and the halves are
folded into the weights once, when they are loaded. The members of an average run one after the other in the same
function; their heads carry the division, so that logits and changes are just added up.

The weights are arguments, so another bundle of the same shape runs through what is already compiled. Rows are padded
to a few fixed sizes, each compiled once; a row's result is the same, bit for bit, in any of them and at any position
(tests/unit/model/test_forward.py). That holds from 64 rows up; below, XLA chooses other kernels.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from model.features import CUT
from model.runtime import tensorflow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.inputs import Inputs
    from model.manifest import Architecture
    from model.network import Arrays

BATCH_SIZES = (64, 256, 1024)


class Forward:
    """The forward pass for one shape of network; build through `forward_for`. Any thread may call it."""

    def __init__(self, window: int, channels: int, architecture: Architecture) -> None:
        self._shape, self._architecture = (window, channels), architecture
        self._compiled: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._function = tensorflow().function(self._trace, jit_compile=True, autograph=False)
        self.traces = 0  # grows only when something new is compiled

    def fold(self, weights: Arrays) -> tuple[Any, ...]:
        """The weights as `__call__` wants them: of the body, the heads and, last, the direct path; members first."""
        members = np.float32(self._architecture.members)

        def both(end: str) -> NDArray[np.float32]:
            halved = weights[f"falling_{end}"] * np.float32(0.5)
            return np.asarray(np.concatenate([halved, weights[f"change_{end}"]], axis=2) / members)

        head_bias = np.hstack([weights["falling_bias"] * np.float32(0.5), weights["change_bias"]]) / members
        if self._architecture.kind == "lstm":
            u = self._architecture.units
            order = np.r_[0 : 2 * u, 3 * u : 4 * u, 2 * u : 3 * u]  # Keras has i, f, g, o; here g comes last
            halve = np.repeat(np.array([0.5, 1.0], np.float32), [3 * u, u])
            body = [weights[f"lstm_{part}"][..., order] * halve for part in ("kernel", "recurrent", "bias")]
        else:
            body = [weights[f"{layer}_{part}"] for layer in ("first", "second") for part in ("kernel", "bias")]
        # The direct paths of all members are one: they are linear.
        direct = [both("direct_kernel").sum(axis=0)] if self._architecture.direct else []
        return tuple(tensorflow().constant(array) for array in (*body, both("kernel"), head_bias, *direct))

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
        """(2, n) float32: probability and change of each row of x, (n, window, channels) with n a padded size."""
        result: NDArray[np.float32] = self.compile(len(x), folded)(tensorflow().constant(x), *folded).numpy()
        return result

    def all(self, x: NDArray[np.float32], folded: tuple[Any, ...]) -> NDArray[np.float32]:
        """The same for any number of rows, in parts of the padded sizes."""
        parts = [np.empty((2, 0), np.float32)]
        for start in range(0, len(x), BATCH_SIZES[-1]):
            part = x[start : start + BATCH_SIZES[-1]]
            size = next(size for size in BATCH_SIZES if size >= len(part))
            parts.append(self(padded(part, size), folded)[:, : len(part)])
        return np.concatenate(parts, axis=1)

    def _trace(self, x: Any, *folded: Any) -> Any:
        self.traces += 1  # Python runs this body once per trace
        tf = tensorflow()
        member = self._lstm if self._architecture.kind == "lstm" else self._dense
        path = folded[-1] if self._architecture.direct else None
        *body, head, head_bias = folded[:-1] if self._architecture.direct else folded
        out = sum(
            member(x, *(array[k] for array in body)) @ head[k] + head_bias[k] for k in range(self._architecture.members)
        )
        if path is not None:
            out += tf.reshape(tf.clip_by_value(x, -CUT, CUT), (x.shape[0], -1)) @ path
        half_logit, change = tf.unstack(tf.transpose(out))
        return tf.stack([0.5 + 0.5 * tf.tanh(half_logit), change])

    def _lstm(self, x: Any, kernel: Any, recurrent: Any, bias: Any) -> Any:
        tf, u = tensorflow(), self._architecture.units
        steps = tf.transpose(x, (1, 0, 2))  # (window, n, channels)
        first = tf.zeros((x.shape[0], u), tf.float32)

        def step(t: Any, h: Any, c: Any) -> Any:
            z = tf.tanh(_project(steps[t], kernel) + bias + h @ recurrent)
            gates = 0.5 + 0.5 * z[:, : 3 * u]
            c = gates[:, u : 2 * u] * c + gates[:, :u] * z[:, 3 * u :]
            return t + 1, gates[:, 2 * u :] * tf.tanh(c), c

        return tf.while_loop(lambda t, *_: t < self._shape[0], step, (0, first, first))[1]

    def _dense(self, x: Any, first: Any, first_bias: Any, second: Any, second_bias: Any) -> Any:
        tf = tensorflow()
        flat = tf.reshape(x, (x.shape[0], -1))
        return tf.nn.relu(tf.nn.relu(flat @ first + first_bias) @ second + second_bias)


def padded(x: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """x with rows of zeros behind it, `size` rows in all."""
    return x if len(x) == size else np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), np.float32)])


def _project(x: Any, kernel: Any) -> Any:
    """x (n, channels) @ kernel; with one channel an outer product, which XLA fuses into the rest of the step."""
    return x * kernel if kernel.shape[0] == 1 else x @ kernel


def forward_for(inputs: Inputs, architecture: Architecture) -> Forward:
    """The process's one `Forward` of this shape: a second bundle of the same shape compiles nothing."""
    return _forward(inputs.window, len(inputs.channels), architecture)


_forward = cache(Forward)
