"""The reference: what must come out of an input log, worked out one record at a time in plain Python.

It knows the contract (docs/contract.md) and the bundle, and nothing of the engine: no batches, no restore, no Redis.
Only the network itself is shared (tests/support/reference_model.py), and there it is Keras, not the compiled pass."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from tests.support.readers import Record
from tests.support.reference_json import Event, Refused, read_event

NEAR = 1e-6  # the compiled pass and Keras differ by rounding: this close to a threshold either side is right


@dataclass(frozen=True)
class Outlook:
    """What the model says of one window, in the value's own unit."""

    probability: float  # of falling, float32
    forecast: float
    low: float
    high: float
    scale: float

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, (self.probability, self.forecast, self.low, self.high, self.scale)))


class Model(Protocol):
    """The bundle, as the reference reads it."""

    version: str
    window: int
    reach: int
    min_history: int
    fields: tuple[str, ...]
    falling_on: float
    falling_off: float

    def outlooks(self, windows: list[list[tuple[float, ...]]]) -> list[Outlook]:
        """Of windows of `reach` steps, oldest first; each step is the value and the fields."""


@dataclass(frozen=True)
class Limits:
    """Settings that decide what comes out."""

    max_bytes: int = 65_536
    max_ahead: float = 86_400
    max_stocks: int = 1_000_000


@dataclass
class Update:
    """One accepted event: an entry of its stock's history."""

    offset: int
    event: Event
    outlook: Outlook | None = None  # None: warming up, or the model gave no finite numbers
    falling: bool = False  # the stock's flag after it
    flipped: bool = False


@dataclass
class Expected:
    """The answer. Places are (partition, offset) of the input record."""

    predictions: dict[tuple[int, int], Update] = field(default_factory=dict)
    dead_letters: dict[tuple[int, int], str] = field(default_factory=dict)  # the reason
    skipped: dict[tuple[int, int], str] = field(default_factory=dict)  # `duplicate` or `warming_up`
    histories: dict[tuple[int, str], list[Update]] = field(default_factory=dict)  # by (partition, stock), oldest first
    records: dict[tuple[int, int], Record] = field(default_factory=dict)  # the input
    near: int = 0  # probabilities within NEAR of a threshold


def expect(
    log: Iterable[Record],
    model: Model,
    limits: Limits = Limits(),
    published: Mapping[tuple[int, int], bool] = MappingProxyType({}),
) -> Expected:
    """Fold the whole input log, `read_committed`, in order of partition and offset.

    `published` are the service's own flags by place: where a probability lies so near to a threshold that rounding
    decides (`near` counts these), its choice is followed; anywhere else it is not looked at."""
    found = Expected()
    for record in sorted(log, key=lambda record: record.place):
        found.records[record.place] = record
        try:
            event = read_event(record, model.fields, limits.max_bytes, limits.max_ahead)
            _admit(found, record, event, limits)
        except Refused as refused:
            found.dead_letters[record.place] = refused.reason
    _predict(found, model, published)
    return found


def _admit(found: Expected, record: Record, event: Event, limits: Limits) -> None:
    stock = record.partition, event.stock
    if stock not in found.histories:
        if sum(1 for partition, _ in found.histories if partition == record.partition) >= limits.max_stocks:
            raise Refused("stock_limit")
        found.histories[stock] = []
    history = found.histories[stock]
    if history:
        newest = history[-1].event
        if event.ts < newest.ts:
            raise Refused("late")
        if event.ts == newest.ts and event.values[0] == newest.values[0]:
            found.skipped[record.place] = "duplicate"
            return
    history.append(Update(record.offset, event))


def _predict(found: Expected, model: Model, published: Mapping[tuple[int, int], bool]) -> None:
    wanted: list[tuple[int, Update]] = []
    windows: list[list[tuple[float, ...]]] = []
    for (partition, _), history in found.histories.items():
        for count, update in enumerate(history, start=1):
            if count < model.min_history:
                found.skipped[partition, update.offset] = "warming_up"
                continue
            window = [past.event.values for past in history[max(0, count - model.reach) : count]]
            wanted.append((partition, update))
            windows.append(window)
    for (partition, update), outlook in zip(wanted, model.outlooks(windows), strict=True):
        if outlook.finite:
            update.outlook = outlook
            found.predictions[partition, update.offset] = update
        else:
            found.dead_letters[partition, update.offset] = "model_not_finite"
    for (partition, _), history in found.histories.items():
        _flag(found, partition, history, model, published)


def _flag(
    found: Expected,
    partition: int,
    history: list[Update],
    model: Model,
    published: Mapping[tuple[int, int], bool],
) -> None:
    falling = False
    for update in history:
        before = falling
        if update.outlook is not None:
            probability = update.outlook.probability
            if _decide(falling, probability - NEAR, model) == _decide(falling, probability + NEAR, model):
                falling = _decide(falling, probability, model)
            else:
                found.near += 1
                falling = published.get((partition, update.offset), _decide(falling, probability, model))
        update.falling, update.flipped = falling, falling != before


def _decide(falling: bool, probability: float, model: Model) -> bool:  # noqa: FBT001 — the state, and what moves it
    if probability >= model.falling_on:
        return True
    return falling and probability >= model.falling_off
