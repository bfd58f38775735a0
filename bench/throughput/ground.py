"""What is measured on: a broker and a Redis of one's own, topics, worker processes, and what /proc says of them."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumer.admin import create_topics
from consumer.children import Child
from consumer.sandbox import EmbeddedKafka, EmbeddedRedis, free_port, sandbox_variables
from consumer.settings_sources import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.settings import Settings

ROOT = Path(__file__).parents[2]
PARTITIONS = 6
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # a file system in memory; the folder made there has a random name
_TICK = os.sysconf("SC_CLK_TCK")


class Missing(Exception):
    """Something that this measurement needs is not on this machine; the message names it."""


@dataclass
class Ground:
    """A fresh broker, a fresh Redis and the three topics. A context manager.

    Brokers: "embedded", "apache", or "in-memory": the embedded one with its files in /dev/shm. It writes all of its log
    every second or so and answers nobody meanwhile, so that a slow disk shows in everybody's tail."""

    broker: str
    settings: Settings = field(init=False)
    environ: dict[str, str] = field(init=False)  # for processes that shall work here

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="downtick-bench-")))
        redis = self._stack.enter_context(EmbeddedRedis()).start()
        if self.broker in {"embedded", "in-memory"}:
            kafka = self._stack.enter_context(EmbeddedKafka(self._broker_folder())).start()
            variables, self.broker_pid = sandbox_variables(kafka, redis), kafka.child.pid
        else:
            from tests.support.kafka import ApacheKafka, KafkaMissing  # noqa: PLC0415  # only where it is asked for

            try:
                apache = ApacheKafka(self.folder / "kafka", heap_mb=1024)
            except KafkaMissing as error:
                raise Missing(f"Apache Kafka cannot run here, it needs {error}") from error
            self._stack.callback(apache.kill)
            apache.start()
            process = apache._process  # noqa: SLF001  # its CPU time is part of the result
            assert process is not None  # noqa: S101  # it has just started
            self.broker_pid = process.pid
            variables = {
                "DOWNTICK_KAFKA__BOOTSTRAP_SERVERS": apache.bootstrap_servers,
                "DOWNTICK_REDIS__URL": redis.url,
            }
        self.redis_pid = redis.child.pid
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("DOWNTICK_")}
        self.environ |= variables | {"DOWNTICK_WORKER": "bench", "PYTHONPATH": str(ROOT)}
        self.settings = load_settings({}, environ=self.environ)
        create_topics(self.settings, partitions=PARTITIONS, replication=1)

    def _broker_folder(self) -> Path:
        if self.broker == "embedded":
            return self.folder / "broker"
        if not SHARED_MEMORY.is_dir():
            raise Missing(f"no {SHARED_MEMORY} for the broker's files")
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="downtick-bench-", dir=SHARED_MEMORY)))

    def redis_url(self) -> str:
        return self.settings.redis.url.get_secret_value()

    def bootstrap_servers(self) -> str:
        return self.settings.kafka.bootstrap_servers

    def settle(self, timeout: float = 60) -> None:
        """Wait until the broker has written down what it was given: the embedded one does so in the background."""
        deadline = time.monotonic() + timeout
        before = -math.inf
        while (now := cpu_seconds(self.broker_pid)) - before > 0.025 and time.monotonic() < deadline:
            before = now
            time.sleep(0.5)

    def worker(self, *, profile: Path | None = None) -> Worker:
        """The service, as its own process."""
        return Worker(self, profile)

    def loop(self, kind: str, *arguments: str) -> Loop:
        """One of the loops of `bench.throughput.loops`, as its own process."""
        return Loop(self, kind, arguments)


class _Measured(Child):
    """A child process of which /proc is read."""

    def cpu(self) -> float:
        """Seconds of user and system time so far, all threads."""
        return cpu_seconds(self.pid)

    def peak_memory(self) -> int:
        """Bytes: VmHWM, the largest resident size so far."""
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+) kB", text)
        return int(found[1]) * 1024 if found else 0

    def assigned_at(self) -> float | None:
        """When its consumer was given its partitions, on the monotonic clock; None before."""
        for line in self.log.read_bytes()[self._log_start :].splitlines():
            if b'"partitions assigned' in line:  # the log of the service
                at = datetime.fromisoformat(json.loads(line)["time"]).timestamp()
                return at - time.time() + time.monotonic()
            if line.startswith(b"assigned "):  # that of a loop
                return float(line.split()[1])
        return None

    def __enter__(self) -> Self:
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self.spawn()
        return self


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, in seconds (a resolution of 10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


class Loop(_Measured):
    """A loop without a service around it; see loops.py."""

    def __init__(self, ground: Ground, kind: str, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", "bench.throughput.loops", kind, *arguments]
        log = ground.folder / f"{kind}.log"
        super().__init__(f"the {kind} loop", command, log, environ=ground.environ, cwd=ground.folder)


class Worker(_Measured):
    """`python -m consumer.cli run`, with what it says over HTTP."""

    def __init__(self, ground: Ground, profile: Path | None) -> None:
        self.port = free_port()
        module = ["-m", "consumer.cli", "run"]
        if profile is not None:
            module = ["-m", "bench.throughput.profile", "--into", str(profile)]
        super().__init__(
            "the service",
            [sys.executable, *module],
            ground.folder / "service.log",
            environ=ground.environ | {"DOWNTICK_HTTP__PORT": str(self.port)},
            cwd=ground.folder,  # nobody's .env gets in
        )

    def wait_ready(self, timeout: float = 120) -> None:
        self.wait_until(self.ready, timeout)

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name with labels, as the exposition writes it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}


class Progress:
    """How far a group is: the sum of its committed offsets. One small request a call."""

    def __init__(self, ground: Ground) -> None:
        kafka = ground.settings.kafka
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "group.id": kafka.group_id,
                "log_level": 2,
                "isolation.level": "read_uncommitted",  # or it would wait for open transactions to end
            }
        )
        self._partitions = [TopicPartition(kafka.input_topic, p) for p in range(PARTITIONS)]

    def committed(self) -> int:
        answers = self._consumer.committed(self._partitions, timeout=10)
        return sum(max(0, answer.offset) for answer in answers)

    def end(self) -> int:
        return sum(self._consumer.get_watermark_offsets(p, timeout=10)[1] for p in self._partitions)

    def wait_for(self, offset: int, child: Child, timeout: float = 300) -> None:
        """Block until so much is committed."""

        def there() -> bool:
            try:
                return self.committed() >= offset
            except KafkaException:
                return False

        child.wait_until(there, timeout)

    def close(self) -> None:
        self._consumer.close()
