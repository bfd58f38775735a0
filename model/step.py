"""One step of training, compiled once for a shape of network: losses, gradients, Adam, the average of the weights.

Compiling takes longer than an epoch of a small data set, so the compiled step is kept and given new weights for each
network of its shape: the members of an average, the folds of a cross-validation.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from model import network
from model.runtime import keras, tensorflow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from model.inputs import Inputs
    from model.manifest import Architecture


class Step:
    """A network in training; one at a time. Build through `step_for`.

    After `begin`, each call takes x, (rows, window, channels) float32, and answers, (4, rows) float32: label, its
    weight, change, its weight. Weights are shares of the whole batch, so that sums over all processes are its means.
    """

    def __init__(self, inputs: Inputs, architecture: Architecture) -> None:
        k, tf = keras(), tensorflow()
        self._inputs, self._architecture = inputs, architecture
        self._network = network.build(inputs, architecture)
        self._variables = self._network.trainable_variables
        self._average = [tf.Variable(variable.value) for variable in self._variables]
        self._optimizer = k.optimizers.Adam(0.001)
        self._optimizer.build(self._variables)
        self._blank = [variable.numpy() for variable in self._optimizer.variables]
        self._huber = k.losses.Huber(1.0, reduction="none")
        self._units, self._sums = tf.Variable(tf.ones(2)), tf.Variable(tf.zeros(2))
        self._averaging, self._steps = tf.Variable(0.0), tf.Variable(0.0)
        self._gradients = tf.function(self._differentiate, jit_compile=True, autograph=False)
        self._apply = tf.function(self._move, jit_compile=True, autograph=False)
        self._whole = tf.function(
            lambda x, answers: self._move(*self._differentiate(x, answers)), jit_compile=True, autograph=False
        )

    def begin(self, seed: int, units: NDArray[np.float32], *, learning_rate: float, averaging: float) -> None:
        """Start over with the initial weights of a seed.

        Args:
            units: (2,) what the losses of flag and change are divided by.
            averaging: decay per step of the average of the weights; 0: no average.
        """
        keras().utils.set_random_seed(seed)
        fresh = network.build(self._inputs, self._architecture).get_weights()
        for variable, average, value in zip(self._variables, self._average, fresh, strict=True):
            variable.assign(value)
            average.assign(value)
        for variable, value in zip(self._optimizer.variables, self._blank, strict=True):
            variable.assign(value)
        self._optimizer.learning_rate.assign(learning_rate)
        self._units.assign(units)
        self._averaging.assign(averaging)
        self._steps.assign(0.0)
        self._sums.assign([0.0, 0.0])

    def __call__(self, x: Any, answers: Any, add: Callable[[Sequence[Any]], Sequence[Any]] | None = None) -> None:
        """One batch, or this process's share of one, whose gradients are then summed over all processes by `add`."""
        if add is None:
            self._whole(x, answers)
        else:
            self._apply(*add(self._gradients(x, answers)))

    def losses(self) -> NDArray[np.float64]:
        """(2,) sums since `begin` of the losses of flag and change, in `units`. Waits for the steps under way."""
        return np.asarray(self._sums.numpy(), np.float64)

    def weights(self) -> network.Arrays:
        """A copy of the average of the weights, which is what is kept."""
        parts = [np.array(average.numpy()) for average in self._average]
        return network.named(parts, self._architecture)

    def _differentiate(self, x: Any, answers: Any) -> list[Any]:
        tf = tensorflow()
        with tf.GradientTape() as tape:
            out = self._network(x, training=True)
            flag = tf.nn.sigmoid_cross_entropy_with_logits(answers[0], out["logit"][:, 0])
            # Huber and not MSE: steps of prices have heavy tails, and one crash day must not steer the forecast.
            change = self._huber(answers[2][:, None], out["change"])
            losses = tf.stack([tf.reduce_sum(flag * answers[1]), tf.reduce_sum(change * answers[3])]) / self._units
            total = tf.reduce_sum(losses)
        return [losses, *tape.gradient(total, self._variables)]

    def _move(self, losses: Any, *gradients: Any) -> None:
        self._optimizer.apply(gradients, self._variables)
        self._sums.assign_add(losses)
        self._steps.assign_add(1.0)
        # Young averages forget faster, or they would remember the initial weights.
        decay = tensorflow().minimum(self._averaging, self._steps / (10.0 + self._steps))
        for average, variable in zip(self._average, self._variables, strict=True):
            average.assign(decay * average + (1 - decay) * variable)


@cache
def step_for(inputs: Inputs, architecture: Architecture) -> Step:
    """The process's one step of this shape."""
    return Step(inputs, architecture)
