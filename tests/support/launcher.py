"""Starts the service with faults placed in it from outside: `python -m tests.support.launcher PLAN run …`.

The service has no switch for this. Before its code is imported, the clients it will use are wrapped: librdkafka's
Producer and Consumer, the Redis store's public methods, and redis-py's reading of an answer. Each wrapper writes the
step that now runs into a small shared file, so that whoever kills the process at random can name the step it hit; and
at the n-th pass of the planned step the process kills (or stops) itself, in the very thread and moment.

PLAN is JSON: {"marker": path, "step": name, "nth": 1, "action": "kill" | "stop", "delay": seconds}. Without a step
only the marker is kept. `nth` counts passes over the life of the process; it strikes once."""

import json
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka

STEPS = {
    "while_joining": "the group has given partitions, the service has not seen them yet",
    "while_seating": "a partition's meta was read, the partition is not seated",
    "before_begin": "a batch is in hand, no transaction is open",
    "half_way_through_produce": "half of the batch's first records are in the log, not committed",
    "after_send_offsets": "the transaction has everything, the commit was not asked for",
    "while_committing": "the commit is under way",
    "after_commit": "Kafka has the batch, Redis does not",
    "while_applying": "the script was sent to Redis, its answer not read",
    "half_way_through_apply": "one partition's script has run, another's has not",
}


class Faults:
    """The marker, and the one planned fault."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._step: str | None = plan.get("step")
        self._left: int = plan.get("nth", 1)
        self._number = signal.SIGSTOP if plan.get("action") == "stop" else signal.SIGKILL
        self._delay: float = plan.get("delay", 0.0)
        assert self._step is None or self._step in STEPS, self._step
        with Path(plan["marker"]).open("w+b") as file:
            file.truncate(64)
            self._marker = mmap.mmap(file.fileno(), 64)
        self.batch = 2  # records that the last consume() gave
        self.unwritten = 0  # partitions of the committed batch that were not written to Redis yet
        self.now("starting")

    def now(self, step: str) -> None:
        """This step runs from here on."""
        self.step = step
        self._marker[:64] = step.encode().ljust(64, b"\0")

    def wants(self, step: str) -> bool:
        return self._step == step

    def passing(self, step: str) -> None:
        """The named moment: strike if it is planned and this is its n-th pass."""
        if self._step != step:
            return
        self._left -= 1
        if self._left == 0:
            self._step = None
            self.now(step)
            self._strike()

    def shortly(self, step: str) -> None:
        """As `passing`, but from another thread and `delay` seconds later, while the call that follows is under way."""
        if self._step != step:
            return
        self._left -= 1
        if self._left == 0:
            self._step = None

            def strike() -> None:
                time.sleep(self._delay)  # not a wait for something: the moment in the call is what is chosen
                self.now(step)
                self._strike()

            threading.Thread(target=strike, daemon=True).start()

    def _strike(self) -> None:
        os.kill(os.getpid(), self._number)
        if self._number == signal.SIGSTOP:
            time.sleep(0)  # the signal is taken here; SIGCONT goes on here


def install(faults: Faults) -> None:
    """Wrap the clients. Must run before the service's code is imported."""
    _wrap_kafka(faults)
    _wrap_redis(faults)


def _wrap_kafka(faults: Faults) -> None:
    confluent_kafka.Consumer = _consumer(faults)  # type: ignore[misc]
    confluent_kafka.Producer = _producer(faults)  # type: ignore[misc]


def _consumer(faults: Faults) -> type:
    class Consumer(confluent_kafka.Consumer):
        def subscribe(self, topics: list[str], **callbacks: Any) -> None:
            on_assign = callbacks.get("on_assign")

            def assigned(consumer: Any, partitions: Any) -> None:
                if partitions:
                    faults.now("while_joining")
                    faults.passing("while_joining")
                on_assign(consumer, partitions)
                if partitions:
                    faults.now("while_seating")

            faults.now("while_joining")
            super().subscribe(topics, **{**callbacks, "on_assign": assigned})

        def poll(self, *args: Any) -> Any:
            if faults.step == "half_way_through_apply":
                faults.now("polling")
            found = super().poll(*args)
            if found is not None and faults.step == "polling":
                faults.now("before_begin")
            return found

        def consume(self, *args: Any, **named: Any) -> Any:
            found = super().consume(*args, **named)
            if found:
                faults.batch = len(found)
            return found

    return Consumer


def _producer(faults: Faults) -> type:
    class Producer(confluent_kafka.Producer):
        _produced = 0

        def begin_transaction(self) -> None:
            faults.passing("before_begin")
            super().begin_transaction()
            self._produced = 0
            self._half = max(2, faults.batch // 2)
            faults.now("producing")

        def produce(self, *args: Any, **named: Any) -> None:
            super().produce(*args, **named)
            self._produced += 1
            if self._produced == self._half and faults.wants("half_way_through_produce"):
                self.flush(5)  # that half is in the log when it strikes
                faults.passing("half_way_through_produce")

        def send_offsets_to_transaction(self, *args: Any) -> None:
            faults.unwritten = len(args[0])
            faults.now("sending offsets")
            super().send_offsets_to_transaction(*args)
            faults.passing("after_send_offsets")

        def commit_transaction(self, *args: Any) -> None:
            faults.now("while_committing")
            faults.shortly("while_committing")
            super().commit_transaction(*args)
            faults.now("after_commit")
            faults.passing("after_commit")

        def abort_transaction(self, *args: Any) -> None:
            faults.now("aborting")
            super().abort_transaction(*args)

        def init_transactions(self, *args: Any) -> None:
            faults.now("opening the producer")
            super().init_transactions(*args)

    return Producer


def _wrap_redis(faults: Faults) -> None:
    from redis.connection import AbstractConnection  # noqa: PLC0415 — after Kafka's wrapping

    from state.store import RedisStore  # noqa: PLC0415

    in_script = False

    def applying(method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            nonlocal in_script
            faults.now("while_applying")
            in_script = True
            try:
                return method(*args, **named)
            finally:
                in_script = False
                faults.now("half_way_through_apply")
                faults.unwritten -= 1
                if faults.unwritten > 0:
                    faults.passing("half_way_through_apply")

        return wrapped

    def seating(method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            faults.now("while_seating")
            found = method(*args, **named)
            faults.passing("while_seating")
            return found

        return wrapped

    read_response = AbstractConnection.read_response

    def wrapped_read_response(*args: Any, **named: Any) -> Any:
        if in_script:
            faults.passing("while_applying")
        return read_response(*args, **named)

    RedisStore.write = applying(RedisStore.write)  # type: ignore[method-assign]
    RedisStore.read_meta = seating(RedisStore.read_meta)  # type: ignore[method-assign]
    AbstractConnection.read_response = wrapped_read_response  # type: ignore[method-assign]


def main() -> int:
    plan, sys.argv = json.loads(sys.argv[1]), ["downtick", *sys.argv[2:]]
    install(Faults(plan))
    from consumer.cli import main as downtick  # noqa: PLC0415 — the wrapping comes first

    return downtick()


if __name__ == "__main__":
    sys.exit(main())
