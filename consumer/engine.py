"""The engine: one round after the other, exactly once.

    1 poll     the first record, then what is there
    2 settle   assignment changes; seat new partitions; take the group's metadata, once for each assignment
    3 stage    decode → windows, features, predictions, flags, scores            pure: nothing is moved
    4 publish  begin · predictions and dead letters · offsets · commit           Kafka decides
    5 advance  fold the staged updates into memory; move next_offset; count
    6 apply    one scripted call per touched partition                           Redis follows

Between two rounds another model may take over: the next record is its first, on every partition.

No transaction is open across a poll, so a revocation never meets one. What cannot be finished is kept: a batch whose
outcome is unknown (`_unresolved`), changes that Redis does not hold yet (`Partition.delta`). While either is
there, partitions are held, polling goes on, and no further record is taken: at most one batch is in hand."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from typing import TYPE_CHECKING

from consumer.applier import Applied
from consumer.batch import Batch, count, dead_letters_of, predictions_of
from consumer.outputs import PredictionEncoder
from consumer.partition import Partition, Standing
from consumer.seater import OffsetHidden
from consumer.sink import Fenced, OutcomeUnknown, SinkAway, SinkRefused, TransactionAborted
from consumer.source import CALL_TIMEOUT, SHORT_TIMEOUT, SourceAway, SourceFatal, SourceLost, Taken
from consumer.troubles import Troubles
from consumer.upkeep import KAFKA, Upkeep
from state.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from consumer.applier import Applier
    from consumer.batch import Stager
    from consumer.events import Record
    from consumer.metrics import Metrics
    from consumer.models import Change
    from consumer.scoring import Scoring
    from consumer.seater import Seater
    from consumer.sink import Sink
    from consumer.source import Source
    from consumer.stop import Stop
    from state.store import RedisStore

logger = logging.getLogger(__name__)

POLL = 0.2  # seconds to wait for a first record
CONFLICTS = 5  # writes in a row that met somebody else's state, before the worker stops
FENCES = 5  # times in FENCE_SECONDS that our transactional id was taken from us, before the worker stops
FENCE_SECONDS = 60.0
SEAT_SECONDS = 0.5  # of one round for seating; partitions that are seated already must not wait longer
AGAIN_SECONDS = 1.0  # before partitions that could not be seated are tried again
HANGING_SECONDS = 60.0  # no transaction stays open that long: brokers end ours after transaction.timeout.ms, 15 s
LEAVE_SECONDS, LEAVE_BY = 5.0, 8.0  # to leave the group, and no later than this after the wish to stop
PLACE_SECONDS = 1.0  # between looks at our place in the group; a look costs a trip to the client's own thread
LONGEST_PAUSE = 10.0  # seconds between tries of a transaction that fails again and again

# Names of troubles; each is cleared by its own success only.
COORDINATOR = "no transaction coordinator"
TRANSACTION = "transactions fail"
OUTCOME = "the outcome of a transaction is unknown"
SEATING = "partitions cannot be seated"
HANGING = "a transaction has lost its end"
SEEKING = "partitions cannot be brought to their offset"
WRITING = "Redis does not take what was committed"


class _Stopping(Exception):
    """Asked to stop in the middle of long work."""


class EngineFailed(Exception):
    """The worker cannot go on by itself; the message names cause and way on."""


class Engine:
    """One consumer, one producer, one Redis connection, one predictor, driven by one thread through `run`.

    Args:
        models: which other model is to be taken over now, if any; asked between two batches.
        output_topic, dead_letter_topic: where a batch goes.
        max_events, max_wait: when a batch closes.
        live_namesake: whether another live member of the group carries our name; raises SourceAway.
        is_member: whether the group lists us; for KIP-848, where a member without partitions hears nothing. None: an
            assignment, if only an empty one, always comes. Raises SourceAway.
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
        scoring: Scoring,
        models: Callable[[], Change | None],
        metrics: Metrics,
        output_topic: str,
        dead_letter_topic: str,
        max_events: int,
        max_wait: float,
        live_namesake: Callable[[], bool],
        is_member: Callable[[], bool] | None,
        stop: Stop,
        version: str,
    ) -> None:
        self._source, self._sink, self._store = source, sink, store
        self._stager, self._seater, self._applier, self._metrics = stager, seater, applier, metrics
        self._scoring, self._models = scoring, models
        self._output_topic, self._dead_letter_topic, self._version = output_topic, dead_letter_topic, version
        self._max_events, self._max_wait = max_events, max_wait
        self._live_namesake, self._is_member, self._stop = live_namesake, is_member, stop
        applier.breathe = self._breathe_to_the_last

        self.partitions: dict[int, Partition] = {}
        self.beat = time.monotonic()  # of the last sign of life; /live looks at its age
        self.troubles: tuple[str, ...] = ("not started",)  # why the worker is not ready; () when it is
        self._ailing = Troubles()
        self._upkeep = Upkeep(source, store, metrics, self._ailing)
        self._joined = self._member = False  # has been a member of the group; is one now
        self._member_id, self._place_seen = "", time.monotonic()  # at the last look
        # Of this assignment. Asking costs three round trips to the client's own thread. An old one is refused where a
        # partition may be another's by now; so it is asked for again after a change or a failed transaction only.
        self._metadata: object | None = None
        self._unresolved: Batch | None = None
        self._fences: list[float] = []
        self._polled = time.monotonic()
        self._seat_again = 0.0  # when partitions that could not be seated are tried again
        self._failures = 0  # of transactions, in a row
        self._try_again = 0.0  # when the next transaction may be tried
        self._limit = max_events  # records in a batch; halved by each failure, so that one that never fits gets smaller

    # The loop.

    def run(self) -> None:
        """Join the group and work until asked to stop; then finish or give up what is in hand, and leave.

        Raises: EngineFailed, SeatingRefused, StoreRefused, and whatever is a bug."""
        try:
            self._open_first()
            if not self._stop.asked():
                self._source.join()
            while not self._stop.asked():
                self._round()
            self._finish()
        finally:
            self.troubles = ("stopped",)
            self._sink.close()
            self._store.close()
            self._leave()

    def _open_first(self) -> None:
        """Fence the former self before joining: its open transaction would hide the offsets it was about to commit."""
        while not self._stop.asked() and not self._producer_ready():
            self.beat = time.monotonic()
            self._show_readiness()

    def _round(self) -> None:
        self.beat = time.monotonic()
        # Asked again after it: a stop may come in the middle of a long write, and then nothing is begun any more.
        blocked = not self._nothing_pending() or self._stop.asked()
        if self._unresolved is None:  # what may be committed is the old model's
            self._follow_models()
        self._steer(blocked=blocked)
        taken = self._take()
        fresh = self._settle(taken)
        usable = [] if blocked else self._usable(taken, fresh)
        if not blocked:
            self._handle(usable)
            self._note_ends(taken, fresh)
        self._scoring.settle(everything=not usable)
        self._upkeep.look(self.partitions.values(), idle=not usable)
        self._show_readiness()

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

    def _follow_models(self) -> None:
        """Take over what the watcher has ready. The next record is the new model's, on every partition."""
        change = self._models()
        if change is None:
            return
        if change.active is not None:
            before, after = self._stager.predictor, change.active
            self._scoring.follow(after)
            self._stager.predictor = self._seater.predictor = after
            for partition in self.partitions.values():
                if partition.standing is Standing.SEATED:
                    encoder = PredictionEncoder(after.window, after.version, self._source.topic, partition.number)
                    partition.adopt(after.version, encoder)
            self._metrics.show_model(after.version)
            self._metrics.model_swaps.labels("activated").inc()
            logger.info(
                "model %s predicts from now on, %s did before",
                after.version,
                before.version,
                extra={"model": after.version},
            )
        if change.candidate is not None or change.no_candidate:
            self._scoring.challenge(change.candidate)
            if change.candidate is not None:
                logger.info("candidate %s runs in shadow", change.candidate.version)
            else:
                logger.info("no candidate runs in shadow any more")

    def _breathe(self) -> None:
        """A sign of life in long work. Raises _Stopping to end it."""
        self.beat = time.monotonic()
        if self._stop.asked():
            raise _Stopping

    def _breathe_to_the_last(self) -> None:
        """The same where what is committed goes to Redis: that has the time of a shutdown, too."""
        self.beat = time.monotonic()
        if self._stop.left() <= 0:
            raise _Stopping

    # 1 poll

    def _take(self) -> Taken:
        now = time.monotonic()
        self._metrics.poll_interval_used.observe(now, (now - self._polled) / self._source.max_poll_interval)
        waiting = any(partition.standing is Standing.WAITING for partition in self.partitions.values())
        try:
            return self._source.take(self._limit, 0.0 if waiting and now >= self._seat_again else POLL, self._max_wait)
        except SourceFatal as error:
            raise EngineFailed(f"the consumer cannot go on: {error}") from error
        except SourceLost as error:
            logger.warning("the consumer raised, seeking every partition again: %s", error)
            self._drift(self.partitions.values())
            return Taken()
        finally:
            self._polled = time.monotonic()

    def _steer(self, *, blocked: bool) -> None:
        """Hold what must not be read, bring what is adrift to its offset, let the rest flow."""
        if blocked:
            self._drift(self.partitions.values())  # what is fetched already is dropped this round
        try:
            self._source.hold(
                [number for number, partition in self.partitions.items() if blocked or not partition.active]
            )
        except SourceAway as error:
            logger.warning("%s", error)
        if blocked:
            return
        cause = ""
        for number, partition in self.partitions.items():
            if partition.active and partition.adrift:
                try:
                    others = {n: other.next_offset for n, other in self.partitions.items() if n != number}
                    self._source.seek(number, partition.next_offset, others)
                    partition.adrift = False
                except SourceAway as error:
                    cause = str(error)
        self._trouble(SEEKING, cause)

    def _drift(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            partition.drift()

    # 2 settle

    def _settle(self, taken: Taken) -> set[int]:
        """Follow the assignment; partitions with a change this round, whose records do not count."""
        fresh: set[int] = set()
        while self._source.changes:
            change = self._source.changes.popleft()
            # A place that was lost is had again with the next assignment, if only an empty one.
            self._joined, self._member, self._metadata = True, change.event != "lost", None
            self._failures, self._limit = 0, self._max_events  # what failed may be somebody else's now
            self._ailing.clear(TRANSACTION)
            fresh.update(change.partitions)
            self._metrics.rebalances.labels(change.event).inc()
            logger.info("partitions %s: %s", change.event, list(change.partitions), extra={"event": change.event})
            for number in change.partitions:
                self.partitions.pop(number, None)
                self._metrics.forget_partition(number)
                if change.event == "assigned":
                    self.partitions[number] = Partition(number)
        self._metrics.assigned_partitions.set(len(self.partitions))
        for number, wanted in taken.displaced.items():
            partition = self.partitions.get(number)
            if partition is None or not partition.active or partition.adrift or wanted != partition.next_offset:
                continue  # the place where it waited to be seated and sought need not exist
            logger.error("partition %d: its next offset does not exist in the log; seating it anew", number)
            self._wait(partition, "its next offset left the log")
            fresh.add(number)
        self._seat_waiting()
        if self._metadata is None:
            self._metadata = self._source.group_metadata()
        self._look_at_place()
        if not self._member and self._is_member is not None:
            with contextlib.suppress(SourceAway):
                self._member = self._is_member()
                self._joined |= self._member
        return fresh

    def _look_at_place(self) -> None:
        """A member without partitions is told of no loss; its id tells. Without one it is no member before the next
        assignment; where the group is asked (KIP-848), another id is a reason to ask it again."""
        now = time.monotonic()
        if now - self._place_seen < PLACE_SECONDS:
            return
        self._place_seen, before, self._member_id = now, self._member_id, self._source.member_id()
        if not self._member_id or (self._is_member is not None and self._member_id != before):
            self._member = False

    def _wait(self, partition: Partition, why: str) -> None:
        """Seat it anew, soon."""
        partition.standing, partition.why, partition.delta = Standing.WAITING, why, None
        partition.hidden_since = None
        self._seat_again = 0.0

    def _seat_waiting(self) -> None:
        """Seat what waits, as far as the round's time goes."""
        waiting = [partition for partition in self.partitions.values() if partition.standing is Standing.WAITING]
        started = time.monotonic()
        if not waiting:
            self._ailing.clear(SEATING)
            self._ailing.clear(HANGING)
        # An unknown outcome is resolved first: it may move the committed offsets.
        if not waiting or self._unresolved is not None or started < self._seat_again:
            return
        timeout = CALL_TIMEOUT if len(waiting) == len(self.partitions) else SHORT_TIMEOUT
        cause = ""
        # The longest untried first: one that cannot be seated must not keep the others from it. That matters beyond
        # fairness: a broker's restart can hide a committed offset until its producer's next transaction.
        for partition in sorted(waiting, key=lambda partition: partition.tried):
            partition.tried = time.monotonic()
            hidden_since, partition.hidden_since = partition.hidden_since or partition.tried, None
            try:
                self._seater.seat(partition, timeout=timeout, breathe=self._breathe)
            except SourceAway as error:
                cause = partition.why = str(error)
                if isinstance(error, OffsetHidden):
                    partition.hidden_since = hidden_since
            except Unavailable as error:
                self._metrics.redis_errors.labels("load").inc()
                cause = partition.why = str(error)
                break
            except _Stopping:
                return
            if time.monotonic() - started > SEAT_SECONDS:
                break
        self._trouble(SEATING, cause)
        self._trouble(HANGING, self._hanging(waiting))
        left = any(partition.standing is Standing.WAITING and not partition.why for partition in waiting)
        self._seat_again = 0.0 if left or not cause else time.monotonic() + AGAIN_SECONDS

    def _hanging(self, partitions: Iterable[Partition]) -> str:
        """What an operator can do about offsets that stay hidden, where waiting longer is likely to be in vain.

        The group's coordinator does answer: a worker that it does not hear loses its partitions within seconds."""
        hidden = [(one.hidden_since, one.number) for one in partitions if one.hidden_since is not None]
        since, number = min(hidden, default=(math.inf, -1))
        seconds = time.monotonic() - since
        if seconds < HANGING_SECONDS or self._source.trouble():
            return ""
        return (
            f"brokers answer, but hide the committed offset of partition {number}, for {seconds:.0f} s now: "
            "`kafka-transactions.sh find-hanging` names the transaction over it, `… abort` ends it"
        )

    def _note_ends(self, taken: Taken, fresh: set[int]) -> None:
        """The log's end was reached. A restore ends there too: only control records are left, nothing to fold."""
        for number, end in taken.ends.items():
            partition = self.partitions.get(number)
            if partition is None or number in fresh or partition.adrift or not partition.active:
                continue
            partition.log_end = end
            if partition.restoring:
                partition.next_offset = max(partition.next_offset, min(end, partition.output_from))

    def _usable(self, taken: Taken, fresh: set[int]) -> list[tuple[Partition, list[Record]]]:
        """Records of owned, settled partitions from their next offset on."""
        usable: list[tuple[Partition, list[Record]]] = []
        for number, records in taken.records.items():
            partition = self.partitions.get(number)
            if partition is None or number in fresh:
                continue
            if not partition.active or partition.adrift:
                continue  # sought before the next take
            if records[0].offset() < partition.next_offset:
                records = [record for record in records if record.offset() >= partition.next_offset]  # noqa: PLW2901  # the rest is not wanted
            if records:
                usable.append((partition, records))
        return usable

    # 4 publish

    def _publish(self, batch: Batch) -> bool:
        """Whether the batch is committed. If not, its partitions go back, or it is kept until its outcome is known."""
        if self._metadata is None:  # offsets sent without a member id would not be fenced
            self._drift(partition for partition, _ in batch.parts)
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
            self._metrics.transactions.labels("aborted").inc()
            self._failed(batch, f"aborted: {error}")
            return False
        except OutcomeUnknown as error:
            self._metrics.transactions.labels("unknown").inc()
            self._unresolved = batch
            self._ailing.set(OUTCOME, str(error))
            self._failed(batch, str(error))
            if isinstance(error, Fenced):
                self._fenced(error)
            return False
        self._succeeded()
        self._metrics.transactions.labels("committed").inc()
        self._metrics.stage_seconds.observe(time.perf_counter() - started, "publish")
        return True

    def _succeeded(self) -> None:
        self._failures = 0
        self._limit = min(self._max_events, 2 * self._limit)
        self._ailing.clear(TRANSACTION)

    def _failed(self, batch: Batch, why: str) -> None:
        """Take the records again, at once after one failure; after several more slowly and in smaller batches."""
        self._drift(partition for partition, _ in batch.parts)
        self._metadata = None  # the generation may be an old one
        self._failures += 1
        self._limit = max(1, self._limit // 2)
        if self._failures == 1:  # a rebalance, mostly: no reason for anything but trying again
            logger.info("transaction failed, doing it again: %s", why)
            return
        self._ailing.set(TRANSACTION, why)
        self._try_again = time.monotonic() + min(LONGEST_PAUSE, 0.05 * 2**self._failures)

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
        self._scoring.take(batch.parts)
        for partition, staged in batch.parts:
            updates = staged.admitted.updates
            partition.history.fold(updates, staged.entries)
            partition.delta = partition.history.delta(updates, staged.entries)
            partition.next_offset, partition.rejected = staged.next_offset, staged.rejected
            restored = partition.output_from if staged.silent else 0
            if restored and partition.next_offset >= restored:
                logger.info("partition %d: histories restored, publishing from %d", partition.number, restored)
            if staged.tripped:
                partition.breaker_open = True
                self._upkeep.show_breaker(partition)
        live = [staged for _, staged in batch.parts if staged.live]
        if live:
            count(self._metrics, live, now)
            self._metrics.batch_events.observe(sum(staged.live for staged in live))
        self._apply()

    # 6 apply

    def _apply(self) -> bool:
        """Whether Redis holds all that was folded."""
        pending = [
            partition
            for partition in self.partitions.values()
            if partition.standing is Standing.SEATED and not partition.applied and partition.committed is not None
        ]
        if not pending:
            self._ailing.clear(WRITING)
            return True
        started = time.perf_counter()
        try:
            outcomes = self._applier.apply(pending)
        except Unavailable as error:
            self._metrics.redis_errors.labels("write").inc()
            self._ailing.set(WRITING, str(error))
            return False
        except _Stopping:
            return False
        for partition, outcome in zip(pending, outcomes, strict=True):
            if outcome is Applied.CONFLICT:
                self._conflict(partition)
        self._ailing.clear(WRITING)
        self._upkeep.wrote = time.monotonic()
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
        """Whether records may be taken: producer open, last outcome known, Redis in step, no pause after failures."""
        if not self._producer_ready():
            return False
        if self._unresolved is not None and not self._resolve(self._unresolved):
            return False
        return self._apply() and time.monotonic() >= self._try_again

    def _producer_ready(self) -> bool:
        if self._sink.ready:
            return True
        if time.monotonic() < self._try_again:
            return False
        try:
            self._sink.open()
        except SinkAway as error:
            self._ailing.set(COORDINATOR, str(error))
            return False
        except SinkRefused as error:
            if not self._joined:
                raise EngineFailed(f"the brokers refuse a transactional producer: {error}") from error
            self._ailing.set(COORDINATOR, str(error))
            self._try_again = time.monotonic() + LONGEST_PAUSE
            return False
        except Fenced as error:
            self._fenced(error)
            return False
        self._ailing.clear(COORDINATOR)
        return True

    def _resolve(self, batch: Batch) -> bool:
        """Ask the group what became of a batch: done → advance; undone → go back; anything else → seat anew."""
        mine = [(partition, offset) for partition, offset in batch.due if self._owned(partition)]
        try:
            committed = self._source.committed(partition.number for partition, _ in mine) if mine else {}
        except SourceAway as error:
            self._ailing.set(OUTCOME, str(error))
            return False
        self._unresolved = None
        self._ailing.clear(OUTCOME)
        done = {partition.number for partition, offset in mine if committed[partition.number] == offset}
        for partition, offset in mine:
            if committed[partition.number] == partition.committed:
                partition.drift()
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
        if done:
            self._succeeded()
            parts = [(partition, staged) for partition, staged in batch.parts if partition.number in done]
            self._drift(partition for partition, _ in parts)
            self._advance(Batch(parts, [(partition, offset) for partition, offset in mine if partition.number in done]))
        return True

    def _owned(self, partition: Partition) -> bool:
        """Whether it is still ours, in the same assignment."""
        return self.partitions.get(partition.number) is partition

    def _finish(self) -> None:
        """No further record. What is committed, or may be, gets a last chance to reach Redis."""
        while self._unfinished() and self._stop.left() > 0:
            self.beat = time.monotonic()
            resolved = self._unresolved is None or (self._producer_ready() and self._resolve(self._unresolved))
            if not resolved or not self._apply():
                self._steer(blocked=True)
                self._take()
        if self._unfinished():
            logger.warning("what is in hand is left to the next worker, which finds it in the log")

    def _unfinished(self) -> bool:
        return self._unresolved is not None or any(
            partition.standing is Standing.SEATED and partition.committed is not None and not partition.applied
            for partition in self.partitions.values()
        )

    def _leave(self) -> None:
        """Leave the group, as long as brokers listen: without a goodbye they notice after the session time-out."""
        leaving = threading.Thread(target=self._source.close, name="leaving", daemon=True)
        leaving.start()
        leaving.join(min(LEAVE_SECONDS, self._stop.left(LEAVE_BY)))

    # Looking after oneself.

    def _show_readiness(self) -> None:
        troubles = list(self._ailing.texts)
        if not self._member:
            troubles.append("it lost its place in the group" if self._joined else "not yet a member of the group")
        for partition in self.partitions.values():
            if partition.standing is not Standing.SEATED:
                why = f"partition {partition.number} is {partition.standing.value}: {partition.why}"
                troubles.append(why.rstrip(": "))
            elif partition.restoring:
                left = partition.output_from - partition.next_offset
                troubles.append(f"partition {partition.number} restores its histories, {left} records to go")
            elif partition.breaker_open:
                troubles.append(f"partition {partition.number} is paused: too many dead letters in a row")
        if (not troubles) != (not self.troubles):
            if troubles:
                logger.info("not ready: %s", troubles[0])
            else:
                logger.info("ready")
        self.troubles = tuple(troubles)

    def kafka_error(self, text: str) -> None:
        """Take what librdkafka says of the whole client. Called within `run`, by a poll."""
        self._ailing.set(KAFKA, text)

    def _trouble(self, name: str, cause: str) -> None:
        if cause:
            self._ailing.set(name, cause)
        else:
            self._ailing.clear(name)
