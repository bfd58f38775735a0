"""Tail: a topic's committed records as they come, for people and demos. It joins no group and leaves no trace."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.topics import Trouble, partitions, unreachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from consumer.kafka_options import ClientOptions

_NEW_PARTITIONS_EVERY = 30.0  # seconds
_ASK_EVERY = 1.0  # seconds, and only while something is wrong


class Tail:
    """Follows all partitions of one topic from now on, or from their beginning. Owned by one thread.

    "Now" is when the constructor returns: what is produced after that is seen.

    Args:
        options: of a reader (`reader_options`): read_committed, partition EOF events, no commits.
    Raises: CommandError when no broker answers, or there is no such topic."""

    def __init__(
        self,
        options: ClientOptions,
        topic: str,
        *,
        from_beginning: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers, self._topic, self._clock = str(options["bootstrap.servers"]), topic, clock
        self._trouble = Trouble()
        self._consumer = Consumer(self._trouble.options(options))
        try:
            found = partitions(self._consumer, topic, servers=self._servers, trouble=self._trouble)
            self._consumer.assign([self._place(partition, from_beginning=from_beginning) for partition in found])
        except BaseException:
            self._consumer.close()
            raise
        self._partitions, self._unread = set(found), set(found)
        self._looked_at = self._asked_at = clock()
        self._away = ""

    def _place(self, partition: int, *, from_beginning: bool) -> TopicPartition:
        if from_beginning:
            return TopicPartition(self._topic, partition, OFFSET_BEGINNING)
        try:
            # Asked for now: OFFSET_END is found out later, and would miss what comes in between.
            _, end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=5)
        except KafkaException as error:
            raise unreachable(self._servers, self._trouble, error) from error
        return TopicPartition(self._topic, partition, end)

    @property
    def at_end(self) -> bool:
        """Whether the end of every partition has been met; more may have come since."""
        return not self._unread

    @property
    def trouble(self) -> str:
        """Why no broker answers, or "". A single lost connection is no trouble: it was asked for again."""
        return self._away

    def read(self, seconds: float, most: int = 1000) -> list[Message]:
        """The next records, in the order of each partition; waits up to `seconds` for the first.

        Raises: KafkaException for what will not pass by itself, as a deleted topic or missing rights."""
        if self._clock() - self._looked_at > _NEW_PARTITIONS_EVERY:
            self._look_for_new_partitions()
        if (self._trouble.text or self._away) and self._clock() - self._asked_at > _ASK_EVERY:
            self._ask()
        first = self._consumer.poll(seconds)
        messages = [] if first is None else [first, *self._consumer.consume(most - 1, 0)]
        return [message for message in messages if self._is_record(message)]

    def _is_record(self, message: Message) -> bool:
        error, partition = message.error(), message.partition()
        if error is None:
            return True
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's public name
            self._unread.discard(-1 if partition is None else partition)
        elif not (error.retriable() or error.code() in _PASSING):
            raise KafkaException(error)
        return False

    def _ask(self) -> None:
        """Find out whether a complaint of librdkafka's means that nobody answers."""
        self._asked_at = self._clock()
        self._away, self._trouble.text = self._trouble.text or self._away, ""
        try:
            self._consumer.list_topics(self._topic, timeout=1)
        except KafkaException:
            return
        self._away = ""

    def _look_for_new_partitions(self) -> None:
        self._looked_at = self._clock()
        try:
            found = self._consumer.list_topics(self._topic, timeout=2).topics[self._topic].partitions
        except KafkaException:
            return  # later
        if new := sorted(set(found) - self._partitions):
            self._partitions.update(new)
            self._unread.update(new)
            self._consumer.incremental_assign([TopicPartition(self._topic, one, OFFSET_BEGINNING) for one in new])

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# Librdkafka tells these and goes on by itself.
_PASSING = frozenset(
    {
        KafkaError._TRANSPORT,  # noqa: SLF001 - librdkafka's public names, here and below
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
    }
)
