"""Troubles: what keeps the worker from being ready, one line of log for each that comes or goes.

Each has a name of its own and only its own success clears it: a Redis that answers PING but refuses writes, or
brokers that answer but have no transaction coordinator, must not look well in between."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


class Troubles:
    """Names and causes. Owned by the engine thread; `texts` may be read by any."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._causes

    def set(self, name: str, cause: str) -> None:
        """It is there, because of `cause`. Logged once, until it has gone."""
        if name not in self._causes:
            logger.warning("%s: %s; waiting", name, cause, extra={"trouble": name})
        self._causes = {**self._causes, name: cause}

    def clear(self, name: str) -> None:
        """It is over."""
        if name in self._causes:
            self._causes = {other: cause for other, cause in self._causes.items() if other != name}
            logger.info("%s: over", name, extra={"trouble": name})

    @property
    def texts(self) -> tuple[str, ...]:
        """All of them, for /ready."""
        return tuple(f"{name}: {cause}" for name, cause in self._causes.items())
