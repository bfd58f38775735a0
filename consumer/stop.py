"""Stop: the wish to end, when it came, and how much time is left because of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

SHUTDOWN_SECONDS = 10.0  # from the first signal to the end, whatever hangs
PENDING_SECONDS = 4.0  # of those, for what is in hand; the rest is for leaving the group


class Stop:
    """Whether the worker was asked to stop. Any thread may ask it; signals reach it in the main thread."""

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self._asked = threading.Event()
        self._joined = False

    def listen(self) -> None:
        """Take SIGTERM and SIGINT from now on. Main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signal)

    def _signal(self, number: int, _: FrameType | None) -> None:
        if self._asked_at is not None:
            os._exit(128 + number)  # a second signal: at once; what is in hand is the next worker's
        if not self._joined:
            os._exit(0)  # still loading the model: nothing was begun
        self.ask()

    def joining(self) -> None:
        """From here on an end must be an orderly one."""
        self._joined = True

    def ask(self) -> None:
        """Begin to stop. Later calls change nothing."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._asked.set()

    def asked(self) -> bool:
        """Whether to stop."""
        return self._asked.is_set()

    def wait(self, seconds: float) -> bool:
        """Whether to stop, waiting for it that long at most."""
        return self._asked.wait(seconds)

    def left(self, budget: float = PENDING_SECONDS) -> float:
        """Seconds left of a budget that began with the wish to stop; infinite before it, never negative."""
        if self._asked_at is None:
            return float("inf")
        return max(0.0, self._asked_at + budget - time.monotonic())
