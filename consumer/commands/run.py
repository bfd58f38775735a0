"""`downtick run`: the service."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from consumer.cli_errors import CommandError

if TYPE_CHECKING:
    import argparse

DESCRIPTION = """\
Run one worker of the service: updates in, predictions out, exactly once, until SIGTERM or Ctrl-C.

More workers in the same group share the topic's partitions; give each its own `worker` name (its default is
host name and http.port). Start with `downtick sandbox` if you have no Kafka and Redis at hand.

  downtick run --kafka.bootstrap-servers broker:9092 --redis.url redis://cache:6379/0
  DOWNTICK_KAFKA__GROUP_ID=alerts DOWNTICK_HTTP__PORT=8001 downtick run

State is at http://127.0.0.1:8000/ready (why it is not ready), /live and /metrics.
Exit codes: 0 after an orderly end, 1 when it cannot go on by itself (the last log line says why), 2 for wrong
settings."""

SETTINGS = (
    "kafka",
    "redis",
    "model",
    "history",
    "batch",
    "restore",
    "dead_letters",
    "events",
    "http",
    "worker",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.add_argument(
        "--accept-gap",
        action="store_true",
        help="go on where the log no longer holds the group's next offset, or the group's offsets are gone; what is "
        "missing is counted in downtick_history_gap_records_total",
    )


def run(args: argparse.Namespace) -> int:
    """Run until a signal."""
    from consumer import service  # noqa: PLC0415  # TensorFlow takes seconds; --help must not wait

    try:
        code = service.run(args.settings, accept_gap=args.accept_gap)
    except service.CannotStart as error:
        raise CommandError(str(error)) from error
    logging.shutdown()
    os._exit(code)  # all is closed or given up: taking TensorFlow and librdkafka apart would cost seconds of the ten
