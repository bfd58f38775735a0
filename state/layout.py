"""What Redis holds: names of keys, bytes of a record, fields of a partition's meta, and one batch of changes to them.

Everything here is a value: nothing in this file talks to Redis. A ring is one string of `depth` records of fixed size;
the stock's i-th value (from 0) is in slot i mod depth."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import numpy.typing as npt

LAYOUT = 1  # of records, keys and meta; raised when one of them changes so that an older program must not touch it

FALLING, PREDICTED, FLIPPED = 1, 2, 4  # bits of a record's `flags`

Records = npt.NDArray[np.void]

NAME = re.compile(r"[A-Za-z0-9._-]+")


@cache
def record_dtype(channels: int) -> np.dtype[np.void]:
    """One accepted update as it stands in a ring: little-endian, packed, 64 + 8 · channels bytes.

    `index` is the count of the stock's values up to and with this one, so 1 is the first and 0 is an empty slot.
    `values` has the value first and then the bundle's extra fields. A record that was not predicted has NaN as
    forecast, low, high, scale and probability."""
    if channels < 1:
        raise ValueError(f"a record has at least one channel, the value; not {channels}")
    return np.dtype(
        [
            ("index", "<u8"),
            ("offset", "<i8"),
            ("ts", "<i8"),  # event time, milliseconds since 1970
            ("values", "<f8", (channels,)),
            ("forecast", "<f8"),
            ("low", "<f8"),
            ("high", "<f8"),
            ("scale", "<f8"),
            ("probability", "<f4"),
            ("flags", "<u4"),
        ]
    )


@dataclass(frozen=True)
class Keys:
    """The names of one partition's keys. The braces are a hash tag: on a cluster they all live in one slot."""

    prefix: str
    group: str
    topic: str
    partition: int

    def __post_init__(self) -> None:
        for what, name in (("prefix", self.prefix), ("group", self.group), ("topic", self.topic)):
            # Anything else could close the hash tag, or make two groups share keys.
            if not NAME.fullmatch(name):
                raise ValueError(f"the {what} in Redis keys must match {NAME.pattern}, not {name!r}")

    @property
    def tag(self) -> str:
        """What all keys of the partition begin with."""
        return f"{self.prefix}:{{{self.group}/{self.topic}/{self.partition}}}"

    @property
    def meta(self) -> str:
        """Hash: the fields of `Meta`; `stocks`, the size of the current set; `other:<generation>` for each other
        generation that has keys: the number of the last call that staged it, or `retired`."""
        return f"{self.tag}:meta"

    @property
    def resume(self) -> str:
        """String, set by an operator: the circuit breaker may close."""
        return f"{self.tag}:resume"

    def stocks(self, generation: str) -> str:
        """Set: the names of the stocks with a ring in this generation."""
        return f"{self.tag}:{generation}:stocks"

    def ring(self, generation: str, stock: str) -> str:
        """String: the stock's ring; an empty stock gives what all rings of the generation begin with."""
        return f"{self.tag}:{generation}:h:{stock}"


@dataclass(frozen=True)
class Meta:
    """What a partition's rings are the fold of: all records up to and with `watermark`, under one bundle's fields."""

    generation: str  # random, [0-9A-Za-z]+, of this set of rings; never used twice
    watermark: int  # offset of the last record handled; -1 before the first
    cluster_id: str
    topic_id: str
    layout: int
    depth: int  # records per ring
    model: str
    fields: str  # the bundle's extra channels, joined by ","
    rejected: int = 0  # consecutive dead letters up to the watermark, for the circuit breaker

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9A-Za-z]+", self.generation):
            raise ValueError(f"a generation is letters and digits, not {self.generation!r}")

    @property
    def channels(self) -> int:
        """Values per record: the value itself and each extra field."""
        return 1 + len(self.fields.split(",")) if self.fields else 1

    def encode(self) -> dict[str, str]:
        """The hash as it stands in Redis."""
        return {field.name: str(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def decode(cls, found: dict[str, str]) -> "Meta | None":
        """The meta in a hash; None if it has no generation or no watermark, which the script, too, takes for no meta.

        A field that is missing is empty or 0: another layout may have other ones, and `layout` must stay readable.
        Raises: ValueError naming the field that is not a number."""
        if "generation" not in found or "watermark" not in found:
            return None
        values: dict[str, str | int] = {}
        for field in fields(cls):
            text = found.get(field.name, "0" if field.type is int else "")
            if field.type is int and not re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text):
                raise ValueError(f"{field.name} is {text[:40]!r}, not a number")
            values[field.name] = int(text) if field.type is int else text
        return cls(**values)  # type: ignore[arg-type]  # each value was made by its own field's type


@dataclass(frozen=True)
class Delta:
    """What one batch changes in one partition's rings: one run of records per stock.

    Shapes: k stocks, all different; `counts`, `new` and `rewrite` are (k,); `records` is (counts.sum(),), grouped by
    stock in the order of `stocks`, oldest first, with consecutive indices within a stock. A run has 1 to `depth`
    records: of a longer one only the newest `depth` are given, and they replace the ring."""

    stocks: list[str]
    counts: npt.NDArray[np.int64]
    records: Records
    new: npt.NDArray[np.bool_]  # the stock is not in the generation's set yet
    rewrite: npt.NDArray[np.bool_]  # the run is the whole ring, numbered from 1: whatever is there is replaced

    @classmethod
    def empty(cls, channels: int) -> "Delta":
        """No change: only the watermark moves."""
        none = np.zeros(0, bool)
        return cls([], np.zeros(0, np.int64), np.zeros(0, record_dtype(channels)), none, none)

    def split(self, stocks: int) -> Iterator["Delta"]:
        """The same change in parts of at most so many stocks, in order; nothing for an empty one."""
        ends = np.concatenate(([0], np.cumsum(self.counts)))
        for at in range(0, len(self.stocks), stocks):
            part = slice(at, at + stocks)
            names = self.stocks[part]
            records = self.records[ends[at] : ends[at + len(names)]]
            yield Delta(names, self.counts[part], records, self.new[part], self.rewrite[part])
