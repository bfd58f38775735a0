"""What an operator sees while the service runs into faults: every query of every panel, annotation and alert is put to
a real Prometheus that scrapes real workers on Apache Kafka; each returns data, those about a fault change under it,
and each alert fires once.

One life in chapters, each a snapshot: calm, then seven faults, then the end."""

import functools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from consumer.sandbox import EmbeddedRedis
from deploy.grafana import dashboards
from model import versions
from model.manifest import Interval
from tests.support.broker import Broker
from tests.support.grafana import Asked, queries
from tests.support.load import Event
from tests.support.processes import wait_until
from tests.support.prometheus import DEPLOYED, RANGE, Prometheus, Samples
from tests.support.reference_model import KerasModel
from tests.support.service import Service
from tests.support.system import System
from tests.support.variants import shipped, variant

SEED, STOCKS, RATE, PARTITIONS = 4_100, 20, 400, 6
MAX_CONSECUTIVE = 200
DOCUMENTS = [json.loads(path.read_text()) for path in sorted(dashboards.FOLDER.glob("*.json"))]
ASKED = queries(DOCUMENTS, annotations=True)
MARKS = {"Model change", "Rebalance"}  # annotations: empty until it happens
NAMES = [
    rule["alert"]
    for group in yaml.safe_load((DEPLOYED / "rules" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]


@dataclass
class Seen:
    """What Prometheus said in a chapter."""

    answers: dict[Asked, Samples]
    fired: set[str]

    def panel(self, title: str, **labels: str) -> float:
        """The greatest value of a panel; -inf where it is empty."""
        found = [
            value
            for asked, samples in self.answers.items()
            for has, value in samples.items()
            if asked.panel == title and labels.items() <= dict(has).items()
        ]
        return max(found, default=float("-inf"))

    def labels(self, title: str, label: str) -> set[str]:
        """Its values in a panel's series that are not zero."""
        samples = [samples for asked, samples in self.answers.items() if asked.panel == title]
        return {dict(has)[label] for one in samples for has, value in one.items() if value}


@dataclass
class Life:
    """The system, Prometheus, and what was seen so far."""

    system: System
    prometheus: Prometheus
    redis: EmbeddedRedis
    models: Path
    seen: dict[str, Seen] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def worker(self, name: str, **settings: str) -> Service:
        return self.system.worker(name).start(**settings)

    def until(self, chapter: str, *alerts: str, also: Callable[[], bool] = lambda: True, within: float = 120) -> None:
        """Until these alerts fire, and `also` holds; then the snapshot."""
        firing: set[str] = set()

        def there() -> bool:
            firing.clear()
            firing.update(self.prometheus.firing())
            return set(alerts) <= firing and also()

        wait_until(there, within=within, what=lambda: f"{chapter}: {alerts}; firing: {firing}", every=0.25)
        print(f"{chapter}: after {time.monotonic() - self.began:.0f} s")
        self.seen[chapter] = Seen({asked: self.prometheus.ask(asked.filled(RANGE)) for asked in ASKED}, firing)

    def value(self, expr: str) -> float:
        """The only sample, or the greatest; -inf for none."""
        return max(self.prometheus.ask(expr).values(), default=float("-inf"))

    def refuse(self, count: int, key: bytes) -> None:
        """Updates that are no JSON, all on one partition."""
        self.system.produce([Event(key, b"not json")] * count)


@pytest.fixture(scope="module")
def life(apache: Broker, model: KerasModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("monitoring")
    models = folder / "models"
    shipped(models / "good")
    narrow = Interval(level=0.9, low=-0.05, high=0.05, source="held-out residuals")
    variant(models / "bad", seed=1, interval=narrow, restless=3.0)
    variant(models / "candidate", seed=2)
    versions.activate(models, "good")
    versions.shadow(models, "candidate")
    settings = {"model.path": str(models), "dead_letters.max_consecutive": str(MAX_CONSECUTIVE)}
    with (
        EmbeddedRedis(folder / "redis", durable=True) as redis,
        System(folder, apache, redis.start().url, model, partitions=PARTITIONS, settings=settings) as system,
        Prometheus(folder / "prometheus", {name: system.worker(name).port for name in ("one", "two")}) as prometheus,
    ):
        yield Life(system, prometheus, redis, models)


@pytest.fixture(scope="module")
def seen(life: Life) -> dict[str, Seen]:
    one = life.worker("one").wait_ready()  # before the load: what waits for a worker's start is late, and not calm
    with life.system.load(seed=SEED, stocks=STOCKS, rate=RATE, trouble=0) as load:
        _calm(life, one)
        _rebalance(life)
        _refused(life)
        _model_change(life)
        _paused(life)
        _redis_away(life)
        load.finish()
    _restore(life)
    _behind(life)
    _restarting(life)
    _no_worker(life)
    return life.seen


def _calm(life: Life, one: Service) -> None:
    """One worker, its load, a candidate in shadow."""

    def settled() -> bool:
        asked = [asked for asked in ASKED if asked.panel not in MARKS]
        return (
            not life.prometheus.firing() - {"DowntickNotReady"}
            and one.ready
            and all(life.prometheus.ask(a.filled(RANGE)) for a in asked)
            and life.value(f"sum(rate(downtick_events_consumed_total[{RANGE}]))") > 0.8 * RATE
            and life.value(f"sum(increase(downtick_rebalances_total[{RANGE}]))") == 0
        )

    life.until("calm", also=settled)
    wait_until(lambda: not life.prometheus.firing(), within=30, what="no alert in calm weather")
    life.until("calm", also=settled)


def _rebalance(life: Life) -> None:
    life.worker("two").wait_ready()
    both = "count(downtick_assigned_partitions > 0) == 2"
    life.until("rebalance", also=lambda: life.value(both) == 2 and life.value("sum(downtick_ready)") == 2)


def _refused(life: Life) -> None:
    """Fewer in a row than pause a partition."""
    life.refuse(MAX_CONSECUTIVE - 50, b"AAPL")
    life.until("refused", "DowntickDeadLetters")


def _model_change(life: Life) -> None:
    versions.activate(life.models, "bad")
    swapped = 'sum(downtick_model_swaps_total{outcome="activated"})'
    wait_until(lambda: life.value(swapped) == 2, within=30, what="both workers take the new version over")
    life.until("model change", "DowntickForecastWorseThanNaive", "DowntickIntervalCoverageOff")


def _paused(life: Life) -> None:
    life.refuse(3 * MAX_CONSECUTIVE, b"BAD")
    life.until("paused", "DowntickPartitionPaused", "DowntickNotReady")


def _redis_away(life: Life) -> None:
    os.kill(life.redis.child.pid, signal.SIGSTOP)
    life.until(
        "Redis away",
        "DowntickStalled",
        "DowntickNotReady",
        also=lambda: life.value("sum(downtick_redis_errors_total)") > 0,
    )
    os.kill(life.redis.child.pid, signal.SIGCONT)


def _restore(life: Life) -> None:
    """All histories lost: one worker, with little in hand at a time, reads them from the log again."""
    for name in ("one", "two"):
        life.system.worker(name).kill()
    life.system.redis.flushall()
    versions.activate(life.models, "good")
    one = life.worker("one", batch__max_events="16", dead_letters__max_consecutive="1000000")
    life.until("restore", "DowntickRestoreRunsLong", within=90)
    one.wait_ready()
    one.terminate()


def _behind(life: Life) -> None:
    """One transaction an update, and more comes than that can take."""
    life.worker("one", batch__max_events="1", dead_letters__max_consecutive="1000000")
    with life.system.load(seed=SEED, stocks=STOCKS, rate=4_000):
        life.until("behind", "DowntickFallingBehind", "DowntickSlow", within=120)


def _restarting(life: Life) -> None:
    """Killed as soon as it answers, again and again."""
    started = 'process_start_time_seconds{instance="one"}'
    for _ in range(2):
        life.system.worker("one").kill()
        before = life.value(f"max_over_time({started}[1m])")
        life.worker("one")
        wait_until(functools.partial(_above, life, started, before), within=60, what="a scrape of the new one")
    life.until("restarting", "DowntickRestarting")


def _above(life: Life, expr: str, value: float) -> bool:
    return life.value(expr) > value


def _no_worker(life: Life) -> None:
    life.system.worker("one").terminate()
    life.until("no worker", "DowntickNoWorkerUp")
    assert life.prometheus.rules_in_trouble() == []


def test_every_query_of_every_panel_returns_data(seen: dict[str, Seen]) -> None:
    calm = seen["calm"].answers
    assert [str(asked) for asked in ASKED if asked.panel not in MARKS and not calm[asked]] == []


def test_no_alert_fires_in_calm_weather(seen: dict[str, Seen]) -> None:
    assert seen["calm"].fired == set()


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_fires_once_its_fault_is_there(seen: dict[str, Seen], name: str) -> None:
    assert name in {name for chapter in seen.values() for name in chapter.fired}


@pytest.mark.parametrize("title", ["Dead letters", "Dead letters by reason"])
def test_refused_updates_are_seen(seen: dict[str, Seen], title: str) -> None:
    assert seen["calm"].panel(title) == 0
    assert seen["refused"].panel(title) > 1


def test_a_rebalance_is_seen(seen: dict[str, Seen]) -> None:
    calm, after = seen["calm"], seen["rebalance"]
    assert calm.panel("Rebalances") == 0
    assert after.panel("Rebalances") >= 1
    assert after.panel("Rebalance") >= 1  # the annotation
    assert calm.panel("Partitions by worker", instance="one") == PARTITIONS
    assert after.panel("Partitions by worker", instance="one") == PARTITIONS / 2
    assert calm.labels("Updates handled by worker", "instance") == {"one"}
    assert after.panel("Workers") == 2


def test_a_model_change_is_seen(seen: dict[str, Seen]) -> None:
    calm, after = seen["calm"], seen["model change"]
    assert calm.panel("Model changes") == 0
    assert after.panel("Model changes", outcome="activated") > 0
    assert after.labels("Model version", "version").isdisjoint(calm.labels("Model version", "version"))
    assert after.labels("Model change", "version") == after.labels("Model version", "version")  # the annotation


@pytest.mark.parametrize("title", ["Error in naive's", "Forecast error in naive's"])
def test_a_bad_model_is_seen_in_its_error(seen: dict[str, Seen], title: str) -> None:
    assert seen["calm"].panel(title) == pytest.approx(1, abs=0.02)  # the shipped forecast is the last value
    assert seen["model change"].panel(title) > 1.05


def test_a_bad_model_is_seen_in_its_coverage(seen: dict[str, Seen]) -> None:
    assert 0.8 < seen["calm"].panel("Values inside the interval") < 0.97
    assert seen["model change"].panel("Values inside the interval") < 0.8


def test_a_paused_partition_is_seen(seen: dict[str, Seen]) -> None:
    assert seen["calm"].panel("Paused partitions") == 0
    assert seen["paused"].panel("Paused partitions") == 1


def test_redis_away_is_seen(seen: dict[str, Seen]) -> None:
    calm, away = seen["calm"], seen["Redis away"]
    assert calm.panel("Redis calls that failed") == 0
    assert away.panel("Redis calls that failed") > 0
    assert calm.panel("Updates in") > RATE / 2
    assert away.panel("Updates in") == 0
    assert away.panel("Workers") == 2  # both answer, none is ready


def test_a_restore_is_seen(seen: dict[str, Seen]) -> None:
    assert seen["calm"].panel("Records to restore") == 0
    assert seen["restore"].panel("Records to restore") > 0


@pytest.mark.parametrize("title", ["Updates waiting", "Updates waiting by partition", "Work that waits"])
def test_a_backlog_is_seen(seen: dict[str, Seen], title: str) -> None:
    assert seen["behind"].panel(title) > 100 * max(1, seen["calm"].panel(title))


@pytest.mark.parametrize(
    "title", ["p99 event to prediction", "Event to prediction", "Event to prediction by worker, p99"]
)
def test_late_predictions_are_seen(seen: dict[str, Seen], title: str) -> None:
    assert seen["calm"].panel(title) < 1
    assert seen["behind"].panel(title) > 5


def test_without_a_worker_there_is_no_number_of_now(seen: dict[str, Seen]) -> None:
    assert seen["no worker"].panel("Workers") == float("-inf")
