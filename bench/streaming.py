"""`python -m bench.streaming`: memory of training on a data set whose windows do not fit into memory.

Made-up walks of many stocks and 16 columns; a dense network, because its arithmetic is small beside the cutting of
windows, goes through all of them once. Told: what the windows would take, what the values take, and by how much the
process grew meanwhile. Linux and glibc only: what is free within the process is given back and the kernel's mark of the
highest memory set back before, or what was needed to make the data would hide some of it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
import time
from pathlib import Path

import numpy as np

from bench.machine import ROOT, host, publish, say
from model.dataset import Series, Table
from model.examples import make
from model.fit import Progress, fit
from model.inputs import Inputs
from model.manifest import Architecture, LabelRule

STOCKS, STEPS, WINDOW, CHANNELS = 2000, 2000, 128, 16
PACKAGES = ("numpy", "tensorflow-cpu", "tensorflow", "keras", "downtick")


def main() -> int:
    rng = np.random.default_rng(1)
    days = np.arange(STEPS, dtype=np.int64) * 86_400_000
    unknown = np.full(STEPS, np.nan, np.float32)
    series = tuple(
        Series(f"S{i}", days, 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (STEPS, CHANNELS)), axis=0)), unknown)
        for i in range(STOCKS)
    )
    table = Table(series, ("made up",), "0" * 64, STOCKS * STEPS, 0, "value")
    inputs = Inputs(WINDOW, ("value", *(f"field{i}" for i in range(1, CHANNELS))))
    data = make(table, LabelRule(rule="regime", look_ahead=8), inputs)
    values, windows = data.series.nbytes, len(data) * WINDOW * CHANNELS * 4
    del table, series
    small = data.take(np.arange(20_000))
    fit(small, None, Architecture(kind="dense"), epochs=1)  # what TensorFlow and its compiler take by themselves
    before, started = _peak_from_now(), time.monotonic()

    def told(step: Progress) -> None:
        if step.done % 500 < 20:
            say(f"{step.done:,} of {step.batches:,} batches, peak {_peak() / 2**30:.2f} GiB")

    fit(data, None, Architecture(kind="dense"), epochs=1, report=told)
    seconds, grown = time.monotonic() - started, _peak() - before
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {
        "machine": host(PACKAGES),
        "windows": len(data),
        "window_bytes": windows,
        "memory_of_the_machine": memory,
        "value_bytes": values,
        "before": before,
        "grown_by": grown,
        "windows_over_growth": windows / grown,
        "seconds": seconds,
    }
    what = (
        f"One epoch over {len(data):,} windows of {WINDOW} steps and {CHANNELS} channels (`python -m bench.streaming`)"
    )
    lines = [
        "# Training on windows that do not fit into memory",
        "",
        f"{what}: {len(data) / seconds:,.0f} a second.",
        "",
        "| | GiB |",
        "|---|---|",
        f"| the windows, as float32, if they stood in memory | {windows / 2**30:.1f} |",
        f"| memory of the machine | {memory / 2**30:.1f} |",
        f"| the values they are cut from | {values / 2**30:.2f} |",
        f"| the process before training, values included | {before / 2**30:.2f} |",
        f"| what it grew by at most while training | {grown / 2**30:.2f} |",
        "",
        f"The windows would be {windows / grown:,.0f} times that growth.",
    ]
    publish("streaming", found, "\n".join(lines), ROOT / "bench" / "results")
    return 0


def _peak_from_now() -> int:
    """Give back what is free, and forget how large the process ever was; gives how large it is."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _peak() -> int:
    """Bytes: the most memory that was resident since the last `_peak_from_now`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None  # noqa: S101  Linux tells it
    return int(found[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
