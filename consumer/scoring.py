"""Live scores of the falling probability, and of a candidate that runs in shadow: what was said against what came.

Whether a stock was falling is known only some steps later (model/truth.py), so a score looks back from each new value:

    values   . . . . . . . . . s s+1 . . now         lag = now - s
             '---- window ----'                       of the step s, as memory still holds it
                    published at s: forecast, interval, probability (the stock's record of s)
                                s+1 . . now: what came, the truth

The candidate is asked about the window of s only now, when the answer is known: nothing of it is kept, so an aborted
transaction, a restart or a rebalance can neither lose nor double a score. It is compared with what the active version
published at the same s, in the same unit, so that both are measured on the very same updates.

All of it happens after the batch is committed, off the way of an update to its prediction, and in chunks: a few rows
cost the network as much as many."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from consumer.stage import distance
from model.truth import horizon, truth, values_needed
from state.layout import PREDICTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from consumer.metrics import Metrics
    from consumer.partition import Partition
    from consumer.stage import Staged
    from model.predictor import Predictor
    from state.layout import Records

logger = logging.getLogger(__name__)

CHUNK = 256  # rows that are scored together at least, or
LINGER = 1.0  # what has come after so many seconds
SLICE = 512  # rows whose values stay in the cache: a big batch in one go took twice as long


class Failed(Exception):
    """The candidate cannot go on; the message says why."""


def lag_of(*models: Predictor) -> int:
    """Steps after which everything that these models said of one step can be judged: at least 1, for the forecast."""
    return max(1, *(horizon(model.manifest.label) for model in models))


def values_for_score(model: Predictor) -> int:
    """Values of a stock that must be in memory to score the model's probabilities; 0 where they cannot be scored."""
    return values_needed(model.manifest.label, model.window)


def values_for_shadow(active: Predictor, candidate: Predictor) -> int:
    """Values of a stock that must be in memory to compare a candidate with the active version."""
    lag = lag_of(active, candidate)
    truths = (lag - horizon(model.manifest.label) + values_for_score(model) for model in (active, candidate))
    return max(lag + candidate.reach, lag + 1, *truths)


@dataclass
class _Waiting:
    """Rows that are not scored yet: windows up to now, and the record of the step in question."""

    windows: list[NDArray[np.float64]] = field(default_factory=list)  # each (k, reach of memory, channels)
    said: list[Records] = field(default_factory=list)  # each (k,)
    rows: int = 0
    since: float = 0.0

    def add(self, windows: NDArray[np.float64], said: Records, now: float) -> None:
        """Rows of one partition's batch."""
        if not len(said):
            return
        self.since = self.since if self.rows else now
        self.windows.append(windows)
        self.said.append(said)
        self.rows += len(said)

    def due(self, now: float) -> bool:
        """Whether they should be scored."""
        return self.rows >= CHUNK or (self.rows > 0 and now - self.since >= LINGER)

    def taken(self) -> Iterator[tuple[NDArray[np.float64], Records]]:
        """All rows, in parts that a cache holds; none are left."""
        waiting, rows = list(zip(self.windows, self.said, strict=True)), 0
        self.windows, self.said, self.rows = [], [], 0
        part: list[tuple[NDArray[np.float64], Records]] = []
        for one in waiting:
            part.append(one)
            rows += len(one[1])
            if rows >= CHUNK or one is waiting[-1]:
                yield _joined(part)
                part, rows = [], 0


class Scoring:
    """Owned by the engine thread.

    Args:
        reach: values that memory holds of each stock.
        clock: seconds that only rise."""

    def __init__(
        self, active: Predictor, metrics: Metrics, reach: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics, self._reach, self._clock = metrics, reach, clock
        self._waiting, self._compared = _Waiting(), _Waiting()
        self.candidate: Predictor | None = None
        self._told_short = False
        self._follow(active)

    def follow(self, active: Predictor) -> None:
        """Another version is the active one. What the former one said is scored by its own rule first; a candidate
        goes: whether it can be compared with this one, too, is for the watcher to see."""
        self.challenge(None)
        self._follow(active)

    def _follow(self, active: Predictor) -> None:
        self._active, self._lag, self._needed = active, lag_of(active), values_for_score(active)
        if self._needed > self._reach and not self._told_short:
            self._told_short = True
            logger.warning(
                "the live score of the falling probability needs %d values of each stock, memory holds %d: raise "
                "history.depth to have it",
                self._needed,
                self._reach,
            )

    def challenge(self, candidate: Predictor | None) -> None:
        """Let this one, which fits, run in shadow; None: no more. Its scores begin at nothing."""
        self.settle(everything=True)
        metrics = self._metrics.shadow
        metrics.start_anew()
        self.candidate = candidate
        if candidate is not None:
            metrics.info.labels(candidate.version).set(1)
            metrics.candidates.labels("accepted").inc()
            self._shadow_lag = lag_of(self._active, candidate)
            self._shadow_needed = values_for_shadow(self._active, candidate)

    def take(self, parts: Iterable[tuple[Partition, Staged]]) -> None:
        """What a committed batch lets us judge. To be called before it is folded."""
        now, scored = self._clock(), 0 < self._needed <= self._reach
        for partition, staged in parts:
            if scored:
                self._waiting.add(*_look_back(partition, staged, self._lag, self._needed), now)
            if self.candidate is not None:
                self._compared.add(*_look_back(partition, staged, self._shadow_lag, self._shadow_needed), now)

    def settle(self, *, everything: bool = False) -> None:
        """Move the metrics by what waits, if it is much, or old, or `everything` is asked for."""
        now = self._clock()
        if self._waiting.due(now) or (everything and self._waiting.rows):
            for windows, said in self._waiting.taken():
                self._score(windows, said)
        if self._compared.due(now) or (everything and self._compared.rows):
            try:
                for windows, said in self._compared.taken():
                    self._compare(windows, said)
            except Failed as error:
                self._drop(str(error))
            except Exception:  # whatever a candidate does, the stream goes on
                logger.exception("scoring the candidate failed")
                self._drop("scoring it failed")

    def _score(self, windows: NDArray[np.float64], said: Records) -> None:
        for first in range(0, len(said), SLICE):
            part = slice(first, first + SLICE)
            error = _squared_error(windows[part, :, 0], said["probability"][part], self._active)
            known = np.count_nonzero(~np.isnan(error))
            if known:
                self._metrics.falling_squared_error.add(float(np.nansum(error)), int(known))

    def _compare(self, windows: NDArray[np.float64], said: Records) -> None:
        candidate, active, lag, metrics = self.candidate, self._active, self._shadow_lag, self._metrics.shadow
        assert candidate is not None  # noqa: S101  # rows wait only while there is one
        then = windows.shape[1] - lag  # windows[:, :then] is what was seen; windows[:, then] is the value that followed
        theirs = candidate.predict(windows[:, :then])
        numbers = (theirs.probability, theirs.forecast, theirs.low, theirs.high)
        if not all(np.isfinite(one).all() for one in numbers):
            raise Failed("it gave no finite numbers for a window")

        value, last, unit = windows[:, then, 0], windows[:, then - 1, 0], said["scale"]
        metrics.naive_abs_error.add(float(distance(value, last, unit).sum()), len(value))
        for name, low, high, forecast in (
            ("candidate", theirs.low, theirs.high, theirs.forecast),
            ("active", said["low"], said["high"], said["forecast"]),
        ):
            metrics.forecast_abs_error.add(float(distance(value, forecast, unit).sum()), len(value), name)
            metrics.interval_width.add(float(distance(high, low, unit).sum()), len(value), name)
            hits = int(np.count_nonzero((low <= value) & (value <= high)))
            metrics.interval_hits.labels(name, "true").inc(hits)
            metrics.interval_hits.labels(name, "false").inc(len(value) - hits)

        errors = {}
        for name, model, probability in (
            ("candidate", candidate, theirs.probability),
            ("active", active, said["probability"]),
        ):
            ahead = horizon(model.manifest.label)
            if ahead:  # a rule that is never answered leaves the other one alone
                until = windows.shape[1] - lag + ahead
                errors[name] = _squared_error(windows[:, :until, 0], probability, model)
        known = ~np.isnan(np.sum(list(errors.values()), axis=0)) if errors else np.zeros(len(value), np.bool_)
        for name, error in errors.items():
            metrics.falling_squared_error.add(float(error[known].sum()), int(np.count_nonzero(known)), name)

    def _drop(self, why: str) -> None:
        candidate = self.candidate
        self._compared = _Waiting()
        self.challenge(None)
        self._metrics.shadow.candidates.labels("failed").inc()
        logger.error(
            "the candidate %s is out of the shadow: %s; `downtick models shadow` takes another one",
            candidate.version if candidate is not None else "?",
            why,
        )


def _joined(parts: Sequence[tuple[NDArray[np.float64], Records]]) -> tuple[NDArray[np.float64], Records]:
    if len(parts) == 1:
        return parts[0]
    kind = parts[0][1].dtype
    said = np.concatenate([said.view(f"V{kind.itemsize}") for _, said in parts]).view(kind)  # as in stage.py
    return np.concatenate([windows for windows, _ in parts]), said


def _look_back(partition: Partition, staged: Staged, lag: int, needed: int) -> tuple[NDArray[np.float64], Records]:
    """Windows up to now and the record `lag` steps before, where the active version has published a prediction there,
    and this update is published too; before the batch is folded. Few calls: batches may be of a single row."""
    updates, at, windows = staged.admitted.updates, staged.wanted, staged.windows
    chosen = updates.index[at] >= needed
    if staged.silent:
        chosen &= staged.told[at]
    if not chosen.all():
        at, windows = at[chosen], windows[chosen]
    said = partition.history.earlier(updates, staged.entries, at, lag)
    chosen = said["flags"] & PREDICTED != 0
    if partition.model_from:
        chosen &= said["offset"] >= partition.model_from
    return (windows, said) if chosen.all() else (windows[chosen], said.compress(chosen))


def _squared_error(
    values: NDArray[np.float64], probability: NDArray[np.float32], model: Predictor
) -> NDArray[np.float64]:
    """(n,) of the probability of falling, NaN where the truth cannot be told; `values` end where it is known."""
    return np.square(probability.astype(np.float64) - truth(values, model.manifest.label, model.window))
