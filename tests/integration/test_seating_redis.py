"""The seating table where Redis loses, ages or changes what it holds: while the service lives, and while it is down.

Memory holds all that predictions need, so that a service that lives never misses a prediction; one that starts folds
the log. Under load, on Apache Kafka, each system with a Redis of its own."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.broker import Broker
from tests.support.chapters import Chapter, Story, key, rings_of
from tests.support.processes import wait_until
from tests.support.redis_servers import RedisServer
from tests.support.reference_model import KerasModel
from tests.support.service import Service
from tests.support.system import System
from tests.support.together import Together

SEED = 4_300
START = 150  # seconds for a start; it takes five on a quiet machine
PARTITIONS = range(6)
OLD = 5.0  # seconds: the age of a snapshot that is put back
RATE = 500

Chapters = dict[str, Chapter]
Results = Callable[[str], Chapters]


@pytest.fixture(scope="module")
def found(apache: Broker, model: KerasModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    def scenario(name: str, tell: Callable[[System, RedisServer], Chapters]) -> Callable[[], Chapters]:
        folder = tmp_path_factory.mktemp(name)

        def run() -> Chapters:
            redis = RedisServer(folder / "redis").start()
            try:
                with System(folder, apache, redis.url, model, partitions=len(PARTITIONS)) as system:
                    readers = system.watch()
                    chapters = tell(system, redis)
                    readers[0].finish(system.predictions())
                    readers[1].finish(system.dead_letters())
                    return chapters
            finally:
                redis.close()

        return run

    with Together({"live": scenario("live", _live), "down": scenario("down", _down)}, 2) as together:
        yield together.result


def _load_until(worker: Service, happened: Callable[[], object], what: str) -> None:
    """The load flows until that has happened, and the worker then works for some hundred events more."""
    wait_until(happened, within=60, what=lambda: f"{what}\n{worker.process.tail()}")
    consumed = worker.metric("events_consumed_total")
    wait_until(
        lambda: worker.metric("events_consumed_total") > consumed + 300 and worker.ready,
        within=60,
        what=lambda: f"work goes on after: {what}; {worker.get('/ready')}\n{worker.process.tail()}",
    )


def _metas(system: System, redis: RedisServer) -> bool:
    return redis.answers() and all(system.redis.exists(key(system, partition, "meta")) for partition in PARTITIONS)


def _live(system: System, redis: RedisServer) -> Chapters:
    chapters: Chapters = {}
    story = Story(system)
    worker = system.worker().start().wait_ready(START)

    def chapter(name: str, happen: Callable[[], Callable[[], object]]) -> None:
        with system.load(seed=SEED, stocks=60, rate=RATE):
            happened = happen()
            _load_until(worker, happened, name)
        story.wait_until_handled()
        chapters[name] = story.end_chapter(worker)

    def consumed() -> Callable[[], bool]:
        return lambda: worker.metric("events_consumed_total") > 60 * 40

    def damaged() -> Callable[[], bool]:
        _, rings = rings_of(system, 0)
        assert system.redis.delete(min(rings.values()))
        _, rings = rings_of(system, 1)
        at = max(rings.values())
        pipeline = system.redis.pipeline(transaction=True)
        pipeline.delete(at)
        pipeline.rpush(at, "1", "2")
        pipeline.execute()
        stocks, _ = rings_of(system, 2)
        assert system.redis.delete(stocks)
        assert system.redis.delete(key(system, 3, "meta"))
        told = [
            *("1 rings of partition 0 were damaged", "1 rings of partition 1 were damaged"),
            *("the set of stocks of partition 2 was damaged", "Redis lost the histories of partition 3"),
        ]
        return lambda: all(worker.says(line) for line in told)

    def flushed() -> Callable[[], bool]:
        redis.flush()
        return lambda: _metas(system, redis)

    def emptied() -> Callable[[], bool]:
        redis.kill()
        (redis.folder / "dump.rdb").unlink(missing_ok=True)
        redis.start()
        assert redis.call("DBSIZE") < len(PARTITIONS) * 60, "it starts without its keys"
        return lambda: _metas(system, redis)

    def put_back() -> Callable[[], bool]:
        snapshot, taken = redis.snapshot(), time.monotonic()
        wait_until(lambda: time.monotonic() - taken >= OLD, within=60, what="the snapshot is old")
        redis.restore(snapshot)
        return lambda: story.said(worker).count("seated (catch up)") >= len(PARTITIONS)

    chapter("filled", consumed)
    chapter("damaged", damaged)
    chapter("flushed", flushed)
    chapter("emptied", emptied)
    chapter("put back", put_back)
    worker.terminate()
    return chapters


def _down(system: System, redis: RedisServer) -> Chapters:
    chapters: Chapters = {}
    story = Story(system)
    worker = system.worker().start().wait_ready(START)
    with system.load(seed=SEED + 1, stocks=60, rate=RATE):
        wait_until(lambda: worker.metric("events_consumed_total") > 60 * 40, within=60, what="histories")
    story.wait_until_handled()
    worker.terminate()
    chapters["filled"] = story.end_chapter()

    redis.flush()
    with system.load(seed=SEED + 1, stocks=60, rate=RATE):
        worker.start().wait_ready(START)
        _load_until(worker, lambda: _metas(system, redis), "flushed while down")
    story.wait_until_handled()
    chapters["flushed"] = story.end_chapter(worker)

    with system.load(seed=SEED + 1, stocks=60, rate=RATE):
        snapshot, taken = redis.snapshot(), time.monotonic()
        wait_until(lambda: time.monotonic() - taken >= OLD, within=60, what="the snapshot is old")
        worker.terminate()
        redis.restore(snapshot)
        worker.start().wait_ready(START)
        _load_until(worker, lambda: True, "put back while down")
    story.wait_until_handled()
    chapters["put back"] = story.end_chapter(worker)
    worker.terminate()
    return chapters


def _rows(chapter: Chapter) -> set[str]:
    return {chapter.row(partition) for partition in PARTITIONS}


@pytest.fixture(scope="module")
def live(found: Results, model: KerasModel) -> Callable[[str], Chapter]:
    """A chapter of the service that lives on, proven."""

    def chapter(name: str) -> Chapter:
        chapter = found("live")[name]
        assert len(chapter.check(PARTITIONS, model).predictions) > 300
        return chapter

    return chapter


# --- while the service lives


def test_one_ring_deleted_while_live(live: Callable[[str], Chapter]) -> None:
    live("filled")
    damaged = live("damaged")
    assert "1 rings of partition 0 were damaged in Redis" in damaged.said
    assert damaged.metric("rings_repaired_total") == 2


def test_one_ring_turned_into_a_list_while_live(live: Callable[[str], Chapter]) -> None:
    assert "1 rings of partition 1 were damaged in Redis" in live("damaged").said


def test_the_set_of_stocks_deleted_while_live(live: Callable[[str], Chapter]) -> None:
    assert "the set of stocks of partition 2 was damaged in Redis: writing it anew" in live("damaged").said


def test_the_meta_key_deleted_while_live(live: Callable[[str], Chapter]) -> None:
    assert "Redis lost the histories of partition 3: writing all" in live("damaged").said


def test_redis_flushed_while_live(live: Callable[[str], Chapter]) -> None:
    flushed = live("flushed")
    assert all(f"Redis lost the histories of partition {partition}" in flushed.said for partition in PARTITIONS)
    assert "seated" not in flushed.said, "memory was enough"


def test_redis_restarted_empty_while_live(live: Callable[[str], Chapter]) -> None:
    emptied = live("emptied")
    assert all(f"Redis lost the histories of partition {partition}" in emptied.said for partition in PARTITIONS)


def test_redis_put_back_from_a_snapshot_5_s_old_while_live(live: Callable[[str], Chapter]) -> None:
    assert _rows(live("put back")) == {"catch up"}


# --- while it is down


def test_redis_flushed_while_down(found: Results, model: KerasModel) -> None:
    found("down")["filled"].check(PARTITIONS, model)
    flushed = found("down")["flushed"]
    assert _rows(flushed) == {"no watermark"}
    assert flushed.check(PARTITIONS, model).predictions


def test_redis_put_back_from_a_snapshot_5_s_old_while_down(found: Results, model: KerasModel) -> None:
    back = found("down")["put back"]
    assert _rows(back) == {"catch up"}
    assert len(back.check(PARTITIONS, model).predictions) > OLD * RATE / 2
