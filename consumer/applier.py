"""Applier: Redis follows what Kafka has committed.

One scripted call per partition and round. What it meets decides: written; rings damaged from outside (rewritten from
memory); meta gone (Redis lost its data while we live: memory is written under a new generation); somebody else's
meta (seat the partition anew). `Unavailable` leaves everything pending: the same call is made again later."""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from state.layout import Delta, Meta
from state.store import Broken, Outcome, Write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.metrics import Metrics
    from consumer.partition import Partition
    from state.store import RedisStore

logger = logging.getLogger(__name__)

CHUNK = 2048  # rings per call when a whole generation is written: Redis serves nobody else meanwhile
REPAIRS = 3  # times a call may find further damage before the whole partition is written anew


class Applied(Enum):
    """What became of a partition's pending changes."""

    DONE = "done"
    CONFLICT = "conflict"  # another writer: seat the partition anew


def new_generation() -> str:
    """A name for a set of rings, never used twice."""
    return secrets.token_hex(8)


class Applier:
    """Writes partitions' folded changes. Owned by the engine thread; one store, never two calls at once."""

    def __init__(self, store: RedisStore, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics
        self.breathe: Callable[[], None] = lambda: None  # called between chunks of long work; the engine sets it

    def apply(self, partitions: Sequence[Partition]) -> list[Applied]:
        """Make Redis hold what memory holds of these, all in one go.

        Raises: Unavailable (call again), StoreRefused."""
        writes = [self._pending(partition) for partition in partitions]
        outcomes = self._store.write_all(writes)
        answered = list(zip(partitions, writes, outcomes, strict=True))
        for partition, write, outcome in answered:  # the good news first: what follows may raise
            if outcome is Outcome.APPLIED:
                self._holds(partition, write.then)
        return [Applied.DONE if one[2] is Outcome.APPLIED else self._mend(*one) for one in answered]

    def _pending(self, partition: Partition) -> Write:
        then = replace(partition.target, watermark=partition.watermark, rejected=partition.rejected)
        delta = partition.delta or Delta.empty(partition.history.channels)
        return Write(partition.number, partition.stored, then, delta)

    def _mend(self, partition: Partition, write: Write, outcome: Outcome | Broken) -> Applied:
        for _ in range(REPAIRS - 1):
            if not isinstance(outcome, Broken) or outcome.stocks_lost:
                break
            write = write._replace(delta=self._repaired(partition, write.delta, outcome.positions))
            outcome = self._store.write(*write)
        if outcome is Outcome.APPLIED:
            return self._holds(partition, write.then)
        if not isinstance(outcome, Broken):
            return self._conflict(partition)
        if outcome.stocks_lost:
            logger.error("the set of stocks of partition %d was damaged in Redis: writing it anew", partition.number)
        else:
            logger.error("more rings of partition %d are damaged each time: writing all of them anew", partition.number)
        return self._write_all(partition, partition.stored)

    def _conflict(self, partition: Partition) -> Applied:
        found = self._store.read_meta(partition.number)
        if found is not None or partition.stored is None:
            logger.warning(
                "partition %d is at watermark %s of generation %s in Redis, expected %s of %s: another writer, or a "
                "Redis put back from a snapshot; seating it anew",
                partition.number,
                found.watermark if found else None,
                found.generation if found else None,
                partition.stored.watermark if partition.stored else None,
                partition.stored.generation if partition.stored else None,
            )
            return Applied.CONFLICT
        logger.error(
            "Redis lost the histories of partition %d: writing all %d stocks again from memory",
            partition.number,
            len(partition.history),
        )
        return self._write_all(partition, None)

    def _write_all(self, partition: Partition, expect: Meta | None) -> Applied:
        """All of memory under a new generation: chunks first, meta last, so that readers see all of it or nothing.

        A try that is cut short goes on under the same name, or each would leave a whole set of rings behind."""
        history, number = partition.history, partition.number
        partition.staging = partition.staging or new_generation()
        then = replace(
            partition.target,
            generation=partition.staging,
            watermark=partition.watermark,
            rejected=partition.rejected,
        )
        for first in range(0, len(history), CHUNK):
            rows = np.arange(first, min(first + CHUNK, len(history)))
            delta = history.rewrite(rows)
            if self._store.stage(number, expect, then.generation, then.depth, delta) is not Outcome.APPLIED:
                self._forget(partition)
                return Applied.CONFLICT
            self.breathe()
        if self._store.write(number, expect, then, Delta.empty(history.channels)) is not Outcome.APPLIED:
            self._forget(partition)
            return Applied.CONFLICT
        partition.target, partition.staging = then, ""
        return self._holds(partition, then)

    def _forget(self, partition: Partition) -> None:
        """What was written under a name of ours is not needed; to be deleted."""
        partition.retired.append(partition.staging)
        partition.staging = ""

    def _holds(self, partition: Partition, then: Meta) -> Applied:
        """Redis holds all of it now; what it holds under other generations is to be deleted."""
        if partition.staging:
            self._forget(partition)
        if partition.stored is not None and partition.stored.generation != then.generation:
            partition.retired.append(partition.stored.generation)
        partition.stored, partition.delta, partition.conflicts = then, None, 0
        return Applied.DONE

    def _repaired(self, partition: Partition, delta: Delta, positions: list[int]) -> Delta:
        """The delta with the rings at `positions` replaced, whole, by what memory holds."""
        history = partition.history
        broken = np.zeros(len(delta.stocks), np.bool_)
        broken[positions] = True
        stocks = [delta.stocks[i] for i in positions]
        logger.error(
            "%d rings of partition %d were damaged in Redis (%s …): rewriting them",
            len(stocks),
            partition.number,
            stocks[0],
        )
        self._metrics.rings_repaired.inc(len(stocks))
        healthy = delta.records[np.repeat(~broken, delta.counts)]
        rewritten = history.rewrite(np.array([history.row_of[stock] for stock in stocks], np.int64))
        return Delta(
            stocks=[stock for stock, bad in zip(delta.stocks, broken.tolist(), strict=True) if not bad] + stocks,
            counts=np.concatenate((delta.counts[~broken], rewritten.counts)),
            records=np.concatenate((healthy, rewritten.records)),
            new=np.concatenate((delta.new[~broken], rewritten.new)),
            rewrite=np.concatenate((delta.rewrite[~broken], rewritten.rewrite)),
        )
