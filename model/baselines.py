"""What a flag is measured against: from knowing nothing to gradient-boosted trees, on the network's own input.

    majority    the share of falling steps in the training part, for every step
    slope       the slope of the last 8 values (labels.trailing_slope): no learning but Platt's two numbers
    logistic    logistic regression on the window's features, laid out in a row and standardised
    boosted     LightGBM on the same row

The dense 100-100-1 network is the fifth; it is trained by model/fit.py. All learn from the training part, LightGBM
stops by the validation part, and all are calibrated there, as the bundle is. Parameters are fixed: a baseline that is
tuned on the rows it is compared on would be none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model import evaluation
from model.extras import extra

if TYPE_CHECKING:
    from model.examples import Examples

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float64]]
MOST_CELLS = 40_000_000  # numbers of a training table held at once: 160 MB; larger parts are sampled
ROUNDS, PATIENCE = 1000, 50  # of LightGBM


@dataclass(frozen=True)
class Fitted:
    """A baseline: `score` gives probabilities of x (n, window, channels), and `note` says what it was made of."""

    score: Scorer
    note: str


def slope_probability(slope: NDArray[np.float64]) -> NDArray[np.float64]:
    """The trailing slope as a number in 0..1 that rises as the slope falls: Platt's fit makes a probability of it.

    (n,), NaN where there is no slope. The slope is in mean steps of the window (labels.py): no spread is learnt."""
    return np.asarray(1 / (1 + np.exp(np.clip(4 * slope, -30, 30))))


def logistic(x: NDArray[np.float32], label: NDArray[np.float32]) -> Fitted:
    """Logistic regression with scikit-learn's default penalty. Deterministic.

    Args:
        x: (n, window, channels). label: (n,) 1 or 0, both present."""
    make_pipeline = extra("sklearn.pipeline").make_pipeline
    scaler = extra("sklearn.preprocessing").StandardScaler()
    model: Any = make_pipeline(scaler, extra("sklearn.linear_model").LogisticRegression(max_iter=1000))
    model.fit(_rows(x), label == 1)
    return Fitted(lambda new: np.asarray(model.predict_proba(_rows(new))[:, 1]), f"fitted to {len(x):,} windows")


def boosted(
    x: NDArray[np.float32],
    label: NDArray[np.float32],
    held_x: NDArray[np.float32],
    held_label: NDArray[np.float32],
    *,
    seed: int,
) -> Fitted:
    """LightGBM, stopped by the log loss of the held-out rows. The same seed and rows give the same trees."""
    lightgbm = extra("lightgbm")
    parameters = {
        "objective": "binary",
        "learning_rate": 0.05,
        "num_leaves": 15,
        "min_data_in_leaf": max(5, min(100, len(x) // 50)),
        "feature_fraction": 0.8,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        "seed": seed,
        # The order of sums must not depend on threads or on what was fastest this time.
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,  # threads wait for each other in a spin: beside other work two are slower than one
        "verbosity": -1,
    }
    train = lightgbm.Dataset(_rows(x), (label == 1).astype(int))
    held = lightgbm.Dataset(_rows(held_x), (held_label == 1).astype(int), reference=train)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    model: Any = lightgbm.train(parameters, train, ROUNDS, valid_sets=[held], callbacks=[stop])
    note = f"fitted to {len(x):,} windows, {model.best_iteration} rounds"
    return Fitted(lambda new: np.asarray(model.predict(_rows(new)), np.float64), note)


def calibrated(
    label: NDArray[np.float32], held: NDArray[np.float64], *others: NDArray[np.float64], base: float | None = None
) -> tuple[NDArray[np.float64], ...]:
    """Calibration by the held-out rows, applied to them and to the others; NaN stays NaN.

    Args:
        base: the base rate of training, for probabilities: they are stretched around it, as the bundle's own are.
            None for what is no probability yet: slope and intercept are Platt's.
    """
    known = np.isfinite(held) & np.isfinite(label)
    found = (
        evaluation.platt(label[known], held[known])
        if base is None
        else evaluation.temperature(label[known], held[known], base)
    )
    return tuple(_applied(part, found.slope, found.intercept) for part in (held, *others))


def sample(examples: Examples, *, most_cells: int = MOST_CELLS, seed: int = 1) -> Examples:
    """The labelled examples; of too many, a random part that fits into memory, in order."""
    known = np.flatnonzero(np.isfinite(examples.label))
    most = max(1, most_cells // (examples.inputs.window * len(examples.inputs.channels)))
    if len(known) > most:
        known = np.sort(np.random.default_rng(seed).choice(known, most, replace=False))
    return examples.take(known)


def threshold_at(label: NDArray[np.float32], score: NDArray[np.float64], precision: float) -> tuple[float, float]:
    """The lowest threshold (flag: score >= it) whose flags are right with at least `precision`, and that precision.

    Where no threshold gets there, the one with the best precision among those that flag at least 1 % of the rows: a
    handful of lucky rows is no precision.

    Args: label (n,) 1 or 0, score (n,) finite, not empty.
    """
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    right = np.cumsum(label[order] == 1) / np.arange(1, len(order) + 1)
    last = np.append(ordered[1:] != ordered[:-1], True)  # of each run of equal scores
    enough = np.flatnonzero(last & (right >= precision))
    if len(enough):
        at = enough[-1]
    else:
        usable = np.flatnonzero(last & (np.arange(1, len(order) + 1) >= 0.01 * len(order)))
        at = usable[np.argmax(right[usable])]
    return float(ordered[at]), float(right[at])


def _applied(p: NDArray[np.float64], slope: float, intercept: float) -> NDArray[np.float64]:
    kept = np.clip(p, 1e-7, 1 - 1e-7)
    logit = np.log(kept / (1 - kept))
    return np.asarray(1 / (1 + np.exp(-np.clip(slope * logit + intercept, -30, 30))))


def _rows(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x.reshape(len(x), -1)
