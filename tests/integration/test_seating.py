"""The seating table on Apache Kafka: each row provoked from outside, by what an operator or retention does to offsets,
topics, keys and settings while the service is down.

One system has a partition for each row, so that one start of the service seats them all; a test judges its partition.
What happens to Redis while the service lives is in test_seating_redis.py."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from confluent_kafka import Producer

from consumer.sandbox import EmbeddedRedis
from tests.support.broker import Broker
from tests.support.chapters import Chapter, Story, dump, key, put_back, rings_of, watermark, write
from tests.support.load import PRODUCER, Event, events
from tests.support.processes import wait_until
from tests.support.reference_model import KerasModel
from tests.support.system import System
from tests.support.together import Together

SEED = 4_200
START = 150  # seconds for a start; it takes five on a quiet machine
FIRST, MORE, LAST = 150, 60, 60  # events of a partition before a snapshot, after it, and while the service is down
MAX_RECORDS = 250
LONG = 300  # further events of the partition that is longer than MAX_RECORDS
EARLY = 50  # events that are in the log before the service first starts, with kafka.start=latest
REWOUND_BY, FORWARDED_BY = 40, 30

ROWS = [
    *["in_step", "rewound", "forwarded", "offsets_deleted", "past_watermark", "past_committed", "transactional"],
    *["ring_deleted", "ring_a_list", "stocks_deleted", "meta_deleted", "too_long", "snapshot", "latest"],
]
PARTITION = {row: number for number, row in enumerate(ROWS)}
STOPPED = [PARTITION["offsets_deleted"], PARTITION["past_committed"]]
RUNNING = [number for number in PARTITION.values() if number not in STOPPED]


@dataclass
class Found:
    """What the scenarios noted."""

    chapters: dict[str, Chapter] = field(default_factory=dict)
    ready: str = ""  # what /ready said of the stopped partitions
    committed_at_once: dict[int, int] = field(default_factory=dict)  # right after the first start
    starts: dict[int, int] = field(default_factory=dict)  # of the log, after retention
    exits: dict[str, tuple[int, str]] = field(default_factory=dict)  # code and log of a worker that refused
    untouched: bool = False  # Redis and offsets were the same after it


@pytest.fixture(scope="module")
def found(
    apache: Broker, shared_redis: EmbeddedRedis, model: KerasModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Found]]:
    def system(name: str, partitions: int, **settings: str) -> System:
        folder = tmp_path_factory.mktemp(name)
        given = {name.replace("__", "."): value for name, value in settings.items()}
        return System(folder, apache, shared_redis.url, model, partitions=partitions, settings=given)

    scenarios: dict[str, Callable[[], Found]] = {
        "rows": lambda: _rows(system("rows", len(ROWS), kafka__start="latest", restore__max_records=str(MAX_RECORDS))),
        "recreated": lambda: _recreated(system("recreated", 3)),
    }
    print(f"seating: seed {SEED}")
    with Together(scenarios, 2) as together:
        yield together.result


# --- the scenarios


def _rows(system: System) -> Found:
    found = Found()
    sources = {partition: events(SEED + partition, 2, trouble=0.05) for partition in PARTITION.values()}

    def some(count: int, *rows: int) -> dict[int, list[Event]]:
        """The next events of each partition but the transactional one, or of the named ones."""
        chosen = rows or [p for p in PARTITION.values() if p != PARTITION["transactional"]]
        return {partition: list(itertools.islice(sources[partition], count)) for partition in chosen}

    with system:
        readers = system.watch()
        story, broker = Story(system), system.broker
        story.produce(some(EARLY, PARTITION["latest"]))
        worker = system.worker().start().wait_ready(START)
        found.committed_at_once = system.committed()
        story.produce(some(FIRST))
        story.produce(some(LONG, PARTITION["too_long"]))
        _transactions(system, sources[PARTITION["transactional"]], 100, -20, 50)
        story.wait_until_handled()
        snapshots = {row: dump(system, PARTITION[row]) for row in ("past_watermark", "snapshot")}
        story.produce(some(MORE))
        _transactions(system, sources[PARTITION["transactional"]], 30, -15)
        story.wait_until_handled()
        worker.terminate()
        first = found.chapters["first"] = story.end_chapter()

        for row, dumped in snapshots.items():
            put_back(system, PARTITION[row], dumped)
        _damage_redis(system)
        story.produce(some(LAST))
        found.starts = _move_offsets_and_retain(system, first)
        worker.start()
        story.wait_until_handled(RUNNING)
        for partition in STOPPED:
            wait_until(
                lambda p=partition: f"partition {p} is stopped" in worker.get("/ready")[1], within=30, what="stop"
            )  # type: ignore[misc]
        found.ready = worker.get("/ready")[1]
        assert worker.live
        second = story.end_chapter(worker)
        found.chapters["moved"] = second
        worker.terminate()

        _transactions(system, sources[PARTITION["transactional"]], 20)
        worker.start("--accept-gap", history__depth="40").wait_ready(START)
        story.produce(some(MORE))
        story.wait_until_handled()
        found.chapters["narrow"] = story.end_chapter(worker)
        worker.terminate()

        worker.start(history__depth="200").wait_ready(START)
        story.produce(some(MORE))
        story.wait_until_handled()
        found.chapters["wide"] = story.end_chapter(worker)

        # A newer program has written there: this one meets its layout at its next write.
        at = key(system, PARTITION["in_step"], "meta")
        system.redis.hset(at, mapping={"layout": "99", "generation": "ofanewerprogram"})
        story.produce(some(10, PARTITION["in_step"]))
        found.exits["layout"] = worker.process.wait(START), worker.process.tail()
        worker.start()  # and this one finds it there
        found.exits["layout at start"] = worker.process.wait(START), worker.process.tail()
        found.untouched = system.redis.hget(at, "generation") == b"ofanewerprogram"
        broker.wait_until_empty(system.group)
        readers[0].finish(system.predictions())
        readers[1].finish(system.dead_letters())
    return found


def _transactions(system: System, source: Iterator[Event], *sizes: int) -> None:
    """A transaction for each size: committed, or aborted where it is negative."""
    partition = PARTITION["transactional"]
    options = {**PRODUCER, "message.timeout.ms": "30000", "transactional.id": f"feed-{system.group}"}
    producer = Producer({"bootstrap.servers": system.broker.bootstrap_servers, **options})
    producer.init_transactions(30)
    for size in sizes:
        producer.begin_transaction()
        write(producer, system.input_topic, {partition: list(itertools.islice(source, abs(size)))})
        producer.commit_transaction(30) if size > 0 else producer.abort_transaction(30)


def _damage_redis(system: System) -> None:
    """All of these while the service is down."""
    _, rings = rings_of(system, PARTITION["ring_deleted"])
    assert system.redis.delete(min(rings.values()))
    _, rings = rings_of(system, PARTITION["ring_a_list"])
    assert system.redis.delete(max(rings.values()))
    system.redis.rpush(max(rings.values()), "1", "2")
    stocks, _ = rings_of(system, PARTITION["stocks_deleted"])
    assert system.redis.delete(stocks)
    for row in ("meta_deleted", "too_long", "transactional"):
        assert system.redis.delete(key(system, PARTITION[row], "meta"))


def _move_offsets_and_retain(system: System, first: Chapter) -> dict[int, int]:
    """Start offsets afterwards."""
    committed = dict(first.committed)
    committed[PARTITION["rewound"]] -= REWOUND_BY
    committed[PARTITION["forwarded"]] += FORWARDED_BY
    committed[PARTITION["transactional"]] = first.ends[PARTITION["transactional"]]  # behind the control records
    del committed[PARTITION["offsets_deleted"]]
    system.broker.delete_group(system.group)
    system.broker.alter_offsets(system.group, system.input_topic, committed)
    past = PARTITION["past_watermark"]
    w = watermark(system, past)
    assert w is not None
    assert w + 11 < committed[past]
    before = {past: w + 11, PARTITION["past_committed"]: committed[PARTITION["past_committed"]] + 5}
    system.broker.delete_records(system.input_topic, before)
    return system.broker.start_offsets(system.input_topic)


def _recreated(system: System) -> Found:
    found = Found()
    sources = {partition: events(SEED + 100 + partition, 2, trouble=0.05) for partition in range(3)}

    def some(count: int) -> dict[int, list[Event]]:
        return {partition: list(itertools.islice(source, count)) for partition, source in sources.items()}

    with system:
        story = Story(system)
        story.produce(some(FIRST))
        worker = system.worker().start().wait_ready(START)
        story.wait_until_handled()
        worker.terminate()
        found.chapters["first"] = story.end_chapter()

        # The other cluster first: after it, the very same state serves again.
        metas = [key(system, partition, "meta") for partition in range(3)]
        own = system.redis.hget(metas[0], "cluster_id")
        system.redis.hset(metas[0], "cluster_id", "of-another-kafka")
        story.produce(some(MORE))
        worker.start()
        found.exits["cluster"] = worker.process.wait(START), worker.process.tail()
        found.untouched = system.redis.hget(metas[0], "cluster_id") == b"of-another-kafka"
        system.redis.hset(metas[0], "cluster_id", own)
        refused = found.chapters["refused"] = story.end_chapter()
        assert refused.predictions == []

        system.broker.wait_until_empty(system.group)
        system.broker.recreate_topic(system.input_topic, 3)
        story.produce(some(FIRST))
        story.note_log(new=True)
        # Kafka deletes the group's offsets with the topic; for one partition an operator sets one in the new log.
        system.broker.alter_offsets(system.group, system.input_topic, {1: 70})
        worker.start().wait_ready(START)
        story.wait_until_handled()
        found.chapters["recreated"] = story.end_chapter(worker)
        worker.terminate()
    return found


# --- the rows

Results = Callable[[str], Found]


def _check(
    found: Results, model: KerasModel, row: str, told: str, *, fold_from: int = 0, output_from: int | None = None
) -> Chapter:
    """The partition's chapter after what was done to it, and the one after that."""
    chapters, partition = found("rows").chapters, PARTITION[row]
    chapter = chapters["moved"]
    assert chapter.row(partition) == told
    expected = chapter.check([partition], model, fold_from=fold_from, output_from=output_from)
    assert expected.predictions or row == "past_watermark"
    return chapter


def test_before_anything_happens_every_partition_is_right(found: Results, model: KerasModel) -> None:
    chapter = found("rows").chapters["first"]
    assert {chapter.row(partition) for partition in PARTITION.values()} == {"first start"}
    usual = set(PARTITION.values()) - {PARTITION["latest"]}
    assert len(chapter.check(usual, model).predictions) > 1_000


def test_kafka_start_latest_begins_at_the_logs_end_and_says_so_to_the_group_at_once(
    found: Results, model: KerasModel
) -> None:
    at_once = found("rows").committed_at_once
    assert at_once == dict.fromkeys(PARTITION.values(), 0) | {PARTITION["latest"]: EARLY}
    first = found("rows").chapters["first"]
    assert first.check([PARTITION["latest"]], model, fold_from=EARLY, output_from=EARLY).predictions
    _check(found, model, "latest", "in step", fold_from=EARLY)


def test_in_step_goes_on_where_it_was(found: Results, model: KerasModel) -> None:
    _check(found, model, "in_step", "in step")


def test_offsets_rewound_are_published_again_from_a_rebuilt_history(found: Results, model: KerasModel) -> None:
    chapter = _check(
        found,
        model,
        "rewound",
        "offsets rewound",
        output_from=found("rows").chapters["first"].committed[PARTITION["rewound"]] - REWOUND_BY,
    )
    assert chapter.outputs_of(PARTITION["rewound"]) > LAST


def test_offsets_forwarded_are_folded_without_output(found: Results, model: KerasModel) -> None:
    before = found("rows").chapters["first"].committed[PARTITION["forwarded"]]
    _check(found, model, "forwarded", "catch up", output_from=before + FORWARDED_BY)


def test_offsets_deleted_stop_the_partition_until_the_gap_is_accepted(found: Results, model: KerasModel) -> None:
    partition = PARTITION["offsets_deleted"]
    first, moved, after = (found("rows").chapters[name] for name in ("first", "moved", "narrow"))
    w = first.committed[partition] - 1
    assert f"partition {partition} is stopped: the group has no committed offset" in found("rows").ready
    assert f"Redis holds histories up to offset {w}" in found("rows").ready
    assert f"resume at offset {w + 1} with `downtick run --accept-gap`" in found("rows").ready
    assert partition not in moved.committed
    assert moved.outputs_of(partition) == 0
    assert after.row(partition) == "in step"
    after.check([partition], model, output_from=w + 1, depth=40)  # not one record is missing or repeated


def test_retention_past_the_watermark_begins_the_histories_anew(found: Results, model: KerasModel) -> None:
    partition = PARTITION["past_watermark"]
    start = found("rows").starts[partition]
    chapter = _check(found, model, "past_watermark", "gap", fold_from=start)
    assert f"partition {partition}: 10 records that its histories were made of have left the log" in chapter.said


def test_retention_past_the_committed_offset_stops_the_partition_until_the_gap_is_accepted(
    found: Results, model: KerasModel
) -> None:
    partition = PARTITION["past_committed"]
    first, moved, after = (found("rows").chapters[name] for name in ("first", "moved", "narrow"))
    start = found("rows").starts[partition]
    assert start == first.committed[partition] + 5
    assert f"the group's next offset {start - 5} lies outside the log [{start}, " in found("rows").ready
    assert moved.committed[partition] == start - 5
    assert moved.outputs_of(partition) == 0
    assert after.row(partition) == "gap accepted"
    after.check([partition], model, fold_from=start, output_from=start, depth=40)
    assert f"partition {partition}: 5 records that its histories were made of have left the log" in after.said
    assert after.metric("history_gap_records_total") == 5


def test_missing_records_are_counted(found: Results) -> None:
    too_long = found("rows").chapters["first"].committed[PARTITION["too_long"]] - MAX_RECORDS
    assert found("rows").chapters["moved"].metric("history_gap_records_total") == 10 + too_long


def test_a_restore_ends_at_the_control_records_of_a_transactional_input(found: Results, model: KerasModel) -> None:
    partition = PARTITION["transactional"]
    first = found("rows").chapters["first"]
    assert first.ends[partition] == 220  # 215 events and 5 markers
    assert max(record.offset for record in first.log if record.partition == partition) == 202  # then only aborted ones
    moved = _chapter_of_the_transactional(found, model)
    assert moved.row(partition) == "no watermark"
    assert f"partition {partition} " not in found("rows").ready, "its restore has ended"
    narrow = found("rows").chapters["narrow"]
    assert len(narrow.check([partition], model, output_from=220, depth=40).predictions) > 10


def _chapter_of_the_transactional(found: Results, model: KerasModel) -> Chapter:
    moved = found("rows").chapters["moved"]
    due = moved.check([PARTITION["transactional"]], model, output_from=220)
    assert not due.predictions, "nothing is there behind the committed offset"
    return moved


def test_one_ring_deleted_before_a_start(found: Results, model: KerasModel) -> None:
    _check(found, model, "ring_deleted", "rings broken")


def test_one_ring_turned_into_a_list_before_a_start(found: Results, model: KerasModel) -> None:
    _check(found, model, "ring_a_list", "rings broken")


def test_the_set_of_stocks_deleted_before_a_start(found: Results, model: KerasModel) -> None:
    _check(found, model, "stocks_deleted", "rings broken")


def test_the_meta_key_deleted_before_a_start(found: Results, model: KerasModel) -> None:
    _check(found, model, "meta_deleted", "no watermark")


def test_a_log_longer_than_restore_max_records_is_folded_from_that_far_back(found: Results, model: KerasModel) -> None:
    c = found("rows").chapters["first"].committed[PARTITION["too_long"]]
    assert c == FIRST + LONG + MORE
    _check(found, model, "too_long", "no watermark", fold_from=c - MAX_RECORDS)


def test_a_partitions_keys_put_back_from_a_snapshot_before_a_start(found: Results, model: KerasModel) -> None:
    _check(found, model, "snapshot", "catch up")


def _everybody(found: Results, chapter: Chapter, model: KerasModel, depth: int) -> None:
    """All partitions of a later chapter, each folded from where its log or its rebuild began."""
    first, starts = found("rows").chapters["first"], found("rows").starts
    fold_from = {
        PARTITION["latest"]: EARLY,
        PARTITION["too_long"]: first.committed[PARTITION["too_long"]] - MAX_RECORDS,
        PARTITION["past_watermark"]: starts[PARTITION["past_watermark"]],
        PARTITION["past_committed"]: starts[PARTITION["past_committed"]],
    }
    chapter.check([p for p in RUNNING if p not in fold_from], model, depth=depth)
    for partition, start in fold_from.items():
        if partition in RUNNING or chapter is not found("rows").chapters["narrow"]:
            chapter.check([partition], model, fold_from=start, depth=depth)
    for partition in PARTITION.values():
        assert chapter.image.hgetall(key(chapter.system, partition, "meta"))[b"depth"] == str(depth).encode()


def test_depth_changed_down(found: Results, model: KerasModel) -> None:
    chapter = found("rows").chapters["narrow"]
    assert f"partition {PARTITION['in_step']}: converting rings of depth 128 to 40" in chapter.said
    _everybody(found, chapter, model, 40)


def test_depth_changed_up(found: Results, model: KerasModel) -> None:
    chapter = found("rows").chapters["wide"]
    assert f"partition {PARTITION['in_step']}: converting rings of depth 40 to 200" in chapter.said
    _everybody(found, chapter, model, 200)


def test_a_newer_layout_is_refused(found: Results) -> None:
    for met in ("layout", "layout at start"):
        code, said = found("rows").exits[met]
        assert code == 1
        assert "the histories in Redis have layout 99, this program knows up to 1: run the newer version" in said
    assert found("rows").untouched


def test_another_kafka_clusters_histories_are_refused(found: Results, model: KerasModel) -> None:
    code, said = found("recreated").exits["cluster"]
    assert code == 1
    assert "the histories in Redis belong to Kafka cluster 'of-another-kafka', this is " in said
    assert "Set another redis.key_prefix, or delete them with `downtick state reset`" in said
    assert found("recreated").untouched
    found("recreated").chapters["first"].check(range(3), model)


def test_topic_recreated_is_another_timeline(found: Results, model: KerasModel) -> None:
    chapter = found("recreated").chapters["recreated"]
    assert {chapter.row(partition) for partition in range(3)} == {"topic recreated"}
    assert chapter.check([0, 2], model, output_from=0).predictions
    assert chapter.check([1], model, output_from=70).predictions
