"""Which server answers for a partition: the only one, or the primary that holds its slot in a Redis Cluster.

A partition's keys share a hash tag, so each call goes to one server. On a cluster the slots are asked for on first use
and after any failure: a replica's promotion costs one failed call, and the next one finds the new primary."""

from binascii import crc_hqx
from collections.abc import Iterable, Sequence
from typing import Any

from redis.exceptions import AskError, MovedError, ResponseError

from state.connection import Bytes, Server, connection_options, explain, pack
from state.errors import StoreRefused, Unavailable

SLOTS = 16384
ASK_NODES = 3  # nodes asked for the slots in one call: each that is away costs a timeout

Commands = Sequence[Iterable[Bytes]]
Address = tuple[str, int]


def slot_of(tag: str) -> int:
    """The cluster's slot of all keys with this hash tag (the text between the braces)."""
    return crc_hqx(tag.encode(), 0) % SLOTS


class Servers:
    """The Redis that the settings name. Not thread-safe, never sleeps; a call is sent again only where a node of a
    cluster has answered that it did not take it but another one will."""

    def __init__(self, url: str, *, cluster: bool, timeout: float) -> None:
        self._options = connection_options(url, timeout)
        self._cluster = cluster
        self.answered = ""  # the server of the last call, for messages
        first = Server(self._options)
        if not cluster:
            self._single = first
            return
        if self._options.get("path"):
            raise StoreRefused("redis.cluster needs a host and port in redis.url, not a Unix socket")
        if int(self._options.get("db", 0)) != 0:
            raise StoreRefused("a Redis Cluster has database 0 only; take the number out of redis.url")
        seed = (str(self._options.get("host", "localhost")), int(self._options.get("port", 6379)))
        self._seed = seed
        self._nodes: dict[Address, Server] = {seed: first}
        self._candidates: list[Address] = [seed]  # to ask for the slots, the one that answered last first
        self._owners: list[tuple[int, int, Address]] = []  # first slot, last slot, primary; empty: ask

    def call(self, slot: int, commands: Commands) -> list[Any]:
        """The replies of the server that holds the slot; an error reply stands in its place as a ResponseError.

        Raises: Unavailable, StoreRefused."""
        if not self._cluster:
            self.answered = self._single.name
            replies = self._single.call(commands)
            for reply in replies:
                if isinstance(reply, MovedError | AskError):
                    raise StoreRefused("this Redis is a node of a cluster; set redis.cluster=true")
            return replies
        server = self._owner(slot)
        replies = self._send(server, commands)
        redirected = [at for at, reply in enumerate(replies) if isinstance(reply, AskError)]
        if redirected:
            self._follow(server, slot, commands, replies, redirected)
        return replies

    def call_each(self, requests: Sequence[tuple[int, Iterable[Bytes]]]) -> list[tuple[str, Any]]:
        """Who answered, and what, to single commands, each with the slot that it is for: one round trip per server.

        Otherwise as `call`. After an exception some of the commands may have been carried out."""
        if not self._cluster:
            return [(self._single.name, reply) for reply in self.call(0, [command for _, command in requests])]
        together: dict[Server, list[int]] = {}
        for at, (slot, _) in enumerate(requests):
            together.setdefault(self._owner(slot), []).append(at)
        answers: dict[int, tuple[str, Any]] = {}
        for server, places in together.items():
            for at, reply in zip(places, self._send(server, [requests[at][1] for at in places]), strict=True):
                answers[at] = (server.name, reply)
                if isinstance(reply, AskError):
                    slot, command = requests[at]
                    replies = [reply]
                    self._follow(server, slot, [command], replies, [0])
                    answers[at] = (self.answered, replies[0])
        return [answers[at] for at in range(len(requests))]

    def _send(self, server: Server, commands: Commands) -> list[Any]:
        """The replies of one node; who owns which slots is asked for again where it is away, or says that all is not
        well."""
        self.answered = server.name
        try:
            replies = server.call(commands)
        except Unavailable:
            self._owners = []
            raise
        for reply in replies:
            if isinstance(reply, ResponseError) and isinstance(explain(reply, server.name), Unavailable):
                self._owners = []
        return replies

    def primaries(self) -> list[Server]:
        """Every server that takes writes, each once, as the cluster says now. Raises: Unavailable, StoreRefused."""
        if not self._cluster:
            return [self._single]
        self._ask_for_slots()  # seldom called, and a failed call to one of them is not seen here
        return [self._node(address) for address in dict.fromkeys(address for _, _, address in self._owners)]

    def close(self) -> None:
        """Ends all connections; a later call opens them again."""
        for server in self._nodes.values() if self._cluster else [self._single]:
            server.close()

    def _follow(self, server: Server, slot: int, commands: Commands, replies: list[Any], redirected: list[int]) -> None:
        """Sends the commands that were redirected to where they belong, and puts their replies into place."""
        first = replies[redirected[0]]
        address = (first.host or server.name.rpartition(":")[0], first.port)  # an empty host: the one that answered
        again = [commands[at] for at in redirected]
        if isinstance(first, MovedError):
            self._owners = []
            self._candidates.insert(0, address)
            answers = self._send(self._owner(slot), again)
        else:  # the slot is on its way: this call only, and the owner stays
            asking = [pack("ASKING")]
            answers = self._send(self._node(address), [part for command in again for part in (asking, command)])[1::2]
        for at, answer in zip(redirected, answers, strict=True):
            if isinstance(answer, AskError):
                self._owners = []
                raise Unavailable(f"Redis Cluster: slot {slot} is moving between nodes ({answer})")
            replies[at] = answer

    def _owner(self, slot: int) -> Server:
        if not self._owners:
            self._ask_for_slots()
        for first, last, address in self._owners:
            if first <= slot <= last:
                return self._node(address)
        self._owners = []
        raise Unavailable(f"Redis Cluster: no node serves slot {slot}; look at CLUSTER INFO")

    def _node(self, address: Address) -> Server:
        if address not in self._nodes:
            self._nodes[address] = Server(self._options | {"host": address[0], "port": address[1]})
        return self._nodes[address]

    def _ask_for_slots(self) -> None:
        """Reads the slots' owners from the first node that answers. Raises: Unavailable if none of a few did."""
        failures: list[str] = []
        for address in list(dict.fromkeys(self._candidates))[:ASK_NODES]:
            server = self._node(address)
            try:
                reply = server.call([[pack("CLUSTER", "SLOTS")]])[0]
            except Unavailable as error:
                failures.append(str(error))
                self._candidates = [other for other in self._candidates if other != address] + [address]
                continue
            if isinstance(reply, ResponseError):
                if "cluster support disabled" in str(reply):
                    raise StoreRefused("redis.cluster is true, but this Redis is not a cluster")
                raise explain(reply, server.name)
            self._learn(address, reply)
            return
        raise Unavailable("Redis Cluster: no node tells who serves which slots: " + "; ".join(failures))

    def _learn(self, asked: Address, slots: list[Any]) -> None:
        def address(node: list[Any]) -> Address:
            return (node[0].decode() if node[0] else asked[0], int(node[1]))

        self._owners = [(first, last, address(nodes[0])) for first, last, *nodes in slots]
        members = [address(node) for _, _, *nodes in slots for node in nodes]
        self._candidates = list(dict.fromkeys([asked, *members, self._seed]))
        for gone in set(self._nodes) - set(self._candidates):
            self._nodes.pop(gone).close()
        if not self._owners:
            raise Unavailable("Redis Cluster: no slot is served by any node; look at CLUSTER INFO")
