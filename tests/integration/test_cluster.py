"""The service with its histories in a real Redis Cluster: three primaries, their replicas, and primaries that change.

A partition's keys share one slot, so that its scripted call stays atomic; a promoted replica may lack a suffix of what
was acknowledged, which is then folded again from the log."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import redis

from tests.support.broker import Broker
from tests.support.chapters import key, watermark
from tests.support.processes import wait_until
from tests.support.redis_servers import RedisCluster, RedisServer
from tests.support.reference import Expected
from tests.support.reference_model import KerasModel
from tests.support.service import Service
from tests.support.system import System

SEED = 4_700
PARTITIONS = range(6)
START = 150  # seconds for a start; it takes five on a quiet machine


@dataclass(frozen=True)
class Found:
    expected: Expected
    nodes: set[str]  # that hold metas
    promoted: list[str]
    said: str


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster.start()
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def found(
    apache: Broker, cluster: RedisCluster, model: KerasModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Found]:
    system = System(
        tmp_path_factory.mktemp("on-a-cluster"), apache, cluster.url, model, settings={"redis.cluster": "true"}
    )
    with system:
        system.redis.close()
        system.redis = redis.RedisCluster.from_url(cluster.url)  # type: ignore[assignment]  # answers the same reads
        readers = system.watch()
        worker = system.worker().start()
        with system.load(seed=SEED, stocks=60, rate=500):
            worker.wait_ready(START)
            _works(worker, "histories", more=60 * 40)
            nodes = {_primary(system, cluster, partition).name for partition in PARTITIONS}

            # In order, as for a node's maintenance: the primary waits until its replica has everything.
            first = _primary(system, cluster, 0)
            replica = cluster.replica_of(first)
            cluster.promote(replica)
            _works(worker, f"{replica.name} in place of {first.name}")

            # The machine is gone: the replica takes over with what it has.
            second = next(node for p in PARTITIONS if (node := _primary(system, cluster, p)) is not replica)
            other = cluster.replica_of(second)
            second.kill()
            cluster.promote(other, force="TAKEOVER")
            _works(worker, f"{other.name} in place of {second.name}")
        system.wait_until_done()
        _redis_follows(system)
        expected = system.check(readers)
        yield Found(expected, nodes, [replica.name, other.name], worker.log.read_text(encoding="utf-8"))
        worker.terminate()


def _primary(system: System, cluster: RedisCluster, partition: int) -> RedisServer:
    """Where a partition's keys are now."""
    alive = next(node for node in cluster.nodes if node.process.running)
    return cluster.primary_of(int(alive.call("CLUSTER", "KEYSLOT", key(system, partition, "meta"))))


def _works(worker: Service, what: str, more: int = 500) -> None:
    before = worker.metric("events_consumed_total")

    def works() -> bool:
        return worker.metric("events_consumed_total") > before + more and worker.ready

    wait_until(works, within=90, what=lambda: f"{what}: {worker.get('/ready')}\n{worker.process.tail()}")


def _redis_follows(system: System) -> None:
    def follows() -> bool:
        return all(watermark(system, partition) == end - 1 for partition, end in system.committed().items())

    wait_until(follows, within=60, what="Redis holds what is committed")


def test_a_services_keys_lie_on_several_nodes(found: Found) -> None:
    assert len(found.nodes) >= 2


def test_nothing_is_lost_or_repeated_when_replicas_are_promoted_under_load(found: Found) -> None:
    assert len(found.promoted) == 2
    assert len(found.expected.predictions) > 1_000
    assert found.expected.dead_letters
    assert "Traceback" not in found.said


def test_each_partitions_keys_are_in_one_slot(found: Found, cluster: RedisCluster) -> None:
    tags = set()
    alive = [node for node in cluster.nodes if node.process.running and node.call("ROLE")[0] == b"master"]
    for node in alive:
        with node.client() as client:
            tags |= {(name.split(b"}")[0], node.name) for name in client.scan_iter(count=1_000)}
    assert found.expected.predictions
    assert len({tag for tag, _ in tags}) == len(tags) == len(PARTITIONS)
