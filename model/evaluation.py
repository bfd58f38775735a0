"""How good predictions are: scores of probabilities, of a flag with hysteresis, and of forecasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.features import features
from model.manifest import Calibration, Interval, Metrics, Thresholds

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from model.examples import Examples

MARGIN = 0.005  # MCC given up at most for fewer flips


@dataclass(frozen=True)
class Answers:
    """What a network says of examples: probability (n,) and change (n,) in scales, both float64."""

    probability: NDArray[np.float64]
    change: NDArray[np.float64]


def changes(examples: Examples) -> NDArray[np.float64]:
    """The target as the network is asked for it: the change to the next value, in scales; (n,), NaN unknown."""
    return (examples.target - examples.windows[:, -1, 0]) / features(examples.windows).scale


def auc(label: NDArray[np.float32], score: NDArray[np.float64]) -> float | None:
    """Chance that a falling example scores above one that is not, ties half; None with one class only."""
    positive = label == 1
    p, n = int(positive.sum()), int((~positive).sum())
    if not p or not n:
        return None
    _, group, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[group]
    return float((rank[positive].sum() - p * (p + 1) / 2) / (p * n))


def mcc(label: NDArray[np.float32], flag: NDArray[np.bool_]) -> float:
    """Matthews correlation of a flag with the label; 0 where either never varies."""
    y = label == 1
    tp, tn = float((flag & y).sum()), float((~flag & ~y).sum())
    fp, fn = float((flag & ~y).sum()), float((~flag & y).sum())
    below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / below**0.5 if below else 0.0


def log_loss(label: NDArray[np.float32], probability: NDArray[np.float64]) -> float:
    """Mean negative log likelihood in nats; probabilities are kept 1e-7 away from 0 and 1."""
    p = np.clip(probability, 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(label == 1, np.log(p), np.log(1 - p))))


def flags(probability: NDArray[np.float64], stock: NDArray[np.int64], thresholds: Thresholds) -> NDArray[np.bool_]:
    """The falling flag with hysteresis: off at a stock's first step, on at >= falling_on, off at < falling_off; (n,).

    Args: rows by stock and, within a stock, by time.
    """
    on, off = probability >= thresholds.falling_on, probability < thresholds.falling_off
    begins = np.append(True, stock[1:] != stock[:-1])
    decided = np.maximum.accumulate(np.where(on | off | begins, np.arange(len(stock)), 0))
    return np.asarray(on[decided])


def choose_thresholds(examples: Examples, probability: NDArray[np.float64]) -> Thresholds:
    """The pair with the best MCC of the flag; among those within MARGIN of it, the one that flips least."""
    known = np.isfinite(examples.label)
    label, stock, p = examples.label[known], examples.stock[known], probability[known]
    found: list[tuple[float, int, Thresholds]] = []
    for on in np.unique(np.quantile(p, [*np.linspace(0.3, 0.97, 35), 0.98, 0.99, 0.995]).astype(np.float32)):
        for width in (0.0, 0.025, 0.05, 0.1, 0.15, 0.2):
            if width and on <= width:
                continue  # nothing is below zero: the flag would stay on for ever
            pair = Thresholds(falling_on=float(on), falling_off=float(np.float32(on - width)))
            flag = flags(p, stock, pair)
            found.append((mcc(label, flag), _flips(flag, stock), pair))
    best = max(score for score, _, _ in found)
    return min((f for f in found if f[0] >= best - MARGIN), key=lambda f: (f[1], -f[0]))[2]


def platt(label: NDArray[np.float32], probability: NDArray[np.float64]) -> Calibration:
    """Slope and intercept on the logit that minimise the log loss (Platt 1999), by Newton's method.

    The identity when the fit does not lower the log loss or would turn the order round.
    """
    known = np.isfinite(label)
    y, p = (label[known] == 1).astype(np.float64), np.clip(probability[known], 1e-7, 1 - 1e-7)
    logit = np.log(p / (1 - p))
    inputs, beta = np.stack([logit, np.ones_like(logit)], axis=1), np.array([1.0, 0.0])
    for _ in range(50):
        q = 1 / (1 + np.exp(-np.clip(inputs @ beta, -30, 30)))
        curvature = (inputs * (q * (1 - q))[:, None]).T @ inputs + 1e-6 * np.eye(2)
        move = np.linalg.solve(curvature, inputs.T @ (y - q))
        beta = beta + move
        if np.abs(move).max() < 1e-9:
            break
    fitted = 1 / (1 + np.exp(-np.clip(inputs @ beta, -30, 30)))
    if beta[0] <= 0 or not log_loss(label[known], fitted) < log_loss(label[known], p):
        return Calibration(method="identity", slope=1.0, intercept=0.0)
    return Calibration(method="platt", slope=float(beta[0]), intercept=float(beta[1]))


def interval_of(residuals: NDArray[np.float64], level: float, source: str) -> Interval:
    """The quantiles that leave (1 - level) / 2 of the residuals on each side, zero kept inside.

    Split conformal: with n residuals the (n + 1) * q-th, so that a new one of the same kind lies within with `level`.
    """
    r = np.sort(residuals[np.isfinite(residuals)])
    rank = int(np.ceil((len(r) + 1) * (1 + level) / 2))
    high = r[min(rank, len(r)) - 1] if len(r) else 0.0
    low = r[max(len(r) - rank, 0)] if len(r) else 0.0
    return Interval.model_validate(
        {"level": level, "low": min(float(low), 0.0), "high": max(float(high), 0.0), "source": source}
    )


def metrics(
    examples: Examples,
    answers: Answers,
    thresholds: Thresholds,
    interval: Interval,
    time_name: Callable[[int], str],
) -> Metrics:
    """Every score of these examples; see `Metrics`. Errors and coverage in the window's own scale."""
    known = np.isfinite(examples.label)
    label, p, slope = examples.label[known], answers.probability[known], examples.slope[known]
    flag = flags(p, examples.stock[known], thresholds)
    truth = changes(examples)
    scored = np.isfinite(truth)
    error = (truth - answers.change)[scored]
    base = float(np.mean(label == 1)) if len(label) else None
    usable = np.isfinite(slope)
    return Metrics(
        first=time_name(int(examples.time.min())),
        last=time_name(int(examples.time.max())),
        examples=len(examples),
        labelled=len(label),
        base_rate=base,
        auc=auc(label, p),
        slope_auc=auc(label[usable], -slope[usable]),
        brier=float(np.mean((p - label) ** 2)) if len(label) else None,
        base_brier=None if base is None else base * (1 - base),
        log_loss=log_loss(label, p) if len(label) else None,
        mcc=mcc(label, flag) if len(label) else None,
        flips_per_1000=1000 * _flips(flag, examples.stock[known]) / len(label) if len(label) else None,
        mae=float(np.mean(np.abs(error))) if len(error) else None,
        naive_mae=float(np.mean(np.abs(truth[scored]))) if len(error) else None,
        coverage=float(np.mean((error >= interval.low) & (error <= interval.high))) if len(error) else None,
    )


def _flips(flag: NDArray[np.bool_], stock: NDArray[np.int64]) -> int:
    return int(((flag[1:] != flag[:-1]) & (stock[1:] == stock[:-1])).sum())
