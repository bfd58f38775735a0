"""Apache Kafka for the tests: one KRaft broker, with its controller inside or apart, from the jars of tests/pom.xml.

What it is started with is what is deployed: deploy/kafka/server.properties, with other ports, folders and time-outs.
It takes about five seconds to start. A restart keeps ports and data, so that clients find the same cluster again.

A broker that shall crash under transactions needs its controller in a process of its own (`controller_apart`), as in
production. Where the two die together, Kafka 4.1 to 4.4 forgets to end the transactions that were open: the metadata
that it starts from calls the broker the leader and has no address of it yet, so that the end markers are taken to be
for deleted partitions, and skipped (KAFKA-20734)."""

import functools
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.ports import free_port
from tests.support.processes import Process

POM = Path(__file__).parents[1] / "pom.xml"
DEPLOYED = Path(__file__).parents[2] / "deploy/kafka/server.properties"
LOG4J = Path(__file__).parents[2] / "deploy/kafka/log4j2.properties"
MINIMUM_JAVA = 17


class KafkaMissing(Exception):
    """Apache Kafka cannot run here; the message says what is missing."""


@functools.cache
def java() -> str:
    """Path of a Java of at least version 17: JAVA_HOME's, else the one on the PATH. Raises KafkaMissing."""
    home = os.environ.get("JAVA_HOME")
    found = [str(Path(home, "bin", "java"))] if home else []
    found += [path] if (path := shutil.which("java")) else []
    seen = []
    for candidate in found:
        try:
            told = subprocess.run(
                [candidate, "-XshowSettings:properties", "-version"], capture_output=True, text=True, check=True
            ).stderr
        except (OSError, subprocess.CalledProcessError) as error:
            seen.append(f"{candidate}: {error}")
            continue
        version = next(line.split("=")[1].strip() for line in told.splitlines() if "java.specification.version" in line)
        if int(version.split(".")[0]) >= MINIMUM_JAVA:
            return candidate
        seen.append(f"{candidate} is Java {version}")
    raise KafkaMissing(f"Java {MINIMUM_JAVA} or newer: {'; '.join(seen) or 'no java in JAVA_HOME or on the PATH'}")


@functools.cache
def classpath() -> str:
    """The class path. Maven resolves it once for each text of the pom; the answer is kept in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "downtick"
    kept = cache / f"kafka-classpath-{hashlib.sha256(POM.read_bytes()).hexdigest()[:16]}.txt"
    if kept.exists():
        text = kept.read_text(encoding="utf-8")
        if text and all(Path(jar).exists() for jar in text.split(os.pathsep)):
            return text
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaMissing("mvn on the PATH, to resolve the jars of tests/pom.xml")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        answer = Path(scratch) / "classpath"
        done = subprocess.run(
            [maven, "-q", "-B", "-f", str(POM), "dependency:build-classpath", f"-Dmdep.outputFile={answer}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not answer.exists():
            raise KafkaMissing(f"the jars of tests/pom.xml; mvn said: {(done.stdout + done.stderr).strip()[-1000:]}")
        text = answer.read_text(encoding="utf-8").strip()
        answer.write_text(text, encoding="utf-8")
        answer.replace(kept)
    return text


def properties(path: Path) -> dict[str, str]:
    """The settings of a properties file that keeps to `name=value` lines and comments."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: value for name, _, value in pairs}


class ApacheKafka:
    """One node on fixed loopback ports, its data in `folder`. Not started by the constructor.

    Args:
        options: settings of the broker beside ours.
        also: a further listener, as SASL_SSL://127.0.0.1:9093, for clients that come with a name; `options` say how."""

    def __init__(
        self,
        folder: Path,
        *,
        heap_mb: int = 768,
        options: dict[str, str] | None = None,
        controller_apart: bool = False,
        also: str = "",
    ) -> None:
        self.folder = folder
        self.port, self._controller_port = free_port(), free_port()
        self.bootstrap_servers = f"127.0.0.1:{self.port}"
        self._heap_mb = heap_mb
        self._process: Process | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._controller: Process | None = None
        settings = self._settings() | (options or {})
        settings["advertised.listeners"] = ",".join(filter(None, [settings["advertised.listeners"], also]))
        broker = ",".join(filter(None, [f"PLAINTEXT://{self.bootstrap_servers}", also]))
        controller = f"CONTROLLER://127.0.0.1:{self._controller_port}"
        self._controller_config: Path | None = None
        if controller_apart:
            settings |= {"process.roles": "broker", "listeners": broker}
            settings |= {"controller.quorum.voters": f"2@127.0.0.1:{self._controller_port}"}
            own = {"process.roles": "controller", "node.id": "2", "listeners": controller}
            own |= {"log.dirs": str(folder / "controller")}
            without = {name: value for name, value in settings.items() if name != "advertised.listeners"}
            self._controller_config = self._formatted("controller", without | own)
        else:
            settings |= {"process.roles": "broker,controller", "listeners": f"{broker},{controller}"}
            settings |= {"controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}"}
        self._config = self._formatted("server", settings | {"log.dirs": str(folder / "data")})

    def _formatted(self, name: str, settings: dict[str, str]) -> Path:
        """The configuration file of a process, whose storage is ready for it."""
        config = self.folder / f"{name}.properties"
        config.write_text("".join(f"{k}={v}\n" for k, v in settings.items()), encoding="utf-8")
        self._run_tool("kafka.tools.StorageTool", "format", "--cluster-id", "downtick-tests-cluste", "--config", config)
        return config

    def _settings(self) -> dict[str, str]:
        return properties(DEPLOYED) | {
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            # Faults show after seconds, not minutes.
            "group.min.session.timeout.ms": "1000",
            "group.consumer.session.timeout.ms": "6000",
            "group.consumer.min.session.timeout.ms": "1000",
            "group.consumer.heartbeat.interval.ms": "500",
            "group.consumer.min.heartbeat.interval.ms": "100",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
            "log.retention.check.interval.ms": "1000",
            "log.segment.delete.delay.ms": "1000",
            "offsets.retention.check.interval.ms": "2000",
        }

    def _run_tool(self, main: str, *arguments: object) -> None:
        done = subprocess.run(
            [java(), "-cp", classpath(), "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={LOG4J}", main]
            + [str(argument) for argument in arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{main}: {done.stdout}{done.stderr}"

    def start(self, within: float = 60) -> None:
        """Start it, on the same ports and data every time; returns once a client was answered."""
        assert self._process is None, "it runs already"
        if self._controller_config is not None and self._controller is None:
            self._controller = self._spawn(self._controller_config, 256)
        self._process = self._spawn(self._config, self._heap_mb)
        self.wait_until_ready(within)

    def _spawn(self, config: Path, heap_mb: int) -> Process:
        return Process(
            [
                java(),
                f"-Xmx{heap_mb}m",
                "-XX:+UseSerialGC",  # two cores: parallel collectors only get into the way
                "-XX:TieredStopAtLevel=1",  # C1 alone: starts in half the time, and tests never run for long
                "-Djava.net.preferIPv4Stack=true",
                f"-Dlog4j2.configurationFile={LOG4J}",
                "-cp",
                classpath(),
                "kafka.Kafka",
                str(config),
            ],
            log=self.folder / f"{config.stem}.log",
        )

    def wait_until_ready(self, within: float = 60) -> None:
        deadline = time.monotonic() + within
        admin = AdminClient(
            {"bootstrap.servers": self.bootstrap_servers, "log_level": 0, "reconnect.backoff.max.ms": 200}
        )
        while True:
            try:
                if admin.list_topics(timeout=0.5).brokers:
                    return
            except KafkaException:
                pass  # not yet: that is what the loop is for
            assert self._process is not None
            assert self._process.running, f"Apache Kafka ended while starting\n{self._process.tail()}"
            assert time.monotonic() < deadline, f"Apache Kafka not ready within {within} s\n{self._process.tail()}"

    def stop(self, within: float = 30) -> None:
        """A clean shutdown, as an operator's restart does it."""
        if self._process is not None:
            self._process.resume()
            self._process.terminate(within)
            self._process = None

    def kill(self) -> None:
        """The broker's machine is gone: SIGKILL. A controller apart stays up."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def close(self) -> None:
        """No process is left."""
        self.kill()
        if self._controller is not None:
            self._controller.kill()
            self._controller = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nobody answers."""
        assert self._process is not None
        self._process.stop()

    def thaw(self) -> None:
        assert self._process is not None
        self._process.signal(signal.SIGCONT)
