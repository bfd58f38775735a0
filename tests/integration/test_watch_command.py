"""`downtick watch` on a real broker: each committed prediction once, whatever the filter, and nothing left behind."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from consumer.cli_errors import CommandError
from consumer.kafka_options import reader_options
from consumer.sandbox import EmbeddedKafka, free_port
from consumer.settings import Kafka, Settings
from consumer.tail import Tail
from tests.support.broker import Broker, unique
from tests.support.command import Done, downtick
from tests.support.processes import wait_until


def command(*args: str, servers: str) -> list[str]:
    return [sys.executable, "-m", "consumer.cli", "watch", *args, "--kafka.bootstrap-servers", servers]


@pytest.fixture
def topic(embedded: Broker) -> str:
    name = unique("watched")
    embedded.create_topic(name, 3)
    return name


def prediction(stock: str, step: int, *, falling: bool = False, flipped: bool = False) -> dict[str, Any]:
    return {
        "stock": stock,
        "ts": f"2026-11-23T14:30:{step:02d}.000Z",
        "value": 100.0 + step,
        "falling": falling,
        "falling_probability": 0.25,
        "flipped": flipped,
        "forecast": 101.5,
        "forecast_low": 99.0,
        "forecast_high": 103.0,
        "window": 32,
        "model": "m",
        "source": {"topic": "prices", "partition": 0, "offset": step},
    }


LOG = [
    prediction("AAPL", 1),
    prediction("IBM", 2, falling=True, flipped=True),
    prediction("AAPL", 3, falling=True, flipped=True),
    prediction("IBM", 4, flipped=True),
    prediction("AAPL", 5, falling=True),
]


@contextmanager
def transaction(broker: Broker, topic: str, *, abort: bool = False) -> Iterator[Producer]:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": unique(topic)})
    producer.init_transactions(20)
    producer.begin_transaction()
    yield producer
    producer.flush(10)
    producer.abort_transaction(10) if abort else producer.commit_transaction(10)


def publish(broker: Broker, topic: str, predictions: list[dict[str, Any]], *, abort: bool = False) -> None:
    with transaction(broker, topic, abort=abort) as producer:
        for one in predictions:
            producer.produce(topic, json.dumps(one), one["stock"])


def watch(broker: Broker, topic: str, *args: str) -> Done:
    return downtick(
        "watch", *args, "--kafka.output-topic", topic, "--kafka.bootstrap-servers", broker.bootstrap_servers
    )


ALL = ("--from-beginning", "--until-end")


def test_json_lines_are_the_committed_records_each_once(embedded: Broker, topic: str) -> None:
    publish(embedded, topic, [prediction("GONE", 0)], abort=True)
    publish(embedded, topic, LOG)
    done = watch(embedded, topic, *ALL, "--json")
    assert done.code == 0, done.err
    found = [json.loads(line) for line in done.out.splitlines()]
    assert sorted(found, key=lambda one: one["ts"]) == LOG
    assert [one["ts"] for one in found if one["stock"] == "AAPL"] == [
        one["ts"] for one in LOG if one["stock"] == "AAPL"
    ]
    assert done.err == ""


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (["--falling"], [2, 3, 5]),
        (["--flips"], [2, 3, 4]),
        (["--flips", "--falling"], [2, 3]),
        (["--stock", "IBM"], [2, 4]),
        (["--stock", "IBM", "--stock", "AAPL"], [1, 2, 3, 4, 5]),
        (["--stock", "NONE"], []),
    ],
)
def test_filters_keep_what_they_name(options: list[str], steps: list[int], embedded: Broker, topic: str) -> None:
    publish(embedded, topic, LOG)
    done = watch(embedded, topic, *ALL, "--json", *options)
    assert sorted(json.loads(line)["source"]["offset"] for line in done.out.splitlines()) == steps


def test_without_a_terminal_each_prediction_is_a_plain_line(embedded: Broker, topic: str) -> None:
    publish(embedded, topic, LOG)
    done = watch(embedded, topic, *ALL)
    assert (
        "2026-11-23 14:30:03Z AAPL           103.00  next       101.50 [99.00, 103.00]"
        "  p_falling 0.250  falling (flipped)" in done.out.splitlines()
    )
    assert len(done.out.splitlines()) == 5
    assert "\x1b" not in done.out


def test_from_now_on_means_from_the_moment_it_watches(embedded: Broker, topic: str) -> None:
    publish(embedded, topic, LOG[:2])
    settings = Settings(kafka=Kafka(bootstrap_servers=embedded.bootstrap_servers))
    with Tail(reader_options(settings), topic) as tail:
        publish(embedded, topic, LOG[2:])
        found: list[dict[str, Any]] = []

        def three() -> bool:
            found.extend(json.loads(message.value() or b"") for message in tail.read(0.1))
            return len(found) >= 3

        wait_until(three, within=20, what="three predictions", every=0)
        assert tail.read(0.3) == []
    assert sorted(one["source"]["offset"] for one in found) == [3, 4, 5]


def test_a_partition_added_while_watching_is_followed_too(embedded: Broker, topic: str) -> None:
    from confluent_kafka.admin import NewPartitions  # noqa: PLC0415 - this one test

    now = 0.0
    settings = Settings(kafka=Kafka(bootstrap_servers=embedded.bootstrap_servers))
    with Tail(reader_options(settings), topic, clock=lambda: now) as tail:
        embedded.admin.create_partitions([NewPartitions(topic, 4)])[topic].result(20)
        with transaction(embedded, topic) as producer:
            producer.produce(topic, b"x", b"k", partition=3)
        now = 31.0
        wait_until(lambda: [m.partition() for m in tail.read(0.1)] == [3], within=20, what="the record", every=0)


def test_a_broker_that_comes_back_is_followed_on_and_its_absence_told(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "kafka", free_port()) as kafka:
        broker = Broker(kafka.start().bootstrap_servers)
        broker.create_topic("predictions", 1)
        with Tail(
            reader_options(Settings(kafka=Kafka(bootstrap_servers=kafka.bootstrap_servers))), "predictions"
        ) as tail:
            assert tail.read(0.2) == []
            kafka.stop()
            wait_until(lambda: tail.read(0.1) or tail.trouble, within=20, what="the trouble", every=0)
            assert "predictions" not in tail.trouble
            kafka.start()
            wait_until(lambda: not (tail.read(0.1) or tail.trouble), within=30, what="an answer", every=0)
            publish(broker, "predictions", LOG[:1])
            found = wait_until(lambda: tail.read(0.1), within=30, what="the prediction", every=0)
    assert json.loads(found[0].value() or b"") == LOG[0]


def test_count_ends_it_and_too_few_in_time_is_exit_code_1(embedded: Broker, topic: str) -> None:
    publish(embedded, topic, LOG)
    done = watch(embedded, topic, "--from-beginning", "--count", "2", "--timeout", "20", "--json")
    assert (done.code, len(done.out.splitlines())) == (0, 2)
    done = watch(embedded, topic, "--count", "1", "--timeout", "1")
    assert done.code == 1
    assert done.err.startswith("downtick watch: 0 of 1 predictions came\n")


def test_records_that_are_no_predictions_are_skipped_and_named(embedded: Broker, topic: str) -> None:
    strange = [
        b"",
        b"{",
        b"[]",
        b'{"stock": 1}',
        b'{"stock": "A"}',
        b"\xff",
        b"[" * 100_000,
        b'{"stock": "\\u001b[2J"}',
    ]
    with transaction(embedded, topic) as producer:
        for value in strange:
            producer.produce(topic, value, b"k", partition=1)
        producer.produce(topic, json.dumps(LOG[0]), b"AAPL", partition=1)
    done = watch(embedded, topic, *ALL)
    assert done.code == 0
    assert len(done.out.splitlines()) == 1
    assert [line[: len("skipped: partition 1 offset 0")] for line in done.err.splitlines()] == [
        f"skipped: partition 1 offset {n}" for n in range(len(strange))
    ]
    assert "\x1b" not in done.out + done.err


def test_it_joins_no_group_and_commits_nothing(embedded: Broker, topic: str) -> None:
    publish(embedded, topic, LOG)
    watch(embedded, topic, *ALL)
    group = str(reader_options(Settings())["group.id"])
    assert embedded.members(group) == []
    assert embedded.committed(group, topic) == {}


def test_no_broker_and_no_topic_are_told_with_their_cause(embedded: Broker) -> None:
    away = Settings(kafka=Kafka(bootstrap_servers=f"127.0.0.1:{free_port()}"))
    with pytest.raises(CommandError, match=r"no Kafka broker answers at 127.0.0.1:\d+ \(.*Connection refused"):
        Tail(reader_options(away), "predictions")
    there = Settings(kafka=Kafka(bootstrap_servers=embedded.bootstrap_servers))
    with pytest.raises(CommandError, match="there is no topic 'nothing-of-the-kind'"):
        Tail(reader_options(there), "nothing-of-the-kind")


def test_a_closed_pipe_ends_it_quietly(embedded: Broker, topic: str) -> None:
    publish(embedded, topic, LOG * 2000)
    with subprocess.Popen(
        command("--kafka.output-topic", topic, "--from-beginning", "--json", servers=embedded.bootstrap_servers),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        json.loads(process.stdout.readline())
        process.stdout.close()
        assert process.wait(20) == 0
        assert process.stderr.read() == b""


def test_on_a_terminal_it_is_a_table_that_ctrl_c_ends(embedded: Broker, topic: str, tmp_path: Path) -> None:
    publish(embedded, topic, LOG)
    parent, child = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "24"}
    arguments = ("--kafka.output-topic", topic, "--from-beginning", "--falling")
    with (
        (tmp_path / "err").open("w") as err,
        subprocess.Popen(
            command(*arguments, servers=embedded.bootstrap_servers), stdin=child, stdout=child, stderr=err, env=environ
        ) as process,
    ):
        os.close(child)
        os.set_blocking(parent, False)
        shown = b""

        def complete() -> bool:
            nonlocal shown
            with suppress(BlockingIOError):
                shown += os.read(parent, 65_536)
            return "5 predictions · 2 stocks · 1 falling · 3 flips".encode() in shown

        wait_until(complete, within=20, what=lambda: f"the table in {shown!r}")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    os.close(parent)
    last = shown.decode().rpartition("interval")[2]
    assert "AAPL" in last
    assert "IBM" not in last, "a stock that is no longer falling left the table"
    assert "▁▅█" in last
    assert (tmp_path / "err").read_text() == ""
