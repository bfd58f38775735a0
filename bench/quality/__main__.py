"""`python -m bench.quality PART`: one measurement of the model's quality, one command, one machine."""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.machine import ROOT, host, publish, say
from bench.quality import acl18, forecast, pages, regime, synthetic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PACKAGES = ("numpy", "tensorflow-cpu", "tensorflow", "keras", "scikit-learn", "lightgbm", "downtick")
REPLICATES = 1000
# What is measured, from how many seeds when nothing else is asked for, and how it is told.
PARTS: dict[str, tuple[Callable[..., dict[str, Any]], int, Callable[[Mapping[str, Any]], list[str]]]] = {
    "acl18": (acl18.measure, 10, pages.acl18),
    "regime": (regime.measure, 5, pages.regime),
    "forecast": (forecast.measure, 5, pages.forecast),
    "synthetic": (synthetic.measure, 3, pages.synthetic),
}
DESCRIPTION = """\
  acl18      the published benchmark: ten seeds a row, cross-validated, on the test days and on 2016-17
  regime     the flag against trailing slope, logistic regression, LightGBM and a dense network; ablation of options
  forecast   the forecast against the last value, its interval against EWMA volatility, on two data sets
  synthetic  series whose optimum is known: the share of it that is reached, and what is claimed of a random walk
Trains on two processes. Results go to bench/results/PART.json and .md; those of a run that is cut down (--quick, fewer
seeds) are only printed, unless --out says where to."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--seeds", type=int, help="networks from scratch for each row")
    parser.add_argument("--replicates", type=int, default=REPLICATES, help="of the bootstrap (default 1,000)")
    parser.add_argument("--quick", action="store_true", help="little of everything: does it work at all?")
    parser.add_argument("--out", type=Path, help="folder for the results")
    args = parser.parse_args()
    usual = PARTS[args.part][1]
    if args.out is None and not args.quick and (args.seeds or usual) >= usual and args.replicates >= REPLICATES:
        args.out = ROOT / "bench" / "results"
    args.seeds = args.seeds or (1 if args.quick else usual)
    return args


def main() -> int:
    args = _arguments()
    started = time.monotonic()
    machine = host(PACKAGES)
    if machine["load_before"] > 0.5 * machine["cores"]:
        say(f"*** this machine is busy (load {os.getloadavg()[0]:.1f}): it will take longer; numbers do not change ***")
    measure, _, page = PARTS[args.part]
    found = measure(args.seeds, args.replicates, quick=args.quick)
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m bench.quality", *sys.argv[1:]]),
        "seconds": round(time.monotonic() - started),
        "machine": machine,
        "replicates": args.replicates,
        **found,
    }
    publish(args.part, document, "\n".join([*page(document), *pages.foot(document)]), args.out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
