"""Every way in which Redis can fail to serve is `Unavailable` and passes; every wrong setting is `StoreRefused`."""

import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from state import inspect
from state.errors import StoreRefused, Unavailable
from state.layout import Delta
from state.servers import slot_of
from state.store import Outcome, RedisStore
from tests.support.fold import Fold, load_all, meta_at
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.redis_servers import RedisCluster, RedisServer


def store_on(url: str, *, cluster: bool = False, timeout: float = 2.0) -> RedisStore:
    return RedisStore(url, cluster=cluster, prefix="downtick", group="g", topic="prices", timeout=timeout)


def assert_writes_again(store: RedisStore, fold: Fold, before: int, delta: Delta) -> None:
    """The very same call, made again, lands exactly once."""
    assert store.write(0, meta_at(before), meta_at(fold.watermark), delta) is Outcome.APPLIED
    fold.assert_loaded(load_all(store, 0, meta_at(fold.watermark), 1, 8), 8)


@contextmanager
def full(server: RedisServer) -> Iterator[None]:
    server.config("maxmemory", 1)
    yield
    server.config("maxmemory", 0)


@contextmanager
def replica(server: RedisServer) -> Iterator[None]:
    server.call("REPLICAOF", "127.0.0.1", free_port())
    yield
    server.call("REPLICAOF", "NO", "ONE")


@contextmanager
def stale_replica(server: RedisServer) -> Iterator[None]:
    server.config("replica-serve-stale-data", "no")
    with replica(server):
        yield


@contextmanager
def without_replicas(server: RedisServer) -> Iterator[None]:
    server.config("min-replicas-to-write", 1)
    yield
    server.config("min-replicas-to-write", 0)


@contextmanager
def without_disk(server: RedisServer) -> Iterator[None]:
    server.config("save", "3600 1")
    shutil.rmtree(server.folder)
    server.call("BGSAVE")
    wait_until(
        lambda: server.call("INFO", "persistence")["rdb_last_bgsave_status"] == "err", within=10, what="BGSAVE failed"
    )
    yield
    server.config("save", "")
    server.config("stop-writes-on-bgsave-error", "no")


@contextmanager
def running_a_script(server: RedisServer) -> Iterator[None]:
    server.config("lua-time-limit", 50)

    def spin() -> None:
        with suppress(RedisError):  # it is killed below
            server.call("EVAL", "while true do end", 0)

    thread = threading.Thread(target=spin)
    thread.start()

    def busy() -> bool:
        try:
            server.call("GET", "x")
        except RedisError as error:
            return "BUSY" in str(error)
        return False

    wait_until(busy, within=10, what="Redis is busy")
    yield
    server.call("SCRIPT", "KILL")
    thread.join()


@contextmanager
def stopped(server: RedisServer) -> Iterator[None]:
    server.pause()
    yield
    server.go_on()


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (full, "memory is full; raise maxmemory"),
        (replica, "it is a replica"),
        (stale_replica, "lost its primary"),
        (without_replicas, "too few replicas"),
        (without_disk, "cannot save to disk"),
        (running_a_script, "a script of someone else"),
        (stopped, "too slow"),
    ],
)
def test_a_write_while_redis_is_in_trouble_is_unavailable_and_lands_when_it_is_repeated(
    own_server: RedisServer, trouble: Callable[[RedisServer], Iterator[None]], message: str
) -> None:
    store = store_on(own_server.url, timeout=0.5)
    fold = Fold()
    assert store.write(0, None, meta_at(4), fold.batch(*"AABBC")) is Outcome.APPLIED
    delta = fold.batch(*"ABD")
    with trouble(own_server):  # type: ignore[attr-defined]  # each is a context manager
        for _ in range(2):
            with pytest.raises(Unavailable, match=message) as raised:
                store.write(0, meta_at(4), meta_at(7), delta)
            assert own_server.name in str(raised.value)
    assert_writes_again(store, fold, 4, delta)


def test_an_empty_change_of_a_full_redis_writes_nothing_either(own_server: RedisServer) -> None:
    store = store_on(own_server.url)
    fold = Fold()
    assert store.write(0, None, meta_at(0), fold.batch("A")) is Outcome.APPLIED
    assert store.stage(0, meta_at(0), "g2", 8, fold.rewrite("A")) is Outcome.APPLIED
    keys = store.ask(0, "HGETALL", store.keys(0).meta)
    with full(own_server), pytest.raises(Unavailable):
        store.write(0, meta_at(0), meta_at(0, generation="g2"), Delta.empty(1))
    assert store.ask(0, "HGETALL", store.keys(0).meta) == keys
    assert store.write(0, meta_at(0), meta_at(0, generation="g2"), Delta.empty(1)) is Outcome.APPLIED


def test_a_call_that_timed_out_and_then_landed_is_found_applied(own_server: RedisServer) -> None:
    store = store_on(own_server.url, timeout=0.3)
    fold = Fold()
    assert store.write(0, None, meta_at(1), fold.batch(*"AB")) is Outcome.APPLIED
    delta = fold.batch(*"ABA")
    own_server.pause()
    with pytest.raises(Unavailable, match="too slow"):
        store.write(0, meta_at(1), meta_at(4), delta)
    own_server.go_on()
    watching = store_on(own_server.url)
    wait_until(lambda: watching.read_meta(0) == meta_at(4), within=5, what="the call that was given up has landed")
    assert_writes_again(store, fold, 1, delta)


def test_a_killed_redis_is_away_and_then_empty(own_server: RedisServer) -> None:
    store = store_on(own_server.url)
    assert store.write(0, None, meta_at(0), Fold().batch("A")) is Outcome.APPLIED
    own_server.kill()
    for _ in range(2):
        with pytest.raises(Unavailable, match=f"Redis at {own_server.name} is away"):
            store.read_meta(0)
    own_server.start()
    assert store.read_meta(0) is None
    assert store.write(0, meta_at(0), meta_at(1), Delta.empty(1)) is Outcome.CONFLICT


def test_a_redis_put_back_from_a_snapshot_is_a_conflict(own_server: RedisServer) -> None:
    store = store_on(own_server.url)
    fold, early = Fold(), Fold()
    early.batch("A")
    assert store.write(0, None, meta_at(0), fold.batch("A")) is Outcome.APPLIED
    snapshot = own_server.snapshot()
    assert store.write(0, meta_at(0), meta_at(1), fold.batch("A")) is Outcome.APPLIED
    own_server.restore(snapshot)
    delta = fold.batch("A")
    with pytest.raises(Unavailable):
        store.write(0, meta_at(1), meta_at(2), delta)
    assert store.write(0, meta_at(1), meta_at(2), delta) is Outcome.CONFLICT
    assert store.read_meta(0) == meta_at(0)
    early.assert_loaded(load_all(store, 0, meta_at(0), 1, 8), 8)


def test_a_redis_that_loads_its_data_set_is_away(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024")
    try:
        server.start()
        store = store_on(server.url)
        names = [f"S{number}" for number in range(150)]
        assert store.write(0, None, meta_at(149), Fold().batch(*names)) is Outcome.APPLIED
        server.call("SAVE")
        server.kill()
        server.launch()

        def why() -> str:
            try:
                store.read_meta(0)
            except Unavailable as error:
                return str(error)
            raise AssertionError("it was loaded before we could ask")

        wait_until(lambda: "loading its data set" in why(), within=10, what="LOADING", every=0.01)
        with pytest.raises(Unavailable, match="loading its data set"):
            store.check()
        server.wait_ready()
        assert store.read_meta(0) == meta_at(149)
    finally:
        server.close()


def test_a_server_that_takes_the_connection_and_says_nothing_costs_one_timeout() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        store = store_on(f"redis://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
        began = time.monotonic()
        with pytest.raises(Unavailable, match="too slow"):
            store.read_meta(0)
        assert time.monotonic() - began < 1.0


def test_a_script_that_redis_has_forgotten_is_sent_again(own_server: RedisServer) -> None:
    store = store_on(own_server.url)
    fold = Fold()
    assert store.write(0, None, meta_at(0), fold.batch("A")) is Outcome.APPLIED
    own_server.call("SCRIPT", "FLUSH")
    own_server.call("CONFIG", "RESETSTAT")
    for watermark in (0, 1, 2):
        assert store.write(0, meta_at(watermark), meta_at(watermark + 1), fold.batch("A")) is Outcome.APPLIED
    stats = own_server.call("INFO", "commandstats")
    assert (stats["cmdstat_eval"]["calls"], stats["cmdstat_evalsha"]["calls"]) == (1, 3)
    fold.assert_loaded(load_all(store, 0, meta_at(3), 1, 8), 8)


def test_the_connection_redis_closes_when_idle_costs_one_failed_call(own_server: RedisServer) -> None:
    store = store_on(own_server.url)
    assert store.read_meta(0) is None
    own_server.call("CLIENT", "KILL", "TYPE", "normal")
    with pytest.raises(Unavailable, match="is away"):
        store.read_meta(0)
    assert store.read_meta(0) is None


def test_passwords_are_used_and_never_shown(own_server: RedisServer) -> None:
    own_server.call("ACL", "SETUSER", "engine", "on", ">s3cret-word", "~*", "+@all")
    own_server.call("ACL", "SETUSER", "reader", "on", ">s3cret-word", "~*", "+@all", "-evalsha", "-eval")
    own_server.call("ACL", "SETUSER", "default", "resetpass")
    host = own_server.name
    assert store_on(f"redis://engine:s3cret-word@{host}").read_meta(0) is None
    for user, word in [("engine", "wr0ng-word"), ("nobody", "s3cret-word")]:
        with pytest.raises(StoreRefused, match="does not let us in") as raised:
            store_on(f"redis://{user}:{word}@{host}").read_meta(0)
        assert "-word" not in str(raised.value)
    with pytest.raises(StoreRefused, match="does not let us in"):
        store_on(f"redis://{host}").read_meta(0)
    with pytest.raises(StoreRefused, match="NOPERM"):
        store_on(f"redis://reader:s3cret-word@{host}").write(0, None, meta_at(0), Delta.empty(1))


@pytest.mark.parametrize(
    ("url", "cluster", "message"),
    [
        ("http://user:s3cret@host", False, "not a Redis URL"),
        ("redis://user:s3cret@host:port/0", False, "not a Redis URL"),
        ("redis://user:s3cret@host/0?shoe_size=44", False, "option that redis-py does not know"),
        ("redis://user:s3cret@host/3", True, "database 0 only"),
        ("unix:///tmp/redis.sock", True, "not a Unix socket"),
    ],
)
def test_an_unusable_url_is_refused_without_repeating_it(url: str, cluster: bool, message: str) -> None:  # noqa: FBT001  # a parameter of the case
    with pytest.raises(StoreRefused, match=message) as raised:
        store_on(url, cluster=cluster)
    assert "s3cret" not in str(raised.value)


def test_a_unix_socket_will_do(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--unixsocket", str(tmp_path / "socket"))
    try:
        server.start()
        store, fold = store_on(f"unix://{tmp_path}/socket"), Fold()
        store.check()
        assert store.write(0, None, meta_at(1), fold.batch("A", "B")) is Outcome.APPLIED
        fold.assert_loaded(load_all(store, 0, meta_at(1), 1, 8), 8)
        server.kill()
        with pytest.raises(Unavailable, match=f"Redis at {tmp_path}/socket is away"):
            store.read_meta(0)
    finally:
        server.close()


@pytest.mark.parametrize("name", ["a b", "a}b", "{a", "a/b", "", "ä"])
def test_names_that_could_leave_the_hash_tag_are_refused(name: str) -> None:
    for names in [(name, "g", "t"), ("p", name, "t"), ("p", "g", name)]:
        prefix, group, topic = names
        with pytest.raises(ValueError, match="must match"):
            RedisStore("redis://localhost", cluster=False, prefix=prefix, group=group, topic=topic)


def test_a_healthy_redis_passes_the_check(redis_server: RedisServer, redis_cluster: RedisCluster) -> None:
    store_on(redis_server.url).check()
    store_on(redis_cluster.url, cluster=True).check()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "allkeys-random"])
def test_a_redis_that_evicts_is_refused(own_server: RedisServer, policy: str) -> None:
    own_server.config("maxmemory-policy", policy)
    with pytest.raises(StoreRefused, match=f"{own_server.name} evicts keys .*{policy}. to noeviction"):
        store_on(own_server.url).check()


def test_one_evicting_primary_of_a_cluster_is_enough_to_be_refused(redis_cluster: RedisCluster) -> None:
    node = redis_cluster.primary_of(16383)
    node.config("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(StoreRefused, match=f"{node.name} evicts"):
            store_on(redis_cluster.url, cluster=True).check()
    finally:
        node.config("maxmemory-policy", "noeviction")


def test_a_replica_does_not_pass_the_check_now(own_server: RedisServer) -> None:
    with replica(own_server), pytest.raises(Unavailable, match="is a replica"):
        store_on(own_server.url).check()


def test_redis_cluster_must_be_said(redis_server: RedisServer, redis_cluster: RedisCluster) -> None:
    with pytest.raises(StoreRefused, match=r"is a cluster, but redis\.cluster is false"):
        store_on(redis_cluster.primary_of(0).url).check()
    with pytest.raises(StoreRefused, match=r"redis\.cluster is true, but this Redis is not a cluster"):
        store_on(redis_server.url, cluster=True).check()
    one_node = store_on(redis_cluster.url)
    foreign = next(
        number
        for number in range(50)
        if redis_cluster.primary_of(slot_of(f"g/prices/{number}")).url != redis_cluster.url
    )
    with pytest.raises(StoreRefused, match=r"set redis\.cluster=true"):
        one_node.read_meta(foreign)


def test_the_rights_in_the_documentation_are_enough(own_server: RedisServer) -> None:
    page = (Path(__file__).parents[2] / "docs" / "decisions" / "store.md").read_text(encoding="utf-8")
    listed = [
        command for block in re.findall(r"`([A-Z| \n]+)`", page.partition("**Rights")[2]) for command in block.split()
    ]
    assert len(listed) > 20
    rights = [f"+{command.lower()}" for command in listed]
    own_server.call("ACL", "SETUSER", "engine", "on", ">word", "~downtick:*", *rights)
    own_server.call("ACL", "SETUSER", "default", "resetpass")
    store, fold = store_on(f"redis://engine:word@{own_server.name}"), Fold()
    store.check()
    assert store.write(0, None, meta_at(2), fold.batch("A", "A", "B")) is Outcome.APPLIED
    assert store.write(0, meta_at(2), meta_at(4), fold.batch("A", "C")) is Outcome.APPLIED
    assert store.stage(0, meta_at(4), "g2", 8, fold.rewrite("ABC")) is Outcome.APPLIED
    assert store.write(0, meta_at(4), meta_at(4, generation="g2"), Delta.empty(1)) is Outcome.APPLIED
    fold.assert_loaded(load_all(store, 0, meta_at(4, generation="g2"), 1, 8), 8)
    assert store.old_generations(0, "g2") == ["g1"]
    while not store.unlink_generation(0, "g1", 2):
        pass
    assert inspect.show(store)[0].bytes > 0
    assert inspect.find(store, "A")
    inspect.resume(store, 0)
    assert store.take_resume(0)
    assert inspect.reset(store, 0) == 5
