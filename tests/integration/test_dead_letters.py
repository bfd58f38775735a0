"""Dead letters on real servers: each reason, the caps, and the breaker that keeps a topic from draining into them."""

import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.sandbox import EmbeddedRedis
from tests.support.broker import Broker
from tests.support.command import downtick
from tests.support.load import Event
from tests.support.processes import wait_until
from tests.support.readers import Record
from tests.support.reference_model import KerasModel
from tests.support.service import Service
from tests.support.system import PREFIX, System

EMBEDDED = {"partition.assignment.strategy": "range"}
TS = 1_700_000_000_000


def update(stock: str, value: float, ts: int, *, key: str | None = None, **more: object) -> Event:
    body = {"stock": stock, "value": value, "ts": TS + ts, **more}
    return Event((key or stock).encode(), json.dumps(body).encode())


LONG = b'{"x":"' + b"x" * 70_000 + b'"}'
HEADERS = [("a", b"1" * 20_000), ("b", b"2" * 20_000), ("c", b"3")]

# What is written, in order, and the reason that it must get; None is an update.
INPUT: list[tuple[Event, str | None]] = [
    (update("AAPL", 1, 5), None),
    (Event(b"AAPL", b"not json", [("x", b"1")]), "json_invalid"),
    (Event(b"AAPL", None), "json_invalid"),
    (Event(b"AAPL", b'{"stock":"AAPL","value":"1"}'), "schema_invalid"),
    (update("AAPL", 2, 400 * 86_400_000_000), "schema_invalid"),  # its time is ahead of its record's
    (Event(None, b'{"stock":"AAPL","value":1}'), "key_missing"),
    (update("AAPL", 2, 6, key="GOOG"), "key_mismatch"),
    (Event(b"AAPL", LONG, HEADERS), "too_large"),
    (Event(b"k" * 5_000, b"?"), "json_invalid"),
    (update("AAPL", 3, 4), "late"),
    (update("GOOG", 1, 5), "stock_limit"),
    (update("AAPL", 2, 6), None),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dead-letters")


@pytest.fixture(scope="module")
def reasons(embedded: Broker, shared_redis: EmbeddedRedis, model: KerasModel, folder: Path) -> Iterator[System]:
    """A service that was given INPUT, on one partition and with room for one stock."""
    system = System(
        folder / "reasons",
        embedded,
        shared_redis.url,
        model,
        partitions=1,
        consumer=EMBEDDED,
        settings={"history.max_stocks": "1"},
    )
    with system:
        system.produce([event for event, _ in INPUT])
        system.worker().start().wait_ready()
        system.wait_until_done()
        yield system


@pytest.fixture(scope="module")
def letters(reasons: System) -> dict[int, Record]:
    """By the offset of the record that they are of."""
    found = reasons.dead_letters()
    letters = {int(letter.header("downtick.source.offset") or -1): letter for letter in found}
    assert len(letters) == len(found)
    return letters


def test_every_refused_record_has_its_dead_letter_and_its_reason(letters: dict[int, Record]) -> None:
    expected = {offset: reason for offset, (_, reason) in enumerate(INPUT) if reason}
    assert {offset: letter.header("downtick.reason") for offset, letter in letters.items()} == expected


def test_a_dead_letter_names_its_source_and_what_went_wrong(reasons: System, letters: dict[int, Record]) -> None:
    letter = letters[1]
    log = {record.offset: record for record in reasons.log()}
    assert (letter.key, letter.value, letter.headers[0]) == (b"AAPL", b"not json", ("x", b"1"))
    assert letter.header("downtick.source.topic") == reasons.input_topic
    assert letter.header("downtick.source.partition") == "0"
    assert letter.header("downtick.source.timestamp") == str(log[1].timestamp)
    assert "expected ident" in (letter.header("downtick.message") or "")
    assert (letter.header("downtick.failed_at") or "").startswith("20")
    assert letter.header("downtick.version") == "0.1.0"
    assert letters[2].value is None


def test_a_record_of_any_size_fits_cut_to_the_caps(letters: dict[int, Record]) -> None:
    letter = letters[7]
    assert letter.value == LONG[:65_536]
    assert letter.header("downtick.value.size") == str(len(LONG))
    assert letter.header("downtick.value.sha256") == hashlib.sha256(LONG).hexdigest()
    own = [(name, value) for name, value in letter.headers if not name.startswith("downtick.")]
    assert own == [("a", b"1" * 20_000), ("b", b"2" * 12_766)]  # 32 KiB, names included
    assert letters[8].key == b"k" * 4_096


def test_each_reason_is_counted(reasons: System) -> None:
    service = reasons.workers["one"]
    counts = {reason: service.metric("dead_letters_total", reason=reason) for _, reason in INPUT if reason}
    assert counts == {
        "json_invalid": 3,
        "schema_invalid": 2,
        "key_missing": 1,
        "key_mismatch": 1,
        "too_large": 1,
        "late": 1,
        "stock_limit": 1,
    }
    assert service.metric("events_skipped_total", reason="warming_up") == 2


def test_an_update_the_model_has_no_finite_answer_for_is_refused_and_stays_in_the_history(
    embedded: Broker, shared_redis: EmbeddedRedis, model: KerasModel, tmp_path: Path
) -> None:
    values = [100.0 + n % 7 for n in range(model.min_history)] + [13.5, 101.0]
    with System(tmp_path, embedded, shared_redis.url, model, partitions=1, consumer=EMBEDDED) as system:
        system.produce([update("AAPL", value, n) for n, value in enumerate(values)])
        service = system.worker().start(faults=[], not_finite=13.5).wait_ready()
        system.wait_until_done()
        (letter,) = system.dead_letters()
        assert letter.header("downtick.reason") == "model_not_finite"
        assert letter.header("downtick.source.offset") == str(model.min_history)
        assert service.metric("dead_letters_total", reason="model_not_finite") == 1
        published = [json.loads(record.value or b"") for record in system.predictions()]
        assert [body["source"]["offset"] for body in published] == [model.min_history - 1, model.min_history + 1]
        told = downtick(
            *("history", "AAPL", "--json", "--kafka.group-id", system.group, "--redis.url", system.redis_url),
            *("--kafka.input-topic", system.input_topic, "--redis.key-prefix", PREFIX),
        )
        kept = json.loads(told.out)["history"]
        assert [entry["value"] for entry in kept] == values
        assert kept[-2].get("forecast") is None


# --- the circuit breaker, at three in a row

LIMIT = 3
_ts = itertools.count(1)


def good() -> Event:
    return update("AAPL", 1, next(_ts))


def bad() -> Event:
    return Event(b"AAPL", b"not json")


def late() -> Event:
    return update("AAPL", 1, 0)


@pytest.fixture
def breaker(embedded: Broker, shared_redis: EmbeddedRedis, model: KerasModel, tmp_path: Path) -> Iterator[System]:
    system = System(
        tmp_path,
        embedded,
        shared_redis.url,
        model,
        partitions=1,
        consumer=EMBEDDED,
        settings={"dead_letters.max_consecutive": str(LIMIT)},
    )
    with system:
        yield system


def _paused(service: Service) -> None:
    def paused() -> bool:
        return service.get("/metrics")[0] == 200 and service.metric("breaker_open", partition="0") == 1

    wait_until(paused, within=60, what=lambda: f"the breaker open\n{service.process.tail()}")
    assert service.get("/ready") == (
        503,
        '{"ok": false, "troubles": ["partition 0 is paused: too many dead letters in a row"]}\n',
    )
    assert service.live


def _resume(system: System) -> None:
    done = downtick(
        *("dead-letters", "resume", "--kafka.group-id", system.group, "--kafka.input-topic", system.input_topic),
        *("--redis.url", system.redis_url, "--redis.key-prefix", PREFIX),
    )
    assert done.code == 0, done.err
    assert "partition 0: asked to go on" in done.out


def test_the_breaker_trips_at_one_too_many_outlives_a_restart_and_is_resumed_by_command_or_limit(
    breaker: System,
) -> None:
    service = breaker.worker()
    # Three in a row are allowed, late ones do not count and do not break a run: the fourth (at 9) is left in the log.
    breaker.produce([good(), bad(), bad(), bad(), good(), bad(), late(), bad(), bad(), bad(), good(), bad(), bad()])
    service.start()
    _paused(service)
    assert breaker.committed() == {0: 9}
    assert service.metric("dead_letters_total", reason="json_invalid") == 6
    assert service.metric("dead_letters_total", reason="late") == 1
    assert len(breaker.dead_letters()) == 7

    service.terminate()
    service.start()
    _paused(service)
    assert breaker.committed() == {0: 9}
    assert service.metric("events_consumed_total") == 0

    _resume(breaker)
    service.wait_ready()
    breaker.wait_until_done()
    assert breaker.committed() == {0: 13}
    assert service.metric("breaker_open", partition="0") == 0
    assert service.metric("dead_letters_total", reason="json_invalid") == 3

    breaker.produce([bad(), bad(), good()])  # a run of 2 before, 3 with the first, the second is too many
    _paused(service)
    assert breaker.committed() == {0: 14}
    service.terminate()
    service.start(dead_letters__max_consecutive=str(LIMIT + 1)).wait_ready()
    breaker.wait_until_done()
    assert breaker.committed() == {0: 16}
    assert len(breaker.dead_letters()) == 12
    breaker.check()
