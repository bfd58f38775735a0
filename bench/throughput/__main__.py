"""`python -m bench.throughput`: the whole measurement, one command, one machine."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.machine import publish, say
from bench.throughput import report
from bench.throughput.backlog import ceiling, naive, service
from bench.throughput.ground import ROOT, Missing
from bench.throughput.latency import latency
from bench.throughput.memory import memory
from consumer.cli_errors import CommandError
from consumer.settings import Batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.throughput.backlog import Result
    from bench.throughput.report import Runs

PARTS = ("ceiling", "service", "predict", "call", "latency", "memory")
DESCRIPTION = """\
Measures, with a broker and a Redis of its own:
  ceiling   (a) a bare consume -> produce loop, exactly once, one transaction per batch
  service   (b) downtick as its own process on a backlog, stage by stage
  predict   (c) the loop a user would write: one record, three Redis round trips, model.predict, produce
  call      (d) the same with the Keras model called directly
  latency   produce to visible-to-a-read_committed-reader at a steady rate, downtick and the bare loop,
            on the embedded broker (its files on disk, and in memory) and on Apache Kafka (if java and mvn are there)
  memory    the worker's peak with very many stocks whose rings are full
A full run takes about half an hour on two cores that do nothing else. Its results go to bench/results/throughput.json
and .md; those of a run that is cut down (--quick, --only) are only printed, unless --out says where to."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.throughput", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="repeats of each measurement (default 3)")
    parser.add_argument("--updates", type=int, default=400_000, help="the backlog (default 400,000)")
    parser.add_argument("--stocks", type=int, default=5_000, help="stocks in the backlog (default 5,000)")
    parser.add_argument(
        "--broker", choices=("embedded", "apache"), default="embedded", help="for the throughput and memory parts"
    )
    parser.add_argument("--naive-seconds", type=float, default=60, help="how long each naive loop runs (default 60)")
    parser.add_argument("--rate", type=int, default=1_000, help="updates/s of the latency part (default 1,000)")
    parser.add_argument("--latency-seconds", type=float, default=60, help="how long it is offered (default 60)")
    parser.add_argument("--latency-stocks", type=int, default=1_000, help="stocks of the latency part (default 1,000)")
    parser.add_argument("--memory-stocks", type=int, default=100_000, help="stocks of the memory part")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help="just this part (repeatable)")
    parser.add_argument("--quick", action="store_true", help="one short run of each: does it work at all?")
    parser.add_argument("--out", type=Path, help="folder for throughput.json and throughput.md")
    args = parser.parse_args()
    if args.rate > 1_000:
        parser.error("--rate: at most 1,000, updates are told apart by their millisecond")
    if args.quick:
        args.runs, args.updates, args.stocks = 1, min(args.updates, 60_000), min(args.stocks, 2_000)
        args.naive_seconds, args.latency_seconds = min(args.naive_seconds, 5), min(args.latency_seconds, 5)
        args.memory_stocks = min(args.memory_stocks, 5_000)
    if args.out is None and not (args.quick or args.only):
        args.out = ROOT / "bench" / "results"
    return args


def _plan(args: argparse.Namespace, number: int) -> list[tuple[str, Callable[[], Result]]]:
    """One round of measurements, by name; the first has all of them."""
    parts = args.only or PARTS
    plan: list[tuple[str, Callable[[], Result]]] = []
    broker, stocks = args.broker, args.stocks
    if "ceiling" in parts:
        plan.append(("ceiling", partial(ceiling, broker, args.updates, stocks)))
    if "service" in parts:
        plan.append(("service", partial(service, broker, args.updates, stocks)))
    for kind in ("predict", "call"):
        if kind in parts:
            plan.append((kind, partial(naive, broker, kind, stocks, args.naive_seconds)))  # noqa: PERF401  # one line per part reads better
    if "latency" in parts:
        # In memory once: it tells how much of a tail is this machine's disk, which does not change.
        brokers = ("embedded", "apache") if number else ("embedded", "in-memory", "apache")
        pairs = [(where, kind) for where in brokers for kind in ("ceiling", "service")]
        load = (args.latency_stocks, args.rate, args.latency_seconds)
        plan.extend((f"latency {where} {kind}", partial(latency, where, kind, *load)) for where, kind in pairs)
    if "memory" in parts:
        plan.append(("memory", partial(memory, broker, args.memory_stocks)))
    return plan


def _measure(args: argparse.Namespace, notes: list[str]) -> Runs:
    runs: Runs = {}
    missing: set[str] = set()
    for number in range(args.runs):
        for name, measure in _plan(args, number):
            if name in missing:
                continue
            say(f"run {number + 1} of {args.runs}: {name} ...")
            try:
                result = measure()
            except Missing as error:
                missing.add(name)
                notes.append(f"{name}: {error}")
                say(f"\n*** SKIPPED {name}: {error} ***\n")
                continue
            runs.setdefault(name, []).append(result)
            say("    " + ", ".join(f"{key} {value:,.6g}" for key, value in result.items()))
    return runs


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    args = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)  # like Ctrl-C: every child is stopped on the way out
    started = time.monotonic()
    notes: list[str] = []
    machine = report.machine()
    if machine["load_before"] > 0.5 * machine["cores"]:
        say(f"*** this machine is busy (load {os.getloadavg()[0]:.1f}): the figures will tell of that, not of us ***")
    runs = _measure(args, notes)
    document: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m bench.throughput", *sys.argv[1:]]),
        "seconds": round(time.monotonic() - started),
        "machine": machine,
        "kafka": report.kafka_version() if any("apache" in name for name in runs) or args.broker == "apache" else None,
        "input": {
            "runs": args.runs,
            "updates": args.updates,
            "stocks": args.stocks,
            "broker": args.broker,
            "batch": Batch().max_events,
            "naive_seconds": args.naive_seconds,
            "rate": args.rate,
            "latency_seconds": args.latency_seconds,
            "latency_stocks": args.latency_stocks,
        },
        "summary": report.summary(runs),
        "runs": runs,
        "notes": notes,
    }
    publish("throughput", document, report.markdown(document), args.out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except CommandError as error:
        sys.exit(f"bench.throughput: {error}")
