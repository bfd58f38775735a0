"""Intervals by resampling days."""

import time

import numpy as np
import pytest

from model import scores
from model.bootstrap import DayBootstrap, Draws
from model.scores import Ranking


def test_a_replicate_takes_whole_days_as_many_as_there_are() -> None:
    days = np.array([7, 3, 7, 5, 3, 7, 9])
    boot = DayBootstrap(days, replicates=200)
    for replicate in range(len(boot)):
        weights = boot.weights(replicate)
        assert len(set(weights[days == 7])) == 1
        assert len(set(weights[days == 3])) == 1
        assert sum(weights[np.unique(days, return_index=True)[1]]) == 4


def test_a_block_is_days_in_a_row_the_last_followed_by_the_first() -> None:
    boot = DayBootstrap(np.arange(10), replicates=50, block=5)
    for replicate in range(50):
        drawn = boot.weights(replicate) > 0
        # Two runs of five on a circle of ten: at most two places where a run begins.
        assert np.sum(drawn & ~np.roll(drawn, 1)) <= 2
        assert drawn.sum() >= 5


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    days, values = np.arange(50), np.random.default_rng(0).normal(size=50)
    one, again, other = (DayBootstrap(days, seed=seed).mean(values).scored() for seed in (1, 1, 2))
    assert one == again
    assert (one.low, one.high) != (other.low, other.high)
    assert one.point == other.point == pytest.approx(values.mean())


def test_differences_are_paired() -> None:
    days, a = np.arange(40), np.random.default_rng(0).normal(0, 10, 40)
    boot = DayBootstrap(days)
    found = boot.mean(a + 0.1).minus(boot.mean(a)).scored()
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_a_metric_computed_once_can_be_compared_with_many() -> None:
    boot = DayBootstrap(np.arange(30))
    a = boot.draws(lambda w: scores.mean(np.arange(30.0), w))
    b = boot.draws(lambda w: scores.mean(np.arange(30.0) * 2, w))
    assert b.minus(a).scored() == a.scored()
    ratio = b.over(a).scored()
    assert (ratio.point, ratio.low, ratio.high) == (pytest.approx(2), pytest.approx(2), pytest.approx(2))


def test_a_mean_by_day_is_the_mean_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    days, values = rng.integers(0, 20, 500), rng.normal(size=500)
    boot = DayBootstrap(days, block=3)
    fast, slow = boot.mean(values), boot.draws(lambda w: scores.mean(values, w))
    assert fast.point == pytest.approx(slow.point)
    assert fast.values == pytest.approx(slow.values)
    assert boot.mean(values**2).root().values == pytest.approx(
        [scores.mean(values**2, boot.weights(r)) ** 0.5 for r in range(len(boot))]
    )


def test_replicates_without_an_answer_are_left_out() -> None:
    # One day of eight has the only positives: a third of the replicates have none.
    days = np.repeat(np.arange(8), 5)
    label, score = (days == 0).astype(np.float32), np.random.default_rng(0).uniform(size=40)
    draws = DayBootstrap(days).draws(Ranking(label, score).auc)
    assert 0.2 < np.isnan(draws.values).mean() < 0.5
    assert np.isfinite([draws.scored().low, draws.scored().high]).all()


def test_a_single_day_has_no_interval() -> None:
    found = DayBootstrap(np.zeros(10, np.int64)).mean(np.arange(10.0)).scored()
    assert found.point == 4.5
    assert np.isnan([found.low, found.high]).all()


def test_nothing_can_be_said_of_a_metric_that_is_nowhere_defined() -> None:
    assert np.isnan(Draws(np.nan, np.full(10, np.nan)).scored().low)


def covered(*, by_day: bool, block: int = 1, echo: int = 1) -> float:
    """How often a 95 % interval of the mean holds the true one, 0: 60 days of 20 rows that share their day's number."""
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        shared = np.convolve(rng.normal(size=60 + echo - 1), np.ones(echo), "valid")
        days = np.repeat(np.arange(60), 20)
        values = shared[days] + rng.normal(size=len(days))
        boot = DayBootstrap(days if by_day else np.arange(len(days)), replicates=200, seed=seed, block=block)
        found = boot.mean(values).scored()
        hits += found.low <= 0 <= found.high
    return hits / 200


def test_intervals_over_days_cover_where_rows_share_their_day_and_intervals_over_rows_do_not() -> None:
    assert 0.90 <= covered(by_day=True) <= 0.99
    assert covered(by_day=False) < 0.5


def test_blocks_cover_better_where_neighbouring_days_share_their_numbers() -> None:
    single, blocks = covered(by_day=True, echo=5), covered(by_day=True, echo=5, block=10)
    assert single < 0.7
    assert blocks > 0.8


def test_a_thousand_replicates_of_forty_thousand_rows_take_seconds() -> None:
    rng = np.random.default_rng(0)
    label, p = rng.integers(0, 2, 40_000).astype(np.float32), rng.uniform(size=40_000)
    boot = DayBootstrap(np.repeat(np.arange(460), 87)[:40_000])
    ranking = Ranking(label, p)
    begin = time.process_time()
    boot.draws(ranking.auc)
    assert time.process_time() - begin < 5  # 0.4 s on a free core
