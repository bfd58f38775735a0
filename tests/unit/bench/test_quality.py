"""The measurements measure what they say: the benchmark's published counts and rules, and exact optima."""

from __future__ import annotations

import itertools
import math
from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from bench.quality import acl18, benchmark, forecast
from bench.quality.days import DayJudge, Days, by_day
from bench.quality.known import Ar, Switching, below, values
from model import scores
from model.inputs import Inputs


@pytest.fixture(scope="module")
def examples():
    prices = benchmark.table()
    return prices, benchmark.labelled(prices, Inputs(benchmark.WINDOW))


def part(examples, dates):
    prices, found = examples
    return found.take(benchmark.between(found, prices, dates))


@pytest.mark.parametrize(
    ("dates", "count", "days", "share_up"),
    [
        (benchmark.TRAIN, 20_288, 398, 0.507),
        (("2015-08-03", "2015-10-01"), 2_555, 42, 0.446),
        (benchmark.TEST, 3_720, 64, 0.513),
    ],
)
def test_the_examples_are_the_published_ones(examples, dates, count, days, share_up) -> None:
    found = part(examples, dates)
    assert len(found) == count
    assert len(np.unique(found.until)) == days
    assert np.mean(found.label == 0) == pytest.approx(share_up, abs=0.0005)


def test_the_rules_without_learning_score_as_published(examples) -> None:
    test = part(examples, benchmark.TEST)
    assert np.mean(test.label == 0) == pytest.approx(0.5129, abs=5e-5)
    days = by_day(test.until, test.label, benchmark.against_ten_days(test) == 1, None)
    ones = np.ones(64)
    assert days.accuracy(ones) == pytest.approx(0.5379, abs=5e-5)
    assert days.mcc(ones) == pytest.approx(0.0782, abs=5e-5)


def test_an_example_is_the_same_whatever_the_network_sees(examples) -> None:
    prices, found = examples
    other = benchmark.labelled(prices, Inputs(benchmark.WINDOW, ("value.return", "value.mean30")))
    np.testing.assert_array_equal(found.end, other.end)
    np.testing.assert_array_equal(found.label, other.label)


def test_every_training_example_is_held_out_once_and_shares_no_value_with_what_learns(examples) -> None:
    train = part(examples, benchmark.TRAIN)
    days, day = np.unique(train.until, return_inverse=True)
    folds = benchmark.folds(train)
    assert len(folds) == 4
    np.testing.assert_array_equal(sum(held.astype(int) for _, held in folds), 1)
    for learn, held in folds:
        # day t sees the values t-32 .. t-1 and its answer is made of t
        seen = {d - back for d in np.unique(day[learn]) for back in range(33)}
        asked = {d - back for d in np.unique(day[held]) for back in range(33)}
        assert not seen & asked
        assert len(np.unique(day[held])) in {99, 100}
    assert len(days) == 398


def test_no_block_is_calibrated_by_its_own_labels(monkeypatch) -> None:
    random = np.random.default_rng(2)
    found = acl18.data(Inputs(benchmark.WINDOW))
    said = {name: random.uniform(0.3, 0.7, len(part)) for name, part in found.columns.items()}
    before, base = acl18.calibrated(said)["cv"], acl18.constants()["cv"]
    train = found.train
    for _, held in benchmark.folds(train):
        assert base[held] == pytest.approx(np.mean(train.label[~held]))
        other = copy(found)
        other.columns = {**found.columns, "cv": replace(train, label=np.where(held, 1, train.label))}
        monkeypatch.setattr(acl18, "data", lambda _, other=other: other)
        np.testing.assert_array_equal(acl18.calibrated(said)["cv"][held], before[held])
        np.testing.assert_array_equal(acl18.constants()["cv"][held], base[held])


@pytest.mark.parametrize(("mean", "high", "missed"), [(-0.01, 0.02, "mean"), (-1e-12, 0.0, ""), (0.01, 0.02, "")])
def test_a_forecast_worse_than_the_last_value_misses_its_bar_however_wide_the_interval(mean, high, missed) -> None:
    skill = {"mean": mean, "low": -0.1, "high": high}
    row = {"name": "ours", "mae_skill": skill, "mse_skill": skill, "coverage": {"mean": 0.9}, "over": {}}
    found = forecast._bars({"data": "made up", "table": [row]})
    wanted = [f"made up, ours: {score} skill, {missed}" for score in ("MAE", "MSE")] if missed else []
    assert [bar["what"] for bar in found if not bar["met"]] == wanted


def test_scores_from_sums_by_day_are_those_of_the_rows() -> None:
    random = np.random.default_rng(1)
    day, label = random.integers(0, 9, 300), random.integers(0, 2, 300).astype(np.float32)
    said = random.random(300)
    days = by_day(day, label, said >= 0.5, said)
    weights = np.arange(9.0)
    rows = weights[day]
    cases = scores.confusion(label == 1, said >= 0.5)
    assert days.mcc(weights) == pytest.approx(scores.matthews(*(np.array(scores.mean(c, rows)) for c in cases)))
    assert days.log_loss(weights) == pytest.approx(scores.mean(scores.losses(label, said), rows))
    assert days.accuracy(weights) == pytest.approx(scores.mean((said >= 0.5) == (label == 1), rows))
    share = scores.mean(label, rows)
    assert days.majority(weights) == pytest.approx(max(share, 1 - share))
    base = scores.mean(scores.losses(label, np.full(300, float(np.mean(label)))), rows)
    assert days.excess(weights) == pytest.approx(days.log_loss(weights) - base)


def test_a_row_over_seeds_has_the_mean_of_their_scores_and_their_spread() -> None:
    right, wrong = (
        Days(*(np.array([v, v], float) for v in cells), np.zeros(2)) for cells in ((2, 0, 0, 2), (0, 2, 2, 0))
    )
    found = DayJudge(2, replicates=50).score([right, wrong], Days.accuracy)
    assert found["mean"] == 0.5
    assert found["sd"] == pytest.approx(math.sqrt(0.5))
    assert DayJudge(2, replicates=50).difference([right], [wrong], Days.mcc)["low"] == 2


def test_the_hamilton_filter_is_what_counting_all_paths_of_states_gives() -> None:
    process = Switching(drift=0.7, stay=0.85)
    changes = process.draw(np.random.default_rng(3), 2, 6)
    filtered = process.filtered(changes)
    for row, found in zip(changes, filtered, strict=True):
        for t in range(1, 7):
            weight = {True: 0.0, False: 0.0}
            for path in itertools.product((True, False), repeat=t + 1):  # states of steps 0 .. t, and of the next
                chance = 0.5
                for a, b in itertools.pairwise(path):
                    chance *= 0.85 if a == b else 0.15
                for state, change in zip(path, row[:t], strict=False):
                    chance *= math.exp(-((change - (0.7 if state else -0.7)) ** 2) / 2)
                weight[path[-1]] += chance
            assert found[t - 1] == pytest.approx(weight[True] / (weight[True] + weight[False]), rel=1e-12)


@pytest.mark.parametrize("process", [Ar(0.3), Ar(-0.4), Switching(0.75, 0.95)])
def test_the_optimum_is_calibrated_and_its_skill_is_what_theory_says(process) -> None:
    changes = process.draw(np.random.default_rng(4), 200, 1000)
    mean, chance = process.best(changes, 0.5)
    coming, mean, chance = changes[:, 1:], mean[:, :-1], chance[:, :-1]
    assert np.mean(coming - mean) == pytest.approx(0, abs=0.01)
    assert np.mean((coming - mean) * mean) == pytest.approx(0, abs=0.01)
    for low in np.arange(0.1, 0.6, 0.1):
        near = (chance >= low) & (chance < low + 0.1)
        if near.sum() > 2000:
            assert np.mean(coming[near] <= -0.5) == pytest.approx(np.mean(chance[near]), abs=0.02)
    if isinstance(process, Ar):
        skill = 1 - np.mean((coming - mean) ** 2) / np.mean(coming**2)
        assert skill == pytest.approx(process.phi**2, abs=0.01)


def test_values_grow_by_the_changes() -> None:
    np.testing.assert_allclose(values(np.array([[1.0, -2.0]])), [[100, 101, 101 * 0.98]])
    assert float(below(0.0)) == 0.5
    assert float(below(-1.6449)) == pytest.approx(0.05, abs=1e-4)
