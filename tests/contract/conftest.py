"""The servers and stores of the contract tests."""

from tests.support.redis_fixtures import group, make_store, own_server, redis_cluster, redis_server, store

__all__ = ["group", "make_store", "own_server", "redis_cluster", "redis_server", "store"]
