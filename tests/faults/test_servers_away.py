"""Kafka or Redis is away for a minute under load: workers stay up, say so, take nothing further, and go on alone.

SIGTERM while a server is away ends a worker in order all the same."""

import signal
import tempfile
from pathlib import Path

from consumer.sandbox import EmbeddedRedis
from tests.faults.acts import SHORT, SLOW, share, waits_alive, works_on
from tests.faults.conftest import NewSystem, scenario
from tests.support.broker import Broker
from tests.support.kafka import ApacheKafka
from tests.support.processes import wait_until
from tests.support.service import Service
from tests.support.system import System

AWAY = 60  # seconds


def _start(system: System, *names: str) -> list[Service]:
    workers = [system.worker(name).start() for name in names]
    share(*workers)
    for worker in workers:
        works_on(worker)
    return workers


def kafka_away(new_system: NewSystem) -> None:
    """Restarted, then away, each under load."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        kafka = ApacheKafka(Path(folder), heap_mb=512, controller_apart=True)
        try:
            kafka.start()
            with new_system(broker=Broker(kafka.bootstrap_servers), consumer=SHORT) as system:
                readers = system.watch()
                with system.load(seed=401, stocks=60, rate=300):
                    one, two, three = _start(system, "one", "two", "three")
                    kafka.kill()
                    kafka.start()
                    for worker in (one, two, three):
                        works_on(worker)
                    kafka.kill()
                    for worker in (one, two, three):
                        worker.wait_not_ready()
                    three.terminate()
                    waits_alive(AWAY, one, two)
                    kafka.start()
                    share(one, two)
                    works_on(one)
                    works_on(two)
                system.wait_until_done(within=SLOW)
                system.check(readers)
        finally:
            kafka.close()


def redis_away(new_system: NewSystem) -> None:
    """Killed, and back with the data it had."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        EmbeddedRedis(Path(folder), durable=True) as redis,
    ):
        redis.start()
        with new_system(redis_url=redis.url, consumer=SHORT) as system:
            readers = system.watch()
            with system.load(seed=402, stocks=60, rate=300):
                one, two, three = _start(system, "one", "two", "three")
                redis.kill()
                for worker in (one, two, three):
                    worker.wait_not_ready()
                three.terminate()
                waits_alive(AWAY, one, two, check=_nothing_more(one, two))
                redis.start()
                share(one, two)
                works_on(one)
                works_on(two)
            system.wait_until_done(within=SLOW)
            system.check(readers)


class _nothing_more:  # noqa: N801 — reads as a phrase where it is used
    """At most one batch is in hand: what was consumed when trouble was seen stays all."""

    def __init__(self, *workers: Service) -> None:
        self._consumed = {worker: worker.metric("events_consumed_total") for worker in workers}

    def __call__(self) -> None:
        for worker, consumed in self._consumed.items():
            assert worker.metric("events_consumed_total") == consumed, f"{worker.name} went on without Redis"


def redis_full(new_system: NewSystem) -> int:
    """No room for another write; then there is. A second signal meanwhile ends a worker at once."""
    with EmbeddedRedis(options=("--maxmemory", "0")) as redis:
        redis.start()
        with new_system(redis_url=redis.url, consumer=SHORT) as system:
            readers = system.watch()
            with system.load(seed=403, stocks=60, rate=300):
                one, two = _start(system, "one", "two")
                system.redis.config_set("maxmemory", "1mb")
                for worker in (one, two):
                    worker.wait_not_ready()
                waits_alive(3, one, two, check=_nothing_more(one, two))
                assert "OOM" in one.get("/ready")[1] or "maxmemory" in one.get("/ready")[1], one.get("/ready")
                two.process.signal(signal.SIGTERM)
                wait_until(lambda: two.says("asked to stop"), within=5, what="the first signal seen", every=0.02)
                assert two.running, "it drains as long as Redis may come back"
                two.process.signal(signal.SIGTERM)
                code = two.process.wait(3)
                system.redis.config_set("maxmemory", "0")
                works_on(one)
            system.wait_until_done(within=SLOW)
            system.check(readers)
            return code


@scenario(kafka_away, first=True)
def test_kafka_restarted_and_away_for_a_minute_under_load(outcome: None) -> None:
    assert outcome is None


@scenario(redis_away, first=True)
def test_redis_away_for_a_minute_under_load(outcome: None) -> None:
    assert outcome is None


@scenario(redis_full)
def test_redis_full_then_larger_and_a_second_signal_meanwhile(outcome: int) -> None:
    assert outcome == 128 + signal.SIGTERM
