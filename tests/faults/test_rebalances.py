"""Partitions are lost, or lost and regained, or move to a third worker, while a batch is in hand; and a rollout."""

from dataclasses import dataclass

from tests.faults.acts import PARTITIONS, SHORT, SLOW, holds, moves_on, share, undone, works_on
from tests.faults.conftest import NewSystem, scenario
from tests.support.service import Fault


@dataclass(frozen=True)
class Seen:
    """Counters of the worker that it happened to."""

    undone: float
    lost: float
    assigned: float


def lost_and_regained(new_system: NewSystem) -> Seen:
    """Alone in its group, it sleeps beyond its session: the same partitions come back to it."""
    with new_system(consumer=SHORT) as system:
        readers = system.watch()
        with system.load(seed=301, stocks=60, rate=500):
            one = system.worker("one").start(faults=[Fault("before_begin", nth=30, action="stop")])
            one.wait_for_fault()
            system.broker.wait_until_empty(system.group)
            one.process.resume()
            works_on(one)
            holds(one, PARTITIONS)
            rebalances = [one.metric("rebalances_total", event=event) for event in ("lost", "assigned")]
            seen = Seen(undone(one), *rebalances)
        system.wait_until_done()
        system.check(readers)
        return seen


def too_slow_to_poll(new_system: NewSystem) -> Seen:
    """Its engine hangs for longer than max.poll.interval.ms, heartbeats go on: it leaves, another takes over."""
    with new_system(consumer=SHORT | {"max.poll.interval.ms": "5000"}) as system:
        readers = system.watch()
        with system.load(seed=302, stocks=60, rate=500):
            two = system.worker("two").start()
            holds(two, PARTITIONS)
            one = system.worker("one").start(faults=[Fault("before_begin", nth=10, action="hold")])
            one.wait_until_held()
            moves_on(system, system.committed())
            one.let_go()
            share(one, two)
            works_on(one)
            rebalances = [one.metric("rebalances_total", event=event) for event in ("lost", "assigned")]
            seen = Seen(undone(one), *rebalances)
        system.wait_until_done()
        system.check(readers)
        return seen


def joined_in_mid_transaction(new_system: NewSystem) -> Seen:
    """A third worker joins while the first has produced and not yet sent its offsets. Cooperative members rejoin in the
    background, so that the group's generation moves on under the open transaction."""
    with new_system(consumer=SHORT | {"partition.assignment.strategy": "cooperative-sticky"}) as system:
        readers = system.watch()
        with system.load(seed=303, stocks=60, rate=500):
            two = system.worker("two").start()
            holds(two, PARTITIONS)
            third = system.spare("three")
            one = system.worker("one").start(faults=[Fault("half_way_through_produce", nth=10, action="hold")])
            third.wait_for_fault()
            one.wait_until_held()
            before = undone(one)
            system.take_over(third).wait_ready(90)  # a member, which takes a generation that one has joined as well
            one.let_go()
            share(one, two, third)
            works_on(one)
            rebalances = [one.metric("rebalances_total", event=event) for event in ("lost", "assigned")]
            seen = Seen(undone(one) - before, *rebalances)
        system.wait_until_done()
        system.check(readers)
        return seen


def rolled_out(new_system: NewSystem) -> list[list[float]]:
    """What the two workers of one partition hold, after each step of a rollout: the worker that was replaced is ready
    before the next one stops, as Kubernetes does it with a StatefulSet."""
    with new_system(partitions=1, consumer=SHORT) as system:
        readers = system.watch()
        with system.load(seed=304, stocks=20, rate=50):
            workers = [system.worker(name).start() for name in ("pod-0", "pod-1")]
            for worker in workers:
                worker.wait_ready(SLOW)
            held = []
            for worker in reversed(workers):
                worker.terminate()
                worker.start().wait_ready(SLOW)
                moves_on(system, system.committed())
                assert all(one.ready for one in workers)
                held.append([one.metric("assigned_partitions") for one in workers])
        system.wait_until_done()
        system.check(readers)
        return held


@scenario(lost_and_regained)
def test_partitions_lost_and_regained_during_a_round(outcome: Seen) -> None:
    assert outcome.lost >= 1
    assert outcome.assigned >= 2
    assert outcome.undone >= 1, "the batch in hand belonged to a membership that had ended"


@scenario(too_slow_to_poll)
def test_partitions_lost_during_a_round_to_another_worker(outcome: Seen) -> None:
    assert outcome.lost >= 1
    assert outcome.undone >= 1


@scenario(joined_in_mid_transaction)
def test_a_rebalance_in_mid_transaction_is_aborted_and_done_again(outcome: Seen) -> None:
    assert outcome.undone >= 1


@scenario(rolled_out)
def test_a_rollout_completes_with_more_workers_than_partitions(outcome: list[list[float]]) -> None:
    assert [sorted(held) for held in outcome] == [[0, 1], [0, 1]], "one works, the other stands by, and both are ready"
