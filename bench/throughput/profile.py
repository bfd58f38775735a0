"""Where the worker's time goes: the service under a sampling profiler of its own.

    python -m bench.throughput.profile                    a backlog through a sampled worker; prints its hottest lines
    python -m bench.throughput.profile --into FILE        (the worker itself, started by the above)

A thread looks at the engine's thread every millisecond and counts the lines it stands on: no tracing, so that small
functions do not look larger than they are. A line that is in C (json, produce, commit, XLA) counts as the line that
called it."""

from __future__ import annotations

import argparse
import collections
import gc
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

EVERY = 0.001


class Sampler(threading.Thread):
    """Counts (file, line, function) of the engine's thread: where it stands, and through what it came there."""

    def __init__(self, into: Path) -> None:
        super().__init__(name="sampler", daemon=True)
        self._into = into
        self._leaves: collections.Counter[str] = collections.Counter()
        self._functions: collections.Counter[str] = collections.Counter()
        self._total = 0
        self._pauses: list[list[float]] = [[], [], []]  # seconds of garbage collections, by generation
        self._collecting = 0.0
        gc.callbacks.append(self._collected)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "stop":
            self._pauses[info["generation"]].append(now - self._collecting)
        self._collecting = now

    def run(self) -> None:
        written = time.monotonic()
        while True:
            time.sleep(EVERY)
            engine = next((thread.ident for thread in threading.enumerate() if thread.name == "engine"), None)
            frame = sys._current_frames().get(engine or 0)  # noqa: SLF001  # the only way to a thread's frame
            if frame is not None:
                self._count(frame)
            if time.monotonic() - written > 0.5:
                written = time.monotonic()
                counts = {
                    "total": self._total,
                    "lines": self._leaves,
                    "functions": self._functions,
                    "pauses": self._pauses,
                }
                scratch = self._into.with_suffix(".new")
                scratch.write_text(json.dumps(counts), encoding="utf-8")
                scratch.replace(self._into)

    def _count(self, frame: object) -> None:
        where, seen = frame, set()
        while where is not None:
            code = where.f_code  # type: ignore[attr-defined]  # a frame
            name = f"{os.path.relpath(code.co_filename)}:{code.co_name}"
            if name not in seen:
                seen.add(name)
                self._functions[name] += 1
            if where is frame:
                self._leaves[f"{os.path.relpath(code.co_filename)}:{where.f_lineno} {code.co_name}"] += 1  # type: ignore[attr-defined]  # as above
            where = where.f_back  # type: ignore[attr-defined]  # as above
        self._total += 1


def _worker(into: Path) -> int:
    from consumer import cli  # noqa: PLC0415  # only in the worker

    Sampler(into).start()
    sys.argv = ["downtick", "run"]
    return cli.main()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.throughput.profile", description=__doc__.partition("\n")[0])
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--updates", type=int, default=400_000)
    parser.add_argument("--stocks", type=int, default=5_000)
    parser.add_argument("--top", type=int, default=40, help="lines to show")
    args = parser.parse_args()
    if args.into:
        return _worker(args.into)
    from bench.throughput.backlog import service  # noqa: PLC0415  # not in the worker

    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "samples.json"
        result = service("embedded", args.updates, args.stocks, into)
        found = json.loads(into.read_text(encoding="utf-8"))
    print(json.dumps(result, indent=1))
    for generation, pauses in enumerate(found["pauses"]):
        longest = max(pauses, default=0.0)
        print(f"gc of generation {generation}: {len(pauses)}, {sum(pauses):.3f} s, longest {longest:.3f} s")
    working = found["total"]
    for title in ("lines", "functions"):
        print(f"\n{title}, % of {working} samples (waiting for records included)")
        for name, count in collections.Counter(found[title]).most_common(args.top):
            print(f"{count / working:7.1%}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
