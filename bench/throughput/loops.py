"""Loops to compare with, each its own process: `python -m bench.throughput.loops ceiling|predict|call`.

    ceiling   consume → produce, exactly once, one transaction per batch: nothing downtick does can be faster
    predict   what a user writes first: one record, three Redis round trips, model.predict, produce, commit
    call      the same with the Keras model called directly

They read the same settings as the service (DOWNTICK_* of the environment) and run until they are killed."""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from consumer.kafka_options import consumer_options, producer_options
from consumer.outputs import FALSE, PredictionEncoder, format_ts
from consumer.settings_sources import load_settings

DEPTH = 128  # values a naive history keeps
VERSION = "2026-01-01T000000Z-000000"  # of an example; as long as a real one


def examples(count: int = 4096) -> list[bytes]:
    """Predictions with numbers as different as real ones, all of one length: what the ceiling writes of them must be
    as long, and as hard to compress, as what we write."""
    encoder = PredictionEncoder(32, VERSION, "prices", 3)
    moment, rng = format_ts(1_790_000_000_123), random.Random(1)
    found = []
    for offset in range(count):
        value = rng.uniform(100, 999)
        numbers = (value + rng.gauss(0, 1), value - rng.uniform(1, 9), value + rng.uniform(1, 9), 100_000 + offset)
        found.append(encoder.encode((b"S001234", moment, round(value, 2), FALSE, rng.random(), FALSE, *numbers)))
    size = round(sum(map(len, found)) / count)
    return [example.ljust(size)[:size] for example in found]


def ceiling() -> None:
    """Poll, drain, produce each record's value filled up to the length of a prediction, send offsets, commit."""
    fill = examples()
    settings = load_settings({})
    kafka, most = settings.kafka, settings.batch.max_events
    consumer = Consumer({**consumer_options(settings), "auto.offset.reset": "earliest"})
    producer = Producer(producer_options(settings))
    producer.init_transactions(30)
    consumer.subscribe([kafka.input_topic], on_assign=lambda *_: print("assigned", time.monotonic(), flush=True))
    topic = kafka.output_topic
    while True:
        first = consumer.poll(0.2)
        if first is None:
            continue
        messages: list[Any] = [m for m in (first, *consumer.consume(most - 1, 0)) if m.error() is None]
        if not messages:
            continue
        ends: dict[int, int] = {}
        produce = producer.produce
        producer.begin_transaction()
        for message, example in zip(messages, fill, strict=False):
            value = message.value()
            produce(topic, value + example[len(value) :], message.key())
            ends[message.partition()] = message.offset() + 1
        positions = [TopicPartition(kafka.input_topic, partition, end) for partition, end in ends.items()]
        producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata())
        producer.commit_transaction()


def naive(*, direct: bool) -> None:
    """One record at a time, at least once: no transaction, no batch. Histories are Redis lists of decimal texts."""
    import redis  # noqa: PLC0415  # the ceiling has no use for it

    from model import bundle, network, versions  # noqa: PLC0415  # TensorFlow
    from model.features import features  # noqa: PLC0415  # as above

    settings = load_settings({})
    kafka = settings.kafka
    content = bundle.load(versions.resolve(settings.model.path))
    manifest = content.manifest
    window = manifest.window
    model: Any = network.build(manifest.inputs, manifest.network)
    network.set_weights(model, manifest.network, content.weights)
    store = redis.Redis.from_url(settings.redis.url.get_secret_value())
    consumer = Consumer({**consumer_options(settings), "auto.offset.reset": "earliest", "enable.partition.eof": False})
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "partitioner": "murmur2_random"})
    consumer.subscribe([kafka.input_topic])
    while True:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        event = json.loads(message.value() or b"")
        key = naive_key(event["stock"])
        store.rpush(key, event["value"])
        store.ltrim(key, -DEPTH, -1)
        values = np.array([float(value) for value in store.lrange(key, -window, -1)])
        if len(values) == window:
            seen = features(values.reshape(1, window, 1), manifest.inputs)
            found = model(seen.x, training=False) if direct else model.predict(seen.x, verbose=0)
            probability = float(np.asarray(found["falling"])[0, 0])
            forecast = event["value"] + float(np.asarray(found["change"])[0, 0]) * float(seen.scale[0])
            prediction = {
                **event,
                "falling": probability >= manifest.thresholds.falling_on,
                "falling_probability": probability,
                "forecast": forecast,
            }
            producer.produce(kafka.output_topic, json.dumps(prediction), message.key())
            producer.flush()
        consumer.commit(message=message, asynchronous=False)


def naive_key(stock: str) -> str:
    """The Redis list of a naive history."""
    return f"naive:{stock}"


if __name__ == "__main__":
    (kind,) = sys.argv[1:]
    if kind == "ceiling":
        ceiling()
    elif kind in {"predict", "call"}:
        naive(direct=kind == "call")
    else:
        sys.exit(f"unknown loop {kind!r}")
