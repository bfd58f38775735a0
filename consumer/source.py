"""Source: the input topic as one engine sees it. All that confluent_kafka.Consumer is asked stands here.

Callbacks only note what happened and never raise: an exception out of one would lose gathered records. They assign
new partitions paused, so that nothing is handed out before a partition is seated and sought to its offset."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from consumer.events import Record

logger = logging.getLogger(__name__)
LIBRDKAFKA = logging.getLogger("consumer.librdkafka")

CALL_TIMEOUT = 3.0  # seconds a question to the brokers may take; the engine asks again later
SHORT_TIMEOUT = 0.5  # the same where others wait meanwhile
# One connection of several: librdkafka logs it, tries again, and says _ALL_BROKERS_DOWN when none is left.
_PASSING = {KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT}  # noqa: SLF001  # public names
_MOVED = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}  # noqa: SLF001  # librdkafka's public names


class SourceAway(Exception):
    """The brokers did not answer, or not yet. Ask again next round."""


class SourceLost(Exception):
    """Gathered records may be lost: seek every partition to its own next offset and go on."""


class SourceFatal(Exception):
    """The consumer is of no more use: another member took its static place, or librdkafka says so."""


class Change(NamedTuple):
    """One change of the assignment, in the order in which they came."""

    event: Literal["assigned", "revoked", "lost"]
    partitions: tuple[int, ...]


@dataclass
class Taken:
    """What one round got."""

    records: dict[int, list[Record]] = field(default_factory=dict)  # by partition, in offset order
    ends: dict[int, int] = field(default_factory=dict)  # partition → next offset, where the log's end was reached
    displaced: dict[int, int] = field(default_factory=dict)  # partition → offset that was wanted and does not exist


class Source:
    """One consumer of one topic. Owned by the engine thread.

    Args:
        options: librdkafka's, complete.
        incremental: whether rebalances take and give single partitions (cooperative, KIP-848) or all (eager).
        on_error: told each error that concerns the whole client, in words."""

    def __init__(
        self, options: Mapping[str, Any], topic: str, *, incremental: bool, on_error: Callable[[str], None]
    ) -> None:
        self.topic = topic
        self.changes: deque[Change] = deque()
        self._incremental = incremental
        self._on_error = on_error
        self._consumer = Consumer({**options, "error_cb": self._error}, logger=LIBRDKAFKA)
        self._paused: set[int] = set()
        self._fatal = ""
        self.max_poll_interval = int(options.get("max.poll.interval.ms", 300_000)) / 1000  # librdkafka's default

    def join(self) -> None:
        """Ask for a place in the group. Partitions come through `changes`, during `take`."""
        self._consumer.subscribe([self.topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def take(self, max_records: int, wait: float, linger: float) -> Taken:
        """Up to `max_records` records: the first within `wait` seconds, then what is there, lingering if asked.

        Raises: SourceLost if the client raised, because then it may have dropped what it had gathered."""
        taken = Taken()
        try:
            # consume(n, t) alone would always wait t: poll for the first, then drain.
            first = self._consumer.poll(wait)
            if first is None:
                return taken
            self._sort(taken, [first])
            if max_records > 1:
                self._sort(taken, self._consumer.consume(max_records - 1, linger))
        except (KafkaException, RuntimeError) as error:
            raise SourceLost(str(error)) from error
        finally:
            if self._fatal:
                raise SourceFatal(self._fatal)
        return taken

    def _sort(self, taken: Taken, messages: list[Message]) -> None:
        records = taken.records
        for message in messages:
            error = message.error()
            if error is None:
                partition = message.partition()
                if (
                    partition in records
                ):  # type ignored below: the stubs allow for str and None, which records never are
                    records[partition].append(message)  # type: ignore[arg-type]
                else:
                    records[partition] = [message]  # type: ignore[index, list-item]
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # librdkafka's public name
                taken.ends[message.partition()] = message.offset()  # type: ignore[index, assignment]  # set on EOF
            elif error.code() in _MOVED:
                taken.displaced[message.partition()] = message.offset()  # type: ignore[index, assignment]  # set here too
            else:
                self._error(error)

    # What callbacks do: note, and keep new partitions silent.

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # At an absolute offset, and paused: a logical one (end, stored) starts a query whose late answer would move
        # the partition after it was sought, and skip records (librdkafka 2.16; the random kills found it).
        start = [TopicPartition(p.topic, p.partition, 0) for p in partitions]
        try:
            if self._incremental:
                consumer.incremental_assign(start)
            else:
                consumer.assign(start)
            if start:
                consumer.pause(start)
        except KafkaException as error:  # e.g. the assignment is already gone again
            self._on_error(f"assignment failed: {error}")
        if not self._incremental:
            self._paused.clear()
        self._paused.update(p.partition for p in partitions)
        self.changes.append(Change("assigned", tuple(p.partition for p in partitions)))

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.changes.append(Change("revoked", tuple(p.partition for p in partitions)))

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.changes.append(Change("lost", tuple(p.partition for p in partitions)))

    def _error(self, error: KafkaError) -> None:
        fatal = error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001  # a callback's has the code alone
        if fatal:
            self._fatal = error.str()
        if fatal or error.code() not in _PASSING:
            self._on_error(error.str())

    # Questions and moves. All raise SourceAway when the brokers do not answer.

    def committed(self, partitions: Iterable[int], timeout: float = CALL_TIMEOUT) -> dict[int, int | None]:
        """Committed next offset of each partition, None without one. While a transaction over one is open there is
        no answer."""
        asked = [TopicPartition(self.topic, p) for p in partitions]
        try:
            answers = self._consumer.committed(asked, timeout=timeout)
        except KafkaException as error:
            raise SourceAway(f"committed offsets: {error}") from error
        found: dict[int, int | None] = {}
        for answer in answers:
            if answer.error is not None:
                raise SourceAway(f"committed offset of partition {answer.partition}: {answer.error}")
            found[answer.partition] = answer.offset if answer.offset >= 0 else None
        return found

    def bounds(self, partition: int) -> tuple[int, int]:
        """First offset of the log, and the next one that will be readable (the last stable offset)."""
        try:
            bounds = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=CALL_TIMEOUT)
        except KafkaException as error:
            raise SourceAway(f"log of partition {partition}: {error}") from error
        if bounds is None:
            raise SourceAway(f"log of partition {partition}: no answer within {CALL_TIMEOUT:.0f} s")
        return bounds

    def trouble(self) -> str:
        """Why the topic cannot be read now, in words; "" when its brokers answer."""
        try:
            topic = self._consumer.list_topics(self.topic, timeout=1.0).topics[self.topic]
        except KafkaException as error:
            return str(error.args[0].str())
        return topic.error.str() if topic.error is not None else ""

    def known_end(self, partition: int) -> int | None:
        """The log's end as the last fetch told it, without asking; None if none did."""
        try:
            bounds = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)
        except KafkaException:
            return None
        return bounds[1] if bounds is not None and bounds[1] >= 0 else None

    def ask_ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The log's end of partitions that are held: no fetch tells it. Empty on silence."""
        asked = [TopicPartition(self.topic, p, OFFSET_END) for p in partitions]
        try:
            answers = self._consumer.offsets_for_times(asked, timeout=SHORT_TIMEOUT)
        except KafkaException:
            return {}
        return {answer.partition: answer.offset for answer in answers if answer.error is None and answer.offset >= 0}

    def seek(self, partition: int, offset: int, others: Mapping[int, int]) -> None:
        """Let records of the partition flow, from this offset; those on the way from elsewhere are dropped.

        Args:
            others: next offsets of all other assigned partitions, which under an eager protocol may have to be
                assigned again with it; what is held stays held."""
        place = TopicPartition(self.topic, partition, offset)
        try:
            # Resumed first: a seek while paused costs one second until the next fetch (librdkafka 2.16).
            self._consumer.resume([place])
            self._paused.discard(partition)
            try:
                self._consumer.seek(place)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._STATE:  # noqa: SLF001  # librdkafka's public name
                    raise
                self._begin_anew(place, others)
        except KafkaException as error:
            raise SourceAway(f"partition {partition} cannot be brought to offset {offset}: {error}") from error

    def _begin_anew(self, place: TopicPartition, others: Mapping[int, int]) -> None:
        """Not started yet, or stopped for good when its offset left the log: there a seek is refused."""
        if self._incremental:
            self._consumer.incremental_unassign([place])
            self._consumer.incremental_assign([place])
            return
        rest = [TopicPartition(self.topic, number, offset) for number, offset in others.items()]
        self._consumer.assign([place, *rest])
        if self._paused:
            self._consumer.pause([TopicPartition(self.topic, number) for number in sorted(self._paused)])

    def hold(self, partitions: Iterable[int]) -> None:
        """Hand out nothing of these until they are sought."""
        flowing = sorted(set(partitions) - self._paused)
        if not flowing:
            return
        try:
            self._consumer.pause([TopicPartition(self.topic, p) for p in flowing])
        except KafkaException as error:
            raise SourceAway(f"partitions {flowing} cannot be paused: {error}") from error
        self._paused.update(flowing)

    def group_metadata(self) -> object | None:
        """What fences the transaction's offsets by this member's generation; None while it has no place.

        Offsets sent with an empty member id would not be fenced at all."""
        member = self.member_id()
        metadata: object = self._consumer.consumer_group_metadata()
        # Asked before and after: between two calls the place can be lost.
        return metadata if member and member == self.member_id() else None

    def member_id(self) -> str:
        """This member's id in the group; "" while it has none."""
        return self._consumer.memberid() or ""

    def close(self) -> None:
        """Leave the group. Callbacks may run."""
        self._consumer.close()
