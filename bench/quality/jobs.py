"""Many trainings on two processes; results do not depend on which process ran what, or when."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any, TypeVar

from bench.machine import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Result = TypeVar("Result")
PROCESSES = 2


def run(jobs: Mapping[str, tuple[Callable[..., Result], tuple[Any, ...]]], what: str) -> dict[str, Result]:
    """The result of each job, in the order of the jobs; a job is a function of a module and its arguments.

    TensorFlow does not survive a fork: processes are started afresh."""
    found: dict[str, Result] = {}
    began = time.monotonic()
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(function, *arguments): name for name, (function, arguments) in jobs.items()}
        try:
            for done, future in enumerate(as_completed(waiting), 1):
                found[waiting[future]] = future.result()
                say(f"{what} {done}/{len(jobs)}: {waiting[future]}, {time.monotonic() - began:.0f} s")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {name: found[name] for name in jobs}
