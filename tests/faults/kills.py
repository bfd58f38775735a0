"""Random kills: workers die by `kill -9` at moments nobody chose, under a load that never pauses; then the proof.

A series is one system with one kind of membership. Two workers share six partitions, a third joins and leaves in
between. Successors wait warm (loaded, unknown to Kafka), so that a dead worker's place is taken at once; half of the
kills come while the group still settles from the one before. The input topic is stamped by the broker (LogAppendTime),
so that the log itself tells which records were waiting when a kill struck."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from tests.faults.conftest import NewSystem
from tests.support.processes import wait_until
from tests.support.readers import Record
from tests.support.system import System

if TYPE_CHECKING:
    from tests.support.service import Service

SETTLED = 90  # seconds a group may take to share the partitions again, on a machine that does other things too
PAUSE = 1.5  # seconds: a kill comes up to so long after the moment from which it may
SPARES = 2  # warm successors that are prepared ahead
THIRD_COMES, THIRD_GOES = 1, 3  # before which kill of every four
_PARTITIONS = 6

_QUICK = {"session.timeout.ms": "3000", "heartbeat.interval.ms": "300"}
_EAGER = {**_QUICK, "partition.assignment.strategy": "range"}
_COOPERATIVE = {**_QUICK, "partition.assignment.strategy": "cooperative-sticky"}
_KIP_848 = {"group.protocol": "consumer"}
_STATIC = {"kafka.static_membership": "true"}


@dataclass(frozen=True)
class Membership:
    """How workers share partitions: librdkafka options, and settings by dotted name."""

    consumer: Mapping[str, str]
    settings: Mapping[str, str] = field(default_factory=dict)


MEMBERSHIPS = {
    "eager, dynamic": Membership(_EAGER),
    "eager, static": Membership(_EAGER, _STATIC),
    "cooperative, dynamic": Membership(_COOPERATIVE),
    "cooperative, static": Membership(_COOPERATIVE, _STATIC),
    "KIP-848, dynamic": Membership(_KIP_848),
    # Not static: there a killed member's place is free only when its session ends, which librdkafka calls fatal.
}


@dataclass
class Kill:
    """One `kill -9`. `waiting` counts the records that were in the log then, uncommitted, of partitions that no other
    worker held."""

    worker: str
    step: str  # that ran when it struck (tests/support/launcher.py)
    after: float  # seconds since the series began
    workers: int  # that were alive before it
    settling: bool  # whether the group may still have been settling from the change before
    waiting: int = 0
    moment_ms: int = field(default=0, repr=False)
    committed: dict[int, int] = field(default_factory=dict, repr=False)
    elsewhere: set[int] = field(default_factory=set, repr=False)  # partitions that other workers held


@dataclass
class Series:
    """What one series found. It is proven when `check` passed: otherwise it raised."""

    membership: str
    seed: int
    kills: list[Kill] = field(default_factory=list)
    records: int = 0
    predictions: int = 0
    dead_letters: int = 0
    seconds: float = 0.0


class _Crew:
    """The live workers of a system, and the warm successors of those that are to die or to come, in that order."""

    def __init__(self, system: System, plan: list[str]) -> None:
        self._system, self._plan = system, plan
        self._spares: list[Service] = []
        self.alive: dict[str, Service] = {}
        self._prepare()

    def _prepare(self) -> None:
        while self._plan and len(self._spares) < SPARES:
            self._spares.append(self._system.spare(self._plan.pop(0)))

    def start(self, *names: str) -> None:
        for name in names:
            self.alive[name] = self._system.worker(name).start(faults=[])

    def enter(self, name: str) -> None:
        """The next spare, which was made for this name, comes alive."""
        spare = self._spares.pop(0)
        assert spare.worker == name, "the plan and its execution differ"
        self.alive[name] = self._system.take_over(spare)
        self._prepare()

    def wait_for_spare(self) -> None:
        self._spares[0].wait_for_fault(within=120)

    def wait_until_settled(self) -> None:
        """All partitions are held by live workers, and all of them are ready."""
        wait_until(self._settled, within=SETTLED, what=self._told, every=0.1)

    def _settled(self) -> bool:
        for name, worker in self.alive.items():
            assert worker.running, f"{name} ended with {worker.process.exit_code}\n{worker.process.tail()}"
        if not all(worker.ready for worker in self.alive.values()):
            return False
        return sum(worker.metric("assigned_partitions") for worker in self.alive.values()) == _PARTITIONS

    def _told(self) -> str:
        told = [f"{name}: {worker.get('/ready')}\n{worker.process.tail(25)}" for name, worker in self.alive.items()]
        return "the group has settled\n" + "\n".join(told)


def _plan(rng: random.Random, kills: int) -> list[tuple[str, str]]:
    """What happens in which order: ("kill" | "come" | "go", worker)."""
    alive, plan = ["one", "two"], []
    for number in range(kills):
        if number % 4 == THIRD_COMES:
            alive.append("three")
            plan.append(("come", "three"))
        if number % 4 == THIRD_GOES:
            alive.remove("three")
            plan.append(("go", "three"))
        plan.append(("kill", rng.choice(alive)))
    return plan


def run_series(
    new_system: NewSystem,
    membership: str,
    kills: int,
    seed: int,
    *,
    rate: float = 1_000,
    on_kill: Callable[[Kill], None] = lambda _: None,
) -> Series:
    """Kill so often, let the log be worked off, and prove that everything came out exactly once.

    Raises: AssertionError, naming the seed, with what differs."""
    print(f"kills: {membership}, {kills} of them, seed {seed}")
    rng, chosen = random.Random(seed), MEMBERSHIPS[membership]
    series, began = Series(membership, seed), time.monotonic()
    system = new_system(
        consumer=dict(chosen.consumer),
        settings=dict(chosen.settings),
        input_config={"message_timestamp_type": "LogAppendTime"},
    )
    with system:
        readers = system.watch()
        with system.load(seed=seed, stocks=120, rate=rate):
            plan = _plan(rng, kills)
            crew = _Crew(system, [name for what, name in plan if what != "go"])
            crew.start("one", "two")
            crew.wait_until_settled()
            for what, name in plan:
                if what == "kill":
                    kill = _kill(system, crew, name, rng, began)
                    series.kills.append(kill)
                    crew.enter(name)
                    on_kill(kill)
                elif what == "come":
                    crew.wait_for_spare()
                    crew.enter(name)
                else:
                    crew.alive.pop(name).terminate()
            crew.wait_until_settled()
        system.wait_until_done(within=120)
        log = system.log()
        try:
            expected = system.check(readers, log=log)
        except AssertionError as error:
            raise AssertionError(f"{membership}, seed {seed}, {kills} kills: {error}") from error
        _count_waiting(series.kills, log)
    assert len(expected.predictions) > 1_000, "too little came out to prove anything"
    series.records, series.predictions = len(log), len(expected.predictions)
    series.dead_letters = len(expected.dead_letters)
    series.seconds = round(time.monotonic() - began, 1)
    return series


def _kill(system: System, crew: _Crew, name: str, rng: random.Random, began: float) -> Kill:
    settling = rng.random() < 0.5
    crew.wait_for_spare()
    if not settling:
        crew.wait_until_settled()
    threading.Event().wait(rng.uniform(0, PAUSE))  # the moment of the kill is what chance decides
    victim, workers = crew.alive[name], len(crew.alive)
    elsewhere = _held_by_others(system, name)
    moment_ms = time.time_ns() // 1_000_000
    assert victim.running, f"{name} ended by itself with {victim.process.exit_code}\n{victim.process.tail()}"
    victim.kill()
    committed = system.broker.committed(system.group, system.input_topic, stable=False)
    return Kill(
        worker=name,
        step=victim.step(),
        after=round(time.monotonic() - began, 1),
        workers=workers,
        settling=settling,
        moment_ms=moment_ms,
        committed=committed,
        elsewhere=elsewhere,
    )


def _held_by_others(system: System, name: str) -> set[int]:
    try:
        held = system.broker.assignments(system.group)
    except KafkaException:
        return set()
    return {number for member, numbers in held if member != name for number in numbers}


def _count_waiting(kills: list[Kill], log: list[Record]) -> None:
    """Committed at the kill (asked just after it, so rather too high) against the records that the log had then."""
    for kill in kills:
        kill.waiting = sum(
            record.timestamp <= kill.moment_ms
            and record.partition not in kill.elsewhere
            and record.offset >= kill.committed.get(record.partition, 0)
            for record in log
        )
