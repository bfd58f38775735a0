"""Fitting: the one training loop, for one process or several.

    examples ──► tf.data: windows and features, batch by batch ──► one compiled step (step.py)
                                                     several processes: each a share of the batch, gradients summed

Windows are cut out of the series as they are needed and never stand in memory together. The two losses are divided by
what they are before anything is learnt (the base rate's entropy, the naive forecast's loss), so that both heads start
at 1 and neither starves the other. The weights kept are those of the epoch with the lowest log loss of the flag on
held-out time: a proper score. That of the forecast is nearly all noise, whose low is a matter of chance.

The same examples, arguments, seed and library versions give the same weights to the bit, in any process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from model import evaluation, network
from model.evaluation import Answers
from model.features import features
from model.forward import forward_for, padded
from model.runtime import tensorflow
from model.step import step_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from model.examples import Examples
    from model.inputs import Inputs
    from model.manifest import Architecture

LARGEST_CHANGE = 32.0  # targets are cut to this many scales in training: a stock that woke up must not drown the rest
TOLD_SECONDS = 0.2  # between reports within an epoch
# Batches from one look at whether the loss is still a number to the next. Counted and not timed: processes that train
# together have the same losses, and must end at the same batch, or one waits for the other's share of the next.
CHECKED = 50
EPOCHS, PATIENCE, BATCH, LEARNING_RATE = 30, 4, 256, 0.001
# Of the weights, per batch. The last few batches leave a trace in the bias of the flag: without averaging its mean was
# off by up to a hundredth from seed to seed (docs/decisions/training.md).
AVERAGING = 0.99


class CannotFit(Exception):
    """The losses are no numbers any more, or nothing was learnt before it was interrupted; one line."""


@dataclass(frozen=True)
class Progress:
    """Where training stands; losses are means over the epoch so far, 1 = nothing learnt."""

    epoch: int  # from 1
    epochs: int  # at most
    done: int  # batches of this epoch
    batches: int
    flag_loss: float
    change_loss: float
    held_out: float | None = None  # log loss of the flag on held-out time, at the end of an epoch
    best: int | None = None  # the best epoch so far, at the end of an epoch


@dataclass(frozen=True)
class Fitted:
    """A trained network: weights as `network.stack` has them."""

    inputs: Inputs
    architecture: Architecture
    weights: network.Arrays
    epochs: tuple[int, ...]  # of each member
    interrupted: bool = False
    history: tuple[Progress, ...] = field(default=(), repr=False)  # ends of epochs, member after member

    def answers(self, examples: Examples) -> Answers:
        """What it says of examples: probability (n,) and change (n,) in scales."""
        forward = forward_for(self.inputs, self.architecture)
        folded = forward.fold(self.weights)
        found = np.empty((2, len(examples)))
        for part in examples.chunks():
            found[:, part] = forward.all(features(examples.windows(part), self.inputs).x, folded)
        return Answers(found[0], found[1])


@dataclass(frozen=True)
class Share:
    """This process's part in training: its number, of how many, and the sum over all of them of a list of tensors."""

    rank: int = 0
    workers: int = 1
    add: Callable[[Sequence[Any]], Sequence[Any]] | None = None


def fit(
    train: Examples,
    validation: Examples | None,
    architecture: Architecture,
    *,
    seed: int = 1,
    epochs: int = EPOCHS,
    patience: int = PATIENCE,
    batch: int = BATCH,
    learning_rate: float = LEARNING_RATE,
    averaging: float = AVERAGING,
    report: Callable[[Progress], None] = lambda _: None,
    share: Share | None = None,
) -> Fitted:
    """Train every member, from seeds `seed`, `seed` + 1, …

    Args:
        validation: held-out examples that choose the epoch; None: exactly `epochs` are trained.
        patience: epochs without a better validation loss before it ends.
        averaging: decay per batch of a running average of the weights, which is what is kept; 0: none.
        report: called every TOLD_SECONDS and at the end of each epoch.
        share: this process's part, where several train together.
    An interrupt (Ctrl-C) ends training and keeps the best epoch so far. Raises: CannotFit.
    """
    share = share or Share()
    members: list[network.Arrays] = []
    history: list[Progress] = []
    chosen: list[int] = []
    interrupted = False
    for number in range(architecture.members):
        one: _Member | None = None
        try:
            one = _Member(train, architecture, seed + number, batch, learning_rate, averaging, share)
            _epochs(one, validation, epochs, patience, report)
        except KeyboardInterrupt:
            interrupted = True
            if (one is None or one.best is None) and not members:
                raise CannotFit("interrupted before the first epoch was over: nothing to keep") from None
        if one is not None and one.best is not None:
            members.append(one.best.weights)
            chosen.append(one.best.epoch)
            history += one.ends
        if interrupted:
            break
    kept = architecture.model_copy(update={"members": len(members)})
    return Fitted(train.inputs, kept, network.stack(members), tuple(chosen), interrupted, tuple(history))


@dataclass(frozen=True)
class _Best:
    weights: network.Arrays
    epoch: int
    loss: float


def _epochs(
    one: _Member, validation: Examples | None, epochs: int, patience: int, report: Callable[[Progress], None]
) -> None:
    for epoch in range(1, epochs + 1):
        flag, change = one.epoch(epoch, epochs, report)
        weights = one.weights()
        loss = flag
        if validation is not None:
            answers = Fitted(one.inputs, one.architecture, weights, (epoch,)).answers(validation)
            known = np.isfinite(validation.label)
            loss = evaluation.log_loss(validation.label[known], answers.probability[known])
        if one.best is None or validation is None or loss < one.best.loss:
            one.best = _Best(weights, epoch, loss)
        one.ends.append(
            Progress(
                epoch,
                epochs,
                one.batches,
                one.batches,
                flag,
                change,
                None if validation is None else loss,
                one.best.epoch,
            )
        )
        report(one.ends[-1])
        if validation is not None and epoch - one.best.epoch >= patience:
            break


class _Member:
    """One network in training, and its data."""

    def __init__(
        self,
        train: Examples,
        architecture: Architecture,
        seed: int,
        batch: int,
        learning_rate: float,
        averaging: float,
        share: Share,
    ) -> None:
        self.inputs, self.architecture = train.inputs, architecture.model_copy(update={"members": 1})
        self.best: _Best | None = None
        self.ends: list[Progress] = []
        self.batches = -(-len(train) // batch)
        self._train, self._batch, self._share = train, batch, share
        self._answers = _answers(train)
        self._random = np.random.default_rng(seed)
        self._step = step_for(train.inputs, self.architecture)
        self._step.begin(seed, _loss_units(self._answers), learning_rate=learning_rate, averaging=averaging)

    def weights(self) -> network.Arrays:
        """A copy of what would be kept now."""
        return self._step.weights()

    def epoch(self, number: int, of: int, report: Callable[[Progress], None]) -> tuple[float, float]:
        """Go once through the data; gives the mean losses of flag and change."""
        tf = tensorflow()
        order = self._random.permutation(len(self._train))
        size = -(-self._batch // self._share.workers)
        signature = (
            tf.TensorSpec((size, self.inputs.window, len(self.inputs.channels)), tf.float32),
            tf.TensorSpec((4, size), tf.float32),
        )
        data = tf.data.Dataset.from_generator(lambda: self._batches(order, size), output_signature=signature)
        told, before = time.monotonic(), self._step.losses()
        for done, (x, answers) in enumerate(data.prefetch(8), 1):
            self._step(x, answers, self._share.add)
            checked = done == self.batches or done % CHECKED == 0
            due = done < self.batches and time.monotonic() - told >= TOLD_SECONDS
            if not (checked or due):
                continue
            flag, change = ((self._step.losses() - before) / done).tolist()
            if checked and not np.isfinite(flag + change):
                raise CannotFit(
                    f"the loss is not a number after {done} batches of epoch {number}: the network ran away; train "
                    "with a smaller --learning-rate"
                )
            if due:
                told = time.monotonic()
                report(Progress(number, of, done, self.batches, flag, change))
        return flag, change

    def _batches(
        self, order: NDArray[np.int64], size: int
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """This process's share of each batch: x, and (4, size) label, its weight, change, its weight.

        Weights are shares of the whole batch, so that sums over all processes are its means. Rows of weight 0 fill up.
        """
        rank, workers = self._share.rank, self._share.workers
        for start in range(0, len(order), self._batch):
            rows = order[start : start + self._batch]
            answers = self._answers[:, rows]
            answers[1::2] /= np.maximum(1.0, answers[1::2].sum(axis=1, keepdims=True))
            mine = rows[rank::workers]
            x = features(self._train.windows(mine), self.inputs).x
            filled = np.zeros((4, size), np.float32)
            filled[:, : len(mine)] = answers[:, rank::workers]
            yield padded(x, size), filled


def _answers(train: Examples) -> NDArray[np.float32]:
    """(4, n) label, its weight, change, its weight; an unknown answer weighs nothing."""
    change = train.change
    known, scored = np.isfinite(train.label), np.isfinite(change)
    return np.stack(
        [
            np.where(known, train.label, 0),
            known,
            np.clip(np.where(scored, change, 0), -LARGEST_CHANGE, LARGEST_CHANGE),
            scored,
        ]
    ).astype(np.float32)


def _loss_units(answers: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the two losses are when nothing is known: entropy of the base rate, Huber loss of `no change`."""
    label, known, change, scored = answers.astype(np.float64)
    base = np.clip((label * known).sum() / max(1.0, known.sum()), 1e-3, 1 - 1e-3)
    size = np.abs(change)
    naive = (np.where(size <= 1, size**2 / 2, size - 0.5) * scored).sum() / max(1.0, scored.sum())
    entropy = -(base * np.log(base) + (1 - base) * np.log(1 - base))
    return np.array([entropy, max(naive, 1e-3)], np.float32)
