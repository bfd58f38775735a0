"""Asked of Kafka outside the engine: are the options ones that librdkafka knows, create our topics, look one up."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]  # public, but for its stubs
from confluent_kafka.cimpl import NewTopic

from consumer.kafka_options import admin_options, consumer_options, producer_options

if TYPE_CHECKING:
    from consumer.settings import Settings

_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # sixteen zero bytes: a broker without topic ids


def options_problems(settings: Settings) -> list[str]:
    """What librdkafka says against kafka.client, kafka.consumer and kafka.producer: misspelt names, illegal values.

    Builds each client once, with no broker to connect to. The texts may show values: mind the secrets."""
    problems = []
    for build, options in ((Consumer, consumer_options(settings)), (Producer, producer_options(settings))):
        try:
            build({**options, "bootstrap.servers": "", "log_level": 0})
        except (KafkaException, TypeError, ValueError) as error:
            told = error.args[0].str() if isinstance(error, KafkaException) else str(error)
            problems.append(f"kafka.client, kafka.{build.__name__.lower()}: {told}")
    return problems


def create_topics(settings: Settings, *, partitions: int, replication: int = -1, timeout: float = 15.0) -> list[str]:
    """Create input, output and dead-letter topic where they are missing; an existing one is left as it is.

    Args:
        partitions: of a topic that is created.
        replication: copies of each partition; -1 for the broker's default.
    Returns: the names of those that were created.
    Raises: KafkaException when the broker refuses or cannot be reached within `timeout` seconds."""
    kafka = settings.kafka
    names = [kafka.input_topic, kafka.output_topic, kafka.dead_letter_topic]
    admin = AdminClient(admin_options(settings), logger=logging.getLogger("consumer.librdkafka"))
    wanted = [NewTopic(name, num_partitions=partitions, replication_factor=replication) for name in names]
    created = []
    for name, outcome in admin.create_topics(wanted, operation_timeout=timeout, request_timeout=timeout).items():
        try:
            outcome.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        else:
            created.append(name)
    return created


def describe(admin: AdminClient, topic: str, *, timeout: float = 10.0) -> tuple[str, str, int]:
    """Cluster id, topic id and number of partitions; the topic id is empty where the broker has none.

    Raises: KafkaException if the topic does not exist or the broker does not answer within `timeout` seconds."""
    cluster = admin.describe_cluster(request_timeout=timeout).result(2 * timeout)
    found = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout)[topic].result(2 * timeout)
    topic_id = str(found.topic_id)
    return str(cluster.cluster_id), "" if topic_id == _NO_ID else topic_id, len(found.partitions)


def cleanup_policy(admin: AdminClient, topic: str, *, timeout: float = 3.0) -> str:
    """`delete`, `compact` or both; empty where the broker does not say: no such topic, or no right to describe it."""
    asked = ConfigResource(ResourceType.TOPIC, topic)
    try:
        found = admin.describe_configs([asked], request_timeout=timeout)[asked].result(2 * timeout)
    except (KafkaException, TimeoutError):  # the latter where even librdkafka's own time-out comes late
        return ""
    return str(found["cleanup.policy"].value) if "cleanup.policy" in found else ""
