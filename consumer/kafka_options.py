"""What librdkafka is told: the options our guarantees need, the defaults that may change, and what is refused.

The three dicts below are the only place where an option gets its value. Each that differs from librdkafka's own
default has its reason beside it. The functions return clear text, secrets included: call them where the client is
built, and keep the result nowhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import SecretStr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.settings import Settings

_SECRET = re.compile(r"password|passphrase|secret|key|token|oauth|jaas|credential|\.pem$|^sasl\.")

_PUBLIC = re.compile(r"\.(location|mechanisms?|method|type|algorithm|url|name|seconds|login|include)$")

_OWN_SETTING = "it has its own setting"
_READS_COMMITTED = "an aborted transaction's updates must not be predicted"
_OFFSETS = "offsets are committed in the transaction of their predictions, and nowhere else"
_ONCE = "a prediction must be written exactly once, in order"
_DEADLINE = "the transaction's deadline and the engine's are made for each other"

# Refused in kafka.client, kafka.consumer and kafka.producer; aliases that librdkafka knows included.
REFUSED: Mapping[str, str] = {
    "bootstrap.servers": f"{_OWN_SETTING}, kafka.bootstrap_servers",
    "metadata.broker.list": f"{_OWN_SETTING}, kafka.bootstrap_servers",
    "client.id": f"{_OWN_SETTING}, worker (a worker finds out by it that another one has its name)",
    "group.id": f"{_OWN_SETTING}, kafka.group_id",
    "group.instance.id": f"{_OWN_SETTING}, kafka.static_membership (it takes the name of the worker)",
    "isolation.level": _READS_COMMITTED,
    "enable.auto.commit": _OFFSETS,
    "auto.commit.enable": _OFFSETS,
    "auto.commit.interval.ms": _OFFSETS,
    "enable.auto.offset.store": _OFFSETS,
    "offset.store.method": _OFFSETS,
    "auto.offset.reset": "an offset out of range must stop the partition instead of skipping updates; see kafka.start",
    "enable.partition.eof": "the end of a partition is what ends a restore",
    "transactional.id": "it is made of kafka.group_id and worker, so that a restarted worker fences its former self",
    "transaction.timeout.ms": _DEADLINE,
    "delivery.timeout.ms": _DEADLINE,
    "message.timeout.ms": _DEADLINE,
    "request.timeout.ms": _DEADLINE,
    "retry.backoff.ms": "more than 10 ms would be waited between two transactions",
    "enable.idempotence": _ONCE,
    "enable.gapless.guarantee": _ONCE,
    "acks": _ONCE,
    "request.required.acks": _ONCE,
    "retries": _ONCE,
    "message.send.max.retries": _ONCE,
    "max.in.flight": _ONCE,
    "max.in.flight.requests.per.connection": _ONCE,
    "queuing.strategy": _ONCE,
    "partitioner": "a stock must stay on the partition that its producers chose, on every topic (murmur2_random)",
}

# With group.protocol=consumer the broker decides these, and librdkafka refuses to send them.
REFUSED_WITH_KIP_848 = frozenset(
    {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type"}
)

# What the constructors of confluent_kafka's clients take.
ClientOptions = dict[str, str | int | float | bool]

# Kafka's own partitioner, so that a stock meets its history whichever language its producer is written in.
_PARTITIONER = {"partitioner": "murmur2_random"}


def is_secret(option: str) -> bool:
    """Whether the value of a librdkafka option must never be shown."""
    return bool(_SECRET.search(option))


def names_something_public(option: str) -> bool:
    """Whether a secret-like option holds a path, a method or the like: words that are met elsewhere as well."""
    return bool(_PUBLIC.search(option))


def consumer_options(settings: Settings) -> ClientOptions:
    """For the engine's consumer."""
    kafka = settings.kafka
    # A seek waits for the fetch under way, up to this long: after an abort that is the delay of a batch.
    # The default of 100,000 records a partition would let a restore stand in front of all that is new.
    defaults = {"fetch.wait.max.ms": "100", "queued.min.messages": "20000"}
    if not kafka.kip_848:
        # A rebalance moves only the partitions that must move; a dead worker is replaced after 10 s, not 45.
        defaults |= {"partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": "10000"}
    needed = {
        "group.id": kafka.group_id,
        "isolation.level": "read_committed",  # librdkafka's default too, but everything rests on it
        "enable.auto.commit": "false",  # the transaction commits
        "enable.auto.offset.store": "false",
        "auto.offset.reset": "error",  # seating decides where to start; a lost offset is an error, not a jump
        "enable.partition.eof": "true",  # ends a restore
    }
    if kafka.static_membership:
        needed["group.instance.id"] = settings.worker
    return {**defaults, **_client(settings), **_clear(kafka.consumer), **needed}


def producer_options(settings: Settings) -> ClientOptions:
    """For the engine's transactional producer."""
    # Predictions differ in few bytes, so that lz4 makes them small.
    defaults = {"compression.type": "lz4"}
    return {
        **defaults,
        **_client(settings),
        **_clear(settings.kafka.producer),
        **_PARTITIONER,
        "transactional.id": f"{settings.kafka.group_id}-{settings.worker}",
        # Readers wait for an open transaction: a dead worker's must not hold them for the default minute.
        "transaction.timeout.ms": "15000",
        # The broker finishes a transaction after it said so; the next one's first request is retried until then.
        "retry.backoff.ms": "10",
        "enable.idempotence": "true",
    }


def admin_options(settings: Settings) -> ClientOptions:
    """For an AdminClient."""
    return _client(settings)


def reader_options(settings: Settings) -> ClientOptions:
    """For a reader that assigns itself partitions, joins no group and commits nothing (`watch`, `demo`)."""
    return {
        **_client(settings),
        "group.id": f"{settings.kafka.group_id}-reader",  # librdkafka wants one; assign() never joins it
        "isolation.level": "read_committed",
        "enable.auto.commit": "false",
        "enable.auto.offset.store": "false",
        "auto.offset.reset": "latest",
        "enable.partition.eof": "true",
    }


def plain_producer_options(settings: Settings) -> ClientOptions:
    """For a producer of updates (`replay`, `demo`): idempotent, without transactions."""
    return {
        **_client(settings),
        **_clear(settings.kafka.producer),
        **_PARTITIONER,
        "enable.idempotence": "true",  # a retry must not produce an update twice, nor out of order
    }


def _client(settings: Settings) -> ClientOptions:
    return {
        "bootstrap.servers": settings.kafka.bootstrap_servers,
        "client.id": settings.worker,  # brokers' logs and quotas then name the worker
        **_clear(settings.kafka.client),
    }


def _clear(options: Mapping[str, str | SecretStr]) -> ClientOptions:
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in options.items()
    }
