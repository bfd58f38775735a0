"""Scenarios that mostly wait (for sessions to end, for servers to be away) run side by side, and report one by one."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Together(Generic[T]):
    """Starts the scenarios at once, in order, `at_once` of them at a time; `result` waits for one, and raises what it
    raised. Use it as a context in a module's fixture: a test for each name then tells which one failed."""

    def __init__(self, scenarios: Mapping[str, Callable[[], T]], at_once: int) -> None:
        self._pool = ThreadPoolExecutor(at_once, "scenario")
        self._futures: dict[str, Future[T]] = {name: self._pool.submit(run) for name, run in scenarios.items()}

    def __enter__(self) -> "Together[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def result(self, name: str) -> T:
        return self._futures[name].result()
