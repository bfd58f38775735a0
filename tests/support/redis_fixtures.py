"""Redis for the contract tests: one server and one cluster for the whole session, told apart by group names."""

import secrets
from collections.abc import Callable, Iterator

import pytest

from state.store import RedisStore
from tests.support.redis_servers import RedisCluster, RedisServer

MakeStore = Callable[..., RedisStore]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """For tests that leave it as it was but for keys of their own group."""
    server = RedisServer(tmp_path_factory.mktemp("redis-contract"))
    yield server.start()
    server.close()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Three primaries and three replicas. Whoever moves or kills a node waits until it is whole again."""
    cluster = RedisCluster(tmp_path_factory.mktemp("redis-cluster"))
    yield cluster.start()
    cluster.close()


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """For tests that stop, fill or misconfigure it."""
    server = RedisServer(tmp_path_factory.mktemp("redis-own"))
    yield server.start()
    server.close()


@pytest.fixture
def group() -> str:
    """A consumer group, and so keys, that no other test uses."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture(params=["single", "cluster"])
def make_store(request: pytest.FixtureRequest, group: str) -> Iterator[MakeStore]:
    """Stores on the same keys, as two workers of one group have them."""
    cluster = request.param == "cluster"
    url = request.getfixturevalue("redis_cluster" if cluster else "redis_server").url
    stores: list[RedisStore] = []

    def make(*, topic: str = "prices") -> RedisStore:
        stores.append(RedisStore(url, cluster=cluster, prefix="downtick", group=group, topic=topic))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> RedisStore:
    return make_store()
