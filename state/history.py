"""The rolling history of one partition's stocks, whole, in memory: the fold of its log.

Staging reads it, `fold` alone changes it, and only after the commit: an abort has nothing to undo.
Two arrays hold a stock's newest `reach` values: `_values` is what a window gathers (8 bytes a value, so that a
batch stays in cache), `_records` is what Redis would need again if it lost everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from state.layout import FALLING, Delta, record_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Records = NDArray[np.void]

LONG_AGO = np.iinfo(np.int64).min  # the time of a stock that has no update yet


@dataclass(frozen=True)
class Updates:
    """Accepted updates of one batch, grouped by row (rows ascending), in log order within a row.

    Rows ≥ `len(history)` are the batch's new stocks, named by `fresh` in row order."""

    row: NDArray[np.int64]  # (n,)
    start: NDArray[np.int64]  # (groups,) position of each row's first update
    size: NDArray[np.int64]  # (groups,) how many updates each row has
    rank: NDArray[np.int64]  # (n,) 0 for a row's first update of the batch
    index: NDArray[np.int64]  # (n,) 1-based index of the update in its ring
    values: NDArray[np.float64]  # (n, channels)
    fresh: list[str]


class History:
    """Newest `reach` updates of every stock of one partition.

    Owned by the engine thread; nothing here blocks. Rows are handed out in order of first appearance and never
    given back: a partition's history ends when the partition leaves."""

    def __init__(self, reach: int, channels: int, depth: int) -> None:
        if not 1 <= reach <= depth:
            raise ValueError(f"a history of {depth} values cannot hold the {reach} that the model reaches back")
        self.reach, self.channels, self.depth = reach, channels, depth
        self.row_of: dict[str, int] = {}
        self.stocks: list[str] = []
        self._allocate(0)

    def _allocate(self, capacity: int) -> None:
        self._values = np.zeros((capacity, self.reach, self.channels))
        self._records = np.zeros((capacity, self.reach), record_dtype(self.channels))
        self._count = np.zeros(capacity, np.int64)  # index of the newest update; 0: none
        self._falling = np.zeros(capacity, np.bool_)

    def reserve(self, rows: int) -> None:
        """Make room for `rows` rows in all; at least half as many again as there were, so that growth stays linear.

        Old and new rows exist side by side meanwhile: a load that knows its size says so first, and grows nothing."""
        capacity = len(self._count)
        if rows <= capacity:
            return
        capacity = max(rows, capacity + capacity // 2, 64)
        for name in ("_values", "_records", "_count", "_falling"):
            old: NDArray[Any] = getattr(self, name)
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def __len__(self) -> int:
        return len(self.stocks)

    @property
    def falling_stocks(self) -> int:
        """How many stocks carry the falling flag now."""
        return int(np.count_nonzero(self._falling[: len(self)]))

    def count(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) index of each row's newest update; 0 for new stocks."""
        known = rows < len(self)
        if known.all():
            return self._count[rows]
        out = np.zeros(len(rows), np.int64)
        out[known] = self._count[rows[known]]
        return out

    def newest(self, rows: NDArray[np.int64]) -> Records:
        """(n,) newest record of each row; index 0, time `LONG_AGO` and NaN forecasts for new stocks."""
        count = self.count(rows)
        known = count > 0
        if known.all():
            return self._at(rows, (count - 1) % self.reach)
        out = np.zeros(len(rows), self._records.dtype)
        at = rows[known]
        out[known] = self._at(at, (count[known] - 1) % self.reach)
        blank = out[~known]
        blank["ts"] = LONG_AGO
        for name in ("forecast", "low", "high", "scale", "probability"):
            blank[name] = np.nan
        out[~known] = blank
        return out

    def earlier(self, updates: Updates, records: Records, at: NDArray[np.int64], steps: int) -> Records:
        """(m,) the records of the same stocks `steps` before the updates at positions `at`, before the batch is folded;
        all zero where memory holds none.

        Args:
            records: (n,) the updates' own, in their order.
            steps: 1 to `reach`, and below the index of each of these updates."""
        row, slot = updates.row[at], (updates.index[at] - (steps + 1)) % self.reach
        if len(updates.size) and updates.size.max() <= steps:  # none is of the batch itself
            return self._at(row, slot)
        out = np.zeros(len(at), records.dtype)
        inside = updates.rank[at] >= steps
        out[inside] = records[at[inside] - steps]  # a stock's rows stand together
        out[~inside] = self._at(row[~inside], slot[~inside])
        return out

    def _at(self, rows: NDArray[np.int64], slots: NDArray[np.int64]) -> Records:
        """(n,) records; `take` of one axis moves whole records, 7 ns each, where an index of two axes takes 53."""
        return self._records.reshape(-1).take(rows * self.reach + slots)

    def windows(self, updates: Updates, wanted: NDArray[np.int64]) -> NDArray[np.float64]:
        """Windows that end at the updates at positions `wanted`, (m, reach, channels), oldest first.

        A window is (the ring's last values ‖ the batch's values up to the update). All rows' rings and batch values
        are laid out once, one row after the other, and every window is a slice of that:

            row 7: h h h h │ u u     row 9: h h h h │ u      h: the ring's last reach − 1, u: of this batch
                       └─window─┘                            zero where a stock has no value yet"""
        lead = self.reach - 1
        rows = updates.row[updates.start]
        base = updates.start + lead * np.arange(len(rows))
        flat = np.zeros((len(updates.row) + lead * len(rows), self.channels))
        if lead:
            known = rows < len(self)
            at = rows[known][:, None]
            slots = (self._count[rows[known]][:, None] + np.arange(-lead, 0)) % self.reach
            flat[base[known][:, None] + np.arange(lead)] = self._values[at, slots]
        position = (base + lead).repeat(updates.size) + updates.rank
        flat[position] = updates.values
        ends: NDArray[np.int64] = position[wanted]
        windows: NDArray[np.float64] = flat[ends[:, None] + np.arange(-lead, 1)]
        return windows

    def fold(self, updates: Updates, records: Records) -> None:
        """Take the batch in: (n,) `records` in the order of `updates`. New stocks become rows."""
        self._insert(updates.fresh)
        if not len(updates.row):
            return
        size, last = updates.size, updates.start + updates.size - 1
        keep: Any = slice(None)
        if size.max() > self.reach:  # an older one would be overwritten at once
            keep = updates.rank >= size.repeat(size) - self.reach
        at, slot = updates.row[keep], (updates.index[keep] - 1) % self.reach
        self._values[at, slot] = updates.values[keep]
        np.put(self._records.reshape(-1), at * self.reach + slot, records[keep])  # as in `_at`: 10 ns each, not 60
        rows = updates.row[last]
        self._count[rows] = updates.index[last]
        self._falling[rows] = records["flags"][last] & FALLING != 0

    def _insert(self, stocks: Sequence[str]) -> None:
        self.reserve(len(self) + len(stocks))
        for stock in stocks:
            self.row_of[stock] = len(self.stocks)
            self.stocks.append(stock)

    def load(self, stocks: Sequence[str], counts: NDArray[np.int64], records: Records) -> None:
        """Take rings read from Redis: (n,) newest indices and (n, reach) records, newest last, index 0 = absent."""
        first = len(self)
        self._insert(stocks)
        rows = np.arange(first, first + len(stocks))
        present = records["index"] > 0
        slots = (records["index"].astype(np.int64) - 1) % self.reach
        at = np.broadcast_to(rows[:, None], slots.shape)[present]
        self._values[at, slots[present]] = records["values"][present]
        self._records[at, slots[present]] = records[present]
        self._count[rows] = counts
        self._falling[rows] = records["flags"][:, -1] & FALLING != 0

    def rewrite(self, rows: NDArray[np.int64]) -> Delta:
        """What Redis needs to hold these rows again, and renumber them here to match.

        Memory holds `reach` updates of a ring of `depth`, so the rings start anew at index 1. Calling it again
        gives the same delta."""
        count = self._count[rows]
        kept = np.minimum(count, self.reach)
        slots = (np.arange(self.reach) + (count - kept)[:, None]) % self.reach  # oldest kept first
        within = np.arange(self.reach) < kept[:, None]
        records = self._records[rows[:, None], slots]
        values = self._values[rows[:, None], slots]
        records["index"] = np.where(within, np.arange(1, self.reach + 1), 0)
        self._records[rows], self._values[rows], self._count[rows] = records, values, kept
        return Delta(
            stocks=[self.stocks[row] for row in rows.tolist()],
            counts=kept,
            records=records[within],
            new=np.ones(len(rows), np.bool_),
            rewrite=np.ones(len(rows), np.bool_),
        )

    def delta(self, updates: Updates, records: Records) -> Delta:
        """What Redis needs of a folded batch: at most `depth` records a stock, the newest."""
        rows = updates.row[updates.start]
        size = updates.size
        kept = np.minimum(size, self.depth)
        whole = bool((kept == size).all())
        first_new = len(self) - len(updates.fresh)
        return Delta(
            stocks=[self.stocks[row] for row in rows.tolist()],
            counts=kept,
            records=records if whole else records[updates.rank >= (size - kept).repeat(size)],
            new=rows >= first_new,
            rewrite=kept < size,  # more updates than the ring holds: all of it is new
        )
