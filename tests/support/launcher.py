"""Starts the service with faults placed in it from outside: `python -m tests.support.launcher PLAN run …`.

The service has no switch for this. Before its code is imported, the clients it will use are wrapped: librdkafka's
Producer and Consumer, the Redis store's public methods, and redis-py's reading of an answer. Each wrapper writes the
step that now runs into a small shared file, so that whoever kills the process at random can name the step it hit; and
at the n-th pass of the planned step the process kills (or stops) itself, in the very thread and moment.

PLAN is JSON: {"marker": path, "faults": [{"step": name, "nth": 1, "action": name, "delay": seconds}, …]}. Actions:
"kill"; "stop" (SIGSTOP: all of it stands still); "hold": the engine's thread stands still while librdkafka's go on, as
in a call that does not return. A held one makes the file <marker>.held, and goes on when somebody deletes it.
The faults strike in this order, each once: the next one's `nth` counts passes from then on. Without faults only the
marker is kept. With "not_finite": value, the model has no finite answer for windows that end in this value."""

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
    "before_opening": "warm, but nothing was said to Kafka yet: where a spare worker waits until it is needed",
    "while_joining": "the group has given partitions, the service has not seen them yet",
    "while_seating": "a partition's meta was read, the partition is not seated",
    "before_begin": "a batch is in hand, no transaction is open",
    "half_way_through_produce": "half of the batch's first records are in the log, not committed",
    "after_send_offsets": "the transaction has everything, the commit was not asked for",
    "while_committing": "the commit is under way",
    "after_commit": "Kafka has the batch, Redis does not",
    "while_applying": "the script was sent to Redis, its answer not read",
    "half_way_through_apply": "the scripts of half of the partitions have run, the others' have not",
}


class Faults:
    """The marker, and the planned faults."""

    def __init__(self, marker: Path, planned: list[dict[str, Any]]) -> None:
        self._planned = planned
        self._held = marker.with_name(marker.name + ".held")
        for fault in planned:
            assert fault["step"] in STEPS, fault
        self.batch = 2  # records that the last consume() gave
        with marker.open("w+b") as file:
            file.truncate(64)
            self._marker = mmap.mmap(file.fileno(), 64)
        self.now("starting")

    def now(self, step: str) -> None:
        """This step runs from here on."""
        self.step = step
        self._marker[:64] = step.encode().ljust(64, b"\0")

    def wants(self, step: str) -> bool:
        """Whether the next fault is planned for this step."""
        return bool(self._planned) and self._planned[0]["step"] == step

    def _due(self, step: str) -> dict[str, Any] | None:
        if not self.wants(step):
            return None
        fault = self._planned[0]
        fault["nth"] = fault.get("nth", 1) - 1
        return self._planned.pop(0) if fault["nth"] == 0 else None

    def passing(self, step: str) -> None:
        """The named moment: strike if this is the planned pass."""
        fault = self._due(step)
        if fault is not None:
            self._strike(step, fault)

    def shortly(self, step: str) -> None:
        """As `passing`, but from another thread and `delay` seconds later, while the call that follows is under way."""
        fault = self._due(step)
        if fault is not None:
            # Not a wait for something: the moment within the call is what the plan chooses.
            threading.Timer(fault.get("delay", 0.0), self._strike, (step, fault)).start()

    def _strike(self, step: str, fault: dict[str, Any]) -> None:
        self.now(step)
        action = fault.get("action", "kill")
        if action == "hold":
            self._held.touch()
            while self._held.exists():
                time.sleep(0.01)
        elif action == "stop":
            # To this thread: sent to the process it may stop another first, and this one runs on for a moment.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        else:
            os.kill(os.getpid(), signal.SIGKILL)


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
            if faults.step == "applied":
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
            if faults.step == "starting":
                faults.passing("before_opening")
            faults.now("opening the producer")
            super().init_transactions(*args)

    return Producer


def _wrap_redis(faults: Faults) -> None:
    from redis.connection import AbstractConnection  # noqa: PLC0415 — after Kafka's wrapping

    from state.store import RedisStore  # noqa: PLC0415

    in_script = False

    def applying(method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(store: Any, writes: Any) -> Any:
            nonlocal in_script
            faults.now("while_applying")
            in_script = True
            try:
                if len(writes) > 1 and faults.wants("half_way_through_apply"):
                    # What a connection that breaks half-way leaves. Who survives it sends all of it, as after a break.
                    method(store, writes[: len(writes) // 2])
                    faults.now("half_way_through_apply")
                    faults.passing("half_way_through_apply")
                return method(store, writes)
            finally:
                in_script = False
                faults.now("applied")

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

    RedisStore.write_all = applying(RedisStore.write_all)  # type: ignore[method-assign]
    RedisStore.read_meta = seating(RedisStore.read_meta)  # type: ignore[method-assign]
    AbstractConnection.read_response = wrapped_read_response  # type: ignore[method-assign]


def _wrap_model(unlucky: float) -> None:
    import numpy as np  # noqa: PLC0415 — after Kafka's wrapping

    from model.predictor import Predictor  # noqa: PLC0415

    predict = Predictor.predict

    def wrapped(predictor: Predictor, windows: Any) -> Any:
        predictions = predict(predictor, windows)
        predictions.forecast[windows[:, -1, 0] == unlucky] = np.nan
        return predictions

    Predictor.predict = wrapped  # type: ignore[method-assign]


def main() -> int:
    plan, sys.argv = json.loads(sys.argv[1]), ["downtick", *sys.argv[2:]]
    install(Faults(Path(plan["marker"]), plan["faults"]))
    if plan["not_finite"] is not None:
        _wrap_model(plan["not_finite"])
    from consumer.cli import main as downtick  # noqa: PLC0415 — the wrapping comes first

    return downtick()


if __name__ == "__main__":
    sys.exit(main())
