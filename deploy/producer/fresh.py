"""Whether a topic got a record lately: `fresh.py SERVERS TOPIC SECONDS` ends with 0 if so, else with 1 and the reason.

The health check of docker-compose.yml's producer, whose work nobody sees but Kafka."""

import sys
import time

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

TIMEOUT = 5.0  # seconds for each of two questions


def trouble(servers: str, topic: str, seconds: float) -> str | None:
    """Why the topic is not fresh; None if it is."""
    since = OffsetSpec.for_timestamp(round((time.time() - seconds) * 1000))
    try:
        admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        partitions = admin.list_topics(topic, timeout=TIMEOUT).topics[topic].partitions
        asked = admin.list_offsets({TopicPartition(topic, n): since for n in partitions}, request_timeout=TIMEOUT)
        if any(answer.result().offset >= 0 for answer in asked.values()):  # -1: no record is as young as that
            return None
    except KafkaException as error:
        return str(error)
    return f"no record in {topic} for {seconds:g} s"


if __name__ == "__main__":
    sys.exit(trouble(sys.argv[1], sys.argv[2], float(sys.argv[3])))
