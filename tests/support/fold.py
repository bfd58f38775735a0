"""The fold of a log in plain Python, and the deltas that carry it into a store: what contract tests compare with."""

from collections.abc import Callable, Sequence

import numpy as np

from state.layout import Delta, Meta, Records, record_dtype
from state.store import Loaded, RedisStore


def meta_at(watermark: int, *, generation: str = "g1", depth: int = 8, fields: str = "") -> Meta:
    return Meta(generation, watermark, "cluster-A", "topic-A", 1, depth, "model-1", fields, rejected=watermark % 3)


def load_all(
    store: RedisStore,
    partition: int,
    meta: Meta,
    channels: int,
    keep: int,
    on_chunk: Callable[[], object] = lambda: None,
) -> Loaded:
    """The chunks of `store.load` as one; `on_chunk` is called after each."""
    chunks = []
    for chunk in store.load(partition, meta, channels, keep):
        chunks.append(chunk)
        on_chunk()
    return Loaded(
        [stock for chunk in chunks for stock in chunk.stocks],
        np.concatenate([chunk.counts for chunk in chunks]),
        np.concatenate([chunk.records for chunk in chunks]),
        [stock for chunk in chunks for stock in chunk.broken],
        any(chunk.stocks_lost for chunk in chunks),
    )


class Fold:
    """Every record of every stock, oldest first; offsets are given out one by one, as by one partition."""

    def __init__(self, depth: int = 8, channels: int = 1) -> None:
        self.depth, self.channels = depth, channels
        self.rings: dict[str, Records] = {}
        self.next_offset = 0

    @property
    def watermark(self) -> int:
        return self.next_offset - 1

    def batch(self, *stocks: str) -> Delta:
        """One update per name, in this order; a name may come again. The delta that brings a store to it."""
        before = {stock: self.rings.get(stock, self._none()) for stock in stocks}
        for stock in stocks:
            ring = self.rings.get(stock, self._none())
            index = int(ring["index"][-1]) + 1 if len(ring) else 1
            self.rings[stock] = np.concatenate((ring, self._record(index)))
            self.next_offset += 1
        runs = [self.rings[stock][len(ring) :][-self.depth :] for stock, ring in before.items()]
        return Delta(
            stocks=list(before),
            counts=np.array([len(run) for run in runs], np.int64),
            records=np.concatenate(runs) if runs else self._none(),
            new=np.array([not len(ring) for ring in before.values()], np.bool_),
            rewrite=np.zeros(len(before), np.bool_),
        )

    def rewrite(self, stocks: Sequence[str]) -> Delta:
        """What these rings hold, renumbered from 1, as a delta that replaces them; the fold is renumbered, too."""
        for stock in stocks:
            ring = self.rings[stock][-self.depth :].copy()
            ring["index"] = np.arange(len(ring)) + 1
            self.rings[stock] = ring
        whole = np.ones(len(stocks), np.bool_)
        counts = np.array([len(self.rings[stock]) for stock in stocks], np.int64)
        return Delta(list(stocks), counts, np.concatenate([self.rings[stock] for stock in stocks]), whole, whole)

    def assert_loaded(self, loaded: Loaded, keep: int) -> None:
        """The store gave back exactly this fold: the newest `keep` records of each stock, to the last bit."""
        assert loaded.intact
        assert sorted(loaded.stocks) == sorted(self.rings)
        assert loaded.records.shape == (len(self.rings), keep)
        for stock, count, records in zip(loaded.stocks, loaded.counts, loaded.records, strict=True):
            ring = self.rings[stock][-self.depth :][-keep:]
            assert count == ring["index"][-1]
            assert records[keep - len(ring) :].tobytes() == ring.tobytes(), stock
            assert not any(records[: keep - len(ring)].tobytes()), f"{stock}: not zero before its oldest record"

    def _none(self) -> Records:
        return np.zeros(0, record_dtype(self.channels))

    def _record(self, index: int) -> Records:
        record = np.zeros(1, record_dtype(self.channels))
        record["index"], record["offset"], record["ts"] = index, self.next_offset, 1_000 * self.next_offset
        record["values"] = [self.next_offset + 0.1 * channel for channel in range(self.channels)]
        predicted = index > 2
        for field in ("forecast", "low", "high", "scale", "probability"):
            record[field] = self.next_offset / 7 if predicted else np.nan
        record["flags"] = 2 * predicted + self.next_offset % 2
        return record
