"""How the service begins and ends: what stops a start in words, and what a signal does."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from consumer.kafka_options import admin_options
from consumer.sandbox import EmbeddedRedis
from consumer.service import _look_for_topics
from consumer.settings import Kafka, Settings
from tests.support import command
from tests.support.broker import Broker, unique
from tests.support.load import Event, events
from tests.support.processes import wait_until
from tests.support.reference_model import DEFAULT, KerasModel
from tests.support.service import ROOT, Service
from tests.support.system import System

EMBEDDED = {"partition.assignment.strategy": "range"}
SEED = 4711
START = 60  # seconds that TensorFlow may take on a busy machine


# --- what stops a start


class Start:
    """`downtick run` in this process, with a group of its own, up to the words that it ends with."""

    def __init__(self, broker: Broker, redis: EmbeddedRedis) -> None:
        self.broker, self.group, self.topic = broker, unique("group"), unique("prices")
        broker.create_topic(self.topic, 1)
        self.options = {
            "--kafka.bootstrap-servers": broker.bootstrap_servers,
            "--kafka.group-id": self.group,
            "--kafka.input-topic": self.topic,
            "--redis.url": redis.url,
            "--http.port": "0",
            "--worker": "w",
        }

    def refused(self, **options: str) -> str:
        """The one line that says why it does not start; it never joined the group."""
        given = {**self.options, **{f"--{name.replace('__', '.').replace('_', '-')}": v for name, v in options.items()}}
        done = command.downtick("run", *[word for pair in given.items() for word in pair])
        assert done.code == 1
        said = [line for line in done.err.splitlines() if line.startswith("downtick run: ")]
        assert len(said) == 1, done.err
        assert "Traceback" not in done.err
        assert self.broker.members(self.group) == []
        assert self.broker.committed(self.group, self.topic) == {}
        return said[0]


@pytest.fixture
def start(embedded: Broker, shared_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    # What starts in spite of all ends at once with 0, and does not take the test session with it.
    monkeypatch.setattr("consumer.engine.Engine.run", lambda _: None)
    monkeypatch.setattr("os._exit", sys.exit)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Start(embedded, shared_redis)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_redis_that_evicts_is_refused(start: Start, tmp_path: Path, policy: str) -> None:
    with EmbeddedRedis(tmp_path, options=("--maxmemory", "50mb", "--maxmemory-policy", policy)) as redis:
        redis.start()
        said = start.refused(redis__url=redis.url)
    assert f"127.0.0.1:{redis.port} evicts" in said
    assert policy in said
    assert "noeviction" in said


def test_a_bundle_whose_weights_were_changed_is_refused(start: Start, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(DEFAULT, bundle)
    weights = bytearray((bundle / "weights.npz").read_bytes())
    weights[len(weights) // 2] ^= 1
    (bundle / "weights.npz").write_bytes(weights)
    said = start.refused(model__path=str(bundle))
    assert "the model cannot be used" in said
    assert "weights.npz" in said


def test_a_bundle_that_is_not_there_is_refused(start: Start, tmp_path: Path) -> None:
    said = start.refused(model__path=str(tmp_path / "nowhere"))
    assert "the model cannot be used" in said
    assert "nowhere" in said


def test_a_depth_that_the_model_reaches_beyond_is_refused(start: Start) -> None:
    assert "raise history.depth to 32 or more" in start.refused(history__depth="31")


def test_an_output_topic_that_does_not_exist_is_told_and_no_reason_not_to_start(
    embedded: Broker, shared_redis: EmbeddedRedis, model: KerasModel, tmp_path: Path
) -> None:
    with System(tmp_path, embedded, shared_redis.url, model, partitions=1, consumer=EMBEDDED) as system:
        worker = system.worker(kafka__output_topic=unique("nowhere")).start().wait_ready(START)
        assert worker.says("does not exist; is kafka.output_topic right? If so, create it")
        assert not worker.says("is kafka.dead_letter_topic right?")


@pytest.mark.parametrize(("policy", "told"), [("delete", False), ("compact", True), ("compact,delete", True)])
def test_a_compacted_input_is_told(
    apache: Broker, caplog: pytest.LogCaptureFixture, policy: str, *, told: bool
) -> None:
    topic = unique("prices")
    apache.create_topic(topic, 1, **{"cleanup.policy": policy})
    kafka = Kafka(bootstrap_servers=apache.bootstrap_servers, input_topic=topic)
    settings = Settings(kafka=kafka)
    _look_for_topics(AdminClient(admin_options(settings)), settings)
    assert (f"topic '{topic}' is compacted" in caplog.text) == told


def test_a_port_that_is_taken_is_told(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = start.refused(http__port=str(port))
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; set http.host or http.port" in said


def test_a_misspelt_setting_stops_the_start_with_its_name(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("DOWNTICK_")}
    env |= {"DOWNTICK_KAFKA__GROUP_IDD": "x", "PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-m", "consumer.cli", "run"]
    done = subprocess.run(run, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=START, check=False)
    assert done.returncode == 2
    assert "DOWNTICK_KAFKA__GROUP_IDD" in done.stderr
    assert "Traceback" not in done.stderr


# --- what a signal does


@pytest.fixture
def system(embedded: Broker, own_redis: EmbeddedRedis, model: KerasModel, tmp_path: Path) -> Iterator[System]:
    with System(tmp_path, embedded, own_redis.url, model, partitions=2, consumer=EMBEDDED) as system:
        yield system


def test_sigterm_under_load_ends_it_with_0_and_another_worker_goes_on_without_a_gap(system: System) -> None:
    service = system.worker().start().wait_ready(START)
    with system.load(seed=SEED, stocks=10, rate=500) as load:
        wait_until(
            lambda: service.metric("predictions_published_total") > 100, within=60, what="predictions under load"
        )
        started = time.monotonic()
        service.terminate(within=10)  # asserts 0
        assert time.monotonic() - started < 10
        assert service.says("asked to stop: finishing what is in hand")
        assert service.says("stopped")
        assert system.broker.members(system.group) == []  # it said goodbye
        wait_until(lambda: load.produced > 1_500, within=30, what="1,500 updates")
    system.worker("two").start().wait_ready(START)
    system.wait_until_done()
    system.check()


def test_ctrl_c_is_an_orderly_end_too_and_so_is_a_signal_while_it_starts(system: System) -> None:
    service = system.worker().start(forked=False).wait_ready(START)
    service.process.signal(signal.SIGINT)
    assert service.process.wait(10) == 0
    service.start(forked=False)
    wait_until(lambda: service.log.read_text().count("loaded, verified and warm") == 2, within=START, what="the model")
    service.terminate(within=10)


@contextmanager
def _hung(system: System, redis: EmbeddedRedis) -> Iterator[Service]:
    """A service with a batch that Redis does not have yet, because Redis answers no more."""
    service = system.worker().start().wait_ready(START)
    # Not by /ready: the group's first offsets are committed once both partitions are seated.
    wait_until(lambda: len(system.committed()) == 2, within=20, what="two partitions seated")
    os.kill(redis.child.pid, signal.SIGSTOP)
    value = json.dumps({"stock": "AAPL", "value": 1}).encode()
    system.produce([Event(b"AAPL", value)])
    try:
        wait_until(lambda: service.metric("events_consumed_total") == 1, within=20, what="the update committed")
        yield service
    finally:
        os.kill(redis.child.pid, signal.SIGCONT)


def test_a_redis_that_hangs_does_not_keep_it_beyond_ten_seconds(system: System, own_redis: EmbeddedRedis) -> None:
    with _hung(system, own_redis) as service:
        service.terminate(within=10)
    # What Redis missed, the next worker catches up with.
    system.produce(list(itertools.islice(events(SEED, 5), 200)))
    service.start().wait_ready(START)
    system.wait_until_done()
    system.check()


def test_a_second_signal_ends_it_at_once_and_not_with_0(system: System, own_redis: EmbeddedRedis) -> None:
    with _hung(system, own_redis) as service:
        service.process.signal(signal.SIGTERM)
        wait_until(lambda: service.says("asked to stop: finishing what is in hand"), within=5, what="the first signal")
        assert service.running
        started = time.monotonic()
        service.process.signal(signal.SIGTERM)
        assert service.process.wait(5) == 128 + signal.SIGTERM
        assert time.monotonic() - started < 2
