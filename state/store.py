"""The histories in Redis: one scripted call writes a partition's batch, chunks of MGET read a partition back.

Nothing here repeats a call or sleeps: every failure is `Unavailable` (call again later, as it was) or `StoreRefused`
(never)."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from redis.exceptions import ResponseError

from state.connection import Bytes, checked, pack, pack_arguments
from state.errors import StoreRefused, Unavailable
from state.layout import Delta, Keys, Meta, Records, record_dtype
from state.rings import decode_rings
from state.servers import Servers, slot_of

__all__ = ["Broken", "Loaded", "Outcome", "RedisStore", "StoreRefused", "Unavailable", "Write"]

OLDEST = (6, 2)  # GETDEL
READ_BYTES = 1 << 20  # of rings per MGET: Redis serves nobody else meanwhile
READ_CALLS = 4  # MGETs sent in one go: while one is taken in here, Redis works on the next
SCAN_COUNT = 10_000  # names per SSCAN: a few milliseconds
STOCK_LENGTH = 64  # characters, of the contract
WRITE_BYTES = 256 << 20  # of records per call; Redis takes 512 MB per argument
REPLACE = 0xFFFFFFFF  # as the script reads it: the ring may be anything

_SCRIPT = files("state").joinpath("write.lua").read_bytes()
_RETIRE = files("state").joinpath("retire.lua").read_bytes()
_SHA = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest()
_RUN = np.dtype([("at", "<u4"), ("bytes", "<u4"), ("expected", "<u4"), ("new", "<u4")])


class Outcome(Enum):
    """What became of a write that met healthy rings."""

    APPLIED = "applied"  # now, or by an earlier identical call whose reply was lost
    CONFLICT = "conflict"  # meta is neither what was expected nor what was to be written: nothing was written


@dataclass(frozen=True)
class Broken:
    """Redis has lost data, nothing was written: repeat the delta with `rewrite` set at these positions of its `stocks`.

    If the set of stocks has lost members (or its type), repairing rings does not help: write a new generation."""

    positions: list[int]
    stocks_lost: bool = False


class _Script(NamedTuple):
    """One call of the script, packed but for its name."""

    slot: int
    more: int  # arguments in `body`
    body: list[bytes]


class Write(NamedTuple):
    """A partition's way from one meta to the next."""

    partition: int
    expect: Meta | None  # None: no meta
    then: Meta
    delta: Delta


@dataclass(frozen=True)
class Loaded:
    """Rings of a partition as they were read; n stocks, none twice."""

    stocks: list[str]
    counts: npt.NDArray[np.int64]  # (n,) index of the newest record
    records: Records  # (n, keep), newest last, zeros (index 0) where the ring is shorter
    broken: list[str]  # stocks whose ring is missing, has a wrong type or length, or contradicts itself
    stocks_lost: bool = False  # the set of stocks is missing, has a wrong type, or lost members
    all_stocks: int = 0  # in this chunk and all others, broken ones among them: what to make room for at once

    @property
    def intact(self) -> bool:
        """Whether this is all that the meta speaks of."""
        return not self.broken and not self.stocks_lost


class RedisStore:
    """The rings of one group and topic. One thread; one connection (per node of a cluster); blocks at most `timeout`
    seconds per step of the conversation."""

    def __init__(self, url: str, *, cluster: bool, prefix: str, group: str, topic: str, timeout: float = 2.0) -> None:
        self.prefix, self.group, self.topic = prefix, group, topic
        Keys(prefix, group, topic, 0)  # raises ValueError for a name that cannot be part of a key
        self.servers = Servers(url, cluster=cluster, timeout=timeout)
        self._cluster = cluster
        self._heads: dict[str, list[str]] = {}
        self._fence = 0

    def keys(self, partition: int) -> Keys:
        """The names of the partition's keys."""
        return Keys(self.prefix, self.group, self.topic, partition)

    def call(self, partition: int, *commands: Sequence[Bytes]) -> list[Any]:
        """Replies of the server that holds the partition; error replies stand in their place. Raises: Unavailable."""
        return self.servers.call(self._slot(partition), commands)

    def _slot(self, partition: int) -> int:
        return slot_of(f"{self.group}/{self.topic}/{partition}")

    def ask(self, partition: int, *arguments: str | bytes | int) -> Any:  # a reply's type is its command's
        """The reply to one command. Raises: Unavailable, StoreRefused for an error reply."""
        return self._checked(self.call(partition, [pack(*arguments)])[0])

    def _checked(self, reply: Any) -> Any:
        return checked(reply, self.servers.answered)

    def check(self) -> None:
        """Nothing, if every primary is up, new enough and evicts nothing.

        Raises: Unavailable; StoreRefused, naming the server and the setting to change."""
        for server in self.servers.primaries():
            pong, info = server.call([[pack("PING")], [pack("INFO")]])
            facts = _facts(checked(info, server.name))
            unfit = why_unfit(facts, cluster=self._cluster)
            if unfit:
                raise StoreRefused(f"Redis at {server.name} {unfit}")
            checked(pong, server.name)  # after INFO, which is answered even while the data set is loaded
            if facts.get("role") != "master":
                raise Unavailable(f"Redis at {server.name} is a replica: a failover is going on, or redis.url is wrong")

    def read_meta(self, partition: int) -> Meta | None:
        """The partition's meta; None if the key is missing, has another type, or lacks generation or watermark.

        Raises: Unavailable; StoreRefused if a field cannot be read (then someone else writes here)."""
        return self._meta_and_others(partition)[0]

    def old_generations(self, partition: int, current: str) -> list[str]:
        """Generations with keys other than `current`, as the meta knows them, for `unlink_generation`.

        Ask once, when the partition is seated and before it begins a generation: later ones may be someone else's.
        If the meta itself was deleted, nothing tells of its generations any more but `state.inspect`, which scans."""
        return [generation for generation in self._meta_and_others(partition)[1] if generation != current]

    def _meta_and_others(self, partition: int) -> tuple[Meta | None, list[str]]:
        reply = self.call(partition, [pack("HGETALL", self.keys(partition).meta)])[0]
        if _wrong_type(reply):
            return None, []
        cells = [cell.decode("utf-8", "replace") for cell in self._checked(reply)]
        found = dict(zip(cells[::2], cells[1::2], strict=True))
        others = [name.removeprefix("other:") for name in found if name.startswith("other:")]
        try:
            return Meta.decode(found), others
        except ValueError as error:
            raise StoreRefused(f"Redis key {self.keys(partition).meta} is not ours: {error}") from error

    def load(self, partition: int, meta: Meta, channels: int, keep: int) -> Iterator[Loaded]:
        """All rings of the partition, in chunks of a few MB, at least one; in between the store may be used at will.

        Rely on none of them before the iteration has ended: only then is it known that nobody wrote meanwhile.
        Raises: Unavailable, also if the meta has moved meanwhile; ValueError if `channels` are not the meta's."""
        if channels != meta.channels:
            raise ValueError(f"the rings have {meta.channels} channels, not {channels}")
        keys = self.keys(partition)
        per_call = max(1, READ_BYTES // (meta.depth * record_dtype(channels).itemsize))
        per_chunk = per_call * READ_CALLS
        size = self._still(partition, meta)
        stocks = self._stocks(partition, meta.generation)
        lost = stocks is None or (size is not None and len(stocks) != size)
        stocks = stocks or []
        head = keys.ring(meta.generation, "")
        for at in range(0, max(1, len(stocks)), per_chunk):
            names = stocks[at : at + per_chunk]
            calls = [names[first : first + per_call] for first in range(0, len(names), per_call)]
            replies = self.call(partition, *[[pack("MGET", *[head + stock for stock in call])] for call in calls])
            blobs = [blob for reply in replies for blob in self._checked(reply)]
            yield replace(_loaded(names, blobs, meta, keep, stocks_lost=lost), all_stocks=len(stocks))
        self._still(partition, meta)

    def _still(self, partition: int, meta: Meta) -> int | None:
        """The size that the set of stocks must have. Raises: Unavailable if the meta is no longer this one."""
        reply = self.call(partition, [pack("HMGET", self.keys(partition).meta, "generation", "watermark", "stocks")])[0]
        found = [None, None, None] if _wrong_type(reply) else self._checked(reply)
        if found[:2] != [meta.generation.encode(), b"%d" % meta.watermark]:
            raise Unavailable(f"partition {partition}: its meta in Redis moved while its rings were read")
        return None if found[2] is None else int(found[2])

    def _stocks(self, partition: int, generation: str) -> list[str] | None:
        """The members of a generation's set, each once; None if it is not a set."""
        key, cursor = self.keys(partition).stocks(generation), b"0"
        found: dict[str, None] = {}
        while True:
            reply = self.call(partition, [pack("SSCAN", key, cursor, "COUNT", SCAN_COUNT)])[0]
            if _wrong_type(reply):
                return None
            cursor, page = self._checked(reply)
            found.update(dict.fromkeys([name.decode("utf-8", "replace") for name in page]))
            if cursor == b"0":
                return list(found)

    def write(self, partition: int, expect: Meta | None, then: Meta, delta: Delta) -> Outcome | Broken:
        """`write_all` for one partition."""
        return self.write_all([Write(partition, expect, then, delta)])[0]

    def write_all(self, writes: Sequence[Write]) -> list[Outcome | Broken]:
        """Moves each partition from `expect` to `then` with the runs of `delta`: an atomic call for each of them, all
        sent in one go, since a round trip costs more than a small write. Partitions are different ones.

        Runs are appended under `then.generation`, which is the current one, or one that was staged before and becomes
        current now; what was current is left for `unlink_generation`. If generation and watermark stay, each run must
        be a rewrite (that is how rings are repaired), so that a repeated call does nothing twice.
        Raises: Unavailable (repeat all of it as it was; some may have been written); StoreRefused; ValueError for a
        delta that breaks its contract."""
        scripts = []
        for partition, expect, then, delta in writes:
            if delta.records.dtype != record_dtype(then.channels):
                raise ValueError(f"the delta's records do not have the {then.channels} channels of the meta")
            if expect and expect.generation == then.generation:
                if (expect.depth, expect.fields) != (then.depth, then.fields):
                    raise ValueError("another depth or other fields need another generation")
                if expect.watermark == then.watermark and not delta.rewrite.all():
                    raise ValueError("a write that leaves the watermark where it is may only rewrite whole rings")
            scripts.append(self._script(partition, expect, then.generation, then.depth, delta, then))
        return self._run(scripts)

    def stage(self, partition: int, expect: Meta | None, generation: str, depth: int, delta: Delta) -> Outcome | Broken:
        """Writes runs of a generation that is not current; meta must be `expect` and keeps saying so.

        Readers see nothing of it before a `write` makes the generation current. Each call appends to, or with `rewrite`
        replaces, what earlier ones have staged. A generation is staged by the one store object that invented its name:
        after a crash or a CONFLICT begin another. A repeated append may find itself `Broken`; a repeated rewrite never.
        Raises: as `write`."""
        if expect and expect.generation == generation:
            raise ValueError("the current generation cannot be staged")
        self._fence += 1
        return self._run([self._script(partition, expect, generation, depth, delta, self._fence)])[0]

    def _script(
        self, partition: int, expect: Meta | None, generation: str, depth: int, delta: Delta, then: Meta | int
    ) -> _Script:
        keys = self.keys(partition)
        head = keys.ring(generation, "")
        fields = [cell for field in then.encode().items() for cell in field] if isinstance(then, Meta) else []
        arguments: list[str | bytes | int] = [
            expect.generation if expect else "",
            expect.watermark if expect else "",
            generation,
            "" if isinstance(then, Meta) else then,
            depth * delta.records.dtype.itemsize,
            len(head),
            _runs(delta, depth).tobytes(),
        ]
        records = delta.records.tobytes()
        body = [
            pack_arguments([2 + len(delta.stocks), keys.meta, keys.stocks(generation)]),
            self._ring_keys(head, delta.stocks),
            pack_arguments(arguments),
            b"$%d\r\n" % len(records),
            records,
            b"\r\n",
            pack_arguments(fields),
        ]
        return _Script(self._slot(partition), 1 + 2 + len(delta.stocks) + len(arguments) + 1 + len(fields), body)

    def _run(self, scripts: Sequence[_Script]) -> list[Outcome | Broken]:
        replies = self.servers.call_each(
            [(slot, [pack("EVALSHA", _SHA, more=more), *body]) for slot, more, body in scripts]
        )
        outcomes: list[Outcome | Broken] = []
        for (slot, more, body), (server, reply) in zip(scripts, replies, strict=True):
            if isinstance(reply, ResponseError) and "NOSCRIPT" in f"{reply.status_code} {reply}":
                reply = self.servers.call(slot, [[pack("EVAL", _SCRIPT, more=more), *body]])[0]  # noqa: PLW2901
                server = self.servers.answered  # noqa: PLW2901
            checked(reply, server)
            if isinstance(reply, list):
                outcomes.append(Broken(reply[1:], stocks_lost=bool(reply[0])))
            else:
                outcomes.append(Outcome.APPLIED if reply == 1 else Outcome.CONFLICT)
        return outcomes

    def _ring_keys(self, head: str, stocks: list[str]) -> bytes:
        heads = self._heads.get(head)
        if heads is None:
            if len(self._heads) > 1000:  # generations that are long gone
                self._heads.clear()
            heads = self._heads[head] = [f"${len(head) + length}\r\n{head}" for length in range(STOCK_LENGTH + 1)]
        try:
            keys = "\r\n".join([heads[len(stock)] + stock for stock in stocks]).encode("ascii")
        except (IndexError, UnicodeEncodeError) as error:
            raise ValueError(f"a stock's name has at most {STOCK_LENGTH} characters, all ASCII ({error})") from error
        return keys + b"\r\n" if stocks else b""

    def unlink_generation(self, partition: int, generation: str, limit: int) -> bool:
        """Deletes up to `limit` rings of a generation that is not current; True when there is no more to delete.

        The first thing it does is to mark the generation, so that nobody can go on staging it or make it current. One
        that is current (as in a Redis that was put back from a snapshot) is left alone. Raises: Unavailable."""
        keys = self.keys(partition)
        stocks = keys.stocks(generation)
        marked, names = self.call(
            partition,
            [pack("EVAL", _RETIRE, 1, keys.meta, generation)],
            [pack("SRANDMEMBER", stocks, limit)],
        )
        if self._checked(marked) == 0:
            return True
        if _wrong_type(names) or not self._checked(names):
            self.ask(partition, "UNLINK", stocks)
            self.ask(partition, "HDEL", keys.meta, f"other:{generation}")
            return True
        head = keys.ring(generation, "").encode()
        for reply in self.call(
            partition, [pack("UNLINK", *[head + name for name in names])], [pack("SREM", stocks, *names)]
        ):
            self._checked(reply)
        return False

    def take_resume(self, partition: int) -> bool:
        """Whether an operator has asked since the last call to close the partition's circuit breaker."""
        return self.ask(partition, "GETDEL", self.keys(partition).resume) is not None

    def close(self) -> None:
        """Ends the connections; a later call opens them again."""
        self.servers.close()


def _runs(delta: Delta, depth: int) -> npt.NDArray[np.void]:
    """The script's table of runs. Raises: ValueError for a delta that would tear a ring."""
    counts, index = delta.counts, delta.records["index"].view(np.int64)
    size = delta.records.dtype.itemsize
    starts = np.cumsum(counts) - counts
    if not len(delta.stocks) == len(counts) == len(delta.new) == len(delta.rewrite) or counts.sum() != len(index):
        raise ValueError("a delta's stocks, counts, marks and records do not have the same length")
    if len(set(delta.stocks)) != len(counts) or (len(counts) and not 1 <= counts.min() <= counts.max() <= depth):
        raise ValueError(f"a delta has one run of 1 to {depth} records per stock")
    if delta.records.nbytes > WRITE_BYTES:
        raise ValueError(f"a delta of {delta.records.nbytes} bytes is too large for one call; stage it in parts")
    runs = np.zeros(len(counts), _RUN)
    if not len(counts):
        return runs
    first = index[starts]
    steps = np.diff(index)
    steps[starts[1:] - 1] = 1
    if first.min() < 1 or (steps != 1).any():
        raise ValueError("a run's records are numbered one by one, from 1 or more")
    whole = delta.rewrite | (counts == depth)
    if (delta.rewrite & (first != 1) & (counts < depth)).any():
        raise ValueError("a ring that is rewritten is numbered from 1")
    runs["at"] = (first - 1) % depth * size
    runs["bytes"] = counts * size
    runs["expected"] = np.where(whole, REPLACE, np.minimum(first - 1, depth) * size)
    runs["new"] = delta.new
    return runs


def _loaded(stocks: list[str], blobs: list[bytes | None], meta: Meta, keep: int, *, stocks_lost: bool) -> Loaded:
    rings = decode_rings(blobs, meta.depth, meta.channels, keep, meta.watermark)
    if rings.valid.all():
        return Loaded(stocks, rings.counts, rings.records, [], stocks_lost)
    good = rings.valid.tolist()
    return Loaded(
        [stock for stock, valid in zip(stocks, good, strict=True) if valid],
        rings.counts[rings.valid],
        rings.records[rings.valid],
        [stock for stock, valid in zip(stocks, good, strict=True) if not valid],
        stocks_lost,
    )


def _wrong_type(reply: object) -> bool:
    return isinstance(reply, ResponseError) and "WRONGTYPE" in str(reply)


def _facts(info: bytes) -> dict[str, str]:
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def why_unfit(facts: dict[str, str], *, cluster: bool) -> str | None:
    """What makes a server unusable, whatever happens next; None if nothing does. `facts`: the fields of its INFO."""
    version = facts.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        return f"is version {version}; downtick needs {OLDEST[0]}.{OLDEST[1]} or newer"
    if (facts.get("cluster_enabled") == "1") != cluster:
        return f"is {'not ' if cluster else ''}a cluster, but redis.cluster is {str(cluster).lower()}"
    policy = facts.get("maxmemory_policy", "noeviction")  # CONFIG would say it too, but managed services forbid that
    if policy != "noeviction":
        return f"evicts keys when full, which tears holes into histories: set maxmemory-policy ({policy}) to noeviction"
    return None
