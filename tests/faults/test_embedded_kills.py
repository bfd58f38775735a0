"""`kill -9` on the embedded broker: with range assignment and static membership, as `sandbox` and `demo` run it.

That broker never expires a session: a successor of the same name takes the place at once. Two chains of successors,
each killed at the next step; at its end every output is the reference's, exactly once, and Redis the fold.

The second reader reads anew after each kill instead of living through it: that broker goes on to list an aborted
transaction to fetches behind it, and the client then drops whatever that producer writes later."""

from collections.abc import Callable, Iterator

import pytest

from consumer.sandbox import EmbeddedRedis
from tests.support.broker import Broker
from tests.support.processes import wait_until
from tests.support.readers import Record, read
from tests.support.reference import Expected
from tests.support.reference_model import KerasModel
from tests.support.service import Fault, Service
from tests.support.system import System
from tests.support.together import Together

PATIENCE = 150  # seconds for a start or a strike; five on a quiet machine
CHAINS = {
    "around the transaction": [
        Fault("before_begin", nth=20),
        Fault("half_way_through_produce", nth=20),
        Fault("after_send_offsets", nth=20),
        Fault("while_committing", nth=20, delay=0.001),
    ],
    "around Redis and the group": [
        Fault("after_commit", nth=20),
        Fault("while_seating", nth=3),  # of six partitions
        Fault("while_applying", nth=60),
        Fault("half_way_through_apply", nth=10),
        Fault("while_joining"),
    ],
}
SEEDS = dict(zip(CHAINS, (4_600, 4_601), strict=True))
Result = tuple[list[str], Expected]


@pytest.fixture(scope="module")
def chains(
    embedded: Broker, shared_redis: EmbeddedRedis, model: KerasModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Together[Result]]:
    def chain(name: str, folder: str) -> Callable[[], Result]:
        path = tmp_path_factory.mktemp(folder)

        def run() -> Result:
            system = System(
                path,
                embedded,
                shared_redis.url,
                model,
                consumer={"partition.assignment.strategy": "range"},
                settings={"kafka.static_membership": "true"},
            )
            with system:
                return _killed_again_and_again(system, CHAINS[name], SEEDS[name])

        return run

    with Together({name: chain(name, f"chain-{number}") for number, name in enumerate(CHAINS)}, 2) as together:
        yield together


def _killed_again_and_again(system: System, faults: list[Fault], seed: int) -> Result:
    struck: list[str] = []
    seen: list[list[Record]] = []
    with system.load(seed=seed, stocks=60, rate=300):
        worker = system.worker().start(faults=faults[:1])
        for following in [*([fault] for fault in faults[1:]), []]:
            spare = system.spare("one", *following)
            struck.append(worker.wait_for_fault(PATIENCE))
            worker = system.take_over(spare, PATIENCE)
            wait_until(lambda: _opened(worker), within=PATIENCE, what="the killed worker's transaction is aborted")  # noqa: B023  # waited for here
            seen.append(read(system.broker, system.output_topic, whole=False))
        worker.wait_ready(PATIENCE)
        before = worker.metric("events_consumed_total")
        wait_until(
            lambda: worker.metric("events_consumed_total") > before + 500,
            within=PATIENCE,
            what=lambda: f"the last successor works under load\n{worker.process.tail()}",
        )
    system.wait_until_done(PATIENCE)
    expected, predictions = system.check(), system.predictions()
    for early in seen:
        assert _starts_with(predictions, early), "a reader saw then what is not there now"
    return struck, expected


def _opened(worker: Service) -> bool:
    return worker.step() not in {"starting", "before_opening", "opening the producer"}


def _starts_with(records: list[Record], early: list[Record]) -> bool:
    """Whether each partition's records begin with the early ones of that partition."""
    last = {record.partition: record.offset for record in early}
    return [record for record in records if record.offset <= last.get(record.partition, -1)] == early


@pytest.mark.parametrize("name", CHAINS)
def test_killed_at_each_step_on_the_embedded_broker_nothing_is_lost_or_repeated(
    chains: Together[Result], name: str
) -> None:
    struck, expected = chains.result(name)
    assert struck == [fault.step for fault in CHAINS[name]]
    assert len(expected.predictions) > 1_000
    assert expected.dead_letters
