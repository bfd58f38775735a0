"""Metrics: every number the service shows about itself, each with what to do when it moves.

The engine thread writes once per batch, not per record; scrapes read from other threads. Labels have few values:
a partition may be one, a stock never."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
EVENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
WINDOW = 60.0  # seconds
COMPARED = ("candidate", "active")
STAGES = ("decode", "history", "predict", "publish", "apply")
REASONS = (
    "json_invalid",
    "schema_invalid",
    "key_missing",
    "key_mismatch",
    "too_large",
    "late",
    "model_not_finite",
    "stock_limit",
)


class BatchHistogram(Collector):
    """A histogram that takes a whole array in one call: 4,096 observations cost what two single ones would."""

    def __init__(
        self, name: str, text: str, buckets: Sequence[float], registry: CollectorRegistry, stages: Sequence[str] = ()
    ) -> None:
        self._name, self._text = name, text
        self._label = "stage" if stages else ""
        self._keys = tuple(stages) or ("",)
        self._edges = np.array(buckets)
        self._counts = {key: np.zeros(len(buckets) + 1, np.int64) for key in self._keys}
        self._sums = dict.fromkeys(self._keys, 0.0)
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, values: ArrayLike, stage: str = "") -> None:
        """Count every value; `le` buckets, as Prometheus has them."""
        array = np.asarray(values, np.float64).reshape(-1)
        buckets = np.bincount(self._edges.searchsorted(array), minlength=len(self._edges) + 1)
        with self._lock:
            self._counts[stage] += buckets
            self._sums[stage] += float(array.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """One family, cumulative buckets."""
        family = HistogramMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])
        with self._lock:
            for key in self._keys:
                cumulative = np.cumsum(self._counts[key]).tolist()
                names = [*(_edge(edge) for edge in self._edges.tolist()), "+Inf"]
                labels = [key] if self._label else []
                family.add_metric(labels, list(zip(names, cumulative, strict=True)), self._sums[key])
        yield family


def _edge(value: float) -> str:
    return str(float(value))


class Total(Collector):
    """A sum and a count, taken in whole batches; shown as a Prometheus summary, or as one for each value of a label."""

    def __init__(
        self, name: str, text: str, registry: CollectorRegistry, label: str = "", keys: Sequence[str] = ("",)
    ) -> None:
        self._name, self._text, self._label, self._keys = name, text, label, tuple(keys)
        self._lock = threading.Lock()
        self.reset()
        registry.register(self)

    def add(self, amount: float, count: int, key: str = "") -> None:
        """Add `count` observations that sum to `amount`."""
        with self._lock:
            self._sums[key] += amount
            self._counts[key] += count

    def reset(self) -> None:
        """Begin again at nothing, which Prometheus takes for a restart."""
        with self._lock:
            self._sums, self._counts = dict.fromkeys(self._keys, 0.0), dict.fromkeys(self._keys, 0)

    def collect(self) -> Iterator[SummaryMetricFamily]:
        """One family, `_sum` and `_count`."""
        family = SummaryMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])
        with self._lock:
            for key in self._keys:
                family.add_metric([key] if self._label else [], self._counts[key], self._sums[key])
        yield family


class RollingMax(Collector):
    """The largest value of the last one to two minutes: a scrape every half minute misses no peak."""

    def __init__(self, name: str, text: str, registry: CollectorRegistry) -> None:
        self._name, self._text = name, text
        self._started, self._now, self._before = 0.0, 0.0, 0.0
        registry.register(self)

    def observe(self, at: float, value: float) -> None:
        """Take a value at a time in seconds of any clock that only rises."""
        if at - self._started >= WINDOW:
            self._before = self._now if at - self._started < 2 * WINDOW else 0.0
            self._now, self._started = 0.0, at
        self._now = max(self._now, value)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge."""
        yield GaugeMetricFamily(self._name, self._text, value=max(self._now, self._before))


class ShadowMetrics:
    """A candidate in shadow beside the active version, on the same updates and in the same unit."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.info = Gauge(
            "downtick_shadow_info", "1 for the candidate that runs in shadow.", ["version"], registry=registry
        )
        self.candidates = Counter(
            "downtick_shadow_candidates_total",
            "Candidates taken into shadow, refused before, or failed there: the log names the fault.",
            ["outcome"],
            registry=registry,
        )
        self.forecast_abs_error = Total(
            "downtick_shadow_forecast_abs_error",
            "|value - forecast| in the active version's window scales. Candidate below active, for long: promote it.",
            registry,
            "model",
            COMPARED,
        )
        self.naive_abs_error = Total(
            "downtick_shadow_naive_abs_error",
            "|value - last value| of the same updates. Below both: neither forecasts anything.",
            registry,
        )
        self.interval_hits = Counter(
            "downtick_shadow_interval_hits_total",
            "Values by whether they fell in each one's interval. 90 % should hit; compare the widths too.",
            ["model", "hit"],
            registry=registry,
        )
        self.interval_width = Total(
            "downtick_shadow_interval_width",
            "Width of the intervals, in the same scales. At equal hits the narrower one knows more.",
            registry,
            "model",
            COMPARED,
        )
        self.falling_squared_error = Total(
            "downtick_shadow_falling_squared_error",
            "(probability - truth)^2, each by its own rule; sum / count is the Brier score. Candidate below: promote.",
            registry,
            "model",
            COMPARED,
        )
        for outcome in ("accepted", "refused", "failed"):
            self.candidates.labels(outcome)
        self.start_anew()

    def start_anew(self) -> None:
        """Another candidate, or another version that it is compared with: no sum may hold both."""
        self.info.clear()
        for total in (self.forecast_abs_error, self.naive_abs_error, self.interval_width, self.falling_squared_error):
            total.reset()
        self.interval_hits.clear()
        for model in COMPARED:
            for hit in ("true", "false"):
                self.interval_hits.labels(model, hit)


class Metrics:
    """All of them, on a registry of their own. Writers: the engine thread, and the watcher's for what it refuses.
    Readers: any."""

    def __init__(self) -> None:  # noqa: C901  # a list, not a flow
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, read by nobody
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # CPU, memory and open files of this process; on Linux only
        GCCollector(registry=registry)  # a full collection holds up a batch: docs/decisions/process.md

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"downtick_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"downtick_{name}", text, labels, registry=registry)

        def summary(name: str, text: str, label: str = "", keys: Sequence[str] = ("",)) -> Total:
            return Total(f"downtick_{name}", text, registry, label, keys)

        # consumed = published + dead letters + skipped, always: if not, file a bug.
        self.events_consumed = counter(
            "events_consumed_total", "Updates taken and committed. Flat while lag grows: look at /ready."
        )
        self.predictions_published = counter(
            "predictions_published_total", "Predictions committed. Below consumed: see skipped and dead letters."
        )
        self.dead_letters = counter(
            "dead_letters_total",
            "Updates refused, by reason. Rising: read the topic's downtick.message headers.",
            "reason",
        )
        self.events_skipped = counter(
            "events_skipped_total", "Updates without output: duplicates, and stocks still warming up.", "reason"
        )
        self.flips = counter(
            "flips_total", "Falling flags that changed. Many at once: a market move or a bad feed.", "to"
        )
        self.transactions = counter(
            "transactions_total", "Kafka transactions. Aborted or unknown rising: brokers or rebalances.", "outcome"
        )
        self.rebalances = counter(
            "rebalances_total", "Assignment changes. Rising steadily: workers that die or poll too seldom.", "event"
        )
        self.history_gap_records = counter(
            "history_gap_records_total", "Records that retention took before a restore. Any: histories have a gap."
        )
        self.redis_errors = counter(
            "redis_errors_total",
            "Redis calls that failed. Rising: the service waits and retries; look at Redis.",
            "operation",
        )
        self.rings_repaired = counter(
            "rings_repaired_total", "Rings found broken in Redis and rewritten. Any: somebody else writes our keys."
        )
        self.interval_hits = counter(
            "interval_hits_total",
            "Settled forecasts by whether the value fell in the interval. 90 % should hit.",
            "hit",
        )
        self.forecast_abs_error = summary(
            "forecast_abs_error", "|value - forecast| of settled forecasts, in window scales. Above naive: retrain."
        )
        self.naive_abs_error = summary("naive_abs_error", "|value - last value| of the same updates, in window scales.")
        self.falling_squared_error = summary(
            "falling_squared_error",
            "(probability - truth)^2 once the label's rule can tell; sum / count is the Brier score. Rising: retrain.",
        )
        self.batch_events = BatchHistogram(
            "downtick_batch_events", "Updates per batch. At batch.max_events: the service is behind.", EVENTS, registry
        )
        self.stage_seconds = BatchHistogram(
            "downtick_stage_seconds",
            "Time of a batch by stage. One grows: that part is slow.",
            STAGE_SECONDS,
            registry,
            STAGES,
        )
        self.event_to_prediction_seconds = BatchHistogram(
            "downtick_event_to_prediction_seconds",
            "Kafka timestamp of an update to the commit of its prediction. Grows: lag, or clocks apart.",
            SECONDS,
            registry,
        )
        self.consumer_lag = gauge(
            "consumer_lag_records",
            "Records after the last one handled. Grows: add workers or look at stages.",
            "partition",
        )
        self.last_event_timestamp = gauge(
            "last_event_timestamp_seconds",
            "Event time of the newest update handled. Stands still: producers are silent.",
        )
        self.assigned_partitions = gauge(
            "assigned_partitions", "Partitions of this worker. 0 is legal with many workers."
        )
        self.restore_remaining = gauge(
            "restore_remaining_records", "Records to fold before output goes on. Not falling: look at the log."
        )
        self.breaker_open = gauge(
            "breaker_open",
            "1: too many dead letters in a row, partition paused. Fix the producer, then resume.",
            "partition",
        )
        self.stocks_tracked = gauge("stocks_tracked", "Stocks in memory. Near history.max_stocks: raise it or shard.")
        self.falling_stocks = gauge("falling_stocks", "Stocks that carry the falling flag.")
        self.poll_interval_used = RollingMax(
            "downtick_poll_interval_used_ratio",
            "Longest share of max.poll.interval.ms between two polls of late. Near 1: smaller batches.",
            registry,
        )
        self.ready = gauge("ready", "1 as /ready says. 0 for long: GET /ready names the cause.")
        self.model_info = gauge("model_info", "1 for the bundle version that predicts.", "version")
        self.model_swaps = counter(
            "model_swaps_total",
            "Versions taken over while running, or refused. Refused rising: the log names the fault; see models list.",
            "outcome",
        )
        self.shadow = ShadowMetrics(registry)

        self._newest = 0.0

        for reason in REASONS:
            self.dead_letters.labels(reason)
        for reason in ("duplicate", "warming_up"):
            self.events_skipped.labels(reason)
        for to in ("falling", "not_falling"):
            self.flips.labels(to)
        for outcome in ("committed", "aborted", "unknown"):
            self.transactions.labels(outcome)
        for event in ("assigned", "revoked", "lost"):
            self.rebalances.labels(event)
        for hit in ("true", "false"):
            self.interval_hits.labels(hit)
        for outcome in ("activated", "refused"):
            self.model_swaps.labels(outcome)
        for operation in ("check", "load", "write"):
            self.redis_errors.labels(operation)

    def saw_event_time(self, seconds: float) -> None:
        """Show the newest event time there was: partitions and stocks differ, and the gauge must not go back."""
        self._newest = max(self._newest, seconds)
        self.last_event_timestamp.set(self._newest)

    def show_model(self, version: str) -> None:
        """This one predicts, and no other."""
        self.model_info.clear()
        self.model_info.labels(version).set(1)

    def forget_partition(self, partition: int) -> None:
        """Drop the series of a partition that left: a gauge that nobody moves would lie."""
        for gauge in (self.consumer_lag, self.breaker_open):
            if (str(partition),) in gauge._metrics:  # noqa: SLF001  # remove() of a missing label warns or raises by version
                gauge.remove(str(partition))
