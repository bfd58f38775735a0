"""A batch: one round's records of several partitions, staged together, published in one transaction.

Events are admitted for each partition (each has its own history), then all are predicted, judged and counted together:
the network and NumPy cost little more for many records than for one."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from consumer.outputs import FALSE, TRUE, dead_letter, format_ts, traceparent
from consumer.stage import Staged, admit, consecutive_rejections, judge, predictable
from state.layout import FALLING, FLIPPED, PREDICTED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from consumer.events import EventDecoder, Record
    from consumer.metrics import Metrics
    from consumer.outputs import Outgoing
    from consumer.partition import Partition
    from model.predictor import Predictor


@dataclass(frozen=True)
class Batch:
    """Staged parts, and the group's next offsets that go with them."""

    parts: list[tuple[Partition, Staged]]
    due: list[
        tuple[Partition, int]
    ]  # next offsets to commit: of the parts, and of partitions seated for the first time


class Stager:
    """Turns a round's records into a batch. Pure but for the clock and the timings it observes.

    `predictor` may be replaced between two batches, by one that takes the same fields and no longer windows."""

    def __init__(
        self, decoder: EventDecoder, predictor: Predictor, metrics: Metrics, max_stocks: int, limit: int
    ) -> None:
        self._decoder, self.predictor, self._metrics = decoder, predictor, metrics
        self._max_stocks, self._limit = max_stocks, limit

    def stage(self, taken: Sequence[tuple[Partition, Sequence[Record]]]) -> list[tuple[Partition, Staged]]:
        """Each partition's records, non-empty and from its `next_offset` on, staged."""
        clock, observe = time.perf_counter, self._metrics.stage_seconds.observe
        started = clock()
        decoded = [self._decoder.decode(records) for _, records in taken]
        observe((done := clock()) - started, "decode")

        started = done
        admitted, wanted, windows = [], [], []
        for (partition, _), events in zip(taken, decoded, strict=True):
            part = admit(partition.history, events, self._max_stocks)
            admitted.append(part)
            wanted.append(predictable(part, self.predictor.min_history))
            windows.append(partition.history.windows(part.updates, wanted[-1]))
        stacked = windows[0] if len(windows) == 1 else np.concatenate(windows)
        history_seconds = (done := clock()) - started

        started = done
        predictions = self.predictor.predict(stacked)
        observe((done := clock()) - started, "predict")

        started = done
        thresholds = (self.predictor.falling_on, self.predictor.falling_off)
        staged: list[tuple[Partition, Staged]] = []
        trips: dict[int, int] = {}
        judged = judge(admitted, wanted, predictions, thresholds)
        for (partition, records), part, said, asked, seen in zip(taken, admitted, judged, wanted, windows, strict=True):
            rejections = part.events.rejections + part.rejections + said.rejections
            rejections.sort(key=lambda rejection: rejection.position)
            silent = _first_at(records, partition.output_from)
            rejected, trip = consecutive_rejections(partition.rejected, len(records), rejections, silent, self._limit)
            if trip is not None:
                trips[partition.number] = trip
            next_offset = records[-1].offset() + 1
            staged.append(
                (
                    partition,
                    Staged(
                        records,
                        silent,
                        part,
                        said.entries,
                        asked,
                        seen,
                        said.scores,
                        rejections,
                        rejected,
                        next_offset,
                    ),
                )
            )
        observe(history_seconds + clock() - started, "history")
        return self._cut(taken, trips) if trips else staged

    def _cut(
        self, taken: Sequence[tuple[Partition, Sequence[Record]]], trips: dict[int, int]
    ) -> list[tuple[Partition, Staged]]:
        """Once more without the records from a trip on. Rare, so simple beats fast."""
        left = []
        for partition, records in taken:
            kept = records[: trips.get(partition.number, len(records))]
            if kept:
                left.append((partition, kept))
            else:
                partition.breaker_open = True  # nothing of it is staged that could be undone
        again = self.stage(left) if left else []
        return [(partition, replace(part, tripped=partition.number in trips)) for partition, part in again]


def predictions_of(partition: Partition, staged: Staged) -> Iterator[Outgoing]:
    """The records to produce to the output topic, in log order."""
    events, source, entries = staged.admitted.events, staged.admitted.source, staged.entries
    chosen = ((entries["flags"] & PREDICTED != 0) & staged.told).nonzero()[0]
    chosen = chosen[source[chosen].argsort()]
    entries = entries[chosen]
    flags = entries["flags"]
    records = [staged.records[position] for position in events.position[source[chosen]].tolist()]
    rows = zip(
        [record.key() or b"" for record in records],  # an update's key is its stock
        map(format_ts, entries["ts"].tolist()),
        entries["values"][:, 0].tolist(),
        np.where(flags & FALLING, TRUE, FALSE).tolist(),
        entries["probability"].tolist(),
        np.where(flags & FLIPPED, TRUE, FALSE).tolist(),
        entries["forecast"].tolist(),
        entries["low"].tolist(),
        entries["high"].tolist(),
        entries["offset"].tolist(),
        strict=True,
    )
    encode = partition.encoder.encode
    for record, row in zip(records, rows, strict=True):
        yield row[0], encode(row), traceparent(record)


def dead_letters_of(
    partition: Partition, topic: str, staged: Staged, failed_at_ms: int, version: str
) -> Iterator[Outgoing]:
    """The records to produce to the dead-letter topic, in log order."""
    source, failed_at = (topic, partition.number), format_ts(failed_at_ms)
    for rejection in staged.rejections:
        if rejection.position >= staged.silent:
            yield dead_letter(staged.records[rejection.position], rejection, source, failed_at, version)


def count(metrics: Metrics, parts: Sequence[Staged], now_ms: int) -> None:
    """Move the metrics by what committed parts held; what was restored moves none. `parts` has at least one."""
    flags = np.concatenate([part.entries["flags"] for part in parts])
    times = np.concatenate([part.entries["ts"] for part in parts])
    told = np.concatenate([part.told for part in parts])
    timestamps = np.concatenate([part.admitted.events.timestamp[part.admitted.source] for part in parts])
    predicted = told & (flags & PREDICTED != 0)
    predictions = int(np.count_nonzero(predicted))
    refused = Counter(r.reason for part in parts for r in part.rejections if r.position >= part.silent)
    duplicates = sum(part.live_duplicates for part in parts)
    consumed = sum(part.live for part in parts)
    metrics.events_consumed.inc(consumed)
    metrics.predictions_published.inc(predictions)
    for reason, number in refused.items():
        metrics.dead_letters.labels(reason).inc(number)
    metrics.events_skipped.labels("duplicate").inc(duplicates)
    metrics.events_skipped.labels("warming_up").inc(consumed - predictions - refused.total() - duplicates)
    flipped = flags[predicted & (flags & FLIPPED != 0)]
    falling = int(np.count_nonzero(flipped & FALLING))
    metrics.flips.labels("falling").inc(falling)
    metrics.flips.labels("not_falling").inc(len(flipped) - falling)
    timestamps = timestamps[predicted]
    # A producer's clock may be ahead of ours: never negative, a sum must not fall.
    metrics.event_to_prediction_seconds.observe(np.maximum(now_ms - timestamps[timestamps >= 0], 0) / 1000)
    if told.any():
        metrics.saw_event_time(int(times[told].max()) / 1000)
    _count_scores(metrics, parts)


def _count_scores(metrics: Metrics, parts: Sequence[Staged]) -> None:
    settled = [part.told[part.scores.position] for part in parts]
    number = sum(int(np.count_nonzero(one)) for one in settled)
    if number:
        error, naive, hit = (
            np.concatenate([getattr(part.scores, name)[one] for part, one in zip(parts, settled, strict=True)])
            for name in ("error", "naive", "hit")
        )
        metrics.forecast_abs_error.add(float(error.sum()), number)
        metrics.naive_abs_error.add(float(naive.sum()), number)
        hits = int(np.count_nonzero(hit))
        metrics.interval_hits.labels("true").inc(hits)
        metrics.interval_hits.labels("false").inc(number - hits)


def _first_at(records: Sequence[Record], offset: int) -> int:
    """Position of the first record at or after `offset`."""
    if records[0].offset() >= offset:
        return 0
    return next((i for i, record in enumerate(records) if record.offset() >= offset), len(records))
