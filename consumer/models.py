"""Models that change while the service runs: which bundle counts is looked up again and again, and a new one is loaded,
verified and warmed beside the stream. The engine takes it between two batches, when all of that is done.

One thread of its own. It never touches the stream: a bundle that cannot be used, whatever the reason, is refused with
one line and a metric, and what predicts goes on predicting. It is tried again when its folder, or what names it,
changes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.scoring import values_for_score, values_for_shadow
from model import versions
from model.bundle import GOLDEN, MANIFEST, WEIGHTS, BadBundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from consumer.metrics import Metrics
    from model.predictor import Predictor

logger = logging.getLogger(__name__)

INTERVAL = 2.0  # seconds between looks; a change must stand for two of them, so that a slow copy is not met half-way
# Of the watcher's thread. From 10 on a busy machine puts it aside while it holds the lock that the engine waits for.
NICE = 5
SWITCH = 0.0005  # seconds that it may keep the interpreter from the others while it loads; 0.005 is Python's default


class DoesNotFit(Exception):
    """The bundle is sound, but not for what lives in memory; the message names what and the way on."""


@dataclass(frozen=True)
class Histories:
    """What the worker's histories hold, from its start to its end."""

    fields: tuple[str, ...]
    reach: int  # values of each stock in memory
    depth: int  # values of each stock in Redis

    @classmethod
    def of(cls, active: Predictor, candidate: Predictor | None, depth: int) -> Histories:
        """What a worker that starts with these should hold: enough to score them, if Redis keeps that much."""
        wanted = [active.reach, values_for_score(active)]
        if candidate is not None and candidate.fields == active.fields:
            wanted.append(values_for_shadow(active, candidate))
        return cls(active.fields, min(max(wanted), depth), depth)

    def check(self, model: Predictor) -> None:
        """Raises DoesNotFit unless the model can predict from these histories."""
        if model.fields != self.fields:
            wanted, held = _names(model.fields), _names(self.fields)
            raise DoesNotFit(f"it needs {wanted}, the histories hold {held}: restart the workers with it")
        self._check_reach(model.reach, "reaches back")

    def check_shadow(self, model: Predictor, active: Predictor) -> None:
        """Raises DoesNotFit unless the model can be compared with the active one on these histories."""
        self.check(model)
        self._check_reach(values_for_shadow(active, model), "needs, to be compared with what came since,")

    def _check_reach(self, values: int, what: str) -> None:
        if values > self.reach:
            deeper = f", and history.depth at {values} or more" if values > self.depth else ""
            raise DoesNotFit(
                f"it {what} {values} values, memory holds {self.reach} of each stock: restart the workers with "
                f"it{deeper}"
            )


def _names(fields: tuple[str, ...]) -> str:
    return f"the fields {', '.join(fields)}" if fields else "no fields"


@dataclass(frozen=True)
class Change:
    """What the engine is to take over; None: stays as it is."""

    active: Predictor | None = None
    candidate: Predictor | None = None
    no_candidate: bool = False  # the one in shadow shall go


_NOTHING = Change()
Mark = tuple[object, ...]  # of one state of a bundle on disk


def mark_of(folder: Path) -> Mark:
    """Tells the bundle from any other, and from itself once one of its files is changed or replaced. Reads none."""
    found: list[object] = [str(folder)]
    for file in (folder, folder / MANIFEST, folder / WEIGHTS, folder / GOLDEN):
        try:
            told = file.stat()
        except OSError as error:
            found.append(error.errno)
        else:
            found.append((told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns))
    return tuple(found)


class _Role:
    """What one of the pointers leads to."""

    def __init__(self, settled: Mark | None) -> None:
        self.settled = settled  # taken over, or refused
        self._seen: Mark | None = None  # at the last look

    def is_due(self, mark: Mark) -> bool:
        """Whether this is new, and has stood for two looks; then it is settled."""
        if mark == self.settled:
            self._seen = None
            return False
        due = mark == self._seen
        self._seen = None if due else mark
        if due:
            self.settled = mark
        return due

    def again(self) -> None:
        """Whatever it is at the next look, it is new."""
        self.settled = self._seen = None


class ModelWatcher:
    """Owned by its thread, but for `take`, which the engine calls.

    Args:
        path: a bundle, or a folder of versions.
        active: what predicts now.
        mark: what `mark_of` said of its folder before it was loaded.
        load: gives a bundle folder's predictor, verified; raises BadBundle."""

    def __init__(
        self,
        path: Path,
        active: Predictor,
        mark: Mark,
        histories: Histories,
        metrics: Metrics,
        *,
        load: Callable[[Path], Predictor],
        interval: float = INTERVAL,
    ) -> None:
        self._path, self._active, self._active_mark = path, active, mark
        self._histories, self._metrics, self._load, self._interval = histories, metrics, load, interval
        self._current, self._shadow = _Role(mark), _Role(_NO_CANDIDATE)
        self._candidate = ""  # version of the one in shadow
        self._lock, self._offer = threading.Lock(), _NOTHING
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def stop(self) -> None:
        """No further look; one that is under way is not waited for."""
        self._stop.set()

    def take(self) -> Change | None:
        """What has changed since the last call; None: nothing. For the engine, in every round."""
        if self._offer is _NOTHING:  # without the lock: the next round sees what this one missed
            return None
        with self._lock:
            offer, self._offer = self._offer, _NOTHING
        return offer

    def _run(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # not every system lets a thread have its own priority
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while not self._stop.wait(self._interval):
            try:
                self.look()
            except Exception:  # a bug here must not be the stream's
                logger.exception("looking for another model failed; the one that predicts goes on")

    def look(self) -> None:
        """One look at both pointers."""
        self._look(self._current, versions.resolve, self._activate, self._refuse)
        self._look(self._shadow, versions.candidate, self._challenge, self._refuse_candidate)

    def _look(
        self,
        role: _Role,
        find: Callable[[Path], Path | None],
        use: Callable[[Path], None],
        refuse: Callable[[str, str, Exception | None], None],
    ) -> None:
        folder: Path | None = None
        fault: Exception | None = None
        try:
            folder = find(self._path)
            mark = mark_of(folder) if folder is not None else _NO_CANDIDATE
        except Exception as error:  # noqa: BLE001  it is told below, once it has stood for two looks
            fault, mark = error, (str(error),)
        if not role.is_due(mark):
            return
        name = folder.name if folder is not None else "in the folder of versions"
        try:
            if fault is not None:
                raise fault
            if folder is None:
                self._offer_candidate(None)
                return
            with _yielding():
                use(folder)
        except BadBundle as error:
            refuse(name, f"{error}; {_AGAIN}", None)
        except DoesNotFit as error:
            refuse(name, str(error), None)
        except Exception as error:  # noqa: BLE001  no memory for another model, or a bug: neither is the stream's
            refuse(name, f"{in_a_line(error)}; {_AGAIN}", error)
        if folder is not None and mark_of(folder) != mark:
            role.again()  # it was changed while it was read

    def _activate(self, folder: Path) -> None:
        mark = mark_of(folder)
        if mark == self._active_mark:
            return  # back to what predicts, after one that was refused
        found = self._load(folder)
        self._histories.check(found)
        found.warm()
        known, self._active, self._active_mark = self._active, found, mark
        if found.manifest == known.manifest:
            return  # the same, moved or touched
        with self._lock:
            self._offer = Change(active=found)
        self._candidate = ""  # the engine lets it go, because it is compared with another one now
        self._shadow.again()

    def _challenge(self, folder: Path) -> None:
        found = self._load(folder)
        if found.version == self._active.version:
            logger.info("the candidate %s is the active version: nothing to compare", found.version)
            self._offer_candidate(None)
        elif found.version != self._candidate:
            self._histories.check_shadow(found, self._active)
            found.warm()
            self._offer_candidate(found)

    def _offer_candidate(self, found: Predictor | None) -> None:
        version = found.version if found is not None else ""
        if version == self._candidate:
            return
        self._candidate = version
        with self._lock:
            self._offer = Change(self._offer.active, found, no_candidate=found is None)

    def _refuse(self, name: str, why: str, trace: Exception | None) -> None:
        version = self._active.version
        self._metrics.model_swaps.labels("refused").inc()
        logger.error("model %s refused, %s goes on: %s", name, version, why, exc_info=trace, extra={"model": version})

    def _refuse_candidate(self, name: str, why: str, trace: Exception | None) -> None:
        self._offer_candidate(None)
        self._metrics.shadow.candidates.labels("refused").inc()
        logger.error("candidate %s refused, nothing runs in shadow: %s", name, why, exc_info=trace)


def in_a_line(error: Exception) -> str:
    """What kind of fault it is, and what is said of it first: XLA tells of memory on many lines, Python in no word."""
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first[:200]}" if first else type(error).__name__


_AGAIN = "it is looked at again when it changes"
_NO_CANDIDATE: Mark = ("no candidate",)


@contextlib.contextmanager
def _yielding() -> Iterator[None]:
    """Let the other threads have the interpreter ten times as soon as usual: each of their calls into Kafka or the
    network gives it away, and would wait for it as long."""
    switch = sys.getswitchinterval()
    sys.setswitchinterval(min(switch, SWITCH))
    try:
        yield
    finally:
        sys.setswitchinterval(switch)
