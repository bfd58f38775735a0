"""A load: price events of stocks that wander, fall and rise, with late, repeated and broken ones in between."""

import json
import math
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Self

from confluent_kafka import Producer

START_MS = 1_700_000_000_000

PRODUCER = {
    "partitioner": "murmur2_random",
    "enable.idempotence": "true",  # the input has no repeats but those we put there
    "message.timeout.ms": "300000",
    "queue.buffering.max.messages": "2000000",
    "reconnect.backoff.max.ms": "500",
    "linger.ms": "2",
    "log_level": "2",
}


@dataclass(frozen=True)
class Event:
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = field(default_factory=list)


def names(count: int) -> list[str]:
    """Stock names with every kind of character that the contract allows."""
    odd = ["AAPL", "^GSPC", "BRK.B", "EUR/USD", "ES=F", "a-b_c", "X:NYSE", "S&P+500", "me@home"]
    return (odd + [f"S{number:05d}" for number in range(count)])[:count]


class _Stock:
    """A random walk in the logarithm whose drift changes sides now and then: flags go on and off."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name, self._rng = name, rng
        self._log_value = rng.uniform(-3, 8)
        self._drift, self._left = 0.0, 0
        self.ts = START_MS + rng.randrange(86_400_000)
        self.value = math.exp(self._log_value)

    def step(self) -> None:
        if self._left == 0:
            self._left = self._rng.randrange(15, 60)
            self._drift = self._rng.choice([-0.03, -0.01, 0.0, 0.01, 0.03])
        self._left -= 1
        self._log_value += self._drift + self._rng.gauss(0, 0.01)
        if abs(self._log_value) > 12:
            self._log_value = 0.0
        self.value = round(math.exp(self._log_value), 6)
        self.ts += self._rng.choice([0, 1, 250, 60_000, 86_400_000 // 50])


def _written(ts: int, rng: random.Random) -> object:
    """One of the ways to write an event time."""
    way = rng.randrange(4)
    if way == 0:
        return ts
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ts)
    if way == 1:
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if way == 2:
        return moment.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat(timespec="microseconds")
    return moment.astimezone(timezone(timedelta(hours=-8))).isoformat(timespec="milliseconds")


_BROKEN = [
    b"",
    b"not json",
    b'{"stock": "AAPL", "value": 1.5',
    b"[1, 2, 3]",
    b'{"stock": "AAPL"}',
    b'{"stock": "AAPL", "value": "12"}',
    b'{"stock": "AAPL", "value": NaN}',
    b'{"stock": "AAPL", "value": 1e400}',
    b'{"stock": "AAPL", "value": true}',
    b'{"stock": "AAPL", "value": 1, "ts": "yesterday"}',
    b'{"stock": "OTHER", "value": 1}',
    b"\xef\xbb\xbf{}",
    b"\xff\xfe",
]


def events(seed: int, stocks: int, *, trouble: float = 0.02) -> Iterator[Event]:
    """Endless. `trouble` is the share of late, repeated and broken events; 0: every event is an update."""
    rng = random.Random(seed)
    walks = [_Stock(name, rng) for name in names(stocks)]
    while True:
        walk = rng.choice(walks)
        draw = rng.random()
        key, headers = walk.name.encode(), []
        if draw >= trouble:
            walk.step()
            body: dict[str, object] = {"stock": walk.name, "value": walk.value, "ts": _written(walk.ts, rng)}
        elif draw < trouble / 3:
            yield Event(rng.choice([key, b"AAPL", None]), rng.choice([*_BROKEN, None]))
            continue
        elif draw < trouble * 2 / 3:
            body = {"stock": walk.name, "value": walk.value, "ts": walk.ts}  # a repeat, or the first of its stock
        else:
            body = {"stock": walk.name, "value": walk.value, "ts": walk.ts - 86_400_000}  # late, or the first
        if rng.random() < 0.05:
            headers = [("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
        if rng.random() < 0.1:
            body = {"source": {"feed": [1, 2]}, **body, "fields": {"volume": rng.randrange(1000)}}
        yield Event(key, json.dumps(body).encode(), headers)


def produce(bootstrap_servers: str, topic: str, batch: Iterator[Event] | list[Event], **options: str) -> int:
    """Write these events and wait until each is in the log; how many they were."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, **PRODUCER, **options})
    failed: list[str] = []
    count = 0
    for event in batch:
        producer.produce(
            topic,
            key=event.key,
            value=event.value,
            headers=event.headers,
            on_delivery=lambda error, _: failed.append(str(error)) if error else None,
        )
        producer.poll(0)
        count += 1
    left = producer.flush(60)
    assert not left, f"{left} events not delivered within 60 s"
    assert not failed, failed[:3]
    return count


class Load:
    """A producer that never pauses, in a thread of its own: `rate` of these events a second until it is left."""

    def __init__(self, bootstrap_servers: str, topic: str, source: Iterator[Event], rate: float) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap_servers, **PRODUCER})
        self._topic, self._rate = topic, rate
        self._events = source
        self.produced = 0
        self._failed: list[str] = []
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def _delivered(self, error: object, _: object) -> None:
        if error is not None:
            self._failed.append(str(error))

    def _run(self) -> None:
        started = time.monotonic()
        while not self._enough.is_set():
            due = int((time.monotonic() - started) * self._rate)
            while self.produced < due:
                event = next(self._events)
                self._producer.produce(
                    self._topic, key=event.key, value=event.value, headers=event.headers, on_delivery=self._delivered
                )
                self.produced += 1
            self._producer.poll(0)
            self._enough.wait(0.01)

    def finish(self, within: float = 90) -> int:
        """Stop, and wait until all of it is in the log; how many events it is. A second call only tells the number."""
        self._enough.set()
        self._thread.join(10)
        left = self._producer.flush(within)
        assert not left, f"{left} events of the load not delivered within {within:g} s"
        assert not self._failed, self._failed[:3]
        return self.produced
