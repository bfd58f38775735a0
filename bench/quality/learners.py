"""What is compared, all asked the same way: learn from these examples, give probabilities of falling for those.

Every learner sees one stock's window through the very features that the service computes, and no validation part: what
has to be chosen (epochs, rounds) was chosen inside the training years, by blocks of time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from model import baselines
from model.features import features
from model.fit import AVERAGING, EPOCHS, LEARNING_RATE, PATIENCE, Fitted, fit
from model.inputs import Inputs
from model.manifest import Architecture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model.examples import Examples

Probabilities = list["NDArray[np.float64]"]  # (answers, n) for each part that was asked about


@dataclass(frozen=True)
class Network:
    """One of our networks and how it is trained; `averaging` as in model/fit.py."""

    channels: tuple[str, ...] = ("value",)
    kind: str = "lstm"
    units: int = 32
    averaging: float = AVERAGING
    learning_rate: float = LEARNING_RATE
    direct: bool = True  # of an LSTM
    window: int = 32

    def __str__(self) -> str:
        width = "100-100-1" if self.kind == "dense" else str(self.units)
        averaged = "" if self.averaging else ", weights not averaged"
        alone = "" if self.direct else ", no linear path"
        slowly = f", learning rate {self.learning_rate:g}" if self.learning_rate != LEARNING_RATE else ""
        return f"{self.kind}({width}) of {' '.join(self.channels)}{averaged}{slowly}{alone}"

    @property
    def inputs(self) -> Inputs:
        return Inputs(self.window, self.channels)

    def architecture(self, members: int = 1) -> Architecture:
        direct = self.direct and self.kind == "lstm"
        return Architecture.model_validate(
            {"kind": self.kind, "units": self.units, "direct": direct, "members": members}
        )

    def fit(
        self,
        train: Examples,
        held: Examples | None,
        *,
        seed: int,
        members: int = 1,
        epochs: int = EPOCHS,
        patience: int = PATIENCE,
    ) -> Fitted:
        """As model/fit.py, with what this network is trained with."""
        return fit(
            train,
            held,
            self.architecture(members),
            seed=seed,
            epochs=epochs,
            patience=patience,
            learning_rate=self.learning_rate,
            averaging=self.averaging,
        )

    def losses(self, train: Examples, held: Examples, *, epochs: int, seed: int) -> list[float]:
        """Log loss on the held-out part after each epoch."""
        fitted = self.fit(train, held, seed=seed, epochs=epochs, patience=epochs)
        return [float(end.held_out) for end in fitted.history if end.held_out is not None]

    def probabilities(
        self, train: Examples, parts: Sequence[Examples], *, epochs: int, seed: int, members: int = 1
    ) -> Probabilities:
        """Two answers: the first network's, and the average of all `members`, whose seeds are seed, seed + 1, …"""
        fitted = self.fit(train, None, seed=seed, epochs=epochs, members=members)
        alone = replace(
            fitted, architecture=self.architecture(), weights={name: w[:1] for name, w in fitted.weights.items()}
        )
        return [np.stack([one.answers(part).probability for one in (alone, fitted)]) for part in parts]


def logistic(train: Examples, parts: Sequence[Examples]) -> Probabilities:
    """Logistic regression on the features in a row (model/baselines.py)."""
    learnt = baselines.logistic(_x(train), train.label)
    return [learnt.score(_x(part))[None] for part in parts]


def boosted(train: Examples, parts: Sequence[Examples], *, seed: int) -> Probabilities:
    """LightGBM on the same row; the last sixth of the training days, a window behind the others, stops it."""
    days, day = np.unique(train.until, return_inverse=True)
    border = len(days) * 5 // 6
    early, late = train.take(day < border - train.inputs.reach), train.take(day >= border)
    learnt = baselines.boosted(_x(early), early.label, _x(late), late.label, seed=seed)
    return [learnt.score(_x(part))[None] for part in parts]


def _x(part: Examples) -> NDArray[np.float32]:
    return features(part.windows(), part.inputs).x
