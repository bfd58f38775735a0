"""`python -m bench.swaps`: does a model change slow the stream down, and does it leave memory behind?"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import ROOT, publish, say
from bench.swaps.measure import AFTER, BEFORE, CLOSE, OTHER, SAME, SETTLE, Load, measure
from bench.throughput.ground import Missing
from bench.throughput.report import machine

GROWTH, RATIO = 20e6, 2.0  # what the project promises
ENDS = 10  # swaps at the beginning and at the end of a run, whose times before are told beside each other


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.swaps", description=__doc__)
    parser.add_argument("--swaps", type=int, default=50, help="how often the model changes (default 50)")
    parser.add_argument("--every", type=float, default=12.0, help="seconds from one to the next (default 12)")
    parser.add_argument("--settle", type=float, default=SETTLE, help=f"seconds before the first (default {SETTLE:g})")
    parser.add_argument("--rate", type=int, default=1_000, help="updates/s, at most 1,000 (default)")
    parser.add_argument("--stocks", type=int, default=1_000, help="stocks (default 1,000)")
    parser.add_argument(
        "--broker",
        choices=("apache", "in-memory", "embedded"),
        default="apache",
        help="default: apache, which needs java and mvn; the others slow down as their log grows, in minutes",
    )
    parser.add_argument("--shadow", action="store_true", help="a candidate runs in shadow all the while")
    parser.add_argument("--out", type=Path, help="folder for swaps.json and swaps.md; default: bench/results, if whole")
    parser.add_argument(
        "--judge", type=Path, metavar="F.json", help="judge and write an earlier run again; nothing is measured"
    )
    args = parser.parse_args()
    if args.judge is not None:
        document: dict[str, Any] = json.loads(args.judge.read_text(encoding="utf-8"))
        document["summary"] = summary(document)
        publish("swaps", document, markdown(document), args.out)
        return 0
    if args.out is None and args.swaps >= 50 and not args.shadow:
        args.out = ROOT / "bench" / "results"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: every child is stopped on the way out
    host = machine()
    if host["load_before"] > 0.5 * host["cores"]:
        say(f"*** this machine is busy (load {host['load_before']}): the figures will tell of that, not of us ***")
    minutes = (args.settle + (args.swaps + len(OTHER)) * args.every) / 60
    say(f"{args.swaps} swaps, one each {args.every:g} s: {minutes:.0f} min ...")
    try:
        found = measure(Load(args.broker, args.swaps, args.every, args.settle, args.rate, args.stocks, args.shadow))
    except Missing as missing:
        say(f"{missing}; or try --broker in-memory")
        return 2
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m bench.swaps", *sys.argv[1:]]),
        "machine": host,
        "summary": summary(found),
        **found,
    }
    publish("swaps", document, markdown(document), args.out)
    return 0


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """What is claimed, and what it is made of.

    The claim is of the whole time from the pointer on: loading, verifying and warming go on beside the stream long
    before the takeover, and what they cost it must count."""
    swaps, others = found["swaps"], found["other_shapes"]
    before = [swap["p99_before"] for swap in swaps]
    whole = [swap["p99_whole"] / swap["p99_before"] for swap in swaps]
    above = sum(ratio > RATIO for ratio in whole)
    return {
        "grown_bytes": found["grown"],
        "grown_by_other_shapes_bytes": found["grown_by_other_shapes"],
        "settling_bytes": found["settling"],
        "grown_is_kept": found["grown"] < GROWTH,
        "p99_before_ms": statistics.median(before),
        "p99_before_first_ms": statistics.median(before[:ENDS]),
        "p99_before_last_ms": statistics.median(before[-ENDS:]),
        "p99_whole_ms": statistics.median(swap["p99_whole"] for swap in swaps),
        "p99_close_ms": statistics.median(swap["p99_close"] for swap in swaps),
        "ratio_whole": statistics.median(whole),
        "ratio_whole_largest": max(whole),
        "ratio_whole_other_shapes": max(swap["p99_whole"] / swap["p99_before"] for swap in others),
        "ratio_close": statistics.median(swap["p99_close"] / swap["p99_before"] for swap in swaps),
        "ratio_is_kept": statistics.median(whole) < RATIO,
        "above_twice": above,
        "above_twice_share": above / len(swaps),
        "took_s": statistics.median(swap["took"] for swap in swaps),
        "took_longest_s": max(swap["took"] for swap in swaps),
        "longest_ms": max(swap["longest"] for swap in swaps),
        "longest_other_ms": max(swap["longest"] for swap in others),
    }


def markdown(document: dict[str, Any]) -> str:
    """The result as a page."""
    told, host, load, swaps = document["summary"], document["machine"], document["load"], document["swaps"]
    changed = f" with {host['changed_files']} changed files" if host["changed_files"] else ""
    beside = ", and a candidate in shadow all the while" if load["shadow"] else ""
    where = f"{host['cpu']}, {host['cores']} cores, {host['memory_gb']} GB; load before the run {host['load_before']}"
    count, settle = len(swaps), f"{load['settle']:g} s"
    promised = f"median < {RATIO:g}"
    share = f"{told['above_twice_share']:.0%} of the swaps ({told['above_twice']} of {count})"
    first, last = (f"{told[f'p99_before_{end}_ms']:.1f} ms" for end in ("first", "last"))
    rows = [
        ("memory, first swap to end", f"{told['grown_bytes'] / 1e6:+.1f} MB", f"< {GROWTH / 1e6:.0f} MB"),
        ("memory of two more shapes, once each", f"{told['grown_by_other_shapes_bytes'] / 1e6:+.1f} MB", ""),
        (f"memory in the {settle} before, no swap", f"{told['settling_bytes'] / 1e6:+.1f} MB", ""),
        (f"p99 in the {BEFORE:g} s before a pointer is moved", f"{told['p99_before_ms']:.1f} ms", ""),
        (f"p99 from the pointer to {AFTER:g} s after the takeover", f"{told['p99_whole_ms']:.1f} ms", ""),
        ("the latter / the former", f"{told['ratio_whole']:.2f}, at most {told['ratio_whole_largest']:.2f}", promised),
        (f"above {RATIO:g}", share, ""),
        ("the same where a shape was compiled, at most", f"{told['ratio_whole_other_shapes']:.2f}", ""),
        (f"p99 in the {2 * CLOSE:g} s around the takeover", f"{told['p99_close_ms']:.1f} ms", ""),
        ("pointer to first output", f"{told['took_s']:.1f} s, at most {told['took_longest_s']:.1f} s", "10 s"),
        ("longest way of one update", f"{told['longest_ms']:.0f} ms", ""),
        ("longest where a shape was compiled", f"{told['longest_other_ms']:.0f} ms", ""),
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
        *(f"| {what} | {measured} | {wanted} |" for what, measured, wanted in rows),
        "",
        "What slows down both sides of a ratio it does not show: the p99 in the seconds before was",
        f"{first} in the first {ENDS} swaps and {last} in the last {ENDS}.",
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
