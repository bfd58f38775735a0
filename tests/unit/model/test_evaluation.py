"""Scores against numbers worked by hand."""

import numpy as np
import pytest

from model.evaluation import (
    Answers,
    auc,
    choose_thresholds,
    flags,
    interval_of,
    log_loss,
    mcc,
    metrics,
    platt,
    shrink_of,
    temperature,
)
from model.examples import Examples, make
from model.inputs import Inputs
from model.labels import HALF
from model.manifest import Interval, LabelRule, Thresholds
from tests.unit.model.series import table, walks

REGIME = LabelRule(rule="regime", look_ahead=HALF)
PAIR = Thresholds(falling_on=0.6, falling_off=0.4)


def y(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_auc_is_the_share_of_pairs_in_the_right_order_ties_half() -> None:
    assert auc(y(0, 0, 1, 1), np.array([0.1, 0.4, 0.35, 0.8])) == 0.75
    assert auc(y(0, 1, 0, 1), np.array([0.5, 0.5, 0.5, 0.5])) == 0.5
    assert auc(y(0, 1, 1), np.array([0.2, 0.2, 0.9])) == 0.75
    assert auc(y(1, 1), np.array([0.2, 0.3])) is None


def test_matthews_correlation() -> None:
    flag = np.array([True, True, True, False, False, False, False, False])
    assert mcc(y(1, 1, 0, 0, 0, 0, 1, 0), flag) == pytest.approx((2 * 4 - 1 * 1) / (3 * 3 * 5 * 5) ** 0.5)
    assert mcc(y(1, 0), np.array([True, True])) == 0


def test_log_loss_is_finite_even_when_certain_and_wrong() -> None:
    assert log_loss(y(1, 0), np.array([0.5, 0.25])) == pytest.approx((np.log(2) + np.log(4 / 3)) / 2)
    assert log_loss(y(1), np.array([0.0])) == pytest.approx(-np.log(1e-7))


def test_the_flag_turns_on_at_one_threshold_off_below_the_other_and_starts_off_for_each_stock() -> None:
    probability = np.array([0.5, 0.6, 0.5, 0.4, 0.39, 0.5, 0.7, 0.5, 0.9])
    stock = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1])
    expected = [False, True, True, True, False, False, True, False, True]
    assert flags(probability, stock, PAIR).tolist() == expected


def test_platt_finds_the_shift_and_stretch_that_were_put_in() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 2, 200_000)
    label = (rng.uniform(size=len(logit)) < 1 / (1 + np.exp(-(0.7 * logit - 0.5)))).astype(np.float32)
    found = platt(label, 1 / (1 + np.exp(-logit)))
    assert found.method == "platt"
    assert found.slope == pytest.approx(0.7, abs=0.02)
    assert found.intercept == pytest.approx(-0.5, abs=0.02)


def test_platt_never_turns_the_order_round() -> None:
    found = platt(y(1, 1, 0, 0), np.array([0.1, 0.2, 0.8, 0.9]))
    assert (found.method, found.slope, found.intercept) == ("identity", 1, 0)


def test_temperature_stretches_around_the_base_rate_of_training() -> None:
    rng = np.random.default_rng(0)
    middle = np.log(0.2 / 0.8)
    logit = middle + rng.normal(0, 2, 200_000)
    label = (rng.uniform(size=len(logit)) < 1 / (1 + np.exp(-(middle + 0.6 * (logit - middle))))).astype(np.float32)
    found = temperature(label, 1 / (1 + np.exp(-logit)), 0.2)
    assert (found.method, found.slope) == ("temperature", pytest.approx(0.6, abs=0.02))
    assert found.intercept == pytest.approx(middle * (1 - found.slope))
    noise = (rng.uniform(size=len(logit)) < 0.2).astype(np.float32)
    assert temperature(noise, 1 / (1 + np.exp(-logit)), 0.2).slope < 0.02


def test_temperature_finds_its_way_from_probabilities_that_are_far_too_sure() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 1, 100_000)
    label = (rng.uniform(size=len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    assert temperature(label, 1 / (1 + np.exp(-8 * logit)), 0.5).slope == pytest.approx(1 / 8, abs=0.01)
    assert temperature(label, 1 / (1 + np.exp(-logit / 20)), 0.5).slope == pytest.approx(20, abs=0.5)


def test_the_interval_leaves_a_twentieth_of_the_residuals_on_each_side() -> None:
    found = interval_of(np.append(np.arange(-99.0, 100), np.nan), 0.9, "held-out residuals")
    assert (found.low, found.high) == (-90, 90)  # the 190th of 199: (199 + 1) * 0.95


def test_the_interval_always_holds_the_forecast() -> None:
    found = interval_of(np.linspace(1, 2, 100), 0.9, "held-out residuals")
    assert found.low == 0
    assert found.high > 1.9


def with_a_dead_zone() -> tuple[Examples, np.ndarray]:
    """Examples of which two in five have no label, and probabilities that turn the flag off in between."""
    made = make(table(walks(6, 400)), LabelRule(rule="drop", look_ahead=1, threshold=0.01, dead_zone=0.01), Inputs(4))
    noise = np.random.default_rng(0).normal(0, 0.2, len(made))
    known = np.isfinite(made.label)
    assert 0.2 < np.mean(~known) < 0.6
    return made, np.clip(np.where(known, 0.4 + 0.4 * np.nan_to_num(made.label), 0.1) + noise, 0, 1)


def test_the_flag_that_is_measured_is_the_one_the_service_has_steps_without_a_label_included() -> None:
    made, probability = with_a_dead_zone()
    known = np.isfinite(made.label)
    flag, label = flags(probability, made.stock, PAIR), made.label[known] == 1
    assert (flag[known] != flags(probability[known], made.stock[known], PAIR)).any()
    interval = Interval(level=0.9, low=-1, high=1, source="held-out residuals")
    found = metrics(made, Answers(probability, np.zeros(len(made))), PAIR, interval, str)
    assert found.mcc == mcc(made.label[known], flag[known])
    flips = sum(int(np.sum(flag[made.stock == s][1:] != flag[made.stock == s][:-1])) for s in range(6))
    assert found.flips_per_1000 == pytest.approx(1000 * flips / len(made))
    pair = choose_thresholds(made, probability, 0.8)
    told = flags(probability, made.stock, pair)[known]
    assert pair.precision == (label & told).sum() / told.sum()
    assert pair.recall == (label & told).sum() / label.sum()
    assert pair.falling_off < pair.falling_on  # else the steps between would not matter


def test_thresholds_reach_the_wanted_precision_and_ride_out_what_flickers() -> None:
    made = make(table(walks(6, 400)), REGIME, Inputs(16))
    noise = np.random.default_rng(0).normal(0, 0.2, len(made))
    probability = np.clip(0.3 + 0.4 * np.nan_to_num(made.label) + noise, 0, 1)
    known = np.isfinite(made.label)
    recalls = []
    for wanted in (0.6, 0.8, 0.9):
        pair = choose_thresholds(made, probability, wanted)
        flag, label = flags(probability, made.stock, pair)[known], made.label[known] == 1
        assert pair.wanted_precision == wanted <= (label & flag).sum() / flag.sum() == pair.precision
        assert pair.recall == (label & flag).sum() / label.sum()
        recalls.append(pair.recall)
    assert recalls == sorted(recalls, reverse=True)
    single = Thresholds(falling_on=pair.falling_on, falling_off=pair.falling_on)
    flips = [np.sum(np.diff(flags(probability, made.stock, t).astype(int)) != 0) for t in (pair, single)]
    assert flips[0] <= flips[1]


def test_the_flag_goes_off_for_a_stock_that_never_moves() -> None:
    made = make(table(walks(6, 400)), REGIME, Inputs(16))
    noise = np.random.default_rng(0).normal(0, 0.2, len(made))
    probability = np.clip(0.3 + 0.4 * np.nan_to_num(made.label) + noise, 0, 1)
    for still in (0.2, 0.4, 0.5):
        assert choose_thresholds(made, probability, 0.8, still).falling_off > still
    assert choose_thresholds(made, probability, 0.8, 1.0) == choose_thresholds(made, probability, 0.8)


def test_a_precision_that_cannot_be_had_is_not_claimed() -> None:
    made = make(table(walks(6, 400)), REGIME, Inputs(16))
    pair = choose_thresholds(made, np.random.default_rng(0).uniform(size=len(made)), 0.95)
    assert pair.wanted_precision == 0.95
    assert pair.precision is not None
    assert pair.precision < 0.7


def test_noise_is_shrunk_to_no_forecast_and_a_sure_one_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    change, time = rng.standard_t(3, 40_000), np.arange(40_000) // 40
    assert shrink_of(change, rng.normal(0, 0.1, 40_000), time) < 0.02
    assert shrink_of(change + np.sin(np.arange(40_000)), np.sin(np.arange(40_000)), time) > 0.95
    assert shrink_of(change, np.zeros(40_000), time) == 0


def test_a_forecast_that_was_right_on_a_few_days_only_is_shrunk_more_than_one_that_often_was() -> None:
    day = np.arange(100).repeat(50)
    common = np.random.default_rng(1).normal(size=100)[day]  # all stocks of a day move together
    answer = np.where(day < 3, common, 0.05 * np.random.default_rng(2).normal(size=len(day)))
    alone = shrink_of(common, answer, np.arange(len(day)))
    together = shrink_of(common, answer, day)
    assert together < alone


def test_metrics_of_perfect_answers() -> None:
    made = make(table(walks(2, 100)), REGIME, Inputs(16))
    windows = made.windows()[:, :, 0]
    truth = (made.target - windows[:, -1]) / np.abs(np.diff(windows)).mean(axis=1)
    sure = np.nan_to_num(made.label).astype(np.float64)
    interval = Interval(level=0.9, low=-1e-9, high=1e-9, source="held-out residuals")
    found = metrics(made, Answers(sure, np.nan_to_num(truth)), PAIR, interval, str)
    assert found.examples == len(made) == 168  # 99 - 15 windows with a next value, of each stock
    assert found.labelled == 2 * (100 - 8 - 15)
    assert (found.auc, found.brier, found.mcc, found.coverage) == (1, 0, 1, 1)
    assert found.mae == pytest.approx(0, abs=1e-12)
    assert found.naive_mae == pytest.approx(np.mean(np.abs(truth)))
    assert found.base_rate == pytest.approx(np.nanmean(made.label))
    assert found.slope_auc is not None
    assert 0.5 < found.slope_auc < 1
