"""Stage: what a batch's records will change and say. Pure: histories are read, nothing is moved.

    events → admit (late? duplicate? too many stocks?) → windows → [predictor] → judge (flags, scores) → Staged

All of it is a function of (history, records, bundle). A stock may occur any number of times in a batch: its updates
stand next to each other (grouped by row, in log order), so "the one before" is one position to the left, or the
history where a group begins. Nothing depends on where the log was cut into batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from consumer.events import Rejection
from model.features import SCORE_CAP
from state.history import Updates
from state.layout import FALLING, FLIPPED, PREDICTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from consumer.events import Events, Record
    from model.predictor import Predictions
    from state.history import History, Records

_T = TypeVar("_T", bound=np.generic)

_FIRST = np.zeros(1, np.int64)
_NUMBERS = ("forecast", "low", "high", "scale", "probability")  # of a prediction


@dataclass(frozen=True)
class Admitted:
    """One partition's events, sorted into updates of its history and the rest."""

    events: Events
    updates: Updates
    source: NDArray[np.int64]  # (n,) position in `events` of each update
    before: Records  # (groups,) each row's newest record before the batch
    rejections: list[Rejection]  # `stock_limit` and `late`
    duplicates: NDArray[np.int64]  # (d,) positions in `events`


@dataclass(frozen=True)
class Scores:
    """Forecasts whose next value has come, in the unit of the window that made them (capped at SCORE_CAP)."""

    position: NDArray[np.int64]  # (k,) positions of the updates that settled them
    error: NDArray[np.float64]  # (k,) |value − forecast| / scale
    naive: NDArray[np.float64]  # (k,) |value − last value| / scale
    hit: NDArray[np.bool_]  # (k,) within [low, high]

    def part(self, first: int, end: int) -> Scores:
        """Those of the updates in [first, end), whose positions then count from `first`."""
        k, m = self.position.searchsorted((first, end)).tolist()
        return Scores(self.position[k:m] - first, self.error[k:m], self.naive[k:m], self.hit[k:m])


@dataclass(frozen=True)
class Staged:
    """What a batch of one partition's records will change and say."""

    records: Sequence[Record]
    silent: int  # records before this position are folded without output: they were published before
    admitted: Admitted
    entries: Records  # (n,) the updates as records of their rings
    wanted: NDArray[np.int64]  # (m,) positions of the updates that were to be predicted
    windows: NDArray[np.float64]  # (m, reach of memory, channels) up to each of them
    scores: Scores
    rejections: list[Rejection]  # all of them, by position
    rejected: int  # consecutive dead letters at the end of the batch, `late` aside
    next_offset: int
    tripped: bool = False  # the circuit breaker left out the records that follow

    @property
    def live(self) -> int:
        """How many records are published and counted."""
        return len(self.records) - self.silent

    @cached_property
    def told(self) -> NDArray[np.bool_]:
        """(n,) whether each update is published and counted."""
        return self.position >= self.silent

    @property
    def live_duplicates(self) -> int:
        """How many of them are duplicates."""
        admitted = self.admitted
        return int(np.count_nonzero(admitted.events.position[admitted.duplicates] >= self.silent))

    @cached_property
    def position(self) -> NDArray[np.int64]:
        """(n,) position in `records` of each update."""
        return self.admitted.events.position[self.admitted.source]


def admit(history: History, events: Events, max_stocks: int) -> Admitted:
    """Sort events into updates, late ones, duplicates, and those of stocks beyond `max_stocks`."""
    row, fresh, over = _rows(history, events.stocks, max_stocks)
    rejections = [
        Rejection(
            int(events.position[i]), "stock_limit", f"the partition has {max_stocks:,} stocks, history.max_stocks"
        )
        for i in over
    ]
    order = row.argsort(kind="stable")
    if over:
        order = order[row[order] >= 0]
    row, ts, value = row[order], events.ts[order], events.values[order, 0]

    start = _starts(row)
    before = history.newest(row[start])
    previous_ts = _shift(ts, start, before["ts"])
    if (ts > previous_ts).all():  # the common case: time only rises
        duplicates = order[:0]
    else:
        late = ts < _running_max(previous_ts, start)
        rejections += [
            Rejection(
                int(events.position[i]),
                "late",
                f"its time is {newest - then} ms before the newest of {events.stocks[i]!r}",
            )
            for i, then, newest in zip(
                order[late].tolist(), ts[late].tolist(), _running_max(previous_ts, start)[late].tolist(), strict=True
            )
        ]
        order, row, ts, value = order[~late], row[~late], ts[~late], value[~late]
        start = _starts(row)
        before = history.newest(row[start])
        # A duplicate of a duplicate equals the accepted one: comparing neighbours is enough.
        same = (ts == _shift(ts, start, before["ts"])) & (value == _shift(value, start, before["values"][:, 0]))
        duplicates, order, row = order[same], order[~same], row[~same]
        start = _starts(row)
        before = history.newest(row[start])

    size = _sizes(start, len(row))
    rank = np.arange(len(row)) - start.repeat(size)
    index = before["index"].astype(np.int64).repeat(size) + rank + 1
    updates = Updates(row, start, size, rank, index, events.values[order], fresh)
    return Admitted(events, updates, order, before, rejections, duplicates)


def predictable(admitted: Admitted, min_history: int) -> NDArray[np.int64]:
    """Positions of the updates whose stock has enough values for a prediction."""
    return (admitted.updates.index >= min_history).nonzero()[0]


class Judged(NamedTuple):
    """What is said of one partition's updates."""

    entries: Records  # (n,) as records of their rings
    rejections: list[Rejection]  # updates whose prediction is not finite
    scores: Scores


def judge(
    parts: Sequence[Admitted],
    wanted: Sequence[NDArray[np.int64]],
    predictions: Predictions,
    thresholds: tuple[float, float],
) -> list[Judged]:
    """Flags and scores of several partitions' updates, in one pass: for a few records the number of calls is the cost.

    Args:
        wanted: for each part, positions of its updates that `predictions` are for, which stand in this order.
        thresholds: falling on at ≥ the first, off at < the second, compared with the unrounded probability."""
    ends = list(accumulate(len(part.updates.row) for part in parts))
    bounds = list(pairwise([0, *ends]))
    entries = np.zeros(ends[-1], parts[0].before.dtype)
    for part, (first, end) in zip(parts, bounds, strict=True):
        own, updates, events = entries[first:end], part.updates, part.events
        own["index"], own["values"] = updates.index, updates.values
        own["offset"], own["ts"] = events.offset[part.source], events.ts[part.source]
    groups = _Groups(
        start=_joined([part.updates.start + first for part, (first, _) in zip(parts, bounds, strict=True)]),
        size=_joined([part.updates.size for part in parts]),
        rank=_joined([part.updates.rank for part in parts]),
        before=_joined([part.before for part in parts]),
    )
    asked = _joined([positions + first for positions, (first, _) in zip(wanted, bounds, strict=True)])
    finite = np.isfinite(predictions.probability)
    for name in _NUMBERS:
        finite &= np.isfinite(getattr(predictions, name))
    good = asked[finite]
    for name in _NUMBERS:
        entries[name] = np.nan
        entries[name][good] = getattr(predictions, name)[finite]

    falling, flipped = _hysteresis(entries["probability"], groups, thresholds)
    predicted = np.zeros(len(entries), np.bool_)
    predicted[good] = True
    entries["flags"] = FALLING * falling + PREDICTED * predicted + FLIPPED * (flipped & predicted)
    scores = _scores(entries, groups)
    bad = asked[~finite]
    return [
        Judged(
            entries[first:end],
            [_not_finite(part, int(at) - first) for at in bad[(bad >= first) & (bad < end)]] if len(bad) else [],
            scores.part(first, end),
        )
        for part, (first, end) in zip(parts, bounds, strict=True)
    ]


def _not_finite(part: Admitted, update: int) -> Rejection:
    position = int(part.events.position[part.source[update]])
    return Rejection(position, "model_not_finite", "the model gave no finite numbers for this window")


def _joined(arrays: list[NDArray[_T]]) -> NDArray[_T]:
    if len(arrays) == 1:
        return arrays[0]
    kind = arrays[0].dtype
    if kind.names is None:
        return np.concatenate(arrays)
    # As plain bytes: of records, NumPy would compare all fields by name first, for ten times as long.
    return np.concatenate([array.view(f"V{kind.itemsize}") for array in arrays]).view(kind)


def consecutive_rejections(
    rejected: int, count: int, rejections: Sequence[Rejection], first: int, limit: int
) -> tuple[int, int | None]:
    """Run length of dead letters after `count` records, and where it would exceed `limit` (None: nowhere).

    Args:
        rejected: the run before the batch.
        first: position of the first record that counts (before it all is restored).
    Late ones neither add nor break a run: they say nothing about the producer's format."""
    bad = {r.position: r.reason != "late" for r in rejections if r.position >= first}
    if not any(bad.values()):
        return (0 if count - first > len(bad) else rejected), None
    for position in range(first, count):
        counts = bad.get(position)
        if counts is None:
            rejected = 0
        elif counts:
            if rejected >= limit:
                return rejected, position
            rejected += 1
    return rejected, None


def _rows(history: History, stocks: Sequence[str], max_stocks: int) -> tuple[NDArray[np.int64], list[str], list[int]]:
    """Row of each event's stock, new stocks given the next rows (−1: over the limit); new stocks; events over it."""
    known = history.row_of
    found = [known.get(stock, -1) for stock in stocks]
    fresh: dict[str, int] = {}
    over: list[int] = []
    for i, row in enumerate(found):
        if row >= 0:
            continue
        stock = stocks[i]
        if stock not in fresh:
            if len(known) + len(fresh) >= max_stocks:
                over.append(i)
                continue
            fresh[stock] = len(known) + len(fresh)
        found[i] = fresh[stock]
    return np.array(found, np.int64), list(fresh), over


def _starts(row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions at which a new row begins; `row` ascending."""
    if not len(row):
        return np.zeros(0, np.int64)
    return np.concatenate((_FIRST, (row[1:] != row[:-1]).nonzero()[0] + 1))


def _sizes(start: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Lengths of the groups that begin at `start` and fill n positions. np.diff takes ten times as long."""
    out = np.empty_like(start)
    out[:-1] = start[1:]
    out[-1:] = n
    out -= start
    return out


def _shift(column: NDArray[_T], start: NDArray[np.int64], before: NDArray[_T]) -> NDArray[_T]:
    """Each update's predecessor: its left neighbour, or `before` where a group begins."""
    out = np.empty_like(column)
    out[1:] = column[:-1]
    out[start] = before
    return out


def _running_max(previous: NDArray[np.int64], start: NDArray[np.int64]) -> NDArray[np.int64]:
    """Maximum of `previous` within each group up to each position.

    Ranks instead of times, lifted by group, let one accumulate serve all groups without overflow."""
    levels, rank = np.unique(previous, return_inverse=True)
    group = np.zeros(len(previous), np.int64)
    group[start[1:]] = 1
    lift = np.cumsum(group) * len(levels)
    return levels[np.maximum.accumulate(rank + lift) - lift]


class _Groups(NamedTuple):
    """Updates of the same stock stand together; (groups,) but for `rank`."""

    start: NDArray[np.int64]  # position of the first
    size: NDArray[np.int64]
    rank: NDArray[np.int64]  # (n,) of each update in its group
    before: Records  # the stock's newest record before the batch


def _hysteresis(
    probability: NDArray[np.float32], groups: _Groups, thresholds: tuple[float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Flag after each update, and whether it changed there. NaN and the band between the thresholds keep the flag."""
    on, off = thresholds
    wide = probability.astype(np.float64)  # against a float64 threshold NumPy would round the threshold instead
    rises, drops = wide >= on, wide < off
    position = np.arange(len(wide))
    before = groups.before["flags"] & FALLING != 0
    decided = np.maximum.accumulate(np.where(rises | drops, position, -1))
    falling = np.where(decided >= position - groups.rank, rises[decided], before.repeat(groups.size))
    return falling, falling != _shift(falling, groups.start, before)


def _scores(entries: Records, groups: _Groups) -> Scores:
    start, before = groups.start, groups.before
    forecast = _shift(entries["forecast"], start, before["forecast"])
    position: NDArray[np.int64] = (~np.isnan(forecast)).nonzero()[0]
    value = entries["values"][position, 0]

    def pending(name: str) -> NDArray[np.float64]:
        return _shift(entries[name], start, before[name])[position]

    last = _shift(entries["values"][:, 0], start, before["values"][:, 0])[position]
    scale = pending("scale")
    return Scores(
        position=position,
        error=distance(value, forecast[position], scale),
        naive=distance(value, last, scale),
        hit=(pending("low") <= value) & (value <= pending("high")),
    )


def distance(a: NDArray[np.float64], b: NDArray[np.float64], unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """|a - b| in units of `unit`, at most SCORE_CAP; (n,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        # Halved before they are subtracted: ±1e308 must not meet as infinity.
        return np.minimum(np.abs(a / 2 - b / 2) / unit * 2, SCORE_CAP)
