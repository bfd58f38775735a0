"""From produce() to a reader: each update's way through broker, worker, transaction and broker again.

One clock, one host: a stamp just before produce(), another when the read_committed reader holds the prediction."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from bench.throughput.backlog import WARM_UP, Result
from bench.throughput.ground import PARTITIONS, Ground, Progress, Worker
from bench.throughput.market import Market, send, send_paced
from consumer.kafka_options import reader_options

if TYPE_CHECKING:
    from typing import Self

SETTLE = 5.0  # seconds at full rate before the measured ones
_TS = re.compile(rb'"ts":"([^"]+)"')


class Reader:
    """A downstream consumer in a thread: stamps records as they come, looks at them later."""

    def __init__(self, ground: Ground) -> None:
        topic = ground.settings.kafka.output_topic
        self._consumer = Consumer({**reader_options(ground.settings), "enable.partition.eof": False})
        ends = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        for place in ends:
            place.offset = self._consumer.get_watermark_offsets(place, timeout=10)[1]
        self._consumer.assign(ends)
        self.seen: list[tuple[int, bytes]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def _run(self) -> None:
        poll, clock, seen = self._consumer.poll, time.monotonic_ns, self.seen
        while not self._stop.is_set():
            message = poll(0.1)
            if message is not None and message.error() is None:
                seen.append((clock(), message.value() or b""))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._consumer.close()


def latency(broker: str, kind: str, stocks: int, rate: int, seconds: float) -> Result:
    """Milliseconds from produce to visible at `rate` updates a second; kind is "service" or "ceiling".

    Every stock has its history before; the first seconds of the load are not counted."""
    market = Market(stocks, min(rate, 1000))  # a millisecond of its own for each update names it in the output
    with Ground(broker) as ground:
        topic, servers = ground.settings.kafka.input_topic, ground.bootstrap_servers()
        child = ground.worker() if kind == "service" else ground.loop("ceiling")
        progress = Progress(ground)
        warm_up = send(servers, topic, market.updates(WARM_UP * stocks))
        with child:
            if isinstance(child, Worker):
                child.wait_ready()
            progress.wait_for(warm_up, child)
            progress.close()
            with Reader(ground) as reader:
                time.sleep(1)  # its first fetches are out
                count = int(rate * (SETTLE + seconds))
                cpu = child.cpu()
                started = time.monotonic()
                sent = send_paced(servers, topic, market.updates(count), rate, lambda: not child.alive())
                offered = len(sent) / (time.monotonic() - started)
                deadline = time.monotonic() + 20
                while len(reader.seen) < count and time.monotonic() < deadline:
                    child.check()
                    time.sleep(0.05)
                cpu = child.cpu() - cpu
    arrived = {match[1]: at for at, value in reader.seen if (match := _TS.search(value))}
    if arrived.keys() != sent.keys() or len(reader.seen) != count:
        raise RuntimeError(f"{count} updates sent, {len(reader.seen)} predictions seen, {len(arrived)} different ones")
    counted = list(sent)[int(rate * SETTLE) :]
    ms = np.array([arrived[ts] - sent[ts] for ts in counted]) / 1e6
    p50, p90, p99, p999 = np.percentile(ms, [50, 90, 99, 99.9]).tolist()
    return {
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "p999_ms": p999,
        "max_ms": float(ms.max()),
        "updates": len(ms),
        "offered_per_second": offered,
        "cpu_us_per_update": cpu / count * 1e6,
    }
