"""Readers of a topic as a downstream service sees it: `read_committed`, whole, in order."""

import threading
from dataclasses import dataclass, field
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from tests.support.broker import Broker
from tests.support.processes import wait_until


@dataclass(frozen=True)
class Record:
    """One record of a topic. `timestamp` is Kafka's, in milliseconds."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)
    timestamp: int = 0

    @property
    def place(self) -> tuple[int, int]:
        return self.partition, self.offset

    def header(self, name: str) -> str | None:
        """The text of its last header of that name."""
        found = [value for key, value in self.headers if key == name]
        return found[-1].decode(errors="replace") if found and found[-1] is not None else None


def _consumer(broker: Broker, topic: str, **options: str) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": f"reader-of-{topic}",  # never joined: partitions are assigned by hand
            "isolation.level": "read_committed",
            "enable.auto.commit": "false",
            "auto.offset.reset": "error",
            "enable.partition.eof": "true",
            "fetch.wait.max.ms": "50",
            "reconnect.backoff.max.ms": "500",
            "log_level": "2",
            **options,
        }
    )
    starts = broker.start_offsets(topic)
    consumer.assign([TopicPartition(topic, partition, start) for partition, start in starts.items()])
    return consumer


def _record(message: Message) -> Record:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    headers = [(name, value) for name, value in message.headers() or []]
    return Record(topic, partition, offset, message.key(), message.value(), headers, message.timestamp()[1])


def read(
    broker: Broker, topic: str, *, isolation: str = "read_committed", within: float = 60, whole: bool = True
) -> list[Record]:
    """The whole topic now, by partition and offset. Waits until no transaction is open on it, unless not `whole`."""
    if isolation == "read_committed" and whole:
        broker.wait_until_stable(topic, within=within)
    consumer = _consumer(broker, topic, **{"isolation.level": isolation})
    found: list[Record] = []
    unread = set(broker.partitions(topic))

    def done() -> bool:
        for message in consumer.consume(10_000, 0.2):
            error = message.error()
            if error is None:
                found.append(_record(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard(message.partition() or 0)
            elif not error.retriable():
                raise KafkaException(error)
        return not unread

    try:
        wait_until(done, within=within, what=lambda: f"end of {topic} partitions {sorted(unread)}", every=0)
    finally:
        consumer.close()
    return sorted(found, key=lambda record: record.place)


class WatchingReader:
    """A downstream consumer that reads a topic from its start while things break, in a thread of its own."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker, self._topic = broker, topic
        self._consumer = _consumer(broker, topic)
        self._records: list[Record] = []
        self._trouble: list[str] = []
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"reader of {topic}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(30)
        self._consumer.close()

    def _run(self) -> None:
        while not self._enough.is_set():
            for message in self._consumer.consume(1_000, 0.1):
                error = message.error()
                if error is None:
                    self._records.append(_record(message))
                elif error.fatal() or error.code() == KafkaError._AUTO_OFFSET_RESET:
                    self._trouble.append(str(error))

    @property
    def seen(self) -> int:
        return len(self._records)

    def finish(self, expected: list[Record], within: float = 60) -> None:
        """It saw just these records, each once and in order of its partition."""
        wait_until(
            lambda: len(self._records) >= len(expected),
            within=within,
            what=lambda: f"{len(expected)} records on {self._topic}; the second reader saw {len(self._records)}",
        )
        assert not self._trouble, self._trouble
        saw: dict[int, list[Record]] = {}
        for record in list(self._records):
            saw.setdefault(record.partition, []).append(record)
        should: dict[int, list[Record]] = {}
        for record in expected:
            should.setdefault(record.partition, []).append(record)
        for partition in sorted(saw.keys() | should.keys()):
            there, wanted = saw.get(partition, []), should.get(partition, [])
            assert there == wanted, (
                f"{self._topic}/{partition}: the reader that ran during the faults saw other records"
            )
