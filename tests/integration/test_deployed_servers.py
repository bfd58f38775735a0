"""The servers as docker-compose.yml starts them: its very commands and files, outside of containers."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from consumer.sandbox import EmbeddedRedis, free_port, redis_server
from state.store import RedisStore
from tests.conftest import REDIS_CONF, apache_kafka_or_skip
from tests.support.broker import Broker, unique
from tests.support.kafka import DEPLOYED, classpath, java, properties
from tests.support.processes import Process, wait_until

ROOT = Path(__file__).parents[2]
FRESH = ROOT / "deploy/producer/fresh.py"


def service(name: str) -> dict[str, Any]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    found: dict[str, Any] = compose["services"][name]
    return found


def test_redis_keeps_what_it_was_told_and_the_service_takes_it(tmp_path: Path) -> None:
    program, *arguments = service("redis")["command"]
    assert program == "redis-server"
    port = free_port()
    arguments = [str(REDIS_CONF) if one == "/etc/downtick/redis.conf" else one for one in arguments]
    # Only what the container sets it apart by: its own address and its own folder.
    own = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    process = Process([redis_server(), *arguments, *own], log=tmp_path / "log")
    with redis.Redis(port=port) as client:
        wait_until(lambda: _answers(client), within=20, what=lambda: f"Redis answers\n{process.tail()}")
        expected = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction"}
        expected |= {"protected-mode": "no", "maxmemory": str(512 * 1024 * 1024)}
        found = {name: client.config_get(name)[name] for name in expected}
        assert found == expected
        store = RedisStore(f"redis://127.0.0.1:{port}/0", cluster=False, prefix="downtick", group="g", topic="prices")
        store.check()
        store.close()
        client.set("kept", "1")
        process.terminate(20)
    process = Process([redis_server(), *arguments, *own], log=tmp_path / "log")
    with redis.Redis(port=port) as client:
        wait_until(lambda: _answers(client), within=20, what=lambda: f"Redis answers\n{process.tail()}")
        assert client.get("kept") == b"1"
    process.kill()


def answers(servers: str) -> bool:
    try:
        return bool(AdminClient({"bootstrap.servers": servers, "log_level": 0}).list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_the_redis_of_the_tests_is_configured_as_the_deployed_one(own_redis: EmbeddedRedis) -> None:
    with redis.Redis(port=own_redis.port) as client:
        assert client.config_get("append*")["appendfsync"] == "everysec"
        assert client.config_get("protected-mode") == {"protected-mode": "no"}  # said by the file alone


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """Kafka's own scripts, as far as the jars of the tests go: the class that each of them starts."""
    apache_kafka_or_skip()
    folder = tmp_path / "bin"
    folder.mkdir()
    mains = {"kafka-storage.sh": "kafka.tools.StorageTool", "kafka-server-start.sh": "kafka.Kafka"}
    for name, main in mains.items():
        quick = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Djava.net.preferIPv4Stack=true"
        command = f'exec {java()} $KAFKA_HEAP_OPTS {quick} $KAFKA_LOG4J_OPTS -cp {classpath()} {main} "$@"'
        (folder / name).write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def deployed_kafka(tmp_path: Path, scripts: Path) -> Iterator["DeployedKafka"]:
    kafka = DeployedKafka(tmp_path, scripts)
    yield kafka
    kafka.close()


class DeployedKafka:
    """Kafka by compose's own command; of its configuration only ports and the folder are this machine's."""

    def __init__(self, folder: Path, scripts: Path) -> None:
        ports = {9092: free_port(), 19092: free_port(), 9093: free_port()}
        self.bootstrap_servers = f"127.0.0.1:{ports[19092]}"
        settings = properties(DEPLOYED) | {"log.dirs": str(folder / "data")}
        settings["advertised.listeners"] = f"PLAINTEXT://127.0.0.1:{ports[9092]},HOST://{self.bootstrap_servers}"
        for name in ("listeners", "controller.quorum.voters"):
            settings[name] = re.sub(r":(\d+)", lambda port: f":{ports[int(port[1])]}", settings[name])
        config = folder / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
        self._log, self._process = folder / "kafka.log", None
        told = service("kafka")
        places = {"/opt/kafka/bin": str(scripts), "/etc/downtick/server.properties": str(config)}
        places |= {"/etc/downtick": str(DEPLOYED.parent), "$$": "$"}
        for inside, here in places.items():
            told["command"] = [part.replace(inside, here) for part in told["command"]]
            told["environment"] = {key: str(value).replace(inside, here) for key, value in told["environment"].items()}
        self._command = [*told["entrypoint"], *told["command"]]
        self._environ = {**os.environ, **told["environment"]}

    def start(self) -> Broker:
        self._process = process = Process(self._command, log=self._log, env=self._environ)

        def up() -> bool:
            assert process.running, process.tail()
            return answers(self.bootstrap_servers)

        wait_until(up, within=120, what=lambda: f"Kafka answers\n{process.tail()}", every=0.5)
        return Broker(self.bootstrap_servers)

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate(60)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()


def _commit_one(kafka: DeployedKafka, broker: Broker, *, end: int) -> None:
    options = {"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": "one", "log_level": 0}
    producer = Producer(options)
    producer.init_transactions(90)
    producer.begin_transaction()
    producer.produce("prices", b"{}", partition=0)
    producer.commit_transaction(90)
    # A record and the marker that ends its transaction. The marker is written just after the commit was answered; a
    # node that is stopped before may forget it (KAFKA-20734).
    wait_until(lambda: broker.end_offsets("prices")[0] == end, within=60, what="the transaction has ended")


def test_kafka_formats_its_storage_once_and_commits_transactions_on_one_node(deployed_kafka: DeployedKafka) -> None:
    broker = deployed_kafka.start()
    broker.create_topic("prices", 6)
    _commit_one(deployed_kafka, broker, end=2)
    deployed_kafka.stop()
    broker = deployed_kafka.start()  # formatted already: the data stays
    _commit_one(deployed_kafka, broker, end=4)
    errors: list[object] = []
    unsure = {"bootstrap.servers": deployed_kafka.bootstrap_servers, "message.timeout.ms": 5000, "log_level": 0}
    producer = Producer(unsure)
    producer.produce("misspelt", b"{}", on_delivery=lambda error, _: errors.append(error))
    producer.flush(30)
    assert len(errors) == 1
    assert errors[0] is not None  # no topic was made of it


def fresh(servers: str, topic: str, seconds: str = "30") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FRESH), servers, topic, seconds], capture_output=True, text=True, check=False
    )


def test_the_producers_health_is_a_record_of_the_last_seconds(apache: Broker) -> None:
    topic = unique("fresh")
    apache.create_topic(topic, 3)
    assert (fresh(apache.bootstrap_servers, topic).returncode, fresh(apache.bootstrap_servers, topic).stderr) == (
        1,
        f"no record in {topic} for 30 s\n",
    )
    producer = Producer({"bootstrap.servers": apache.bootstrap_servers})
    producer.produce(topic, b"{}", partition=1, timestamp=round((time.time() - 60) * 1000))
    producer.flush(30)
    assert fresh(apache.bootstrap_servers, topic).returncode == 1
    assert fresh(apache.bootstrap_servers, topic, "3600").returncode == 0
    producer.produce(topic, b"{}", partition=2)
    producer.flush(30)
    done = fresh(apache.bootstrap_servers, topic)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_producer_is_not_healthy_where_nobody_answers_or_the_topic_is_missing(apache: Broker) -> None:
    for servers, topic in ((f"127.0.0.1:{free_port()}", "prices"), (apache.bootstrap_servers, unique("missing"))):
        done = fresh(servers, topic)
        assert done.returncode == 1
        assert done.stderr
        assert "Traceback" not in done.stderr
