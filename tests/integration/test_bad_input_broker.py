"""Bad input through a real broker: each of 2,400 offsets is accounted for by one prediction, skip or dead letter.

The records are those that the decoder's test generates (tests/support/garbage.py), written to the log byte by byte, so
that header names may be anything; a healthy producer's updates lie between them, and must all be served. On Apache
Kafka; on the embedded broker where that cannot run."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from consumer.sandbox import EmbeddedRedis
from tests.support import compare
from tests.support.broker import Broker
from tests.support.garbage import NOW_MS, records
from tests.support.kafka import KafkaMissing, classpath, java
from tests.support.load import Event, events
from tests.support.processes import wait_until
from tests.support.raw import Raw, produce_raw
from tests.support.readers import Record
from tests.support.reference import Expected, Limits
from tests.support.reference_model import KerasModel
from tests.support.service import Service
from tests.support.system import System

SEED = 4_500
BATCH, BATCHES = 25, 80  # 2,000 generated records
HEALTHY_EACH = 5  # after so many of them comes an update of the healthy producer
MAX_BYTES = 250_000  # so that the parser sees 100,000 levels
START = 150  # seconds for a start; it takes five on a quiet machine
NOT_UTF8 = [b"\xff\xfe", b"\xed\xa0\x80", b"trace\x80parent", b"\xc3", b"\xc0\x80", b"\xff" * 300]


@dataclass(frozen=True)
class Written:
    """What lies at an offset: for the broker, and as the reference reads it."""

    raw: Raw
    record: Record


def _generated() -> list[Record]:
    found: list[Record] = []

    @settings(
        max_examples=BATCHES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(records(deepest=100_000), min_size=BATCH, max_size=BATCH))
    def collect(batch: list[Record]) -> None:
        found.extend(batch)

    collect()
    return found[: BATCH * BATCHES]


def _healthy() -> Iterator[Record]:
    """Updates of stocks that the generated records do not know."""
    for event in events(SEED, 13, trouble=0):
        if (event.key or b"").startswith(b"S0"):
            yield Record("", 0, 0, event.key, event.value, [(name, value) for name, value in event.headers], NOW_MS)


def _log() -> list[Written]:
    rng, healthy, found = random.Random(SEED), _healthy(), []
    for count, record in enumerate(_generated(), start=1):
        found.append(_written(len(found), record, rng.choice(NOT_UTF8) if rng.random() < 0.1 else None))
        if count % HEALTHY_EACH == 0:
            found.append(_written(len(found), next(healthy), rng.choice(NOT_UTF8) if rng.random() < 0.1 else None))
    return found


def _written(offset: int, record: Record, name: bytes | None) -> Written:
    """With `name` among its headers, if there is one: then the record counts as one without headers."""
    headers = [(name_.encode(), value) for name_, value in record.headers]
    seen = record.headers
    if name is not None:
        headers.insert(offset % (len(headers) + 1), (name, b"x"))
        seen = []
    return Written(
        Raw(record.key, record.value, headers, record.timestamp),
        Record("", 0, offset, record.key, record.value, seen, record.timestamp),
    )


@dataclass(frozen=True)
class Served:
    """What the service made of it."""

    system: System
    worker: Service
    log: list[Record]
    expected: Expected
    predictions: list[Record]
    dead_letters: list[Record]


@pytest.fixture(scope="module")
def broker(request: pytest.FixtureRequest) -> Broker:
    try:
        java(), classpath()
    except KafkaMissing:
        return request.getfixturevalue("embedded")
    return request.getfixturevalue("apache")


@pytest.fixture(scope="module")
def served(
    broker: Broker, shared_redis: EmbeddedRedis, model: KerasModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    print(f"bad input: seed {SEED}")
    system = System(
        tmp_path_factory.mktemp("bad-input"),
        broker,
        shared_redis.url,
        model,
        partitions=1,
        consumer={"partition.assignment.strategy": "range"},
        settings={"events.max_bytes": str(MAX_BYTES), "batch.max_events": "100"},
        input_config={"retention_ms": "-1"},  # its timestamps are of 2024
    )
    with system:
        worker = system.worker().start()
        written = _log()
        produce_raw(broker.bootstrap_servers, system.input_topic, [one.raw for one in written])
        log = [one.record for one in written]
        assert system.broker.end_offsets(system.input_topic) == {0: len(log)}
        worker.wait_ready(START)

        def handled() -> bool:
            assert worker.running, f"it ended with {worker.process.exit_code}\n{worker.process.tail(60)}"
            return system.committed() == {0: len(log)}

        tail = lambda: f"committed {system.committed()} of {len(log)}\n{worker.process.tail()}"  # noqa: E731
        wait_until(handled, within=120, what=tail, every=0.1)
        predictions, dead_letters = system.predictions(), system.dead_letters()
        expected = system.expected(log, Limits(max_bytes=MAX_BYTES), predictions=predictions)
        yield Served(system, worker, log, expected, predictions, dead_letters)


def test_every_offset_is_accounted_for_by_one_prediction_one_skip_or_one_dead_letter(served: Served) -> None:
    worker, expected = served.worker, served.expected
    assert len(served.log) >= 2_400
    compare.check_predictions(served.predictions, expected, served.system.model, served.system.input_topic)
    compare.check_dead_letters(served.dead_letters, expected, served.system.input_topic)
    accounted = itertools.chain(expected.predictions, expected.dead_letters, expected.skipped)
    assert sorted(accounted) == [(0, offset) for offset in range(len(served.log))]
    assert worker.metric("events_consumed_total") == len(served.log)
    assert worker.metric("predictions_published_total") == len(expected.predictions)
    assert worker.metric("dead_letters_total") == len(expected.dead_letters)
    assert worker.metric("events_skipped_total") == len(expected.skipped)


def test_the_input_was_bad_in_every_way_and_the_healthy_producer_was_served(served: Served) -> None:
    reasons = set(served.expected.dead_letters.values())
    assert reasons >= {"json_invalid", "schema_invalid", "key_missing", "key_mismatch", "too_large", "late"}
    assert len([update for update in served.expected.predictions.values() if update.event.stock[:2] == "S0"]) > 200
    assert len(served.expected.dead_letters) > 1_000


def test_redis_is_the_fold_of_it(served: Served) -> None:
    served.system.check_redis(served.expected)


def test_the_service_never_stumbled(served: Served) -> None:
    worker = served.worker
    assert worker.live
    assert worker.ready
    said = worker.log.read_text(encoding="utf-8")
    assert '"level": "error"' not in said
    assert "the consumer raised" not in said
    assert "doing it again" not in said, "no transaction was aborted"
    assert "Traceback" not in said
    served.system.produce([Event(b"AAPL", b"the end")])
    served.system.wait_until_done()
    worker.terminate()
