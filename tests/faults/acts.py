"""What scenarios wait for, in words."""

import signal
import threading
import time
from collections.abc import Callable

from tests.support.processes import wait_until
from tests.support.service import Service
from tests.support.system import System

SHORT = {"session.timeout.ms": "3000", "heartbeat.interval.ms": "300"}  # a silent member is replaced after 3 s
PARTITIONS = 6
SLOW = 90  # seconds for what takes two on a quiet machine


def works_on(worker: Service, updates: int = 300) -> None:
    """It is up, and handles so many more records."""
    wait_until(
        lambda: worker.get("/metrics")[0] == 200, within=SLOW, what=lambda: f"{worker.name} up\n{worker.process.tail()}"
    )
    before = worker.metric("events_consumed_total")
    wait_until(
        lambda: worker.metric("events_consumed_total") >= before + updates,
        within=SLOW,
        what=lambda: f"{worker.name} works: {worker.get('/ready')}\n{_stacks(worker)}",
    )


def _stacks(worker: Service) -> str:
    """What its threads are doing, told by Python's faulthandler as it ends."""
    worker.process.signal(signal.SIGABRT)
    wait_until(lambda: not worker.running, within=10, what="an end by SIGABRT")
    return worker.process.tail(120)


def holds(worker: Service, partitions: int) -> None:
    """It has come to hold so many partitions, and all of them are seated."""
    wait_until(
        lambda: worker.ready and worker.metric("assigned_partitions") == partitions,
        within=SLOW,
        what=lambda: f"{worker.name} holds {partitions} partitions: {worker.get('/ready')}\n{worker.process.tail()}",
    )


def share(*workers: Service) -> None:
    """They hold all partitions together, each some, and all are ready."""

    def shared() -> bool:
        if not all(worker.ready for worker in workers):
            return False
        held = [worker.metric("assigned_partitions") for worker in workers]
        return sum(held) == PARTITIONS and min(held) > 0

    wait_until(
        shared,
        within=SLOW,
        what=lambda: "\n".join(["shared partitions", *(worker.process.tail(25) for worker in workers)]),
    )


def moves_on(system: System, before: dict[int, int]) -> None:
    """Every partition's committed offset comes past where it was."""

    def moved() -> bool:
        now = system.committed()
        return all(now.get(partition, -1) > offset for partition, offset in before.items())

    wait_until(
        moved,
        within=SLOW,
        every=0.2,
        what=lambda: "\n".join(
            [f"commits past {before}: {system.committed()}", *(w.process.tail(25) for w in system.workers.values())]
        ),
    )


def waits_alive(seconds: float, *workers: Service, check: Callable[[], None] = lambda: None) -> None:
    """For so long they are alive and not ready, and `check` does not raise."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for worker in workers:
            assert worker.running, f"{worker.name} ended with {worker.process.exit_code}\n{worker.process.tail()}"
            assert worker.live, f"{worker.name} is not live\n{worker.process.tail()}"
            assert not worker.ready, f"{worker.name} calls itself ready\n{worker.process.tail()}"
        check()
        threading.Event().wait(1)


def undone(worker: Service) -> float:
    """Transactions that it began and that did not come about at once."""
    return worker.metric("transactions_total", outcome="aborted") + worker.metric(
        "transactions_total", outcome="unknown"
    )
