"""What stands in Redis, for people: whose partitions, how large, one stock's history; and the ways to reset or resume.

Works whether a service runs or not, and needs no Kafka: partitions are found by their keys. Reading changes nothing;
what `reset` does meets a running worker as a CONFLICT."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from redis.exceptions import ResponseError

from state.connection import Server, checked, pack
from state.layout import Meta, Records
from state.rings import decode_rings
from state.store import RedisStore

SCAN_COUNT = 10_000
RESUME_SECONDS = 600
SAMPLE = 20  # rings whose memory is measured


@dataclass(frozen=True)
class PartitionState:
    """One partition as it stands in Redis."""

    partition: int
    meta: Meta | None  # None: only leftovers (a lost meta, a restore that has not ended)
    stocks: int
    bytes: int  # of the current rings and their set, estimated from a sample
    old_generations: list[str]  # others with keys


@dataclass(frozen=True)
class StockHistory:
    """One stock's ring."""

    partition: int
    meta: Meta
    records: Records  # (n,), oldest first


def partitions(store: RedisStore) -> list[int]:
    """Partitions of the store's group and topic that have a meta, ascending, by a SCAN of every primary.

    Raises: Unavailable, StoreRefused."""
    return sorted({partition for partition, _ in _found(store, "*", "meta")})


def show(store: RedisStore) -> list[PartitionState]:
    """All partitions that have a meta or a set of stocks, ascending. Raises: Unavailable, StoreRefused."""
    generations: dict[int, set[str]] = {}
    for ending in ("meta", "*:stocks"):
        for partition, generation in _found(store, "*", ending):
            generations.setdefault(partition, set()).update([generation] if generation else [])
    return [_show(store, partition, found) for partition, found in sorted(generations.items())]


def _show(store: RedisStore, partition: int, generations: set[str]) -> PartitionState:
    meta = store.read_meta(partition)
    if meta is None:
        return PartitionState(partition, None, 0, 0, sorted(generations))
    keys = store.keys(partition)
    stocks = keys.stocks(meta.generation)
    size, sample, own = store.call(
        partition,
        [pack("SCARD", stocks)],
        [pack("SRANDMEMBER", stocks, SAMPLE)],
        [pack("MEMORY", "USAGE", stocks)],
    )
    count = 0 if isinstance(size, ResponseError) else int(size)
    names = [] if isinstance(sample, ResponseError) else sample
    rings = [keys.ring(meta.generation, name.decode("utf-8", "replace")) for name in names]
    usages = store.call(partition, *[[pack("MEMORY", "USAGE", ring)] for ring in rings])
    measured = [usage for usage in usages if isinstance(usage, int)]
    mean = sum(measured) / len(measured) if measured else 0.0
    total = round(count * mean) + (own if isinstance(own, int) else 0)
    return PartitionState(partition, meta, count, total, sorted(generations - {meta.generation}))


def find(store: RedisStore, stock: str) -> list[StockHistory]:
    """The stock's history in every partition that has one (more than one: producers do not agree on a partitioner).

    Rings that are broken are left out. Raises: Unavailable, StoreRefused."""
    histories = []
    for partition in partitions(store):
        meta = store.read_meta(partition)
        if meta is None:
            continue
        ring = store.call(partition, [pack("GET", store.keys(partition).ring(meta.generation, stock))])[0]
        if not isinstance(ring, bytes):
            continue
        # The worker may have written since the meta was read: any offset is welcome here.
        rings = decode_rings([ring], meta.depth, meta.channels, meta.depth, 2**63 - 1)
        if rings.valid[0]:
            records = rings.records[0]
            histories.append(StockHistory(partition, meta, records[records["index"] > 0]))
    return histories


def reset(store: RedisStore, partition: int) -> int:
    """Deletes all that Redis holds of the partition, the meta first, and returns the number of keys.

    A running worker seats the partition anew and rebuilds it from the log; its new keys are left alone. A second call
    after an error goes on. Raises: Unavailable, StoreRefused."""
    keys = store.keys(partition)
    doomed = {generation for _, generation in _found(store, str(partition), "*") if generation}
    deleted = int(store.ask(partition, "DEL", keys.meta, keys.resume))
    prefixes = tuple(f"{keys.tag}:{generation}:".encode() for generation in doomed)
    for server in store.servers.primaries():
        for page in _scan(server, f"{keys.tag}:*"):
            gone = [key for key in page if key.startswith(prefixes)]
            if gone:
                deleted += int(store.ask(partition, "UNLINK", *gone))
    return deleted


def resume(store: RedisStore, partition: int) -> None:
    """Asks the partition's worker to close its circuit breaker. Forgotten after `RESUME_SECONDS`, so that a request
    nobody waited for does not close another breaker later. Raises: Unavailable, StoreRefused."""
    store.ask(partition, "SET", store.keys(partition).resume, "1", "EX", RESUME_SECONDS)


def _found(store: RedisStore, partition: str, ending: str) -> Iterator[tuple[int, str]]:
    """Partition and generation ("" for meta and resume) of the keys that match, with repetitions."""
    head = f"{store.prefix}:{{{store.group}/{store.topic}/"  # no character in these has a meaning in a pattern
    pattern = f"{head}{partition}}}:{ending}"
    rest = r"([0-9]{1,9})\}:(?:meta|resume|([0-9A-Za-z]+):(?:stocks|h:.*))"
    names = re.compile((re.escape(head) + rest).encode(), re.DOTALL)
    for server in store.servers.primaries():
        for page in _scan(server, pattern):
            for match in filter(None, map(names.fullmatch, page)):
                yield int(match[1]), (match[2] or b"").decode()


def _scan(server: Server, pattern: str) -> Iterator[list[bytes]]:
    cursor = b"0"
    while True:
        cursor, page = checked(
            server.call([[pack("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)]])[0], server.name
        )
        yield page
        if cursor == b"0":
            return
