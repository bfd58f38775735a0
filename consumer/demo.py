"""The parts of the demo: broker, Redis and service as child processes, and the service's own numbers."""

from __future__ import annotations

import http.client
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

from prometheus_client.parser import text_string_to_metric_families

from consumer.admin import create_topics
from consumer.children import Child
from consumer.sandbox import HOST, PARTITIONS, EmbeddedKafka, EmbeddedRedis, free_port, sandbox_variables
from consumer.settings import Kafka, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = (sys.executable, "-m", "consumer.cli", "run")
_SERVICE_READY_WITHIN = 90.0  # seconds; 6 on two cores, more where TensorFlow is read from a slow disk


class Parts:
    """The broker, the Redis and the service of one demo, each a process of its own; gone when the block is left.

    Belongs to the main thread, whose end the children would not outlive."""

    def __init__(self, *, model: Path | None = None) -> None:
        self._stack = ExitStack()
        self._model = model
        self.port = free_port()

    def __enter__(self) -> Self:
        try:
            folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="downtick-demo-")))
            self.kafka = self._stack.enter_context(EmbeddedKafka())
            self.redis = self._stack.enter_context(EmbeddedRedis())
            # Left first: it is stopped while its servers still answer. In its folder is no .env, no downtick.toml.
            self.service = self._stack.enter_context(
                Child("the service", SERVICE, folder / "log", environ=self._environ(), cwd=folder)
            )
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _environ(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.upper().startswith("DOWNTICK_")}
        model = {"DOWNTICK_MODEL__PATH": str(self._model.absolute())} if self._model else {}
        own = {"DOWNTICK_HTTP__PORT": str(self.port), "DOWNTICK_WORKER": "demo"}
        return {**ours, **sandbox_variables(self.kafka, self.redis), **own, **model}

    @property
    def settings(self) -> Settings:
        """Settings that lead our own clients to the broker."""
        return Settings(kafka=Kafka(bootstrap_servers=self.kafka.bootstrap_servers))

    def start(self) -> Iterator[str]:
        """Start everything; after each step what is up now, in words.

        Raises: CommandError with the last lines of the part that failed."""
        self.kafka.spawn()
        self.redis.spawn()
        self.kafka.wait_ready()
        create_topics(self.settings, partitions=PARTITIONS)
        yield f"Kafka on {self.kafka.bootstrap_servers}: 3 topics, {PARTITIONS} partitions each"
        self.redis.wait_ready()
        yield f"Redis on {HOST}:{self.redis.port}"
        self.service.spawn()
        deadline = time.monotonic() + _SERVICE_READY_WITHIN
        while self._get("/ready") is None:
            self.check()
            if time.monotonic() > deadline:
                raise self.service.failure(f"was not ready after {_SERVICE_READY_WITHIN:.0f} s")
            yield ""
            time.sleep(0.05)
        yield f"service, process {self.service.pid}: metrics on http://{HOST}:{self.port}/metrics"

    def check(self) -> None:
        """Raise CommandError if one of them has died."""
        for child in (self.kafka.child, self.redis.child, self.service):
            child.check()

    def metrics(self) -> Metrics:
        """What the service says about itself now; nothing if it does not answer."""
        text = self._get("/metrics") or ""
        samples: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.endswith("_bucket"):
                    continue
                for name in (sample.name, *(f"{sample.name} {value}" for value in sample.labels.values())):
                    samples[name] = samples.get(name, 0.0) + sample.value
        return Metrics(samples)

    def _get(self, path: str) -> str | None:
        """The body of a 200, else None."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=2)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return body if response.status == http.client.OK else None


@dataclass(frozen=True)
class Metrics:
    """Values by name, summed over labels, and by "name label-value"."""

    samples: dict[str, float]

    def __call__(self, name: str, label: str = "") -> float:
        """The value of `downtick_<name>`, 0 where there is none."""
        return self.samples.get(f"downtick_{name} {label}".strip(), 0.0)

    @property
    def accounted(self) -> float:
        """Updates that the service is done with."""
        return self("predictions_published_total") + self("dead_letters_total") + self("events_skipped_total")
