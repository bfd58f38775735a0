import re

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from consumer.kafka_options import (
    REFUSED,
    REFUSED_WITH_KIP_848,
    admin_options,
    consumer_options,
    plain_producer_options,
    producer_options,
    reader_options,
)
from consumer.settings import Kafka, Settings
from consumer.settings_sources import SettingsError, load_settings


def settings(**kafka: object) -> Settings:
    return Settings(kafka=Kafka.model_validate({"bootstrap_servers": "broker:1", **kafka}), worker="w1")


def test_the_engine_gets_what_its_guarantees_need() -> None:
    consumer, producer = consumer_options(settings()), producer_options(settings())
    assert consumer == {
        "bootstrap.servers": "broker:1",
        "client.id": "w1",
        "group.id": "downtick",
        "isolation.level": "read_committed",
        "enable.auto.commit": "false",
        "enable.auto.offset.store": "false",
        "auto.offset.reset": "error",
        "enable.partition.eof": "true",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": "10000",
        "fetch.wait.max.ms": "100",
        "queued.min.messages": "20000",
    }
    assert producer["transactional.id"] == "downtick-w1"
    assert producer["transaction.timeout.ms"] == "15000"
    assert int(producer["retry.backoff.ms"]) <= 10
    assert producer["enable.idempotence"] == "true"
    assert producer["partitioner"] == "murmur2_random"


@pytest.mark.parametrize("where", ["client", "consumer", "producer"])
@pytest.mark.parametrize("option", REFUSED)
def test_an_option_the_guarantees_need_is_refused_by_name_with_the_reason(where: str, option: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"kafka.{where}: {option} cannot be set: {REFUSED[option]}")):
        load_settings(environ={f"DOWNTICK_KAFKA__{where.upper()}": f'{{"{option}": "1"}}'})


def test_a_callback_is_not_a_setting() -> None:
    with pytest.raises(SettingsError, match="oauth_cb cannot be set"):
        load_settings(environ={"DOWNTICK_KAFKA__CLIENT": '{"oauth_cb": "os.system"}'})


def test_nothing_a_user_sets_replaces_what_is_needed() -> None:
    ours = settings(client={"client.rack": "mine"}, consumer={"session.timeout.ms": 6000, "fetch.min.bytes": "1"})
    options = consumer_options(ours)
    assert (options["client.rack"], options["session.timeout.ms"], options["fetch.min.bytes"]) == ("mine", "6000", "1")
    assert "fetch.min.bytes" not in producer_options(ours)
    assert options["isolation.level"] == "read_committed"


def test_secrets_reach_the_clients_in_clear_text() -> None:
    ours = settings(client={"sasl.password": "hunter2"})
    for build in (consumer_options, producer_options, admin_options, reader_options, plain_producer_options):
        assert build(ours)["sasl.password"] == "hunter2"


def test_a_static_member_is_named_after_its_worker() -> None:
    assert "group.instance.id" not in consumer_options(settings())
    assert consumer_options(settings(static_membership=True))["group.instance.id"] == "w1"


def test_with_kip_848_what_the_broker_decides_is_not_sent() -> None:
    options = consumer_options(settings(consumer={"group.protocol": "consumer"}))
    assert not REFUSED_WITH_KIP_848 & options.keys()
    Consumer(options).close()


@pytest.mark.parametrize("option", sorted(REFUSED_WITH_KIP_848))
def test_with_kip_848_what_the_broker_decides_is_refused(option: str) -> None:
    with pytest.raises(SettingsError, match=f"{option} cannot be set with group.protocol=consumer"):
        load_settings(environ={"DOWNTICK_KAFKA__CONSUMER": f'{{"group.protocol": "consumer", "{option}": "6000"}}'})


@pytest.mark.parametrize(
    ("consumer", "incremental"),
    [
        ({}, True),
        ({"partition.assignment.strategy": "cooperative-sticky"}, True),
        ({"partition.assignment.strategy": "range"}, False),
        ({"partition.assignment.strategy": "range,roundrobin"}, False),
        ({"group.protocol": "consumer"}, True),
        ({"group.protocol": "classic", "partition.assignment.strategy": "roundrobin"}, False),
    ],
)
def test_whether_a_rebalance_is_incremental_follows_from_the_options(
    consumer: dict[str, str],
    incremental: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    assert settings(consumer=consumer).kafka.incremental is incremental


def test_librdkafka_accepts_every_set_of_options() -> None:
    ours = settings(static_membership=True)
    Consumer(consumer_options(ours)).close()
    Consumer(reader_options(ours)).close()
    Producer(producer_options(ours))
    Producer(plain_producer_options(ours))
    AdminClient(admin_options(ours))
