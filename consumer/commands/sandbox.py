"""`downtick sandbox`: a Kafka and a Redis of one's own, until it is stopped."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from consumer.admin import create_topics
from consumer.arguments import port
from consumer.sandbox import PARTITIONS, EmbeddedKafka, EmbeddedRedis, sandbox_variables
from consumer.settings import Kafka, Settings

if TYPE_CHECKING:
    import argparse

DESCRIPTION = """\
Starts a Kafka-compatible broker and a real Redis on free local ports, creates the three topics, prints the
variables that point downtick at them, and runs until it is stopped (Ctrl-C).

  downtick sandbox --env-file .env     then, in another terminal and the same folder:  downtick run

The data is gone afterwards, unless --keep names a folder for it. Not for production: this broker never gives up a
worker that was stopped; its partitions wait until a worker of the same name (setting `worker`) comes back."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `downtick sandbox`."""
    parser.add_argument(
        "--env-file", type=Path, metavar="F", help="also write the variables there, one NAME=value per line"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the data of both in this folder")
    parser.add_argument("--kafka-port", type=port, metavar="PORT", help="instead of a free one")
    parser.add_argument("--redis-port", type=port, metavar="PORT", help="instead of a free one")


def run(args: argparse.Namespace) -> int:
    """Start both, tell where they are, and watch them."""
    keep: Path | None = args.keep
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with (
            EmbeddedKafka(keep and keep / "kafka", args.kafka_port) as kafka,
            EmbeddedRedis(keep and keep / "redis", args.redis_port, durable=keep is not None) as redis,
        ):
            kafka.spawn()
            redis.spawn()
            kafka.wait_ready()
            redis.wait_ready()
            variables = sandbox_variables(kafka, redis)
            settings = Settings(kafka=Kafka(bootstrap_servers=kafka.bootstrap_servers))
            create_topics(settings, partitions=PARTITIONS)
            if args.env_file:
                _write(args.env_file, variables)
            for name, value in variables.items():
                print(f"export {name}={shlex.quote(value)}")
            sys.stdout.flush()
            print("sandbox: ready; Ctrl-C stops it", file=sys.stderr)
            while True:
                kafka.child.check()
                redis.child.check()
                time.sleep(0.2)
    except KeyboardInterrupt:
        print("sandbox: stopped", file=sys.stderr)
        return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _write(path: Path, variables: dict[str, str]) -> None:
    """Put the variables into the file, whole or not at all; lines about other names stay."""
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    others = [line for line in before if line.partition("=")[0].strip() not in variables]
    text = "\n".join([*others, *(f"{name}={value}" for name, value in variables.items()), ""])
    target = path.resolve()  # a link stays a link
    new = target.with_name(f"{target.name}.new")
    new.touch(mode=0o600)  # the others' lines may hold secrets
    new.write_text(text, encoding="utf-8")
    if target.exists():
        shutil.copymode(target, new)
    new.replace(target)
