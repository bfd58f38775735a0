"""What people see of Redis, and what they may do to it while a worker runs."""

import pytest

from state import inspect
from state.layout import Delta, record_dtype
from state.store import Broken, Outcome, RedisStore
from tests.support.fold import Fold, load_all, meta_at
from tests.support.redis_fixtures import MakeStore


def fill(store: RedisStore, partition: int, *stocks: str) -> Fold:
    fold = Fold()
    delta = fold.batch(*stocks)
    assert store.write(partition, None, meta_at(fold.watermark), delta) is Outcome.APPLIED
    return fold


def test_partitions_are_found_by_their_keys_and_no_one_elses(make_store: MakeStore) -> None:
    store, elsewhere = make_store(), make_store(topic="prices-2")
    assert inspect.partitions(store) == []
    assert inspect.show(store) == []
    for partition in (11, 0, 3):
        fill(store, partition, "A")
    fill(elsewhere, 7, "A")
    assert inspect.partitions(store) == [0, 3, 11]
    assert [state.partition for state in inspect.show(elsewhere)] == [7]


def test_a_partition_is_shown_with_its_size_and_its_leftovers(store: RedisStore) -> None:
    names = [f"S{number}" for number in range(500)]
    fold = fill(store, 0, *names, *names)
    assert store.stage(0, meta_at(999), "g2", 8, Fold().batch("A")) is Outcome.APPLIED
    (shown,) = inspect.show(store)
    assert shown.meta == meta_at(fold.watermark)
    assert shown.stocks == 500
    assert shown.old_generations == ["g2"]
    rings = 500 * 2 * record_dtype(1).itemsize
    assert rings < shown.bytes < 3 * rings


def test_what_is_left_of_a_partition_without_meta_is_shown(store: RedisStore) -> None:
    fill(store, 5, "A", "h:b", "c:stocks")
    store.ask(5, "DEL", store.keys(5).meta)
    (shown,) = inspect.show(store)
    assert (shown.partition, shown.meta, shown.old_generations) == (5, None, ["g1"])


def test_a_stock_is_found_in_whichever_partition_it_lives(store: RedisStore) -> None:
    fill(store, 0, "A")
    fold = fill(store, 4, "A:b/c", *"X" * 11)
    (found,) = inspect.find(store, "X")
    assert (found.partition, found.meta) == (4, meta_at(11))
    assert found.records.tobytes() == fold.rings["X"][-8:].tobytes()
    (found,) = inspect.find(store, "A:b/c")
    assert found.records.tobytes() == fold.rings["A:b/c"].tobytes()
    assert inspect.find(store, "Y") == []


def test_a_stock_in_two_partitions_is_found_twice(store: RedisStore) -> None:
    fill(store, 0, "A")
    fill(store, 1, "A", "A")
    assert [(found.partition, len(found.records)) for found in inspect.find(store, "A")] == [(0, 1), (1, 2)]


def test_a_broken_ring_is_not_shown_as_a_history(store: RedisStore) -> None:
    fill(store, 0, "A")
    store.ask(0, "APPEND", store.keys(0).ring("g1", "A"), "x")
    assert inspect.find(store, "A") == []


def test_reset_deletes_all_of_a_partition_and_nothing_else(store: RedisStore) -> None:
    fill(store, 0, "A", "B")
    kept = fill(store, 1, "A")
    ten = fill(store, 10, "A")
    assert store.stage(0, meta_at(1), "g2", 8, Fold().batch("A")) is Outcome.APPLIED
    inspect.resume(store, 0)
    assert inspect.reset(store, 0) == 7  # meta, resume, two sets, three rings
    assert store.read_meta(0) is None
    assert not store.take_resume(0)
    assert [state.partition for state in inspect.show(store)] == [1, 10]
    kept.assert_loaded(load_all(store, 1, meta_at(0), 1, 8), 8)
    ten.assert_loaded(load_all(store, 10, meta_at(0), 1, 8), 8)
    assert inspect.reset(store, 0) == 0


def test_a_running_worker_meets_a_reset_as_a_conflict_and_can_begin_anew(make_store: MakeStore) -> None:
    worker, operator = make_store(), make_store()
    fold = fill(worker, 0, "A", "B")
    inspect.reset(operator, 0)
    assert worker.write(0, meta_at(1), meta_at(2), fold.batch("A")) is Outcome.CONFLICT
    assert worker.stage(0, meta_at(1), "g2", 8, fold.rewrite("AB")) is Outcome.CONFLICT
    assert worker.read_meta(0) is None
    assert worker.stage(0, None, "g3", 8, fold.rewrite("AB")) is Outcome.APPLIED
    assert worker.write(0, None, meta_at(2, generation="g3"), Delta.empty(1)) is Outcome.APPLIED
    fold.assert_loaded(load_all(worker, 0, meta_at(2, generation="g3"), 1, 8), 8)


def test_a_reset_leaves_a_generation_alone_that_began_after_it(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, operator = make_store(), make_store()
    fill(worker, 0, "A", "B")
    anew = Fold()
    scan = inspect._scan

    def scan_while_the_worker_seats_again(server: object, pattern: str) -> object:
        if operator.read_meta(0) is None and not anew.rings:
            assert worker.write(0, None, meta_at(1, generation="g2"), anew.batch("A", "B")) is Outcome.APPLIED
        return scan(server, pattern)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(inspect, "_scan", scan_while_the_worker_seats_again)
    assert inspect.reset(operator, 0) == 4
    anew.assert_loaded(load_all(worker, 0, meta_at(1, generation="g2"), 1, 8), 8)
    assert worker.write(0, meta_at(1, generation="g2"), meta_at(2, generation="g2"), anew.batch("A")) != Broken([0])


def test_a_resume_is_noticed_once_and_does_not_wait_for_ever(make_store: MakeStore) -> None:
    worker, operator = make_store(), make_store()
    inspect.resume(operator, 2)
    assert 0 < operator.ask(2, "TTL", operator.keys(2).resume) <= inspect.RESUME_SECONDS
    assert worker.take_resume(2)
    assert not worker.take_resume(2)
