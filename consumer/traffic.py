"""The traffic of the demo: prices in at a steady rate, predictions out, and how long each took; then the summary."""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from consumer.cli_errors import CommandError
from consumer.demo import Metrics
from consumer.kafka_options import plain_producer_options, reader_options
from consumer.outputs import format_ts
from consumer.rendering import count, duration
from consumer.sandbox import PARTITIONS
from consumer.topics import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.pricefile import Prices
    from consumer.settings import Settings


@dataclass(frozen=True)
class Seen:
    """A prediction as a `read_committed` reader saw it, and how long after its update was produced."""

    prediction: dict[str, Any]
    latency: float  # seconds; NaN if the update is not ours


class Traffic:
    """Produces the prices at a steady rate and reads what comes out, in two threads, until `stop`.

    Args:
        prices: fewer than 100,000, which is what librdkafka's queue holds.
        rate: updates a second; 0 for as many as the broker takes."""

    def __init__(self, settings: Settings, prices: Prices, rate: float) -> None:
        self._settings, self._prices, self._rate = settings, prices, rate
        self._produced_at: dict[tuple[str, str], float] = {}  # (stock, ts) → time.monotonic()
        self._seen: queue.SimpleQueue[Seen] = queue.SimpleQueue()
        self._reading, self._stopping = threading.Event(), threading.Event()
        self._problem: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(work,), daemon=True) for work in (self._read, self._produce)
        ]
        self.sent = self.dead_letters = 0
        self.all_sent = False
        self.seconds = 0.0  # that sending took

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(5)

    def take(self) -> list[Seen]:
        """What has been seen since the last call; raises what a thread failed with."""
        if self._problem is not None:
            raise self._problem
        return [self._seen.get() for _ in range(self._seen.qsize())]

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as problem:  # noqa: BLE001 - handed to the main thread, which raises it
            self._problem = problem

    def _produce(self) -> None:
        options = plain_producer_options(self._settings)
        if self._rate:
            options["linger.ms"] = 0  # we measure how long an update takes, not how long we hold it back
        producer = Producer(Trouble().options(options))
        while not self._reading.wait(0.1):  # or we would measure how long the reader took to connect
            if self._stopping.is_set():
                return
        started = time.monotonic()
        for n, (stock, ts_ms, value) in enumerate(self._prices.messages()):
            if self._rate:
                self._wait_until(started + n / self._rate)
            if self._stopping.is_set():
                return
            self._produced_at[stock, format_ts(ts_ms).decode()] = time.monotonic()
            producer.produce(self._settings.kafka.input_topic, value, stock, on_delivery=self._delivered)
            producer.poll(0)
            self.sent, self.seconds = n + 1, time.monotonic() - started
        while len(producer) and not self._stopping.is_set():
            producer.poll(0.1)
        self.all_sent = True

    def _wait_until(self, due: float) -> None:
        # A sleep is no finer than a millisecond: what is due within one goes out together.
        while (wait := due - time.monotonic()) > 0.001 and not self._stopping.is_set():
            time.sleep(min(wait, 0.1))

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._problem = CommandError(f"the broker did not take an update of {message.key()!r}: {error.str()}")

    def _read(self) -> None:
        kafka = self._settings.kafka
        reader = Consumer(Trouble().options(reader_options(self._settings)))
        unread = {(topic, p) for topic in (kafka.output_topic, kafka.dead_letter_topic) for p in range(PARTITIONS)}
        reader.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for topic, p in unread])
        while not self._stopping.is_set():
            first = reader.poll(0.1)
            if first is None:
                continue
            messages = [first, *reader.consume(1000, 0)]
            now = time.monotonic()
            for message in messages:
                error = message.error()
                if error is not None:  # the broker away: librdkafka goes on by itself
                    if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's public names
                        unread.discard((str(message.topic()), message.partition() or 0))
                        if not unread:
                            self._reading.set()
                    continue
                if message.topic() == kafka.dead_letter_topic:
                    self.dead_letters += 1
                else:
                    prediction = json.loads(message.value() or b"{}")
                    at = self._produced_at.pop((prediction["stock"], prediction["ts"]), math.nan)
                    self._seen.put(Seen(prediction, now - at))
        reader.close()


@dataclass
class Summary:
    """What happened, for people."""

    updates: int = 0
    seconds: float = 0.0
    stocks: int = 0
    predictions: int = 0
    dead_letters: int = 0
    latencies: list[float] = field(default_factory=list)
    first_prediction: float = math.nan  # seconds after the command began
    metrics: Metrics = field(default_factory=lambda: Metrics({}))

    def add(self, seen: Seen) -> None:
        """Count one prediction."""
        self.predictions += 1
        if not math.isnan(seen.latency):
            self.latencies.append(seen.latency)

    def complete(self) -> bool:
        """Whether the service is done with every update, and all that it wrote has been seen."""
        told = self.metrics
        return (
            told.accounted == self.updates
            and told("predictions_published_total") == self.predictions
            and told("dead_letters_total") == self.dead_letters
        )

    def lines(self) -> list[str]:
        """The summary, one fact a line."""
        told = self.metrics
        rate = round(self.updates / self.seconds) if self.seconds else 0
        skipped = round(told("events_skipped_total"))
        down, up = told("flips_total", "falling"), told("flips_total", "not_falling")
        facts = {
            "updates in": f"{count(self.updates)} of {self.stocks} stocks in {duration(self.seconds)}, {count(rate)}/s",
            "predictions out": f"{count(self.predictions)}; {count(skipped)} updates built the first windows",
            "dead letters": count(self.dead_letters),
            "flips": f"{count(round(down))} to falling, {count(round(up))} back",
            "first prediction": f"{duration(self.first_prediction)} after the command",
        }
        if self.latencies:
            p50, p99 = _quantile(self.latencies, 0.5), _quantile(self.latencies, 0.99)
            facts["latency"] = f"p50 {duration(p50)}, p99 {duration(p99)} from produce to a read_committed reader"
        naive, scored = told("naive_abs_error_sum"), told("interval_hits_total")
        if naive > 0 and scored > 0:
            facts["forecasts"] = (
                f"mean error {told('forecast_abs_error_sum') / naive:.3f} of the naive forecast's; "
                f"{told('interval_hits_total', 'true') / scored:.1%} of the values fell into their interval"
            )
        return [f"{name:<17} {fact}" for name, fact in facts.items()]


def _quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]
