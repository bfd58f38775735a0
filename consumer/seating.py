"""Seating: where a partition goes on, decided from what Kafka and Redis say, before its first output.

Pure: `seat` takes the facts and returns a plan, the engine carries it out. The table, with its reasons, stands in
docs/decisions/seating.md; each row has a test named after it (tests/integration/test_seating.py).

    log     start ───────────── w ──────── c ──────── end
                 folded, in Redis  folded     new: predicted
                                   silently   and published
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from state.layout import LAYOUT

if TYPE_CHECKING:
    from state.layout import Meta


class Rings(Enum):
    """Where the histories of a partition come from."""

    LOAD = "load"  # as they stand in Redis
    CONVERT = "convert"  # from Redis, under a new generation with another depth
    NEW = "new"  # empty, under a new generation; the log fills them


class Facts(NamedTuple):
    """What is known of a partition before it is seated."""

    committed: int | None  # c: the group's next offset
    meta: Meta | None  # what Redis holds
    rings_broken: int  # rings named in Redis but unreadable
    log_start: int
    log_end: int
    cluster_id: str
    topic_id: str  # "" where the broker has none
    depth: int
    fields: str


@dataclass(frozen=True)
class Policy:
    """What the operator chose."""

    start: str = "earliest"
    max_records: int = 5_000_000
    accept_gap: bool = False


@dataclass(frozen=True)
class Plan:
    """Seek `seek`, fold silently up to `output_from`, publish from there."""

    row: str  # of the seating table
    rings: Rings
    seek: int
    output_from: int
    commit_start: bool = False  # first start: commit the start before anything else, so that it happens once
    missing: int = 0  # records that would be needed and are gone
    broken: int = 0  # rings that are given up


class SeatingStopped(Exception):
    """This partition must not go on by itself. The message names cause and ways on."""


class SeatingRefused(Exception):
    """The whole worker must not go on: two systems share these keys, or newer state meets an older program."""


def seat(facts: Facts, policy: Policy) -> Plan:  # noqa: C901, PLR0911  # a table: one branch and one return for each row
    """The row of the seating table that fits, as a plan.

    Raises: SeatingStopped, SeatingRefused."""
    meta = facts.meta
    if meta is not None and meta.cluster_id != facts.cluster_id:
        raise SeatingRefused(
            f"the histories in Redis belong to Kafka cluster {meta.cluster_id!r}, this is {facts.cluster_id!r}: two "
            "systems share these keys. Set another redis.key_prefix, or delete them with `downtick state reset`"
        )
    if meta is not None and meta.layout > LAYOUT:
        raise SeatingRefused(
            f"the histories in Redis have layout {meta.layout}, this program knows up to {LAYOUT}: run the newer "
            "version, or delete them with `downtick state reset`"
        )
    recreated = meta is not None and meta.topic_id != facts.topic_id
    if recreated:
        meta = None  # another timeline: nothing of it counts
    row = "topic recreated" if recreated else "no watermark"
    c, commit_start = facts.committed, False
    if c is None:
        if meta is None:
            start = facts.log_end if policy.start == "latest" else facts.log_start
            return Plan("topic recreated" if recreated else "first start", Rings.NEW, start, start, commit_start=True)
        c, commit_start = meta.watermark + 1, True
        if not policy.accept_gap:
            raise SeatingStopped(
                f"the group has no committed offset, but Redis holds histories up to offset {meta.watermark}: the "
                "offsets were deleted or expired. Either `downtick state reset` and start anew as kafka.start says, or "
                f"resume at offset {c} with `downtick run --accept-gap` (or set the group's offset to it)"
            )
    if not facts.log_start <= c <= facts.log_end:
        return _outside(c, facts, policy)
    if meta is None:
        return _rebuild(row, facts, policy, c)
    w = meta.watermark
    if w > c - 1:
        return _rebuild("offsets rewound", facts, policy, c)
    if meta.fields != facts.fields:
        return _rebuild("other fields", facts, policy, c)
    if facts.rings_broken:
        return _rebuild("rings broken", facts, policy, c)
    if facts.log_start > w + 1:
        # Windows across a hole would be wrong, and a later rebuild could not repeat them: the log that is left decides.
        return replace(_rebuild("gap", facts, policy, c), missing=facts.log_start - (w + 1))
    rings = Rings.CONVERT if meta.depth != facts.depth or meta.layout < LAYOUT else Rings.LOAD
    return Plan("in step" if w == c - 1 else "catch up", rings, w + 1, c, commit_start=commit_start)


def _rebuild(row: str, facts: Facts, policy: Policy, output_from: int) -> Plan:
    """Fold the log again. What it no longer holds is missing: the stocks concerned warm up."""
    seek = max(facts.log_start, output_from - policy.max_records)
    return Plan(row, Rings.NEW, seek, output_from, missing=seek, broken=facts.rings_broken)


def _outside(c: int, facts: Facts, policy: Policy) -> Plan:
    if not policy.accept_gap:
        raise SeatingStopped(
            f"the group's next offset {c} lies outside the log [{facts.log_start}, {facts.log_end}): records were "
            "deleted before they were read, or the topic was recreated. `downtick run --accept-gap` goes on at the "
            "log's nearest end and counts what is missing"
        )
    nearest = facts.log_start if c < facts.log_start else facts.log_end
    plan = _rebuild("gap accepted", facts, policy, nearest)
    return replace(plan, commit_start=True, missing=max(0, facts.log_start - c))
