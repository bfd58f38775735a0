"""A bundle measured end to end, on small made-up prices: every part against numbers computed another way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model import compared_forecast, evaluation, labels
from model.comparison import measure
from model.dataset import Table, read
from model.evaluation import flags
from model.examples import make
from model.manifest import Architecture
from model.measured import METRICS, Measured, Number, Row, outcome
from model.predictor import Predictor
from model.train import Recipe, train
from model.verdict import headline, sentences
from tests.unit.model.series import DAY, table, walks

for needed in ("lightgbm", "sklearn", "statsforecast"):
    pytest.importorskip(needed)

SEED = Path(__file__).parents[3] / "model" / "data" / "seed.csv"
RECIPE = Recipe("regime", window=8, epochs=2, borders=(120 * DAY, 170 * DAY), architecture=Architecture(units=4))
NUMBERS = Number(point=0.1, low=0.05, high=0.2)


def prices() -> Table:
    return table(walks(6, 240))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    out = tmp_path_factory.mktemp("model") / "bundle"
    train(prices(), RECIPE, out)
    return Predictor.load(out)


@pytest.fixture(scope="module")
def found(predictor: Predictor) -> Measured:
    return measure(predictor, prices(), replicates=50)


def row(rows: tuple[Row, ...], name: str) -> Row:
    return next(r for r in rows if r.name == name)


def test_every_baseline_is_there_the_bundle_first(found: Measured) -> None:
    assert found.flag is not None
    assert found.forecast is not None
    assert found.interval is not None
    names = [[r.name for r in part.models] for part in (found.flag, found.forecast, found.interval)]
    assert names == [
        ["bundle", "majority", "slope", "logistic", "boosted", "dense"],
        ["bundle", "naive", "drift", "ets", "theta", "dense"],
        ["bundle", "scale", "constant", "ewma"],
    ]
    assert (found.held.test_from, found.held.validation_from, found.held.held_out) == ("1970-06-20", "1970-05-01", True)
    assert found.held.same_data
    assert found.held.rows == 6 * (240 - 170 - 1)
    assert found.notes == ()
    assert (found.flag.sample.unit, found.flag.sample.block) == ("day", 15)  # a quarter of 62 days, not the 17 wanted
    assert {name for part in names for name in part} - {"bundle"} == {v.baseline for v in found.verdicts}


def test_stocks_that_begin_as_zeros_are_measured(predictor: Predictor) -> None:
    values = walks(6, 240)
    values *= 2 / values.max()  # a first price of about 2 is a finite change yet, of 1e308 scales
    for stock, first in enumerate((60, 130, 180, 200)):
        values[stock, :first] = 0
    found = measure(predictor, table(values), replicates=50)
    assert found.forecast is not None
    for one in found.forecast.models:
        assert all(np.isfinite(number.point) for number in one.scores.values()), one.name


def test_labels_given_of_many_later_steps_are_drawn_in_runs_of_as_many(tmp_path: Path) -> None:
    data = prices()
    given = tuple(
        replace(s, labels=np.where(np.arange(240) % 20 < 9, np.float32(1), np.float32(0))) for s in data.series
    )
    data = replace(data, series=given)
    train(data, replace(RECIPE, rule="given", look_ahead=12), tmp_path / "b")
    found = measure(Predictor.load(tmp_path / "b"), data, replicates=50)
    assert found.flag is not None
    assert found.flag.sample.block == 12


def test_the_scores_of_the_bundle_are_those_of_what_the_predictor_says(predictor: Predictor, found: Measured) -> None:
    manifest = predictor.manifest
    made = make(prices(), manifest.label, manifest.inputs)
    later = made.take(made.time >= 120 * DAY)
    said = predictor.predict(later.windows())
    test = later.time >= 170 * DAY
    flag = flags(said.probability.astype(np.float64), later.stock, manifest.thresholds)  # chained since validation
    at = test & np.isfinite(later.label)
    assert found.flag is not None
    scores = row(found.flag.models, "bundle").scores
    assert scores["auc"].point == pytest.approx(evaluation.auc(later.label[at], said.probability[at].astype(float)))
    assert scores["mcc"].point == pytest.approx(evaluation.mcc(later.label[at], flag[at]))
    assert scores["brier"].point == pytest.approx(np.mean((said.probability[at] - later.label[at]) ** 2))

    at = test & np.isfinite(later.target)
    error = np.abs(later.target - said.forecast)[at] / said.scale[at]
    last = later.series[later.end, 0]
    naive = np.abs(later.target - last)[at] / said.scale[at]
    assert found.forecast is not None
    forecast = row(found.forecast.models, "bundle").scores
    assert forecast["mae"].point == pytest.approx(error.mean())
    assert forecast["mae_ratio"].point == pytest.approx(error.mean() / naive.mean())
    assert forecast["rmse"].point == pytest.approx(np.sqrt((error**2).mean()))
    inside = (later.target >= said.low) & (later.target <= said.high)
    assert found.interval is not None
    assert row(found.interval.models, "bundle").scores["coverage"].point == pytest.approx(inside[at].mean())


def test_the_baselines_that_can_be_worked_by_hand_are(found: Measured) -> None:
    data = prices()
    assert found.flag is not None
    assert found.forecast is not None
    majority = row(found.flag.models, "majority").scores
    assert (majority["auc"].point, majority["mcc"].point) == (0.5, 0)
    assert majority["pr_auc"].point == pytest.approx(found.flag.base_rate)
    slopes, truth = [], []
    for series in data.series:
        values = series.values[:, 0]
        slopes.append(labels.trailing_slope(values, 8)[170:])
        truth.append(labels.regime(values, 8)[170:])
    slope, label = np.concatenate(slopes), np.concatenate(truth)
    known = np.isfinite(label)
    expected = evaluation.auc(label[known], -slope[known])
    assert row(found.flag.models, "slope").scores["auc"].point == pytest.approx(expected)
    # MASE of the naive forecast: its error over the mean step of the training part, stock by stock.
    ratios = []
    for series in data.series:
        values = series.values[:, 0]
        ratios.append(np.abs(np.diff(values[170:])) / np.abs(np.diff(values[:120])).mean())
    naive = row(found.forecast.models, "naive").scores
    assert naive["mase"].point == pytest.approx(np.mean(ratios))
    assert (naive["mae_ratio"].point, naive["rmse_ratio"].point) == (1, 1)


def test_differences_are_the_bundle_minus_the_baseline_and_lie_within_their_interval(found: Measured) -> None:
    for part in (found.flag, found.forecast, found.interval):
        assert part is not None
        own = part.models[0]
        assert own.against == {}
        for other in part.models[1:]:
            for name, difference in other.against.items():
                assert difference.point is not None
                if other.rows == own.rows and name in own.scores:
                    expected = (own.scores[name].point or 0) - (other.scores[name].point or 0)
                    assert difference.point == pytest.approx(expected, abs=1e-12), (other.name, name)
                assert difference.low is not None
                assert difference.high is not None
                assert difference.low <= difference.high
            assert set(other.scores) <= set(METRICS)


def test_the_same_seed_gives_the_same_numbers(predictor: Predictor, found: Measured) -> None:
    again = measure(predictor, prices(), replicates=50)
    assert again.model_dump_json() == found.model_dump_json()


def test_the_json_is_the_whole_of_it_and_reads_back(found: Measured) -> None:
    assert Measured.model_validate_json(found.model_dump_json()) == found


def test_a_flag_that_knows_the_label_beats_every_baseline_and_that_is_said(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prices()
    truth = np.concatenate([np.nan_to_num(labels.regime(s.values[:, 0], 8)) for s in data.series])
    ends = {
        tuple(s.values[end - 7 : end + 1, 0]): truth[240 * n + end]
        for n, s in enumerate(data.series)
        for end in range(7, 240)
    }
    honest = predictor.predict

    def knowing(windows: np.ndarray) -> object:
        known = np.array([ends[tuple(w[:, 0])] for w in windows])
        return replace(honest(windows), probability=(0.05 + 0.9 * known).astype(np.float32))

    monkeypatch.setattr(predictor, "predict", knowing)
    found = measure(predictor, data, replicates=50)
    assert found.better_than_all("flag") is True
    assert found.flag is not None
    assert found.flag.models[0].scores["auc"].point == 1
    assert "the flag beats 5 of 5" in headline(found)
    assert found.flag.lead is not None
    assert found.flag.lead.bundle.found == found.flag.lead.stretches
    assert found.flag.lead.bundle.precision == 1


def test_rows_behind_the_bundle_are_scored_without_baselines_that_learn(predictor: Predictor) -> None:
    data = table(walks(6, 60, seed=3))
    later = replace(data, series=tuple(replace(s, times=s.times + 300 * DAY) for s in data.series), sha256="1" * 64)
    found = measure(predictor, later, replicates=20)
    assert found.flag is not None
    assert found.forecast is not None
    assert found.interval is not None
    assert [r.name for r in found.flag.models] == ["bundle", "majority", "slope"]
    assert set(row(found.flag.models, "slope").scores) == {
        "auc",
        "pr_auc",
    }  # without validation: no threshold, no Platt
    assert [r.name for r in found.forecast.models] == ["bundle", "naive", "drift"]
    assert [r.name for r in found.interval.models] == ["bundle"]
    assert found.flag.lead is None
    assert not found.held.same_data
    assert found.held.held_out


def test_the_seed_table_is_measured_and_nothing_is_claimed_of_it(tmp_path: Path) -> None:
    data = read([SEED])
    train(data, Recipe("given", epochs=20), tmp_path / "bundle")
    found = measure(Predictor.load(tmp_path / "bundle"), data, replicates=20)
    assert headline(found).startswith("measured on what it was trained on, which says nothing about new data")
    assert found.flag is not None
    assert (found.flag.sample.unit, found.flag.sample.rows) == ("stock", 5)
    assert sentences(found)[0].startswith("flag: ROC-AUC 1.000")
    # Stocks have no order in time, which is what Diebold and Mariano's test is of.
    assert found.forecast is not None
    assert found.forecast.sample.unit == "stock"
    assert [(r.absolute, r.squared) for r in found.forecast.models] == [(None, None)] * len(found.forecast.models)


def test_of_too_many_stocks_some_are_drawn_for_the_slow_methods_and_that_is_told(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compared_forecast, "MOST_FORECASTS", 3 * 70)
    found = measure(predictor, prices(), replicates=20)
    assert found.forecast is not None
    ets = row(found.forecast.models, "ets")
    assert ets.note.endswith("3 of 6 stocks")
    assert ets.rows == 3 * 69
    assert row(found.forecast.models, "naive").rows == 6 * 69


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("auc", 0.01, 0.02, "better"),
        ("auc", -0.02, -0.01, "worse"),
        ("mae", -0.02, -0.01, "better"),
        ("mae", 0.01, 0.02, "worse"),
        ("mae", -0.01, 0.02, "not told apart"),
        ("mae", 0.0, 0.02, "not told apart"),
        ("mae", 0.0, 0.0, "the same"),
        ("width", 0.01, 0.02, "not told apart"),
        ("auc", None, None, "not told apart"),
    ],
)
def test_what_a_difference_says(metric: str, low: float | None, high: float | None, expected: str) -> None:
    assert outcome(metric, Number(point=0.0, low=low, high=high)) == expected
