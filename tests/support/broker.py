"""What an operator does to a broker, through the AdminClient: topics, retention, offsets of a group."""

import itertools
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from tests.support.processes import wait_until

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

_count = itertools.count(1)


def unique(name: str) -> str:
    """A name for a topic or a group that nothing else in this session, nor a session beside it, uses."""
    return f"{name}-{os.getpid()}-{next(_count)}"


PATIENCE = 90  # seconds for one answer of a broker that shares two cores with whatever else runs


def _answer(future: "Future[T]") -> T:
    try:
        return future.result(PATIENCE)
    except TimeoutError:
        raise AssertionError(f"the broker did not answer within {PATIENCE} s") from None


class Broker:
    """Operations on one running cluster. Every call waits until it is done, or raises KafkaException."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 2})

    def create_topic(self, topic: str, partitions: int, **config: str) -> None:
        """Create it; keyword arguments are its settings, with _ for the dots."""
        settings = {name.replace("_", "."): value for name, value in config.items()}
        _answer(self.admin.create_topics([NewTopic(topic, partitions, 1, config=settings)])[topic])
        self._wait_for_leaders(topic, partitions)

    def delete_topic(self, topic: str) -> None:
        _answer(self.admin.delete_topics([topic], operation_timeout=30)[topic])
        wait_until(lambda: topic not in self.admin.list_topics(timeout=10).topics, within=30, what=f"{topic} deleted")

    def recreate_topic(self, topic: str, partitions: int) -> None:
        """The same name, another topic: its id changes and its offsets start at 0."""
        self.delete_topic(topic)
        self.create_topic(topic, partitions)

    def _wait_for_leaders(self, topic: str, partitions: int) -> None:
        """Metadata names leaders a moment before they serve: ask each for its log."""

        def ready() -> bool:
            try:
                return len(self.end_offsets(topic)) == partitions
            except (KafkaException, KeyError):
                return False

        wait_until(ready, within=30, what=f"leaders of {topic}")

    def topic_config(self, topic: str, **config: str) -> None:
        """Set some of a topic's settings; the others keep their values only if they are named too."""
        settings = {name.replace("_", "."): value for name, value in config.items()}
        resource = ConfigResource(ResourceType.TOPIC, topic, set_config=settings)
        _answer(self.admin.alter_configs([resource])[resource])

    def topic_id(self, topic: str) -> str:
        return str(_answer(self.admin.describe_topics(TopicCollection([topic]))[topic]).topic_id)

    def partitions(self, topic: str) -> list[int]:
        return sorted(self.admin.list_topics(topic, timeout=10).topics[topic].partitions)

    # --- the log

    def _offsets(self, topic: str, spec: OffsetSpec, isolation: IsolationLevel) -> dict[int, int]:
        asked = {TopicPartition(topic, partition): spec for partition in self.partitions(topic)}
        answers = self.admin.list_offsets(asked, isolation_level=isolation, request_timeout=10)
        return {wanted.partition: _answer(future).offset for wanted, future in answers.items()}

    def start_offsets(self, topic: str) -> dict[int, int]:
        return self._offsets(topic, OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)

    def end_offsets(self, topic: str, *, committed: bool = False) -> dict[int, int]:
        """The next offset of each partition; with `committed` the last stable offset, up to which readers may read."""
        isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        return self._offsets(topic, OffsetSpec.latest(), isolation)

    def wait_until_stable(self, topic: str, within: float = 40) -> dict[int, int]:
        """No transaction is open on the topic any more; its end offsets. (One left by a killed worker lasts 15 s.)"""

        def stable() -> dict[int, int] | None:
            ends = self.end_offsets(topic)
            return ends if ends == self.end_offsets(topic, committed=True) else None

        found = wait_until(stable, within=within, what=f"{topic} without open transactions", every=0.2)
        assert found is not None
        return found

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Retention strikes: everything below these offsets is gone."""
        asked = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
        for future in self.admin.delete_records(asked).values():
            _answer(future)

    # --- the group

    def committed(self, group: str, topic: str, *, stable: bool = True) -> dict[int, int]:
        """Committed next offsets; partitions without one are absent. `stable`: once no transaction is open on it."""
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, p) for p in self.partitions(topic)])
        answer = _answer(self.admin.list_consumer_group_offsets([asked], require_stable=stable)[group])
        return {p.partition: p.offset for p in answer.topic_partitions if p.offset >= 0 and p.error is None}

    def alter_offsets(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """An operator moves the group's offsets. The group must have no members."""
        self.wait_until_empty(group)
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, p, o) for p, o in offsets.items()])
        for partition in _answer(self.admin.alter_consumer_group_offsets([asked])[group]).topic_partitions:
            if partition.error is not None:
                raise KafkaException(partition.error)

    def delete_group(self, group: str) -> None:
        """An operator deletes the group, offsets included. It must have no members."""
        self.wait_until_empty(group)
        _answer(self.admin.delete_consumer_groups([group])[group])

    def members(self, group: str) -> list[str]:
        """Client ids of its members; empty when there is no such group."""
        try:
            found = _answer(self.admin.describe_consumer_groups([group])[group])
        except KafkaException:
            return []
        return [member.client_id for member in found.members]

    def assignments(self, group: str) -> list[tuple[str, list[int]]]:
        """(client id, partitions of any topic) of each member, dead ones whose session still runs included."""
        found = _answer(self.admin.describe_consumer_groups([group])[group])
        return [(m.client_id, [p.partition for p in m.assignment.topic_partitions]) for m in found.members]

    def wait_until_empty(self, group: str, within: float = 30) -> None:
        """A killed dynamic member leaves only when its session runs out: about ten seconds."""
        wait_until(lambda: not self.members(group), within=within, what=f"no members in {group}", every=0.2)


def moved(offsets: Mapping[int, int], by: int, partitions: Iterable[int] | None = None) -> dict[int, int]:
    """These offsets, moved; of the named partitions only."""
    chosen = offsets if partitions is None else set(partitions)
    return {partition: offset + by for partition, offset in offsets.items() if partition in chosen}
