"""Live scores against a plain reading of the same updates, however the log was cut into batches."""

import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from consumer.batch import Stager
from consumer.events import EventDecoder
from consumer.metrics import Metrics
from consumer.partition import Partition
from consumer.scoring import CHUNK, LINGER, Scoring, values_for_shadow
from consumer.stage import SCORE_CAP
from model import labels
from model.manifest import LabelRule
from model.predictor import Predictions
from state.history import History
from tests.unit.consumer.doubles import GIVEN, NOT_FINITE, Message, SlopeModel, event, meta, seated

DROP = LabelRule(rule="drop", look_ahead=1, threshold=0.1)
REGIME = LabelRule(rule="regime", look_ahead=8)
DEPTH = 64


class MeanModel(SlopeModel):
    """Looks five values back: forecasts their mean, ± 1; falling as likely as the share of values above the last."""

    window, reach, min_history = 5, 5, 5

    def predict(self, windows: NDArray[np.float64]) -> Predictions:
        windows = windows[:, -self.reach :]
        mean = windows[:, :, 0].mean(axis=1)
        share = (windows[:, :, 0] > windows[:, -1:, 0]).mean(axis=1)
        return Predictions(share.astype(np.float32), mean, mean - 1, mean + 1, np.full(len(windows), 7.0))


class SilentModel(MeanModel):
    """Has no finite answer to a window that ends in 11."""

    def predict(self, windows: NDArray[np.float64]) -> Predictions:
        found = super().predict(windows)
        return replace(found, high=np.where(windows[:, -1, 0] == 11, np.inf, found.high))


class BuggyModel(MeanModel):
    def predict(self, _: NDArray[np.float64]) -> Predictions:
        raise KeyError("no such thing")


@dataclass
class Live:
    """A partition under one version and, if it is given one, a candidate."""

    active: SlopeModel
    reach: int = 40
    now: float = 0.0
    partition: Partition = field(default_factory=seated)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.partition.history = History(self.reach, 1, DEPTH)
        self.stager = Stager(EventDecoder((), 200, 86_400), self.active, self.metrics, 100, 1_000)  # type: ignore[arg-type]  # models of our own
        self.scoring = Scoring(self.active, self.metrics, self.reach, lambda: self.now)  # type: ignore[arg-type]

    def take(self, *records: Message) -> None:
        parts = self.stager.stage([(self.partition, records)])
        self.scoring.take(parts)
        for partition, staged in parts:
            partition.history.fold(staged.admitted.updates, staged.entries)
            partition.next_offset = staged.next_offset
        self.scoring.settle()

    def told(self, name: str, **labels: str) -> float:
        found = self.metrics.registry.get_sample_value(f"downtick_{name}", labels)
        assert found is not None, name
        return found

    def summary(self, name: str, **labels: str) -> tuple[float, float]:
        return self.told(f"{name}_sum", **labels), self.told(f"{name}_count", **labels)


# --- a plain reading


@dataclass
class Step:
    """One update of a stock: its value, and what a model says of the values up to it."""

    offset: int
    value: float
    seen: list[float]

    def said(self, model: SlopeModel) -> Predictions | None:
        if len(self.seen) < model.min_history:
            return None
        found = model.predict(np.array(self.seen[-model.reach :]).reshape(1, -1, 1))
        return found if all(np.isfinite(getattr(found, name)).all() for name in ("forecast", "low", "high")) else None


def read(log: list[tuple[str, float]]) -> dict[str, list[Step]]:
    stocks: dict[str, list[Step]] = defaultdict(list)
    for offset, (stock, value) in enumerate(log):
        before = [step.value for step in stocks[stock]]
        stocks[stock].append(Step(offset, value, [*before, value]))
    return stocks


def truth_of(steps: list[Step], at: int, model: SlopeModel) -> float:
    """As training labels the whole series of the stock."""
    rule, values = model.manifest.label, np.array([step.value for step in steps])
    if rule.rule == "regime":
        return float(labels.regime(values, model.window)[at])
    if rule.rule == "drop" and at + 1 < len(values):
        assert rule.threshold is not None
        return float(labels.drop(values[at : at + 1], values[at + 1 : at + 2], rule.threshold, rule.dead_zone)[0])
    return math.nan


def brier(log: list[tuple[str, float]], model: SlopeModel, *, first: int = 0, since: int = 0) -> list[float]:
    """Of probabilities published from offset `since` on, whose truth came with an update from offset `first` on."""
    errors = []
    ahead = {"given": 0, "drop": 1, "regime": 8}[model.manifest.label.rule]
    for steps in read(log).values():
        for at, step in enumerate(steps):
            said, truth = step.said(model), truth_of(steps, at, model)
            if said is None or math.isnan(truth) or step.offset < since or steps[at + ahead].offset < first:
                continue
            errors.append((float(said.probability[0]) - truth) ** 2)
    return errors


def comparison(log: list[tuple[str, float]], active: SlopeModel, candidate: SlopeModel, lag: int) -> dict[str, Any]:
    """Both models on every update whose stock has, `lag` steps earlier, a prediction of each."""
    found: dict[str, list[float]] = defaultdict(list)
    for steps in read(log).values():
        for at in range(len(steps) - lag):
            ours, theirs = steps[at].said(active), steps[at].said(candidate)
            if ours is None or theirs is None or at + lag < values_for_shadow(active, candidate) - 1:  # type: ignore[arg-type]
                continue
            value, last, unit = steps[at + 1].value, steps[at].value, float(ours.scale[0])
            found["naive"].append(min(abs(value - last) / unit, SCORE_CAP))
            truths = {}
            for name, said, model in (("active", ours, active), ("candidate", theirs, candidate)):
                found[f"{name} error"].append(min(abs(value - float(said.forecast[0])) / unit, SCORE_CAP))
                found[f"{name} width"].append(float(said.high[0] - said.low[0]) / unit)
                found[f"{name} hit"].append(float(said.low[0] <= value <= said.high[0]))
                if model.manifest.label.rule != "given":
                    truths[name] = (float(said.probability[0]), truth_of(steps[: at + lag + 1], at, model))
            if truths and not any(math.isnan(truth) for _, truth in truths.values()):
                for name, (probability, truth) in truths.items():
                    found[f"{name} brier"].append((probability - truth) ** 2)
    return found


def messages(log: list[tuple[str, float]]) -> list[Message]:
    return [event(stock, value, offset, offset) for offset, (stock, value) in enumerate(log)]


def in_batches(live: Live, log: list[tuple[str, float]], cuts: list[int]) -> None:
    records = messages(log)
    ends = sorted({cut for cut in cuts if 0 < cut < len(log)} | {len(log)})
    for start, end in zip([0, *ends], ends, strict=False):
        live.take(*records[start:end])
    live.scoring.settle(everything=True)


values = st.sampled_from([1.0, 2.0, 2.5, 4.0, 7.5, 9.0, 10.0, NOT_FINITE])
logs = st.lists(st.tuples(st.sampled_from("AB"), values), min_size=1, max_size=90)
cuts = st.lists(st.integers(1, 90), max_size=8)
rules = st.sampled_from([GIVEN, DROP, REGIME])


@settings(max_examples=150, deadline=None)
@given(logs, cuts, rules)
def test_the_brier_score_is_that_of_the_published_probabilities(
    log: list[tuple[str, float]], cuts: list[int], rule: LabelRule
) -> None:
    live = Live(SlopeModel(label=rule))
    in_batches(live, log, cuts)
    wanted = brier(log, live.active)
    assert live.summary("falling_squared_error") == (pytest.approx(math.fsum(wanted)), len(wanted))


@settings(max_examples=150, deadline=None)
@given(logs, cuts, rules, rules)
def test_the_shadow_is_compared_on_the_very_updates_that_the_active_version_predicted(
    log: list[tuple[str, float]], cuts: list[int], rule: LabelRule, other: LabelRule
) -> None:
    active, candidate = SlopeModel(label=rule), MeanModel("v2", other)
    live = Live(active)
    live.scoring.challenge(candidate)  # type: ignore[arg-type]
    in_batches(live, log, cuts)
    wanted = comparison(log, active, candidate, 8 if REGIME in {rule, other} else 1)

    def total(name: str) -> tuple[float, int]:
        return pytest.approx(math.fsum(wanted[name]), rel=1e-6), len(wanted[name])  # type: ignore[return-value]

    assert live.summary("shadow_naive_abs_error") == total("naive")
    for model in ("active", "candidate"):
        assert live.summary("shadow_forecast_abs_error", model=model) == total(f"{model} error")
        assert live.summary("shadow_interval_width", model=model) == total(f"{model} width")
        assert live.summary("shadow_falling_squared_error", model=model) == total(f"{model} brier")
        assert live.told("shadow_interval_hits_total", model=model, hit="true") == sum(wanted[f"{model} hit"])
        misses = len(wanted["naive"]) - sum(wanted[f"{model} hit"])
        assert live.told("shadow_interval_hits_total", model=model, hit="false") == misses


def falling_log(count: int) -> list[tuple[str, float]]:
    return [("A", float(value)) for value in np.random.default_rng(3).uniform(1, 9, count).round(2)]


def test_what_is_restored_is_not_scored_and_settles_what_comes_after() -> None:
    live = Live(SlopeModel(label=DROP))
    live.partition.output_from = 20
    log = falling_log(40)
    in_batches(live, log, [13, 27])
    wanted = brier(log, live.active, first=20)
    assert live.summary("falling_squared_error") == (pytest.approx(math.fsum(wanted)), 20)


def test_what_another_version_said_is_not_scored_as_this_ones() -> None:
    live = Live(SlopeModel(label=REGIME))
    live.partition.model_from = 25  # a swap, or a start with another version than Redis names
    log = falling_log(60)
    in_batches(live, log, [30])
    wanted = brier(log, live.active, since=25)
    assert live.summary("falling_squared_error") == (pytest.approx(math.fsum(wanted)), 60 - 8 - 25)


def test_a_new_active_version_is_scored_by_its_own_rule_from_its_first_prediction_on() -> None:
    live = Live(SlopeModel(label=DROP))
    log = falling_log(60)
    live.take(*messages(log)[:30])
    after = MeanModel("v2", REGIME)
    live.scoring.follow(after)  # type: ignore[arg-type]
    live.stager.predictor = after  # type: ignore[assignment]
    live.partition.adopt("v2", live.partition.encoder)
    live.take(*messages(log)[30:])
    live.scoring.settle(everything=True)
    wanted = brier(log[:30], live.active) + brier(log, after, since=30)
    assert live.summary("falling_squared_error") == (pytest.approx(math.fsum(wanted)), 27 + 22)


def test_memory_that_is_too_short_for_the_score_is_told_once_and_nothing_is_scored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    live = Live(SlopeModel(label=REGIME), reach=10)
    live.scoring.follow(SlopeModel("v2", REGIME))  # type: ignore[arg-type]
    in_batches(live, falling_log(40), [])
    assert live.summary("falling_squared_error") == (0, 0)
    [record] = caplog.records
    assert record.getMessage() == (
        "the live score of the falling probability needs 17 values of each stock, memory holds 10: raise history.depth "
        "to have it"
    )


def test_rows_wait_for_company_but_not_for_long() -> None:
    live = Live(SlopeModel(label=DROP))
    log = falling_log(CHUNK + 10)
    live.take(*messages(log)[:10])
    assert live.summary("falling_squared_error")[1] == 0
    live.now = LINGER
    live.scoring.settle()
    assert live.summary("falling_squared_error")[1] == 7
    live.take(*messages(log)[10:])
    assert live.summary("falling_squared_error")[1] == 7 + CHUNK


def test_another_candidate_begins_at_nothing_and_is_named() -> None:
    live = Live(SlopeModel(label=DROP))
    live.scoring.challenge(MeanModel("v2", DROP))  # type: ignore[arg-type]
    in_batches(live, falling_log(40), [20])
    assert live.summary("shadow_naive_abs_error")[1] == 40 - values_for_shadow(live.active, MeanModel("v2", DROP)) + 1  # type: ignore[arg-type]
    live.scoring.challenge(MeanModel("v3", DROP))  # type: ignore[arg-type]
    assert live.summary("shadow_naive_abs_error") == (0, 0)
    assert live.told("shadow_interval_hits_total", model="candidate", hit="true") == 0
    assert live.told("shadow_info", version="v3") == 1
    assert live.metrics.registry.get_sample_value("downtick_shadow_info", {"version": "v2"}) is None
    assert live.told("shadow_candidates_total", outcome="accepted") == 2


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        (SilentModel("v2", DROP), "it gave no finite numbers for a window"),
        (BuggyModel("v2", DROP), "scoring it failed"),
    ],
)
def test_a_candidate_that_fails_is_let_go_and_everything_else_goes_on(
    candidate: SlopeModel, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    live = Live(SlopeModel(label=DROP))
    live.scoring.challenge(candidate)  # type: ignore[arg-type]
    log = [*falling_log(30), ("A", 11.0), *falling_log(30)]
    in_batches(live, log, [40])
    wanted = brier(log, live.active)
    assert live.summary("falling_squared_error") == (pytest.approx(math.fsum(wanted)), len(wanted))
    assert live.scoring.candidate is None
    assert live.told("shadow_candidates_total", outcome="failed") == 1
    assert live.summary("shadow_naive_abs_error") == (0, 0)
    assert caplog.records[-1].getMessage() == (
        f"the candidate v2 is out of the shadow: {why}; `downtick models shadow` takes another one"
    )


def test_a_partition_is_seated_with_what_its_version_may_have_said() -> None:
    """Redis names the version: the same one is scored over a restart, another one is not."""
    assert seated().model_from == 0
    partition = seated(next_offset=5)
    partition.adopt("v2", partition.encoder)
    assert (partition.model_from, partition.target.model, partition.applied) == (5, "v2", False)
    partition.stored = replace(meta(4), model="v2")
    assert partition.applied
