"""Stand-ins for what the units are handed: a record without Kafka, and a model that can be worked in the head."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from consumer.outputs import PredictionEncoder
from consumer.partition import Partition, Standing
from model.manifest import LabelRule
from model.predictor import Predictions
from state.errors import Unavailable
from state.history import History
from state.layout import LAYOUT, Delta, Meta, record_dtype
from state.store import Broken, Loaded, Outcome, Write

NOON_MS = 1_704_110_400_000  # 2024-01-01T12:00:00Z


@dataclass(frozen=True)
class Message:
    """As much of a confluent_kafka.Message as the engine reads."""

    key_: bytes | None = b"A"
    value_: bytes | None = b'{"stock":"A","value":1}'
    offset_: int = 0
    timestamp_: int = NOON_MS
    headers_: list[tuple[str, bytes | None]] | None = field(default=None)

    def key(self) -> bytes | None:
        return self.key_

    def value(self) -> bytes | None:
        return self.value_

    def offset(self) -> int:
        return self.offset_

    def timestamp(self) -> tuple[int, int]:
        return 1, self.timestamp_

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self.headers_


def event(stock: str, value: float, ts: int, offset: int = 0) -> Message:
    """A record with a good event."""
    return Message(stock.encode(), json.dumps({"stock": stock, "value": value, "ts": ts}).encode(), offset)


GIVEN = LabelRule(rule="given", look_ahead=1)


@dataclass(frozen=True)
class Said:
    """As much of a manifest as the engine reads."""

    version: str
    label: LabelRule


BAD = b"not json"
NOT_FINITE = 13.0  # SlopeModel's unlucky number


class SlopeModel:
    """Looks three values back, one row at a time. Falling is as likely as it fell from the first to the last value:

        fell by 0 or rose → 0.1    by 1 → 0.5    by 2 or more → 0.9    in between, linear

    The forecast goes on by the last step, its interval is 1 wide on each side, the scale is 2. A window that ends in
    13 gives no numbers."""

    window, reach, min_history = 3, 3, 3
    fields: tuple[str, ...] = ()
    falling_on, falling_off = 0.6, 0.4
    batch_sizes = (64,)

    def __init__(self, version: str = "v1", label: LabelRule = GIVEN) -> None:
        self.calls: list[int] = []  # rows of each call
        self.version, self.manifest = version, Said(version, label)

    def predict(self, windows: NDArray[np.float64]) -> Predictions:
        assert windows.shape[1] >= 3
        assert windows.shape[2] == 1
        self.calls.append(len(windows))
        first, before, last = windows[:, -3, 0], windows[:, -2, 0], windows[:, -1, 0]
        with np.errstate(over="ignore"):
            probability = 0.1 + 0.4 * np.clip(first - last, 0, 2)
            forecast = last + (last - before)
        forecast[last == NOT_FINITE] = np.nan
        return Predictions(
            probability=probability.astype(np.float32),
            forecast=forecast,
            low=forecast - 1,
            high=forecast + 1,
            scale=np.full(len(windows), 2.0),
        )


def meta(watermark: int = -1, *, generation: str = "g1", rejected: int = 0) -> Meta:
    """A partition's meta in Redis."""
    return Meta(generation, watermark, "cluster", "topic-id", LAYOUT, 8, "v1", "", rejected)


def seated(number: int = 0, *, next_offset: int = 0, output_from: int = 0, rejected: int = 0) -> Partition:
    """A partition with an empty history that Redis is in step with."""
    partition = Partition(number, Standing.SEATED, next_offset=next_offset, output_from=output_from)
    partition.history = History(SlopeModel.reach, 1, 8)
    partition.encoder = PredictionEncoder(SlopeModel.window, "v1", "prices", number)
    partition.target = partition.stored = meta(next_offset - 1, rejected=rejected)
    partition.rejected = rejected
    partition.committed = partition.owed
    return partition


class MemoryStore:
    """As much of RedisStore as the engine uses, with its contract: compare and set, rings checked before they are
    written. `script` says what the next calls of `write` and `stage` do instead of their work: raise or return it."""

    def __init__(self) -> None:
        self.metas: dict[int, Meta] = {}
        self.rings: dict[tuple[int, str], dict[str, list[np.void]]] = {}
        self.script: list[Exception | Outcome | Broken] = []
        self.away = ""  # why every call fails
        self.resumes: set[int] = set()
        self.unlinked: list[str] = []
        self.closed = False

    def _work(self) -> Outcome | Broken | None:
        self.check()
        if not self.script:
            return None
        told = self.script.pop(0)
        if isinstance(told, Exception):
            raise told
        return told

    def check(self) -> None:
        if self.away:
            raise Unavailable(self.away)

    def write(self, partition: int, expect: Meta | None, then: Meta, delta: Delta) -> Outcome | Broken:
        return self._work() or self._put(partition, expect, then.generation, delta, then)

    def write_all(self, writes: Sequence[Write]) -> list[Outcome | Broken]:
        return [self.write(*write) for write in writes]

    def stage(self, partition: int, expect: Meta | None, generation: str, depth: int, delta: Delta) -> Outcome | Broken:
        assert depth == 8
        assert expect is None or expect.generation != generation
        return self._work() or self._put(partition, expect, generation, delta, None)

    def _put(
        self, partition: int, expect: Meta | None, generation: str, delta: Delta, then: Meta | None
    ) -> Outcome | Broken:
        found = _place(self.metas.get(partition))
        if found != _place(expect):
            landed = then is not None and found == _place(then)
            return Outcome.APPLIED if landed else Outcome.CONFLICT
        rings = self.rings.setdefault((partition, generation), {})
        ends = np.cumsum(delta.counts).tolist()
        runs = [list(delta.records[end - count : end]) for end, count in zip(ends, delta.counts.tolist(), strict=True)]
        broken = [
            at
            for at, (stock, run) in enumerate(zip(delta.stocks, runs, strict=True))
            if not delta.rewrite[at] and len(rings.get(stock, [])) != int(run[0]["index"]) - 1
        ]
        if broken:
            return Broken(broken)
        for at, (stock, run) in enumerate(zip(delta.stocks, runs, strict=True)):
            rings[stock] = ([] if delta.rewrite[at] else rings.get(stock, [])) + run
        if then is not None:
            self.metas[partition] = then
        return Outcome.APPLIED

    def read_meta(self, partition: int) -> Meta | None:
        self.check()
        return self.metas.get(partition)

    def load(self, partition: int, meta: Meta, channels: int, keep: int) -> Iterator[Loaded]:
        self.check()
        rings = self.rings.get((partition, meta.generation), {})
        yield Loaded([], np.zeros(0, np.int64), np.zeros((0, keep), record_dtype(channels)), [])
        for stock, ring in rings.items():
            records = np.zeros((1, keep), record_dtype(channels))
            records[0, keep - min(keep, len(ring)) :] = ring[-keep:]
            yield Loaded([stock], np.array([len(ring)], np.int64), records, [])

    def old_generations(self, partition: int, current: str) -> list[str]:
        self.check()
        return [generation for of, generation in self.rings if of == partition and generation != current]

    def take_resume(self, partition: int) -> bool:
        self.check()
        there = partition in self.resumes
        self.resumes.discard(partition)
        return there

    def unlink_generation(self, partition: int, generation: str, limit: int) -> bool:
        assert limit > 0
        self.rings.pop((partition, generation), None)
        self.unlinked.append(generation)
        return True

    def close(self) -> None:
        self.closed = True

    def values(self, partition: int = 0) -> dict[str, list[float]]:
        """What a reader finds: each stock's values under the current generation."""
        current = self.metas[partition].generation
        rings = self.rings.get((partition, current), {})
        return {stock: [float(record["values"][0]) for record in ring] for stock, ring in rings.items()}


def _place(meta: Meta | None) -> tuple[str, int] | None:
    return None if meta is None else (meta.generation, meta.watermark)
