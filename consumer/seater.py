"""Seater: carries out the seating table for newly assigned partitions.

Asks Kafka and Redis for the facts, lets `seating.seat` decide, loads or begins the histories, and seeks. A partition
whose facts cannot be had stays waiting; the engine asks again next round."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from consumer.applier import new_generation
from consumer.outputs import PredictionEncoder
from consumer.partition import Partition, Standing
from consumer.seating import Facts, Plan, Policy, Rings, SeatingStopped, seat
from consumer.source import SourceAway
from state.convert import convert
from state.history import History
from state.layout import LAYOUT, Meta

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.metrics import Metrics
    from consumer.source import Source
    from model.predictor import Predictor
    from state.store import RedisStore

logger = logging.getLogger(__name__)


class TopicIdentity(NamedTuple):
    """What tells a topic from another of the same name."""

    cluster_id: str
    topic_id: str  # "" where the broker has none


class OffsetHidden(SourceAway):
    """The group's committed offset cannot be had: its coordinator is silent, or a transaction over it is open."""


class Seater:
    """Owned by the engine thread.

    `predictor` may be replaced by one that takes the same fields and reaches back `reach` values at most.

    Args:
        identify: asks the brokers for the input topic's identity; raises SourceAway.
        reach: values that memory holds of each stock; at least what the predictor reaches back.
        depth: ring size in Redis."""

    def __init__(
        self,
        source: Source,
        store: RedisStore,
        predictor: Predictor,
        metrics: Metrics,
        *,
        identify: Callable[[], TopicIdentity],
        reach: int,
        depth: int,
        policy: Policy,
    ) -> None:
        self._source, self._store, self.predictor, self._metrics = source, store, predictor, metrics
        self._identify, self._reach, self._depth, self._policy = identify, reach, depth, policy

    def seat(self, partition: Partition, *, timeout: float, breathe: Callable[[], None]) -> None:
        """Seat it, or stop it and say why; after an exception it waits as before.

        Args:
            timeout: seconds that the committed offset may keep us waiting (an open transaction hides it).
            breathe: called between chunks of long work; may raise to give up.
        Raises: OffsetHidden, SourceAway and Unavailable (ask again), SeatingRefused and StoreRefused (the worker must
        stop)."""
        try:
            committed = self._source.committed([partition.number], timeout)[partition.number]
        except SourceAway as error:
            raise OffsetHidden(str(error)) from error
        try:
            self._seat(partition, committed, self._identify(), breathe)
        except SeatingStopped as stopped:
            partition.standing, partition.why = Standing.STOPPED, str(stopped)
            logger.error("partition %d is stopped: %s", partition.number, stopped)  # noqa: TRY400  # the message says it

    def _seat(
        self, partition: Partition, committed: int | None, identity: TopicIdentity, breathe: Callable[[], None]
    ) -> None:
        number, predictor = partition.number, self.predictor
        fields = ",".join(predictor.fields)
        meta = self._store.read_meta(number)
        log_start, log_end = self._source.bounds(number)
        facts = Facts(
            committed=committed,
            meta=meta,
            rings_broken=0,
            log_start=log_start,
            log_end=log_end,
            cluster_id=identity.cluster_id,
            topic_id=identity.topic_id,
            depth=self._depth,
            fields=fields,
        )
        plan = seat(facts, self._policy)
        history = History(self._reach, 1 + len(predictor.fields), self._depth)
        if plan.rings is Rings.CONVERT and meta is not None:
            meta = self._convert(number, meta, breathe)
        if plan.rings is not Rings.NEW and meta is not None:
            broken = self._load(number, meta, history, breathe)
            if broken:
                plan = seat(facts._replace(rings_broken=broken), self._policy)
                history = History(self._reach, 1 + len(predictor.fields), self._depth)
        generation = new_generation() if plan.rings is Rings.NEW or meta is None else meta.generation
        partition.history = history
        partition.encoder = PredictionEncoder(predictor.window, predictor.version, self._source.topic, number)
        partition.next_offset, partition.output_from = plan.seek, plan.output_from
        kept = meta is not None and plan.rings is not Rings.NEW and meta.model == predictor.version
        partition.model_from = 0 if kept else plan.seek
        partition.committed = None if plan.commit_start else plan.output_from
        partition.stored = meta
        partition.target = Meta(
            generation=generation,
            watermark=plan.seek - 1,
            cluster_id=identity.cluster_id,
            topic_id=identity.topic_id,
            layout=LAYOUT,
            depth=self._depth,
            model=predictor.version,
            fields=fields,
        )
        partition.rejected = meta.rejected if meta is not None and plan.rings is not Rings.NEW else 0
        partition.breaker_open, partition.delta = False, None
        partition.retired = self._store.old_generations(number, meta.generation if meta is not None else "")
        partition.standing, partition.why = Standing.SEATED, ""
        partition.drift()  # the engine seeks before the next take
        self._tell(partition, plan)

    def _convert(self, number: int, meta: Meta, breathe: Callable[[], None]) -> Meta:
        logger.info("partition %d: converting rings of depth %d to %d", number, meta.depth, self._depth)
        return convert(self._store, number, meta, new_generation(), self._depth, breathe)

    def _load(self, number: int, meta: Meta, history: History, breathe: Callable[[], None]) -> int:
        """Number of rings that could not be read; those that could are in `history`."""
        broken: list[str] = []
        for chunk in self._store.load(number, meta, history.channels, history.reach):
            breathe()
            history.reserve(chunk.all_stocks)
            history.load(chunk.stocks, chunk.counts, chunk.records)
            broken += chunk.broken + (["its set of stocks"] if chunk.stocks_lost else [])
        if broken:
            logger.error(
                "partition %d: %d rings are damaged in Redis: %s …", number, len(broken), ", ".join(broken[:5])
            )
        return len(broken)

    def _tell(self, partition: Partition, plan: Plan) -> None:
        if plan.missing:
            self._metrics.history_gap_records.inc(plan.missing)
            logger.error(
                "partition %d: %d records that its histories were made of have left the log: stocks with less than %d "
                "updates in what is left warm up again",
                partition.number,
                plan.missing,
                self.predictor.min_history,
            )
        logger.info(
            "partition %d seated (%s): %d stocks, folding from %d, output from %d",
            partition.number,
            plan.row,
            len(partition.history),
            plan.seek,
            plan.output_from,
            extra={"partition": partition.number, "row": plan.row, "to_restore": plan.output_from - plan.seek},
        )
