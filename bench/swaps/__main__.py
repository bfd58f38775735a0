"""`python -m bench.swaps`: does a model change slow the stream down, and does it leave memory behind?"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import ROOT, publish, say
from bench.swaps.measure import AFTER, BEFORE, CLOSE, OTHER, SAME, SETTLE, Load, measure
from bench.throughput.report import machine

GROWTH, RATIO = 20e6, 2.0  # what the project promises


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.swaps", description=__doc__)
    parser.add_argument("--swaps", type=int, default=50, help="how often the model changes (default 50)")
    parser.add_argument("--every", type=float, default=12.0, help="seconds from one to the next (default 12)")
    parser.add_argument("--settle", type=float, default=SETTLE, help=f"seconds before the first (default {SETTLE:g})")
    parser.add_argument("--rate", type=int, default=1_000, help="updates/s, at most 1,000 (default)")
    parser.add_argument("--stocks", type=int, default=1_000, help="stocks (default 1,000)")
    parser.add_argument(
        "--broker", choices=("in-memory", "embedded", "apache"), default="in-memory", help="default: in-memory"
    )
    parser.add_argument("--shadow", action="store_true", help="a candidate runs in shadow all the while")
    parser.add_argument("--out", type=Path, help="folder for swaps.json and swaps.md; default: bench/results, if whole")
    args = parser.parse_args()
    if args.out is None and args.swaps >= 50 and not args.shadow:
        args.out = ROOT / "bench" / "results"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: every child is stopped on the way out
    host = machine()
    if host["load_before"] > 0.5 * host["cores"]:
        say(f"*** this machine is busy (load {host['load_before']}): the figures will tell of that, not of us ***")
    minutes = (args.settle + (args.swaps + len(OTHER)) * args.every) / 60
    say(f"{args.swaps} swaps, one each {args.every:g} s: {minutes:.0f} min ...")
    found = measure(Load(args.broker, args.swaps, args.every, args.settle, args.rate, args.stocks, args.shadow))
    document: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m bench.swaps", *sys.argv[1:]]),
        "machine": host,
        "summary": summary(found),
        **found,
    }
    publish("swaps", document, markdown(document), args.out)
    return 0


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """What is claimed, and what it is made of."""
    swaps = found["swaps"]
    before = statistics.median(swap["p99_before"] for swap in swaps)
    return {
        "grown_bytes": found["grown"],
        "grown_by_other_shapes_bytes": found["grown_by_other_shapes"],
        "settling_bytes": found["settling"],
        "grown_is_kept": found["grown"] < GROWTH,
        "p99_before_ms": before,
        "p99_whole_ms": statistics.median(swap["p99_whole"] for swap in swaps),
        "p99_close_ms": statistics.median(swap["p99_close"] for swap in swaps),
        "ratio_whole": statistics.median(swap["p99_whole"] / swap["p99_before"] for swap in swaps),
        "ratio_close": statistics.median(swap["p99_close"] / swap["p99_before"] for swap in swaps),
        "ratio_is_kept": statistics.median(swap["p99_close"] / swap["p99_before"] for swap in swaps) < RATIO,
        "above_twice_whole": sum(swap["p99_whole"] > RATIO * swap["p99_before"] for swap in swaps),
        "above_twice_close": sum(swap["p99_close"] > RATIO * swap["p99_before"] for swap in swaps),
        "took_s": statistics.median(swap["took"] for swap in swaps),
        "took_longest_s": max(swap["took"] for swap in swaps),
        "longest_ms": max(swap["longest"] for swap in swaps),
        "longest_other_ms": max(swap["longest"] for swap in found["other_shapes"]),
    }


def markdown(document: dict[str, Any]) -> str:
    """The result as a page."""
    told, host, load, swaps = document["summary"], document["machine"], document["load"], document["swaps"]
    changed = f" with {host['changed_files']} changed files" if host["changed_files"] else ""
    beside = ", and a candidate in shadow all the while" if load["shadow"] else ""
    where = f"{host['cpu']}, {host['cores']} cores, {host['memory_gb']} GB; load before the run {host['load_before']}"
    count, settle = len(swaps), f"{load['settle']:g} s"
    above = f"above in {told['above_twice_close']} of {count}; {told['above_twice_whole']} over the whole"
    rows = [
        ("memory, first swap to end", f"{told['grown_bytes'] / 1e6:+.1f} MB", f"< {GROWTH / 1e6:.0f} MB"),
        ("memory of two more shapes, once each", f"{told['grown_by_other_shapes_bytes'] / 1e6:+.1f} MB", ""),
        (f"memory in the {settle} before, no swap", f"{told['settling_bytes'] / 1e6:+.1f} MB", ""),
        (f"p99 in the {BEFORE:g} s before a pointer is moved", f"{told['p99_before_ms']:.1f} ms", ""),
        (f"p99 in the {2 * CLOSE:g} s around the takeover", f"{told['p99_close_ms']:.1f} ms", ""),
        (f"p99 from the pointer to {AFTER:g} s after the takeover", f"{told['p99_whole_ms']:.1f} ms", ""),
        ("p99 around the takeover / before", f"{told['ratio_close']:.2f} ({above})", f"< {RATIO:g}"),
        ("p99 over the whole / before", f"{told['ratio_whole']:.2f}", f"< {RATIO:g}"),
        ("pointer to first output", f"{told['took_s']:.1f} s, at most {told['took_longest_s']:.1f} s", "10 s"),
        ("longest way of one update", f"{told['longest_ms']:.0f} ms", ""),
        ("the same where a shape was compiled", f"{told['longest_other_ms']:.0f} ms", ""),
    ]
    lines = [
        "# Model swaps under load",
        "",
        f"Machine: {where}. Broker ({load['broker']}), Redis, worker and reader share it.",
        f"Commit `{host['commit'][:12]}`{changed}. Date: {document['date']}. By `{document['command']}`.",
        "",
        f"{load['rate']:,} updates/s over {load['stocks']:,} stocks{beside}, {settle} before the first swap.",
        f"The pointer was moved {count} times, every {load['every']:g} s, among {SAME} versions of one shape;",
        "then twice to networks of another width, which are compiled when they are first met. Times are from",
        "produce() to the record in the hands of a read_committed reader, medians over the swaps.",
        "",
        "| | measured | promised |",
        "|---|---|---|",
        *(f"| {what} | {measured} | {promised} |" for what, measured, promised in rows),
        "",
        "| swap | took s | p99 before ms | around | whole | longest | memory MB | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, swap in enumerate([*swaps, *document["other_shapes"]], start=1):
        numbers = [f"{swap[name]:.1f}" for name in ("took", "p99_before", "p99_close", "p99_whole", "longest")]
        note = "" if number <= count else "compiled"
        lines.append(f"| {number} | {' | '.join(numbers)} | {swap['resident'] / 1e6:.1f} | {note} |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
