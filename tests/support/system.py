"""One system under test: topics, group and keys of its own on shared servers, its workers, and the proof at its end."""

import itertools
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import redis

from tests.support import compare
from tests.support.broker import Broker, unique
from tests.support.compare_redis import check_redis
from tests.support.load import Event, Load, events, produce
from tests.support.processes import wait_until
from tests.support.readers import Record, WatchingReader, read
from tests.support.reference import Expected, Limits, Model, expect
from tests.support.service import WARM, Fault, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

QUICK = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "500"}  # a dead worker is replaced after six seconds
PREFIX = "test"
NO_LIMITS = Limits()


class System:
    """Close it, or use it as a context: its workers are killed then.

    Args:
        folder: for the workers' logs.
        consumer: librdkafka options of the workers' consumers.
        settings: dotted names, for all workers."""

    def __init__(
        self,
        folder: Path,
        broker: Broker,
        redis_url: str,
        model: Model,
        *,
        partitions: int = 6,
        consumer: dict[str, str] | None = None,
        settings: dict[str, str] | None = None,
        input_config: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.broker, self.redis_url, self.model = folder, broker, redis_url, model
        self.group = unique("group")
        self.input_topic, self.output_topic, self.dead_letter_topic = (
            unique(n) for n in ("prices", "predictions", "dead")
        )
        broker.create_topic(self.input_topic, partitions, **(input_config or {}))
        broker.create_topic(self.output_topic, 3)
        broker.create_topic(self.dead_letter_topic, 1)
        self.settings = {
            "kafka.bootstrap_servers": broker.bootstrap_servers,
            "kafka.group_id": self.group,
            "kafka.input_topic": self.input_topic,
            "kafka.output_topic": self.output_topic,
            "kafka.dead_letter_topic": self.dead_letter_topic,
            "kafka.consumer": json.dumps(QUICK if consumer is None else consumer),
            "redis.url": redis_url,
            "redis.key_prefix": PREFIX,
            **(settings or {}),
        }
        self.redis = redis.Redis.from_url(redis_url)
        self.workers: dict[str, Service] = {}  # by worker: the process that carries its name now
        self._processes: list[Service] = []
        self._spares = itertools.count(2)
        self._events: dict[int, Iterator[Event]] = {}  # by seed
        self._readers = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process in self._processes:
            process.close()
        self._readers.close()
        self.redis.close()

    def worker(self, name: str = "one", **settings: str) -> Service:
        """The worker of that name, made on first use, not started. `settings` with __ for the dots."""
        if name not in self.workers:
            own = {key.replace("__", "."): value for key, value in settings.items()}
            self.workers[name] = Service(self.folder, self.settings | own, worker=name)
            self._processes.append(self.workers[name])
        return self.workers[name]

    def spare(self, worker: str, *faults: Fault) -> Service:
        """Another process of that worker's name, which loads and then waits, stopped, for `take_over`. Not to be ready
        before the worker is dead: it would fence it. `faults` are for the time after."""
        spare = Service(self.folder, self.settings, worker=worker, name=f"{worker}-{next(self._spares)}")
        self._processes.append(spare)
        return spare.start(faults=[WARM, *faults])

    def take_over(self, spare: Service, within: float = 120) -> Service:
        """The spare goes on in its worker's place."""
        spare.wait_for_fault(within)
        spare.process.resume()
        self.workers[spare.worker] = spare
        return spare

    # --- the input

    def load(self, *, seed: int, stocks: int = 200, rate: float = 1_000, trouble: float = 0.02) -> Load:
        """To be used as a context: events flow while it is open. The same seed again goes on where it ended; `trouble`
        is then what it was."""
        if seed not in self._events:
            print(f"load: seed {seed}, {stocks} stocks, {rate:g}/s on {self.input_topic}")
            self._events[seed] = events(seed, stocks, trouble=trouble)
        return Load(self.broker.bootstrap_servers, self.input_topic, self._events[seed], rate)

    def produce(self, batch: list[Event], **options: str) -> int:
        """These events, all in the log on return."""
        return produce(self.broker.bootstrap_servers, self.input_topic, batch, **options)

    def watch(self) -> tuple[WatchingReader, WatchingReader]:
        """Start the second reader, on predictions and on dead letters; `check` compares what they saw."""
        return tuple(  # type: ignore[return-value]
            self._readers.enter_context(WatchingReader(self.broker, topic))
            for topic in (self.output_topic, self.dead_letter_topic)
        )

    # --- where it stands

    def committed(self) -> dict[int, int]:
        return self.broker.committed(self.group, self.input_topic)

    def wait_until_done(self, within: float = 60) -> None:
        """All that is in the log now has been handled and committed. For an input without transactions."""
        wanted = {partition: end for partition, end in self.broker.end_offsets(self.input_topic).items() if end}

        def done() -> bool:
            committed = self.committed()
            return all(committed.get(partition, -1) >= end for partition, end in wanted.items())

        wait_until(done, within=within, what=lambda: f"{self._where(wanted)}", every=0.1)

    def _where(self, wanted: dict[int, int]) -> str:
        tails = "\n".join(worker.process.tail(25) for worker in self.workers.values())
        return f"committed {self.committed()} of {wanted}\n{tails}"

    def wait_for_outputs(self, count: int, within: float = 60) -> None:
        """At least so many records of predictions and dead letters are in the log, control records included."""

        def there() -> bool:
            ends = (self.broker.end_offsets(topic) for topic in (self.output_topic, self.dead_letter_topic))
            return sum(sum(of.values()) for of in ends) >= count

        wait_until(there, within=within, what=f"{count} outputs", every=0.1)

    # --- the proof

    def log(self) -> list[Record]:
        return read(self.broker, self.input_topic)

    def predictions(self) -> list[Record]:
        return read(self.broker, self.output_topic)

    def dead_letters(self) -> list[Record]:
        return read(self.broker, self.dead_letter_topic)

    def expected(
        self, log: list[Record] | None = None, limits: Limits = NO_LIMITS, *, predictions: list[Record]
    ) -> Expected:
        """The reference's answer to this log (the topic's, if none is given)."""
        flags = {}
        for record in predictions:
            body = json.loads(record.value or b"")
            flags[body["source"]["partition"], body["source"]["offset"]] = bool(body["falling"])
        return expect(self.log() if log is None else log, self.model, limits, flags)

    def check(
        self,
        readers: tuple[WatchingReader, WatchingReader] | None = None,
        *,
        log: list[Record] | None = None,
        limits: Limits = NO_LIMITS,
        depth: int = 128,
        in_redis: bool = True,
    ) -> Expected:
        """The proof: every output is the reference's, exactly once and in order; the second reader saw the same; Redis
        is the fold of the log; the committed offsets are its end.

        Args:
            log: the input as the service met it, where the topic no longer holds all of it."""
        found = self.log() if log is None else log
        predictions, dead_letters = self.predictions(), self.dead_letters()
        expected = self.expected(found, limits, predictions=predictions)
        compare.check_predictions(predictions, expected, self.model, self.input_topic)
        compare.check_dead_letters(dead_letters, expected, self.input_topic)
        if readers is not None:
            readers[0].finish(predictions)
            readers[1].finish(dead_letters)
        committed = compare.check_offsets(self.broker, self.group, self.input_topic, found)
        if in_redis:
            self.check_redis(expected, committed, depth=depth)
        return expected

    def check_redis(self, expected: Expected, committed: dict[int, int] | None = None, *, depth: int = 128) -> None:
        check_redis(
            self.redis,
            PREFIX,
            self.group,
            self.input_topic,
            expected,
            self.committed() if committed is None else committed,
            reach=self.model.reach,
            depth=depth,
            channels=1 + len(self.model.fields),
        )
