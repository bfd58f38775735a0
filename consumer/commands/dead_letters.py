"""`downtick dead-letters resume`: lets a partition go on that was paused for its producer's sake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.commands.state import choose
from consumer.rendering import count
from consumer.stores import nothing_here, redis_store
from state import inspect

if TYPE_CHECKING:
    import argparse

    from consumer.settings import Settings

DESCRIPTION = """\
Let partitions go on that were paused because too many of their updates in a row were refused.

More than dead_letters.max_consecutive dead letters in a row mean a broken producer, not a broken record: the service
then pauses the partition instead of draining it into the dead letters, is not ready, and shows it in
downtick_breaker_open. Repair the producer first. `resume` asks the service to go on and to begin to count anew; it
notices within a second. The records that were refused stay in the dead-letter topic.

examples:
  downtick dead-letters resume                   all partitions
  downtick dead-letters resume --partition 3"""

SETTINGS = ("redis", "kafka.group_id", "kafka.input_topic")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the action, and the partitions."""
    parser.add_argument("action", choices=("resume",), help="let paused partitions go on")
    parser.add_argument("--partition", type=int, action="append", metavar="P", help="only this one; may be repeated")


def run(args: argparse.Namespace) -> int:
    """Ask the service, through Redis, to go on."""
    settings: Settings = args.settings
    with redis_store(settings) as store:
        found = inspect.partitions(store)
        if not found:
            raise nothing_here(settings)
        for partition in choose(found, args.partition):
            meta = store.read_meta(partition)
            inspect.resume(store, partition)
            rejected = count(meta.rejected if meta else 0)
            print(f"partition {partition}: asked to go on ({rejected} dead letters in a row so far)")
    return 0
