"""A candidate in shadow, and the live Brier score: exact numbers, worked out record by record in plain Python.

The log is cut in two: before the candidate came, and after. Each score belongs to an update after; what is scored is
what both versions said of the step that lies so far back that everything said of it can be judged."""

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from consumer.sandbox import EmbeddedRedis
from model import labels, versions
from model.manifest import LabelRule
from tests.support.broker import Broker
from tests.support.load import events
from tests.support.processes import wait_until
from tests.support.reference import Expected, expect
from tests.support.reference_model import KerasModel
from tests.support.service import Service
from tests.support.system import System
from tests.support.variants import variant

SEED, STOCKS, BEFORE, AFTER = 7_400, 8, 900, 400
AHEAD = 8  # of `regime`, the later one of the two rules
THRESHOLD = 0.005
EMBEDDED = {"partition.assignment.strategy": "range"}


@dataclass
class Shown:
    """The service's metrics, and what the reference makes of the same log."""

    service: Service
    active: Expected
    candidate: Expected
    first_offsets: dict[int, int]  # of the updates that came after the candidate

    def summary(self, name: str, **labels: str) -> tuple[float, float]:
        return self.service.metric(f"{name}_sum", **labels), self.service.metric(f"{name}_count", **labels)

    def judged(self) -> Iterator[tuple[tuple[int, str], int]]:
        """Stock and position of each step that a score is of."""
        for stock, history in self.active.histories.items():
            for at in range(len(history) - AHEAD):
                now = history[at + AHEAD]
                if history[at].outlook is not None and now.offset >= self.first_offsets[stock[0]]:
                    yield stock, at


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    variant(folder / "v1", seed=1)
    variant(folder / "v2", seed=2, label=LabelRule(rule="drop", look_ahead=1, threshold=THRESHOLD))
    versions.activate(folder, "v1")
    return folder


@pytest.fixture(scope="module")
def shown(
    embedded: Broker, shared_redis: EmbeddedRedis, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    active, candidate = KerasModel(models / "v1"), KerasModel(models / "v2")
    settings = {"model.path": str(models)}
    folder = tmp_path_factory.mktemp("shadow")
    load = events(SEED, STOCKS, trouble=0.03)
    with System(
        folder, embedded, shared_redis.url, active, partitions=2, consumer=EMBEDDED, settings=settings
    ) as system:
        service = system.worker().start().wait_ready(90)
        system.produce(list(itertools.islice(load, BEFORE)))
        system.wait_until_done()
        cut = system.broker.end_offsets(system.input_topic)
        versions.shadow(models, "v2")
        wait_until(
            lambda: service.metric("shadow_info", version=candidate.version) == 1,
            within=30,
            what=lambda: f"a candidate\n{service.process.tail()}",
        )
        system.produce(list(itertools.islice(load, AFTER)))
        system.wait_until_done()
        log = system.log()
        found = Shown(service, expect(log, active), expect(log, candidate), cut)
        scored = len(list(found.judged()))
        wait_until(
            lambda: service.metric("shadow_naive_abs_error_count") >= scored,
            within=20,
            what=lambda: f"{scored} scores, there are {service.metric('shadow_naive_abs_error_count')}",
        )
        yield found
        assert {json.loads(record.value or b"")["model"] for record in system.predictions()} == {active.version}


def test_both_are_scored_on_the_same_updates_in_the_same_unit(shown: Shown) -> None:
    sums: dict[str, list[float]] = defaultdict(list)
    hits = {"active": 0, "candidate": 0}
    for stock, at in shown.judged():
        history = shown.active.histories[stock]
        value, last = history[at + 1].event.values[0], history[at].event.values[0]
        said = {"active": history[at].outlook, "candidate": shown.candidate.histories[stock][at].outlook}
        assert said["active"] is not None
        unit = said["active"].scale
        sums["naive"].append(abs(value - last) / unit)
        for name, outlook in said.items():
            assert outlook is not None
            sums[name].append(abs(value - outlook.forecast) / unit)
            sums[f"{name} width"].append((outlook.high - outlook.low) / unit)
            hits[name] += outlook.low <= value <= outlook.high
    count = len(sums["naive"])
    assert count > AFTER / 2
    assert shown.summary("shadow_naive_abs_error") == (pytest.approx(math.fsum(sums["naive"]), rel=1e-9), count)
    for name in ("active", "candidate"):
        error, width = math.fsum(sums[name]), math.fsum(sums[f"{name} width"])
        assert shown.summary("shadow_forecast_abs_error", model=name) == (pytest.approx(error, rel=1e-4), count)
        assert shown.summary("shadow_interval_width", model=name) == (pytest.approx(width, rel=1e-4), count)
        assert shown.service.metric("shadow_interval_hits_total", model=name, hit="true") == hits[name]
        assert shown.service.metric("shadow_interval_hits_total", model=name, hit="false") == count - hits[name]
    assert math.fsum(sums["active"]) != pytest.approx(math.fsum(sums["candidate"]), rel=0.001)


def truths(shown: Shown, stock: tuple[int, str], at: int) -> dict[str, float]:
    """Of the step `at`: by the active version's rule, and by the candidate's."""
    values = np.array([update.event.values[0] for update in shown.active.histories[stock]])
    change = values[at + 1] / values[at] - 1
    return {"active": float(labels.regime(values, 32)[at]), "candidate": float(change <= -THRESHOLD)}


def test_each_is_judged_by_its_own_rule_once_both_can_be(shown: Shown) -> None:
    errors: dict[str, list[float]] = defaultdict(list)
    for stock, at in shown.judged():
        truth = truths(shown, stock, at)
        for name, fold in (("active", shown.active), ("candidate", shown.candidate)):
            outlook = fold.histories[stock][at].outlook
            assert outlook is not None
            errors[name].append((outlook.probability - truth[name]) ** 2)
    for name, squares in errors.items():
        found = shown.summary("shadow_falling_squared_error", model=name)
        assert found == (pytest.approx(math.fsum(squares), rel=1e-4), len(squares))


def test_the_live_brier_score_is_that_of_every_published_probability_that_can_be_judged(shown: Shown) -> None:
    squares = []
    for stock, history in shown.active.histories.items():
        for at, update in enumerate(history[:-AHEAD]):
            if update.outlook is not None:
                squares.append((update.outlook.probability - truths(shown, stock, at)["active"]) ** 2)
    assert len(squares) > BEFORE / 2
    assert shown.summary("falling_squared_error") == (pytest.approx(math.fsum(squares), rel=1e-4), len(squares))


def test_a_candidate_that_is_taken_back_leaves_nothing_behind(shown: Shown, models: Path) -> None:
    service = shown.service
    (models / "shadow").write_text("../v2\n")
    wait_until(
        lambda: service.metric("shadow_candidates_total", outcome="refused") == 1, within=30, what="a refused pointer"
    )
    wait_until(lambda: service.metric("shadow_info") == 0, within=5, what="no candidate")
    assert service.metric("shadow_naive_abs_error_count") == 0
    assert service.metric("shadow_candidates_total", outcome="accepted") == 1
    assert service.ready
