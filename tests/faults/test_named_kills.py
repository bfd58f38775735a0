"""`kill -9` at each named step of the engine, on Apache Kafka, under a load that never pauses.

The faults are placed from outside (tests/support/launcher.py). After the kill a successor of the same name takes over;
then every output must be the reference's, exactly once, and Redis the fold of the log."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.faults.acts import SHORT
from tests.faults.conftest import NewSystem, scenario
from tests.support.processes import wait_until
from tests.support.service import Fault
from tests.support.system import PREFIX, System


@dataclass(frozen=True)
class Outcome:
    """What was found right after the kill, by partition."""

    step: str
    committed: dict[int, int]  # the group's next offsets
    applied: dict[int, int]  # next offsets by Redis
    aborted_records: bool  # the output topic holds records that no transaction committed


STEPS = {
    "while_joining": Fault("while_joining"),
    "while_seating": Fault("while_seating", nth=3),  # of six partitions
    "before_begin": Fault("before_begin", nth=20),
    "half_way_through_produce": Fault("half_way_through_produce", nth=20),
    "after_send_offsets": Fault("after_send_offsets", nth=20),
    "while_committing": Fault("while_committing", nth=20, delay=0.001),
    "after_commit": Fault("after_commit", nth=20),
    "while_applying": Fault("while_applying", nth=60),
    "half_way_through_apply": Fault("half_way_through_apply", nth=10),
}


def _applied(system: System) -> dict[int, int]:
    metas = {
        partition: system.redis.hget(f"{PREFIX}:{{{system.group}/{system.input_topic}/{partition}}}:meta", "watermark")
        for partition in range(6)
    }
    return {partition: int(watermark) + 1 for partition, watermark in metas.items() if watermark is not None}


def _killed_at(fault: Fault, seed: int) -> Callable[[NewSystem], Outcome]:
    def run(new_system: NewSystem) -> Outcome:
        with new_system(consumer=SHORT) as system:
            readers = system.watch()
            with system.load(seed=seed, stocks=60, rate=500):
                worker = system.worker().start(faults=[fault])
                spare = system.spare("one")
                step = worker.wait_for_fault()
                outcome = Outcome(
                    step,
                    system.broker.committed(system.group, system.input_topic, stable=False),
                    _applied(system),
                    _uncommitted(system),
                )
                system.take_over(spare).wait_ready()
                before = spare.metric("events_consumed_total")
                wait_until(
                    lambda: spare.metric("events_consumed_total") > before + 500,
                    within=30,
                    what="the successor works under load",
                )
            system.wait_until_done()
            expected = system.check(readers)
            assert len(expected.predictions) > 1_000
            assert expected.dead_letters
            return outcome

    return run


def _uncommitted(system: System) -> bool:
    ends = system.broker.end_offsets(system.output_topic)
    return ends != system.broker.end_offsets(system.output_topic, committed=True)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step, marks=scenario(_killed_at(fault, seed)), id=step)
        for seed, (step, fault) in enumerate(STEPS.items(), start=100)
    ],
)
def test_killed_at_a_named_step_nothing_is_lost_or_repeated(outcome: Outcome, step: str) -> None:
    found = outcome
    assert found.step == step
    # That the kill struck where its name says is seen from outside, too.
    behind = {p for p, committed in found.committed.items() if found.applied.get(p, 0) < committed}
    if step == "after_commit":
        assert behind, "Kafka has the batch, Redis must not"
    if step == "half_way_through_apply":
        assert behind, "some partition was not written"
        assert behind != found.committed.keys(), "some partition was written"
    if step == "half_way_through_produce":
        assert found.aborted_records, "half of the batch is in the log, uncommitted"
    if step in {"before_begin", "half_way_through_produce", "after_send_offsets"}:
        assert not behind, "Redis holds no more and no less than what is committed"
