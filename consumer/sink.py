"""Sink: predictions, dead letters and the offsets they come from, in one Kafka transaction.

What can go wrong is named by what the engine does next (rule 5 of the engine): `TransactionAborted`, nothing of it
happened; `OutcomeUnknown`, ask the group what is committed; `Fenced`, another live worker carries our name."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from consumer.outputs import Outgoing

logger = logging.getLogger(__name__)
LIBRDKAFKA = logging.getLogger("consumer.librdkafka")

STEP = 1.0  # seconds one blocking call may take before the deadline is looked at
TRANSACTION_SECONDS = 12.0  # from begin to commit; brokers end it at transaction.timeout.ms, 15
_NONE: dict[str, Any] = {}
_FENCED = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}  # noqa: SLF001  # librdkafka's public names


class TransactionAborted(Exception):
    """The transaction is undone, with certainty. Seek back and do it again."""


class OutcomeUnknown(Exception):
    """The transaction may be committed or not; this producer is of no more use. Open a new one, then ask the group."""


class Fenced(OutcomeUnknown):
    """As above, and the brokers say that a newer producer carries our transactional id."""


class SinkAway(Exception):
    """No transaction coordinator yet. Ask again next round."""


class SinkRefused(Exception):
    """The brokers will not have a producer like this: rights, or a limit on transaction time-outs."""


class Sink:
    """One transactional producer, replaced when it breaks. Owned by the engine thread.

    Args:
        options: librdkafka's, complete.
        left: seconds that a wish to stop leaves for what is in hand; infinite without one."""

    def __init__(self, options: Mapping[str, Any], *, left: Callable[[], float]) -> None:
        self._options = options
        self._left = left
        self._producer: Producer | None = None
        self._ready = False
        self._deadline = 0.0  # of the open transaction
        self._caller = ThreadPoolExecutor(1, "offsets")

    @property
    def ready(self) -> bool:
        """Whether a transaction can begin."""
        return self._ready

    def open(self) -> None:
        """Fence and end whatever an earlier producer of our name left, and be ready. Call again after SinkAway.

        Raises: SinkAway; SinkRefused and Fenced, after which the next call takes a new producer."""
        if self._producer is None:
            # error_cb: what is wrong with the brokers is told by the consumer already.
            self._producer = Producer({**self._options, "error_cb": lambda _: None}, logger=LIBRDKAFKA)
        try:
            self._producer.init_transactions(STEP)
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            if not cause.retriable():
                self._discard()
                if cause.code() in _FENCED:
                    raise Fenced(cause.str()) from error
                raise SinkRefused(cause.str()) from error
            raise SinkAway(f"no transaction coordinator: {cause.str()}") from error
        self._ready = True

    def begin(self) -> None:
        """Open a transaction. All of it, up to the commit, has TRANSACTION_SECONDS."""
        self._deadline = time.monotonic() + TRANSACTION_SECONDS
        self._attempt(self._live().begin_transaction)

    def produce(self, topic: str, outgoing: Iterable[Outgoing]) -> None:
        """Add records to the transaction. They are sent in the background."""
        produce, poll = self._live().produce, self._live().poll
        try:
            for key, value, headers in outgoing:
                options = {"headers": headers} if headers else _NONE  # headers=None would cost 0.3 µs a record
                try:
                    produce(topic, value, key, **options)
                except BufferError:  # librdkafka's queue is full: let it send some
                    self._drain(poll)
                    produce(topic, value, key, **options)
        except BufferError:
            self._abort("the producer's queue stayed full")
        except KafkaException as error:
            self._failed(error.args[0])

    def _drain(self, poll: Callable[[float], int]) -> None:
        while len(self._live()) and not self._expired():
            poll(0.1)

    def send_offsets(self, topic: str, offsets: Mapping[int, int], group_metadata: object) -> None:
        """Add the next offsets to take to the transaction, fenced by the group's generation."""
        positions = [TopicPartition(topic, partition, offset) for partition, offset in sorted(offsets.items())]
        producer = self._live()
        self._attempt(
            lambda: self._bounded(lambda: producer.send_offsets_to_transaction(positions, group_metadata, STEP))
        )

    def commit(self) -> None:
        """Make all of it visible at once."""
        self._attempt(lambda: self._live().commit_transaction(STEP))

    def _expired(self) -> bool:
        return time.monotonic() > self._deadline or self._left() <= 0

    def _attempt(self, call: Callable[[], object]) -> None:
        """The same call until it succeeds, fails for good, or the transaction's time is up."""
        while True:
            try:
                call()
            except KafkaException as error:
                cause: KafkaError = error.args[0]
                if not cause.retriable() or cause.txn_requires_abort():
                    self._failed(cause)
                if self._expired():
                    self._give_up(f"no end in time: {cause.str()}", error)
            else:
                return

    def _bounded(self, call: Callable[[], object]) -> None:
        """The call, on a thread that can be left behind.

        librdkafka 2.16 ignores the time-out of sending offsets and may never come back from it once the group's
        coordinator was away (confluentinc/librdkafka issues 5456 and 5511)."""
        left = min(self._deadline - time.monotonic(), self._left())
        try:
            self._caller.submit(call).result(max(0.0, left) + STEP)
        except TimeoutError as error:
            # Not closed: a thread of ours is still inside. Its successor fences it.
            self._caller, self._producer, self._ready = ThreadPoolExecutor(1, "offsets"), None, False
            raise OutcomeUnknown("sending offsets never came back") from error

    def _failed(self, cause: KafkaError) -> None:
        if cause.txn_requires_abort():
            self._abort(cause.str())
        self._discard()
        if cause.code() in _FENCED:
            raise Fenced(cause.str())
        raise OutcomeUnknown(cause.str())

    def _give_up(self, why: str, error: KafkaException) -> None:
        self._discard()
        raise OutcomeUnknown(why) from error

    def _abort(self, why: str) -> None:
        producer = self._live()
        while True:
            try:
                producer.abort_transaction(STEP)
            except KafkaException as error:
                cause: KafkaError = error.args[0]
                if not cause.retriable() or self._expired():
                    self._give_up(f"{why}; and the abort failed: {cause.str()}", error)
            else:
                raise TransactionAborted(why)

    def _live(self) -> Producer:
        if self._producer is None:
            raise OutcomeUnknown("the producer is gone")
        return self._producer

    def _discard(self) -> None:
        """Drop the producer without waiting for brokers: the next one's `open` fences whatever it still tries."""
        producer, self._producer, self._ready = self._producer, None, False
        if producer is not None:
            threading.Thread(target=_bury, args=(producer,), name="old-producer", daemon=True).start()

    def close(self) -> None:
        """Let the producer go; no transaction is open. Never waits for brokers."""
        self._discard()


def _bury(producer: Producer) -> None:
    try:
        producer.purge()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # close() says that it could not abort: as expected
            producer.close()
    except (KafkaException, RuntimeError) as error:
        logger.debug("closing an old producer: %s", error)
