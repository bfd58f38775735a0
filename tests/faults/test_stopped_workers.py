"""A worker stands still (SIGSTOP) for longer than its session, another takes its partitions, then it wakes up.

It still believes in its partitions, and has a batch, a transaction or a commit in hand: none may come true twice."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.acts import PARTITIONS, SHORT, holds, moves_on, share, undone, works_on
from tests.faults.conftest import NewSystem, scenario
from tests.support.service import Fault


@dataclass(frozen=True)
class Woken:
    """What the worker that stood still had to say afterwards."""

    undone: float
    conflict: bool


def _stopped_at(step: str, seed: int) -> Callable[[NewSystem], Woken]:
    def run(new_system: NewSystem) -> Woken:
        with new_system(consumer=SHORT) as system:
            readers = system.watch()
            with system.load(seed=seed, stocks=60, rate=500):
                two = system.worker("two").start()
                holds(two, PARTITIONS)
                one = system.worker("one").start(faults=[Fault(step, nth=10, action="stop")])
                assert one.wait_for_fault() == step
                moves_on(system, system.broker.committed(system.group, system.input_topic, stable=False))
                one.process.resume()
                share(one, two)
                works_on(one)
                woken = Woken(undone(one), one.says("another writer"))
            system.wait_until_done()
            system.check(readers)
            return woken

    return run


@scenario(_stopped_at("before_begin", 201))
def test_a_worker_that_stood_still_with_a_batch_in_hand_is_fenced(outcome: Woken) -> None:
    assert outcome.undone >= 1


@scenario(_stopped_at("after_send_offsets", 202), first=True)
def test_a_worker_that_stood_still_in_a_transaction_is_fenced(outcome: Woken) -> None:
    """Its successor waits for the broker to end that transaction: its offsets are not stable before."""
    assert outcome.undone >= 1


@scenario(_stopped_at("after_commit", 203))
def test_a_worker_that_stood_still_between_commit_and_apply_writes_nothing_late(outcome: Woken) -> None:
    assert outcome.conflict, "its write met a Redis that another worker had brought further"
