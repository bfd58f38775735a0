"""The engine: one round after the other, exactly once.

    1 poll     the first record, then what is there
    2 settle   assignment changes; seat new partitions; take the group's metadata, once
    3 stage    decode → windows, features, predictions, flags, scores            pure: nothing is moved
    4 publish  begin · predictions and dead letters · offsets · commit           Kafka decides
    5 advance  fold the staged updates into memory; move next_offset; count
    6 apply    one scripted call per touched partition                           Redis follows

No transaction is open across a poll, so a revocation never meets one. What cannot be finished is kept: a batch whose
outcome is unknown (`_unresolved`), changes that Redis does not hold yet (`Partition.delta`). While either is
there, partitions are held, polling goes on, and no further record is taken: at most one batch is in hand."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from consumer.applier import Applied
from consumer.batch import Batch, count, dead_letters_of, predictions_of
from consumer.partition import Partition, Standing
from consumer.sink import Fenced, OutcomeUnknown, SinkAway, TransactionAborted
from consumer.source import SourceAway, SourceFatal, SourceLost, Taken
from state.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from consumer.applier import Applier
    from consumer.batch import Stager
    from consumer.events import Record
    from consumer.metrics import Metrics
    from consumer.seater import Seater
    from consumer.sink import Sink
    from consumer.source import Source
    from state.store import RedisStore

logger = logging.getLogger(__name__)

POLL = 0.2  # seconds to wait for a first record
CONFLICTS = 5  # writes in a row that met somebody else's state, before the worker stops
FENCES = 5  # times in FENCE_SECONDS that our transactional id was taken from us, before the worker stops
FENCE_SECONDS = 60.0
STOP_SECONDS = 6.0  # after a wish to stop: for what is pending, before it is left to the next worker
LOOK_SECONDS = 1.0  # between looks at lag, breakers and the well-being of idle servers
UNLINK_RINGS = 500  # of an old generation in one round


class EngineFailed(Exception):
    """The worker cannot go on by itself; the message names cause and way on."""


class Engine:
    """One consumer, one producer, one Redis connection, one predictor, driven by one thread through `run`.

    Args:
        output_topic, dead_letter_topic: where a batch goes.
        max_events, max_wait: when a batch closes.
        live_namesake: whether another live member of the group carries our name; raises SourceAway.
        stopping: whether the worker was asked to stop.
        version: of downtick, for dead letters."""

    def __init__(
        self,
        *,
        source: Source,
        sink: Sink,
        store: RedisStore,
        stager: Stager,
        seater: Seater,
        applier: Applier,
        metrics: Metrics,
        output_topic: str,
        dead_letter_topic: str,
        max_events: int,
        max_wait: float,
        live_namesake: Callable[[], bool],
        stopping: Callable[[], bool],
        version: str,
    ) -> None:
        self._source, self._sink, self._store = source, sink, store
        self._stager, self._seater, self._applier, self._metrics = stager, seater, applier, metrics
        self._output_topic, self._dead_letter_topic, self._version = output_topic, dead_letter_topic, version
        self._max_events, self._max_wait = max_events, max_wait
        self._live_namesake, self._stopping = live_namesake, stopping

        self.partitions: dict[int, Partition] = {}
        self.beat = time.monotonic()  # of the last round; /live looks at its age
        self.troubles: tuple[str, ...] = ("not started",)  # why the worker is not ready; () when it is
        self._joined = False
        self._metadata: object | None = None
        self._unresolved: Batch | None = None
        self._kafka_trouble = self._redis_trouble = ""
        self._fences: list[float] = []
        self._looked = self._polled = time.monotonic()

    # The loop.

    def run(self) -> None:
        """Join the group and work until asked to stop; then finish or give up what is in hand, and leave.

        Raises: EngineFailed, SeatingRefused, StoreRefused, and whatever is a bug."""
        try:
            self._open_first()
            self._source.join()
            while not self._stopping():
                self._round()
            self._finish()
        finally:
            self._sink.close()
            self._source.close()
            self._store.close()
            self.troubles = ("stopped",)

    def _open_first(self) -> None:
        """Fence the former self before joining: its open transaction would hide the offsets it was about to commit."""
        while not self._stopping() and not self._producer_ready():
            self._beat()

    def _round(self) -> None:
        self._beat()
        blocked = not self._nothing_pending()
        self._steer(blocked=blocked)
        taken = self._take()
        fresh = self._settle(taken)
        if not blocked:
            self._handle(self._usable(taken, fresh))
            self._end_restores(taken, fresh)
        self._look()

    def _handle(self, records: list[tuple[Partition, list[Record]]]) -> None:
        """Stage, publish, advance, apply."""
        parts = self._stager.stage(records) if records else []
        moved = {partition.number: max(staged.next_offset, partition.output_from) for partition, staged in parts}
        due = [
            (partition, moved.get(number, partition.owed))
            for number, partition in self.partitions.items()
            if partition.standing is Standing.SEATED and moved.get(number, partition.owed) != partition.committed
        ]
        batch = Batch(parts, due)
        if not due or self._publish(batch):
            self._advance(batch)

    # 1 poll

    def _take(self) -> Taken:
        now = time.monotonic()
        self._metrics.poll_interval_used.observe(now, (now - self._polled) / self._source.max_poll_interval)
        try:
            return self._source.take(self._max_events, POLL, self._max_wait)
        except SourceFatal as error:
            raise EngineFailed(f"the consumer cannot go on: {error}") from error
        except SourceLost as error:
            logger.warning("the consumer raised, seeking every partition again: %s", error)
            self._set_adrift(self.partitions.values())
            return Taken()
        finally:
            self._polled = time.monotonic()

    def _steer(self, *, blocked: bool) -> None:
        """Hold what must not be read, bring what is adrift to its offset, let the rest flow."""
        try:
            held = [number for number, partition in self.partitions.items() if blocked or not partition.active]
            self._source.hold(held)
            if blocked:
                # What is fetched already is dropped this round: come back to it.
                self._set_adrift(self.partitions.values())
                return
            for number, partition in self.partitions.items():
                if partition.active:
                    if partition.adrift:
                        self._source.seek({number: partition.next_offset})
                        partition.adrift = False
                    self._source.release([number])
        except SourceAway as error:
            self._kafka(str(error))

    def _set_adrift(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            partition.adrift = True

    # 2 settle

    def _settle(self, taken: Taken) -> set[int]:
        """Follow the assignment; partitions with a change this round, whose records do not count."""
        fresh: set[int] = set()
        while self._source.changes:
            change = self._source.changes.popleft()
            self._joined = True
            fresh.update(change.partitions)
            self._metrics.rebalances.labels(change.event).inc()
            logger.info("partitions %s: %s", change.event, list(change.partitions), extra={"event": change.event})
            for number in change.partitions:
                self.partitions.pop(number, None)
                self._metrics.forget_partition(number)
                if change.event == "assigned":
                    self.partitions[number] = Partition(number)
        self._metrics.assigned_partitions.set(len(self.partitions))
        for number in taken.displaced & self.partitions.keys():
            logger.error("partition %d: its next offset does not exist in the log; seating it anew", number)
            self._wait(self.partitions[number], "its next offset left the log")
            fresh.add(number)
        self._seat_waiting()
        self._metadata = self._source.group_metadata()
        self._joined = self._joined or self._metadata is not None
        return fresh

    def _wait(self, partition: Partition, why: str) -> None:
        partition.standing, partition.why, partition.delta = Standing.WAITING, why, None

    def _seat_waiting(self) -> None:
        waiting = [partition for partition in self.partitions.values() if partition.standing is Standing.WAITING]
        if not waiting or self._unresolved is not None:
            return  # an unknown outcome is resolved first: it may move the committed offsets
        try:
            self._seater.seat(waiting)
        except SourceAway as error:
            self._kafka(str(error))
        except Unavailable as error:
            self._redis("load", str(error))
        else:
            self._kafka("")
            self._redis("load", "")

    def _end_restores(self, taken: Taken, fresh: set[int]) -> None:
        """A restore ends where the log does: below `output_from` only control records are left, nothing to fold."""
        for number, end in taken.ends.items():
            partition = self.partitions.get(number)
            if partition is not None and number not in fresh and partition.restoring and not partition.adrift:
                partition.next_offset = max(partition.next_offset, min(end, partition.output_from))

    def _usable(self, taken: Taken, fresh: set[int]) -> list[tuple[Partition, list[Record]]]:
        """Records of owned, settled partitions from their next offset on."""
        usable: list[tuple[Partition, list[Record]]] = []
        for number, records in taken.records.items():
            partition = self.partitions.get(number)
            if partition is None or number in fresh:
                continue
            if not partition.active or partition.adrift:
                continue
            if records[0].offset() < partition.next_offset:
                records = [record for record in records if record.offset() >= partition.next_offset]  # noqa: PLW2901  # the rest is not wanted
            if records:
                usable.append((partition, records))
        return usable

    # 4 publish

    def _publish(self, batch: Batch) -> bool:
        """Whether the batch is committed. If not, its partitions go back, or it is kept until its outcome is known."""
        if self._metadata is None:  # offsets sent without a member id would not be fenced
            self._put_back(batch)
            return False
        started, sink = time.perf_counter(), self._sink
        failed_at = int(time.time() * 1000)
        try:
            sink.begin()
            for partition, staged in batch.parts:
                sink.produce(self._output_topic, predictions_of(partition, staged))
                if staged.rejections:
                    letters = dead_letters_of(partition, self._source.topic, staged, failed_at, self._version)
                    sink.produce(self._dead_letter_topic, letters)
            sink.send_offsets(
                self._source.topic, {partition.number: offset for partition, offset in batch.due}, self._metadata
            )
            sink.commit()
        except TransactionAborted as error:
            logger.warning("transaction aborted, doing it again: %s", error)
            self._metrics.transactions.labels("aborted").inc()
            self._put_back(batch)
            return False
        except OutcomeUnknown as error:
            self._metrics.transactions.labels("unknown").inc()
            self._unresolved = batch
            self._kafka(f"a transaction's outcome is unknown: {error}")
            if isinstance(error, Fenced):
                self._fenced(error)
            return False
        self._metrics.transactions.labels("committed").inc()
        self._metrics.stage_seconds.observe(time.perf_counter() - started, "publish")
        return True

    def _put_back(self, batch: Batch) -> None:
        self._set_adrift(partition for partition, _ in batch.parts)

    def _fenced(self, error: Fenced) -> None:
        """A newer producer carries our name: the coordinator itself, after a time-out, or another worker."""
        now = time.monotonic()
        self._fences = [then for then in self._fences if now - then < FENCE_SECONDS] + [now]
        try:
            taken = self._live_namesake()
        except SourceAway:
            taken = False
        if taken or len(self._fences) >= FENCES:
            raise EngineFailed(
                f"another live worker of this group has the same name and fenced this one ({error}): give each worker "
                "its own `worker` setting"
            ) from error

    # 5 advance

    def _advance(self, batch: Batch) -> None:
        now = int(time.time() * 1000)
        for partition, offset in batch.due:
            partition.committed = offset
        for partition, staged in batch.parts:
            updates = staged.admitted.updates
            partition.history.fold(updates, staged.entries)
            partition.delta = partition.history.delta(updates, staged.entries)
            partition.next_offset, partition.rejected = staged.next_offset, staged.rejected
            restored = partition.output_from if staged.silent else 0
            if restored and partition.next_offset >= restored:
                logger.info("partition %d: histories restored, publishing from %d", partition.number, restored)
            if staged.live:
                count(self._metrics, staged, now)
            if staged.tripped:
                partition.breaker_open = True
        if live := sum(staged.live for _, staged in batch.parts):
            self._metrics.batch_events.observe(live)
        for partition, _ in batch.parts:
            self._show_breaker(partition)
        self._apply()

    # 6 apply

    def _apply(self) -> bool:
        """Whether Redis holds all that was folded."""
        started, wrote = time.perf_counter(), False
        for partition in list(self.partitions.values()):
            if partition.standing is not Standing.SEATED or partition.applied or partition.committed is None:
                continue
            try:
                before = partition.stored
                outcome = self._applier.apply(partition)
            except Unavailable as error:
                self._redis("write", str(error))
                return False
            wrote = True
            if outcome is Applied.CONFLICT:
                self._conflict(partition)
            elif (
                before is not None and partition.stored is not None and before.generation != partition.stored.generation
            ):
                partition.retired.append(before.generation)
        if wrote:
            self._redis("write", "")
            self._metrics.stage_seconds.observe(time.perf_counter() - started, "apply")
        return True

    def _conflict(self, partition: Partition) -> None:
        partition.conflicts += 1
        if partition.conflicts >= CONFLICTS:
            raise EngineFailed(
                f"the histories of partition {partition.number} in Redis changed under us {CONFLICTS} times in a row: "
                "does another group with the same kafka.group_id and redis.key_prefix write there?"
            )
        self._wait(partition, "somebody else wrote its histories")

    # What is pending.

    def _nothing_pending(self) -> bool:
        """Whether records may be taken: producer open, last outcome known, Redis up to date."""
        if not self._producer_ready():
            return False
        if self._unresolved is not None and not self._resolve(self._unresolved):
            return False
        return self._apply()

    def _producer_ready(self) -> bool:
        if self._sink.ready:
            return True
        try:
            self._sink.open()
        except SinkAway as error:
            self._kafka(str(error))
            return False
        except Fenced as error:
            self._fenced(error)
            return False
        self._kafka("")
        return True

    def _resolve(self, batch: Batch) -> bool:
        """Ask the group what became of a batch: done → advance; undone → go back; anything else → seat anew."""
        mine = [(partition, offset) for partition, offset in batch.due if self._owned(partition)]
        try:
            committed = self._source.committed(partition.number for partition, _ in mine) if mine else {}
        except SourceAway as error:
            self._kafka(str(error))
            return False
        self._unresolved = None
        done = {partition.number for partition, offset in mine if committed[partition.number] == offset}
        for partition, offset in mine:
            if committed[partition.number] == partition.committed:
                partition.adrift = True
            elif partition.number not in done:
                logger.warning(
                    "partition %d: the group's offset is %s, neither %s nor %d: seating it anew",
                    partition.number,
                    committed[partition.number],
                    partition.committed,
                    offset,
                )
                self._wait(partition, "its committed offset is not ours")
        logger.info("the unknown transaction was %s", "committed" if done else "not committed")
        self._kafka("")
        if done:
            parts = [(partition, staged) for partition, staged in batch.parts if partition.number in done]
            self._set_adrift(partition for partition, _ in parts)
            self._advance(Batch(parts, [(partition, offset) for partition, offset in mine if partition.number in done]))
        return True

    def _owned(self, partition: Partition) -> bool:
        """Whether it is still ours, in the same assignment."""
        return self.partitions.get(partition.number) is partition

    def _finish(self) -> None:
        """No further record; what is committed gets a last chance to reach Redis."""
        deadline = time.monotonic() + STOP_SECONDS
        while not self._nothing_pending() and time.monotonic() < deadline:
            self._beat()
            self._steer(blocked=True)
            self._settle(self._take())
        logger.info("draining is done" if self._unresolved is None else "a batch is left to the next worker")

    # Looking after oneself.

    def _beat(self) -> None:
        self.beat = time.monotonic()

    def _look(self) -> None:
        """Once a second: gauges, breakers, idle servers, old generations; every round: readiness."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._gauges()
            try:
                self._check_breakers()
                self._store.check()
                self._unlink()
            except Unavailable as error:
                self._redis("check", str(error))
            else:
                self._redis("check", "")
            if self._kafka_trouble and not self._unresolved:
                self._kafka(self._source.trouble())
        self._show_readiness()

    def _gauges(self) -> None:
        metrics, partitions = self._metrics, self.partitions.values()
        seated = [partition for partition in partitions if partition.standing is Standing.SEATED]
        held = [partition.number for partition in seated if partition.adrift or not partition.active]
        asked = self._source.ask_ends(held) if held and not self._kafka_trouble else {}
        for partition in seated:
            end = asked.get(partition.number, self._source.known_end(partition.number))
            if end is not None:
                metrics.consumer_lag.labels(str(partition.number)).set(max(0, end - partition.next_offset))
        metrics.stocks_tracked.set(sum(len(partition.history) for partition in seated))
        metrics.falling_stocks.set(sum(partition.history.falling_stocks for partition in seated))
        metrics.restore_remaining.set(
            sum(partition.output_from - partition.next_offset for partition in seated if partition.restoring)
        )

    def _check_breakers(self) -> None:
        for partition in self.partitions.values():
            if partition.breaker_open and self._store.take_resume(partition.number):
                logger.warning("partition %d: resumed by an operator", partition.number)
                partition.breaker_open, partition.rejected, partition.adrift = False, 0, True
            self._show_breaker(partition)

    def _show_breaker(self, partition: Partition) -> None:
        gauge = self._metrics.breaker_open.labels(str(partition.number))
        if partition.breaker_open and not gauge._value.get():  # noqa: SLF001  # the gauge is the memory of what was said
            logger.error(
                "partition %d is paused at offset %d: more than dead_letters.max_consecutive dead letters in a row. "
                "Fix its producer, then `downtick dead-letters resume`, or raise the limit",
                partition.number,
                partition.next_offset,
            )
        gauge.set(partition.breaker_open)

    def _unlink(self) -> None:
        """One chunk of one old generation: nobody waits for it."""
        for partition in self.partitions.values():
            if partition.retired and partition.applied:
                if self._store.unlink_generation(partition.number, partition.retired[0], UNLINK_RINGS):
                    partition.retired.pop(0)
                return

    def _show_readiness(self) -> None:
        troubles = [trouble for trouble in (self._kafka_trouble, self._redis_trouble) if trouble]
        if not self._joined:
            troubles.append("not yet a member of the group")
        if self._unresolved is not None:
            troubles.append("the outcome of a transaction is unknown")
        for partition in self.partitions.values():
            if partition.standing is not Standing.SEATED:
                troubles.append(
                    f"partition {partition.number} is {partition.standing.value}: {partition.why}".rstrip(": ")
                )
            elif partition.restoring:
                left = partition.output_from - partition.next_offset
                troubles.append(f"partition {partition.number} restores its histories, {left} records to go")
            elif partition.breaker_open:
                troubles.append(f"partition {partition.number} is paused: too many dead letters in a row")
        if (not troubles) != (not self.troubles):
            logger.info("ready" if not troubles else "not ready: %s", *troubles[:1])
        self.troubles = tuple(troubles)
        self._metrics.ready.set(not troubles)

    def kafka_error(self, text: str) -> None:
        """Take what librdkafka says of the whole client. Called within `run`, by a poll."""
        self._kafka(text)

    def _kafka(self, trouble: str) -> None:
        """Kafka is away (why), or back ("")."""
        if bool(trouble) != bool(self._kafka_trouble):
            logger.warning("Kafka is away, waiting: %s", trouble) if trouble else logger.info("Kafka is back")
        self._kafka_trouble = trouble and f"Kafka: {trouble}"

    def _redis(self, operation: str, trouble: str) -> None:
        """Redis is away (why), or back ("")."""
        if trouble:
            self._metrics.redis_errors.labels(operation).inc()
        if bool(trouble) != bool(self._redis_trouble):
            logger.warning("Redis is away, waiting: %s", trouble) if trouble else logger.info("Redis is back")
        self._redis_trouble = trouble and f"Redis: {trouble}"
