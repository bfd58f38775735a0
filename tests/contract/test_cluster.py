"""A real Redis Cluster: partitions on several nodes, and a promotion under load that neither loses nor doubles."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest

from state.errors import Unavailable
from state.layout import Meta
from state.servers import slot_of
from state.store import Outcome, RedisStore, Write
from tests.support.fold import Fold, load_all, meta_at
from tests.support.processes import wait_until
from tests.support.redis_servers import RedisCluster

PATIENCE = 20.0  # seconds that a write is repeated; a failover takes about two


@pytest.fixture
def store(redis_cluster: RedisCluster, group: str) -> Iterator[RedisStore]:
    store = RedisStore(redis_cluster.url, cluster=True, prefix="downtick", group=group, topic="prices", timeout=0.5)
    yield store
    store.close()


@dataclass
class Load:
    """Partitions written round by round; a call that fails is made again as it was, as the engine does."""

    store: RedisStore
    partitions: list[int]
    folds: dict[int, Fold] = field(default_factory=dict)
    metas: dict[int, Meta] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def round(self) -> None:
        writes = []
        for partition in self.partitions:
            fold = self.folds.setdefault(partition, Fold())
            delta = fold.batch(*"ABAC", f"N{fold.next_offset % 17}")
            writes.append(Write(partition, self.metas.get(partition), meta_at(fold.watermark), delta))
        assert self.persist(partial(self.store.write_all, writes)) == [Outcome.APPLIED] * len(writes)
        self.metas.update({write.partition: write.then for write in writes})

    def persist(self, call: Callable[[], object]) -> object:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return call()
            except Unavailable as error:
                self.failures.append(str(error))
                assert time.monotonic() < deadline, self.failures
                time.sleep(0.02)

    def assert_whole(self) -> None:
        for partition, fold in self.folds.items():
            assert self.store.read_meta(partition) == self.metas[partition]
            fold.assert_loaded(load_all(self.store, partition, self.metas[partition], 1, 8), 8)


def owner(cluster: RedisCluster, store: RedisStore, partition: int) -> int:
    return cluster.primary_of(slot_of(f"{store.group}/{store.topic}/{partition}")).port


def test_the_partitions_of_a_topic_are_spread_over_the_primaries(
    redis_cluster: RedisCluster, store: RedisStore
) -> None:
    load = Load(store, list(range(6)))
    load.round()
    nodes = {owner(redis_cluster, store, partition) for partition in load.partitions}
    assert len(nodes) >= 2
    holding = {
        node.port
        for node in redis_cluster.nodes[:]
        if node.call("ROLE")[0] == b"master" and node.call("KEYS", f"*{store.group}*")
    }
    assert holding == nodes
    load.assert_whole()
    assert not load.failures


def test_a_replica_promoted_under_load_costs_no_write_and_doubles_none(
    redis_cluster: RedisCluster, store: RedisStore
) -> None:
    load = Load(store, list(range(6)))
    for _ in range(10):
        load.round()
    moved = owner(redis_cluster, store, 0)
    primary = next(node for node in redis_cluster.nodes if node.port == moved)
    redis_cluster.replica_of(primary).call("CLUSTER", "FAILOVER")
    began = time.monotonic()
    while owner(redis_cluster, store, 0) == moved:
        assert time.monotonic() - began < PATIENCE
        load.round()
    for _ in range(10):
        load.round()
    assert owner(redis_cluster, store, 0) != moved
    load.assert_whole()
    redis_cluster.wait_whole()


def test_a_primary_killed_under_load_is_away_until_its_replica_has_taken_over(
    redis_cluster: RedisCluster, store: RedisStore
) -> None:
    load = Load(store, list(range(6)))
    for _ in range(5):
        load.round()
    port = owner(redis_cluster, store, 0)
    primary = next(node for node in redis_cluster.nodes if node.port == port)
    primary.call(
        "WAIT", 1, 5000
    )  # replication is asynchronous: what it had not passed on would be lost, as seating knows
    primary.kill()
    try:
        for _ in range(5):
            load.round()
        assert load.failures
        began = time.monotonic()
        while owner(redis_cluster, store, 0) == port:  # the node that is asked may hear of it later than we did
            assert time.monotonic() - began < PATIENCE
            load.round()
        load.assert_whole()
    finally:
        primary.start()
        redis_cluster.wait_whole()
    load.round()
    load.assert_whole()


def test_what_a_promoted_replica_has_not_heard_of_is_a_clean_suffix(
    redis_cluster: RedisCluster, store: RedisStore
) -> None:
    load = Load(store, [0])
    for _ in range(5):
        load.round()
    primary = redis_cluster.primary_of(slot_of(f"{store.group}/{store.topic}/0"))
    replica = redis_cluster.replica_of(primary)
    primary.call("WAIT", 1, 5000)
    heard = load.metas[0]
    copy = Fold()
    for _ in range(5):
        copy.batch(*"ABAC", f"N{copy.next_offset % 17}")
    replica.pause()
    primary.call("CLIENT", "KILL", "TYPE", "replica")
    for _ in range(2):
        load.round()
    primary.kill()
    replica.go_on()
    try:
        delta = load.folds[0].batch("A")
        then = meta_at(load.folds[0].watermark)
        assert load.persist(partial(store.write, 0, load.metas[0], then, delta)) is Outcome.CONFLICT
        assert store.read_meta(0) == heard
        copy.assert_loaded(load_all(store, 0, heard, 1, 8), 8)
    finally:
        primary.start()
        redis_cluster.wait_whole()


def test_a_slot_on_its_way_to_another_node_is_written_and_read(redis_cluster: RedisCluster, store: RedisStore) -> None:
    slot = slot_of(f"{store.group}/{store.topic}/0")
    source = redis_cluster.primary_of(slot)
    target = redis_cluster.primary_of((slot + 16384 // 2) % 16384)
    ids = {node.port: node.call("CLUSTER", "MYID").decode() for node in (source, target)}
    load = Load(store, list(range(6)))
    for _ in range(3):
        load.round()
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
    keys = sorted(source.call("CLUSTER", "GETKEYSINSLOT", slot, 1000))

    host, _, port = target.name.partition(":")
    source.call("MIGRATE", host, port, keys[0], 0, 5000)
    fold = load.folds[0]
    delta, then = fold.batch("A", "B"), meta_at(fold.watermark)
    with pytest.raises(Unavailable, match="being moved"):  # half its keys are here, half there
        store.write(0, load.metas[0], then, delta)

    source.call("MIGRATE", host, port, "", 0, 5000, "KEYS", *keys[1:])
    assert store.write(0, load.metas[0], then, delta) is Outcome.APPLIED  # all of them there: ASK
    load.metas[0] = then
    load.assert_whole()

    for node in (target, source):
        node.call("CLUSTER", "SETSLOT", slot, "NODE", ids[target.port])
    wait_until(lambda: redis_cluster.primary_of(slot) is target, within=10, what="the slot has moved")
    before = len(load.failures)
    load.round()  # the store has not been told: MOVED
    assert len(load.failures) == before
    load.assert_whole()


def test_a_store_that_was_made_while_its_first_node_is_away_waits_for_it(
    redis_cluster: RedisCluster, group: str
) -> None:
    seed = redis_cluster.nodes[0]
    seed.pause()
    try:
        store = RedisStore(seed.url, cluster=True, prefix="downtick", group=group, topic="prices", timeout=0.3)
        with pytest.raises(Unavailable, match="no node tells who serves which slots"):
            store.read_meta(0)
    finally:
        seed.go_on()
        redis_cluster.wait_whole()
    assert store.read_meta(0) is None
    store.close()


def test_a_store_outlives_the_node_it_was_given(redis_cluster: RedisCluster, store: RedisStore) -> None:
    load = Load(store, list(range(6)))
    load.round()
    seed = redis_cluster.nodes[0]
    seed.kill()
    try:
        load.round()
        load.assert_whole()
    finally:
        seed.start()
        redis_cluster.wait_whole()
