"""`downtick state show | reset`: the histories in Redis, partition by partition."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumer.cli_errors import CommandError
from consumer.rendering import count, plain
from consumer.stores import nothing_here, redis_store
from state import inspect
from state.store import StoreRefused

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from consumer.settings import Settings
    from state.inspect import PartitionState
    from state.store import RedisStore

DESCRIPTION = """\
Show or delete what Redis holds of this group and input topic, whether the service runs or not.

`show` lists the partitions: generation (the random name of one set of histories), watermark (the offset of the last
record in them), stocks, depth (values kept of each), memory (estimated from a sample) and more.

`reset` deletes histories. That loses no update: they are a function of the input log. When the partition is next
seated, the service reads its log again, as far back as retention and restore.max_records reach, and goes on where it
was; where the log does not reach back, stocks warm up again. A service that is running now writes them again from its
memory with its next update: as many values of each stock as the model looks back.
To start over from an empty state, stop the service, reset, and delete the group's offsets too (kafka-consumer-groups.sh
--delete-offsets).

examples:
  downtick state show
  downtick state show --json | jq '.[].watermark'
  downtick state reset --partition 3
  downtick state reset --all --yes"""

SETTINGS = ("redis", "kafka.group_id", "kafka.input_topic")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the two actions, and what belongs to each."""
    parser.add_argument("action", choices=("show", "reset"), help="look, or delete")
    parser.add_argument("--json", action="store_true", help="show: one JSON document")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--partition", type=int, action="append", metavar="P", help="this partition; may be repeated")
    which.add_argument("--all", action="store_true", help="reset: every partition")
    parser.add_argument("--yes", action="store_true", help="reset: do not ask")


def run(args: argparse.Namespace) -> int:
    """Do one of the two."""
    settings: Settings = args.settings
    if args.action == "show":
        if args.all or args.yes:
            raise CommandError("--all and --yes belong to reset", code=2)
        return _show(settings, args.partition, as_json=args.json)
    if args.json:
        raise CommandError("--json belongs to show", code=2)
    if not (args.partition or args.all):
        raise CommandError("which partitions?", hint="--partition 3 --partition 4, or --all", code=2)
    if not (args.yes or sys.stdin.isatty()):
        raise CommandError("it asks before it deletes, and there is no terminal to ask on", hint="add --yes", code=2)
    return _reset(settings, args.partition, asks=not args.yes)


def choose(found: Sequence[int], wanted: Sequence[int] | None) -> list[int]:
    """The partitions wanted, or all. Raises: CommandError naming those that are not there."""
    if not wanted:
        return list(found)
    missing = sorted(set(wanted) - set(found))
    if missing:
        there = ", ".join(map(str, found))
        raise CommandError(
            f"nothing of partition {', '.join(map(str, missing))} in Redis", hint=f"there is something of {there}"
        )
    return sorted(set(wanted))


def _show(settings: Settings, wanted: Sequence[int] | None, *, as_json: bool) -> int:
    with redis_store(settings) as store:
        found = inspect.show(store)
    if not found and not as_json:
        raise nothing_here(settings)
    chosen = choose([one.partition for one in found], wanted)
    shown = [one for one in found if one.partition in chosen]
    if as_json:
        print(json.dumps([_document(one) for one in shown]))
    else:
        _print(Console(), shown)
    return 0


def _document(one: PartitionState) -> dict[str, object]:
    meta = None if one.meta is None else asdict(one.meta)
    if meta is not None:
        meta["fields"] = one.meta.fields.split(",") if one.meta and one.meta.fields else []
    return {
        "partition": one.partition,
        **(meta or {"generation": None, "watermark": None}),
        "stocks": one.stocks,
        "bytes": one.bytes,
        "old_generations": one.old_generations,
    }


def _print(console: Console, found: list[PartitionState]) -> None:
    """A row for each partition; what all of them share stands above it once."""
    metas = [one.meta for one in found if one.meta is not None]
    shared = {
        "cluster": {plain(meta.cluster_id) for meta in metas},
        "model": {plain(meta.model) for meta in metas},
        "depth": {count(meta.depth) for meta in metas},
        "layout": {str(meta.layout) for meta in metas},
    }
    title = " · ".join(f"{name} {next(iter(values))}" for name, values in shared.items() if len(values) == 1)
    own = [name for name, values in shared.items() if len(values) > 1]
    console.print(Text(title), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("partition", "watermark", "stocks", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("generation", *own):
        table.add_column(name, overflow="fold")
    notes = any(_notes(one) for one in found)
    if notes:
        table.add_column("notes", overflow="fold")
    for one in found:
        row = [str(one.partition), *["-"] * (4 + len(own))]
        if one.meta is not None:
            meta = one.meta
            cells = {"cluster": plain(meta.cluster_id), "model": plain(meta.model)}
            cells |= {"depth": count(meta.depth), "layout": str(meta.layout)}
            row = [str(one.partition), count(meta.watermark), count(one.stocks), _size(one.bytes), meta.generation]
            row += [cells[name] for name in own]
        table.add_row(*map(Text, row), *([Text(_notes(one), "yellow")] if notes else []))
    console.print(table)
    console.print(Text(f"{count(sum(one.stocks for one in found))} stocks, {_size(sum(one.bytes for one in found))}"))


def _notes(one: PartitionState) -> str:
    notes = []
    if one.meta is None:
        notes.append("no meta: not usable, will be rebuilt")
    elif one.meta.fields:
        notes.append(f"fields {plain(one.meta.fields)}")
    if one.meta is not None and one.meta.rejected:
        notes.append(f"{count(one.meta.rejected)} dead letters in a row")
    if one.old_generations:
        notes.append(f"old generations: {len(one.old_generations)}")
    return "; ".join(notes)


def _reset(settings: Settings, wanted: Sequence[int] | None, *, asks: bool) -> int:
    with redis_store(settings) as store:
        found = inspect.partitions(store)
        if not found:
            raise nothing_here(settings)
        chosen = choose(found, wanted)
        if asks and not _agreed(settings, store, chosen):
            print("nothing was deleted", file=sys.stderr)
            return 1
        for partition in chosen:
            print(f"partition {partition}: {count(inspect.reset(store, partition))} keys deleted", flush=True)
    return 0


def _agreed(settings: Settings, store: RedisStore, chosen: list[int]) -> bool:
    try:
        stocks = count(sum(one.stocks for one in inspect.show(store) if one.partition in chosen))
    except StoreRefused:  # a meta that cannot be read is a reason to reset
        stocks = "an unknown number of"
    print(
        f"delete the histories of {stocks} stocks on partition {', '.join(map(str, chosen))} (group "
        f"{settings.kafka.group_id}, topic {settings.kafka.input_topic}, Redis {settings.redis.address})? [y/N] ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _size(n: int) -> str:
    for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if n >= size:
            return f"{n / size:,.1f} {name}"
    return f"{n} B"
