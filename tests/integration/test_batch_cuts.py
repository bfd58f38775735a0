"""One log in batches of 1, 7 and 4096: the same predictions to the last bit, and the same Redis.

A batch is where the engine takes what is there; nothing that comes out may depend on it. One stock occurs so often that
a single batch holds more of its updates than its ring in Redis does."""

import itertools
import json
from collections.abc import Callable, Iterator

import pytest

from consumer.sandbox import EmbeddedRedis
from tests.support.broker import Broker
from tests.support.chapters import Chapter, Story, key
from tests.support.load import Event, events
from tests.support.readers import Record
from tests.support.reference_model import KerasModel
from tests.support.system import System
from tests.support.together import Together

SEED = 4_400
DEPTH = 40  # a little more than the model's reach of 32
HOT, OTHERS = 300, 300  # events of the one stock, and of ten others
SIZES = ["1", "7", "4096"]
START = 150  # seconds for a start; it takes five on a quiet machine


def _log() -> list[Event]:
    """The hot stock's events, with the others' in between in their order."""
    hot, others = events(SEED, 1, trouble=0.03), events(SEED + 1, 11, trouble=0.03)
    rest = (event for event in others if event.key != b"AAPL")  # which is the hot one
    return list(itertools.chain.from_iterable(zip(itertools.islice(hot, HOT), rest, strict=False)))


@pytest.fixture(scope="module")
def ran(
    embedded: Broker, shared_redis: EmbeddedRedis, model: KerasModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Chapter]]:
    print(f"batch cuts: seed {SEED}")

    def system(size: str) -> System:
        return System(
            tmp_path_factory.mktemp(f"batches-of-{size}"),
            embedded,
            shared_redis.url,
            model,
            partitions=1,
            consumer={"partition.assignment.strategy": "range"},
            settings={"history.depth": str(DEPTH), "batch.max_events": size, "batch.max_wait": "1"},
        )

    systems = {size: system(size) for size in SIZES}
    first = systems[SIZES[0]]
    for other in systems.values():  # one log for all
        other.input_topic = other.settings["kafka.input_topic"] = first.input_topic
    assert first.produce(_log()) == HOT + OTHERS

    def run(size: str) -> Chapter:
        with systems[size] as system:
            story = Story(system)
            worker = system.worker().start().wait_ready(START)
            story.wait_until_handled()
            return story.end_chapter(worker)

    with Together({size: lambda size=size: run(size) for size in SIZES}, 2) as together:  # type: ignore[misc]
        yield together.result


def _by_source(predictions: list[Record]) -> dict[tuple[int, int], tuple[bytes | None, ...]]:
    found = {}
    for record in predictions:
        source = json.loads(record.value or b"")["source"]
        found[source["partition"], source["offset"]] = (record.key, record.value, *(v for _, v in record.headers))
    return found


@pytest.mark.parametrize("size", SIZES)
def test_whatever_the_batches_everything_is_the_references(
    ran: Callable[[str], Chapter], model: KerasModel, size: str
) -> None:
    expected = ran(size).check([0], model, depth=DEPTH)
    assert len(expected.predictions) > HOT / 2
    assert any(update.flipped for update in expected.predictions.values())


def test_batches_were_cut_as_set(ran: Callable[[str], Chapter]) -> None:
    batches = {size: ran(size).metric("batch_events_count") for size in SIZES}
    assert batches["1"] == HOT + OTHERS
    assert (HOT + OTHERS) / 7 <= batches["7"] < HOT
    assert batches["4096"] == 1, "more than `depth` events of one stock in one batch"


def test_whatever_the_batches_predictions_are_the_same_to_the_last_bit(ran: Callable[[str], Chapter]) -> None:
    one = _by_source(ran("1").predictions)
    assert _by_source(ran("7").predictions) == one
    assert _by_source(ran("4096").predictions) == one


def test_whatever_the_batches_redis_is_the_same_to_the_last_bit(ran: Callable[[str], Chapter]) -> None:
    def rings(chapter: Chapter) -> dict[str, object]:
        meta = chapter.image.hgetall(key(chapter.system, 0, "meta"))
        generation = meta[b"generation"].decode()
        stocks = chapter.image.smembers(key(chapter.system, 0, generation, "stocks"))
        return {
            stock.decode(): chapter.image.get(key(chapter.system, 0, generation, "h", stock.decode()))
            for stock in stocks
        }

    one = rings(ran("1"))
    assert len(one) == 11
    assert rings(ran("7")) == one
    assert rings(ran("4096")) == one
