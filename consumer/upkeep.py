"""Upkeep: what the engine does beside its rounds. Gauges, breakers, idle servers, old generations."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from consumer.partition import Standing
from state.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from consumer.metrics import Metrics
    from consumer.partition import Partition
    from consumer.source import Source
    from consumer.troubles import Troubles
    from state.store import RedisStore

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # between looks
CHECK_SECONDS = 5.0  # without a write before Redis is asked how it is
UNLINK_RINGS = 1000  # of an old generation at a time

KAFKA, REDIS = "Kafka does not answer", "Redis does not answer"  # troubles of an idle worker


class Upkeep:
    """Owned by the engine thread."""

    def __init__(self, source: Source, store: RedisStore, metrics: Metrics, troubles: Troubles) -> None:
        self._source, self._store, self._metrics, self._troubles = source, store, metrics, troubles
        self._looked = time.monotonic()
        self.wrote = time.monotonic()  # when Redis last took something

    def look(self, partitions: Iterable[Partition], *, idle: bool) -> None:
        """Once in LOOK_SECONDS, or more often while idle where there is something to delete."""
        now = time.monotonic()
        due = now - self._looked >= LOOK_SECONDS
        partitions = list(partitions)
        try:
            if due:
                self._looked = now
                self._gauges(partitions)
                self._breakers(partitions)
                if now - self.wrote >= CHECK_SECONDS or REDIS in self._troubles:
                    self._store.check()
                    self.wrote = now
            if idle or due:
                self._unlink(partitions)
        except Unavailable as error:
            self._metrics.redis_errors.labels("check").inc()
            self._troubles.set(REDIS, str(error))
        else:
            if due:
                self._troubles.clear(REDIS)
        if due and KAFKA in self._troubles:
            trouble = self._source.trouble()
            if trouble:
                self._troubles.set(KAFKA, trouble)
            else:
                self._troubles.clear(KAFKA)

    def _gauges(self, partitions: list[Partition]) -> None:
        metrics = self._metrics
        seated = [partition for partition in partitions if partition.standing is Standing.SEATED]
        held = [partition.number for partition in seated if partition.adrift or not partition.active]
        asked = self._source.ask_ends(held) if held and KAFKA not in self._troubles else {}
        for partition in seated:
            end = asked.get(partition.number, self._source.known_end(partition.number))
            if end is not None:
                metrics.consumer_lag.labels(str(partition.number)).set(max(0, end - partition.reached))
        metrics.stocks_tracked.set(sum(len(partition.history) for partition in seated))
        metrics.falling_stocks.set(sum(partition.history.falling_stocks for partition in seated))
        metrics.restore_remaining.set(
            sum(partition.output_from - partition.next_offset for partition in seated if partition.restoring)
        )

    def _breakers(self, partitions: list[Partition]) -> None:
        for partition in partitions:
            # Applied first: a write that is repeated must say what the first one said.
            if partition.breaker_open and partition.applied and self._store.take_resume(partition.number):
                logger.warning("partition %d: resumed by an operator", partition.number)
                partition.breaker_open, partition.rejected = False, 0
                partition.drift()
            self.show_breaker(partition)

    def show_breaker(self, partition: Partition) -> None:
        """Gauge and one line of log."""
        gauge = self._metrics.breaker_open.labels(str(partition.number))
        if partition.breaker_open and not gauge._value.get():  # noqa: SLF001  # the gauge remembers what was said
            logger.error(
                "partition %d is paused at offset %d: more than dead_letters.max_consecutive dead letters in a row. "
                "Fix its producer, then `downtick dead-letters resume`, or raise the limit",
                partition.number,
                partition.next_offset,
            )
        gauge.set(partition.breaker_open)

    def _unlink(self, partitions: list[Partition]) -> None:
        """One chunk of one old generation: nobody waits for it."""
        for partition in partitions:
            if partition.retired and partition.applied:
                if self._store.unlink_generation(partition.number, partition.retired[0], UNLINK_RINGS):
                    partition.retired.pop(0)
                return
