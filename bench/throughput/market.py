"""A market to measure with: stocks in random walks, and how their updates get onto a topic."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from confluent_kafka import Producer

from consumer.outputs import format_ts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Update = tuple[bytes, bytes, bytes]  # key, value, the text of `ts` in the value


class Market:
    """Every stock moves once per tick, in an order of its own each tick; time goes on from call to call.

    Args:
        stocks: how many.
        per_second: updates per second of market time; below 1,000 no two updates have the same millisecond."""

    def __init__(self, stocks: int, per_second: int, *, seed: int = 1) -> None:
        self.names = [b"S%06d" % i for i in range(stocks)]
        self._random = np.random.default_rng(seed)
        self._prices = self._random.uniform(5, 500, stocks)
        self._per_second = per_second
        self._start_ms = int(time.time()) * 1000 - 6 * 3600 * 1000  # never ahead of the records' own time
        self._sent = 0

    def updates(self, count: int) -> Iterator[Update]:
        """The next `count` updates, in time order."""
        left = count
        while left > 0:
            order = self._random.permutation(len(self.names))
            self._prices *= np.exp(self._random.normal(0, 0.001, len(order)))
            prices = self._prices[order].round(2).tolist()
            for stock, price in zip(order[:left].tolist(), prices[:left], strict=False):
                name, ts = self.names[stock], format_ts(self._start_ms + self._sent * 1000 // self._per_second)
                self._sent += 1
                yield name, b'{"stock":"%b","value":%r,"ts":"%b"}' % (name, price, ts), ts
            left -= len(order)


def send(bootstrap_servers: str, topic: str, updates: Iterable[Update]) -> int:
    """Produce as fast as possible, and wait until all of it is on the brokers. Returns how many.

    Raises: RuntimeError if some did not arrive."""
    lost: list[str] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "partitioner": "murmur2_random",  # Kafka's own, as every producer of ours
            "enable.idempotence": True,
            "linger.ms": 20,
            "queue.buffering.max.messages": 200_000,
        }
    )
    count = 0
    for key, value, _ in updates:
        while True:
            try:
                producer.produce(topic, value, key, on_delivery=lambda e, _: lost.append(str(e)) if e else None)
                break
            except BufferError:
                producer.poll(0.05)
        count += 1
    if producer.flush(60) or lost:
        raise RuntimeError(f"{len(lost)} of {count} updates did not reach {topic}: {lost[:1]}")
    return count


def send_paced(
    bootstrap_servers: str, topic: str, updates: Iterable[Update], rate: float, stopped: Callable[[], bool]
) -> dict[bytes, int]:
    """Produce `rate` updates a second, one by one, without linger.

    Returns: the monotonic clock, in ns, just before each produce(), by the text of the update's `ts`."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "linger.ms": 0,
        }
    )
    sent: dict[bytes, int] = {}
    start = time.monotonic()
    for i, (key, value, ts) in enumerate(updates):
        early = start + i / rate - time.monotonic()
        if early > 0:
            time.sleep(early)
        if stopped():
            break
        sent[ts] = time.monotonic_ns()
        producer.produce(topic, value, key)
        producer.poll(0)
    producer.flush(30)
    return sent
