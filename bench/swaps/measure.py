"""A load at a steady rate, and a pointer that is moved under it again and again.

    pointer written        looked at, loaded, verified, warmed       first output of the new version
    ----|------------------------------------------------------------------|----------------------->
        '-- whole: from here to 2 s after the takeover; what is judged ----------'
    -5 s '-- before                                              '- close: 1 s to each side -'

One clock: a stamp just before produce(), one when the read_committed reader holds the prediction, one at a pointer."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.throughput.backlog import WARM_UP
from bench.throughput.ground import Ground, Progress, Worker
from bench.throughput.latency import Reader
from bench.throughput.market import Market, send, send_paced
from model import versions
from tests.support.variants import variant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BEFORE, AFTER, CLOSE = 5.0, 2.0, 1.0  # seconds of the windows
SETTLE = 120.0  # before the first swap: the texts of 65,536 times are cached, which takes 65 s and some 13 MB
SAME = 3  # versions of the shipped shape, which take turns
OTHER = (24, 48)  # widths of two more, which are met once at the end: they have to be compiled
_TOLD = re.compile(rb'"ts":"([^"]+)".*"model":"([^"]+)"')


@dataclass(frozen=True)
class Load:
    """What is offered, and how often the model changes under it."""

    broker: str
    swaps: int
    every: float  # seconds
    settle: float  # seconds at full rate before the first
    rate: int  # updates a second
    stocks: int
    shadow: bool  # a candidate runs in shadow all the while


@dataclass
class Swap:
    """One of them. Milliseconds; seconds for `took`; bytes for `resident`, measured just before it."""

    took: float  # from the pointer to the first output
    p99_before: float = 0.0
    p99_whole: float = 0.0
    p99_close: float = 0.0
    longest: float = 0.0  # of the whole window
    resident: int = 0


class _Hand(threading.Thread):
    """Moves the pointer, and notes when, and how much memory the worker holds then."""

    def __init__(self, load: Load, folder: Path, names: Sequence[str], worker: Worker) -> None:
        super().__init__(name="hand", daemon=True)
        self._load, self._folder, self._names, self._worker = load, folder, names, worker
        self.moved: list[tuple[int, str]] = []  # monotonic ns, and the folder's name
        self.resident: list[int] = []
        self.at_start = 0

    def run(self) -> None:
        start, self.at_start = time.monotonic() + self._load.settle, resident(self._worker.pid)
        for number, name in enumerate(self._names):
            time.sleep(max(0.0, start + number * self._load.every - time.monotonic()))
            self.resident.append(resident(self._worker.pid))
            versions.activate(self._folder, name)
            self.moved.append((time.monotonic_ns(), name))


def resident(pid: int) -> int:
    """Bytes of memory a process has now."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def measure(load: Load) -> dict[str, Any]:
    """All swaps, each with its windows.

    Raises: RuntimeError if an update has no prediction, or a swap did not happen."""
    market = Market(load.stocks, load.rate)
    with Ground(load.broker) as ground:
        folder = ground.folder / "models"
        made, names = _versions(folder, load.swaps)
        versions.activate(folder, "start")
        if load.shadow:
            versions.shadow(folder, "candidate")
        ground.environ["DOWNTICK_MODEL__PATH"] = str(folder)
        topic, servers = ground.settings.kafka.input_topic, ground.bootstrap_servers()
        progress = Progress(ground)
        warm_up = send(servers, topic, market.updates((WARM_UP + 10) * load.stocks))
        with ground.worker() as worker:
            worker.wait_ready()
            progress.wait_for(warm_up, worker)
            progress.close()
            with Reader(ground) as reader:
                time.sleep(1)  # its first fetches are out
                seconds = load.settle + len(names) * load.every + BEFORE
                count = int(load.rate * seconds)
                hand = _Hand(load, folder, names, worker)
                hand.start()
                sent = send_paced(servers, topic, market.updates(count), load.rate, lambda: not worker.alive())
                deadline = time.monotonic() + 20
                while len(reader.seen) < count and time.monotonic() < deadline:
                    worker.check()
                    time.sleep(0.05)
                at_end, metrics = resident(worker.pid), worker.metrics()
    told = [(at, match[1], match[2].decode()) for at, value in reader.seen if (match := _TOLD.search(value))]
    if len(told) != count or {ts for _, ts, _ in told} != sent.keys():
        raise RuntimeError(f"{count} updates sent, {len(told)} predictions seen")
    taken = metrics['downtick_model_swaps_total{outcome="activated"}']
    if taken != len(names):
        raise RuntimeError(f"{len(names)} pointers written, {taken:.0f} swaps")
    swaps = [asdict(swap) for swap in _swaps(hand, told, sent, made)]
    return {
        "load": asdict(load),
        "updates": count,
        "swaps": swaps[: load.swaps],
        "other_shapes": swaps[load.swaps :],
        "grown": hand.resident[load.swaps] - hand.resident[0],
        "grown_by_other_shapes": at_end - hand.resident[load.swaps],
        "settling": hand.resident[0] - hand.at_start,
    }


def _versions(folder: Path, swaps: int) -> tuple[dict[str, str], list[str]]:
    """The version of each folder, and the folders in the order of the swaps."""
    same = [f"same-{number}" for number in range(SAME)]
    made = {name: variant(folder / name, seed=seed) for seed, name in enumerate([*same, "start", "candidate"])}
    other = {f"wide-{units}": units for units in OTHER}
    made |= {name: variant(folder / name, seed=units, units=units) for name, units in other.items()}
    return made, [*(same[number % SAME] for number in range(swaps)), *other]


def _swaps(hand: _Hand, told: list[tuple[int, bytes, str]], sent: dict[bytes, int], made: dict[str, str]) -> list[Swap]:
    produced = np.array([sent[ts] for _, ts, _ in told])
    arrived = np.array([at for at, _, _ in told])
    order = produced.argsort()
    produced, ms = produced[order], (arrived - produced)[order] / 1e6
    found = []
    for (moved, name), resident_before in zip(hand.moved, hand.resident, strict=True):
        taken = min(at for at, _, version in told if version == made[name] and at > moved)
        swap = Swap(took=(taken - moved) / 1e9, resident=resident_before)
        before = _within(produced, ms, moved - BEFORE * 1e9, moved)
        whole = _within(produced, ms, moved, taken + AFTER * 1e9)
        close = _within(produced, ms, taken - CLOSE * 1e9, taken + CLOSE * 1e9)
        swap.p99_before, swap.p99_whole, swap.p99_close = (float(np.percentile(x, 99)) for x in (before, whole, close))
        swap.longest = float(whole.max())
        found.append(swap)
    return found


def _within(produced: NDArray[np.int64], ms: NDArray[np.float64], start: float, end: float) -> NDArray[np.float64]:
    first, last = produced.searchsorted([start, end]).tolist()
    return ms[first:last]
