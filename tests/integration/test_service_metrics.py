"""Every metric moves, and by the right amount: one worker on real servers, compared with what its topics hold.

Three chapters of one life, each a fixture: a load; Redis away for a while; killed, with its histories lost."""

import itertools
import json
import math
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from consumer.sandbox import EmbeddedRedis
from deploy.metrics_reference import PAGE, row
from tests.support.broker import Broker
from tests.support.load import Event, events
from tests.support.processes import wait_until
from tests.support.readers import Record
from tests.support.reference import Expected
from tests.support.reference_model import KerasModel
from tests.support.service import Service
from tests.support.system import System
from tests.support.tools import from_debian

SEED, EVENTS, STOCKS, PARTITIONS = 20261123, 3_000, 20, 3
MAX_RECORDS = 300  # of a restore
EMBEDDED = {"partition.assignment.strategy": "range"}
LAST_TS = 1_790_000_000_123
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass
class Told:
    """What the service said of itself at one moment."""

    samples: Samples

    def __call__(self, name: str, **labels: str) -> float:
        """Sum over the samples that carry these labels; they must be there."""
        found = [
            value
            for (sample, has), value in self.samples.items()
            if sample == f"downtick_{name}" and set(labels.items()) <= set(has)
        ]
        assert found, f"no sample {name} {labels}"
        return sum(found)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Values above zero by the label."""
        return {
            dict(has)[label]: value
            for (sample, has), value in self.samples.items()
            if sample == f"downtick_{name}" and value
        }


def told(service: Service) -> Told:
    return Told(service.metrics())


@dataclass
class Load:
    """The first chapter."""

    told: Told
    log: list[Record]
    predictions: list[Record]
    dead_letters: list[Record]
    expected: Expected

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(record.value or b"") for record in self.predictions]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("metrics-redis"), durable=True) as server:
        yield server.start()


@pytest.fixture(scope="module")
def system(
    embedded: Broker, redis: EmbeddedRedis, model: KerasModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("metrics")
    static = {"kafka.static_membership": "true"}  # the embedded broker never gives up a member that was killed
    with System(
        folder, embedded, redis.url, model, partitions=PARTITIONS, consumer=EMBEDDED, settings=static
    ) as system:
        yield system


@pytest.fixture(scope="module")
def load(system: System) -> Load:
    print(f"events: seed {SEED}")
    service = system.worker().start()
    system.produce(list(itertools.islice(events(SEED, STOCKS, trouble=0.1), EVENTS)))
    service.wait_ready()
    system.wait_until_done()
    value = json.dumps({"stock": "AAPL", "value": 1.5, "ts": LAST_TS}).encode()
    system.produce([Event(b"AAPL", value)])
    system.wait_until_done()
    # The gauges of a whole partition are renewed once a second.
    wait_until(lambda: told(service)("stocks_tracked") == STOCKS, within=10, what="all stocks tracked")
    wait_until(lambda: told(service)("consumer_lag_records") == 0, within=10, what="no lag")
    predictions = system.predictions()
    found = told(service)
    expected = system.expected(predictions=predictions)
    wait_until(
        lambda: told(service)("falling_stocks") == sum(h[-1].falling for h in expected.histories.values()),
        within=10,
        what="the falling stocks of the reference",
    )
    return Load(found, system.log(), predictions, system.dead_letters(), expected)


# --- the first chapter


def test_consumed_is_predictions_and_dead_letters_and_skipped(load: Load) -> None:
    assert len(load.log) == EVENTS + 1
    assert load.told("events_consumed_total") == len(load.log)
    assert load.told("predictions_published_total") == len(load.predictions)
    assert load.told("dead_letters_total") == len(load.dead_letters)
    assert load.told("events_skipped_total") == len(load.log) - len(load.predictions) - len(load.dead_letters)


def test_dead_letters_are_counted_by_the_reason_in_their_header(load: Load) -> None:
    reasons = Counter(record.header("downtick.reason") for record in load.dead_letters)
    assert len(reasons) >= 4
    assert load.told.by("dead_letters_total", "reason") == reasons


def test_skipped_events_are_counted_by_reason(load: Load) -> None:
    reasons = Counter(load.expected.skipped.values())
    assert set(reasons) == {"duplicate", "warming_up"}
    assert load.told.by("events_skipped_total", "reason") == reasons


def test_flips_are_counted_by_where_they_go(load: Load) -> None:
    flips = Counter("falling" if body["falling"] else "not_falling" for body in load.bodies if body["flipped"])
    assert min(flips["falling"], flips["not_falling"]) > 5
    assert load.told.by("flips_total", "to") == flips


def test_batches_transactions_and_stages_agree(load: Load) -> None:
    batches = load.told("batch_events_count")
    assert load.told("batch_events_sum") == len(load.log)
    committed = load.told("transactions_total", outcome="committed")
    assert 1 <= committed - batches <= PARTITIONS  # the first start of the partitions, committed before any record
    assert load.told.by("transactions_total", "outcome") == {"committed": committed}
    assert load.told("stage_seconds_count", stage="publish") == committed
    for stage in ("decode", "history", "predict"):
        assert load.told("stage_seconds_count", stage=stage) == batches
    assert load.told("stage_seconds_count", stage="apply") >= batches
    for stage in ("decode", "history", "predict", "publish", "apply"):
        assert 0 < load.told("stage_seconds_sum", stage=stage) < 60


def test_each_predictions_delay_is_observed(load: Load) -> None:
    assert load.told("event_to_prediction_seconds_count") == len(load.predictions)
    mean = load.told("event_to_prediction_seconds_sum") / len(load.predictions)
    assert 0 < mean < 120  # the load was written while the service started
    assert load.told("event_to_prediction_seconds_bucket", le="0.001") == 0  # no commit is that quick
    assert load.told("event_to_prediction_seconds_bucket", le="3600.0") == len(load.predictions)


def test_gauges_tell_where_it_stands(load: Load) -> None:
    assert load.told("assigned_partitions") == PARTITIONS
    assert load.told.by("rebalances_total", "event") == {"assigned": 1}
    assert load.told("last_event_timestamp_seconds") == LAST_TS / 1000
    assert load.told("stocks_tracked") == len({stock for _, stock in load.expected.histories}) == STOCKS
    assert load.told("consumer_lag_records") == 0
    assert load.told("ready") == 1
    for name in ("restore_remaining_records", "history_gap_records_total", "redis_errors_total", "breaker_open"):
        assert load.told(name) == 0


def test_the_model_that_predicts_is_named(load: Load, model: KerasModel) -> None:
    assert load.told.by("model_info", "version") == {model.version: 1}
    assert {body["model"] for body in load.bodies} == {model.version}


def test_the_time_between_polls_is_a_small_part_of_what_is_allowed(load: Load) -> None:
    assert 0 < load.told("poll_interval_used_ratio") < 0.5


def test_live_scores_are_those_of_the_published_forecasts_against_the_values_that_came(load: Load) -> None:
    """From the output topic alone, but for the windows' scales, which only the reference knows."""
    published = {(body["source"]["partition"], body["source"]["offset"]): body for body in load.bodies}
    errors, naive, hits = [], [], Counter[str]()
    for (partition, _), history in load.expected.histories.items():
        for before, after in itertools.pairwise(history):
            forecast = published.get((partition, before.offset))
            if forecast is None or before.outlook is None:
                continue
            value, scale = after.event.values[0], before.outlook.scale
            errors.append(abs(value - forecast["forecast"]) / scale)
            naive.append(abs(value - forecast["value"]) / scale)
            hits[str(forecast["forecast_low"] <= value <= forecast["forecast_high"]).lower()] += 1
    assert min(hits.values()) > 50
    assert load.told.by("interval_hits_total", "hit") == hits
    assert load.told("forecast_abs_error_count") == load.told("naive_abs_error_count") == len(errors)
    assert load.told("forecast_abs_error_sum") == pytest.approx(math.fsum(errors), rel=1e-5)
    assert load.told("naive_abs_error_sum") == pytest.approx(math.fsum(naive), rel=1e-9)


# --- what the endpoint says, against the reference and promtool


@pytest.fixture(scope="module")
def endpoint(system: System, load: Load) -> str:
    assert load.told("ready") == 1
    status, text = system.workers["one"].get("/metrics", timeout=5)
    assert status == 200
    return text


def test_the_reference_has_every_family_of_the_endpoint_and_no_other(endpoint: str) -> None:
    """Type, labels with their values, and text; `shadow_info` has no sample, and so no label, without a candidate."""
    live = {family.name: family for family in text_string_to_metric_families(endpoint)}
    assert [name for name, family in live.items() if not family.samples] == ["downtick_shadow_info"]
    live["downtick_shadow_info"].add_sample("downtick_shadow_info", {"version": "any"}, 1)
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert sorted(row(family) for family in live.values()) == sorted(line for line in lines if line.startswith("| `"))


def test_promtool_finds_nothing_to_complain_of_at_the_endpoint(endpoint: str) -> None:
    check = [from_debian("promtool"), "check", "metrics"]
    done = subprocess.run(check, input=endpoint, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- the second chapter: Redis goes away, and comes back


@pytest.fixture(scope="module")
def redis_away(system: System, redis: EmbeddedRedis, load: Load) -> tuple[Told, int]:
    """Redis is gone, one update was published since, and so many are waiting."""
    service, waiting = system.workers["one"], 7
    before = load.told("events_consumed_total")

    def update(ts: int) -> Event:
        return Event(b"AAPL", json.dumps({"stock": "AAPL", "value": ts % 9, "ts": LAST_TS + ts}).encode())

    redis.kill()
    wait_until(lambda: told(service)("redis_errors_total", operation="check") > 0, within=20, what="Redis missed")
    system.produce([update(1)])
    wait_until(lambda: told(service)("events_consumed_total") == before + 1, within=20, what="one more update")
    system.produce([update(ts) for ts in range(2, 2 + waiting)])
    wait_until(lambda: told(service)("redis_errors_total", operation="write") > 2, within=20, what="writes that failed")
    return told(service), waiting


def test_calls_to_redis_that_fail_are_counted_and_readiness_names_it(
    system: System, redis_away: tuple[Told, int]
) -> None:
    now, _ = redis_away
    assert now("redis_errors_total", operation="check") >= 1
    assert now("redis_errors_total", operation="write") >= 1
    assert now("ready") == 0
    status, body = system.workers["one"].get("/ready")
    assert status == 503
    assert "Redis" in body
    assert system.workers["one"].live


def test_one_batch_is_published_and_no_other_is_taken_while_redis_is_away(
    load: Load, redis_away: tuple[Told, int]
) -> None:
    now, _ = redis_away
    assert now("events_consumed_total") == load.told("events_consumed_total") + 1
    assert now("predictions_published_total") == load.told("predictions_published_total") + 1


def test_lag_grows_by_what_waits(system: System, redis_away: tuple[Told, int]) -> None:
    _, waiting = redis_away
    wait_until(
        lambda: told(system.workers["one"])("consumer_lag_records") == waiting,
        within=5,
        what=lambda: f"a lag of {waiting}: {told(system.workers['one']).by('consumer_lag_records', 'partition')}",
    )


# --- the third chapter: killed, its histories lost, and the restore may not go back all the way


@pytest.fixture(scope="module")
def redis_back(system: System, redis: EmbeddedRedis, redis_away: tuple[Told, int]) -> tuple[Told, int]:
    """All is well again; and how many updates had been waiting."""
    service = system.workers["one"]
    redis.start()
    service.wait_ready()
    system.wait_until_done()
    return told(service), redis_away[1]


def test_what_waited_is_handled_once_redis_is_back(load: Load, redis_back: tuple[Told, int]) -> None:
    now, waited = redis_back
    assert now("events_consumed_total") == load.told("events_consumed_total") + 1 + waited
    assert now("ready") == 1


@pytest.fixture(scope="module")
def restored(system: System, redis_back: tuple[Told, int]) -> tuple[Told, list[float]]:
    """Once it is ready again; and what restore_remaining_records showed on the way."""
    assert redis_back[0]("ready") == 1
    service = system.workers["one"]
    service.kill()
    system.redis.flushall()
    service.start(batch__max_events="1", restore__max_records=str(MAX_RECORDS))
    seen: list[float] = []

    def ready() -> bool:
        if service.get("/metrics")[0] == 200:
            seen.append(told(service)("restore_remaining_records"))
        return service.ready

    wait_until(ready, within=90, what=lambda: f"restored\n{service.process.tail()}", every=0.05)
    return told(service), seen


def test_records_that_a_restore_could_not_reach_are_counted(system: System, restored: tuple[Told, list[float]]) -> None:
    missing = sum(max(0, end - MAX_RECORDS) for end in system.committed().values())
    assert missing > 1_000
    assert restored[0]("history_gap_records_total") == missing


def test_what_is_left_to_restore_falls_to_nothing(system: System, restored: tuple[Told, list[float]]) -> None:
    _, seen = restored
    assert 0 < max(seen) <= PARTITIONS * MAX_RECORDS
    shown = seen[seen.index(max(seen)) :]
    assert shown == sorted(shown, reverse=True)
    service = system.workers["one"]
    wait_until(lambda: told(service)("restore_remaining_records") == 0, within=5, what="nothing left")


def test_a_restore_moves_no_counter(restored: tuple[Told, list[float]]) -> None:
    now, _ = restored
    for name in (
        "events_consumed_total",
        "predictions_published_total",
        "dead_letters_total",
        "events_skipped_total",
        "flips_total",
        "interval_hits_total",
        "forecast_abs_error_count",
        "event_to_prediction_seconds_count",
        "batch_events_count",
    ):
        assert now(name) == 0, name


@pytest.mark.usefixtures("restored")
def test_nothing_was_told_twice_and_the_service_goes_on(system: System) -> None:
    service = system.workers["one"]
    value = json.dumps({"stock": "AAPL", "value": 2.5, "ts": LAST_TS + 100}).encode()
    system.produce([Event(b"AAPL", value)])
    system.wait_until_done()
    wait_until(lambda: told(service)("events_consumed_total") == 1, within=5, what="the one update counted")
    sources = [json.loads(record.value or b"")["source"] for record in system.predictions()]
    offsets = [(source["partition"], source["offset"]) for source in sources]
    assert len(offsets) == len(set(offsets))
