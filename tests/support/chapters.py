"""A system in chapters: what came out, and what Redis holds, between one thing that an operator does and the next.

Within a chapter each output must come once. Over chapters it need not: an operator who rewinds offsets gets predictions
again, one who forwards them never gets some, and retention takes records that the fold was made of. So the scenario
only takes notes, and each test judges one chapter of its own partition against the reference."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import redis
from confluent_kafka import Producer

from tests.support import compare
from tests.support.compare_redis import check_redis
from tests.support.load import PRODUCER, Event
from tests.support.processes import wait_until
from tests.support.readers import Record, read
from tests.support.reference import Expected, Model, expect
from tests.support.service import Service
from tests.support.system import PREFIX, System


class Image:
    """What Redis holds of one group, read at one moment; answers what the comparison asks of a client."""

    def __init__(self, client: redis.Redis, group: str) -> None:
        self._held: dict[str, Any] = {}
        for key in client.scan_iter(match=f"{PREFIX}:{{{group}/*", count=1000):
            kind = client.type(key)
            if kind == b"hash":
                self._held[key.decode()] = client.hgetall(key)
            elif kind == b"set":
                self._held[key.decode()] = client.smembers(key)
            elif kind == b"string":
                self._held[key.decode()] = client.get(key)

    def hgetall(self, key: str) -> Any:
        return self._held.get(key, {})

    def smembers(self, key: str) -> Any:
        return self._held.get(key, set())

    def get(self, key: str) -> Any:
        return self._held.get(key)


@dataclass(frozen=True)
class Chapter:
    """What was found at its end. `log` holds all that was ever readable, also what retention took since."""

    system: System
    before: "Chapter | None"
    log: list[Record]
    predictions: list[Record]  # of this chapter alone
    dead_letters: list[Record]
    committed: dict[int, int]
    ends: dict[int, int]  # of the input
    image: Image
    said: str  # the workers' logs of this chapter
    metrics: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]

    def metric(self, name: str) -> float:
        return sum(value for (sample, _), value in self.metrics.items() if sample == f"downtick_{name}")

    def row(self, partition: int) -> str:
        """The row of the seating table that the worker says it took for a partition, the first time in this chapter: a
        rebalance on a busy machine may seat it again, in step."""
        found = [line for line in self.said.splitlines() if f"partition {partition} seated (" in line]
        assert found, f"partition {partition} was not seated\n{self.said[-3000:]}"
        return found[0].split("seated (")[1].split(")")[0]

    def check(
        self,
        partitions: Iterable[int],
        model: Model,
        *,
        fold_from: int = 0,
        output_from: int | None = None,
        depth: int = 128,
    ) -> Expected:
        """The proof for this chapter of these partitions: from `output_from` on (by default what was committed before)
        every output is the reference's, exactly once; none below; Redis is the fold of the log from `fold_from`; the
        committed offsets are the log's end."""
        chosen = set(partitions)
        log = [record for record in self.log if record.partition in chosen and record.offset >= fold_from]
        predictions = [r for r in self.predictions if _place(r)[0] in chosen]
        dead_letters = [r for r in self.dead_letters if int(r.header("downtick.source.partition") or -1) in chosen]
        expected = expect(log, model, published={_place(r): bool(_body(r)["falling"]) for r in self._all_predictions()})
        before = {} if self.before is None else self.before.committed
        starts = {p: before.get(p, 0) if output_from is None else output_from for p in chosen}
        due = replace(
            expected,
            predictions={at: update for at, update in expected.predictions.items() if at[1] >= starts[at[0]]},
            dead_letters={at: reason for at, reason in expected.dead_letters.items() if at[1] >= starts[at[0]]},
        )
        compare.check_predictions(predictions, due, model, self.system.input_topic)
        compare.check_dead_letters(dead_letters, due, self.system.input_topic)
        for partition in chosen:
            last = max((record.offset for record in self.log if record.partition == partition), default=-1)
            assert last + 1 <= self.committed.get(partition, -1) <= self.ends[partition], (partition, last)
        check_redis(
            self.image,
            PREFIX,
            self.system.group,
            self.system.input_topic,
            expected,
            self.committed,
            reach=model.reach,
            depth=depth,
            channels=1 + len(model.fields),
        )
        return due

    def outputs_of(self, partition: int) -> int:
        """How many predictions and dead letters came of this partition's records."""
        dead = [r for r in self.dead_letters if int(r.header("downtick.source.partition") or -1) == partition]
        return len(dead) + len([r for r in self.predictions if _place(r)[0] == partition])

    def _all_predictions(self) -> list[Record]:
        return ([] if self.before is None else self.before._all_predictions()) + self.predictions


def _body(record: Record) -> dict[str, object]:
    found: dict[str, object] = json.loads(record.value or b"")
    return found


def _place(record: Record) -> tuple[int, int]:
    source = json.loads(record.value or b"")["source"]
    return source["partition"], source["offset"]


class Story:
    """Takes the notes. One thread."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.chapters: list[Chapter] = []
        self._log: dict[tuple[int, int], Record] = {}
        self._seen: dict[str, dict[int, int]] = {}  # by topic: where this chapter's outputs start
        self._told: dict[str, int] = {}  # by worker: how much of its log was of earlier chapters

    def produce(self, events: Mapping[int, Iterable[Event]]) -> None:
        """These events, into these partitions, all in the log on return."""
        producer = Producer({"bootstrap.servers": self.system.broker.bootstrap_servers, **PRODUCER})
        write(producer, self.system.input_topic, events)

    def note_log(self, *, new: bool = False) -> None:
        """Remember the input as it is now; `new`: it is another topic, forget what the old one had."""
        if new:
            self._log = {}
        self._log |= {record.place: record for record in self.system.log()}

    def wait_until_handled(self, partitions: Iterable[int] | None = None, within: float = 60) -> None:
        """All readable records of these partitions are committed, and Redis has followed."""
        self.note_log()
        system = self.system
        wanted: dict[int, int] = {}
        for partition, offset in self._log:
            if partitions is None or partition in partitions:
                wanted[partition] = max(wanted.get(partition, 0), offset + 1)

        def handled() -> bool:
            committed = system.committed()
            return all(committed.get(p, -1) >= end for p, end in wanted.items()) and all(
                watermark(system, p) == committed[p] - 1 for p in wanted
            )

        tails = lambda: "\n".join(worker.process.tail(25) for worker in system.workers.values())  # noqa: E731
        wait_until(handled, within=within, what=lambda: f"{system.committed()} of {wanted}\n{tails()}", every=0.1)

    def end_chapter(self, service: Service | None = None) -> Chapter:
        """Note what there is now. `service`: whose metrics to keep."""
        self.note_log()
        system = self.system
        chapter = Chapter(
            system=system,
            before=self.chapters[-1] if self.chapters else None,
            log=list(self._log.values()),
            predictions=self._fresh(system.output_topic),
            dead_letters=self._fresh(system.dead_letter_topic),
            committed=system.committed(),
            ends=system.broker.end_offsets(system.input_topic),
            image=Image(system.redis, system.group),
            said=self._said(),
            metrics=service.metrics() if service is not None else {},
        )
        self.chapters.append(chapter)
        return chapter

    def _fresh(self, topic: str) -> list[Record]:
        start = self._seen.get(topic, {})
        found = [
            record for record in read(self.system.broker, topic) if record.offset >= start.get(record.partition, 0)
        ]
        self._seen[topic] = start | {record.partition: record.offset + 1 for record in found}
        return found

    def said(self, worker: Service) -> str:
        """What it has logged in this chapter so far."""
        whole = worker.log.read_bytes() if worker.log.exists() else b""
        return whole[self._told.get(worker.name, 0) :].decode(errors="replace")

    def _said(self) -> str:
        workers = self.system.workers.values()
        text = "".join(map(self.said, workers))
        self._told = {worker.name: worker.log.stat().st_size for worker in workers if worker.log.exists()}
        return text


def write(producer: Producer, topic: str, events: Mapping[int, Iterable[Event]]) -> None:
    """Each event into its partition; returns when all are in the log."""
    failed: list[str] = []
    for partition, batch in events.items():
        for event in batch:
            producer.produce(
                topic,
                key=event.key,
                value=event.value,
                headers=event.headers,
                partition=partition,
                on_delivery=lambda error, _: failed.append(str(error)) if error else None,
            )
            producer.poll(0)
    left = producer.flush(60)
    assert not left, f"{left} events not delivered within 60 s"
    assert not failed, failed[:3]


def key(system: System, partition: int, *rest: str) -> str:
    """A key of the design's table, by its last parts: `meta`, or generation and more."""
    return ":".join([f"{PREFIX}:{{{system.group}/{system.input_topic}/{partition}}}", *rest])


def watermark(system: System, partition: int) -> int | None:
    found = system.redis.hget(key(system, partition, "meta"), "watermark")
    return None if found is None else int(found)


def rings_of(system: System, partition: int) -> tuple[str, dict[str, str]]:
    """Key of a partition's set of stocks, and of each stock's ring, as they are now."""
    generation = system.redis.hget(key(system, partition, "meta"), "generation")
    assert generation is not None
    stocks = key(system, partition, generation.decode(), "stocks")
    names = sorted(name.decode() for name in system.redis.smembers(stocks))
    return stocks, {name: key(system, partition, generation.decode(), "h", name) for name in names}


def dump(system: System, partition: int) -> dict[bytes, bytes]:
    """All keys of a partition as they are now, to be put back with `put_back`."""
    keys = list(system.redis.scan_iter(match=key(system, partition, "*"), count=1000))
    return {name: system.redis.dump(name) for name in keys}


def put_back(system: System, partition: int, dumped: Mapping[bytes, bytes]) -> None:
    """The partition's keys are what they were then, and none else."""
    for name in list(system.redis.scan_iter(match=key(system, partition, "*"), count=1000)):
        system.redis.delete(name)
    for name, blob in dumped.items():
        system.redis.restore(name, 0, blob)
