"""Rings of another depth or an older layout to the present ones, under a new generation, without the log.

A chunk is read, cut and staged at a time; the meta moves last, so a crash on the way leaves the old rings in force. A
later layout adds its step to `_UPGRADES`."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from state.layout import LAYOUT, Delta, Meta, Records
from state.store import Loaded, Outcome, RedisStore, Unavailable

STOCKS = 512  # rings per staged call

# What turns the records of an old layout into those of the next one, by the old layout. 1 is the first there was.
_UPGRADES: dict[int, Callable[[Records], Records]] = {}


def convert(
    store: RedisStore,
    partition: int,
    meta: Meta,
    generation: str,
    depth: int,
    on_chunk: Callable[[], None] = lambda: None,
) -> Meta:
    """The partition's meta, now of `generation`, `depth` and the present layout; its rings hold the newest `depth`
    records of each stock, or all it has, numbered from 1. If a ring is broken: `meta` as it was; loading it tells more.

    `on_chunk` is called after each chunk and may use the store. `generation` is a new name. The old generation is left
    for `unlink_generation`. Raises: Unavailable (read the meta again, call with another new name), StoreRefused."""
    for chunk in store.load(partition, meta, meta.channels, meta.depth):
        if not chunk.intact:
            return meta
        for delta in _cut(chunk, meta.layout, depth).split(STOCKS):
            if store.stage(partition, meta, generation, depth, delta) is not Outcome.APPLIED:
                raise Unavailable(f"partition {partition}: its meta in Redis moved while its rings were converted")
        on_chunk()
    then = replace(meta, generation=generation, depth=depth, layout=LAYOUT)
    if store.write(partition, meta, then, Delta.empty(meta.channels)) is not Outcome.APPLIED:
        raise Unavailable(f"partition {partition}: its meta in Redis moved while its rings were converted")
    return then


def _cut(chunk: Loaded, layout: int, depth: int) -> Delta:
    """The newest records of each ring as a run that is the whole ring."""
    records = chunk.records
    for older in range(layout, LAYOUT):
        records = _UPGRADES[older](records)
    counts = np.minimum((records["index"] > 0).sum(axis=1), depth)
    column = np.arange(records.shape[1]) - (records.shape[1] - counts[:, None])  # from 0 at the oldest one kept
    kept = column >= 0
    run = records[kept]
    run["index"] = column[kept] + 1
    whole = np.ones(len(counts), np.bool_)
    return Delta(chunk.stocks, counts, run, whole, whole)
