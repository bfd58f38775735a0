"""Logs: one line per change of state, to stderr; JSON when a machine reads them, plain text on a terminal.

The standard library's logging, with `extra` for values: `logger.info("partition seated", extra={"partition": 3})`.
librdkafka's own lines come in through the `logger` argument of its clients."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_HIDDEN = "**********"

_secrets: tuple[str, ...] = ()


def configure(level: int = logging.INFO, *, json_lines: bool | None = None) -> None:
    """Send every log record of this process to stderr. A second call replaces the first.

    Args:
        json_lines: one JSON object a line; None: when stderr is not a terminal."""
    as_json = not sys.stderr.isatty() if json_lines is None else json_lines
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if as_json else _Text())
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


class _Repeats(logging.Filter):
    """Lets one line of librdkafka's about the same thing through in half a minute.

    While brokers are away it tries again, and says so, many times a second on every connection."""

    SECONDS = 30.0

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name != "consumer.librdkafka":
            return True
        what = record.getMessage().partition(" (after ")[0]  # "… (after 3ms in state CONNECT)" differs each time
        if record.created - self._said.get(what, float("-inf")) < self.SECONDS:
            return False
        if len(self._said) > 1000:
            self._said.clear()
        self._said[what] = record.created
        return True


def conceal(secrets: Iterable[str]) -> None:
    """From now on replace these texts in every line: a net under the rule that no secret is logged at all."""
    global _secrets  # noqa: PLW0603 - formatters belong to the process, and so do its secrets
    # Up to three characters are no secret, and would cut holes into words. The longest first: it may hold another.
    _secrets = tuple(sorted({secret for secret in secrets if len(secret) > 3}, key=len, reverse=True))


def without_secrets(line: str) -> str:
    """The text, with every concealed secret replaced."""
    for secret in _secrets:
        line = line.replace(secret, _HIDDEN)
    return line


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((name, value) for name, value in _extra(record).items() if name not in line)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(line, default=str, ensure_ascii=False))


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        values = "".join(f"  {name}={value}" for name, value in _extra(record).items())
        line = f"{time} {record.levelname.lower():<7} {record.getMessage()}{values}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return without_secrets(line)
