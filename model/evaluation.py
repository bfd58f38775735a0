"""How good predictions are: scores of probabilities, of a flag with hysteresis, and of forecasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from model.manifest import Calibration, Interval, Metrics, Thresholds

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from model.examples import Examples

RECALL_GIVEN_UP = 0.02  # at most, for fewer flips


@dataclass(frozen=True)
class Answers:
    """What a network says of examples: probability (n,) and change (n,) in scales, both float64."""

    probability: NDArray[np.float64]
    change: NDArray[np.float64]


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


def choose_thresholds(
    examples: Examples, probability: NDArray[np.float64], wanted: float, still: float = 0.0
) -> Thresholds:
    """The pair whose flag has at least the wanted precision and finds the most falling steps.

    Among pairs that find nearly as many (RECALL_GIVEN_UP), the one that flips least. If no pair reaches the wanted
    precision: the most precise one that flags at least one falling step in fifty, and `precision` says what it reaches.

    Args:
        still: probability of a window that never moves: a stock that is traded no more must not stay falling for ever,
            so the flag goes off above it, unless no pair will do that.
    """
    known = np.isfinite(examples.label)
    label, stock, p = examples.label[known] == 1, examples.stock, probability[known]
    found: list[_Pair] = []
    for on in np.unique(np.quantile(p, [*np.linspace(0.3, 0.97, 35), 0.98, 0.99, 0.995]).astype(np.float32)):
        for width in (0.0, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3):
            if width and on <= width:
                continue  # nothing is below zero: the flag would stay on for ever
            tried = Thresholds(falling_on=float(on), falling_off=float(np.float32(on - width)))
            # Of every step, then of those with a label: the service's flag goes on and off at the others too.
            flag = flags(probability, stock, tried)
            told = flag[known]
            hits = float((told & label).sum())
            found.append(
                _Pair(
                    float(on), width, hits / max(1.0, float(told.sum())), hits / float(label.sum()), _flips(flag, stock)
                )
            )
    found = [pair for pair in found if np.float32(pair.on - pair.width) > still] or found
    precise = [pair for pair in found if pair.precision >= wanted and pair.recall > 0]
    if precise:
        most = max(pair.recall for pair in precise)
        best = min(
            (pair for pair in precise if pair.recall >= most - RECALL_GIVEN_UP), key=lambda q: (q.flips, -q.recall)
        )
    else:
        often = [pair for pair in found if pair.recall >= 0.02]
        best = max(often or found, key=lambda pair: (pair.precision, pair.recall))
    return Thresholds(
        falling_on=best.on,
        falling_off=float(np.float32(best.on - best.width)),
        wanted_precision=wanted,
        precision=best.precision,
        recall=best.recall,
    )


class _Pair(NamedTuple):
    on: float
    width: float
    precision: float
    recall: float
    flips: int


def platt(label: NDArray[np.float32], probability: NDArray[np.float64]) -> Calibration:
    """Slope and intercept on the logit that minimise the log loss (Platt 1999), by Newton's method.

    The identity when the fit does not lower the log loss or would turn the order round.
    """
    known = np.isfinite(label)
    y, p = (label[known] == 1).astype(np.float64), np.clip(probability[known], 1e-7, 1 - 1e-7)
    logit = np.log(p / (1 - p))
    inputs, beta = (
        np.stack([logit, np.ones_like(logit)], axis=1),
        np.zeros(2),
    )  # from (1, 0) it diverges where p is far too sure
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


def temperature(label: NDArray[np.float32], probability: NDArray[np.float64], base: float) -> Calibration:
    """The stretch of the logit around the base rate's that minimises the log loss (Guo et al. 2017, ICML).

    The base rate stays that of training: of market regimes, a held-out year says little about the next one's. A network
    that knows nothing is stretched to nothing, and says the base rate. The stretch is kept within 0.01 and 100.
    """
    known = np.isfinite(label)
    y, p = (label[known] == 1).astype(np.float64), np.clip(probability[known], 1e-7, 1 - 1e-7)
    middle = float(np.log(base / (1 - base)))
    away, slope = np.log(p / (1 - p)) - middle, 1.0
    for _ in range(50):
        q = 1 / (1 + np.exp(-np.clip(middle + slope * away, -30, 30)))
        curvature = float(np.sum(away**2 * q * (1 - q))) + 1e-6
        moved = min(100.0, max(0.01, slope + min(1.0, max(-1.0, float(np.sum(away * (y - q))) / curvature))))
        slope, before = moved, slope
        if abs(slope - before) < 1e-9:
            break
    return Calibration(method="temperature", slope=slope, intercept=middle * (1 - slope))


def shrink_of(change: NDArray[np.float64], answer: NDArray[np.float64], time: NDArray[np.int64]) -> float:
    """How much of a network's forecast to believe, 0..1: what halfway surely lowers the squared error.

    The least-squares factor of the answers on the changes that came, less one standard error with the steps as
    clusters (all stocks of a step count once: they move together). Pure noise gives 0, which is the naive forecast.
    Source: cluster-robust variance, Liang & Zeger (1986), Biometrika 73(1).

    Args: (n,) each; change in scales, NaN unknown; cut to ±8, as heavy tails say little of the mean.
    """
    known = np.isfinite(change)
    y, f = np.clip(change[known], -8, 8), answer[known]
    power = float(f @ f)
    if not power:
        return 0.0
    factor = float(f @ y) / power
    _, step = np.unique(time[known], return_inverse=True)
    error = float(np.sqrt((np.bincount(step, f * (y - factor * f)) ** 2).sum())) / power
    return min(1.0, max(0.0, factor - error))


def interval_of(residuals: NDArray[np.float64], level: float, source: str) -> Interval:
    """The quantiles that leave (1 - level) / 2 of the residuals (in spreads) on each side, zero kept inside.

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
    flag = flags(answers.probability, examples.stock, thresholds)  # of every step, as the service has it
    truth = examples.change
    scored = np.isfinite(truth)
    error = (truth - answers.change)[scored]
    unit = error / examples.spread[scored]
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
        mcc=mcc(label, flag[known]) if len(label) else None,
        flips_per_1000=1000 * _flips(flag, examples.stock) / len(examples),
        mae=float(np.mean(np.abs(error))) if len(error) else None,
        naive_mae=float(np.mean(np.abs(truth[scored]))) if len(error) else None,
        coverage=float(np.mean((unit >= interval.low) & (unit <= interval.high))) if len(error) else None,
    )


def _flips(flag: NDArray[np.bool_], stock: NDArray[np.int64]) -> int:
    return int(((flag[1:] != flag[:-1]) & (stock[1:] == stock[:-1])).sum())
