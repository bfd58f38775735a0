"""Weighted scores: by hand, and against scikit-learn 1.9."""

import numpy as np
import pytest

from model import scores
from model.scores import Ranking


def y(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def ones(n: int) -> np.ndarray:
    return np.ones(n)


def sample(n: int = 500, *, ties: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.01, 0.99, n)
    if ties:
        p = p.round(1)
    return (rng.uniform(size=n) < p).astype(np.float32), p, rng.integers(0, 4, n).astype(float)


@pytest.mark.parametrize("ties", [False, True])
def test_ranking_scores_are_those_of_scikit_learn(ties: bool) -> None:  # noqa: FBT001 - a parameter of the test
    metrics = pytest.importorskip("sklearn.metrics")
    label, p, w = sample(ties=ties)
    assert Ranking(label, p).auc(w) == pytest.approx(metrics.roc_auc_score(label, p, sample_weight=w))
    assert Ranking(label, p).pr_auc(w) == pytest.approx(metrics.average_precision_score(label, p, sample_weight=w))


def test_scores_of_probabilities_and_flags_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    label, p, w = sample(ties=False)
    assert scores.mean((p - label) ** 2, w) == pytest.approx(metrics.brier_score_loss(label, p, sample_weight=w))
    assert scores.mean(scores.losses(label, p), w) == pytest.approx(metrics.log_loss(label, p, sample_weight=w))
    cases = [np.array(scores.mean(case, w)) for case in scores.confusion(label == 1, p > 0.4)]
    assert scores.matthews(*cases) == pytest.approx(metrics.matthews_corrcoef(label, p > 0.4, sample_weight=w))
    expected = metrics.precision_score(label, p > 0.4, sample_weight=w)
    assert scores.precision(label, p > 0.4, w) == pytest.approx(expected)


def test_scores_of_forecasts_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth, said, w = rng.normal(size=300), rng.normal(size=300), rng.integers(0, 3, 300).astype(float)
    error = truth - said
    assert scores.mean(np.abs(error), w) == pytest.approx(metrics.mean_absolute_error(truth, said, sample_weight=w))
    expected = metrics.mean_pinball_loss(truth, said, sample_weight=w, alpha=0.05)
    assert scores.mean(scores.pinball_losses(truth, said, 0.05), w) == pytest.approx(expected)


def test_auc_and_average_precision_by_hand() -> None:
    label, score = y(0, 0, 1, 1), np.array([0.1, 0.4, 0.35, 0.8])
    assert Ranking(label, score).auc(ones(4)) == 0.75  # three of four pairs in the right order
    # From the top: hit (1/1), miss, hit (2/3): half each.
    assert Ranking(label, score).pr_auc(ones(4)) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_a_weight_of_two_is_the_row_twice_and_of_zero_none() -> None:
    label, p, w = sample(ties=True)
    again = np.repeat(np.arange(len(w)), w.astype(int))
    repeated = Ranking(label[again], p[again]).all(ones(len(again)))
    assert Ranking(label, p).all(w) == pytest.approx(repeated)
    assert scores.mean(p, w) == pytest.approx(p[again].mean())


def test_one_class_or_no_weight_gives_no_number() -> None:
    assert np.isnan(Ranking(y(1, 1), np.array([0.2, 0.3])).auc(ones(2)))
    assert np.isnan(Ranking(y(0, 0), np.array([0.2, 0.3])).pr_auc(ones(2)))
    assert np.isnan(scores.mean(np.array([0.2, 0.3]), np.zeros(2)))
    assert np.isnan(Ranking(y(0, 1), np.array([0.2, 0.3])).ece(np.zeros(2)))
    assert np.isnan(scores.precision(y(0, 1), np.array([False, False]), ones(2)))
    cases = scores.confusion(y(1, 0) == 1, np.array([True, True]))
    assert scores.matthews(*(case.mean() for case in cases)) == 0


def test_calibration_error_by_hand() -> None:
    label = y(1, 1, 1, 0, 0, 0, 0, 1)
    p = np.array([0.9, 0.9, 0.8, 0.8, 0.2, 0.2, 0.1, 0.1])
    # Two bins of four: says .85, is .75; says .15, is .25.
    assert Ranking(label, p).ece(ones(8), bins=2) == pytest.approx(0.1)
    found = Ranking(label, p).reliability(ones(8), bins=2)
    assert found.probability == pytest.approx([0.85, 0.15])
    assert found.rate.tolist() == [0.75, 0.25]
    assert found.weight.tolist() == [4, 4]


def test_equal_probabilities_are_never_split_into_bins() -> None:
    label = y(*([1] * 30 + [0] * 70))
    assert Ranking(label, np.full(100, 0.3)).ece(ones(100)) == pytest.approx(0)
    assert len(Ranking(label, np.full(100, 0.3)).reliability(ones(100)).rate) == 1


def test_a_calibrated_forecast_has_a_small_calibration_error_and_an_overconfident_one_has_not() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, 100_000)
    label = (rng.uniform(size=len(p)) < p).astype(np.float32)
    assert Ranking(label, p).ece(ones(len(p))) < 0.006
    pushed = 1 / (1 + np.exp(-2 * np.log(p / (1 - p))))
    assert Ranking(label, pushed).ece(ones(len(p))) > 0.08


def test_log_loss_is_finite_even_when_certain_and_wrong() -> None:
    assert scores.losses(y(1), np.array([0.0])) == pytest.approx(-np.log(1e-7))


def test_pinball_by_hand() -> None:
    # One above the 5 % quantile costs .05 of its distance, one below .95 of it.
    assert scores.pinball_losses(np.array([2.0, -1.0]), np.zeros(2), 0.05) == pytest.approx([0.1, 0.95])


def test_one_pass_gives_the_same_as_three() -> None:
    label, p, w = sample(ties=True)
    ranking = Ranking(label, p)
    assert ranking.all(w) == (ranking.auc(w), ranking.pr_auc(w), ranking.ece(w))
    assert np.isnan(Ranking(label[:0], p[:0]).all(w[:0])).all()
