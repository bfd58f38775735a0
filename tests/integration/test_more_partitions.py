"""Partitions are added to the input while the group works: on Apache Kafka, as an operator does it."""

import json
from pathlib import Path

from confluent_kafka.admin import NewPartitions

from consumer.sandbox import EmbeddedRedis
from tests.support.broker import Broker
from tests.support.load import Event
from tests.support.processes import wait_until
from tests.support.reference_model import KerasModel
from tests.support.system import System

BEFORE, AFTER = 2, 5
STOCKS = [f"S{number:02d}" for number in range(30)]
T0 = 1_795_444_200_000
SOON = {"kafka.client": "topic.metadata.refresh.interval.ms=500"}  # five minutes by default


def updates(first: int, count: int) -> list[Event]:
    """So many updates of each stock, from the `first`-th on."""
    return [
        Event(stock.encode(), json.dumps({"stock": stock, "value": 100 + step % 7, "ts": T0 + step * 1000}).encode())
        for step in range(first, first + count)
        for stock in STOCKS
    ]


def add_partitions(system: System) -> None:
    done = system.broker.admin.create_partitions([NewPartitions(system.input_topic, AFTER)])
    done[system.input_topic].result(30)
    system.broker._wait_for_leaders(system.input_topic, AFTER)


def test_a_running_group_takes_them_in_and_the_stocks_that_move_warm_up_there(
    apache: Broker, shared_redis: EmbeddedRedis, model: KerasModel, tmp_path: Path
) -> None:
    with System(tmp_path, apache, shared_redis.url, model, partitions=BEFORE, settings=SOON) as system:
        readers = system.watch()
        workers = [system.worker(name).start() for name in ("one", "two")]
        system.produce(updates(0, 40))
        for worker in workers:
            worker.wait_ready()
        system.wait_until_done()
        was = {(record.key, record.partition) for record in system.log()}
        rebuilt = sum(worker.metric("history_gap_records_total") for worker in workers)

        add_partitions(system)
        system.produce(updates(40, 40))  # at once: before anybody noticed
        wait_until(
            lambda: sum(worker.metric("assigned_partitions") for worker in workers) == AFTER,
            within=60,
            what=lambda: f"all partitions assigned\n{workers[0].process.tail()}",
        )
        system.wait_until_done()
        for worker in workers:
            worker.wait_ready()

        moved = {(record.key, record.partition) for record in system.log()} - was
        assert 5 < len(moved) < len(STOCKS), "some stocks moved, some stayed"
        expected = system.check(readers)  # each output once and right, in order, by the fold of each partition
        warm = {(partition, stock) for (partition, stock), history in expected.histories.items() if len(history) == 40}
        assert {(key.decode(), partition) for key, partition in moved if key} <= {(s, p) for p, s in warm}
        assert sum(worker.metric("history_gap_records_total") for worker in workers) == rebuilt == 0
        # The rings they left are still there, and counted.
        tracked = len(STOCKS) + len(moved)
        wait_until(
            lambda: sum(worker.metric("stocks_tracked") for worker in workers) == tracked, within=10, what="all counted"
        )


def test_with_start_latest_what_was_written_before_they_were_noticed_is_skipped(
    apache: Broker, shared_redis: EmbeddedRedis, model: KerasModel, tmp_path: Path
) -> None:
    settings = SOON | {"kafka.start": "latest"}
    with System(tmp_path, apache, shared_redis.url, model, partitions=BEFORE, settings=settings) as system:
        worker = system.worker().start().wait_ready()
        # It looks every half second here; it stands still, so that it cannot be in time.
        worker.process.stop()
        add_partitions(system)
        system.produce(updates(0, 40))
        worker.process.resume()
        wait_until(lambda: worker.metric("assigned_partitions") == AFTER, within=60, what="all partitions assigned")
        worker.wait_ready()
        ends = system.broker.end_offsets(system.input_topic)
        wait_until(lambda: system.committed() == ends, within=30, what=lambda: f"{system.committed()} of {ends}")
        answered = {json.loads(record.value or b"")["source"]["partition"] for record in system.predictions()}
        assert answered == set(range(BEFORE))
        skipped = sum(end for partition, end in ends.items() if partition >= BEFORE)
        assert worker.metric("events_consumed_total") == 40 * len(STOCKS) - skipped < 40 * len(STOCKS)
