"""How fast a backlog is worked off, as the broker sees it: by the group's committed offsets over time.

For the ceiling and the service the clock starts when the consumer is given its partitions and stops when the last
commit is seen: fetching is in it (the embedded broker sends a whole backlog at once, before the first commit), and
so is the service's loading of histories. The naive loops compile at their first records: these are not counted. CPU
time is taken over the same stretch. `first_to_last_commit_per_second` leaves out the first commit and all before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition

from bench.throughput.ground import PARTITIONS, Ground, Progress, cpu_seconds
from bench.throughput.loops import examples, naive_key
from bench.throughput.market import Market, send
from consumer.kafka_options import reader_options

if TYPE_CHECKING:
    from pathlib import Path

    from bench.throughput.ground import _Measured

EVERY = 0.01  # seconds between looks at the committed offsets
START_TIMEOUT = 180.0  # seconds to the first commit
WARM_UP = 32  # updates of each stock before the measured ones: then each of these has a prediction
NAIVE_SKIP = 20  # records that a naive loop may compile with
STAGES = ("decode", "history", "predict", "publish", "apply")

Result = dict[str, float]


class Sample(NamedTuple):
    at: float
    committed: int
    cpu: float
    broker_cpu: float
    redis_cpu: float


def _sample(ground: Ground, child: _Measured, progress: Progress) -> Sample:
    return Sample(
        time.monotonic(),
        progress.committed(),
        child.cpu(),
        cpu_seconds(ground.broker_pid),
        cpu_seconds(ground.redis_pid),
    )


def _samples(ground: Ground, child: _Measured, progress: Progress, first: int) -> list[Sample]:
    """From now until `first` is committed."""
    samples = [_sample(ground, child, progress)]
    while samples[-1].committed < first:
        child.check()
        if samples[-1].at > samples[0].at + START_TIMEOUT:
            raise child.failure(f"did nothing for {START_TIMEOUT:.0f} s")
        time.sleep(EVERY)
        samples.append(_sample(ground, child, progress))
    return samples


def watch(ground: Ground, child: _Measured, progress: Progress, done: int, first: int, seconds: float) -> Result:
    """Until `done` is committed, or for `seconds` at most.

    The clock starts with the assignment if the process tells of it, else at the first commit at or past `first`."""
    samples = _samples(ground, child, progress, first)
    assigned = child.assigned_at()
    commit = start = now = samples[-1]
    if assigned is not None:
        start = next(sample for sample in samples if sample.at >= assigned)._replace(at=assigned)
    while now.committed < done and now.at - start.at < seconds:
        child.check()
        time.sleep(EVERY)
        now = _sample(ground, child, progress)
    count, wall = now.committed - start.committed, now.at - start.at
    return {
        "updates": count,
        "seconds": wall,
        "updates_per_second": count / wall,
        "first_to_last_commit_per_second": (now.committed - commit.committed) / max(now.at - commit.at, 1e-9),
        "cpu_us_per_update": (now.cpu - start.cpu) / count * 1e6,
        "broker_cpu_us_per_update": (now.broker_cpu - start.broker_cpu) / count * 1e6,
        "redis_cpu_us_per_update": (now.redis_cpu - start.redis_cpu) / count * 1e6,
        "peak_memory_bytes": child.peak_memory(),
    }


def ceiling(broker: str, updates: int, stocks: int) -> Result:
    """(a) The bare exactly-once loop over the backlog."""
    with Ground(broker) as ground:
        progress = Progress(ground)
        send(ground.bootstrap_servers(), ground.settings.kafka.input_topic, Market(stocks, stocks).updates(updates))
        ground.settle()
        with ground.loop("ceiling") as child:
            result = watch(ground, child, progress, updates, 1, 300)
        progress.close()
        _expect(ground, updates)
        return result | {"output_value_bytes": len(examples(1)[0])}


def service(broker: str, updates: int, stocks: int, profile: Path | None = None) -> Result:
    """(b) This service. Histories are filled first, by itself; it is stopped while the backlog is produced."""
    market = Market(stocks, stocks)
    with Ground(broker) as ground:
        topic, servers = ground.settings.kafka.input_topic, ground.bootstrap_servers()
        progress = Progress(ground)
        warm_up = send(servers, topic, market.updates(WARM_UP * stocks))
        with ground.worker() as worker:
            worker.wait_ready()
            progress.wait_for(warm_up, worker)
        send(servers, topic, market.updates(updates))
        ground.settle()
        with ground.worker(profile=profile) as worker:
            result = watch(ground, worker, progress, warm_up + updates, warm_up + 1, 600)
            worker.wait_until(lambda: worker.metrics()["downtick_events_consumed_total"] >= updates, 10)
            time.sleep(0.2)  # counted after the commit, before Redis has it
            metrics = worker.metrics()
            result["peak_memory_bytes"] = worker.peak_memory()
        progress.close()
        mean_bytes = _expect(ground, stocks * (WARM_UP - 31) + updates)
    consumed = metrics["downtick_events_consumed_total"]
    if metrics["downtick_predictions_published_total"] != updates or consumed != updates:
        raise RuntimeError(f"not each of {updates} updates has a prediction: {consumed} consumed")
    spent = {stage: metrics[f'downtick_stage_seconds_sum{{stage="{stage}"}}'] for stage in STAGES}
    result |= {f"{stage}_us_per_update": seconds / updates * 1e6 for stage, seconds in spent.items()}
    result["other_us_per_update"] = 1e6 / result["updates_per_second"] - sum(spent.values()) / updates * 1e6
    batches = metrics["downtick_batch_events_count"]
    return result | {"updates_per_batch": updates / batches, "output_value_bytes": mean_bytes}


def naive(broker: str, kind: str, stocks: int, seconds: float) -> Result:
    """(c) "predict" and (d) "call": the naive loops, for so many seconds, on histories that are full already."""
    import redis  # noqa: PLC0415  # used here only

    market = Market(stocks, stocks)
    with Ground(broker) as ground:
        with redis.Redis.from_url(ground.redis_url()) as store, store.pipeline(transaction=False) as pipe:
            for key, value, _ in market.updates(WARM_UP * stocks):
                pipe.rpush(naive_key(key.decode()), value.partition(b'"value":')[2].partition(b",")[0])
                if len(pipe) >= 10_000:
                    pipe.execute()
            pipe.execute()
        progress = Progress(ground)
        backlog = max(2_000, int(seconds * 1_000))  # more than it can do
        send(ground.bootstrap_servers(), ground.settings.kafka.input_topic, market.updates(backlog))
        ground.settle()
        with ground.loop(kind) as child:
            result = watch(ground, child, progress, backlog, NAIVE_SKIP, seconds)
        progress.close()
        return result


def _expect(ground: Ground, count: int) -> float:
    """That a read_committed reader finds just so many records in the output topic; their mean value in bytes."""
    topic = ground.settings.kafka.output_topic
    # The embedded broker answers a fetch with all it has, whatever the limits asked for.
    consumer = Consumer({**reader_options(ground.settings), "receive.message.max.bytes": 2_000_000_000})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found, total, unread = 0, 0, set(range(PARTITIONS))
    deadline = time.monotonic() + 120
    while unread and time.monotonic() < deadline:
        for message in consumer.consume(10_000, 0.2):
            error = message.error()
            if error is None:
                found += 1
                total += len(message.value() or b"")
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # librdkafka's public name
                unread.discard(message.partition() or 0)
    consumer.close()
    if found != count:
        raise RuntimeError(f"{topic} has {found} committed records, expected {count}")
    return total / found
