"""Servers for the tests: Apache Kafka, the embedded broker and Redis, each started once, when first asked for."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.sandbox import EmbeddedKafka, EmbeddedRedis
from tests.support.broker import Broker
from tests.support.kafka import ApacheKafka, KafkaMissing, classpath, java
from tests.support.reference_model import KerasModel

REDIS_CONF = Path(__file__).parents[1] / "deploy/redis/redis.conf"

_NEEDS = "Apache Kafka needs "


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--image", action="store_true", help="build deploy/Dockerfile and run the service in it")


def apache_kafka_or_skip() -> None:
    """Skip where Apache Kafka cannot run, loudly; fail there with REQUIRE_KAFKA=1."""
    try:
        java()
        classpath()
    except KafkaMissing as missing:
        if os.environ.get("REQUIRE_KAFKA") == "1":
            pytest.fail(f"REQUIRE_KAFKA=1, and Apache Kafka needs {missing}", pytrace=False)
        pytest.skip(f"{_NEEDS}{missing}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    missing = [reason.partition(_NEEDS)[2] for reason in skipped if _NEEDS in reason]
    if missing:
        terminalreporter.write_line(
            f"NOT PROVEN HERE: {len(missing)} tests on Apache Kafka were skipped. It needs {missing[0]}",
            red=True,
            bold=True,
        )


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """One node for the whole session; tests use topics and groups of their own. Whoever stops it starts it again."""
    apache_kafka_or_skip()
    kafka = ApacheKafka(tmp_path_factory.mktemp("kafka"))
    kafka.start()
    yield kafka
    kafka.kill()


@pytest.fixture(scope="session")
def apache(apache_kafka: ApacheKafka) -> Broker:
    """The operator's hands on it."""
    return Broker(apache_kafka.bootstrap_servers)


@pytest.fixture(scope="session")
def embedded_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path_factory.mktemp("embedded-kafka")) as kafka:
        yield kafka.start()


@pytest.fixture(scope="session")
def embedded(embedded_kafka: EmbeddedKafka) -> Broker:
    return Broker(embedded_kafka.bootstrap_servers)


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """For tests that leave the server alone: keys carry the group's name, so they do not meet."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis.start()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """For tests that stop, fill or empty it; keeps its data over a restart, configured as it is deployed."""
    with EmbeddedRedis(tmp_path / "redis", options=["--include", str(REDIS_CONF)]) as redis:
        yield redis.start()


@pytest.fixture(scope="session")
def model() -> KerasModel:
    """The shipped bundle, as the reference reads it."""
    return KerasModel()
