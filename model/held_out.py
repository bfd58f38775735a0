"""Which rows an evaluation scores: those behind the border that the bundle was made before.

    bundle      validation_from          test_from
    file        ──────┼──────────────────────┼────────────────►
                train   validation             scored            baselines learn where the bundle did, from this file

A file that begins behind the border has nothing to train baselines on; a bundle that held nothing out, or whose steps
this file does not know, is scored on every row: both are told in words.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from model import examples
from model.sheet import BadTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.dataset import Table
    from model.examples import Examples
    from model.manifest import Manifest
    from model.measured import Unit

DAY = 86_400_000  # milliseconds
LEAST_UNITS = 20  # days, or steps, below which they are no sample to draw from


class CannotEvaluate(Exception):
    """This bundle cannot be measured on these data; one line that says why."""


@dataclass(frozen=True)
class HeldOut:
    """The rows of an evaluation.

    later: examples from the first that is needed on, scored or for validation, by stock and time.
    validation, scored: masks over `later`; validation is all False when there is none.
    train: what baselines learn from, None when they cannot. borders: times at which validation and test begin, None
    for what is not known. certain: whether the scored rows lie behind all that the bundle was made of.
    """

    later: Examples
    validation: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    train: Examples | None
    borders: tuple[int | None, int | None]
    certain: bool
    notes: tuple[str, ...] = field(default=())


def held_out(table: Table, manifest: Manifest, test_from: str | None = None) -> HeldOut:
    """The rows of this table, by the bundle's own borders.

    Args:
        test_from: score from this step on instead, as the table writes it.
    Raises: CannotEvaluate when no row is left to score; BadTable when `test_from` is no time of this table.
    """
    made = examples.make(table, manifest.label, manifest.inputs)
    if not len(made):
        raise CannotEvaluate(
            f"no stock has the {manifest.inputs.reach} values that this bundle reaches back, and one more to score"
        )
    same = table.sha256 == manifest.data.sha256
    parts = manifest.parts
    if test_from is not None:
        return _overridden(made, table, manifest, test_from)
    if parts.by == "stock":
        return _by_stock(made, table, manifest, same=same)
    first, second = _time(table, parts.validation_from), _time(table, parts.test_from)
    if second is not None:
        found = _by_time(made, table, manifest, (first, second), certain=True, notes=())
        other = "baselines learnt from this file, the bundle from another"
        return found if same or found.train is None else replace(found, notes=(*found.notes, other))
    if parts.by == "time":
        why = f"the bundle's borders ({parts.validation_from}, {parts.test_from}) are no steps of this file"
        return _everything(made, f"{why}: every row is scored, and some may have been trained on", same=False)
    return _everything(made, "this bundle held nothing out: every row is scored", same=same)


def sampled(table: Table, rows: Examples) -> tuple[NDArray[np.int64], Unit]:
    """What the bootstrap draws of these rows, (n,), and its name: days; steps where days are few, or the table has no
    dates; stocks where steps are few too."""
    if not table.steps:
        days = rows.time // DAY
        if len(np.unique(days)) >= LEAST_UNITS:
            return days, "day"
    if len(np.unique(rows.time)) >= LEAST_UNITS:
        return rows.time, "step"
    return rows.stock, "stock"


def block(rows: Examples, units: NDArray[np.int64], unit: Unit, steps: int) -> int:
    """Units in a row that share numbers when answers are made of `steps` steps; at most a quarter of all units."""
    if unit == "stock" or not len(rows):
        return 1
    distinct = len(np.unique(units))
    per_unit = len(np.unique(rows.time)) / distinct
    return max(1, min(int(np.ceil(steps / per_unit)), distinct // 4))


def _overridden(made: Examples, table: Table, manifest: Manifest, test_from: str) -> HeldOut:
    second = table.time_of(test_from)
    own = manifest.parts
    first, border = _time(table, own.validation_from), _time(table, own.test_from)
    notes = [f"scored from {test_from} on, as asked"]
    if first is None or first >= second:
        before = np.unique(made.time[made.time < second])
        first = int(before[int(0.75 * len(before))]) if len(before) else None
        if first is not None:
            notes.append(
                f"baselines are calibrated on the last quarter of the steps before, from {table.time_name(first)}"
            )
    certain = border is not None and second >= border
    if not certain and border is not None:
        count = int(((made.time >= second) & (made.time < border)).sum())
        notes.append(f"{count:,} of the scored rows lie before {own.test_from}: the bundle was made with them")
    elif not certain:
        notes.append("whether the bundle was made with the scored rows is not known")
    return _by_time(made, table, manifest, (first, second), certain=certain, notes=tuple(notes))


def _by_time(
    made: Examples,
    table: Table,
    manifest: Manifest,
    borders: tuple[int | None, int],
    *,
    certain: bool,
    notes: tuple[str, ...],
) -> HeldOut:
    first, second = borders
    name = table.time_name(second)
    behind = made.time >= second
    if not behind.any():
        raise CannotEvaluate(
            f"no row to score from {name} on, where the bundle's test part begins: this file has "
            f"{table.time_name(int(made.time.min()))} to {table.time_name(int(made.time.max()))}"
        )
    if first is not None:
        # What is scored may lack a class, and is scored by what it has: it is the others that baselines learn from.
        found = examples.split(made, table, manifest.label, (first, second), needed=("train", "validation"))
        if found.validation is not None:
            later = made.take(made.time >= first)
            validation = np.isin(later.end, found.validation.end)
            return HeldOut(later, validation, later.time >= second, found.train, (first, second), certain, notes)
    why = "no row lies before it" if behind.all() else "the rows before it are too few, or lack one of the classes"
    notes = (*notes, f"baselines that must be trained are left out: scored from {name} on, {why}")
    later = made.take(behind)
    everything = np.ones(len(later), np.bool_)
    return HeldOut(later, ~everything, everything, None, borders, certain, notes)


def _by_stock(made: Examples, table: Table, manifest: Manifest, *, same: bool) -> HeldOut:
    found = examples.split(made, table, manifest.label)
    if found.by != "stock" or found.validation is None or found.test is None:
        return _everything(
            made, "the bundle's split by stock cannot be repeated on this file: every row is scored", same=same
        )
    later = made.take(~np.isin(made.end, found.train.end))
    scored = np.isin(later.end, found.test.end)
    note = "split by stock: other stocks at the same times are no proof for later times"
    return HeldOut(later, ~scored, scored, found.train, (None, None), certain=True, notes=(note,))


def _everything(made: Examples, why: str, *, same: bool) -> HeldOut:
    notes = [why, "baselines that must be trained are left out"]
    if same:
        notes.insert(1, "these are the data it was trained on, so its scores say nothing about new data")
    scored = np.ones(len(made), np.bool_)
    return HeldOut(made, ~scored, scored, None, (None, None), certain=False, notes=tuple(notes))


def _time(table: Table, text: str | None) -> int | None:
    """The time that a border means in this table; None where it has no such step."""
    if text is None:
        return None
    try:
        return table.time_of(text)
    except BadTable:
        return None
