"""Peak memory of a worker that owns very many stocks, each with a full ring.

The service itself makes every stock (one update each), so that partitions, sets of stocks and offsets are its own. It
is stopped; the rings are then filled to their depth through the store's public API, which is what 12.8 million updates
would have left there; the worker is started again on them, and gets one more update of every stock."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import numpy as np
import redis

from bench.throughput.ground import PARTITIONS, Ground, Progress
from bench.throughput.market import Market, send
from state.layout import Delta, record_dtype
from state.store import Outcome, RedisStore

if TYPE_CHECKING:
    from bench.throughput.backlog import Result

RINGS_PER_CALL = 2_000


def memory(broker: str, stocks: int) -> Result:
    """Bytes and seconds of a start on `stocks` full rings, and of one update each."""
    market = Market(stocks, stocks)
    with Ground(broker) as ground:
        topic, servers = ground.settings.kafka.input_topic, ground.bootstrap_servers()
        progress = Progress(ground)
        made = send(servers, topic, market.updates(stocks))
        with ground.worker() as worker:
            worker.wait_ready()
            progress.wait_for(made, worker)
            worker.stop()
        depth = _fill(ground)
        with redis.Redis.from_url(ground.redis_url()) as client:
            redis_bytes = client.info("memory")["used_memory"]
        ground.settle()
        started = time.monotonic()
        with ground.worker() as worker:
            worker.wait_ready(300)
            start_seconds = time.monotonic() - started
            at_start = worker.peak_memory()
            more = send(servers, topic, market.updates(stocks))
            progress.wait_for(made + more, worker)
            peak, metrics = worker.peak_memory(), worker.metrics()
        progress.close()
        seating = _seating_seconds(worker.log.read_text(encoding="utf-8").splitlines())
    published, tracked = metrics["downtick_predictions_published_total"], metrics["downtick_stocks_tracked"]
    if tracked != stocks or published != more:  # every ring is full, so each update must have its prediction
        raise RuntimeError(f"{tracked:.0f} of {stocks} stocks were loaded, {published:.0f} of {more} updates predicted")
    return {
        "stocks": stocks,
        "depth": depth,
        "peak_memory_bytes": peak,
        "peak_memory_after_load_bytes": at_start,
        "start_seconds": start_seconds,
        "load_seconds": seating,
        "redis_bytes": redis_bytes,
    }


def _fill(ground: Ground) -> int:
    """Every ring to its depth, behind the last update that the service handled. Returns the depth."""
    settings = ground.settings
    store = RedisStore(
        ground.redis_url(),
        cluster=False,
        prefix=settings.redis.key_prefix,
        group=settings.kafka.group_id,
        topic=settings.kafka.input_topic,
        timeout=30,
    )
    depth, random = settings.history.depth, np.random.default_rng(2)
    for partition in range(PARTITIONS):
        meta = store.read_meta(partition)
        if meta is None:
            raise RuntimeError(f"partition {partition} has no meta after the service ran")
        # Read to the end first: a write would move what is being read.
        for loaded in list(store.load(partition, meta, meta.channels, 1)):
            count, age = len(loaded.stocks), np.arange(depth - 1, -1, -1)
            records = np.zeros((count, depth), record_dtype(meta.channels))
            records[:] = loaded.records[:, -1:]  # the newest record is the service's own
            records["index"] = np.arange(1, depth + 1)
            records["offset"] -= age  # rising, as in a log
            records["ts"] -= age * 1000
            moves = np.exp(np.cumsum(random.normal(0, 0.001, (count, depth)), axis=1))
            records["values"] *= (moves / moves[:, -1:])[:, :, None]
            delta = Delta(
                stocks=loaded.stocks,
                counts=np.full(count, depth, np.int64),
                records=records.reshape(-1),
                new=np.zeros(count, bool),
                rewrite=np.ones(count, bool),
            )
            for part in delta.split(RINGS_PER_CALL):
                if store.write(partition, meta, meta, part) is not Outcome.APPLIED:
                    raise RuntimeError(f"the rings of partition {partition} could not be written")
    store.close()
    return depth


def _seating_seconds(lines: list[str]) -> float:
    """From the partitions' assignment to the last one seated, in the last start that the log tells of."""
    at: dict[str, float] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        message = str(entry.get("message", ""))
        if "assigned" in message or " seated" in message:
            at["assigned" if "assigned" in message else "seated"] = np.datetime64(entry["time"][:23]).astype(int) / 1000
    return at["seated"] - at["assigned"]
