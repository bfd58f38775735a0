"""What the command line's tools ask of a broker before they start, and how they say that it cannot be had.

librdkafka retries for ever and logs each attempt. A tool instead gives up after a few seconds and names the cause,
which only the error callback is told: `trouble` keeps it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException

from consumer.cli_errors import CommandError

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient

    from consumer.kafka_options import ClientOptions

quiet = logging.getLogger("consumer.librdkafka.tools")
quiet.addHandler(logging.NullHandler())
quiet.propagate = False


class Trouble:
    """The last thing librdkafka complained about; its `error_cb`. Called in the thread that polls."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, error: KafkaError) -> None:
        """Keep it, unless it says less than what is known: "all brokers are down" follows each real cause."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN or not self.text:  # noqa: SLF001 - librdkafka's public names
            self.text = error.str()

    def options(self, options: ClientOptions) -> dict[str, Any]:
        """The options of a client that tells its trouble here instead of logging it."""
        return {**options, "error_cb": self, "logger": quiet}


def partitions(
    client: Consumer | Producer | AdminClient, topic: str, *, servers: str, trouble: Trouble, timeout: float = 5.0
) -> list[int]:
    """The partitions of a topic. Blocks up to `timeout` seconds.

    Raises: CommandError when no broker answers, or there is no such topic."""
    try:
        # All topics: asking for one by name creates it where brokers do so.
        found = client.list_topics(timeout=timeout).topics
    except KafkaException as error:
        client.poll(0)  # hands the cause to `trouble`
        raise unreachable(servers, trouble, error) from error
    if topic not in found:
        raise CommandError(
            f"there is no topic {topic!r} at {servers}",
            hint=f"create it: kafka-topics.sh --bootstrap-server {servers.partition(',')[0]} --create --topic {topic} "
            f"--partitions 6; or name another. There are: {_names(list(found))}",
        )
    broken = found[topic].error
    if broken is not None:
        raise CommandError(f"topic {topic!r} at {servers}: {broken.str()}")
    return sorted(found[topic].partitions)


def unreachable(servers: str, trouble: Trouble, error: KafkaException | None = None) -> CommandError:
    """No broker answers: with the cause, if librdkafka told one."""
    cause = trouble.text or (error.args[0].str() if error else "")
    return CommandError(
        f"no Kafka broker answers at {servers}" + (f" ({cause})" if cause else ""),
        hint="is it running, and is --kafka.bootstrap-servers right? `downtick sandbox` starts one to try things out",
    )


def _names(topics: list[str]) -> str:
    shown = sorted(name for name in topics if not name.startswith("__"))
    return (", ".join(shown[:10]) + (" …" if len(shown) > 10 else "")) or "none"
